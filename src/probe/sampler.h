// Sampler: runs a BPF program on every CPU at a steady rate, idle ones included.
#pragma once

#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "probe/bpf_handles.h"

namespace giltop {

// It stops with the object. A CPU that comes online later is not sampled.
class Sampler {
 public:
  // As perf and bcc have it: a rate that is no divisor of what programs do at regular times.
  static constexpr unsigned kRate_hz = 199;

  // The kernel's software clock (PERF_COUNT_SW_CPU_CLOCK) of each CPU. Errors: perf events are not
  // permitted here.
  static Result<Sampler> make(bpf_program* program);

 private:
  std::vector<Link> links_;  // each owns its event
};

}  // namespace giltop
