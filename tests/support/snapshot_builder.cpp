#include "support/snapshot_builder.h"

#include <algorithm>
#include <utility>

#include "model/verdict.h"

namespace giltop::testing {

using enum GilState;

ThreadSnapshot thread(uint32_t tid, const std::vector<Cell>& cells) {
  ThreadSnapshot t;
  t.number = t.tid = tid;
  t.comm = "python3";
  for (const Cell& c : cells) {
    t.matrix[static_cast<size_t>(c.gil)][static_cast<size_t>(c.cpu)] += c.ns;
    t.last_ns += c.ns;
  }
  return t;
}

GilSnapshot gil(uint64_t running, uint64_t runnable, uint64_t blocked, uint64_t handoff,
                uint64_t idle, uint64_t unknown_ns) {
  GilSnapshot g;
  g.address = 0x7f0000001000;
  g.ledger = {running, runnable, blocked, handoff, idle, 0, unknown_ns};
  for (const uint64_t part : g.ledger) g.last_ns += part;
  g.acquires = 100;
  return g;
}

BlameSnapshot blame(uint32_t waiter, uint32_t holder) {
  BlameSnapshot b;
  b.waiter = waiter;
  b.waiter_tid = waiter;
  b.holder = holder;
  b.holder_tid = holder;
  return b;
}

Snapshot snapshot(std::vector<ThreadSnapshot> threads, const GilSnapshot& g) {
  Snapshot s;
  s.run.cpus = 4;
  ProcessSnapshot& p = s.processes.emplace_back();
  p.pid = 100;
  p.comm = "python3";
  p.cmdline = "python3 app.py";
  p.python = "3.11.2";
  p.threads = std::move(threads);
  p.gils.push_back(g);
  for (const ThreadSnapshot& t : p.threads) s.last_ns = std::max(s.last_ns, t.last_ns);
  return s;
}

std::string verdict(const Snapshot& s) {
  const Verdict v = verdict_of(s.processes[0], s);
  return v.sentence + " " + v.advice;
}

Snapshot turns() {
  Snapshot s =
      snapshot({thread(100, {{released, kBlocked, 1960 * kMs}, {holding, kRunning, 40 * kMs}}),
                thread(101, {{holding, kRunning, 1000 * kMs},
                             {waiting, kBlocked, 980 * kMs},
                             {waiting, kRunnable, 20 * kMs}}),
                thread(102, {{holding, kRunning, 960 * kMs},
                             {waiting, kBlocked, 1020 * kMs},
                             {waiting, kRunning, 20 * kMs}})},
               gil(1990 * kMs, 4 * kMs, 0, 6 * kMs, 0));
  Histogram waits;
  for (uint64_t i = 0; i < 200; i++) waits.add(5 * kMs + i * 1000);
  for (size_t i = 1; i < 3; i++) {
    s.processes[0].threads[i].wait = snapshot_of(waits);
    s.processes[0].threads[i].hold = snapshot_of(waits);
  }
  GilSnapshot& g = s.processes[0].gils[0];
  g.contended = 400;
  g.forced_releases = 398;
  g.voluntary_releases = 1302;
  g.acquires = 1701;
  Histogram handoff;
  for (int i = 0; i < 400; i++) handoff.add(15'000);
  g.handoff = snapshot_of(handoff);
  g.handoff_wakeup_ns = 400 * 5000;
  g.handoff_runqueue_ns = 400 * 7000;
  g.handoff_lock_ns = 400 * 3000;
  BlameSnapshot a = blame(101, 102), b = blame(102, 101);
  a.running_ns = 997 * kMs;
  a.handoff_ns = 3 * kMs;
  b.running_ns = 1036 * kMs;
  b.runnable_ns = 4 * kMs;
  g.blame = {a, b};
  return s;
}

}  // namespace giltop::testing
