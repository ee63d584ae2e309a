#include "probe/tracked.h"

#include <cerrno>

namespace giltop {

Result<Tracked> Tracked::make(int map_fd) {
  void* const bytes = mmap(nullptr, GT_PIDS, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
  if (bytes == MAP_FAILED) return system_error("map which processes are traced", errno);
  Tracked tracked(std::span(static_cast<uint8_t*>(bytes), size_t{GT_PIDS}));
  tracked.mapped_ = true;
  return tracked;
}

}  // namespace giltop
