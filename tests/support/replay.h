// A recording read up to some moment of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "support/live.h"

namespace giltop::testing {

// What a thread had done at a moment of the boot clock, in all programs that it had executed;
// nothing: it was not there yet.
struct DoneAt {
  double running_s = 0, runnable_s = 0, blocked_s = 0, stolen_s = 0;
};
std::optional<DoneAt> done_at(const std::string& file, uint32_t tid, uint64_t ts_ns);

// That a thread of the workload ran for as long as the kernel says. The kernel counts up to a
// moment after its `end`; of the main thread, from one between `start` and `counted_from` on: what
// else it ran then (it may have lost its CPU to the hypervisor, unseen) is on neither side. Where
// the kernel did not report a switch before the last run of a thread, what that run was is not
// known.
void expect_ran(const Live::Recorded& recorded, const Json& thread, const Json& measured);

// Threads that compute with one GIL, and sleep for it alone: what each held and waited, against
// what the kernel counted of it.
void expect_turns(const Live::Recorded& recorded, const Json& process);

// When giltop knew this process's first GIL in light mode (boot clock, ns). Until then nobody is
// known to hold it. Nothing: never.
std::optional<uint64_t> gil_known_at(const std::string& file, uint32_t pid, uint32_t gil = 0);

// How long this thread of a report lived before that; seconds.
double life_before(const Json& report, const Json& thread, uint64_t ts_ns);

}  // namespace giltop::testing
