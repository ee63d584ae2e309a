#include "model/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/format.h"

namespace giltop {
namespace {

constexpr double kLostShare = 0.02;  // lost to one holder off its CPU: of the process's time
constexpr uint64_t kLostLeast_ns = 20'000'000;
constexpr uint64_t kSleep_ns = 1'000'000;  // the longest, at least: not a mutex of the GIL itself
constexpr double kMostWaits = 0.5;         // or this part of all waits
constexpr double kHandoffShare = 0.1;      // from release to acquire by who waited: of the time
constexpr double kConvoyBlame = 0.6;       // of a short user's waits: behind the one that computes
constexpr double kConvoyTimes = 10;        // it waits so many times longer than it needs the GIL
constexpr double kWaitShare = 0.10;        // waiting: of a thread's life
constexpr double kStarvedShare = 0.25;     // runnable without a CPU: of a thread's life
constexpr double kNativeShare = 0.25;      // running without the GIL: of a thread's life
constexpr double kBusyShare = 0.25;        // Python running under one GIL: of the process's time

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string count_word(size_t n) {
  static const char* const kWords[] = {"No", "One", "Two", "Three", "Four", "Five", "Six"};
  return n < std::size(kWords) ? kWords[n] : std::to_string(n);
}

std::string percent_range(std::vector<double> shares) {
  std::sort(shares.begin(), shares.end());
  const int low = static_cast<int>(shares.front() * 100 + 0.5);
  const int high = static_cast<int>(shares.back() * 100 + 0.5);
  return low == high ? fmt::format("{} %", low) : fmt::format("{}–{} %", low, high);
}

uint64_t ledger(const ProcessSnapshot& p, LedgerColumn column) {
  uint64_t sum = 0;
  for (const GilSnapshot& g : p.gils) sum += g.of(column);
  return sum;
}

// Who had the GIL in its hands off its CPU, and cost others the most by it.
struct Culprit {
  const ThreadSnapshot* thread = nullptr;
  uint64_t amount_ns = 0;
  uint64_t lost_ns = 0;
  std::optional<uint32_t> loser_tid;
  size_t losers = 0;
};

Culprit culprit(const ProcessSnapshot& p, CpuState state, uint64_t BlameSnapshot::*part) {
  Culprit worst;
  for (const ThreadSnapshot& t : p.threads) {
    Culprit found;
    found.amount_ns = t.in(GilState::holding, state);
    if (t.folded != 0 || found.amount_ns == 0) continue;
    found.thread = &t;
    for (const GilSnapshot& g : p.gils) {
      for (const BlameSnapshot& b : g.blame) {
        if (b.holder_tid != t.tid || b.*part == 0) continue;
        found.lost_ns += b.*part;
        found.loser_tid = b.waiter_tid;
        found.losers++;
      }
    }
    if (std::pair(found.lost_ns, found.amount_ns) > std::pair(worst.lost_ns, worst.amount_ns))
      worst = found;
  }
  return worst;
}

std::string lost_to_it(const Culprit& c) {
  if (c.losers == 0) return "nobody waited for it meanwhile";
  if (c.losers == 1 && c.loser_tid)
    return fmt::format("{} lost {} to it", *c.loser_tid, format_seconds(c.lost_ns));
  return fmt::format("{} others lost {} to it", c.losers, format_seconds(c.lost_ns));
}

size_t threads_of(const ProcessSnapshot& p) {
  size_t count = 0;
  for (const ThreadSnapshot& t : p.threads) count += std::max<size_t>(t.folded, 1);
  return count;
}

// GILs for which more than one thread waited.
size_t contested_gils(const ProcessSnapshot& p) {
  size_t count = 0;
  for (const GilSnapshot& g : p.gils) {
    const auto another = [&](const BlameSnapshot& b) {
      return b.waiter_tid != g.blame.front().waiter_tid;
    };
    count += std::any_of(g.blame.begin(), g.blame.end(), another);
  }
  return count;
}

// The most that a thread was ready to run and had no CPU, as a share of its life.
double starved_share(const ProcessSnapshot& p, uint64_t span) {
  double most = 0;
  for (const ThreadSnapshot& t : p.threads)
    if (t.folded == 0 && share(t.life_ns(), span) >= 0.05)
      most = std::max(most, share(t.in(CpuState::runnable), t.life_ns()));
  return most;
}

// How much faster the process could be at most, were nobody to wait: the thread with the most work
// of its own, or the CPUs, would be the limit then. Assumes that threads need nothing else of each
// other. 0 when that is not much.
double bound_without_gil(const ProcessSnapshot& p, const Snapshot& run) {
  uint64_t longest = 1;
  for (const ThreadSnapshot* t : gil_users(p))
    longest = std::max(longest, t->life_ns() - t->in(GilState::waiting));
  const double cpus = static_cast<double>(cpu_ns(p)) / std::max(1u, run.run.cpus);
  const double bound =
      static_cast<double>(span_ns(p)) / std::max(static_cast<double>(longest), cpus);
  return bound < 1.1 ? 0 : bound;
}

std::string without_gil(double bound) {
  if (bound == 0) return {};
  return fmt::format(
      "Without a GIL (free-threaded Python, or processes) this could run up to {:.1f}× faster, "
      "if its threads are independent.",
      bound);
}

// --- the rules -----------------------------------------------------------------------------------

// A process, and what all rules ask of it.
struct Case {
  Case(const ProcessSnapshot& process, const Snapshot& snapshot)
      : p(process),
        run(snapshot),
        span(span_ns(process)),
        users(gil_users(process)),
        held(ledger(p, LedgerColumn::running) + ledger(p, LedgerColumn::runnable) +
             ledger(p, LedgerColumn::blocked)),
        cpus_used(fmt::format("{:.1f} of {} CPUs used", share(cpu_ns(p), span), run.run.cpus)) {
    for (const GilSnapshot& g : p.gils) {
      acquires += g.acquires;
      gil_life += g.life_ns();
      for (const BlameSnapshot& b : g.blame) waited += b.total_ns();
    }
    for (const ThreadSnapshot* t : users)
      if (share(t->in(GilState::waiting), t->life_ns()) >= kWaitShare) waiters.push_back(t);
  }
  const ProcessSnapshot& p;
  const Snapshot& run;
  uint64_t span;
  std::vector<const ThreadSnapshot*> users, waiters;  // the latter wait much
  uint64_t held, acquires = 0, gil_life = 0, waited = 0;
  std::string cpus_used;
  bool used() const { return acquires != 0 || held != 0; }
};

using Finding = std::optional<Verdict>;

// Ended processes of one program, summed up: what they were one by one is not told any more.
Finding folded(const Case& c) {
  if (c.p.folded == 0) return {};
  uint64_t life = 0, holding = 0, waiting = 0;
  for (const ThreadSnapshot& t : c.p.threads) {
    life += t.life_ns();
    holding += t.in(GilState::holding);
    waiting += t.in(GilState::waiting);
  }
  return Verdict{fmt::format("Summed up, {} threads held the GIL {} % of their life and waited "
                             "{} %.",
                             format_count(threads_of(c.p)), format_percent(holding, life),
                             format_percent(waiting, life)),
                 "", waiting};
}

// A free-threaded process whose GIL was off, or nobody's. It takes and releases it as it starts,
// all the same.
Finding free_threaded(const Case& c) {
  const bool off = share(ledger(c.p, LedgerColumn::off), c.gil_life) > 0.5;
  if (!c.p.free_threaded || (c.used() && !off)) return {};
  std::string sentence =
      off || gil_is_off(c.p)
          ? "GIL off: free-threaded build; " + c.cpus_used
          : "Free-threaded build, and nobody took or released its GIL: " + c.cpus_used;
  if (const double starved = starved_share(c.p, c.span); starved >= kStarvedShare)
    sentence +=
        fmt::format("; threads were ready to run and had no CPU for up to {:.0f} % of their life",
                    starved * 100);
  return Verdict{sentence + "."};
}

Finding unused(const Case& c) {
  if (c.used()) return {};
  return Verdict{"Nobody took or released the GIL meanwhile."};
}

Finding unknown(const Case& c) {
  const uint64_t ns = ledger(c.p, LedgerColumn::unknown);
  if (share(ns, c.gil_life) <= 0.5) return {};
  return Verdict{fmt::format("For {} % of the time it is not known who held the GIL.",
                             format_percent(ns, c.gil_life, 0))};
}

// A hold that goes on since before the attach is worth a word even if nobody waits for its end.
Finding asleep(const Case& c) {
  const Culprit sleeper = culprit(c.p, CpuState::blocked, &BlameSnapshot::blocked_ns);
  if (!sleeper.thread) return {};
  const bool costs =
      sleeper.lost_ns >= kLostLeast_ns && share(sleeper.lost_ns, c.span) >= kLostShare &&
      (sleeper.thread->held_sleeps == 0 || sleeper.thread->held_sleep_max_ns >= kSleep_ns);
  if (!costs && (c.acquires != 0 || sleeper.amount_ns < kLostLeast_ns)) return {};
  const uint64_t times = sleeper.thread->held_sleeps;
  const std::string sleeps = times == 0
                                 ? "without end"
                                 : fmt::format("{} times, longest {}", format_count(times),
                                               format_duration(sleeper.thread->held_sleep_max_ns));
  return Verdict{
      fmt::format("{} slept {} with the GIL in its hands ({}); {}.", sleeper.thread->tid,
                  format_seconds(sleeper.amount_ns), sleeps, lost_to_it(sleeper)),
      "Native code that blocks should release the GIL first (Py_BEGIN_ALLOW_THREADS; ctypes: "
      "CDLL, not PyDLL).",
      sleeper.lost_ns};
}

// `part` of all waits at least was for one thread that had the GIL and no CPU.
Finding preempted(const Case& c, double part) {
  const Culprit holder = culprit(c.p, CpuState::runnable, &BlameSnapshot::runnable_ns);
  if (!holder.thread || holder.lost_ns < kLostLeast_ns ||
      share(holder.lost_ns, c.span) < kLostShare || share(holder.lost_ns, c.waited) < part)
    return {};
  return Verdict{
      fmt::format("{} was preempted with the GIL for {}: {}.", holder.thread->tid,
                  format_seconds(holder.amount_ns), lost_to_it(holder)),
      "Other work competes for its CPU: give the process more CPU, or look at its CPU quota.",
      holder.lost_ns};
}
Finding mostly_preempted(const Case& c) { return preempted(c, kMostWaits); }
Finding also_preempted(const Case& c) { return c.waiters.empty() ? preempted(c, 0) : std::nullopt; }

// The GIL is free, and who gets it is on the way: its wakeup, the run queue, the lock.
Finding handoff_bound(const Case& c) {
  const GilSnapshot* worst = nullptr;
  for (const GilSnapshot& g : c.p.gils)
    if (!worst || g.handoff.sum_ns > worst->handoff.sum_ns) worst = &g;
  if (!worst || worst->handoff.count == 0 ||
      share(worst->handoff.sum_ns, worst->life_ns()) < kHandoffShare)
    return {};
  const auto mean = [&](uint64_t sum) { return format_duration(sum / worst->handoff.count); };
  const std::string wakeup =
      c.p.exact ? "wakeup " + mean(worst->handoff_wakeup_ns) + ", " : std::string();
  return Verdict{
      fmt::format("Handing the GIL over took {} % of the time: {} times {} ({}run queue {}).",
                  format_percent(worst->handoff.sum_ns, worst->life_ns(), 0),
                  format_count(worst->handoff.count), mean(worst->handoff.sum_ns), wakeup,
                  mean(worst->handoff_runqueue_ns)),
      "It changes hands too often for what is done in between: a longer switch interval "
      "(sys.setswitchinterval), larger pieces of work, or fewer threads.",
      worst->handoff.sum_ns};
}

// Threads that need the GIL for a moment, and wait a switch interval for it behind one that
// computes.
Finding convoy(const Case& c) {
  const ThreadSnapshot* computer = nullptr;
  for (const ThreadSnapshot* t : c.users) {
    if (share(t->in(GilState::holding), c.held) < 0.2) continue;
    if (computer) return {};
    computer = t;
  }
  if (!computer) return {};
  uint64_t waited = 0, waits = 0, held = 0, acquires = 0;
  size_t victims = 0;
  for (const ThreadSnapshot* t : c.waiters) {
    if (t == computer || t->wait.count == 0) continue;
    uint64_t behind = 0, all = 0;
    for (const GilSnapshot& g : c.p.gils) {
      for (const BlameSnapshot& b : g.blame) {
        if (b.waiter_tid != t->tid) continue;
        all += b.total_ns();
        if (b.holder_tid == computer->tid) behind += b.running_ns;
      }
    }
    // In light mode the least that it can have taken it.
    const uint64_t takes = std::max(t->acquires, t->contended);
    const uint64_t hold = t->in(GilState::holding) / takes, wait = t->wait.sum_ns / t->wait.count;
    if (share(behind, all) < kConvoyBlame ||
        static_cast<double>(wait) < kConvoyTimes * static_cast<double>(hold))
      continue;
    victims++;
    waited += t->wait.sum_ns;
    waits += t->wait.count;
    held += t->in(GilState::holding);
    acquires += takes;
  }
  if (victims == 0) return {};
  const bool one = victims == 1;
  return Verdict{
      fmt::format("{} thread{} the GIL for {} at a time and waited {} for it each of {} times, "
                  "behind {}, which computes.",
                  count_word(victims), one ? " needed" : "s needed",
                  format_duration(held / acquires), format_duration(waited / waits),
                  format_count(waits), computer->tid),
      "A convoy: who computes lets go only when asked, after a switch interval "
      "(sys.setswitchinterval). Compute in another process, or in native code without the GIL.",
      waited};
}

Finding turns(const Case& c) {
  const size_t n = c.waiters.size();
  uint64_t waited = 0, held_by_waiters = 0;
  std::vector<double> waits;
  for (const ThreadSnapshot* t : c.waiters) {
    waits.push_back(share(t->in(GilState::waiting), t->life_ns()));
    waited += t->in(GilState::waiting);
    held_by_waiters += t->in(GilState::holding);
  }
  if (n < 2 || share(held_by_waiters, c.held) < 0.7) return {};
  const size_t contested = std::max<size_t>(contested_gils(c.p), 1);
  const std::string gils = contested == 1 ? "one GIL" : fmt::format("{} GILs", contested);
  const double bound = bound_without_gil(c.p, c.run);
  return Verdict{fmt::format("{} threads took turns on {}: {}, each waited {} of its life for {}.",
                             count_word(n), gils, c.cpus_used, percent_range(waits),
                             n == 2 ? "the other" : "the others"),
                 without_gil(bound), waited, bound};
}

Finding waiting(const Case& c) {
  if (c.waiters.empty()) return {};
  std::vector<double> waits;
  uint64_t waited = 0;
  for (const ThreadSnapshot* t : c.waiters) {
    waits.push_back(share(t->in(GilState::waiting), t->life_ns()));
    waited += t->in(GilState::waiting);
  }
  const double bound = waits.size() > 1 ? bound_without_gil(c.p, c.run) : 0;
  return Verdict{fmt::format("{} of {} threads waited {} of {} life for the GIL: {}.",
                             count_word(waits.size()), threads_of(c.p), percent_range(waits),
                             waits.size() == 1 ? "its" : "their", c.cpus_used),
                 without_gil(bound), waited, bound};
}

Finding interpreters(const Case& c) {
  const auto busy = std::count_if(c.p.gils.begin(), c.p.gils.end(), [&](const GilSnapshot& g) {
    return share(g.of(LedgerColumn::running) + g.of(LedgerColumn::runnable), c.span) >= kBusyShare;
  });
  if (busy < 2) return {};
  return Verdict{fmt::format("{} interpreters ran in parallel, each with a GIL of its own: {}.",
                             count_word(static_cast<size_t>(busy)), c.cpus_used)};
}

Finding native(const Case& c) {
  std::vector<double> shares;
  uint64_t with = 0, without = 0;  // system calls are short of being native work
  for (const ThreadSnapshot& t : c.p.threads) {
    with += t.in(GilState::holding, CpuState::running);
    without += t.in(GilState::released, CpuState::running);
    const double ran = share(t.in(GilState::released, CpuState::running), t.life_ns());
    if (t.folded == 0 && ran >= kNativeShare && share(t.life_ns(), c.span) >= 0.05)
      shares.push_back(ran);
  }
  if (shares.size() < 2) return {};
  return Verdict{
      fmt::format("The GIL is not the problem: {} threads ran native code without it "
                  "for {} of their life, {}.",
                  shares.size(), percent_range(shares), c.cpus_used)};
}

Finding one_thread(const Case& c) {
  if (c.users.size() != 1 || share(c.held, c.span) < 0.5) return {};
  const ThreadSnapshot& only = *c.users.front();
  const uint64_t preempted_ns = only.in(GilState::holding, CpuState::runnable);
  std::string sentence =
      fmt::format("One thread used the GIL and nobody waited for it: {}", c.cpus_used);
  if (share(preempted_ns, only.life_ns()) >= kWaitShare)
    sentence += fmt::format("; it was preempted with the GIL for {}, for want of a CPU",
                            format_seconds(preempted_ns));
  return Verdict{sentence + "."};
}

Finding few_cpus(const Case& c) {
  const double starved = starved_share(c.p, c.span);
  if (starved < kStarvedShare) return {};
  return Verdict{
      fmt::format("The GIL is not the problem, CPUs are: threads were ready to run and had none "
                  "for up to {:.0f} % of their life; {}.",
                  starved * 100, c.cpus_used)};
}

Finding none(const Case& c) {
  uint64_t longest_ns = 0;
  for (const ThreadSnapshot& t : c.p.threads) longest_ns = std::max(longest_ns, t.wait.max_ns);
  return Verdict{fmt::format("The GIL is not the problem: held {} % of the time, and {}; {}.",
                             format_percent(c.held, c.span, 0),
                             longest_ns == 0
                                 ? std::string("nobody waited for it")
                                 : "no wait was longer than " + format_duration(longest_ns),
                             c.cpus_used)};
}

// The first that finds something has the word.
struct Rule {
  const char* finding;
  Finding (*judge)(const Case&);
};
constexpr Rule kRules[] = {
    {"summed-up", folded},
    {"free-threaded", free_threaded},
    {"unused", unused},
    {"unknown", unknown},
    {"asleep-with-gil", asleep},
    {"preempted-with-gil", mostly_preempted},
    {"hand-off-bound", handoff_bound},
    {"convoy", convoy},
    {"taking-turns", turns},
    {"waiting", waiting},
    {"preempted-with-gil", also_preempted},
    {"interpreters-in-parallel", interpreters},
    {"native-in-parallel", native},
    {"one-thread", one_thread},
    {"too-few-cpus", few_cpus},
    {"not-the-gil", none},
};

}  // namespace

bool gil_is_off(const ProcessSnapshot& process) {
  return process.free_threaded && process.gil_enabled == false;
}

uint64_t cpu_ns(const ProcessSnapshot& process) {
  uint64_t sum = 0;
  for (const ThreadSnapshot& t : process.threads) sum += t.in(CpuState::running);
  return sum;
}

uint64_t span_ns(const ProcessSnapshot& process) {
  uint64_t first = ~uint64_t{0}, last = 0;
  for (const ThreadSnapshot& t : process.threads) {
    first = std::min(first, t.first_ns);
    last = std::max(last, t.last_ns);
  }
  return last > first ? last - first : 0;
}

std::vector<const ThreadSnapshot*> gil_users(const ProcessSnapshot& process) {
  std::vector<const ThreadSnapshot*> users;
  const uint64_t span = span_ns(process);
  const auto used = [](const ThreadSnapshot& t) {
    return t.in(GilState::holding) + t.in(GilState::waiting);
  };
  for (const ThreadSnapshot& t : process.threads) {
    if (t.folded != 0) continue;  // the sum of many brief lives
    if (share(t.life_ns(), span) >= 0.05 && share(used(t), t.life_ns()) >= 0.05)
      users.push_back(&t);
  }
  std::stable_sort(users.begin(), users.end(),
                   [&](const auto* a, const auto* b) { return used(*a) > used(*b); });
  return users;
}

Verdict verdict_of(const ProcessSnapshot& process, const Snapshot& run) {
  const Case c(process, run);
  for (const Rule& rule : kRules) {
    if (Finding found = rule.judge(c)) {
      found->finding = rule.finding;
      return *std::move(found);
    }
  }
  return {};  // the last rule always finds something
}

std::vector<std::pair<const ProcessSnapshot*, Verdict>> verdicts_of(const Snapshot& run) {
  std::vector<std::pair<const ProcessSnapshot*, Verdict>> out;
  for (const ProcessSnapshot& p : run.processes) out.emplace_back(&p, verdict_of(p, run));
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.lost_ns, cpu_ns(*a.first)) >
           std::pair(b.second.lost_ns, cpu_ns(*b.first));
  });
  return out;
}

}  // namespace giltop
