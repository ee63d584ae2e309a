// The live view as plain text: a block of rows an interval.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "view/live.h"

namespace giltop {

enum class BatchKey { wait, cpu, held, off_cpu, waiters, acquires, p99, longest, pid, name };

struct BatchOptions {
  BatchKey key = BatchKey::wait;
  bool threads = false;    // a row for each thread, too
  bool idle = false;       // also what neither ran nor used a GIL
  bool timestamp = false;  // in each row
};

// Nothing: there is no such key.
std::optional<BatchKey> batch_key(std::string_view name);
// Their names and what they mean, one a line.
std::string batch_keys_help();

// A line about the host, one of column heads, a row a process (the most first), an empty line.
// Columns have fixed widths, and a dash where there is no figure; the name comes last.
std::string batch_text(const LiveFrame& frame, const BatchOptions& options);

}  // namespace giltop
