#include "probe/ring.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace giltop {

Result<Ring> Ring::make(int map_fd, size_t bytes) {
  Ring ring;
  ring.page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  ring.bytes_ = bytes;
  void* consumer = mmap(nullptr, ring.page_, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
  if (consumer == MAP_FAILED) return system_error("cannot map the ring's reader page", errno);
  ring.consumer_ = static_cast<std::byte*>(consumer);
  void* producer = mmap(nullptr, ring.page_ + 2 * bytes, PROT_READ, MAP_SHARED, map_fd,
                        static_cast<off_t>(ring.page_));
  if (producer == MAP_FAILED) return system_error("cannot map the ring", errno);
  ring.producer_ = static_cast<std::byte*>(producer);
  // A fork would copy its page tables, of which a ring of 1 GB has 4 MB.
  (void)madvise(producer, ring.page_ + 2 * bytes, MADV_DONTFORK);
  ring.epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!ring.epoll_) return system_error("cannot poll the ring", errno);
  epoll_event event{};
  // Edge-triggered: a ring that holds anything is always readable; only its wakeups count.
  event.events = EPOLLIN | EPOLLET;
  if (epoll_ctl(ring.epoll_.get(), EPOLL_CTL_ADD, map_fd, &event) != 0)
    return system_error("cannot poll the ring", errno);
  return ring;
}

Ring::Ring(Ring&& other) noexcept
    : epoll_(std::move(other.epoll_)),
      page_(other.page_),
      bytes_(other.bytes_),
      consumer_(std::exchange(other.consumer_, nullptr)),
      producer_(std::exchange(other.producer_, nullptr)) {}

Ring::~Ring() {
  if (consumer_) munmap(consumer_, page_);
  if (producer_) munmap(producer_, page_ + 2 * bytes_);
}

void Ring::add_wakeup(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Ring::wait(int timeout_ms) {
  epoll_event event;
  (void)epoll_wait(epoll_.get(), &event, 1,
                   timeout_ms);  // woken, timed out or interrupted: all one
}

// A producer was interrupted between reserving and committing; it needs a CPU, perhaps ours.
uint32_t Ring::wait_committed(const std::atomic_ref<uint32_t>& header) {
  for (unsigned tries = 0;; tries++) {
    const uint32_t length = header.load(std::memory_order_acquire);
    if (!(length & kBusy)) return length;
    if (tries < 100) {
      sched_yield();
    } else {
      usleep(50);
    }
  }
}

}  // namespace giltop
