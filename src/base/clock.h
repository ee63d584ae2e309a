// Clocks, in nanoseconds.
#pragma once

#include <cstdint>
#include <ctime>

namespace giltop {

inline uint64_t clock_ns(clockid_t id) {
  timespec t{};
  clock_gettime(id, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

// The clock of all events: the one bpf_ktime_get_boot_ns() reads.
inline uint64_t boot_ns() { return clock_ns(CLOCK_BOOTTIME); }

}  // namespace giltop
