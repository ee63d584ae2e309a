#include "model/interval.h"

#include <algorithm>
#include <unordered_set>

namespace giltop {
namespace {

constexpr size_t kUnknown = static_cast<size_t>(GilState::unknown);
constexpr size_t kRunning = static_cast<size_t>(CpuState::running);
constexpr size_t kUnknownColumn = static_cast<size_t>(LedgerColumn::unknown);

// --- figures that add up -------------------------------------------------------------------------

// Calls f(a's, b's) for each figure of which the parts make the whole.
template <typename F>
void for_figures(ThreadSnapshot& a, ThreadSnapshot& b, F&& f) {
  for (size_t g = 0; g < a.matrix.size(); g++)
    for (size_t c = 0; c < a.matrix[g].size(); c++) f(a.matrix[g][c], b.matrix[g][c]);
  f(a.folded, b.folded);
  f(a.folded_life_ns, b.folded_life_ns);
  f(a.stolen_ns, b.stolen_ns);
  f(a.acquires, b.acquires);
  f(a.contended, b.contended);
  f(a.forced_releases, b.forced_releases);
  f(a.voluntary_releases, b.voluntary_releases);
  f(a.held_sleeps, b.held_sleeps);
  f(a.wait, b.wait);
  f(a.hold, b.hold);
}

template <typename F>
void for_figures(GilSnapshot& a, GilSnapshot& b, F&& f) {
  for (size_t c = 0; c < kLedgerColumns; c++) f(a.ledger[c], b.ledger[c]);
  f(a.folded, b.folded);
  f(a.folded_life_ns, b.folded_life_ns);
  f(a.acquires, b.acquires);
  f(a.contended, b.contended);
  f(a.forced_releases, b.forced_releases);
  f(a.voluntary_releases, b.voluntary_releases);
  f(a.handoff_wakeup_ns, b.handoff_wakeup_ns);
  f(a.handoff_runqueue_ns, b.handoff_runqueue_ns);
  f(a.handoff_lock_ns, b.handoff_lock_ns);
  f(a.handoff, b.handoff);
}

template <typename F>
void for_figures(ProcessSnapshot& a, ProcessSnapshot& b, F&& f) {
  f(a.folded, b.folded);
  f(a.violations, b.violations);
  f(a.light_ns, b.light_ns);
}

template <typename F>
void for_figures(Snapshot& a, Snapshot& b, F&& f) {
  f(a.run.events, b.run.events);
  f(a.run.probe_hits, b.run.probe_hits);
  f(a.run.other_probe_hits, b.run.other_probe_hits);
  f(a.run.probe_cost_ns, b.run.probe_cost_ns);
  f(a.run.own_cpu_ns, b.run.own_cpu_ns);
  f(a.lost_events, b.lost_events);
  for (size_t i = 0; i < a.lost_by_kind.size(); i++) f(a.lost_by_kind[i], b.lost_by_kind[i]);
  f(a.violations, b.violations);
  f(a.inferred_switches, b.inferred_switches);
  f(a.inferred_ns, b.inferred_ns);
  f(a.memory_disagreements, b.memory_disagreements);
}

// Adds what was told of one to what was told of the sum that it is part of now.
struct Add {
  void operator()(uint64_t& sum, uint64_t& part) const { sum += part; }
  void operator()(HistogramSnapshot& sum, HistogramSnapshot& part) const { add_values(sum, part); }
};

// Leaves of `now` what was not told yet; `tell`: and counts it as told.
struct Take {
  bool tell;
  void operator()(uint64_t& now, uint64_t& told) const {
    const uint64_t all = now;
    now -= std::min(now, told);
    if (tell) told = std::max(told, all);
  }
  void operator()(HistogramSnapshot& now, HistogramSnapshot& told) const {
    if (now.count == told.count) {
      now = {};
      return;
    }
    if (told.count == 0) {
      if (tell) told = now;
      return;
    }
    HistogramSnapshot all;
    if (tell) all = now;
    const bool new_max = now.max_ns > told.max_ns, new_min = now.min_ns < told.min_ns;
    now.count -= told.count;
    now.sum_ns -= told.sum_ns;
    auto before = told.buckets.begin();
    for (auto& bucket : now.buckets) {
      while (before != told.buckets.end() && before->lower_ns < bucket.lower_ns) ++before;
      if (before != told.buckets.end() && before->lower_ns == bucket.lower_ns)
        bucket.count -= before->count;
    }
    std::erase_if(now.buckets, [](const auto& bucket) { return bucket.count == 0; });
    if (!new_min) now.min_ns = std::max(now.min_ns, now.buckets.front().lower_ns);
    if (!new_max) now.max_ns = std::min(now.max_ns, middle_of(now.buckets.back()));
    now.min_ns = std::min(now.min_ns, now.max_ns);
    set_quantiles(now);
    if (tell) told = std::move(all);
  }
};

template <typename T>
bool has_anything(T& figures) {
  bool any = false;
  T none;
  for_figures(figures, none, [&](const auto& figure, const auto&) {
    if constexpr (std::is_same_v<decltype(figure), const uint64_t&>) {
      any = any || figure != 0;
    } else {
      any = any || figure.count != 0;
    }
  });
  return any;
}

// Since the beginning of the interval, from what was since that of the last snapshot's.
void take_most(uint64_t& figure, uint64_t& told, bool tell) {
  figure = told;
  if (tell) told = 0;
}

// A sum of ended ones, which has no life but that of its parts.
template <typename T>
void keep_if_anything(T& sum) {
  if (has_anything(sum)) {
    sum.folded = std::max<uint64_t>(sum.folded, 1);
  } else {
    sum.first_ns = sum.last_ns;
  }
}

// What a process did before it was known to be a Python is told when it is.
template <typename T>
void clip(T& now, T& told, uint64_t first_ns, bool tell) {
  if (told.last_ns != 0) now.first_ns = std::max(now.first_ns, first_ns);
  now.last_ns = std::max(now.last_ns, now.first_ns);
  if (tell) told.last_ns = now.last_ns;
}

std::array<uint64_t*, 5> parts_of(BlameSnapshot& row) {
  return {&row.running_ns, &row.runnable_ns, &row.blocked_ns, &row.handoff_ns, &row.unknown_ns};
}

}  // namespace

// --- what was summed up --------------------------------------------------------------------------

ThreadSnapshot& Intervals::ToldProcess::rest() { return threads[rest_number(figures.number)]; }

// Threads that are not there any more are in the process's sum.
void Intervals::fold_threads(ToldProcess& told, const ProcessSnapshot& now) {
  std::unordered_set<uint64_t> there{0, rest_number(now.number)};
  for (const ThreadSnapshot& t : now.threads) there.insert(t.number);
  bool any = false;
  for (auto t = told.threads.begin(); t != told.threads.end();) {
    if (there.contains(t->first)) {
      ++t;
      continue;
    }
    any = true;
    ThreadSnapshot gone = std::move(t->second);
    t = told.threads.erase(t);
    ThreadSnapshot& rest = told.rest();
    for_figures(rest, gone, Add());
    rest.held_sleep_max_ns = std::max(rest.held_sleep_max_ns, gone.held_sleep_max_ns);
  }
  // Of those that were never told of there are no rows.
  if (!any) return;
  const auto place = [&](uint64_t number) {
    return there.contains(number) ? number : rest_number(now.number);
  };
  for (auto& [number, gil] : told.gils) {
    decltype(gil.blame) rows;
    for (const auto& [key, parts] : gil.blame) {
      BlameParts& sum = rows[{place(key.first), place(key.second)}];
      for (size_t i = 0; i < parts.size(); i++) sum[i] += parts[i];
    }
    gil.blame = std::move(rows);
  }
}

// An ended process is in its program's sum.
void Intervals::fold(ToldProcess& told, ToldProcess& into, uint64_t into_gil) {
  const uint64_t rest = rest_number(into.figures.number);
  for (auto& [number, thread] : told.threads) {
    for_figures(into.rest(), thread, Add());
    into.rest().held_sleep_max_ns =
        std::max(into.rest().held_sleep_max_ns, thread.held_sleep_max_ns);
  }
  for (auto& [number, gil] : told.gils) {
    ToldGil& sum = into.gils[into_gil];
    for_figures(sum.figures, gil.figures, Add());
    sum.figures.max_waiters = std::max(sum.figures.max_waiters, gil.figures.max_waiters);
    for (const auto& [key, parts] : gil.blame) {
      BlameParts& row = sum.blame[{rest, key.second == 0 ? 0 : rest}];
      for (size_t i = 0; i < parts.size(); i++) row[i] += parts[i];
    }
  }
  for_figures(into.figures, told.figures, Add());
  for (const WaitSnapshot& wait : told.figures.longest_waits)
    keep_longest(into.figures.longest_waits, wait);
}

// The longest and the most since the last snapshot.
void Intervals::gather(ToldProcess& told, const ProcessSnapshot& now) {
  for (const WaitSnapshot& wait : now.recent_waits)
    if (!wait.ongoing) keep_longest(told.figures.longest_waits, wait);
  for (const ThreadSnapshot& t : now.threads) {
    uint64_t& most = told.threads[t.number].held_sleep_max_ns;
    most = std::max(most, t.recent_held_sleep_max_ns);
  }
  for (const GilSnapshot& g : now.gils) {
    uint64_t& most = told.gils[g.number].figures.max_waiters;
    most = std::max(most, g.recent_max_waiters);
  }
}

void Intervals::follow(const Snapshot& now) {
  std::unordered_map<uint64_t, const ProcessSnapshot*> there;
  for (const ProcessSnapshot& p : now.processes) there.emplace(p.number, &p);
  for (const auto& [number, into] : now.folded_processes) {
    const auto ended = told_.find(number);
    const auto sum = there.find(into);
    if (ended == told_.end()) continue;
    if (sum != there.end()) {
      ToldProcess& whole = told_[into];
      whole.figures.number = into;
      const auto& gils = sum->second->gils;
      fold(ended->second, whole, gils.empty() ? 0 : gils.front().number);
    }
    told_.erase(number);
  }
  // What turned out to be no Python's process is forgotten.
  std::erase_if(told_, [&](const auto& told) { return !there.contains(told.first); });
  for (const ProcessSnapshot& p : now.processes) {
    ToldProcess& told = told_[p.number];
    told.figures.number = p.number;
    if (p.folded == 0) fold_threads(told, p);
    gather(told, p);
  }
}

// --- the difference ------------------------------------------------------------------------------

void Intervals::subtract(ProcessSnapshot& p, ToldProcess& told, uint64_t first_ns, bool tell) {
  const Take take{tell};
  for (ThreadSnapshot& t : p.threads) {
    ThreadSnapshot& before = told.threads[t.number];
    uint64_t& undecided = t.matrix[kUnknown][kRunning];
    undecided -= std::min(undecided, t.undecided_ns);
    if (t.folded == 0) {
      // How long it was there, for the sum that it may be part of one day; and whether all of it is
      // told.
      if (tell) before.folded_life_ns = t.life_ns();
      if (tell) before.folded = t.ended;
      const auto [life, ended] = std::pair(before.folded_life_ns, before.folded);
      for_figures(t, before, take);
      t.folded = t.folded_life_ns = 0;
      before.folded_life_ns = life;
      before.folded = ended;
    } else {
      for_figures(t, before, take);
      keep_if_anything(t);
    }
    take_most(t.held_sleep_max_ns, before.held_sleep_max_ns, tell);
    clip(t, before, first_ns, tell);
  }
  std::erase_if(p.threads,
                [](ThreadSnapshot& t) { return t.ended && t.life_ns() == 0 && !has_anything(t); });
  for (GilSnapshot& g : p.gils) {
    ToldGil& before = told.gils[g.number];
    uint64_t& undecided = g.ledger[kUnknownColumn];
    undecided -= std::min(undecided, g.undecided_ns);
    if (g.folded == 0) {
      if (tell) before.figures.folded_life_ns = g.life_ns();
      if (tell) before.figures.folded = p.ended;
      const auto [life, ended] = std::pair(before.figures.folded_life_ns, before.figures.folded);
      for_figures(g, before.figures, take);
      g.folded = g.folded_life_ns = 0;
      before.figures.folded_life_ns = life;
      before.figures.folded = ended;
    } else {
      for_figures(g, before.figures, take);
      keep_if_anything(g);
    }
    take_most(g.max_waiters, before.figures.max_waiters, tell);
    for (BlameSnapshot& row : g.blame) {
      BlameParts& parts = before.blame[{row.waiter, row.holder}];
      const auto figures = parts_of(row);
      for (size_t i = 0; i < parts.size(); i++) take(*figures[i], parts[i]);
    }
    std::erase_if(g.blame, [](const BlameSnapshot& row) { return row.total_ns() == 0; });
    clip(g, before.figures, first_ns, tell);
  }
  if (p.ended)
    std::erase_if(p.gils, [](GilSnapshot& g) { return g.life_ns() == 0 && !has_anything(g); });
  p.longest_waits = told.figures.longest_waits;
  for (const WaitSnapshot& wait : p.recent_waits)
    if (wait.ongoing) keep_longest(p.longest_waits, wait);
  p.recent_waits.clear();
  if (tell) told.figures.longest_waits.clear();
  if (p.folded == 0) {
    if (tell) told.figures.folded = p.ended;
    const uint64_t ended = told.figures.folded;
    for_figures(p, told.figures, take);
    p.folded = 0;
    told.figures.folded = ended;
  } else {
    for_figures(p, told.figures, take);
    p.folded = std::max<uint64_t>(p.folded, 1);
  }
  p.exact = !p.light && p.light_ns == 0;
}

Snapshot Intervals::difference(Snapshot now, bool tell) {
  follow(now);
  const uint64_t first_ns = begun_ ? told_run_.last_ns : now.first_ns;
  for_figures(now, told_run_, Take{tell});
  if (tell) {
    told_run_.last_ns = now.last_ns;
    begun_ = true;
  }
  now.first_ns = std::min(first_ns, now.last_ns);
  for (ProcessSnapshot& p : now.processes) subtract(p, told_.at(p.number), now.first_ns, tell);
  std::erase_if(now.processes, [](const ProcessSnapshot& p) {
    return p.ended && p.threads.empty() && p.gils.empty() && p.violations == 0;
  });
  now.folded_processes.clear();
  return now;
}

Snapshot Intervals::next(Snapshot now) { return difference(std::move(now), true); }
Snapshot Intervals::since(Snapshot now) { return difference(std::move(now), false); }
void Intervals::skip(const Snapshot& now) { follow(now); }

size_t Intervals::kept() const {
  size_t sum = 0;
  for (const auto& [number, process] : told_) {
    sum += process.threads.size() + process.gils.size();
    for (const auto& [gil_number, gil] : process.gils) sum += gil.blame.size();
  }
  return sum;
}

}  // namespace giltop
