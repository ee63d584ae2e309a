// Guard: a small process that wakes whoever giltop holds stopped, should giltop be killed.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "base/fd.h"
#include "base/result.h"

namespace giltop {

// `held` is the kernel side's table of stopped processes (shared memory). The guard is forked
// before any probe is set and keeps nothing open but one end of a pipe; when that closes without a
// word, giltop is dead, and for a second it sends SIGCONT to every process in the table, while the
// kernel takes giltop's probes down. It does the same when giltop's heartbeat (boot clock, ns, set
// at every poll) is a second old: giltop is stopped itself, or stuck.
class Guard {
 public:
  static Result<Guard> make(uint32_t* held, size_t slots, unsigned long long* heartbeat_ns);
  Guard(Guard&&) noexcept;
  Guard& operator=(Guard&&) = delete;
  ~Guard();  // dismisses it

 private:
  Guard(pid_t pid, Fd pipe) : pid_(pid), pipe_(std::move(pipe)) {}
  pid_t pid_;
  Fd pipe_;
};

}  // namespace giltop
