// What the kernel side counted of waits and hand-offs (bpf/count.bpf.h), as plain values.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace giltop {

// A thread, or a process (tid 0), from the first sight of it on.
struct WaiterId {
  uint64_t born_ns = 0;
  uint32_t tgid = 0;
  uint32_t tid = 0;
  auto operator<=>(const WaiterId&) const = default;
};

struct Waiter {
  WaiterId id;
  uint64_t image_ns = 0;  // when its process began as it is; 0: not known
  std::string comm;       // of the thread
  bool ended = false;     // and all that it waited is counted
};

struct WaitCount {
  WaiterId waiter;
  bool handoffs = false;  // of a process; else waits
  uint32_t bucket = 0;    // gt_bucket_of(), or GT_NO_BUCKET: the beginning was not seen
  uint64_t count = 0;
  uint64_t sum_ns = 0, min_ns = 0, max_ns = 0;  // of a bucket
};

// All since the beginning, but for waiters that were told as ended before.
struct CountedWaits {
  uint64_t begun_ns = 0;  // the reading; of what came since, some may be missing
  std::vector<Waiter> waiters;
  std::vector<WaitCount> counts;  // of these waiters, each bucket once
  uint64_t not_counted = 0;       // waits that found no room, and with them their hand-offs
};

}  // namespace giltop
