// Waits one by one: the longest are kept, of all time and of the present interval.
#include <algorithm>

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

// The "space saving" sketch (Metwally, Agrawal, El Abbadi, 2005): a newcomer takes the place of the
// least, and its sum.
void Thread::Wait::add(const Thread* holder, const Ledger& more) {
  uint64_t ns = 0;
  for (size_t c = 0; c < kLedgerColumns; c++) {
    parts[c] += more[c];
    ns += more[c];
  }
  const uint64_t number = holder ? holder->number : 0;
  Behind* least = &behind[0];
  for (Behind& b : behind) {
    if (b.thread == number) {
      b.tid = holder ? holder->tid : 0;
      b.ns += ns;
      return;
    }
    if (b.ns < least->ns) least = &b;
  }
  least->thread = number;
  least->tid = holder ? holder->tid : 0;
  least->ns += ns;
}

void Thread::Wait::forget() {
  uint64_t ns = 0;
  for (const uint64_t part : parts) ns += part;
  *this = {};
  parts[static_cast<size_t>(LedgerColumn::unknown)] = behind[0].ns = ns;
}

std::optional<uint32_t> Thread::Wait::holder_tid() const {
  const auto most = std::max_element(behind.begin(), behind.end(),
                                     [](const Behind& a, const Behind& b) { return a.ns < b.ns; });
  return most->tid == 0 ? std::nullopt : std::optional(most->tid);
}

WaitSnapshot Gil::wait_of(const Thread& waiter) const {
  Thread::Wait all = waiter.wait_so_far;
  Ledger parts{};
  if (light) {
    parts = light_parts(waiter);
    Ledger nobodys{};
    constexpr auto kUnknown = static_cast<size_t>(LedgerColumn::unknown);
    std::swap(nobodys[kUnknown], parts[kUnknown]);
    all.add(nullptr, nobodys);
    all.add(waiter.light.behind, parts);
  } else {
    for (size_t c = 0; c < kLedgerColumns; c++) parts[c] = ledger[c] - waiter.wait_mark[c];
    all.add(blamed(), parts);
  }
  return {waiter.state_since_ns, last_ns, true, waiter.tid, all.holder_tid(), all.parts};
}

// `thread` waited, and has booked all of it.
void Model::note_wait(const Thread& thread, uint64_t ts_ns) {
  Process& process = *thread.process;
  if (ts_ns - thread.state_since_ns <= process.brief_wait_ns) return;
  const Thread::Wait& wait = thread.wait_so_far;
  const WaitSnapshot noted{thread.state_since_ns, ts_ns,     false, thread.tid,
                           wait.holder_tid(),     wait.parts};
  keep_longest(process.longest_waits, noted);
  if (has_intervals_) keep_longest(process.recent_waits, noted);
  const auto& shortest = has_intervals_ ? process.recent_waits : process.longest_waits;
  if (shortest.size() == kLongestWaits) process.brief_wait_ns = shortest.back().total_ns();
}

void Model::begin_interval() {
  has_intervals_ = true;
  folds_.clear();
  for (Process& process : processes_) {
    process.recent_waits.clear();
    process.brief_wait_ns = 0;
    for (auto& gil : process.gils) gil->recent_max_waiters = gil->waiters.size();
  }
  for (Thread& thread : threads_) thread.recent_held_sleep_max_ns = 0;
}

}  // namespace giltop
