// Timeline: what the threads of one process were doing, moment by moment; and how much each process
// waited, second by second.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/model.h"

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

// Columns stand on a fixed grid of event time. What is booked otherwise later (light mode decides
// some ms later whether a thread held a GIL) is moved in the newest columns that have it.
class TimelineRecorder {
 public:
  static constexpr uint64_t kStep_ns = 5'000'000;
  static constexpr size_t kColumns = 2400;  // kept: 12 s
  static constexpr size_t kThreads = 256;   // at most; others are not shown

  // From now on, by number; 0: nobody.
  void watch(uint64_t process, Model& model);
  // To be called before each event, and at each tick: ends the columns that are over by `ts_ns`.
  void pass(Model& model, uint64_t ts_ns) {
    if (ts_ns >= next_ns_) [[unlikely]]
      end_columns(model, ts_ns);
  }
  Timeline timeline() const;

 private:
  using Cells = std::array<uint64_t, 16>;  // ns
  struct Row {
    uint64_t number = 0;
    const Thread* thread = nullptr;  // null: it has ended, and all of it is told
    uint32_t tid = 0;
    std::string comm;
    Cells told{};
    uint64_t undecided_ns = 0;             // of `told`, as ThreadSnapshot's
    std::deque<Timeline::Column> columns;  // the newest are as new as the timeline
    size_t empty = 0;                      // of them, at the end
  };

  void end_columns(Model& model, uint64_t ts_ns);
  void add_rows(const Process& process);
  static void add_column(Row& row, const EventTables& tables);

  uint64_t process_ = 0;
  uint64_t next_ns_ = ~uint64_t{0};  // end of the column under way
  uint64_t end_ns_ = 0;
  size_t columns_ = 0;  // as many as the longest row
  std::vector<Row> rows_;
};

// How much a process's threads waited, in threads' worth (1.0: one thread waited all the time).
class WaitHistory {
 public:
  static constexpr uint64_t kStep_ns = 1'000'000'000;
  static constexpr size_t kValues = 60;

  // As TimelineRecorder's.
  void pass(Model& model, uint64_t ts_ns) {
    if (ts_ns >= next_ns_) [[unlikely]]
      end_seconds(model, ts_ns);
  }
  // By number of the process, newest last.
  std::unordered_map<uint64_t, std::vector<float>> values() const;

 private:
  struct Of {
    uint64_t waited_ns = 0;
    std::deque<float> values;
    bool seen = false;
  };
  void end_seconds(Model& model, uint64_t ts_ns);
  void end_second(const Model& model);
  std::unordered_map<uint64_t, Of> processes_;
  uint64_t next_ns_ = 0;
};

}  // namespace giltop
