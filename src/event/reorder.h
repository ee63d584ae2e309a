// Reorder: events of several CPUs, nearly in order, into exactly one order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "event/event.h"

namespace giltop {

// Assumes what src/probe/rings.h proves: once told `watermark`, no event before it will be pushed
// any more. Events at or before the watermark come out by time, equal times in the order pushed;
// the times that come out increase strictly (a tie is moved by 1 ns), except that the two halves of
// one context switch share theirs. An event before one that is already out is moved behind it and
// counted as late (the kernel's fast clock may step back some ns between CPUs: see
// ktime_get_boot_fast_ns in kernel/time/timekeeping.c).
class Reorder {
 public:
  void push(const Event& event) {
    const bool in_order = pending() == 0 || events_.back().ts_ns <= event.ts_ns;
    events_.push_back(event);
    if (!in_order && !unsorted_) sink_last();
  }

  template <typename Sink>
  void release(uint64_t watermark_ns, Sink&& sink) {
    if (unsorted_) sort();
    while (first_ < events_.size() && events_[first_].ts_ns <= watermark_ns) {
      Event& event = events_[first_];
      const bool second_half = event.kind == EventKind::switch_in &&
                               last_kind_ == EventKind::switch_out && event.cpu == last_cpu_ &&
                               event.ts_ns == last_pushed_ns_;
      if (event.ts_ns < newest_ns_) late_++;
      newest_ns_ = std::max(newest_ns_, event.ts_ns);
      last_pushed_ns_ = event.ts_ns;
      if (second_half) {
        event.ts_ns = last_ns_;
      } else if (event.ts_ns <= last_ns_) {
        event.ts_ns = last_ns_ + 1;
        moved_++;
      }
      last_ns_ = event.ts_ns;
      last_kind_ = event.kind;
      last_cpu_ = event.cpu;
      first_++;
      sink(static_cast<const Event&>(event));
    }
    const size_t had = events_.size();
    if (first_ == had) {
      events_.clear();
      first_ = 0;
    } else if (first_ > 4096 && first_ > had / 2) {
      events_.erase(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(first_));
      first_ = 0;
    }
    // A burst is over.
    if (events_.capacity() > kMuch && had < events_.capacity() / 8) events_.shrink_to_fit();
  }

  uint64_t late() const { return late_; }
  uint64_t moved() const { return moved_; }  // late ones, and ties
  uint64_t last_ns() const { return last_ns_; }
  size_t pending() const { return events_.size() - first_; }
  size_t capacity() const { return events_.capacity(); }

 private:
  // Moves the last event to its place. Few events need it, and those go a few places; one that goes
  // far is left for sort(), as many may follow it.
  void sink_last() {
    const size_t last = events_.size() - 1;
    const size_t least = last - std::min(last - first_, kFar);
    size_t at = last;
    const Event event = events_[last];
    while (at > least && events_[at - 1].ts_ns > event.ts_ns) at--;
    if (at == least && at > first_ && events_[at - 1].ts_ns > event.ts_ns) {
      unsorted_ = true;
      return;
    }
    std::move_backward(events_.begin() + static_cast<ptrdiff_t>(at),
                       events_.begin() + static_cast<ptrdiff_t>(last), events_.end());
    events_[at] = event;
  }

  void sort() {
    std::stable_sort(events_.begin() + static_cast<ptrdiff_t>(first_), events_.end(),
                     [](const Event& a, const Event& b) { return a.ts_ns < b.ts_ns; });
    unsorted_ = false;
  }

  static constexpr size_t kFar = 64;      // places
  static constexpr size_t kMuch = 65536;  // events, 2 MB
  std::vector<Event> events_;
  size_t first_ = 0;  // events before it are out
  bool unsorted_ = false;
  uint64_t last_ns_ = 0;
  uint64_t last_pushed_ns_ = 0;  // the last event's own time, before it was moved
  uint64_t newest_ns_ = 0;
  uint64_t late_ = 0;
  uint64_t moved_ = 0;
  uint16_t last_cpu_ = 0;
  EventKind last_kind_ = EventKind::end;
};

}  // namespace giltop
