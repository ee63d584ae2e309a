// Waits one by one: the longest are kept, of all time and of the present interval.
#include <algorithm>
#include <utility>

#include "model/model.h"

namespace giltop {

void keep_longest(std::vector<WaitSnapshot>& longest, const WaitSnapshot& wait) {
  const auto place = std::upper_bound(
      longest.begin(), longest.end(), wait,
      [](const WaitSnapshot& a, const WaitSnapshot& b) { return a.total_ns() > b.total_ns(); });
  if (place == longest.end() && longest.size() >= kLongestWaits) return;
  longest.insert(place, wait);
  if (longest.size() > kLongestWaits) longest.pop_back();
}

void Thread::Wait::add(const Thread* holder, uint64_t ns) {
  const uint64_t number = holder ? holder->number : 0;
  for (unsigned i = 0; i < holders; i++) {
    if (behind[i].thread != number) continue;
    behind[i].ns += ns;
    return;
  }
  const uint32_t tid = holder ? holder->tid : 0;
  if (holders < kMostBehind) {
    behind[holders++] = {number, ns, tid};
    return;
  }
  // A newcomer takes the place of the least, and its sum.
  Behind& least = *std::min_element(behind.begin(), behind.end(),
                                    [](const auto& a, const auto& b) { return a.ns < b.ns; });
  least = {number, least.ns + ns, tid};
}

void Thread::Wait::add(const Ledger& more) {
  if (!std::exchange(has_parts, true)) parts = {};
  for (size_t c = 0; c < kLedgerColumns; c++) parts[c] += more[c];
}

void Thread::Wait::forget(const Ledger& ledger, uint64_t from_ns, uint64_t ts_ns) {
  begin(ledger, ts_ns);
  Ledger unknown{};
  unknown[static_cast<size_t>(LedgerColumn::unknown)] = ts_ns - from_ns;
  add(unknown);
  add(nullptr, ts_ns - from_ns);
}

const Thread::Wait::Behind* Thread::Wait::most() const {
  const auto most = std::max_element(behind.begin(), behind.begin() + holders,
                                     [](const Behind& a, const Behind& b) { return a.ns < b.ns; });
  return holders == 0 ? nullptr : &*most;
}

std::optional<uint32_t> Thread::Wait::holder_tid() const {
  const Behind* const holder = most();
  return !holder || holder->tid == 0 ? std::nullopt : std::optional(holder->tid);
}

namespace {

WaitSnapshot told(const Thread& waiter, const Thread::Wait& wait, uint64_t end_ns, bool ongoing,
                  const Ledger& parts) {
  const Thread::Wait::Behind* const holder = wait.most();
  return {waiter.state_since_ns, end_ns, ongoing,       waiter.tid,
          wait.holder_tid(),     parts,  waiter.number, holder ? holder->thread : 0};
}

}  // namespace

WaitSnapshot Gil::wait_of(const Thread& waiter) const {
  Thread::Wait all = waiter.wait_so_far;
  if (light) {
    Ledger parts = light_parts(waiter);
    all.add(parts);
    const uint64_t nobodys = parts[static_cast<size_t>(LedgerColumn::unknown)];
    all.add(nullptr, nobodys);
    all.add(waiter.light.behind, last_ns - std::min(waiter.light.since_ns, last_ns) - nobodys);
  } else {
    Ledger parts = ledger;
    for (size_t c = 0; c < kLedgerColumns; c++) parts[c] -= all.mark[c];
    all.add(parts);
    all.pass(blamed(), last_ns);
  }
  return told(waiter, all, last_ns, true, all.parts);
}

Ledger Thread::wait_parts() const {
  Ledger parts{};
  if (wait_so_far.has_parts) parts = wait_so_far.parts;
  if (!process->light)
    for (size_t c = 0; c < kLedgerColumns; c++) parts[c] += gil->ledger[c] - wait_so_far.mark[c];
  return parts;
}

// `thread` waited, and has booked all of it.
void Model::keep_wait(const Thread& thread, uint64_t ts_ns) {
  Process& process = *thread.process;
  const WaitSnapshot noted = told(thread, thread.wait_so_far, ts_ns, false, thread.wait_parts());
  keep_longest(process.longest_waits, noted);
  if (has_intervals_) keep_longest(process.recent_waits, noted);
  const auto& shortest = has_intervals_ ? process.recent_waits : process.longest_waits;
  if (shortest.size() == kLongestWaits) process.brief_wait_ns = shortest.back().total_ns();
}

void Model::begin_interval() {
  has_intervals_ = true;
  interval_ns_ = last_ns_;
  folds_.clear();
  for (Process& process : processes_) {
    process.recent_waits.clear();
    process.brief_wait_ns = 0;
    for (auto& gil : process.gils) gil->recent_max_waiters = gil->waiters.size();
  }
  for (Thread& thread : threads_) thread.recent_held_sleep_max_ns = 0;
}

}  // namespace giltop
