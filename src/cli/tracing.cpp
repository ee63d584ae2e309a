#include "cli/tracing.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "target/process.h"

namespace giltop {
namespace {

uint64_t own_cpu_ns() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& t) {
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u +
           static_cast<uint64_t>(t.tv_usec) * 1000u;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

}  // namespace

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

Status Tracing::prepare() {
  own_cpu_before_ = own_cpu_ns();
  const SystemFacts system = system_facts();
  run_.version = GILTOP_VERSION;
  run_.kernel = system.release;
  run_.cpus = system.cpus;
  run_.mode = options_.mode == Mode::exact   ? "exact"
              : options_.mode == Mode::light ? "light"
                                             : "auto";
  SessionOptions session;
  session.mode = options_.mode;
  session.budget = options_.budget;
  session.ring_bytes = options_.ring_bytes;
  session.follow_children = options_.follow_children;
  session.host_wide = options_.host_wide;
  session.counting = options_.counting;
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
  if (options_.follow_children && !options_.pids.empty()) attach_descendants();
  if (!options_.command) return ok();
  auto child = Child::make(*options_.command);
  if (!child) return child.error();
  child_.emplace(std::move(*child));
  return session_->track(static_cast<uint32_t>(child_->pid()));
}

// Children that run already: workers, mostly. One that is no Python may execute one; one that ends
// meanwhile is nobody's loss.
void Tracing::attach_descendants() {
  for (const pid_t child : descendants_of({options_.pids.begin(), options_.pids.end()})) {
    const auto tgid = static_cast<uint32_t>(child);
    (void)session_->attach_process(tgid);
    (void)session_->track(tgid);
  }
}

bool Tracing::targets_ended() const {
  return std::all_of(targets_.begin(), targets_.end(), [](const Fd& target) {
    pollfd ended{target.get(), POLLIN, 0};
    return !target || ::poll(&ended, 1, 0) > 0;
  });
}

Status Tracing::arm() {
  if (const Status armed = session_->arm(); !armed) return armed;
  if (!options_.pids.empty() && targets_ended())
    return Error("process " + std::to_string(options_.pids.front()) +
                 " ended while giltop attached to it");
  return ok();
}

Status Tracing::poll(int timeout_ms, const Session::EventSink& sink) {
  session_->poll(timeout_ms, sink);
  if (tables_.crowded() && options_.counting) {
    tables_.forget(tables_.none_used(), session_->watermark());
  } else if (tables_.crowded()) {
    model_.forget_unused(tables_);
  }
  if (!child_ || child_started_) return ok();
  auto started = child_->started();
  if (!started) {
    session_->stop(sink);
    return started.error();
  }
  child_started_ = *started;
  return ok();
}

bool Tracing::ended() const {
  // What became of a command that was not executed, poll() has yet to tell.
  return (child_ && child_started_ && child_->poll()) ||
         (!options_.pids.empty() && targets_ended());
}

void Tracing::update_run() {
  run_.events = session_->records();
  run_.probe_hits = session_->probe_hits();
  run_.other_probe_hits = session_->other_probe_hits();
  run_.probe_cost_ns = session_->cost_ns();
  run_.own_cpu_ns = own_cpu_ns() - own_cpu_before_;
}

}  // namespace giltop
