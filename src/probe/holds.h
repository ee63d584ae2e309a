// Holds: lets go of the processes that the kernel side holds (bpf/hold.bpf.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "probe/guard.h"

namespace giltop {

// A held process got SIGSTOP and has its mark in `slots`. While it is held, our heartbeat must go
// on: the kernel side holds nobody else without it, and the guard lets all go.
class Holds {
 public:
  // `slots`: GT_HELD_SLOTS of them, and the heartbeat, both shared with the kernel side.
  // Errors: the guard process cannot be started.
  static Result<Holds> make(uint32_t* slots, unsigned long long* heartbeat_ns);

  void beat();
  bool is_held(uint32_t tgid) const;  // false, too, when the guard has let it go
  void let_go(uint32_t tgid);
  void let_all_go();

  // A traced process went into a stop, at `ts_ns`: when it did so because its child was stopped by
  // us (su, script: they wait for a shell that continues them), it is continued at the next call of
  // continue_parents(). Not so when the stop is our own doing.
  void note_stopped(uint32_t tgid, uint64_t ts_ns) { stopped_.emplace_back(tgid, ts_ns); }
  void continue_parents();

 private:
  Holds(uint32_t* slots, unsigned long long* heartbeat_ns, Guard guard)
      : slots_(slots), heartbeat_ns_(heartbeat_ns), guard_(std::move(guard)) {}
  void watch_parent(uint32_t tgid);

  uint32_t* slots_;
  unsigned long long* heartbeat_ns_;
  Guard guard_;
  std::vector<std::pair<uint32_t, uint64_t>> stopped_;
  std::map<uint32_t, uint64_t> stopped_with_child_;  // parents of those we held; until when
  std::map<uint32_t, uint64_t> let_go_ns_;  // when; kept for as long as a parent is watched
};

}  // namespace giltop
