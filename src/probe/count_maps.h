// CountMaps: the kernel side's counts of waits and hand-offs (bpf/count.bpf.h), read while they
// grow.
#pragma once

#include <bpf/libbpf.h>

#include <cstdint>

#include "base/result.h"
#include "event/counted_waits.h"

namespace giltop {

class CountMaps {
 public:
  struct Maps {
    bpf_map *waits, *images, *waiters, *counts;
  };
  // The maps outlive it. `by_thread`: as the kernel side counts.
  CountMaps(Maps maps, bool by_thread) : maps_(maps), by_thread_(by_thread) {}

  // Before they are loaded: room for so many buckets. Maps that are not used keep one place each.
  Status make_room(uint32_t buckets);

  // All that is counted by now; what has ended is removed from the kernel. `not_counted` is the
  // caller's to fill in. Errors: the kernel's.
  Result<CountedWaits> read();

  // That thread was read to be waiting: the beginning of its wait is not known. False: there is no
  // room for it.
  bool note_waiting(uint32_t tgid, uint32_t tid, uint64_t gil);

 private:
  Maps maps_;
  bool by_thread_;
};

}  // namespace giltop
