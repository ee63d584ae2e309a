// What probes and hooks cost on this machine, measured on giltop itself.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/result.h"
#include "probe/uprobes.h"

namespace giltop {

// ns, medians.
struct HitCosts {
  double warm = 0;             // of a hit that comes soon after another
  double cold = 0;             // of one whose kernel code has left the CPU's own caches
  double stepped = 0;          // of a warm one on an instruction that the kernel does not emulate
  uint64_t cold_after_ns = 0;  // without a hit on that CPU
};

// Sets `program` on functions of giltop's own and calls them some hundred times: trap, instruction
// and program. Takes about 10 ms. Errors: cannot be attached.
Result<HitCosts> calibrate_hits(UprobeWay way, bpf_program* program);

// Runs `hooks` of the scheduler some hundred times by waking and blocking threads of giltop's own,
// and returns what the kernel says they took, in ns. 0: it does not tell (BPF statistics need
// CAP_SYS_ADMIN).
uint64_t exercise_hooks(std::initializer_list<bpf_program*> hooks);

}  // namespace giltop
