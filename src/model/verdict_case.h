// What the rules of the verdict ask of a process.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

inline constexpr double kWaitShare = 0.10;  // a waiter waits for that part of its life at least

// 0 of nothing.
double share(uint64_t part, uint64_t whole);
uint64_t ledger(const ProcessSnapshot& p, LedgerColumn column);
// Ended ones that are summed up count, too.
size_t threads_of(const ProcessSnapshot& p);
// GILs for which more than one thread waited.
size_t contested_gils(const ProcessSnapshot& p);
// The most that a thread was ready to run and had no CPU, as a share of its life.
double starved_share(const ProcessSnapshot& p, uint64_t span_ns);

// The time of all waits, by what whoever had the GIL did meanwhile.
struct WaitParts {
  uint64_t computing_ns = 0;  // or what is not known
  uint64_t preempted_ns = 0, asleep_ns = 0, handoff_ns = 0;
  uint64_t all_ns() const { return computing_ns + preempted_ns + asleep_ns + handoff_ns; }
};

// Who had the GIL in their hands off the CPU, and cost others time by it: the one that cost most of
// it, else all.
struct Culprits {
  const ThreadSnapshot* one = nullptr;  // nothing: they are several
  size_t count = 0;                     // without folded threads
  bool ended = false;                   // and folded threads, no matter how many
  uint64_t amount_ns = 0, held_ns = 0;  // in that state, and with the GIL at all
  uint64_t lost_ns = 0;                 // by others, to that
  std::optional<uint32_t> loser_tid;    // where it is one
  size_t losers = 0;                    // folded threads are one
  bool ended_lost = false;              // folded threads are among them
  uint64_t sleeps = 0, sleep_max_ns = 0;
  size_t endless = 0;  // culprits whose sleep had not ended yet
  bool nobody() const { return count == 0 && !ended; }
};
Culprits culprits(const ProcessSnapshot& p, CpuState state, uint64_t BlameSnapshot::*part);

struct Case {
  Case(const ProcessSnapshot& process, const Snapshot& snapshot);

  const ProcessSnapshot& p;
  const Snapshot& run;
  uint64_t span_ns;
  std::vector<const ThreadSnapshot*> users, waiters;  // of the GIL; the latter wait much
  uint64_t held_ns, acquires = 0, gil_life_ns = 0;
  WaitParts waits;
  std::string cpus_used;
  bool used() const { return acquires != 0 || held_ns != 0; }
};

// How much faster the process could be at most, were nobody to wait. The limit is then the thread
// with the most work of its own, or the CPUs, or what is done while few wait (Amdahl's law).
// Assumes that threads need nothing else of each other; but one that hardly waits for the GIL, and
// sleeps, is taken to sleep for those that do (as a main thread that joins them). 0 when that is
// not much.
double bound_without_gil(const Case& c);

}  // namespace giltop
