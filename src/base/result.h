// Result<T>: a value or an Error with chained context. Errors are returned, not thrown, and are
// printed once, at the top (design §8).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace giltop {

// What giltop's process exits with (design §6).
enum class Exit : int { ok = 0, failure = 1, usage = 2, blocker = 3, lost = 4 };

class [[nodiscard]] Error {
 public:
  explicit Error(std::string message, Exit exit = Exit::failure)
      : message_(std::move(message)), exit_(exit) {}

  // Returns the same error seen from one level up: "what: message".
  Error in(std::string_view what) && {
    message_ = std::string(what) + ": " + message_;
    return std::move(*this);
  }
  Error in(std::string_view what) const& { return Error(*this).in(what); }

  const std::string& message() const { return message_; }
  Exit exit() const { return exit_; }

 private:
  std::string message_;
  Exit exit_;
};

// `errno` in words behind what was being done; `error` is an errno value (positive).
Error system_error(std::string_view what, int error);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, Error> state_;
};

struct Unit {};
using Status = Result<Unit>;
inline Status ok() { return Unit{}; }

}  // namespace giltop
