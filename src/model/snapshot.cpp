#include "model/snapshot.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace giltop {
namespace {

// A sample of a thread's CPU comes each 5 ms. What has found none in ten times that (e^-10) may
// find none at all.
constexpr uint64_t kMostUndecided_ns = 50'000'000;

uint64_t undecided_ns(const Thread& thread) {
  if (!thread.process->light) return 0;
  const uint64_t unknown =
      thread.matrix[static_cast<size_t>(GilState::unknown)][static_cast<size_t>(CpuState::running)];
  return std::min(unknown - std::min(unknown, thread.light.undecided_from), kMostUndecided_ns);
}

ThreadSnapshot snapshot_of(const Thread& thread, const EventTables& tables) {
  ThreadSnapshot out;
  out.number = thread.number;
  out.tid = thread.tid;
  out.ns_tid = thread.ns_tid;
  out.folded = thread.folded;
  out.folded_life_ns = thread.folded_life_ns;
  out.comm = tables.text(thread.comm);
  out.first_ns = thread.first_ns;
  out.last_ns = thread.last_ns;
  out.matrix = thread.matrix;
  out.stolen_ns = thread.stolen_ns;
  out.acquires = thread.acquires;
  out.contended = thread.contended;
  out.forced_releases = thread.forced_releases;
  out.voluntary_releases = thread.voluntary_releases;
  out.wait = giltop::snapshot_of(thread.wait);
  out.hold = giltop::snapshot_of(thread.hold);
  out.held_sleeps = thread.held_sleeps;
  out.held_sleep_max_ns = thread.held_sleep_max_ns;
  out.recent_held_sleep_max_ns = thread.recent_held_sleep_max_ns;
  out.undecided_ns = undecided_ns(thread);
  out.ended = thread.ended;
  out.gil_state = thread.gil_state;
  out.cpu_state = thread.cpu_state;
  if (thread.gil_state != GilState::unknown) out.state_since_ns = thread.state_since_ns;
  out.state_since_exact = thread.state_since_known;
  const bool uses = thread.gil_state == GilState::holding || thread.gil_state == GilState::waiting;
  if (uses && thread.gil) out.gil = thread.gil->number;
  return out;
}

GilSnapshot snapshot_of(const Gil& gil) {
  GilSnapshot out;
  out.number = gil.number;
  out.address = gil.address;
  out.folded = gil.folded;
  out.folded_life_ns = gil.folded_life_ns;
  if (gil.interpreter >= 0) out.interpreter = static_cast<uint32_t>(gil.interpreter);
  out.first_ns = gil.first_ns;
  out.last_ns = gil.last_ns;
  out.ledger = gil.whole_ledger();
  out.acquires = gil.acquires;
  out.contended = gil.contended;
  out.forced_releases = gil.forced_releases;
  out.voluntary_releases = gil.voluntary_releases;
  out.max_waiters = gil.max_waiters;
  out.recent_max_waiters = gil.recent_max_waiters;
  if (gil.light) {
    for (const Thread* thread : gil.process->alive)
      if (thread->gil == &gil) out.undecided_ns += undecided_ns(*thread);
    out.undecided_ns = std::min(out.undecided_ns, out.of(LedgerColumn::unknown));
  }
  out.handoff = giltop::snapshot_of(gil.handoff);
  out.handoff_wakeup_ns = gil.handoff_wakeup_ns;
  out.handoff_runqueue_ns = gil.handoff_runqueue_ns;
  out.handoff_lock_ns = gil.handoff_lock_ns;
  if (gil.known && gil.holder) out.holder_tid = gil.holder->tid;
  out.waiters = gil.waiters.size();
  for (const Gil::Blame& b : gil.blame()) {
    BlameSnapshot& row = out.blame.emplace_back();
    const Thread* const rest = gil.process->rest;
    row.waiter = b.waiter->number;
    row.holder = b.holder ? b.holder->number : 0;
    if (b.waiter != rest) row.waiter_tid = b.waiter->tid;
    row.holder_folded = b.holder && b.holder == rest;
    if (b.holder && !row.holder_folded) row.holder_tid = b.holder->tid;
    row.running_ns = b.running_ns;
    row.runnable_ns = b.runnable_ns;
    row.blocked_ns = b.blocked_ns;
    row.handoff_ns = b.handoff_ns;
    row.unknown_ns = b.unknown_ns;
  }
  return out;
}

}  // namespace

uint64_t ThreadSnapshot::in(GilState state) const {
  uint64_t sum = 0;
  for (const uint64_t cell : matrix[static_cast<size_t>(state)]) sum += cell;
  return sum;
}

uint64_t ThreadSnapshot::in(CpuState state) const {
  uint64_t sum = 0;
  for (const auto& row : matrix) sum += row[static_cast<size_t>(state)];
  return sum;
}

uint64_t Snapshot::untraced_cpu_ns() const {
  uint64_t cpu_ns = hidden_cpu_ns;
  for (const ProcessSnapshot& process : processes)
    for (const ThreadSnapshot& thread : process.threads) cpu_ns += thread.in(CpuState::running);
  return std::max(cpu_ns - std::min(cpu_ns, run.probe_cost_ns), cpu_ns / 20);
}

uint64_t middle_of(const HistogramSnapshot::Bucket& bucket) {
  return bucket.lower_ns + (bucket.upper_ns - 1 - bucket.lower_ns) / 2;
}

namespace {

// Adds all but the buckets.
void add_totals(HistogramSnapshot& sum, const HistogramSnapshot& more) {
  sum.min_ns = sum.count == 0 ? more.min_ns : std::min(sum.min_ns, more.min_ns);
  sum.max_ns = std::max(sum.max_ns, more.max_ns);
  sum.count += more.count;
  sum.sum_ns += more.sum_ns;
}

bool is_lower(const HistogramSnapshot::Bucket& a, const HistogramSnapshot::Bucket& b) {
  return a.lower_ns < b.lower_ns;
}

// Of a sorted list that may have a bucket more than once.
void unite(std::vector<HistogramSnapshot::Bucket>& buckets) {
  size_t last = 0;
  for (size_t i = 1; i < buckets.size(); i++) {
    if (buckets[i].lower_ns == buckets[last].lower_ns) {
      buckets[last].count += buckets[i].count;
    } else {
      buckets[++last] = buckets[i];
    }
  }
  if (!buckets.empty()) buckets.resize(last + 1);
}

}  // namespace

void add_values(HistogramSnapshot& sum, const HistogramSnapshot& more) {
  if (more.count == 0) return;
  add_totals(sum, more);
  const auto middle = static_cast<std::ptrdiff_t>(sum.buckets.size());
  sum.buckets.insert(sum.buckets.end(), more.buckets.begin(), more.buckets.end());
  std::inplace_merge(sum.buckets.begin(), sum.buckets.begin() + middle, sum.buckets.end(),
                     is_lower);
  unite(sum.buckets);
}

void set_quantiles(HistogramSnapshot& h) {
  const auto at = [&](double q) {
    const double exact = std::ceil(q * static_cast<double>(h.count));
    const uint64_t rank = std::max<uint64_t>(static_cast<uint64_t>(exact), 1);
    uint64_t seen = 0;
    for (const auto& bucket : h.buckets) {
      seen += bucket.count;
      if (seen >= rank) return std::clamp(middle_of(bucket), h.min_ns, h.max_ns);
    }
    return h.max_ns;
  };
  h.p50_ns = at(0.5);
  h.p90_ns = at(0.9);
  h.p99_ns = at(0.99);
  h.p999_ns = at(0.999);
}

HistogramSnapshot sum_of(const std::vector<const HistogramSnapshot*>& histograms) {
  HistogramSnapshot sum;
  for (const HistogramSnapshot* histogram : histograms) {
    if (histogram->count == 0) continue;
    add_totals(sum, *histogram);
    sum.buckets.insert(sum.buckets.end(), histogram->buckets.begin(), histogram->buckets.end());
  }
  std::sort(sum.buckets.begin(), sum.buckets.end(), is_lower);
  unite(sum.buckets);
  set_quantiles(sum);
  return sum;
}

HistogramSnapshot snapshot_of(const Histogram& histogram) {
  HistogramSnapshot out;
  out.count = histogram.count();
  out.sum_ns = histogram.sum_ns();
  out.min_ns = histogram.min_ns();
  out.max_ns = histogram.max_ns();
  out.p50_ns = histogram.quantile_ns(0.5);
  out.p90_ns = histogram.quantile_ns(0.9);
  out.p99_ns = histogram.quantile_ns(0.99);
  out.p999_ns = histogram.quantile_ns(0.999);
  histogram.for_each([&](uint64_t lower, uint64_t upper, uint64_t count) {
    out.buckets.push_back({lower, upper, count});
  });
  return out;
}

Snapshot snapshot_of(const Model& model, const RunFacts& run) {
  Snapshot out;
  out.run = run;
  out.first_ns = model.first_ns();
  out.last_ns = model.last_ns();
  out.lost_events = model.lost();
  out.lost_by_kind = model.lost_by_kind();
  out.violations = model.violations();
  out.inferred_switches = model.inferred_switches();
  out.inferred_ns = model.inferred_ns();
  out.memory_disagreements = model.memory_disagreements();
  out.folded_processes = model.folded_processes();
  std::vector<const Process*> reported;
  for (const Process& process : model.processes())
    if (model.is_reported(process)) reported.push_back(&process);
  std::sort(reported.begin(), reported.end(), [](const Process* a, const Process* b) {
    return std::pair(a->folded != 0, a->number) < std::pair(b->folded != 0, b->number);
  });
  for (const Process* const each : reported) {
    const Process& process = *each;
    const ProcessFacts& facts = model.tables().facts(process.facts);
    ProcessSnapshot& p = out.processes.emplace_back();
    p.number = process.number;
    p.pid = process.tgid;
    p.folded = process.folded;
    const uint32_t name = process.threads.empty() ? process.comm : process.threads[0]->comm;
    p.comm = model.tables().text(name);
    if (p.comm.empty()) p.comm = facts.comm;
    if (process.folded == 0) p.cmdline = facts.cmdline;
    p.user = process.user;
    p.python = facts.python;
    p.build_id = facts.build_id;
    p.free_threaded = facts.free_threaded;
    p.complete = process.from_start && !process.lost;
    p.lost = process.lost;
    p.exact = !process.was_light;
    p.light = process.light;
    p.light_ns = process.light_ns;
    if (process.light && !process.ended) p.light_ns += model.last_ns() - process.light_since_ns;
    p.gil_enabled = process.gil_enabled;
    p.violations = process.violations;
    // A GIL that is on is taken before the first line of Python.
    if (process.gil_events == 0 && facts.free_threaded && p.complete) p.gil_enabled = false;
    if (!facts.free_threaded) p.gil_enabled = true;
    p.ended = process.ended;
    p.longest_waits = process.longest_waits;
    p.recent_waits = process.recent_waits;
    for (const auto& gil : process.gils) {
      p.gils.push_back(snapshot_of(*gil));
      for (const Thread* waiter : gil->waiters) {
        const WaitSnapshot wait = gil->wait_of(*waiter);
        keep_longest(p.longest_waits, wait);
        keep_longest(p.recent_waits, wait);
      }
    }
    for (const Thread* thread : process.threads) {
      if (thread->tid == process.tgid && thread->ns_tid != 0) p.ns_pid = thread->ns_tid;
      p.threads.push_back(snapshot_of(*thread, model.tables()));
    }
    if (process.rest && process.rest->folded != 0)
      p.threads.push_back(snapshot_of(*process.rest, model.tables()));
  }
  return out;
}

}  // namespace giltop
