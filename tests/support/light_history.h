// What light mode would have told of a history that is known exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "event/event.h"

namespace giltop::testing {

// Takes out what traps in exact mode only, says at each switch and sample whether the thread held a
// GIL, and puts in samples of running threads: each at a random time, one in `sample_ns` of a
// thread's running time on average. Every process is in light mode from its first event on.
// With `changes`, processes go to exact mode and back at random times.
std::vector<Event> as_light(const EventTables& tables, const std::vector<Event>& exact,
                            uint64_t seed, uint64_t sample_ns, bool changes = false);

}  // namespace giltop::testing
