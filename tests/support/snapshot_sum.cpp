#include "support/snapshot_sum.h"

#include <algorithm>

namespace giltop::testing {

void Sum::add(const std::string& what, const HistogramSnapshot& h) {
  add(what + " count", h.count);
  add(what + " sum", h.sum_ns);
  for (const auto& b : h.buckets) add(what + " below " + std::to_string(b.upper_ns), b.count);
}

void Sum::add(const ThreadSnapshot& t) {
  add("life", t.life_ns());
  for (size_t g = 0; g < 4; g++)
    for (size_t c = 0; c < 4; c++)
      add("cell " + std::to_string(g) + std::to_string(c), t.matrix[g][c]);
  add("stolen", t.stolen_ns);
  add("acquires", t.acquires);
  add("contended", t.contended);
  add("forced", t.forced_releases);
  add("voluntary", t.voluntary_releases);
  add("held sleeps", t.held_sleeps);
  add("wait", t.wait);
  add("hold", t.hold);
}

void Sum::add(const GilSnapshot& g) {
  add("GIL's life", g.life_ns());
  for (size_t c = 0; c < kLedgerColumns; c++) add("column " + std::to_string(c), g.ledger[c]);
  add("GIL's acquires", g.acquires);
  add("GIL's contended", g.contended);
  add("GIL's forced", g.forced_releases);
  add("GIL's voluntary", g.voluntary_releases);
  add("hand-off", g.handoff);
  add("wakeup", g.handoff_wakeup_ns);
  add("run queue", g.handoff_runqueue_ns);
  add("lock", g.handoff_lock_ns);
  for (const BlameSnapshot& b : g.blame) {
    add("behind the running", b.running_ns);
    add("behind the preempted", b.runnable_ns);
    add("behind the sleeping", b.blocked_ns);
    add("behind a hand-off", b.handoff_ns);
    add("behind the unknown", b.unknown_ns);
    if (!b.holder_tid && !b.holder_folded) add("behind nobody known", b.total_ns());
  }
}

void Sum::add_figures(const ProcessSnapshot& p) {
  add("violations", p.violations);
  for (const ThreadSnapshot& t : p.threads) add(t);
  for (const GilSnapshot& g : p.gils) add(g);
}

void Sum::add(const ProcessSnapshot& p) {
  add_figures(p);
  add("processes", std::max<uint64_t>(p.folded, 1));
  for (const ThreadSnapshot& t : p.threads) add("threads", std::max<uint64_t>(t.folded, 1));
  for (const GilSnapshot& g : p.gils) add("GILs", std::max<uint64_t>(g.folded, 1));
}

void Sum::add(const Sum& other) {
  for (const auto& [what, value] : other.of) of[what] += value;
}

}  // namespace giltop::testing
