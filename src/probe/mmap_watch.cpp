#include "probe/mmap_watch.h"

#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/cpus.h"

namespace giltop {
namespace {

constexpr size_t kDataPages = 64;  // of each CPU, a power of two: some two thousand mappings

// struct perf_record_mmap2 up to the name; the kernel documents it as a comment only.
struct Mmap2 {
  perf_event_header header;
  uint32_t pid, tid;
  uint64_t address, length, page_offset;
  uint32_t major, minor;
  uint64_t inode, generation;
  uint32_t protection, flags;
};
static_assert(sizeof(Mmap2) == 72);

}  // namespace

Result<MmapWatch> MmapWatch::make() {
  MmapWatch watch;
  watch.page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.mmap = attr.mmap2 = 1;
  attr.watermark = 1;
  attr.wakeup_watermark = 1;
  for (const int cpu : online_cpus()) {
    Fd fd(static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!fd && errno == ENODEV) continue;  // went offline
    if (!fd) return system_error("watch what processes map (perf_event_open)", errno);
    void* pages = mmap(nullptr, (1 + kDataPages) * watch.page_, PROT_READ | PROT_WRITE, MAP_SHARED,
                       fd.get(), 0);
    if (pages == MAP_FAILED) return system_error("map a perf event's buffer", errno);
    watch.rings_.push_back({std::move(fd), static_cast<std::byte*>(pages)});
  }
  return watch;
}

MmapWatch::~MmapWatch() {
  for (const Ring& ring : rings_) munmap(ring.pages, (1 + kDataPages) * page_);
}

std::vector<int> MmapWatch::poll_fds() const {
  std::vector<int> fds;
  for (const Ring& ring : rings_) fds.push_back(ring.fd.get());
  return fds;
}

bool MmapWatch::drain(const std::function<void(const NewMapping&)>& sink) {
  bool complete = true;
  for (const Ring& ring : rings_) complete &= drain(ring, sink);
  return complete;
}

bool MmapWatch::drain(const Ring& ring, const std::function<void(const NewMapping&)>& sink) {
  auto* control = reinterpret_cast<perf_event_mmap_page*>(ring.pages);
  std::atomic_ref head_ref(control->data_head), tail_ref(control->data_tail);
  const uint64_t head = head_ref.load(std::memory_order_acquire);
  uint64_t tail = tail_ref.load(std::memory_order_relaxed);
  const size_t bytes = kDataPages * page_;
  const std::byte* data = ring.pages + page_;
  bool complete = true;
  std::vector<std::byte> record;
  while (tail < head) {
    perf_event_header header;  // 8 bytes, aligned to 8: never across the end
    std::memcpy(&header, data + (tail & (bytes - 1)), sizeof(header));
    if (header.size < sizeof(header) || header.size > head - tail) {
      complete = false;
      break;
    }
    if (header.type == PERF_RECORD_LOST) complete = false;
    if (header.type == PERF_RECORD_MMAP2 && header.size > sizeof(Mmap2)) {
      record.resize(header.size);
      const size_t at = tail & (bytes - 1);
      const size_t first = std::min<size_t>(header.size, bytes - at);
      std::memcpy(record.data(), data + at, first);
      std::memcpy(record.data() + first, data, header.size - first);
      Mmap2 body;
      std::memcpy(&body, record.data(), sizeof(body));
      NewMapping mapping;
      mapping.tgid = body.pid;
      const auto* name = reinterpret_cast<const char*>(record.data()) + sizeof(body);
      mapping.file.path.assign(name, strnlen(name, header.size - sizeof(body)));
      mapping.file.start = body.address;
      mapping.file.end = body.address + body.length;
      mapping.file.device_major = body.major;
      mapping.file.device_minor = body.minor;
      mapping.file.inode = body.inode;
      mapping.generation = body.generation;
      if (body.inode != 0) sink(mapping);
    }
    tail += header.size;
  }
  tail_ref.store(head, std::memory_order_release);
  return complete;
}

}  // namespace giltop
