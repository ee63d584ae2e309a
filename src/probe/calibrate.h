// What one trap costs on this machine.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "probe/uprobes.h"

namespace giltop {

// Sets `program` on a function of giltop's own and calls it some thousand times. Returns ns per
// hit, the median of several rounds: trap, emulated instruction and program. Errors: cannot be
// attached.
Result<double> calibrate_hit_ns(UprobeWay way, bpf_program* program);

}  // namespace giltop
