// Ring: the reader's side of a BPF ring buffer (kernel/bpf/ringbuf.c).
//
// Why the order that comes out is exact. A producer first reserves its place (the producer position
// moves, under a lock), then reads the clock, then commits. So when the reader reads the clock (T),
// then the producer position (P), and takes every record up to P, waiting for those that are still
// being filled, every record it has not seen yet was reserved after T, and its time is later than
// T. T is a watermark: whatever is at or before it is in hand and can be put in order for good.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"

namespace giltop {

class Ring {
 public:
  // `map_fd`: a BPF_MAP_TYPE_RINGBUF of `bytes` (a power of two). Errors: mmap or epoll fails.
  static Result<Ring> make(int map_fd, size_t bytes);
  Ring(Ring&& other) noexcept;
  Ring& operator=(Ring&&) = delete;
  ~Ring();

  // wait() ends when `fd` is readable, too. Errors are ignored: it ends by its timeout then.
  void add_wakeup(int fd);

  // Sleeps until the kernel side wakes us, at most `timeout_ms`.
  void wait(int timeout_ms);

  // Takes every record there is and returns the watermark (boot clock, ns). `woken` is cleared
  // first, so that the kernel side wakes us again for what comes later.
  template <typename Sink>
  uint64_t drain(std::atomic_ref<uint32_t> woken, Sink&& sink);

  // Descriptor to poll together with others: readable when wait() would return.
  int poll_fd() const { return epoll_.get(); }

 private:
  Ring() = default;
  uint32_t wait_committed(const std::atomic_ref<uint32_t>& header);

  static constexpr uint32_t kBusy = 1u << 31;     // BPF_RINGBUF_BUSY_BIT
  static constexpr uint32_t kDiscard = 1u << 30;  // BPF_RINGBUF_DISCARD_BIT
  static constexpr size_t kHeader = 8;            // BPF_RINGBUF_HDR_SZ
  // The clock is read before the position, but a CPU may run the second read early: allow for it.
  static constexpr uint64_t kSlack_ns = 1000;

  Fd epoll_;
  size_t page_ = 0;
  size_t bytes_ = 0;
  std::byte* consumer_ = nullptr;  // our position, written here
  std::byte* producer_ = nullptr;  // theirs, then the data, twice in a row
};

template <typename Sink>
uint64_t Ring::drain(std::atomic_ref<uint32_t> woken, Sink&& sink) {
  woken.store(0, std::memory_order_seq_cst);
  const uint64_t now = boot_ns();
  std::atomic_ref<uint64_t> consumer_pos(*reinterpret_cast<uint64_t*>(consumer_));
  std::atomic_ref<uint64_t> producer_pos(*reinterpret_cast<uint64_t*>(producer_));
  const uint64_t end = producer_pos.load(std::memory_order_acquire);
  uint64_t at = consumer_pos.load(std::memory_order_relaxed);
  const std::byte* data = producer_ + page_;
  unsigned batch = 0;
  while (at < end) {
    const std::byte* record = data + (at & (bytes_ - 1));
    std::atomic_ref<uint32_t> header(*reinterpret_cast<uint32_t*>(const_cast<std::byte*>(record)));
    uint32_t length = header.load(std::memory_order_acquire);
    if (length & kBusy) length = wait_committed(header);
    const bool discarded = length & kDiscard;
    length &= ~(kBusy | kDiscard);
    if (!discarded) sink(std::span<const std::byte>(record + kHeader, length));
    at += (length + kHeader + 7) & ~uint64_t{7};
    if (++batch % 64 == 0) consumer_pos.store(at, std::memory_order_release);
  }
  consumer_pos.store(at, std::memory_order_release);
  return now - kSlack_ns;
}

}  // namespace giltop
