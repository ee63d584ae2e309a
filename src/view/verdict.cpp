#include "view/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "view/format.h"

namespace giltop {
namespace {

constexpr double kSleepShare = 0.02;  // asleep or preempted with the GIL: of the process's time
constexpr uint64_t kSleepLeast_ns = 20'000'000;
constexpr double kWaitShare = 0.10;     // waiting: of a thread's life
constexpr double kStarvedShare = 0.25;  // runnable without a CPU: of a thread's life
constexpr double kNativeShare = 0.10;   // running without the GIL: of a thread's life
constexpr double kBusyShare = 0.25;     // Python running under one GIL: of the process's time

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

// The thread with the largest of something, and how much others lost to it.
struct Culprit {
  const ThreadSnapshot* thread = nullptr;
  uint64_t amount_ns = 0;
  uint64_t lost_ns = 0;
  std::optional<uint32_t> loser_tid;
  size_t losers = 0;
};

Culprit culprit(const ProcessSnapshot& p, CpuState state, uint64_t BlameSnapshot::*part) {
  Culprit found;
  for (const ThreadSnapshot& t : p.threads) {
    const uint64_t amount = t.in(GilState::holding, state);
    if (t.folded == 0 && amount > found.amount_ns) {
      found.thread = &t;
      found.amount_ns = amount;
    }
  }
  if (!found.thread) return found;
  for (const GilSnapshot& g : p.gils) {
    for (const BlameSnapshot& b : g.blame) {
      if (b.holder_tid != found.thread->tid || b.*part == 0) continue;
      found.lost_ns += b.*part;
      found.loser_tid = b.waiter_tid;
      found.losers++;
    }
  }
  return found;
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

// Ended processes of one program, summed up: what they were one by one is not told any more.
Verdict folded(const ProcessSnapshot& p) {
  uint64_t life = 0, holding = 0, waiting = 0;
  for (const ThreadSnapshot& t : p.threads) {
    life += t.life_ns();
    holding += t.in(GilState::holding);
    waiting += t.in(GilState::waiting);
  }
  return {fmt::format("Summed up, {} threads held the GIL {} % of their life and waited {} %.",
                      format_count(threads_of(p)), format_percent(holding, life),
                      format_percent(waiting, life)),
          "", waiting};
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

// What a free-threaded process did, of whose GIL there were no events.
Verdict free_threaded(const ProcessSnapshot& p, uint64_t span, const std::string& cpus_used) {
  std::string sentence =
      gil_is_off(p) ? "GIL off: free-threaded build; " + cpus_used
                    : "Free-threaded build, and nobody took or released its GIL: " + cpus_used;
  if (const double starved = starved_share(p, span); starved >= kStarvedShare)
    sentence +=
        fmt::format("; threads were ready to run and had no CPU for up to {:.0f} % of their life",
                    starved * 100);
  return {sentence + ".", "", 0};
}

// How much faster the process could be at most, were nobody to wait: the thread with the most work
// of its own, or the CPUs, would be the limit then. Empty when that is not much.
std::string without_gil(const ProcessSnapshot& p, const Snapshot& run) {
  uint64_t longest = 1;
  for (const ThreadSnapshot* t : gil_users(p))
    longest = std::max(longest, t->life_ns() - t->in(GilState::waiting));
  const double cpus = static_cast<double>(cpu_ns(p)) / std::max(1u, run.run.cpus);
  const double bound =
      static_cast<double>(span_ns(p)) / std::max(static_cast<double>(longest), cpus);
  if (bound < 1.1) return {};
  return fmt::format(
      "Without a GIL (free-threaded Python, or processes) this could run up to {:.1f}× faster.",
      bound);
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

Verdict verdict_of(const ProcessSnapshot& p, const Snapshot& run) {
  if (p.folded != 0) return folded(p);
  const uint64_t span = span_ns(p);
  const double cpus = share(cpu_ns(p), span);
  const std::string cpus_used = fmt::format("{:.1f} of {} CPUs used", cpus, run.run.cpus);
  uint64_t acquires = 0, gil_life = 0;
  for (const GilSnapshot& g : p.gils) {
    acquires += g.acquires;
    gil_life += g.life_ns();
  }
  const uint64_t held = ledger(p, LedgerColumn::running) + ledger(p, LedgerColumn::runnable) +
                        ledger(p, LedgerColumn::blocked);
  if (acquires == 0 && held == 0) {
    if (p.free_threaded) return free_threaded(p, span, cpus_used);
    return {"Nobody took or released the GIL meanwhile.", "", 0};
  }
  if (share(ledger(p, LedgerColumn::unknown), gil_life) > 0.5)
    return {fmt::format("For {} % of the time it is not known who held the GIL.",
                        format_percent(ledger(p, LedgerColumn::unknown), gil_life, 0)),
            "", 0};

  // A hold that goes on since before the attach is worth a word even if nobody waits for its end.
  const Culprit sleeper = culprit(p, CpuState::blocked, &BlameSnapshot::blocked_ns);
  if (sleeper.thread && sleeper.amount_ns >= kSleepLeast_ns &&
      share(sleeper.amount_ns, span) >= kSleepShare && (sleeper.losers > 0 || acquires == 0)) {
    const uint64_t times = sleeper.thread->held_sleeps;
    const std::string sleeps =
        times == 0 ? "without end"
                   : fmt::format("{} times, longest {}", format_count(times),
                                 format_duration(sleeper.thread->held_sleep_max_ns));
    return {fmt::format("{} slept {} with the GIL in its hands ({}); {}.", sleeper.thread->tid,
                        format_seconds(sleeper.amount_ns), sleeps, lost_to_it(sleeper)),
            "Native code that blocks should release the GIL first (Py_BEGIN_ALLOW_THREADS; ctypes: "
            "CDLL, not PyDLL).",
            sleeper.lost_ns};
  }

  const auto users = gil_users(p);
  std::vector<double> waits;
  uint64_t waited_ns = 0, held_by_waiters_ns = 0;
  for (const ThreadSnapshot* t : users) {
    const double wait = share(t->in(GilState::waiting), t->life_ns());
    if (wait < kWaitShare) continue;
    waits.push_back(wait);
    waited_ns += t->in(GilState::waiting);
    held_by_waiters_ns += t->in(GilState::holding);
  }
  if (!waits.empty()) {
    const size_t n = waits.size();
    const std::string life = percent_range(waits);
    if (n > 1 && share(held_by_waiters_ns, held) >= 0.7) {
      const size_t contested = std::max<size_t>(contested_gils(p), 1);
      const std::string gils = contested == 1 ? "one GIL" : fmt::format("{} GILs", contested);
      return {
          fmt::format("{} threads took turns on {}: {}, each waited {} of its life for {}.",
                      count_word(n), gils, cpus_used, life, n == 2 ? "the other" : "the others"),
          without_gil(p, run), waited_ns};
    }
    return {fmt::format("{} of {} threads waited {} of {} life for the GIL: {}.", count_word(n),
                        threads_of(p), life, n == 1 ? "its" : "their", cpus_used),
            n > 1 ? without_gil(p, run) : std::string(), waited_ns};
  }

  const Culprit preempted = culprit(p, CpuState::runnable, &BlameSnapshot::runnable_ns);
  if (preempted.thread && preempted.losers > 0 && preempted.lost_ns >= kSleepLeast_ns &&
      share(preempted.lost_ns, span) >= kSleepShare) {
    return {fmt::format("{} was preempted with the GIL for {}: {}.", preempted.thread->tid,
                        format_seconds(preempted.amount_ns), lost_to_it(preempted)),
            "Other work competes for its CPU: give the process more CPU, or look at its CPU quota.",
            preempted.lost_ns};
  }

  const auto busy = std::count_if(p.gils.begin(), p.gils.end(), [&](const GilSnapshot& g) {
    return share(g.of(LedgerColumn::running) + g.of(LedgerColumn::runnable), span) >= kBusyShare;
  });
  if (busy > 1)
    return {fmt::format("{} interpreters ran in parallel, each with a GIL of its own: {}.",
                        count_word(static_cast<size_t>(busy)), cpus_used),
            "", 0};

  std::vector<double> native;
  for (const ThreadSnapshot& t : p.threads)
    if (t.folded == 0 &&
        share(t.in(GilState::released, CpuState::running), t.life_ns()) >= kNativeShare &&
        share(t.life_ns(), span) >= 0.05)
      native.push_back(share(t.in(GilState::released, CpuState::running), t.life_ns()));
  if (native.size() > 1)
    return {fmt::format("The GIL is not the problem: {} threads ran native code without it for {} "
                        "of their life, {}.",
                        native.size(), percent_range(native), cpus_used),
            "", 0};
  if (users.size() == 1 && share(held, span) >= 0.5) {
    const ThreadSnapshot& only = *users.front();
    const uint64_t preempted_ns = only.in(GilState::holding, CpuState::runnable);
    std::string sentence =
        fmt::format("One thread used the GIL and nobody waited for it: {}", cpus_used);
    if (share(preempted_ns, only.life_ns()) >= kWaitShare)
      sentence += fmt::format("; it was preempted with the GIL for {}, for want of a CPU",
                              format_seconds(preempted_ns));
    return {sentence + ".", "", 0};
  }
  uint64_t longest_ns = 0;
  for (const ThreadSnapshot& t : p.threads) longest_ns = std::max(longest_ns, t.wait.max_ns);
  const double starved = starved_share(p, span);
  if (starved >= kStarvedShare)
    return {
        fmt::format("The GIL is not the problem, CPUs are: threads were ready to run and had none "
                    "for up to {:.0f} % of their life; {}.",
                    starved * 100, cpus_used),
        "", 0};
  return {fmt::format("The GIL is not the problem: held {} % of the time, and {}; {}.",
                      format_percent(held, span, 0),
                      longest_ns == 0 ? std::string("nobody waited for it")
                                      : "no wait was longer than " + format_duration(longest_ns),
                      cpus_used),
          "", 0};
}

}  // namespace giltop
