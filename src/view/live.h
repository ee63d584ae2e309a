// The live view: what one frame of it shows, and what the user has set.
//
//   Model ──► Intervals ──► LiveFrame ─┐
//   keys ──► press() ──► LiveState ────┴─► live_screen() ──► Screen (cells) ──► tui paints
//
// All but the last is pure.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/snapshot.h"
#include "model/timeline.h"

namespace giltop {

struct LiveFrame {
  Snapshot interval;  // the last interval's figures, or all since the start or the last reset
  bool accumulated = false;  // the latter
  std::string host;          // its name
  std::string clock;         // "12:04:31", when the interval ended
  uint64_t clock_ms = 0;     // the same, since midnight; 0: not known
  double events_per_s = 0;
  double giltop_cpu = 0;           // CPUs' worth of giltop's own time in the interval
  uint64_t lost_events = 0;        // since the start
  std::vector<std::string> notes;  // what could not be traced, one line each
  // Waiting in threads' worth (1.0: one thread waited all the time), one value for each second,
  // newest last, at most 60; by the process's number.
  std::unordered_map<uint64_t, std::vector<float>> wait_history;
  Timeline timeline;  // of the process in LiveState::watched
};

}  // namespace giltop
