// Live: tracing as a sequence of frames, one an interval. What shows them is the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/tracing.h"
#include "model/interval.h"
#include "model/timeline.h"
#include "view/live.h"

namespace giltop {

struct LiveOptions : TracingOptions {
  uint64_t delay_ns = 1'000'000'000;  // between two frames
  uint64_t first_delay_ns = 0;        // before the first; 0: the same
};

// make, start, poll …, stop.
class Live {
 public:
  // Attaches to what runs. Where this kernel cannot change between modes, Mode::automatic is exact.
  // `child` outlives it. Errors: as Tracing's.
  static Result<std::unique_ptr<Live>> make(LiveOptions options, std::optional<Child>& child);

  // Lets events flow, and the command go. Errors: nothing is left to trace.
  Status start();

  // poll() returns when `fd` is readable, too; what is there is the caller's to read.
  void add_wakeup(int fd) { tracing_.session().add_wakeup(fd); }

  // Waits for events, at most `timeout_ms` (less, where a frame is due). True: frame() is new.
  // Errors: the command cannot be executed.
  Result<bool> poll(int timeout_ms);

  // Whether the command, or all processes that were named, have ended.
  bool ended() const { return tracing_.ended(); }
  // Ends tracing. frame() is the last one then, of what was left.
  void stop();

  const LiveFrame& frame() const { return frame_; }

  void set_delay(uint64_t ns);
  // Frames tell all since the start, or the last reset().
  void set_accumulated(bool accumulated);
  void reset();
  // Whose timeline frames have, by number; 0: nobody's.
  void watch(uint64_t process);

 private:
  Live(LiveOptions options, std::optional<Child>& child)
      : options_(std::move(options)), child_(child), tracing_(options_, child) {}

  void take(const Event& event);
  void pass(uint64_t ts_ns);
  void tick();

  LiveOptions options_;
  std::optional<Child>& child_;
  Tracing tracing_;
  Intervals intervals_;
  Intervals since_reset_;
  TimelineRecorder timeline_;
  WaitHistory history_;
  Snapshot interval_, accumulated_;
  LiveFrame frame_;
  std::vector<std::string> notes_;  // of how it began
  uint64_t started_ns_ = 0;
  uint64_t next_tick_ns_ = 0;
  bool accumulate_ = false;
};

}  // namespace giltop
