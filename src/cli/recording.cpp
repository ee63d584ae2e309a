#include "cli/recording.h"

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "cli/output.h"
#include "model/model.h"
#include "sink/trace_file.h"
#include "sink/trace_writer.h"

namespace giltop {
namespace {

constexpr int kPoll_ms = 100;  // what hurries wakes us
constexpr uint64_t kFlushEvery_ns = 1'000'000'000;
constexpr uint64_t kClocksEvery_ns = 60'000'000'000;

ClockReading read_clocks() {
  return {boot_ns(), clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_REALTIME)};
}

class Recording {
 public:
  Recording(const RecordingOptions& options, std::optional<Child>& child,
            const std::function<void(uint64_t)>& progress)
      : options_(options),
        child_(child),
        progress_(progress),
        tracing_(options, child),
        writer_(tracing_.tables(), [this](std::string block) {
          if (file_) file_->write(std::move(block));
        }) {}

  Result<RecordingResult> run();

 private:
  Status prepare();
  int wait_ms(uint64_t passed_ns) const;
  void take(const Event& event) {
    const Change change = tracing_.model().apply(event);
    if (file_) writer_.write(event, change);
  }

  const RecordingOptions& options_;
  std::optional<Child>& child_;
  const std::function<void(uint64_t)>& progress_;
  Tracing tracing_;
  std::unique_ptr<TraceFile> file_;
  TraceWriter writer_;
};

// Until something is to be done, if nothing comes.
int Recording::wait_ms(uint64_t passed_ns) const {
  const uint64_t duration_ns = options_.duration_ns.value_or(~uint64_t{0});
  const uint64_t left_ns = duration_ns - std::min(passed_ns, duration_ns);
  return static_cast<int>(std::min<uint64_t>(kPoll_ms, left_ns / 1'000'000 + 1));
}

Status Recording::prepare() {
  if (const Status ready = tracing_.prepare(); !ready) return ready;
  if (options_.file.empty()) return ok();
  std::optional<TraceFile::Owner> owner;
  if (const auto user = invoking_user()) owner = TraceFile::Owner{user->uid, user->gid};
  auto file = TraceFile::make(options_.file, owner);
  if (!file) return file.error();
  file_ = std::move(*file);
  return ok();
}

Result<RecordingResult> Recording::run() {
  if (const Status ready = prepare(); !ready) return ready.error();
  if (file_) writer_.start(system_facts(), read_clocks(), tracing_.run());
  const Session::EventSink sink = [this](const Event& event) { take(event); };
  const uint64_t start = boot_ns();
  if (const Status armed = tracing_.arm(); !armed) {
    if (file_) file_->discard();
    return armed.error();
  }
  if (progress_) progress_(0);
  if (child_) child_->go();

  RecordingResult result;
  uint64_t flushed = start, clocked = start;
  for (;;) {
    if (const Status polled = tracing_.poll(wait_ms(boot_ns() - start), sink); !polled) {
      if (file_) file_->discard();
      return polled.error();
    }
    const uint64_t now = boot_ns();
    if (progress_) progress_(now - start);
    if (file_ && now - flushed >= kFlushEvery_ns) {
      flushed = now;
      tracing_.update_run();
      if (now - clocked >= kClocksEvery_ns) {
        clocked = now;
        writer_.clocks(read_clocks());
      }
      writer_.run_facts(tracing_.model().last_ns(), tracing_.run());
      writer_.flush();
    }
    if (StopSignals::stop_requested()) {
      result.interrupted = true;
      break;
    }
    if (options_.duration_ns && now - start >= *options_.duration_ns) break;
    if (tracing_.ended()) break;
    if (file_ && file_->failed()) break;
  }
  tracing_.stop(sink);
  tracing_.update_run();
  RunFacts& run = tracing_.run();
  run.finished = true;
  if (file_) {
    writer_.finish(tracing_.model().last_ns(), run);
    if (const Status closed = file_->close(); !closed) result.write_error = closed.error();
    result.file_bytes = file_->bytes_written();
  }
  result.snapshot = snapshot_of(tracing_.model(), run);
  result.refusals = tracing_.session().refusals();
  return result;
}

}  // namespace

Result<RecordingResult> record(const RecordingOptions& options, std::optional<Child>& child,
                               const std::function<void(uint64_t)>& progress) {
  Recording recording(options, child, progress);
  return recording.run();
}

}  // namespace giltop
