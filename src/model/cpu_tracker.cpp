// The CPU tracker: running, runnable or blocked, and how long the kernel says it was.
#include <algorithm>

#include "model/state_inl.h"

namespace giltop {
namespace {

constexpr uint64_t kLeastLead_ns = 1000;  // below it is the way from the clock to the tracepoint

}  // namespace

// What a thread does itself it does on a CPU. When no event put it there, the kernel did not report
// its switch-in: some hide those of privileged tasks, and with them who came next.
void Model::prove_running(Thread& thread, uint64_t ts_ns) {
  if (thread.cpu_state != CpuState::unknown) {
    inferred_switches_++;
    advance(thread, ts_ns);
    const uint64_t from = std::max(thread.cpu_since_ns, thread.state_since_ns);
    inferred_ns_ += ts_ns - from;
    auto& cells = thread.matrix[static_cast<size_t>(thread.gil_state)];
    cells[static_cast<size_t>(thread.cpu_state)] -= ts_ns - from;
    cells[static_cast<size_t>(CpuState::unknown)] += ts_ns - from;
    if (thread.gil_state == GilState::holding && thread.gil) {
      thread.gil->advance(ts_ns);
      thread.gil->rebook(from, thread.cpu_state, CpuState::unknown);
    }
    thread.inferred = {from, ts_ns, thread.gil_state, thread.cpu_state};
  }
  set_cpu_state(thread, CpuState::running, ts_ns);
  thread.switch_in_ns = ts_ns;
  thread.switch_in_seen = false;
}

// The scheduler says how long a run has lasted that was not seen to begin.
void Model::mend_run(Thread& thread, const Event& event) {
  const uint64_t began = event.ts_ns - std::min<uint64_t>(event.other, event.ts_ns);
  const auto cell = [&](GilState g, CpuState c) -> uint64_t& {
    return thread.matrix[static_cast<size_t>(g)][static_cast<size_t>(c)];
  };
  if (thread.cpu_state == CpuState::running) {
    const Thread::Inferred span = thread.inferred;
    const uint64_t at = std::clamp(began, span.from_ns, span.to_ns);
    cell(span.gil_state, CpuState::unknown) -= span.to_ns - span.from_ns;
    cell(span.gil_state, span.before) += at - span.from_ns;
    cell(span.gil_state, CpuState::running) += span.to_ns - at;
    return;
  }
  inferred_switches_++;
  const CpuState before = thread.cpu_state;
  const uint64_t since = std::max(thread.cpu_since_ns, thread.state_since_ns);
  // Without the scheduler's word all that is known is that it is running now.
  const CpuState was = event.other != 0 ? CpuState::running : CpuState::unknown;
  const uint64_t at = event.other != 0 ? std::clamp(began, since, event.ts_ns) : since;
  inferred_ns_ += event.ts_ns - at;
  advance(thread, event.ts_ns);
  cell(thread.gil_state, before) -= event.ts_ns - at;
  cell(thread.gil_state, was) += event.ts_ns - at;
  if (thread.gil_state == GilState::holding && thread.gil) {
    thread.gil->advance(event.ts_ns);
    thread.gil->rebook(at, before, was);
  }
}

// The kernel charges a CPU by the run queue's clock, and that is not read anew at a switch that a
// wakeup has just asked for (rq_clock_skip_update() in wakeup_preempt(), kernel/sched/core.c). An
// idle CPU's way from the wakeup to the switch, some ten microseconds, is thus the woken thread's
// own running time, and a preempted thread's time ends at the wakeup. Returns what was moved.
int64_t Model::charge_run(Thread& thread, const Event& event, CpuState after) {
  if (!thread.switch_in_seen || event.other == 0) return 0;
  const uint64_t seen = event.ts_ns - thread.switch_in_ns;
  const uint64_t charged = event.other;
  const auto cell = [&](GilState g, CpuState c) -> uint64_t& {
    return thread.matrix[static_cast<size_t>(g)][static_cast<size_t>(c)];
  };
  if (charged >= seen) {
    const uint64_t lead = std::min(charged - seen, thread.runnable_before_ns);
    if (lead < kLeastLead_ns) return 0;
    cell(thread.run_gil_state, CpuState::runnable) -= lead;
    cell(thread.run_gil_state, CpuState::running) += lead;
    return static_cast<int64_t>(lead);
  }
  advance(thread, event.ts_ns);
  const uint64_t last = event.ts_ns - std::max(thread.cpu_since_ns, thread.state_since_ns);
  const uint64_t lag = std::min(seen - charged, last);
  if (lag < kLeastLead_ns) return 0;
  cell(thread.gil_state, CpuState::running) -= lag;
  cell(thread.gil_state, after) += lag;
  return -static_cast<int64_t>(lag);
}

// What the CPU charged to nobody since the thread was switched in. The hypervisor may also take the
// CPU in the middle of a switch, after the run queue's clock was read and before the tracepoint:
// that time is of no run that was seen. Returns true then.
bool Model::count_stolen(Thread& thread, const Event& event, int64_t lead_ns) {
  if (!thread.switch_in_seen || thread.cpu != event.cpu ||
      event.value <= thread.switch_in_uncharged_ns)
    return false;
  const uint64_t uncharged = event.value - thread.switch_in_uncharged_ns;
  const uint64_t seen = event.ts_ns - thread.switch_in_ns;
  const uint64_t booked = seen + static_cast<uint64_t>(std::max<int64_t>(lead_ns, 0));
  const uint64_t before = event.other > booked + kLeastLead_ns ? event.other - booked : 0;
  thread.stolen_ns += std::min(uncharged - std::min(uncharged, before), booked);
  return before != 0;
}

void Model::on_switch_out(Thread& thread, const Event& event, Change& change) {
  const bool unseen = thread.cpu_state == CpuState::running
                          ? thread.inferred.to_ns != 0 && event.other != 0
                          : thread.cpu_state != CpuState::unknown;
  const CpuState after =
      task_state(event) == TaskState::runnable ? CpuState::runnable : CpuState::blocked;
  if (unseen) {
    mend_run(thread, event);
    change.told_apart = true;
  } else if (thread.cpu_state == CpuState::running) {
    change.lead_ns = charge_run(thread, event, after);
    change.told_apart = count_stolen(thread, event, change.lead_ns);
  }
  thread.inferred = {};
  set_cpu_state(thread, after, event.ts_ns);
  thread.cpu = event.cpu;
}

void Model::on_switch_in(Thread& thread, const Event& event) {
  if (thread.cpu_state == CpuState::running && thread.switch_in_seen)
    contradiction(*thread.process);  // on two CPUs at once
  thread.inferred = {};
  thread.run_gil_state = thread.gil_state;
  thread.runnable_before_ns =
      thread.cpu_state == CpuState::runnable
          ? event.ts_ns - std::max(thread.cpu_since_ns, thread.state_since_ns)
          : 0;
  set_cpu_state(thread, CpuState::running, event.ts_ns);
  thread.switch_in_ns = event.ts_ns;
  thread.switch_in_seen = true;
  thread.switch_in_uncharged_ns = event.value;
  thread.cpu = event.cpu;
}

bool Model::on_wakeup(Thread& thread, uint64_t ts_ns) {
  // The kernel also reports wakeups of tasks that have not left their CPU: nothing changes here.
  if (thread.cpu_state == CpuState::running || thread.cpu_state == CpuState::runnable) return false;
  set_cpu_state(thread, CpuState::runnable, ts_ns);
  thread.wakeup_ns = ts_ns;
  return true;
}

}  // namespace giltop
