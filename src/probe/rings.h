// Rings: the reader's side of the kernel side's rings (bpf/emit.bpf.h), one by CPU, or by some CPUs
// where there are many.
//
// Why the order that comes out is exact. A producer first reserves its place (its ring's position
// moves, by a compare-and-swap), then reads the clock, then commits. So when the reader reads the
// clock (T), then the positions (P), and takes every record up to P, waiting for those that are
// still being filled, every record it has not seen yet was reserved after T, and its time is later
// than T. T is a watermark: whatever is at or before it is in hand and can be put in order for
// good.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "giltop/abi.h"

namespace giltop {

// How many rings of which size. All are powers of two.
struct RingSizes {
  // `bytes`: of all together, a power of two, at least 4096. `cpus`: of the machine, at least 1.
  // One that is too small for a busy CPU would lose what a shared one does not: so there are fewer
  // than CPUs rather than smaller ones.
  static RingSizes of(size_t bytes, unsigned cpus);
  // 16 MB, with more than 4 CPUs 4 MB for each, up to 64 MB.
  static size_t wanted_bytes(unsigned cpus);

  uint32_t count() const { return uint32_t{1} << count_shift; }
  uint32_t ring_bytes() const { return uint32_t{1} << ring_shift; }
  uint32_t chunks() const { return count() << (ring_shift - chunk_shift); }
  uint32_t chunk_value_bytes() const { return (uint32_t{1} << chunk_shift) + GT_SPILL; }
  uint32_t wake_bytes() const { return ring_bytes() / 8; }

  uint32_t count_shift = 0;
  uint32_t ring_shift = 0;   // log2 of a ring's bytes
  uint32_t chunk_shift = 0;  // and of a chunk's
};

class Rings {
 public:
  // The kernel side's maps. Errors: one cannot be mapped or polled.
  static Result<Rings> make(const RingSizes& sizes, int rings_map, int chunks_map, int bell_map);
  // In memory that is not the kernel's: count() rings, and chunks() chunks of chunk_value_bytes().
  Rings(const RingSizes& sizes, gt_ring* rings, std::byte* chunks);

  // wait() ends when `fd` is readable, too. Errors are ignored: it ends by its timeout then.
  void add_wakeup(int fd);

  // Sleeps until the kernel side wakes us, at most `timeout_ms`.
  void wait(int timeout_ms);

  // Takes every record there is, those of all rings together nearly by their times (as nearly as
  // each ring has them), and returns the watermark (boot clock, ns). `woken` is cleared first, so
  // that the kernel side wakes us again for what comes later.
  template <typename Sink>
  uint64_t drain(std::atomic_ref<uint32_t> woken, Sink&& sink);

 private:
  struct Record {
    uint64_t at = 0;
    std::span<const std::byte> bytes;
    uint64_t ts_ns = ~uint64_t{0};
  };
  // A ring that has records to take.
  struct Cursor {
    uint32_t ring = 0;
    uint32_t taken = 0;  // records, to say so now and then
    uint64_t end = 0;
    Record record, next;  // next: without bytes if there is none

    // Who is preempted before it reads the clock is later than those behind it in the ring: they go
    // by their own time, and it goes before them.
    uint64_t ts_ns() const { return std::min(record.ts_ns, next.ts_ns); }
  };
  class Mapping {
   public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept
        : start_(std::exchange(other.start_, nullptr)), bytes_(other.bytes_) {}
    ~Mapping();
    Mapping& operator=(Mapping&&) = delete;
    static Result<Mapping> make(int map_fd, size_t bytes, size_t offset, bool writable);
    std::byte* start() const { return start_; }

   private:
    std::byte* start_ = nullptr;
    size_t bytes_ = 0;
  };

  Rings(const RingSizes& sizes, Mapping rings, Mapping chunks, Mapping bell_taken,
        Mapping bell_rung, Fd epoll);
  void begin();
  void quiet_bell();
  static uint64_t wait_committed(const std::atomic_ref<uint64_t>& head, uint64_t at);
  // Neither busy nor what was there before.
  static bool is_whole(uint64_t head, uint64_t at) {
    return (head & ~GT_HEAD_SIZE_MASK) == at << GT_HEAD_AT_SHIFT;
  }
  Record record_at(uint32_t ring, uint64_t at, uint64_t end) const;
  template <typename Sink>
  bool take_until(Cursor& cursor, uint64_t until_ns, Sink&& sink);

  // The clock is read before the positions, but a CPU may run the second read early: allow for it.
  static constexpr uint64_t kSlack_ns = 1000;
  static constexpr uint64_t kSnapshot_ns =
      20'000;  // a fork and what its child does are farther apart
  static constexpr int kSnapshotTries = 10;

  RingSizes sizes_;
  gt_ring* rings_;
  std::byte* chunks_;
  std::vector<Cursor> cursors_;  // kept for its memory
  Mapping rings_mapping_, chunks_mapping_;
  Mapping bell_taken_, bell_rung_;  // kernel/bpf/ringbuf.c: the reader's position, the writers'
  Fd epoll_;
};

// Nothing if `at` is the end.
inline Rings::Record Rings::record_at(uint32_t ring, uint64_t at, uint64_t end) const {
  if (at == end) return {.at = at, .bytes = {}, .ts_ns = ~uint64_t{0}};
  const uint64_t in_ring = at & (sizes_.ring_bytes() - 1);
  const size_t chunk =
      (size_t{ring} << (sizes_.ring_shift - sizes_.chunk_shift)) + (in_ring >> sizes_.chunk_shift);
  std::byte* const place = chunks_ + chunk * sizes_.chunk_value_bytes() +
                           (in_ring & ((uint64_t{1} << sizes_.chunk_shift) - 1));
  const std::atomic_ref<uint64_t> head(*reinterpret_cast<uint64_t*>(place));
  uint64_t value = head.load(std::memory_order_acquire);
  if (!is_whole(value, at)) value = wait_committed(head, at);
  const size_t bytes = (value & GT_HEAD_SIZE_MASK) * sizeof(uint64_t);
  std::byte* const record = place + sizeof(uint64_t);
  return {.at = at,
          .bytes = {record, bytes - sizeof(uint64_t)},
          .ts_ns = reinterpret_cast<const gt_header*>(record)->ts_ns};
}

// False: it has no more records.
template <typename Sink>
bool Rings::take_until(Cursor& cursor, uint64_t until_ns, Sink&& sink) {
  const std::atomic_ref consumer(rings_[cursor.ring].consumer);
  do {
    sink(cursor.record.bytes);
    cursor.record = cursor.next;
    if (++cursor.taken % 64 == 0) consumer.store(cursor.record.at, std::memory_order_release);
    if (cursor.record.at == cursor.end) {
      consumer.store(cursor.end, std::memory_order_release);
      return false;
    }
    cursor.next = record_at(
        cursor.ring, cursor.record.at + sizeof(uint64_t) + cursor.record.bytes.size(), cursor.end);
  } while (cursor.ts_ns() <= until_ns);
  return true;
}

template <typename Sink>
uint64_t Rings::drain(std::atomic_ref<uint32_t> woken, Sink&& sink) {
  quiet_bell();
  for (uint32_t i = 0; i < sizes_.count(); i++) {
    const uint64_t end = std::atomic_ref(rings_[i].producer).load(std::memory_order_relaxed);
    std::atomic_ref(rings_[i].wake_at).store(end + sizes_.wake_bytes(), std::memory_order_relaxed);
  }
  woken.store(0, std::memory_order_seq_cst);
  uint64_t now = 0;
  cursors_.resize(sizes_.count());
  // All at once, as nearly as can be: what follows from something is not taken without it.
  for (int tries = 0; tries < kSnapshotTries; tries++) {
    now = boot_ns();
    for (uint32_t i = 0; i < sizes_.count(); i++)
      cursors_[i].end = std::atomic_ref(rings_[i].producer).load(std::memory_order_acquire);
    if (boot_ns() - now < kSnapshot_ns) break;
  }
  size_t active = 0;
  for (uint32_t i = 0; i < sizes_.count(); i++) {
    Cursor cursor;
    cursor.ring = i;
    cursor.end = cursors_[i].end;
    const uint64_t at = std::atomic_ref(rings_[i].consumer).load(std::memory_order_relaxed);
    if (at == cursor.end) continue;
    cursor.record = record_at(i, at, cursor.end);
    cursor.next = record_at(i, at + sizeof(uint64_t) + cursor.record.bytes.size(), cursor.end);
    cursors_[active++] = cursor;
  }
  cursors_.resize(active);
  while (!cursors_.empty()) {
    size_t first = 0;
    uint64_t until_ns = ~uint64_t{0};  // the second's
    for (size_t i = 1; i < cursors_.size(); i++) {
      const uint64_t ts_ns = cursors_[i].ts_ns(), least_ns = cursors_[first].ts_ns();
      if (ts_ns < least_ns) {
        until_ns = least_ns;
        first = i;
      } else {
        until_ns = std::min(until_ns, ts_ns);
      }
    }
    if (!take_until(cursors_[first], until_ns, sink)) {
      cursors_[first] = cursors_.back();
      cursors_.pop_back();
    }
  }
  return now - kSlack_ns;
}

}  // namespace giltop
