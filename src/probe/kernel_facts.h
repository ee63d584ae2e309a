// What the kernel side needs to know of the running kernel before it is loaded.
#pragma once

#include "base/result.h"

namespace giltop {

struct KernelFacts {
  bool switch_has_prev_state = false;  // sched_switch tells prev_state (bpf/compat.bpf.h)
};

// Errors: nothing can be traced on it, or from here, and why.
Result<KernelFacts> look_at_kernel();

}  // namespace giltop
