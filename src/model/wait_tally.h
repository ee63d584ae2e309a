// WaitTally: what the kernel side counted of waits and hand-offs, as snapshots of intervals: by
// process, or waits by thread, but without anything else that a Model knows of them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "event/counted_waits.h"
#include "event/event.h"
#include "model/snapshot.h"

namespace giltop {

// Assumes the events of one session in order, and of what was counted readings at moments up to
// which all events were applied. Counts only grow; they say to which process image they belong by
// the time it began.
//
//   began (fork, exec, or found running) ──► alive ──► ended ──next()──► forgotten
//
// What ended is kept one by one until it is told, but not more than kMostEnded of it: one sum
// stands for all others, of those that waited least.
class WaitTally {
 public:
  static constexpr size_t kMostEnded = 2048;  // threads; or processes
  static constexpr size_t kMostPrograms = 256;

  // Which processes there are, and what they run. Events of threads are of no account.
  void apply(const Event& event, const EventTables& tables);
  // Counting began.
  void begin(uint64_t now_ns) { taken_ns_ = final_ns_ = told_ns_ = now_ns; }
  // What was counted since the beginning; the reading of it was over at `now_ns`.
  void take(const CountedWaits& counted, uint64_t now_ns);
  // What was taken since the last call.
  Snapshot next(const RunFacts& run);

 private:
  struct Values {
    std::map<uint32_t, uint64_t> buckets;  // by gt_bucket_of()
    uint64_t times = 0;  // also of what began before it was seen, and has no bucket
    uint64_t sum_ns = 0, min_ns = ~uint64_t{0}, max_ns = 0;
    void add(const Values& more);
    void add(const WaitCount& now, const WaitCount& before);
    HistogramSnapshot histogram() const;
  };
  struct Thread {
    uint32_t tid = 0;  // 0: of all
    std::string comm;
    bool ended = false;
    Values waits;  // since the last next()
  };
  struct Image {
    uint64_t number = 0;
    uint32_t tgid = 0;
    uint64_t start_ns = 0;
    std::string comm, cmdline, python;
    bool forked = false, left = false;
    uint64_t end_ns = 0;  // 0: it has not ended
    bool waited = false;  // at any time
    std::map<WaiterId, Thread> threads;
    uint64_t folded = 0;  // ended threads
    Values rest;          // of these
    Values handoffs;
    uint64_t waited_times() const;
  };
  struct Program {
    uint64_t folded = 0;  // ended processes
    Values waits, handoffs;
  };

  Image* image_now(uint32_t tgid);
  Image& new_image(uint32_t tgid, uint64_t start_ns);
  Image* image_of(const Waiter& waiter);
  void end_image(uint32_t tgid, uint64_t ts_ns, bool left);
  void forget(uint64_t number);
  void fold_threads(Image& image);
  void fold_images();
  static bool is_reported(const Image& image);
  // Whether nothing can come of it any more.
  bool is_over(const Image& image) const { return image.end_ns != 0 && image.end_ns <= final_ns_; }

  std::map<uint64_t, Image> images_;                             // by number
  std::unordered_map<uint32_t, std::vector<uint64_t>> by_tgid_;  // numbers, in order
  // By whether it is of hand-offs, and bucket.
  std::map<WaiterId, std::map<std::pair<bool, uint32_t>, WaitCount>> taken_;
  std::map<std::string, Program> programs_;  // by comm
  uint64_t numbers_ = 0;
  uint64_t taken_ns_ = 0, told_ns_ = 0;
  uint64_t final_ns_ = 0;  // of who had ended by then all was taken
  RunFacts told_run_;
  uint64_t lost_events_ = 0;  // since the last next()
  uint64_t not_counted_ = 0, not_counted_told_ = 0;
  uint64_t of_nobody_ = 0;   // waits of those that ended, and of which no event told
  uint64_t of_unknown_ = 0;  // as yet: an event may still tell of them
};

}  // namespace giltop
