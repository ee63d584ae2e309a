// Snapshot: what the model knows at one moment, as plain values for views and sinks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/model.h"

namespace giltop {

// About the run, not from events. Written into the recording and read back from it.
struct RunFacts {
  std::string version;  // of the giltop that recorded
  std::string kernel;   // release, "6.18.44"
  std::string mode = "exact";
  unsigned cpus = 0;
  uint64_t events = 0;            // records taken from the ring
  uint64_t probe_hits = 0;        // traps of uprobes in the traced processes
  uint64_t other_probe_hits = 0;  // and in others that run the same file
  // Estimate of the CPU time that they and the scheduler's hooks took from the traced processes.
  uint64_t probe_cost_ns = 0;
  uint64_t own_cpu_ns = 0;  // CPU time of giltop itself
  bool finished = false;    // the recorder ended in order

  bool operator==(const RunFacts&) const = default;
};

struct HistogramSnapshot {
  struct Bucket {
    uint64_t lower_ns, upper_ns, count;
  };
  uint64_t count = 0, sum_ns = 0, min_ns = 0, max_ns = 0;
  uint64_t p50_ns = 0, p90_ns = 0, p99_ns = 0, p999_ns = 0;
  std::vector<Bucket> buckets;
};

HistogramSnapshot snapshot_of(const Histogram& histogram);
// Adds the values of `more`; quantiles are as before.
void add_values(HistogramSnapshot& sum, const HistogramSnapshot& more);
// From the buckets, as Histogram::quantile_ns() does it.
void set_quantiles(HistogramSnapshot& histogram);
HistogramSnapshot sum_of(const std::vector<const HistogramSnapshot*>& histograms);
uint64_t middle_of(const HistogramSnapshot::Bucket& bucket);

struct ThreadSnapshot {
  uint64_t number = 0;  // the model's, never given again
  uint32_t tid = 0;
  uint32_t ns_tid = 0;  // in its own PID namespace; 0: that is the initial one, or not known
  uint64_t folded = 0;  // the sum of so many ended threads, which have no tid; 0: one thread
  uint64_t folded_life_ns = 0;
  std::string comm;
  uint64_t first_ns = 0, last_ns = 0;
  std::array<std::array<uint64_t, 4>, 4> matrix{};  // ns, [GilState][CpuState]
  uint64_t stolen_ns = 0;
  uint64_t acquires = 0, contended = 0, forced_releases = 0, voluntary_releases = 0;
  HistogramSnapshot wait, hold;
  uint64_t held_sleeps = 0, held_sleep_max_ns = 0;
  uint64_t recent_held_sleep_max_ns = 0;  // since Model::begin_interval()
  // Of `running` in an unknown state: what the next samples of light mode will tell.
  uint64_t undecided_ns = 0;

  // At the moment of the snapshot.
  bool ended = false;
  GilState gil_state = GilState::unknown;
  CpuState cpu_state = CpuState::unknown;
  uint64_t state_since_ns = 0;     // since when gil_state is seen; 0: it is unknown
  bool state_since_exact = false;  // and that is when it began
  uint64_t gil = 0;                // number of the GIL that it holds or waits for; 0: none

  uint64_t life_ns() const { return folded != 0 ? folded_life_ns : last_ns - first_ns; }
  uint64_t in(GilState state) const;
  uint64_t in(CpuState state) const;
  uint64_t in(GilState g, CpuState c) const {
    return matrix[static_cast<size_t>(g)][static_cast<size_t>(c)];
  }
};

struct BlameSnapshot {
  uint64_t waiter = 0, holder = 0;     // the threads' numbers; 0: not known
  std::optional<uint32_t> waiter_tid;  // nothing: folded threads
  std::optional<uint32_t> holder_tid;  // nothing: not known, or
  bool holder_folded = false;          // folded threads
  uint64_t running_ns = 0, runnable_ns = 0, blocked_ns = 0, handoff_ns = 0, unknown_ns = 0;
  uint64_t total_ns() const {
    return running_ns + runnable_ns + blocked_ns + handoff_ns + unknown_ns;
  }
};

struct GilSnapshot {
  uint64_t number = 0;  // as a thread's
  uint64_t address = 0;
  uint64_t folded = 0;  // the sum of so many, of ended processes, which has no address
  uint64_t folded_life_ns = 0;
  std::optional<uint32_t> interpreter;  // least id of those that use it
  uint64_t first_ns = 0, last_ns = 0;
  Ledger ledger{};
  uint64_t acquires = 0, contended = 0, forced_releases = 0, voluntary_releases = 0;
  uint64_t max_waiters = 0;
  uint64_t recent_max_waiters = 0;  // since Model::begin_interval()
  uint64_t undecided_ns = 0;        // of `unknown`, as a thread's
  HistogramSnapshot handoff;
  uint64_t handoff_wakeup_ns = 0, handoff_runqueue_ns = 0, handoff_lock_ns = 0;
  std::vector<BlameSnapshot> blame;

  // At the moment of the snapshot.
  std::optional<uint32_t> holder_tid;  // nothing: free, or not known
  uint64_t waiters = 0;

  uint64_t of(LedgerColumn column) const { return ledger[static_cast<size_t>(column)]; }
  uint64_t life_ns() const { return folded != 0 ? folded_life_ns : last_ns - first_ns; }
};

struct ProcessSnapshot {
  uint64_t number = 0;  // as a thread's
  uint32_t pid = 0;
  uint64_t folded = 0;  // the sum of so many ended processes of a program, which has no pid
  uint32_t ns_pid = 0;  // as ns_tid
  std::string comm, cmdline, python, build_id;
  std::optional<uint32_t> user;  // effective; of a live one, as it was last told
  bool free_threaded = false;
  // Whether the GIL was on while the process was observed, at least for a time. Nothing: not known.
  std::optional<bool> gil_enabled;
  uint64_t violations = 0;
  bool complete = false;  // seen from its first instruction on, nothing lost
  bool lost = false;      // events were lost during its life
  bool ended = false;
  uint64_t light_ns = 0;  // time in light mode
  bool light = false;     // at the moment of the snapshot
  bool exact = true;      // else who held a GIL was sampled, at least for a time: no counts of it
  std::vector<GilSnapshot> gils;
  std::vector<ThreadSnapshot> threads;
  std::vector<WaitSnapshot> longest_waits;  // the longest first, at most kLongestWaits
  std::vector<WaitSnapshot> recent_waits;   // of those that went on since Model::begin_interval()
};

struct Snapshot {
  RunFacts run;
  uint64_t first_ns = 0, last_ns = 0;
  uint64_t lost_events = 0;
  uint64_t not_counted = 0;  // waits, where the kernel counts them (WaitTally): it had no room
  std::array<uint64_t, kRecordKinds.size()> lost_by_kind{};
  uint64_t violations = 0;
  uint64_t inferred_switches = 0;
  uint64_t inferred_ns = 0;
  uint64_t memory_disagreements = 0;
  std::vector<ProcessSnapshot> processes;  // CPythons only
  uint64_t hidden_cpu_ns = 0;  // of traced ones that a filter has taken out of `processes`
  // Since Model::begin_interval(): number of a process, and of the folded one it is part of now.
  std::vector<std::pair<uint64_t, uint64_t>> folded_processes;

  uint64_t duration_ns() const { return last_ns - first_ns; }
  // The CPU time that the processes would have used untraced, which the overhead is a share of. Not
  // below a twentieth of what they used: an estimate cannot tell that much.
  uint64_t untraced_cpu_ns() const;
};

// Of the processes that Model::is_reported(), in order of appearance; folded ones come last.
Snapshot snapshot_of(const Model& model, const RunFacts& run);

}  // namespace giltop
