// Who holds, awaits and does without each GIL of a running process at this moment: read from its
// memory and from /proc, without stopping it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "target/gil_memory.h"
#include "target/gil_sites.h"
#include "target/process.h"

namespace giltop {

struct ProcessGils {
  struct Gil {
    GilInMemory memory;
    pid_t holder = 0;  // thread id as giltop's PID namespace has it, where `memory` says held
  };
  struct Thread {
    enum class State : uint8_t { unknown, waiting, released };
    pid_t tid = 0;  // as giltop's PID namespace has it
    State state = State::unknown;
    uint64_t gil = 0;  // that it waits for
    bool blocked = false;
    uint32_t cpu = 0;
  };
  uint64_t begin_ns = 0, end_ns = 0;  // boot clock; the reading was made in between
  std::vector<Gil> gils;
  std::vector<Thread> threads;  // of which anything is known
  std::string missing;          // why nothing, or not everything, is known of the GILs; else empty
};

// The process runs on meanwhile. What it does to a GIL or a thread between `begin_ns` and `end_ns`
// makes the reading of that one worthless: the caller must see its events from before `begin_ns`
// on, and let them prevail.
// Errors: no such process, no permission. A GIL that cannot be found is none (`missing`).
Result<ProcessGils> read_gils(pid_t tgid, const CPythonFile& file, uint64_t load_bias);

// The GILs alone, at one moment; a state may have changed while it was read.
GilMemory read_gil_memory(pid_t tgid, const CPythonFile& file, uint64_t load_bias);

// The pure part: what follows from the memory, read before and after what the threads do.
ProcessGils judge_gils(const CPythonFile& file, const GilMemory& before,
                       const std::vector<ThreadActivity>& threads, const GilMemory& after);

}  // namespace giltop
