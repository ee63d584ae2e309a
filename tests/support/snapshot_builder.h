// Snapshots made by hand: threads by their cells, one GIL by its ledger.
#pragma once

#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop::testing {

inline constexpr uint64_t kMs = 1'000'000, kSecond = 1'000'000'000;
inline constexpr CpuState kRunning = CpuState::running, kRunnable = CpuState::runnable,
                          kBlocked = CpuState::blocked;

struct Cell {
  GilState gil;
  CpuState cpu;
  uint64_t ns;
};

// A thread that lived from the beginning for as long as its cells say.
ThreadSnapshot thread(uint32_t tid, const std::vector<Cell>& cells);

// ns in each column of its ledger; it lived for their sum.
GilSnapshot gil(uint64_t running, uint64_t runnable, uint64_t blocked, uint64_t handoff,
                uint64_t idle, uint64_t unknown_ns = 0);

// What `waiter` lost to `holder`, whose numbers are their ids: nothing yet.
BlameSnapshot blame(uint32_t waiter, uint32_t holder);

// One process (100) on a host of four CPUs.
Snapshot snapshot(std::vector<ThreadSnapshot> threads, const GilSnapshot& g);

// Two threads that compute by turns for two seconds, and one that waits for them to end.
Snapshot turns();

// Of the first process: its first sentence and advice.
std::string verdict(const Snapshot& s);

}  // namespace giltop::testing
