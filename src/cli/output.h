// What commands share: messages, signals, the invoking user.
#pragma once

#include <atomic>
#include <csignal>
#include <optional>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace giltop {

// "giltop: message" on stderr.
void say(const std::string& message);
void say(const Error& error);

// Writes `text` to `path`, "-" being stdout. Errors: it cannot be written.
Status write_text(const std::string& path, const std::string& text);
// The same; but a file that was there becomes FILE.old.
Status write_new_file(const std::string& path, const std::string& text);

// A place that is written to time and again.
class Output {
 public:
  // "-": stdout; else a file, emptied at the first write. Errors: it cannot be opened.
  static Result<Output> make(const std::string& path);
  // A file that was made here goes again if nothing was written.
  ~Output();
  Output(Output&&) = default;
  Output& operator=(Output&&) = default;
  static Result<Output> to_stderr() { return Output(Fd(), STDERR_FILENO, "stderr"); }

  // False: nobody reads it any more, or a signal came and the reader stalls. Errors: it cannot be
  // written.
  Result<bool> write(const std::string& text);
  // What comes now is what it was all for: only another signal ends it.
  void insist() { insists_ = true; }

 private:
  Output(Fd file, int fd, std::string name, bool is_new = false)
      : file_(std::move(file)), is_new_(is_new), fd_(fd), name_(std::move(name)) {}
  Fd file_;      // where it is our own
  bool is_new_;  // it was not there before
  bool begun_ = false, insists_ = false;
  int fd_;
  std::string name_;
};

struct User {
  uid_t uid;
  gid_t gid;
};
// Who typed sudo, when giltop runs as root under it (SUDO_UID, SUDO_GID).
std::optional<User> invoking_user();

// INT, TERM and HUP, while it lives: the first asks for an orderly end, the second ends at once.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  // In a forked child: what was ours is the default again, what was ignored stays ignored.
  static void reset_in_child();
  static bool stop_requested();
  // What is to be done before the second signal ends the process; only what signal handlers may do.
  static void at_once_after(void (*done)());
  // The signal that asked, when a process sent it rather than the terminal; else 0.
  static int sent_signal();

 private:
  struct sigaction before_[3];
};

}  // namespace giltop
