// Little-endian loads from a byte buffer, each checked against its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace giltop {

// T at `offset`, or nothing where the buffer ends before it. Host is little-endian (x86-64, AArch64).
template <typename T>
std::optional<T> load(std::span<const std::byte> bytes, uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// The NUL-terminated string at `offset`; empty where there is none or no NUL before the end.
inline std::string_view load_string(std::span<const std::byte> bytes, uint64_t offset) {
  if (offset >= bytes.size()) return {};
  const auto* start = reinterpret_cast<const char*>(bytes.data()) + offset;
  const auto* end = static_cast<const char*>(std::memchr(start, 0, bytes.size() - offset));
  if (end == nullptr) return {};
  return {start, static_cast<size_t>(end - start)};
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace giltop
