#include "model/model.h"

#include <algorithm>
#include <cstdlib>

#include "model/state_inl.h"

namespace giltop {

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
  Process& process = add_process();
  process.tgid = tgid;
  by_tgid_[tgid] = &process;
  return process;
}

Process& Model::process_of(uint32_t tgid) {
  const auto found = by_tgid_.find(tgid);
  if (found != by_tgid_.end() && !found->second->ended) return *found->second;
  Process& process = new_process(tgid);
  note_idle(process);
  return process;
}

Thread& Model::new_thread(Process& process, uint32_t tid, uint64_t ts_ns) {
  // An id that was given away unseen.
  if (Thread* old = by_tid_[tid]; old && !old->ended) end_thread(*old, ts_ns);
  Thread& thread = add_thread(process);
  thread.tid = tid;
  thread.comm = process.comm;
  thread.first_ns = thread.last_ns = ts_ns;
  // Where the GIL is off nobody holds it or waits.
  if (process.gil_enabled == false && process.gil_events == 0) {
    thread.gil_state = GilState::released;
    thread.state_since_ns = ts_ns;
  }
  process.threads.push_back(&thread);
  process.alive.push_back(&thread);
  by_tid_[tid] = &thread;
  return thread;
}

Thread* Model::find(const Event& event, Change& change) {
  Thread* thread = by_tid_[event.tid];
  if (thread && !thread->ended && thread->process->tgid == event.tgid) return thread;
  // What a thread does between its exit event and its last switch is not its life any more, and a
  // sample may find it there.
  const bool same_ended =
      thread && thread->ended && (thread == &gone_ || thread->process->tgid == event.tgid);
  const bool shows_life = event.kind <= EventKind::gil_forced;
  if (same_ended && !shows_life && loss_until_ns_ <= thread->last_ns) return nullptr;
  // Nor is the last switch of a thread whose exit came in a loss, or before tracing began.
  if (event.kind == EventKind::switch_out && task_state(event) == TaskState::dead) return nullptr;
  change.began = true;
  return &new_thread(process_of(event.tgid), event.tid, event.ts_ns);
}

void Model::end_thread(Thread& thread, uint64_t ts_ns) {
  leave_gil(thread, ts_ns);
  advance(thread, ts_ns);
  if (thread.process->light) light_leave(thread);
  thread.ended = true;
  auto& alive = thread.process->alive;
  alive.erase(std::remove(alive.begin(), alive.end(), &thread), alive.end());
  note_ended(thread);
}

void Model::end_process(Process& process, uint64_t ts_ns, Change& change) {
  change.ended = &process;
  while (!process.alive.empty()) end_thread(*process.alive.back(), ts_ns);
  for (auto& gil : process.gils) gil->advance(ts_ns);
  if (process.light) process.light_ns += ts_ns - process.light_since_ns;
  process.ended = true;
  note_ended(process);
}

Gil* Model::gil_of(Process& process, uint64_t address, uint64_t ts_ns) {
  constexpr size_t kFew = 16;
  if (process.gils.size() <= kFew) {
    for (auto& gil : process.gils)
      if (gil->address == address) return gil.get();
  } else if (const auto found = process.gil_at.find(address); found != process.gil_at.end()) {
    return found->second;
  }
  if (process.gils.size() == kMostGils) return nullptr;
  Gil& gil = add_gil(process);
  process.gil_at.emplace(address, &gil);
  gil.address = address;
  gil.first_ns = gil.last_ns = ts_ns;
  gil.light = process.light;
  for (const auto& [read, interpreter] : process.interpreters)
    if (read == address) gil.interpreter = interpreter;
  return &gil;
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
    if (const auto old = by_tgid_.find(event.tgid); old != by_tgid_.end() && !old->second->ended)
      end_process(*old->second, event.ts_ns, change);
    process = &new_process(event.tgid);
    process->forked = true;
    if (parent) {
      process->facts = parent->process->facts;
      process->comm = parent->process->comm;
      process->user = parent->process->user;
      process->from_start = parent->process->from_start;
      process->lost = !trusted;
      if (parent->process->gil_events == 0) process->gil_enabled = parent->process->gil_enabled;
      if (parent->process->light) begin_light(*process, event.ts_ns);
      for (size_t slot = 0; slot < kLightGils; slot++)
        if (const Gil* gil = parent->process->light_gils[slot])
          process->light_gils[slot] = gil_of(*process, gil->address, event.ts_ns);
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
  thread.light.sure = true;
  if (parent && parent->assumed != 0) parent = nullptr;  // what it does is not sure
  if (parent_tgid == event.tgid) {
    // Till the probes are in force its first acquire may be missed.
    const bool late = process->gil_events == 0 && tables_->facts(process->facts).late;
    if (!late) thread.gil_state = GilState::released;
  } else if (parent && parent->gil_state == GilState::holding && parent->gil) {
    // Its copy of the memory says that it holds its copy of the GIL.
    Gil& gil = *gil_of(*process, parent->gil->address, event.ts_ns);  // its first
    gil.known = !process->light;
    gil.holder = gil.last_holder = process->light ? nullptr : &thread;
    thread.gil = &gil;
    thread.gil_state = GilState::holding;
  } else if (parent) {
    thread.gil_state =
        parent->gil_state == GilState::released ? GilState::released : GilState::unknown;
  }
}

void Model::on_exec(const Event& event, Change& change) {
  if (const auto old = by_tgid_.find(event.tgid); old != by_tgid_.end() && !old->second->ended) {
    old->second->left = true;
    end_process(*old->second, event.ts_ns, change);
  }
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
  thread.light.sure = true;
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
    process.gil_enabled.reset();
    for (auto& gil : process.gils) {
      gil->advance(event.ts_ns);
      gil->book_all_waiters();
      gil->known = false;
      gil->holder = nullptr;
      gil->handoff_open = false;
      gil->assumed.reset();
    }
    for (Thread* thread : process.alive) {
      leave_gil(*thread, event.ts_ns);
      set_cpu_state(*thread, CpuState::unknown, event.ts_ns);
      if (process.light) light_forget(*thread);
      thread->inferred = {};
    }
  }
}

// -------------------------------------------------------------------------------------------------

Change Model::apply(const Event& event) {
  Change change;
  if (event.tid > kMaxTid) return change;
  if (crowded_) [[unlikely]]
    fold();
  if (!any_) {
    // Time begins with somebody, not with the end of somebody who was never known.
    const bool unknown_end =
        event.kind == EventKind::exit ||
        (event.kind == EventKind::switch_out && task_state(event) == TaskState::dead);
    if (unknown_end) return change;
    first_ns_ = event.ts_ns;
    any_ = true;
  }
  last_ns_ = std::max(last_ns_, event.ts_ns);
  if (is_state_event(event.kind)) {
    if (event.ts_ns < loss_until_ns_) return change;  // true, but of a past with holes
    Thread* thread = find(event, change);
    if (!thread) return change;
    change.thread = thread;
    change.gil_before = thread->gil_state;
    change.cpu_before = thread->cpu_state;
    if (event.kind <= EventKind::gil_forced) {
      Process& process = *thread->process;
      Gil* const found = thread->gil && thread->gil->address == event.value
                             ? thread->gil
                             : gil_of(process, event.value, event.ts_ns);
      process.gil_events++;
      if (!found) {
        contradiction(process);
        change.gil_after = thread->gil_state;
        change.cpu_after = thread->cpu_state;
        return change;
      }
      Gil& gil = *found;
      change.gil = &gil;
      if (thread->cpu_state != CpuState::running) prove_running(*thread, event.ts_ns);
      if (thread->assumed != 0 || gil.assumed) [[unlikely]]
        check_reading(*thread, gil, event, change);
      if (process.light) [[unlikely]] {
        light_gil_event(*thread, gil, event, change);
      } else
        switch (event.kind) {
          case EventKind::gil_wait:
            on_gil_wait(*thread, gil, event.ts_ns);
            break;
          case EventKind::gil_acquire:
            on_gil_acquire(*thread, gil, event.ts_ns, change);
            break;
          case EventKind::gil_release:
            on_gil_release(*thread, gil, event.ts_ns, event.state != 0, change);
            break;
          default:
            on_gil_forced(*thread, gil);
            break;
        }
    } else if (event.kind == EventKind::switch_out) {
      on_switch_out(*thread, event, change);
      if (thread->process->light) light_switch_out(*thread, event);
      if (task_state(event) == TaskState::dead) end_thread(*thread, event.ts_ns);
    } else if (event.kind == EventKind::switch_in) {
      on_switch_in(*thread, event);
      if (thread->process->light) light_switch_in(*thread, event.ts_ns);
    } else if (event.kind == EventKind::sample) {
      if (thread->cpu_state != CpuState::running) prove_running(*thread, event.ts_ns);
      if (thread->process->light) light_sample(*thread, event);
    } else {
      change.woke = on_wakeup(*thread, event.ts_ns);
      if (thread->process->light) change.woke |= light_wakeup(*thread, event.ts_ns);
    }
    change.gil_after = thread->gil_state;
    change.cpu_after = thread->cpu_state;
    return change;
  }
  switch (event.kind) {
    case EventKind::fork:
      on_fork(event, change);
      break;
    case EventKind::exec:
      on_exec(event, change);
      break;
    case EventKind::exit: {
      Thread* thread = by_tid_[event.tid];
      if (thread && !thread->ended && thread->process->tgid == event.tgid) {
        change.thread = thread;
        if (event.other != 0) thread->comm = event.other;
        end_thread(*thread, event.ts_ns);
      }
      const auto process = by_tgid_.find(event.tgid);
      if (event.state != 0 && process != by_tgid_.end() && !process->second->ended) {
        process->second->left = event.state == 2;
        if (event.value != 0) process->second->user = static_cast<uint32_t>(event.value - 1);
        end_process(*process->second, event.ts_ns, change);
      }
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
      if (thread && thread->ended) break;  // while nobody has reaped it, it can get another
      if (!thread || thread->process->tgid != event.tgid) {
        thread = &new_thread(process_of(event.tgid), event.tid, event.ts_ns);
        change.began = true;
      }
      thread->comm = event.other;
      change.thread = thread;
      break;
    }
    case EventKind::ns_id: {
      Thread* thread = by_tid_[event.tid];
      if (!thread || thread->ended || thread->process->tgid != event.tgid) {
        thread = &new_thread(process_of(event.tgid), event.tid, event.ts_ns);
        change.began = true;
      }
      thread->ns_tid = event.other;
      change.thread = thread;
      break;
    }
    case EventKind::process: {
      Process& process = process_of(event.tgid);
      // A forked child that ended before it could be looked at is what its parent was.
      const ProcessFacts &now = tables_->facts(event.other),
                         &before = tables_->facts(process.facts);
      if (!now.cmdline.empty() || now.python != before.python) process.facts = event.other;
      if (now.user) process.user = now.user;
      if (now.late) {
        process.from_start = false;
        if (process.gil_events == 0 && process.gil_enabled != false)
          for (Thread* thread : process.alive)
            if (thread->gil_state == GilState::released)
              set_gil_state(*thread, GilState::unknown, event.ts_ns);
      }
      if (!process.alive.empty()) change.thread = process.alive.front();
      break;
    }
    case EventKind::loss:
      on_loss(event);
      break;
    case EventKind::mode:
      on_mode(event);
      break;
    case EventKind::light_gil:
      on_light_gil(event);
      break;
    case EventKind::gil_read:
      on_gil_read(event, change);
      break;
    case EventKind::thread_read:
      on_thread_read(event, change);
      break;
    default:
      advance_to(event.ts_ns);
      break;
  }
  return change;
}

void Model::advance(Process& process, uint64_t ts_ns) {
  if (process.ended) return;
  for (auto& gil : process.gils) gil->advance(ts_ns);
  for (Thread* thread : process.alive) {
    advance(*thread, ts_ns);
    if (process.light) settle(*thread);
  }
}

void Model::advance_to(uint64_t ts_ns) {
  last_ns_ = std::max(last_ns_, ts_ns);
  for (Process& process : processes_) advance(process, ts_ns);
}

const Process* Model::find_process(uint64_t number) const {
  const auto found = std::find_if(processes_.begin(), processes_.end(),
                                  [&](const Process& p) { return p.number == number && !p.gone; });
  return found == processes_.end() ? nullptr : &*found;
}

bool Model::advance_process_to(uint64_t number, uint64_t ts_ns) {
  for (Process& process : processes_) {
    if (process.number != number || process.gone) continue;
    last_ns_ = std::max(last_ns_, ts_ns);
    advance(process, ts_ns);
    return true;
  }
  return false;
}

}  // namespace giltop
