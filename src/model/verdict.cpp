#include "model/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/format.h"
#include "model/verdict_case.h"

namespace giltop {
namespace {

constexpr double kLostShare = 0.02;  // off the CPU with the GIL, and lost to it: of the time
constexpr uint64_t kLostLeast_ns = 20'000'000;
constexpr uint64_t kSleep_ns = 1'000'000;  // the longest, at least: not a mutex of the GIL itself
constexpr double kAlsoShare = 0.10;        // of all waits: what explains less is not worth a word
constexpr double kHandoffShare = 0.1;      // from release to acquire by who waited: of the time
constexpr double kConvoyBlame = 0.6;       // of a short user's waits: behind the one that computes
constexpr double kConvoyTimes = 10;        // it waits so many times longer than it needs the GIL
constexpr double kStarvedShare = 0.25;     // runnable without a CPU: of a thread's life
constexpr double kNativeShare = 0.25;      // running without the GIL: of a thread's life
constexpr double kBusyShare = 0.25;        // Python running under one GIL: of the process's time

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

// "31217 was", "Two threads were", "Two threads and ended ones were"
std::string who(const Culprits& c, const char* one, const char* several) {
  if (c.one) return fmt::format("{}{}", c.one->tid, one);
  if (c.count == 0) return fmt::format("Ended threads{}", several);
  return fmt::format("{} thread{}{}{}", count_word(c.count), c.count == 1 ? "" : "s",
                     c.ended ? " and ended ones" : "", several);
}

std::string lost_to_it(const Culprits& c) {
  if (c.losers == 0) return "nobody waited for it meanwhile";
  const std::string lost = format_duration(c.lost_ns);
  if (c.loser_tid) return fmt::format("{} lost {} to it", *c.loser_tid, lost);
  if (!c.one || c.ended_lost) return fmt::format("others lost {} to it", lost);
  return fmt::format("{} others lost {} to it", c.losers, lost);
}

// "3 times, longest 40ms, and once without end"
std::string sleeps(const Culprits& c) {
  const std::string ended = c.sleeps == 0
                                ? std::string()
                                : fmt::format("{} times, longest {}", format_count(c.sleeps),
                                              format_duration(c.sleep_max_ns));
  if (c.endless == 0) return ended;
  if (c.sleeps == 0) return "without end";
  return ended + (c.endless == 1 ? ", and once" : fmt::format(", and {} times", c.endless)) +
         " without end";
}

std::string without_gil(const Case& c, double bound) {
  if (bound == 0) return {};
  const bool scarce = share(c.waits.preempted_ns, c.waits.all_ns()) >= kAlsoShare ||
                      starved_share(c.p, c.span_ns) >= kStarvedShare;
  return fmt::format(
      "Without a GIL (free-threaded Python, or processes) this could run up to {:.1f}× faster, "
      "if its threads are independent{}.",
      bound, scarce ? " and each gets a CPU" : "");
}

std::string and_few_cpus(const Case& c) {
  const double starved = starved_share(c.p, c.span_ns);
  if (starved < kStarvedShare) return {};
  return fmt::format("; threads were ready to run and had no CPU for up to {:.0f} % of their life",
                     starved * 100);
}

// --- the rules -----------------------------------------------------------------------------------

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
                 "", c.waits.all_ns()};
}

// A free-threaded process whose GIL was off, or nobody's. It takes and releases it as it starts,
// all the same.
Finding free_threaded(const Case& c) {
  const bool off = share(ledger(c.p, LedgerColumn::off), c.gil_life_ns) > 0.5;
  if (!c.p.free_threaded || (c.used() && !off)) return {};
  std::string sentence =
      off || gil_is_off(c.p)
          ? "GIL off: free-threaded build; " + c.cpus_used
          : "Free-threaded build, and nobody took or released its GIL: " + c.cpus_used;
  return Verdict{sentence + and_few_cpus(c) + "."};
}

Finding unused(const Case& c) {
  if (c.used()) return {};
  return Verdict{fmt::format("Nobody took or released the GIL meanwhile: {}.", c.cpus_used)};
}

Finding unknown(const Case& c) {
  const uint64_t ns = ledger(c.p, LedgerColumn::unknown);
  if (share(ns, c.gil_life_ns) <= 0.5) return {};
  const char* advice =
      "It shows as threads take it: record for longer, or from the program's start (record -- "
      "CMD).";
  if (c.p.lost)
    advice = c.p.exact ? "Events were lost: a larger --buffer-size, or --mode light, loses fewer."
                       : "Events were lost: a larger --buffer-size loses fewer.";
  return Verdict{fmt::format("For {} % of the time it is not known who held the GIL.",
                             format_percent(ns, c.gil_life_ns, 0)),
                 advice};
}

// Somebody's being off the CPU with the GIL took enough of the time, and of others'.
bool costs(const Case& c, const Culprits& culprits) {
  return culprits.lost_ns >= kLostLeast_ns && share(culprits.lost_ns, c.span_ns) >= kLostShare &&
         share(culprits.amount_ns, c.span_ns) >= kLostShare;
}

// A hold that goes on since before the attach is worth a word even if nobody waits for its end.
Finding asleep(const Case& c) {
  const Culprits sleeper = culprits(c.p, CpuState::blocked, &BlameSnapshot::blocked_ns);
  if (sleeper.nobody()) return {};
  const bool long_enough = sleeper.endless != 0 || sleeper.sleep_max_ns >= kSleep_ns;
  if (!(costs(c, sleeper) && long_enough) && (c.acquires != 0 || sleeper.amount_ns < kLostLeast_ns))
    return {};
  return Verdict{
      fmt::format("{} {} with the GIL in {} hands ({}); {}.", who(sleeper, " slept", " slept"),
                  format_duration(sleeper.amount_ns), sleeper.one ? "its" : "their",
                  sleeps(sleeper), lost_to_it(sleeper)),
      "Native code that blocks should release the GIL first (Py_BEGIN_ALLOW_THREADS; ctypes: "
      "CDLL, not PyDLL)."};
}

constexpr const char* kMoreCpu =
    "Something else had the CPU: give the process more CPU time, or look at its quota (cpu.max of "
    "its cgroup) and affinity.";

Finding preempted(const Case& c) {
  const Culprits holder = culprits(c.p, CpuState::runnable, &BlameSnapshot::runnable_ns);
  if (holder.nobody() || !costs(c, holder)) return {};
  return Verdict{fmt::format("{} preempted with the GIL for {}, {} % of {} holds: {}.",
                             who(holder, " was", " were"), format_duration(holder.amount_ns),
                             format_percent(holder.amount_ns, holder.held_ns, 0),
                             holder.one ? "its" : "their", lost_to_it(holder)),
                 kMoreCpu};
}

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
      share(worst->handoff_runqueue_ns, worst->handoff.sum_ns) > 0.5
          ? kMoreCpu
          : "It changes hands too often for what is done in between: a longer switch interval "
            "(sys.setswitchinterval), larger pieces of work, or fewer threads."};
}

// Threads that need the GIL for a moment, and wait a switch interval for it behind one that
// computes.
Finding convoy(const Case& c) {
  const ThreadSnapshot* computer = nullptr;
  for (const ThreadSnapshot* t : c.users) {
    if (share(t->in(GilState::holding), c.held_ns) < 0.2) continue;
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
        if (b.waiter != t->number) continue;
        all += b.total_ns();
        if (b.holder == computer->number) behind += b.running_ns;
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
      "(sys.setswitchinterval). Compute in another process, or in native code without the GIL."};
}

Finding turns(const Case& c) {
  const size_t n = c.waiters.size();
  uint64_t held_by_waiters = 0;
  std::vector<double> waits;
  for (const ThreadSnapshot* t : c.waiters) {
    waits.push_back(share(t->in(GilState::waiting), t->life_ns()));
    held_by_waiters += t->in(GilState::holding);
  }
  if (n < 2 || share(held_by_waiters, c.held_ns) < 0.7) return {};
  const size_t contested = std::max<size_t>(contested_gils(c.p), 1);
  const std::string gils = contested == 1 ? "one GIL" : fmt::format("{} GILs", contested);
  const double bound = bound_without_gil(c);
  return Verdict{fmt::format("{} threads took turns on {}: {}, each waited {} of its life for {}.",
                             count_word(n), gils, c.cpus_used, percent_range(waits),
                             n == 2 ? "the other" : "the others"),
                 without_gil(c, bound), 0, bound};
}

Finding waiting(const Case& c) {
  if (c.waiters.empty()) return {};
  std::vector<double> waits;
  for (const ThreadSnapshot* t : c.waiters)
    waits.push_back(share(t->in(GilState::waiting), t->life_ns()));
  const double bound = waits.size() > 1 ? bound_without_gil(c) : 0;
  return Verdict{fmt::format("{} of {} threads waited {} of {} life for the GIL: {}.",
                             count_word(waits.size()), threads_of(c.p), percent_range(waits),
                             waits.size() == 1 ? "its" : "their", c.cpus_used),
                 without_gil(c, bound), 0, bound};
}

Finding interpreters(const Case& c) {
  const auto busy = std::count_if(c.p.gils.begin(), c.p.gils.end(), [&](const GilSnapshot& g) {
    return share(g.of(LedgerColumn::running) + g.of(LedgerColumn::runnable), c.span_ns) >=
           kBusyShare;
  });
  if (busy < 2) return {};
  return Verdict{fmt::format("{} interpreters ran in parallel, each with a GIL of its own: {}.",
                             count_word(static_cast<size_t>(busy)), c.cpus_used)};
}

Finding native(const Case& c) {
  std::vector<double> shares;
  for (const ThreadSnapshot& t : c.p.threads) {
    const double ran = share(t.in(GilState::released, CpuState::running), t.life_ns());
    if (t.folded == 0 && ran >= kNativeShare && share(t.life_ns(), c.span_ns) >= 0.05)
      shares.push_back(ran);
  }
  if (shares.size() < 2) return {};
  return Verdict{
      fmt::format("The GIL is not the problem: {} threads ran native code without it "
                  "for {} of their life, {}{}.",
                  shares.size(), percent_range(shares), c.cpus_used, and_few_cpus(c))};
}

std::string worst_wait(const Case& c) {
  uint64_t longest_ns = 0;
  for (const ThreadSnapshot& t : c.p.threads) longest_ns = std::max(longest_ns, t.wait.max_ns);
  return longest_ns == 0 ? std::string("nobody waited for it")
                         : "no wait for it was longer than " + format_duration(longest_ns);
}

Finding one_thread(const Case& c) {
  if (c.users.size() != 1 || share(c.held_ns, c.span_ns) < 0.5) return {};
  const ThreadSnapshot& only = *c.users.front();
  const uint64_t preempted_ns = only.in(GilState::holding, CpuState::runnable);
  std::string sentence =
      fmt::format("One thread used the GIL, and {}: {}", worst_wait(c), c.cpus_used);
  if (share(preempted_ns, only.life_ns()) >= kWaitShare)
    sentence += fmt::format("; it was preempted with the GIL for {}, for want of a CPU",
                            format_duration(preempted_ns));
  return Verdict{sentence + "."};
}

Finding few_cpus(const Case& c) {
  const double starved = starved_share(c.p, c.span_ns);
  if (starved < kStarvedShare) return {};
  return Verdict{
      fmt::format("The GIL is not the problem, CPUs are: threads were ready to run and had none "
                  "for up to {:.0f} % of their life; {}.",
                  starved * 100, c.cpus_used)};
}

Finding none(const Case& c) {
  return Verdict{fmt::format("The GIL is not the problem: held {} % of the time, and {}; {}.",
                             format_percent(c.held_ns, c.span_ns, 0), worst_wait(c), c.cpus_used)};
}

// Rules that explain waits, or a part of them, are causes: the one with the largest part has the
// word, others that matter are said after it. Of those of one part, and of all other rules, the
// first that finds something.
struct Rule {
  const char* finding;
  Finding (*judge)(const Case&);
  uint64_t WaitParts::*part = nullptr;
  // What its sentence becomes where another part has the word, if it tells of all waits.
  const char* another = nullptr;
};
constexpr Rule kRules[] = {
    {"summed-up", folded},
    {"free-threaded", free_threaded},
    {"unused", unused},
    {"unknown", unknown},
    {"asleep-with-gil", asleep, &WaitParts::asleep_ns},
    {"preempted-with-gil", preempted, &WaitParts::preempted_ns},
    {"hand-off-bound", handoff_bound, &WaitParts::handoff_ns},
    {"convoy", convoy, &WaitParts::computing_ns, "was mostly behind one thread that computes"},
    {"taking-turns", turns, &WaitParts::computing_ns, "was behind threads that took turns"},
    {"waiting", waiting, &WaitParts::computing_ns, "was behind Python that ran"},
    {"interpreters-in-parallel", interpreters},
    {"native-in-parallel", native},
    {"one-thread", one_thread},
    {"too-few-cpus", few_cpus},
    {"not-the-gil", none},
};

struct Cause {
  Verdict verdict;
  const Rule* rule;
};

// The largest part first.
Verdict most_explanatory(std::vector<Cause> causes, const WaitParts& waits) {
  std::stable_sort(causes.begin(), causes.end(), [](const Cause& a, const Cause& b) {
    return a.verdict.lost_ns > b.verdict.lost_ns;
  });
  Verdict first = std::move(causes.front().verdict);
  for (size_t i = 1; i < causes.size(); i++) {
    Verdict& other = causes[i].verdict;
    if (share(other.lost_ns, waits.all_ns()) < kAlsoShare) continue;
    if (causes[i].rule->another)
      other.sentence = fmt::format("Another {} of waits {}.", format_duration(other.lost_ns),
                                   causes[i].rule->another);
    first.also.push_back(std::move(other));
  }
  return first;
}

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
  std::vector<Cause> causes;
  for (const Rule& rule : kRules) {
    const auto explains_the_same = [&](const Cause& cause) {
      return cause.rule->part == rule.part;
    };
    if (rule.part ? std::any_of(causes.begin(), causes.end(), explains_the_same) : !causes.empty())
      continue;
    Finding found = rule.judge(c);
    if (!found) continue;
    found->finding = rule.finding;
    if (!rule.part) return *std::move(found);
    found->lost_ns = c.waits.*rule.part;
    causes.push_back({*std::move(found), &rule});
  }
  return causes.empty() ? Verdict() : most_explanatory(std::move(causes), c.waits);
}

std::vector<std::string> all_findings() {
  std::vector<std::string> names;
  for (const Rule& rule : kRules) names.emplace_back(rule.finding);
  return names;
}

uint64_t explained_ns(const Verdict& verdict) {
  uint64_t sum = verdict.lost_ns;
  for (const Verdict& other : verdict.also) sum += other.lost_ns;
  return sum;
}

std::vector<std::pair<const ProcessSnapshot*, Verdict>> verdicts_of(const Snapshot& run) {
  std::vector<std::pair<const ProcessSnapshot*, Verdict>> out;
  for (const ProcessSnapshot& p : run.processes) out.emplace_back(&p, verdict_of(p, run));
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return std::pair(explained_ns(a.second), cpu_ns(*a.first)) >
           std::pair(explained_ns(b.second), cpu_ns(*b.first));
  });
  return out;
}

}  // namespace giltop
