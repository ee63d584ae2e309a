// Recording: tracing into a file. `record` and `demo` are made of it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/child.h"
#include "cli/tracing.h"
#include "model/snapshot.h"

namespace giltop {

struct RecordingOptions : TracingOptions {
  std::string file;  // empty: none is written
  std::optional<uint64_t> duration_ns;
};

struct RecordingResult {
  Snapshot snapshot;
  std::vector<std::string> refusals;
  uint64_t file_bytes = 0;
  bool interrupted = false;
  std::optional<Error> write_error;  // the file is incomplete
};

// Records until the duration is over, the command or all processes ended, or a signal came.
// `progress` is called now and then with the time since the start, ns, first as soon as events
// flow; may be empty. `child` outlives the recording: a command that still runs is the caller's to
// wait for.
Result<RecordingResult> record(const RecordingOptions& options, std::optional<Child>& child,
                               const std::function<void(uint64_t)>& progress = {});

}  // namespace giltop
