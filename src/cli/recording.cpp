#include "cli/recording.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/clock.h"
#include "cli/output.h"
#include "model/model.h"
#include "probe/session.h"
#include "sink/trace_file.h"
#include "sink/trace_writer.h"
#include "target/process.h"

namespace giltop {
namespace {

constexpr int kPoll_ms = 20;
constexpr uint64_t kFlushEvery_ns = 1'000'000'000;
constexpr uint64_t kClocksEvery_ns = 60'000'000'000;

uint64_t own_cpu_ns() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& t) {
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u +
           static_cast<uint64_t>(t.tv_usec) * 1000u;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

ClockReading read_clocks() {
  return {boot_ns(), clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_REALTIME)};
}

SystemFacts system_facts() {
  utsname name{};
  uname(&name);
  SystemFacts facts;
  facts.sysname = name.sysname;
  facts.release = name.release;
  facts.version = name.version;
  facts.machine = name.machine;
  facts.cpus = static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  return facts;
}

class Recording {
 public:
  Recording(const RecordingOptions& options, std::optional<Child>& child,
            const std::function<void(uint64_t)>& progress)
      : options_(options),
        child_(child),
        progress_(progress),
        model_(tables_),
        writer_(tables_, [this](std::string block) {
          if (file_) file_->write(std::move(block));
        }) {}

  Result<RecordingResult> run();

 private:
  Status prepare();
  void take(const Event& event) {
    const Change change = model_.apply(event);
    if (file_) writer_.write(event, change);
  }
  void update_run();
  bool targets_ended() const;

  const RecordingOptions& options_;
  std::optional<Child>& child_;
  const std::function<void(uint64_t)>& progress_;
  EventTables tables_;
  Model model_;
  std::unique_ptr<TraceFile> file_;
  TraceWriter writer_;
  std::unique_ptr<Session> session_;
  std::vector<Fd> targets_;  // of -p
  RunFacts run_;
  uint64_t own_cpu_before_ = 0;
};

void Recording::update_run() {
  run_.events = session_->records();
  run_.probe_hits = session_->probe_hits();
  run_.other_probe_hits = session_->other_probe_hits();
  run_.probe_cost_ns = session_->cost_ns();
  run_.own_cpu_ns = own_cpu_ns() - own_cpu_before_;
}

bool Recording::targets_ended() const {
  return std::all_of(targets_.begin(), targets_.end(), [](const Fd& target) {
    pollfd ended{target.get(), POLLIN, 0};
    return !target || poll(&ended, 1, 0) > 0;
  });
}

Status Recording::prepare() {
  SessionOptions session;
  session.mode = options_.mode;
  session.budget = options_.budget;
  session.ring_bytes = options_.ring_bytes;
  session.follow_children = options_.follow_children;
  session.host_wide = options_.host_wide;
  // The kernel tells a process by its first thread's memory.
  if (!options_.host_wide && !options_.follow_children && options_.pids.size() == 1 &&
      !first_thread_ended(static_cast<pid_t>(options_.pids.front())))
    session.only_pid = static_cast<int>(options_.pids.front());
  auto made = Session::make(session, tables_);
  if (!made) return made.error();
  session_ = std::move(*made);
  if (options_.host_wide) session_->attach_all();
  for (const uint32_t pid : options_.pids) {
    // A descriptor of the process tells its end, also while nobody reaps it.
    Fd target(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
    if (const Status done = session_->attach_process(pid); !done) return done;
    targets_.push_back(std::move(target));
    if (const Status done = session_->track(pid); !done) return done;
  }
  if (options_.command) {
    auto child = Child::make(*options_.command);
    if (!child) return child.error();
    child_.emplace(std::move(*child));
    if (const Status done = session_->track(static_cast<uint32_t>(child_->pid())); !done)
      return done;
  }
  if (!options_.file.empty()) {
    std::optional<TraceFile::Owner> owner;
    if (const auto user = invoking_user()) owner = TraceFile::Owner{user->uid, user->gid};
    auto file = TraceFile::make(options_.file, owner);
    if (!file) return file.error();
    file_ = std::move(*file);
  }
  return ok();
}

Result<RecordingResult> Recording::run() {
  own_cpu_before_ = own_cpu_ns();
  if (const Status ready = prepare(); !ready) return ready.error();
  const SystemFacts system = system_facts();
  run_.version = GILTOP_VERSION;
  run_.kernel = system.release;
  run_.cpus = system.cpus;
  run_.mode = options_.mode == Mode::exact   ? "exact"
              : options_.mode == Mode::light ? "light"
                                             : "auto";
  if (file_) writer_.start(system, read_clocks(), run_);
  const Session::EventSink sink = [this](const Event& event) { take(event); };
  const uint64_t start = boot_ns();
  const Status armed = session_->arm();
  const bool ended = !options_.pids.empty() && targets_ended();
  if (!armed || ended) {
    if (file_) file_->discard();
    return armed ? Error("process " + std::to_string(options_.pids.front()) +
                         " ended while giltop attached to it")
                 : armed.error();
  }
  if (progress_) progress_(0);
  if (child_) child_->go();

  RecordingResult result;
  uint64_t flushed = start, clocked = start;
  bool child_started = !child_;
  for (;;) {
    session_->poll(kPoll_ms, sink);
    if (tables_.crowded()) model_.forget_unused(tables_);
    const uint64_t now = boot_ns();
    if (!child_started) {
      auto started = child_->started();
      if (!started) {
        result.status = child_->failed_status();
        session_->stop(sink);
        if (file_) file_->discard();
        return started.error();
      }
      child_started = *started;
    }
    if (progress_) progress_(now - start);
    if (file_ && now - flushed >= kFlushEvery_ns) {
      flushed = now;
      update_run();
      if (now - clocked >= kClocksEvery_ns) {
        clocked = now;
        writer_.clocks(read_clocks());
      }
      writer_.run_facts(model_.last_ns(), run_);
      writer_.flush();
    }
    if (StopSignals::stop_requested()) {
      result.interrupted = true;
      break;
    }
    if (options_.duration_ns && now - start >= *options_.duration_ns) break;
    if (child_ && child_->poll()) break;
    if (!options_.pids.empty() && targets_ended()) break;
    if (file_ && file_->failed()) break;
  }
  session_->stop(sink);
  update_run();
  run_.finished = true;
  if (file_) {
    writer_.finish(model_.last_ns(), run_);
    if (const Status closed = file_->close(); !closed) result.write_error = closed.error();
    result.file_bytes = file_->bytes_written();
  }
  result.snapshot = snapshot_of(model_, run_);
  result.refusals = session_->refusals();
  return result;
}

}  // namespace

Result<RecordingResult> record(const RecordingOptions& options, std::optional<Child>& child,
                               const std::function<void(uint64_t)>& progress) {
  Recording recording(options, child, progress);
  return recording.run();
}

}  // namespace giltop
