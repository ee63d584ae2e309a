// Uprobes: setting a program on places of a file, by whichever way the kernel has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "probe/bpf_handles.h"

namespace giltop {

// How uprobes are set. `multi` (Linux 6.6, one link for all places of a file, set and removed in
// one step) where the kernel has it, else one perf event a place. Which it is is fixed before the
// programs are loaded, as they are loaded differently.
enum class UprobeWay { multi, perf };

UprobeWay uprobe_way();  // of this kernel; GILTOP_UPROBES=perf forces the older one
// Whether Uprobes of one process are hit by it alone, and by all of its threads.
bool can_probe_one_process(UprobeWay way);
void prepare_for(UprobeWay way, bpf_program* program);

struct UprobePlace {
  uint64_t file_offset;
  uint64_t cookie;
};

// Probes in place; they are removed with it.
class Uprobes {
 public:
  Uprobes() = default;
  // Sets `program` on all places of the open file, or on none. `pid` -1: in every process that maps
  // the file. Errors: the kernel refuses, and which place where it tells.
  static Result<Uprobes> make(UprobeWay way, bpf_program* program, const std::string& path,
                              const std::vector<UprobePlace>& places, int pid);

  explicit operator bool() const { return multi_ || !links_.empty(); }
  void reset() {
    multi_.reset();
    links_.clear();
  }

 private:
  Fd multi_;
  std::vector<Link> links_;
};

}  // namespace giltop
