#include "probe/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>

#include "base/clock.h"

// A one-byte nop first: like the calls in CPython, an instruction that the kernel emulates.
extern "C" void giltop_calibration_site(void);
#if defined(__x86_64__)
asm(".text\n.globl giltop_calibration_site\n.hidden giltop_calibration_site\n"
    ".type giltop_calibration_site,@function\n"
    "giltop_calibration_site:\n  nop\n  ret\n.size giltop_calibration_site, 2\n");
#else
asm(".text\n.globl giltop_calibration_site\n.hidden giltop_calibration_site\n"
    ".type giltop_calibration_site,%function\n"
    "giltop_calibration_site:\n  nop\n  ret\n");
#endif

namespace giltop {
namespace {

constexpr int kCalls = 256;
constexpr int kRounds = 9;

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

double round_ns() {
  const uint64_t begun = clock_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < kCalls; i++) giltop_calibration_site();
  return static_cast<double>(clock_ns(CLOCK_MONOTONIC) - begun) / kCalls;
}

}  // namespace

Result<double> calibrate_hit_ns(UprobeWay way, bpf_program* program) {
  const uint64_t offset = own_file_offset(reinterpret_cast<uint64_t>(&giltop_calibration_site));
  if (offset == 0) return Error("cannot find giltop's own calibration function");
  const auto probe = Uprobes::make(way, program, "/proc/self/exe", {{offset, 0}}, getpid());
  if (!probe) return probe.error().in("measure a probe's cost on giltop itself");
  std::array<double, kRounds> rounds;
  for (double& r : rounds) r = round_ns();
  std::sort(rounds.begin(), rounds.end());
  return rounds[kRounds / 2];
}

}  // namespace giltop
