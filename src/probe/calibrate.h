// What probes and hooks cost on this machine, measured on giltop itself.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/result.h"
#include "probe/cost_meter.h"
#include "probe/uprobes.h"

namespace giltop {

// Sets `program` on functions of giltop's own and calls them some hundred times: trap, instruction
// and program. Takes about 10 ms. Errors: cannot be attached.
Result<HitCosts> calibrate_hits(UprobeWay way, bpf_program* program);

// What the kernel and our own threads' clocks say of it. All 0: the kernel does not tell (BPF
// statistics need CAP_SYS_ADMIN).
struct HookExercise {
  uint64_t took_ns = 0, runs = 0;  // of the hooks, host-wide
  // CPU time of a thread's going to sleep and being woken by another one, from the other CPU where
  // there are two; the hooks' part in it, too. Median.
  double sleep_ns = 0;
};

// Runs `hooks` of the scheduler some hundred times by waking and blocking threads of giltop's own,
// which sit on two CPUs where there are two. `cold`: some ten times, each after their code and data
// have left the CPU's own cache. Takes up to 10 ms.
HookExercise exercise_hooks(std::initializer_list<bpf_program*> hooks, bool cold = false);

}  // namespace giltop
