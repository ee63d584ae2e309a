// The live view: what one frame of it shows, and what the user has set.
//
//   Model ──► Intervals ──► LiveFrame ─┐
//   keys ──► press() ──► LiveState ────┴─► live_screen() ──► Screen (cells) ──► tui (ncurses)
//   paints
//
// All but the last is pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

// The states of one process's threads over time, for the timeline of the detail view.
struct Timeline {
  // Parts of the column's time, in 1/255, [GilState * 4 + CpuState]; all 0: the thread was not
  // there.
  using Column = std::array<uint8_t, 16>;
  struct Row {
    uint64_t thread = 0;  // number
    uint32_t tid = 0;
    std::string comm;
    std::vector<Column> columns;  // newest last; all rows have as many
  };
  uint64_t process = 0;   // number; 0: none is watched
  uint64_t end_ns = 0;    // of the newest column
  uint64_t step_ns = 0;   // a column's width
  std::vector<Row> rows;  // in order of the threads' appearance
};

struct LiveFrame {
  Snapshot interval;  // the last interval's figures, or all since the start or the last reset
  bool accumulated = false;  // the latter
  std::string host;          // its name
  std::string clock;         // "12:04:31", when the interval ended
  uint64_t clock_ms = 0;             // the same, since midnight; 0: not known
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
