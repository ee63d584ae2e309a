// Recording: a session, the model and the file, joined. `record` and `demo` are made of it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/child.h"
#include "model/snapshot.h"
#include "probe/session.h"

namespace giltop {

struct RecordingOptions {
  std::string file;  // empty: none is written
  Mode mode = Mode::exact;
  double budget = 0.02;  // of Mode::automatic
  size_t ring_bytes = 16 << 20;
  std::optional<uint64_t> duration_ns;
  std::vector<uint32_t> pids;  // to attach to; or
  bool host_wide = false;      // every CPython process there is and will be; or
  std::optional<Child::Options> command;
  bool follow_children = true;
};

struct RecordingResult {
  Snapshot snapshot;
  std::vector<std::string> refusals;
  uint64_t file_bytes = 0;
  int status = 0;  // the command's
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
