#include "probe/calibrate.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"

// Three functions of the same: one to be probed at a direct call, as CPython's sites are, which the
// kernel emulates; one at a call that it does not (through memory: other instructions cost less
// when single-stepped); and one that is not probed.
extern "C" void giltop_calibration_site(void);
extern "C" void giltop_stepped_site(void);
extern "C" void giltop_plain_site(void);
#if defined(__x86_64__)
#define GILTOP_SITE(name, instruction)                                                \
  asm(".text\n.globl " #name "\n.hidden " #name "\n.type " #name ",@function\n" #name \
      ":\n" instruction "\n  call 1f\n  ret\n1:  ret\n.size " #name ", .-" #name "\n")
GILTOP_SITE(giltop_calibration_site, "");
GILTOP_SITE(giltop_plain_site, "");
GILTOP_SITE(giltop_stepped_site, "  call *giltop_stepped_callee(%rip)");
asm(".section .data.rel.ro,\"aw\"\n.balign 8\n.hidden giltop_stepped_callee\n"
    "giltop_stepped_callee:\n  .quad giltop_plain_site\n.text\n");
#else
#define GILTOP_SITE(name, instruction)                                                \
  asm(".text\n.globl " #name "\n.hidden " #name "\n.type " #name ",%function\n" #name \
      ":\n" instruction "\n  b 1f\n1:  ret\n")
GILTOP_SITE(giltop_calibration_site, "");
GILTOP_SITE(giltop_plain_site, "");
GILTOP_SITE(giltop_stepped_site, "  mov x0, sp");
#endif

namespace giltop {
namespace {

// File offset of an address of our own. 0: not found.
uint64_t own_file_offset(uint64_t address) {
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  if (!maps) return 0;
  char line[512];
  uint64_t result = 0;
  while (std::fgets(line, sizeof(line), maps)) {
    uint64_t start, end, offset;
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &start, &end, &offset) == 3 &&
        start <= address && address < end)
      result = address - start + offset;
  }
  std::fclose(maps);
  return result;
}

// What some code does to the caches between two hits.
class Disturbance {
 public:
  // Twice the CPU's own cache: the kernel's code and data have to come from farther then.
  Disturbance() : memory_(std::clamp<size_t>(own_cache() * 2, 1 << 20, 16 << 20)) {}
  void little() { touch(16 << 10); }
  void much() { touch(memory_.size()); }

 private:
  static size_t own_cache() {
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? static_cast<size_t>(bytes) : size_t{2} << 20;
  }
  void touch(size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) memory_[at]++;
  }
  std::vector<unsigned char> memory_;
};

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

using Site = void (*)();

// From some calls deep: the processor predicts the returns from a call that was emulated, and from
// those around it, wrongly.
[[gnu::noinline]] void call_from(int depth, Site site) {
  if (depth == 0) {
    site();
  } else {
    call_from(depth - 1, site);
  }
  asm volatile("");  // no tail call
}
constexpr int kDepth = 4;

// ns that `calls` calls of `probed` take longer than those of the plain one, each with some other
// work, a system call in it: so what a trap does to the code after it is counted, too.
double warm_cost_ns(Site probed, size_t calls, Disturbance& disturbance) {
  constexpr int kRounds = 9;
  const auto round = [&](Site site) {
    const uint64_t begun = now_ns();
    for (size_t i = 0; i < calls; i++) {
      disturbance.little();
      syscall(SYS_getppid);
      call_from(kDepth, site);
    }
    return static_cast<double>(now_ns() - begun) / static_cast<double>(calls);
  };
  std::vector<double> costs;
  for (int i = 0; i < kRounds; i++) costs.push_back(round(probed) - round(giltop_plain_site));
  return std::max(0.0, median(costs));
}

// ns of one call of `probed` after `disturbance` has had all that it needs out of the caches.
double cold_cost_ns(Site probed, Disturbance& disturbance, uint64_t& gap_ns) {
  constexpr int kCalls = 25;
  std::vector<double> costs, gaps;
  for (int i = 0; i < kCalls; i++) {
    const uint64_t left = now_ns();
    disturbance.much();
    const uint64_t begun = now_ns();
    call_from(kDepth, probed);
    costs.push_back(static_cast<double>(now_ns() - begun));
    gaps.push_back(static_cast<double>(begun - left));
  }
  gap_ns = static_cast<uint64_t>(median(gaps));
  return median(costs);
}

// ns that BPF programs have run, by the kernel's statistics.
uint64_t run_time_ns(std::initializer_list<bpf_program*> programs) {
  uint64_t sum = 0;
  for (const bpf_program* program : programs) {
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) == 0)
      sum += info.run_time_ns;
  }
  return sum;
}

}  // namespace

Result<HitCosts> calibrate_hits(UprobeWay way, bpf_program* program) {
  const uint64_t site = own_file_offset(reinterpret_cast<uint64_t>(&giltop_calibration_site));
  const uint64_t stepped = own_file_offset(reinterpret_cast<uint64_t>(&giltop_stepped_site));
  if (site == 0 || stepped == 0) return Error("cannot find giltop's own calibration functions");
  const auto probes =
      Uprobes::make(way, program, "/proc/self/exe", {{site, 0}, {stepped, 0}}, getpid());
  if (!probes) return probes.error().in("measure a probe's cost on giltop itself");
  Disturbance disturbance;
  HitCosts costs;
  costs.warm = warm_cost_ns(giltop_calibration_site, 50, disturbance);
  costs.stepped = warm_cost_ns(giltop_stepped_site, 5, disturbance);
  costs.cold =
      std::max(costs.warm, cold_cost_ns(giltop_calibration_site, disturbance, costs.cold_after_ns));
  return costs;
}

uint64_t exercise_hooks(std::initializer_list<bpf_program*> hooks) {
  constexpr int kRounds = 200;
  constexpr uint64_t kLimit_ns = 10'000'000;  // on a busy machine
  const Fd statistics(bpf_enable_stats(BPF_STATS_RUN_TIME));
  const Fd there(eventfd(0, EFD_CLOEXEC)), back(eventfd(0, EFD_CLOEXEC));
  if (!statistics || !there || !back) return 0;
  const uint64_t before = run_time_ns(hooks);
  std::thread other([&] {
    eventfd_t value = 0;
    // 2 ends it.
    while (eventfd_read(there.get(), &value) == 0 && value == 1) eventfd_write(back.get(), 1);
  });
  const uint64_t begun = now_ns();
  for (int i = 0; i < kRounds && now_ns() - begun < kLimit_ns; i++) {
    eventfd_t value = 0;
    eventfd_write(there.get(), 1);
    eventfd_read(back.get(), &value);
  }
  eventfd_write(there.get(), 2);
  other.join();
  return run_time_ns(hooks) - before;
}

}  // namespace giltop
