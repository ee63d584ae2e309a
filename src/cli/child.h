// Child: the command under `--`, held before its exec until it is traced.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "cli/output.h"

namespace giltop {

class Child {
 public:
  struct Options {
    std::vector<std::string> command;
    std::optional<User> user;  // to run it as, with that user's groups, HOME, USER, LOGNAME
    bool quiet = false;        // its output goes to /dev/null
    int output_fd = -1;        // stdout and stderr go there, stdin is empty; -1: they are ours
    std::string directory;     // to run it in; empty: here
  };

  // Forks; the child waits for go(). Errors: fork fails, the user is unknown.
  static Result<Child> make(const Options& options);
  Child(Child&&) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();  // a child that never got its go() is ended; one that runs is left alone

  pid_t pid() const { return pid_; }
  // Lets it execute the command.
  void go();
  // Whether the command's program has replaced ours; to be asked again and again while events are
  // polled, because the exec itself may wait for giltop. Errors: it cannot be executed (the exit
  // status is failed_status() then: 127 not found, 126 not executable).
  Result<bool> started();
  int failed_status() const { return failed_status_; }

  // Its exit status as a shell has it (128 + signal), or nothing while it runs.
  std::optional<int> poll();
  int wait();
  void signal(int number) const;

 private:
  Child(pid_t pid, Fd go, Fd error, std::string name)
      : pid_(pid), go_(std::move(go)), error_(std::move(error)), name_(std::move(name)) {}
  pid_t pid_;
  Fd go_;
  Fd error_;
  std::string name_;
  bool ran_ = false;
  bool started_ = false;
  int failed_status_ = 0;
  std::optional<int> status_;
};

}  // namespace giltop
