// Histograms of waits, holds and hand-offs: whose they are, summed up from a snapshot.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

enum class HistKind : uint8_t { wait, hold, handoff };
inline constexpr HistKind kHistKinds[] = {HistKind::wait, HistKind::hold, HistKind::handoff};
const char* to_string(HistKind kind);  // "wait", "hold", "handoff"

enum class HistGroup : uint8_t { all, process, thread };

// The values of one kind, of one thread, one process or all.
struct HistSeries {
  HistKind kind = HistKind::wait;
  bool all = false;                  // of all that is traced, whoever that is
  std::optional<uint32_t> pid, tid;  // nothing: of several, or of what has ended and is summed up
  std::string name;                  // of the process or thread
  uint64_t process = 0;  // its process's number, which a pid's next owner has not; 0: not known
  HistogramSnapshot values;
  // How often the GIL was taken, and of it after a wait. Not known of light mode: nothing.
  std::optional<uint64_t> acquires;
  uint64_t contended = 0;
};

// Whether how long the GIL was held is not known, rather than that it never was: light mode
// samples.
bool holds_unknown(const HistSeries& series);

struct HistReport {
  uint64_t duration_ns = 0;
  uint64_t lost_events = 0;
  uint64_t events = 0;       // records that the kernel side passed on for it
  uint64_t not_counted = 0;  // waits that the kernel side had no room for, or for their hand-offs
  std::string mode;
  std::vector<HistSeries> series;
};

// Series without a value are left out, but for the one of all. A hand-off is of a GIL, so of a
// process: by thread there are none.
HistReport hist_of(const Snapshot& snapshot, HistGroup group, const std::vector<HistKind>& kinds);

// Whether two series are of the same: by kind and ids; by name, where there are none.
bool same_series(const HistSeries& a, const HistSeries& b);
// Adds a later report to a sum of earlier ones.
void add(HistReport& sum, const HistReport& part);

}  // namespace giltop
