#include "probe/count_maps.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "giltop/abi.h"

namespace giltop {
namespace {

// The entries of a hash. What is added meanwhile may be among them or not. Errors: the kernel's.
template <typename Key, typename Value>
Result<std::vector<std::pair<Key, Value>>> entries_of(const bpf_map* map) {
  std::vector<std::pair<Key, Value>> entries;
  size_t room = 4096;  // at least what one of the hash's own buckets holds
  std::vector<Key> keys;
  std::vector<Value> values;
  uint32_t at = 0;  // a bucket of the hash
  bool first = true;
  while (true) {
    keys.resize(room);
    values.resize(room);
    auto count = static_cast<uint32_t>(room);
    uint32_t next = 0;
    const int failed = bpf_map_lookup_batch(bpf_map__fd(map), first ? nullptr : &at, &next,
                                            keys.data(), values.data(), &count, nullptr);
    const int error = failed == 0 ? 0 : errno;
    if (error == ENOSPC && room < size_t{1} << 22) {
      room *= 2;
      continue;
    }
    if (error != 0 && error != ENOENT) return system_error("read the counts of waits", error);
    for (uint32_t i = 0; i < count; i++) entries.emplace_back(keys[i], values[i]);
    if (error == ENOENT) return entries;
    at = next;
    first = false;
  }
}

WaiterId id_of(const gt_waiter& waiter) { return {waiter.born_ns, waiter.tgid, waiter.tid}; }

}  // namespace

Status CountMaps::make_room(uint32_t buckets) {
  constexpr uint32_t kProcesses = 16384;  // that are traced at once; of more, waits are not counted
  constexpr uint32_t kThreads = 65536;    // that live, and have waited
  const uint32_t waiters = std::min(buckets, by_thread_ ? kThreads : kProcesses);
  for (const auto& [map, entries] :
       {std::pair(maps_.waits, std::min(buckets, kThreads)), std::pair(maps_.images, kProcesses),
        std::pair(maps_.waiters, waiters), std::pair(maps_.counts, buckets)})
    if (bpf_map__set_max_entries(map, entries) != 0)
      return system_error("size the maps of counted waits", errno);
  return ok();
}

Result<CountedWaits> CountMaps::read() {
  CountedWaits read;
  read.begun_ns = boot_ns();
  // Who has ended by now, of them all counts are final, whenever these are read then.
  const auto waiters = entries_of<gt_waiter, gt_waiter_facts>(maps_.waiters);
  if (!waiters) return waiters.error();
  const auto counts = entries_of<gt_count_key, gt_count>(maps_.counts);
  if (!counts) return counts.error();
  std::vector<WaiterId> known, ended;
  for (const auto& [waiter, facts] : *waiters) {
    Waiter& each = read.waiters.emplace_back();
    each.id = id_of(waiter);
    each.image_ns = facts.image_ns;
    each.comm.assign(facts.comm, strnlen(facts.comm, sizeof(facts.comm)));
    each.ended = facts.ended != 0;
    known.push_back(each.id);
    if (each.ended) ended.push_back(each.id);
  }
  std::sort(known.begin(), known.end());
  std::sort(ended.begin(), ended.end());
  for (const auto& [key, count] : *counts) {
    const WaiterId id = id_of(key.waiter);
    if (!std::binary_search(known.begin(), known.end(), id)) continue;  // the next time
    const bool handoffs = key.what == GT_COUNT_HANDOFFS;
    if (count.count != 0)
      read.counts.push_back(
          {id, handoffs, key.bucket, count.count, count.sum_ns, count.min_ns, count.max_ns});
    if (std::binary_search(ended.begin(), ended.end(), id))
      bpf_map_delete_elem(bpf_map__fd(maps_.counts), &key);
  }
  for (const auto& [waiter, facts] : *waiters)
    if (facts.ended != 0) bpf_map_delete_elem(bpf_map__fd(maps_.waiters), &waiter);
  return read;
}

bool CountMaps::note_waiting(uint32_t tgid, uint32_t tid, uint64_t gil) {
  gt_wait wait{};
  wait.gil = gil;
  (void)bpf_map_lookup_elem(bpf_map__fd(maps_.images), &tgid, &wait.image_ns);
  wait.born_ns = by_thread_ ? boot_ns() : wait.image_ns;
  wait.waits = 1;
  // What the kernel side knows is newer.
  return bpf_map_update_elem(bpf_map__fd(maps_.waits), &tid, &wait, BPF_NOEXIST) == 0 ||
         errno == EEXIST;
}

}  // namespace giltop
