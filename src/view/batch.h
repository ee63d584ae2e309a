// The live view as plain text: a block of rows an interval.
#pragma once

#include <string>

#include "view/live.h"
#include "view/live_state.h"

namespace giltop {

struct BatchOptions {
  LiveColumn sort = LiveColumn::wait;
  bool threads = false;    // a row for each thread, too
  bool idle = false;       // also what neither ran nor used a GIL
  bool timestamp = false;  // in each row
};

// A line about the host, one of column heads, a row a process (the most first), an empty line.
// Columns have fixed widths, and a dash where there is no figure; the name comes last.
std::string batch_text(const LiveFrame& frame, const BatchOptions& options);

}  // namespace giltop
