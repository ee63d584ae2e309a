#include "model/model.h"

#include <algorithm>
#include <cstdlib>

namespace giltop {
namespace {

constexpr uint64_t kLeastLead_ns = 1000;  // below it is the way from the clock to the tracepoint

}  // namespace

const char* to_string(GilState state) {
  constexpr const char* kNames[] = {"holding", "waiting", "released", "unknown"};
  return kNames[static_cast<size_t>(state)];
}

const char* to_string(CpuState state) {
  constexpr const char* kNames[] = {"running", "runnable", "blocked", "unknown"};
  return kNames[static_cast<size_t>(state)];
}

Model::TidMap::TidMap(size_t size)
    : slots_(static_cast<Thread**>(std::calloc(size, sizeof(Thread*)))) {
  if (!slots_) std::abort();
}

Model::TidMap::~TidMap() { std::free(slots_); }

uint64_t Model::lost() const {
  uint64_t sum = 0;
  for (const uint64_t count : lost_) sum += count;
  return sum;
}

// --- lives ---------------------------------------------------------------------------------------

Process& Model::new_process(uint32_t tgid) {
  Process& process = processes_.emplace_back();
  process.tgid = tgid;
  process.index = static_cast<uint32_t>(processes_.size() - 1);
  by_tgid_[tgid] = &process;
  return process;
}

Process& Model::process_of(uint32_t tgid) {
  const auto found = by_tgid_.find(tgid);
  if (found != by_tgid_.end() && !found->second->ended) return *found->second;
  return new_process(tgid);
}

Thread& Model::new_thread(Process& process, uint32_t tid, uint64_t ts_ns) {
  // An id that was given away unseen.
  if (Thread* old = by_tid_[tid]; old && !old->ended) end_thread(*old, ts_ns);
  Thread& thread = threads_.emplace_back();
  thread.tid = tid;
  thread.index = static_cast<uint32_t>(threads_.size() - 1);
  thread.process = &process;
  thread.comm = process.comm;
  thread.first_ns = thread.last_ns = ts_ns;
  process.threads.push_back(&thread);
  process.alive.push_back(&thread);
  by_tid_[tid] = &thread;
  return thread;
}

Thread* Model::find(const Event& event, Change& change) {
  Thread* thread = by_tid_[event.tid];
  if (thread && !thread->ended && thread->process->tgid == event.tgid) return thread;
  // What a thread does between its exit event and its last switch is not its life any more.
  const bool same_ended = thread && thread->ended && thread->process->tgid == event.tgid;
  const bool shows_life = event.kind <= EventKind::gil_forced;
  if (same_ended && !shows_life && loss_until_ns_ <= thread->last_ns) return nullptr;
  // Nor is the last switch of a thread whose exit came in a loss, or before tracing began.
  if (event.kind == EventKind::switch_out &&
      event.state == static_cast<uint8_t>(TaskState::dead))
    return nullptr;
  change.began = true;
  return &new_thread(process_of(event.tgid), event.tid, event.ts_ns);
}

void Model::end_thread(Thread& thread, uint64_t ts_ns) {
  leave_gil(thread, ts_ns);
  advance(thread, ts_ns);
  thread.ended = true;
  auto& alive = thread.process->alive;
  alive.erase(std::remove(alive.begin(), alive.end(), &thread), alive.end());
}

void Model::end_process(Process& process, uint64_t ts_ns, Change& change) {
  change.ended = &process;
  while (!process.alive.empty()) end_thread(*process.alive.back(), ts_ns);
  for (auto& gil : process.gils) gil->advance(ts_ns);
  process.ended = true;
}

Gil& Model::gil_of(Process& process, uint64_t address, uint64_t ts_ns) {
  for (auto& gil : process.gils)
    if (gil->address == address) return *gil;
  auto& gil = *process.gils.emplace_back(std::make_unique<Gil>());
  gil.address = address;
  gil.process = &process;
  gil.index = gil_count_++;
  gil.first_ns = gil.last_ns = ts_ns;
  return gil;
}

// --- state ---------------------------------------------------------------------------------------

void Model::advance(Thread& thread, uint64_t ts_ns) {
  thread.matrix[static_cast<size_t>(thread.gil_state)][static_cast<size_t>(thread.cpu_state)] +=
      ts_ns - thread.last_ns;
  thread.last_ns = ts_ns;
}

void Model::set_gil_state(Thread& thread, GilState state, uint64_t ts_ns) {
  advance(thread, ts_ns);
  thread.gil_state = state;
  thread.state_since_ns = ts_ns;
  thread.state_since_known = state != GilState::unknown;
}

void Model::set_cpu_state(Thread& thread, CpuState state, uint64_t ts_ns) {
  if (thread.gil_state == GilState::holding && thread.gil) {
    thread.gil->advance(ts_ns);
    if (thread.cpu_state == CpuState::blocked && state != CpuState::blocked) {
      thread.held_sleeps++;
      thread.held_sleep_max_ns = std::max(thread.held_sleep_max_ns, ts_ns - thread.blocked_ns);
    }
  }
  if (state == CpuState::blocked) thread.blocked_ns = ts_ns;
  advance(thread, ts_ns);
  thread.cpu_state = state;
  thread.cpu_since_ns = ts_ns;
}

// The thread neither holds nor awaits its GIL any more, for a reason other than the GIL's own
// events: it ended, or its state was lost. Who holds it next is not known then.
void Model::leave_gil(Thread& thread, uint64_t ts_ns) {
  Gil* gil = thread.gil;
  if (gil && thread.gil_state == GilState::waiting) {
    gil->advance(ts_ns);
    gil->book(thread);
    gil->remove_waiter(thread);
  }
  if (gil && gil->known && gil->holder == &thread) {
    gil->advance(ts_ns);
    gil->book_all_waiters();
    gil->known = false;
    gil->holder = nullptr;
    gil->handoff_open = false;
  }
  set_gil_state(thread, GilState::unknown, ts_ns);
}

// --- the GIL -------------------------------------------------------------------------------------

void Model::on_gil_wait(Thread& thread, Gil& gil, uint64_t ts_ns) {
  if (thread.gil_state == GilState::waiting && thread.gil == &gil) {
    // It woke and found the GIL still taken. When nobody released it meanwhile, that was the switch
    // interval running out, and the waiter sets gil_drop_request (take_gil, Python/ceval_gil.h in
    // CPython 3.2 to 3.11, Python/ceval_gil.c since).
    if (gil.holder && gil.release_ns <= thread.wait_step_ns) gil.drop_requested = true;
    thread.wait_step_ns = ts_ns;
    return;
  }
  if (thread.gil_state == GilState::holding || thread.gil_state == GilState::waiting) {
    violations_++;
    leave_gil(thread, ts_ns);
  }
  gil.advance(ts_ns);
  if (gil.known && !gil.holder) {  // it found the GIL taken: an acquire was missed
    violations_++;
    gil.book_all_waiters();
    gil.known = false;
    gil.handoff_open = false;
  }
  // The event repeats while the wait goes on: of a thread in an unknown state it may be a repeat.
  const bool from_beginning = thread.gil_state != GilState::unknown;
  set_gil_state(thread, GilState::waiting, ts_ns);
  thread.state_since_known = from_beginning;
  thread.gil = &gil;
  thread.wait_mark = gil.ledger;
  thread.wait_step_ns = ts_ns;
  gil.waiters.push_back(&thread);
  gil.max_waiters = std::max<uint64_t>(gil.max_waiters, gil.waiters.size());
}

void Model::on_gil_acquire(Thread& thread, Gil& gil, uint64_t ts_ns, Change& change) {
  gil.advance(ts_ns);
  if (gil.blamed() != &thread) gil.book_all_waiters();
  if (gil.known && gil.holder) {
    // A forked child re-creates the GIL it inherited and takes it again, with no release before.
    const bool recreated = gil.holder == &thread && thread.process->forked &&
                           gil.acquires == 0 && gil.holder->process == gil.process;
    if (!recreated) violations_++;
    if (gil.holder != &thread) {
      change.evicted = gil.holder;
      leave_gil(*gil.holder, ts_ns);
    }
  }
  const bool waited = thread.gil_state == GilState::waiting && thread.gil == &gil;
  if (thread.gil && !waited && thread.gil != &gil &&
      (thread.gil_state == GilState::holding || thread.gil_state == GilState::waiting)) {
    violations_++;
    leave_gil(thread, ts_ns);
  }
  if (waited) {
    gil.book(thread);
    gil.remove_waiter(thread);
    gil.contended++;
    thread.contended++;
    if (thread.state_since_known) thread.wait.add(ts_ns - thread.state_since_ns);
    if (gil.handoff_open && gil.known && !gil.holder && thread.state_since_ns <= gil.release_ns) {
      // release → wakeup → on CPU → acquired; a part that had happened by then is empty.
      const uint64_t released = gil.release_ns;
      const uint64_t on_cpu = std::max(released, thread.switch_in_ns);
      const uint64_t woken = std::clamp(thread.wakeup_ns, released, on_cpu);
      gil.handoff.add(ts_ns - released);
      gil.handoff_wakeup_ns += woken - released;
      gil.handoff_runqueue_ns += on_cpu - woken;
      gil.handoff_lock_ns += ts_ns - on_cpu;
      change.handoff = true;
    }
  }
  set_gil_state(thread, GilState::holding, ts_ns);
  thread.gil = &gil;
  thread.acquires++;
  gil.acquires++;
  gil.known = true;
  gil.holder = gil.last_holder = &thread;
  gil.drop_requested = false;
  gil.handoff_open = false;
}

void Model::on_gil_release(Thread& thread, Gil& gil, uint64_t ts_ns, Change& change) {
  gil.advance(ts_ns);
  if (gil.blamed() != &thread) gil.book_all_waiters();
  if (gil.known && gil.holder != &thread) {
    violations_++;
    if (gil.holder) {
      change.evicted = gil.holder;
      leave_gil(*gil.holder, ts_ns);
    }
  }
  if (thread.gil_state == GilState::waiting && thread.gil) {  // it released without owning
    thread.gil->advance(ts_ns);
    thread.gil->book(thread);
    thread.gil->remove_waiter(thread);
  } else if (thread.gil_state == GilState::holding && thread.gil != &gil) {
    violations_++;
    leave_gil(thread, ts_ns);
  }
  if (thread.gil_state == GilState::holding && thread.gil == &gil && thread.state_since_known)
    thread.hold.add(ts_ns - thread.state_since_ns);
  set_gil_state(thread, GilState::released, ts_ns);
  thread.gil = &gil;
  if (gil.drop_requested && gil.holder == &thread) {
    thread.forced_releases++;
    gil.forced_releases++;
    thread.last_release_forced = true;
  } else {
    thread.voluntary_releases++;
    gil.voluntary_releases++;
    thread.last_release_forced = false;
  }
  gil.drop_requested = false;
  gil.known = true;
  gil.holder = nullptr;
  gil.last_holder = &thread;
  gil.release_ns = ts_ns;
  gil.handoff_open = true;
  gil.handoffs++;
}

// The thread waits for another to take over. It does so only when it is still the last holder: of
// releases to a waiter that was faster, the request alone tells.
void Model::on_gil_forced(Thread& thread, Gil& gil) {
  if (thread.gil_state != GilState::released || thread.gil != &gil) return;
  if (thread.last_release_forced) return;
  thread.last_release_forced = true;
  if (thread.voluntary_releases == 0 || gil.voluntary_releases == 0) return;
  thread.voluntary_releases--;
  gil.voluntary_releases--;
  thread.forced_releases++;
  gil.forced_releases++;
}

// --- the scheduler -------------------------------------------------------------------------------

// What a thread does itself it does on a CPU. When no event put it there, the kernel did not report
// its switch-in: some hide those of privileged tasks, and with them who came next.
void Model::prove_running(Thread& thread, uint64_t ts_ns) {
  if (thread.cpu_state == CpuState::running) return;
  if (thread.cpu_state != CpuState::unknown) {
    inferred_switches_++;
    advance(thread, ts_ns);
    const uint64_t from = std::max(thread.cpu_since_ns, thread.state_since_ns);
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

void Model::on_switch_out(Thread& thread, const Event& event, Change& change) {
  const bool unseen = thread.cpu_state == CpuState::running
                          ? thread.inferred.to_ns != 0 && event.other != 0
                          : thread.cpu_state != CpuState::unknown;
  if (unseen) {
    mend_run(thread, event);
    change.mended = true;
  } else if (thread.cpu_state == CpuState::running && thread.switch_in_seen &&
             thread.cpu == event.cpu && event.value > thread.switch_in_uncharged_ns) {
    thread.stolen_ns += std::min(event.value - thread.switch_in_uncharged_ns,
                                 event.ts_ns - thread.switch_in_ns);
  }
  const CpuState after = event.state == static_cast<uint8_t>(TaskState::runnable)
                             ? CpuState::runnable
                             : CpuState::blocked;
  if (!unseen && thread.cpu_state == CpuState::running)
    change.lead_ns = charge_run(thread, event, after);
  thread.inferred = {};
  set_cpu_state(thread, after, event.ts_ns);
  thread.cpu = event.cpu;
}

void Model::on_switch_in(Thread& thread, const Event& event) {
  if (thread.cpu_state == CpuState::running && thread.switch_in_seen)
    violations_++;  // on two CPUs at once
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

void Model::on_wakeup(Thread& thread, uint64_t ts_ns) {
  // The kernel also reports wakeups of tasks that have not left their CPU: they change nothing.
  if (thread.cpu_state == CpuState::running || thread.cpu_state == CpuState::runnable) return;
  set_cpu_state(thread, CpuState::runnable, ts_ns);
  thread.wakeup_ns = ts_ns;
}

// --- processes -----------------------------------------------------------------------------------

void Model::on_fork(const Event& event, Change& change) {
  const auto parent_tgid = static_cast<uint32_t>(event.value >> 32);
  const auto parent_tid = static_cast<uint32_t>(event.value);
  const bool trusted = event.ts_ns >= loss_until_ns_;
  Process* process = nullptr;
  Thread* parent = parent_tid <= kMaxTid ? by_tid_[parent_tid] : nullptr;
  if (parent && (parent->ended || parent->process->tgid != parent_tgid)) parent = nullptr;
  if (parent_tgid == event.tgid) {
    process = &process_of(event.tgid);
  } else {
    if (const auto old = by_tgid_.find(event.tgid);
        old != by_tgid_.end() && !old->second->ended)
      end_process(*old->second, event.ts_ns, change);
    process = &new_process(event.tgid);
    process->forked = true;
    if (parent) {
      process->facts = parent->process->facts;
      process->comm = parent->process->comm;
      process->from_start = parent->process->from_start;
      process->lost = !trusted;
    }
  }
  Thread& thread = new_thread(*process, event.tid, event.ts_ns);
  thread.comm = event.other;
  if (parent_tgid != event.tgid) process->comm = event.other;
  change.thread = &thread;
  change.began = true;
  if (!trusted) return;
  thread.cpu_state = CpuState::runnable;
  thread.cpu_since_ns = thread.state_since_ns = event.ts_ns;
  thread.wakeup_ns = event.ts_ns;
  if (parent_tgid == event.tgid) {
    thread.gil_state = GilState::released;
  } else if (parent && parent->gil_state == GilState::holding && parent->gil) {
    // Its copy of the memory says that it holds its copy of the GIL.
    Gil& gil = gil_of(*process, parent->gil->address, event.ts_ns);
    gil.known = true;
    gil.holder = gil.last_holder = &thread;
    thread.gil = &gil;
    thread.gil_state = GilState::holding;
  } else if (parent) {
    thread.gil_state = parent->gil_state == GilState::released ? GilState::released
                                                               : GilState::unknown;
  }
}

void Model::on_exec(const Event& event, Change& change) {
  if (const auto old = by_tgid_.find(event.tgid); old != by_tgid_.end() && !old->second->ended)
    end_process(*old->second, event.ts_ns, change);
  Process& process = new_process(event.tgid);
  process.comm = event.other;
  Thread* before = by_tid_[event.tid];
  Thread& thread = new_thread(process, event.tid, event.ts_ns);
  change.thread = &thread;
  change.began = true;
  process.lost = event.ts_ns < loss_until_ns_;
  if (process.lost) return;
  process.from_start = true;
  // It runs, in a fresh image that holds no GIL.
  thread.gil_state = GilState::released;
  thread.cpu_state = CpuState::running;
  thread.cpu_since_ns = thread.state_since_ns = event.ts_ns;
  thread.cpu = event.cpu;
  thread.switch_in_ns = event.ts_ns;
  // Its run goes on, if that was seen to begin (and its id is not that of another thread till now).
  if (before && before->process->tgid == event.tgid && before->last_ns == event.ts_ns &&
      before->cpu_state == CpuState::running && before->cpu == event.cpu) {
    thread.switch_in_seen = before->switch_in_seen;
    thread.switch_in_ns = before->switch_in_ns;
    thread.switch_in_uncharged_ns = before->switch_in_uncharged_ns;
  }
}

void Model::on_loss(const Event& event) {
  lost_[std::min<size_t>(event.state, lost_.size() - 1)] += event.other;
  loss_until_ns_ = std::max(loss_until_ns_, event.value);
  for (Process& process : processes_) {
    if (process.ended) continue;
    process.lost = true;
    for (auto& gil : process.gils) {
      gil->advance(event.ts_ns);
      gil->book_all_waiters();
      gil->known = false;
      gil->holder = nullptr;
      gil->handoff_open = false;
    }
    for (Thread* thread : process.alive) {
      leave_gil(*thread, event.ts_ns);
      set_cpu_state(*thread, CpuState::unknown, event.ts_ns);
      thread->inferred = {};
    }
  }
}

// -------------------------------------------------------------------------------------------------

Change Model::apply(const Event& event) {
  Change change;
  if (event.tid > kMaxTid) return change;
  if (!any_) {
    // Time begins with somebody, not with the end of somebody who was never known.
    const bool unknown_end =
        event.kind == EventKind::exit || event.kind == EventKind::thread_name ||
        (event.kind == EventKind::switch_out &&
         event.state == static_cast<uint8_t>(TaskState::dead));
    if (unknown_end) return change;
    first_ns_ = event.ts_ns;
    any_ = true;
  }
  last_ns_ = std::max(last_ns_, event.ts_ns);
  const bool state_event = event.kind <= EventKind::wakeup;
  if (state_event) {
    if (event.ts_ns < loss_until_ns_) return change;  // true, but of a past with holes
    Thread* thread = find(event, change);
    if (!thread) return change;
    change.thread = thread;
    change.gil_before = thread->gil_state;
    change.cpu_before = thread->cpu_state;
    if (event.kind <= EventKind::gil_forced) {
      Process& process = *thread->process;
      Gil& gil = thread->gil && thread->gil->address == event.value
                     ? *thread->gil
                     : gil_of(process, event.value, event.ts_ns);
      process.gil_events++;
      change.gil = &gil;
      prove_running(*thread, event.ts_ns);
      switch (event.kind) {
        case EventKind::gil_wait: on_gil_wait(*thread, gil, event.ts_ns); break;
        case EventKind::gil_acquire: on_gil_acquire(*thread, gil, event.ts_ns, change); break;
        case EventKind::gil_release: on_gil_release(*thread, gil, event.ts_ns, change); break;
        default: on_gil_forced(*thread, gil); break;
      }
    } else if (event.kind == EventKind::switch_out) {
      on_switch_out(*thread, event, change);
      if (event.state == static_cast<uint8_t>(TaskState::dead)) end_thread(*thread, event.ts_ns);
    } else if (event.kind == EventKind::switch_in) {
      on_switch_in(*thread, event);
    } else {
      on_wakeup(*thread, event.ts_ns);
    }
    change.gil_after = thread->gil_state;
    change.cpu_after = thread->cpu_state;
    return change;
  }
  switch (event.kind) {
    case EventKind::fork: on_fork(event, change); break;
    case EventKind::exec: on_exec(event, change); break;
    case EventKind::exit: {
      Thread* thread = by_tid_[event.tid];
      if (thread && !thread->ended && thread->process->tgid == event.tgid) {
        change.thread = thread;
        if (event.other != 0) thread->comm = event.other;
        end_thread(*thread, event.ts_ns);
      }
      const auto process = by_tgid_.find(event.tgid);
      if (event.state != 0 && process != by_tgid_.end() && !process->second->ended)
        end_process(*process->second, event.ts_ns, change);
      break;
    }
    case EventKind::thread_seen: {
      Thread* thread = by_tid_[event.tid];
      if (!thread || thread->ended || thread->process->tgid != event.tgid) {
        thread = &new_thread(process_of(event.tgid), event.tid, event.ts_ns);
        change.began = true;
      }
      if (event.other != 0) thread->comm = event.other;
      change.thread = thread;
      break;
    }
    case EventKind::thread_name: {
      Thread* thread = by_tid_[event.tid];
      if (!thread || thread->process->tgid != event.tgid) break;
      thread->comm = event.other;
      change.thread = thread;
      break;
    }
    case EventKind::process: {
      Process& process = process_of(event.tgid);
      process.facts = event.other;
      if (!process.alive.empty()) change.thread = process.alive.front();
      break;
    }
    case EventKind::loss: on_loss(event); break;
    default: advance_to(event.ts_ns); break;
  }
  return change;
}

void Model::advance_to(uint64_t ts_ns) {
  last_ns_ = std::max(last_ns_, ts_ns);
  for (Process& process : processes_) {
    if (process.ended) continue;
    for (auto& gil : process.gils) gil->advance(ts_ns);
    for (Thread* thread : process.alive) advance(*thread, ts_ns);
  }
}

}  // namespace giltop
