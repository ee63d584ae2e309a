#include "probe/rings.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace giltop {
namespace {

constexpr uint32_t kLeastRingShift = 22;  // with more than one ring: 4 MB
constexpr uint32_t kMostCountShift = 4;   // all are looked at for each record
constexpr uint32_t kMostChunkShift = 16;

}  // namespace

RingSizes RingSizes::of(size_t bytes, unsigned cpus) {
  const auto shift = static_cast<uint32_t>(std::bit_width(bytes) - 1);
  RingSizes sizes;
  sizes.count_shift = std::min({static_cast<uint32_t>(std::bit_width(cpus - 1)), kMostCountShift,
                                shift - std::min(shift, kLeastRingShift)});
  sizes.ring_shift = shift - sizes.count_shift;
  sizes.chunk_shift = std::min(sizes.ring_shift, kMostChunkShift);
  return sizes;
}

size_t RingSizes::wanted_bytes(unsigned cpus) {
  const auto count_shift = static_cast<uint32_t>(std::bit_width(cpus - 1));
  return size_t{1} << (kLeastRingShift + std::clamp(count_shift, 2u, kMostCountShift));
}

Result<Rings::Mapping> Rings::Mapping::make(int map_fd, size_t bytes, size_t offset,
                                            bool writable) {
  void* const start = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                           MAP_SHARED, map_fd, static_cast<off_t>(offset));
  if (start == MAP_FAILED) return system_error("cannot map the rings", errno);
  // A fork would copy its page tables, of which a ring of 1 GB has 4 MB.
  (void)madvise(start, bytes, MADV_DONTFORK);
  Mapping mapping;
  mapping.start_ = static_cast<std::byte*>(start);
  mapping.bytes_ = bytes;
  return mapping;
}

Rings::Mapping::~Mapping() {
  if (start_) munmap(start_, bytes_);
}

Result<Rings> Rings::make(const RingSizes& sizes, int rings_map, int chunks_map, int bell_map) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto rings = Mapping::make(rings_map, sizes.count() * sizeof(gt_ring), 0, true);
  if (!rings) return rings.error();
  auto chunks =
      Mapping::make(chunks_map, size_t{sizes.chunks()} * sizes.chunk_value_bytes(), 0, false);
  if (!chunks) return chunks.error();
  auto taken = Mapping::make(bell_map, page, 0, true);
  if (!taken) return taken.error();
  auto rung = Mapping::make(bell_map, page, page, false);
  if (!rung) return rung.error();
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("cannot poll the rings", errno);
  epoll_event event{};
  // Edge-triggered: a bell that was not quieted is always readable; only its wakeups count.
  event.events = EPOLLIN | EPOLLET;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, bell_map, &event) != 0)
    return system_error("cannot poll the rings", errno);
  return Rings(sizes, std::move(*rings), std::move(*chunks), std::move(*taken), std::move(*rung),
               std::move(epoll));
}

Rings::Rings(const RingSizes& sizes, gt_ring* rings, std::byte* chunks)
    : sizes_(sizes), rings_(rings), chunks_(chunks) {
  begin();
}

Rings::Rings(const RingSizes& sizes, Mapping rings, Mapping chunks, Mapping bell_taken,
             Mapping bell_rung, Fd epoll)
    : sizes_(sizes),
      rings_(reinterpret_cast<gt_ring*>(rings.start())),
      chunks_(chunks.start()),
      rings_mapping_(std::move(rings)),
      chunks_mapping_(std::move(chunks)),
      bell_taken_(std::move(bell_taken)),
      bell_rung_(std::move(bell_rung)),
      epoll_(std::move(epoll)) {
  begin();
}

// Nobody produces yet.
void Rings::begin() {
  for (uint32_t i = 0; i < sizes_.count(); i++) {
    uint64_t start = 0;
    (void)getrandom(&start, sizeof(start), 0);  // an error: as anybody expects, then
    start &= (uint64_t{1} << 56) - sizes_.ring_bytes();
    start |= sizes_.ring_bytes();  // never 0, which an empty place looks like
    rings_[i].consumer = rings_[i].producer = start;
    rings_[i].wake_at = start + sizes_.wake_bytes();
  }
}

void Rings::add_wakeup(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Rings::wait(int timeout_ms) {
  epoll_event event;
  (void)epoll_wait(epoll_.get(), &event, 1,
                   timeout_ms);  // woken, timed out or interrupted: all one
}

void Rings::quiet_bell() {
  if (!bell_taken_.start()) return;
  const auto position = [](const Mapping& mapping) {
    return std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(mapping.start()));
  };
  position(bell_taken_)
      .store(position(bell_rung_).load(std::memory_order_acquire), std::memory_order_release);
}

// A producer was interrupted between reserving and committing; it needs a CPU, perhaps ours.
uint64_t Rings::wait_committed(const std::atomic_ref<uint64_t>& head, uint64_t at) {
  for (unsigned tries = 0;; tries++) {
    const uint64_t value = head.load(std::memory_order_acquire);
    if (is_whole(value, at)) return value;
    if (tries < 100) {
      sched_yield();
    } else {
      usleep(50);
    }
  }
}

}  // namespace giltop
