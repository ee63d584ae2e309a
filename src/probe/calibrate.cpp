#include "probe/calibrate.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
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

// ns that a call of `probed` takes longer than one of the plain function after `disturbance` has
// had all that a trap needs out of the caches, with what it does to the work around it: a cold trap
// pushes some of the program's own code and data out.
double cold_cost_ns(Site probed, Disturbance& disturbance, uint64_t& gap_ns) {
  constexpr int kCalls = 25;
  std::vector<double> costs, gaps;
  const auto work = [&] {
    disturbance.little();
    syscall(SYS_getppid);
  };
  const auto call = [&](Site site) {
    disturbance.much();
    work();
    const uint64_t begun = now_ns();
    call_from(kDepth, site);
    work();
    return static_cast<double>(now_ns() - begun);
  };
  for (int i = 0; i < kCalls; i++) {
    const uint64_t left = now_ns();
    const double with = call(probed);
    gaps.push_back(static_cast<double>(now_ns() - left) - with);
    costs.push_back(with - call(giltop_plain_site));
  }
  gap_ns = static_cast<uint64_t>(median(gaps));
  return median(costs);
}

// Two CPUs for two threads, of those that this one may use; gives it back its own at the end.
class TwoCpus {
 public:
  TwoCpus() {
    if (sched_getaffinity(0, sizeof(before_), &before_) != 0) return;
    for (int cpu = 0; cpu < CPU_SETSIZE && found_ < 2; cpu++)
      if (CPU_ISSET(cpu, &before_)) cpus_[found_++] = cpu;
  }
  ~TwoCpus() {
    if (found_ == 2) sched_setaffinity(0, sizeof(before_), &before_);
  }
  TwoCpus(const TwoCpus&) = delete;
  TwoCpus& operator=(const TwoCpus&) = delete;

  bool there_are() const { return found_ == 2; }
  // The calling thread onto one of them.
  void take(size_t which) const {
    if (found_ < 2) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus_[which], &one);
    sched_setaffinity(0, sizeof(one), &one);
  }

 private:
  cpu_set_t before_;
  std::array<int, 2> cpus_{};
  size_t found_ = 0;
};

// As warm_cost_ns(), while a second thread does the same on another CPU. 0: there is no other CPU,
// or it was busy.
double crowded_cost_ns(Site probed) {
  constexpr int kRounds = 15, kCalls = 50;
  constexpr size_t kEnough = 3;
  const TwoCpus cpus;
  if (!cpus.there_are()) return 0;
  std::atomic<Site> site = giltop_plain_site;
  std::atomic<uint64_t> others = 0;
  std::atomic<bool> end = false;
  const auto call = [](Site which, Disturbance& disturbance) {
    disturbance.little();
    syscall(SYS_getppid);
    call_from(kDepth, which);
  };
  std::thread other([&] {
    cpus.take(1);
    Disturbance disturbance;
    while (!end.load()) {
      call(site.load(), disturbance);
      others.fetch_add(1, std::memory_order_relaxed);
    }
  });
  cpus.take(0);
  Disturbance disturbance;
  // CPU time: what runs between is not ours. Negative: the other thread did not run meanwhile.
  const auto round = [&](Site which) {
    site.store(which);
    const uint64_t others_before = others.load(), begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < kCalls; i++) call(which, disturbance);
    const uint64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
    return others.load() - others_before < kCalls / 2 ? -1.0 : static_cast<double>(took) / kCalls;
  };
  std::vector<double> costs;
  for (int i = 0; i < kRounds; i++) {
    const double with = round(probed), without = round(giltop_plain_site);
    if (with >= 0 && without >= 0) costs.push_back(with - without);
  }
  end.store(true);
  other.join();
  return costs.size() < kEnough ? 0 : median(costs);
}

// Of BPF programs, by the kernel's statistics.
HookExercise run_statistics(std::initializer_list<bpf_program*> programs) {
  HookExercise sum;
  for (const bpf_program* program : programs) {
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) != 0) continue;
    sum.took_ns += info.run_time_ns;
    sum.runs += info.run_cnt;
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
  costs.crowded = std::max(costs.warm, crowded_cost_ns(giltop_calibration_site));
  costs.stepped = warm_cost_ns(giltop_stepped_site, 5, disturbance);
  costs.cold =
      std::max(costs.warm, cold_cost_ns(giltop_calibration_site, disturbance, costs.cold_after_ns));
  return costs;
}

HookExercise exercise_hooks(std::initializer_list<bpf_program*> hooks, bool cold) {
  constexpr unsigned kParts = 8;              // each is timed
  const unsigned rounds = cold ? 1 : 25;      // of a part
  constexpr uint64_t kLimit_ns = 10'000'000;  // on a busy machine
  const Fd statistics(bpf_enable_stats(BPF_STATS_RUN_TIME));
  const Fd there(eventfd(0, EFD_CLOEXEC)), back(eventfd(0, EFD_CLOEXEC));
  if (!statistics || !there || !back) return {};
  const TwoCpus cpus;
  std::atomic<uint64_t> other_cpu_ns = 0;
  std::thread other([&] {
    cpus.take(1);
    Disturbance disturbance;
    eventfd_t value = 0;
    // 2 ends it.
    while (eventfd_read(there.get(), &value) == 0 && value == 1) {
      if (cold) disturbance.much();
      other_cpu_ns.store(clock_ns(CLOCK_THREAD_CPUTIME_ID));
      eventfd_write(back.get(), 1);
    }
  });
  cpus.take(0);
  Disturbance disturbance;
  const auto there_and_back = [&] {
    eventfd_t value = 0;
    if (cold) disturbance.much();
    eventfd_write(there.get(), 1);
    eventfd_read(back.get(), &value);
  };
  there_and_back();
  const HookExercise before = run_statistics(hooks);
  const auto cpu_ns = [&] { return clock_ns(CLOCK_THREAD_CPUTIME_ID) + other_cpu_ns.load(); };
  const uint64_t begun = now_ns();
  std::vector<double> sleeps;
  for (unsigned part = 0; part < kParts && now_ns() - begun < kLimit_ns; part++) {
    const uint64_t part_begun = cpu_ns();
    for (unsigned i = 0; i < rounds; i++) there_and_back();
    sleeps.push_back(static_cast<double>(cpu_ns() - part_begun) / (2 * rounds));
  }
  eventfd_write(there.get(), 2);
  other.join();
  HookExercise done = run_statistics(hooks);
  done.took_ns -= before.took_ns;
  done.runs -= before.runs;
  done.sleep_ns = median(sleeps);
  return done;
}

}  // namespace giltop
