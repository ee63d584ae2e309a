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
    if (!in_order) sink_last();
  }

  template <typename Sink>
  void release(uint64_t watermark_ns, Sink&& sink) {
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
  // Moves the last event to its place. Few events need it, and those go a few places.
  void sink_last() {
    const Event event = events_.back();
    size_t at = events_.size() - 1;
    for (; at > first_ && events_[at - 1].ts_ns > event.ts_ns; at--) events_[at] = events_[at - 1];
    events_[at] = event;
  }

  static constexpr size_t kMuch = 65536;  // events, 2 MB
  std::vector<Event> events_;
  size_t first_ = 0;  // events before it are out
  uint64_t last_ns_ = 0;
  uint64_t last_pushed_ns_ = 0;  // the last event's own time, before it was moved
  uint64_t newest_ns_ = 0;
  uint64_t late_ = 0;
  uint64_t moved_ = 0;
  uint16_t last_cpu_ = 0;
  EventKind last_kind_ = EventKind::end;
};

}  // namespace giltop
