#include "model/verdict_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "model/verdict.h"

namespace giltop {
namespace {

constexpr double kMostOfLoss = 0.8;  // lost to one: it is the culprit, others are not spoken of
constexpr double kSomeOfLoss = 0.1;  // lost to one of several: it counts as one of them

bool is_waiter(const ThreadSnapshot& t) {
  return share(t.in(GilState::waiting), t.life_ns()) >= kWaitShare;
}

}  // namespace

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

uint64_t ledger(const ProcessSnapshot& p, LedgerColumn column) {
  uint64_t sum = 0;
  for (const GilSnapshot& g : p.gils) sum += g.of(column);
  return sum;
}

size_t threads_of(const ProcessSnapshot& p) {
  size_t count = 0;
  for (const ThreadSnapshot& t : p.threads) count += std::max<size_t>(t.folded, 1);
  return count;
}

size_t contested_gils(const ProcessSnapshot& p) {
  size_t count = 0;
  for (const GilSnapshot& g : p.gils) {
    const auto another = [&](const BlameSnapshot& b) { return b.waiter != g.blame.front().waiter; };
    count += std::any_of(g.blame.begin(), g.blame.end(), another);
  }
  return count;
}

double starved_share(const ProcessSnapshot& p, uint64_t span_ns) {
  double most = 0;
  for (const ThreadSnapshot& t : p.threads)
    if (t.folded == 0 && share(t.life_ns(), span_ns) >= 0.05)
      most = std::max(most, share(t.in(CpuState::runnable), t.life_ns()));
  return most;
}

Culprits culprits(const ProcessSnapshot& p, CpuState state, uint64_t BlameSnapshot::*part) {
  struct Lost {
    const ThreadSnapshot* holder;
    uint64_t ns = 0;
    std::map<uint64_t, std::optional<uint32_t>> losers = {};  // by their numbers
  };
  std::vector<Lost> all;
  uint64_t lost_ns = 0;
  for (const ThreadSnapshot& t : p.threads) {
    if (t.in(GilState::holding, state) == 0) continue;
    Lost& lost = all.emplace_back(Lost{&t});
    for (const GilSnapshot& g : p.gils) {
      for (const BlameSnapshot& b : g.blame) {
        if (b.holder != t.number || b.*part == 0) continue;
        lost.ns += b.*part;
        lost.losers[b.waiter] = b.waiter_tid;
      }
    }
    lost_ns += lost.ns;
  }
  if (all.empty()) return {};
  std::stable_sort(all.begin(), all.end(), [&](const Lost& a, const Lost& b) {
    return std::pair(a.ns, a.holder->in(GilState::holding, state)) >
           std::pair(b.ns, b.holder->in(GilState::holding, state));
  });
  if (lost_ns == 0 || share(all.front().ns, lost_ns) >= kMostOfLoss) {
    all.erase(all.begin() + 1, all.end());
  } else {
    // One that cost less than most is not left alone with it.
    const auto some = [&](const Lost& lost) { return share(lost.ns, lost_ns) >= kSomeOfLoss; };
    const bool several = std::count_if(all.begin(), all.end(), some) > 1;
    std::erase_if(all, [&](const Lost& lost) { return several ? !some(lost) : lost.ns == 0; });
  }

  Culprits found;
  std::map<uint64_t, std::optional<uint32_t>> losers;
  for (const Lost& lost : all) {
    const ThreadSnapshot& holder = *lost.holder;
    if (holder.folded == 0) {
      found.count++;
    } else {
      found.ended = true;
    }
    found.amount_ns += holder.in(GilState::holding, state);
    found.held_ns += holder.in(GilState::holding);
    found.lost_ns += lost.ns;
    found.sleeps += holder.held_sleeps;
    found.sleep_max_ns = std::max(found.sleep_max_ns, holder.held_sleep_max_ns);
    found.endless += holder.held_sleeps == 0;
    losers.insert(lost.losers.begin(), lost.losers.end());
  }
  if (found.count == 1 && !found.ended) found.one = all.front().holder;
  found.losers = losers.size();
  found.ended_lost =
      std::any_of(losers.begin(), losers.end(), [](const auto& loser) { return !loser.second; });
  if (losers.size() == 1) found.loser_tid = losers.begin()->second;
  return found;
}

Case::Case(const ProcessSnapshot& process, const Snapshot& snapshot)
    : p(process),
      run(snapshot),
      span_ns(giltop::span_ns(process)),
      users(gil_users(process)),
      held_ns(ledger(p, LedgerColumn::running) + ledger(p, LedgerColumn::runnable) +
              ledger(p, LedgerColumn::blocked)),
      cpus_used(fmt::format("{:.1f} of {} CPUs used", share(cpu_ns(p), span_ns), run.run.cpus)) {
  for (const GilSnapshot& g : p.gils) {
    acquires += g.acquires;
    gil_life_ns += g.life_ns();
    for (const BlameSnapshot& b : g.blame) {
      waits.computing_ns += b.running_ns + b.unknown_ns;
      waits.preempted_ns += b.runnable_ns;
      waits.asleep_ns += b.blocked_ns;
      waits.handoff_ns += b.handoff_ns;
    }
  }
  for (const ThreadSnapshot* t : users)
    if (is_waiter(*t)) waiters.push_back(t);
}

double bound_without_gil(const Case& c) {
  uint64_t longest_ns = 1;
  for (const ThreadSnapshot* t : c.users) {
    uint64_t own_ns = t->life_ns() - t->in(GilState::waiting);
    if (!is_waiter(*t)) own_ns -= t->in(GilState::released, CpuState::blocked);
    longest_ns = std::max(longest_ns, own_ns);
  }
  const auto span = static_cast<double>(c.span_ns);
  const double cpus = static_cast<double>(cpu_ns(c.p)) / std::max(1u, c.run.run.cpus);
  // While k threads wait the work is done k + 1 times as fast without a GIL. With a mean of k it is
  // done faster yet, were it always the same: k / (k + 1), the part saved, is concave.
  const auto busy = static_cast<double>(c.held_ns + ledger(c.p, LedgerColumn::handoff));
  const auto waits = static_cast<double>(c.waits.all_ns());
  const double saved = waits == 0 ? 0 : busy * waits / (busy + waits);
  const double bound = span / std::max({static_cast<double>(longest_ns), cpus, span - saved});
  return bound < 1.1 ? 0 : bound;
}

}  // namespace giltop
