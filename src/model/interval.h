// Intervals: what happened between two snapshots of a model, as a snapshot.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

// Keeps what it has told of each thread, GIL and process, and tells the difference: so the sum of
// all it told is what the last snapshot says, whatever was summed up in between (fold.cpp). Time
// that is booked otherwise later, from one cell to another, is told in the new one; what was told
// too much in the old one is a debt, and taken off what comes there next. Nothing is negative.
//
// An interval's snapshot has its own times (those of a thread or GIL that is told of for the first
// time may begin before it); counts, quantiles and longest waits are the interval's;
// names and states are those at its end. Who ended before it, and has nothing in it, is not there.
//
// Assumes that each snapshot is of a model that was advanced to it, that Model::begin_interval() is
// called before the first event, and between each snapshot and the next event, and that each such
// snapshot is shown to next(), since() or skip().
class Intervals {
 public:
  // What happened since the last next(), or since the model's beginning.
  Snapshot next(Snapshot now);
  // The same, but the next call begins there, too.
  Snapshot since(Snapshot now);
  // Nobody wants to know.
  void skip(const Snapshot& now);

  // Threads, GILs and rows of blame that something is kept of.
  size_t kept() const;

 private:
  using BlameParts = std::array<uint64_t, 5>;  // ns: running, runnable, blocked, hand-off, unknown
  struct PairHash {
    size_t operator()(const std::pair<uint64_t, uint64_t>& pair) const {
      return pair.first * 0x9e3779b97f4a7c15u ^ pair.second;  // 2^64 / golden ratio
    }
  };
  // In the snapshots: figures as told; of the longest and the most what was since the beginning.
  struct ToldGil {
    GilSnapshot figures;
    std::unordered_map<std::pair<uint64_t, uint64_t>, BlameParts, PairHash> blame;  // by numbers
  };
  struct ToldProcess {
    ProcessSnapshot figures;  // without threads and GILs
    std::unordered_map<uint64_t, ThreadSnapshot> threads;
    std::map<uint64_t, ToldGil> gils;
    ThreadSnapshot& rest();
  };

  void follow(const Snapshot& now);
  void fold_threads(ToldProcess& told, const ProcessSnapshot& now);
  static void fold(ToldProcess& told, ToldProcess& into, uint64_t into_gil);
  static void gather(ToldProcess& told, const ProcessSnapshot& now);
  static void subtract(ProcessSnapshot& process, ToldProcess& told, uint64_t first_ns, bool tell);

  Snapshot difference(Snapshot now, bool tell);

  std::unordered_map<uint64_t, ToldProcess> told_;
  Snapshot told_run_;  // without processes
  bool begun_ = false;
};

}  // namespace giltop
