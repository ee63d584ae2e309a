// Tracing: a session, its model, and whom it is about. `record` and the live view are made of it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "cli/child.h"
#include "model/snapshot.h"
#include "probe/session.h"
#include "sink/trace_writer.h"

namespace giltop {

struct TracingOptions {
  Mode mode = Mode::exact;
  double budget = 0.02;  // of Mode::automatic
  size_t ring_bytes = 0;  // as SessionOptions has it
  std::vector<uint32_t> pids;  // to attach to; or
  bool host_wide = false;      // every CPython process there is and will be; or
  std::optional<Child::Options> command;
  bool follow_children = true;
  std::optional<WaitCounting> counting;  // instead of events: model() knows nothing then
  ModelLimits limits;
};

SystemFacts system_facts();

// In this order: prepare, arm, poll …, stop. Events go to the caller, which gives them to model().
class Tracing {
 public:
  // `child` outlives it, and so may the command.
  Tracing(const TracingOptions& options, std::optional<Child>& child)
      : options_(options), child_(child), model_(tables_, options.limits) {}

  // All that can be done before events flow. Errors: what Session says; the command cannot be
  // started.
  Status prepare();
  // Lets events flow; the command waits for child.go(). Errors: also that all processes have ended.
  Status arm();
  // Waits for events, at most `timeout_ms`. Errors: the command cannot be executed; tracing has
  // stopped then.
  Status poll(int timeout_ms, const Session::EventSink& sink);
  void stop(const Session::EventSink& sink) { session_->stop(sink); }

  // The command, or each of the processes that were named, as far as poll() has seen.
  bool ended() const;

  EventTables& tables() { return tables_; }
  Model& model() { return model_; }
  Session& session() { return *session_; }
  RunFacts& run() { return run_; }
  // Brings what is counted in run() up to now.
  void update_run();

 private:
  void attach_descendants();
  bool targets_ended() const;

  const TracingOptions& options_;
  std::optional<Child>& child_;
  EventTables tables_;
  Model model_;
  std::unique_ptr<Session> session_;
  std::vector<Fd> targets_;  // of -p
  RunFacts run_;
  uint64_t own_cpu_before_ = 0;
  bool child_started_ = false;
};

}  // namespace giltop
