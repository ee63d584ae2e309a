#include "probe/sampler.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/cpus.h"

namespace giltop {

Result<Sampler> Sampler::make(bpf_program* program) {
  Sampler sampler;
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = kRate_hz;
  for (const int cpu : online_cpus()) {
    Fd fd(static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!fd && errno == ENODEV) continue;  // went offline
    if (!fd) return system_error("sample the CPUs (perf_event_open)", errno);
    bpf_link* link = bpf_program__attach_perf_event(program, fd.get());
    if (!link) return system_error("sample the CPUs", errno);
    (void)fd.release();  // the link closes it
    sampler.links_.emplace_back(link);
  }
  return sampler;
}

}  // namespace giltop
