// How a thread's state changes, and how time is booked: the innermost steps of both trackers.
#pragma once

#include <algorithm>

#include "model/model.h"

namespace giltop {

inline void Model::advance(Thread& thread, uint64_t ts_ns) {
  thread.matrix[static_cast<size_t>(thread.gil_state)][static_cast<size_t>(thread.cpu_state)] +=
      ts_ns - thread.last_ns;
  thread.last_ns = ts_ns;
}

inline void Model::set_gil_state(Thread& thread, GilState state, uint64_t ts_ns) {
  advance(thread, ts_ns);
  thread.gil_state = state;
  thread.state_since_ns = ts_ns;
  thread.state_since_known = state != GilState::unknown;
}

inline void Model::set_cpu_state(Thread& thread, CpuState state, uint64_t ts_ns) {
  if (thread.gil_state == GilState::holding && thread.gil) {
    thread.gil->advance(ts_ns);
    if (thread.cpu_state == CpuState::blocked && state != CpuState::blocked) {
      thread.held_sleeps++;
      const uint64_t slept_ns = ts_ns - thread.blocked_ns;
      thread.held_sleep_max_ns = std::max(thread.held_sleep_max_ns, slept_ns);
      thread.recent_held_sleep_max_ns = std::max(thread.recent_held_sleep_max_ns, slept_ns);
    }
  }
  if (state == CpuState::blocked) thread.blocked_ns = ts_ns;
  advance(thread, ts_ns);
  thread.cpu_state = state;
  thread.cpu_since_ns = ts_ns;
}

}  // namespace giltop
