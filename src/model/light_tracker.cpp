// Light mode: waits are events, holds are glimpses.
//
// What is known of a thread: that it waits, from the call in take_gil to the moment it owns the
// GIL, and behind whom; and whether it holds a GIL when it leaves its CPU, hence all the while
// until it is back. What it does while it runs is not: an uncontended take or drop traps nowhere. A
// sample of the CPU clock then decides for all that the thread has run since the one before, which
// is right on average: samples fall on a thread's running time evenly, whatever it does.
//
//     on its CPU: unknown ──sample──► holding or released, for the time since the last decision
//     off it:     holding or released, as read at the switch
//     waiting:    as in exact mode
//
// So cells tile as ever; what was not decided in the end is unknown. A GIL's ledger follows from
// its threads' cells (Gil::Share).
#include <algorithm>
#include <utility>

#include "model/state_inl.h"

namespace giltop {
namespace {

constexpr size_t kRunning = static_cast<size_t>(CpuState::running);
constexpr size_t kHolding = static_cast<size_t>(GilState::holding);
constexpr size_t kUnknown = static_cast<size_t>(GilState::unknown);

// What a thread may have done with the GIL up to `ts_ns`: run (it is not known with what, but it
// did not wait for one), been preempted with it, slept with it.
std::array<uint64_t, 3> held_times(const Thread& thread, uint64_t ts_ns) {
  std::array<uint64_t, 3> times{};
  const auto row = [&](GilState g) -> const auto& { return thread.matrix[static_cast<size_t>(g)]; };
  for (const GilState g : {GilState::holding, GilState::released, GilState::unknown})
    times[0] += row(g)[kRunning];
  for (const size_t c : {size_t{1}, size_t{2}}) times[c] = row(GilState::holding)[c];
  const auto now = static_cast<size_t>(thread.cpu_state);
  const bool counts = now == kRunning ? thread.gil_state != GilState::waiting
                                      : thread.gil_state == GilState::holding;
  if (counts && now < times.size()) times[now] += ts_ns - thread.last_ns;
  return times;
}

}  // namespace

// --- modes ---------------------------------------------------------------------------------------

void Model::on_mode(const Event& event) {
  Process& process = process_of(event.tgid);
  if (process.light == (event.state != 0)) return;
  process.light ? end_light(process, event.ts_ns) : begin_light(process, event.ts_ns);
}

void Model::begin_light(Process& process, uint64_t ts_ns) {
  for (auto& gil : process.gils) {
    gil->advance(ts_ns);
    gil->book_all_waiters();
    for (Thread* waiter : gil->waiters) {
      Ledger parts = gil->ledger;
      for (size_t c = 0; c < kLedgerColumns; c++) parts[c] -= waiter->wait_so_far.mark[c];
      waiter->wait_so_far.add(parts);
      wait_behind(*waiter, gil->holder, ts_ns);
      if (waiter->cpu_state != CpuState::blocked && waiter->wakeup_ns > waiter->wait_step_ns)
        waiter->light.woken_ns = waiter->wakeup_ns;
    }
    gil->known = false;
    gil->holder = nullptr;
    gil->handoff_open = false;
    gil->assumed.reset();
    gil->light = true;
  }
  process.light = process.was_light = true;
  process.light_since_ns = ts_ns;
  for (Thread* thread : process.alive) {
    if (thread->assumed != 0) confirm(*thread);
    advance(*thread, ts_ns);
    thread->light.sure = thread->gil_state != GilState::unknown;
    thread->light.undecided_from = thread->matrix[kUnknown][kRunning];
    thread->light.held = thread->matrix[kHolding];
    thread->light.unknown = 0;
    for (const uint64_t cell : thread->matrix[kUnknown]) thread->light.unknown += cell;
    if (thread->cpu_state == CpuState::running && thread->gil_state != GilState::waiting)
      set_gil_state(*thread, GilState::unknown, ts_ns);
  }
}

void Model::end_light(Process& process, uint64_t ts_ns) {
  for (Thread* thread : process.alive) light_forget(*thread);
  for (auto& gil : process.gils) {
    gil->advance(ts_ns);
    gil->book_all_waiters();
    gil->light = false;
    for (Thread* waiter : gil->waiters) {
      waiter->light.behind = nullptr;
      waiter->wait_mark = gil->ledger;
      waiter->wait_so_far.mark = gil->ledger;
      waiter->wait_so_far.told_ns = ts_ns;
    }
  }
  process.light = false;
  process.light_ns += ts_ns - process.light_since_ns;
  // Who sleeps with it still holds it when it wakes.
  for (Thread* thread : process.alive) {
    if (thread->gil_state != GilState::holding) continue;
    if (!thread->gil) {  // which one was not told
      set_gil_state(*thread, GilState::unknown, ts_ns);
      continue;
    }
    thread->gil->known = true;
    thread->gil->holder = thread->gil->last_holder = thread;
  }
}

void Model::on_light_gil(const Event& event) {
  if (event.state >= kLightGils) return;
  Process& process = process_of(event.tgid);
  process.light_gils[event.state] = gil_of(process, event.value, event.ts_ns);
}

// --- what is booked ------------------------------------------------------------------------------

// Brings the share of the thread's GIL up to the thread's cells. Cells may shrink (a switch is
// charged otherwise in the end): sums are right modulo 2^64, hence right.
void Model::settle(Thread& thread) {
  auto& booked = thread.light;
  const auto& held = thread.matrix[kHolding];
  uint64_t unknown = 0;
  for (const uint64_t cell : thread.matrix[kUnknown]) unknown += cell;
  if (Gil* gil = thread.gil) {
    for (size_t c = 0; c < held.size(); c++) gil->share.held[c] += held[c] - booked.held[c];
    gil->share.unknown_ns += unknown - booked.unknown;
  }
  booked.held = held;
  booked.unknown = unknown;
}

// What it did is not known from here on; what it ran and was not decided stays so.
void Model::light_forget(Thread& thread) {
  settle(thread);
  thread.light.sure = false;
  thread.light.undecided_from = thread.matrix[kUnknown][kRunning];
}

// Nobody waits behind it any more.
void Model::light_leave(Thread& thread) {
  light_forget(thread);
  for (const auto& gil : thread.process->gils) {
    for (Thread* waiter : gil->waiters) {
      if (waiter->light.behind != &thread) continue;
      gil->advance(std::max(gil->last_ns, thread.last_ns));
      if (waiter->light.woken_ns != 0) {  // it let go before it ended: the hand-off goes on
        gil->book_handoff(*waiter);
        waiter->light.behind = nullptr;
        continue;
      }
      gil->book(*waiter);
      wait_behind(*waiter, nullptr, gil->last_ns);
    }
  }
}

void Model::note_sight(Thread& thread, GilSight sight) {
  thread.light.sure = true;
  Gil* const gil = sight.holds ? thread.process->light_gils[sight.slot] : nullptr;
  if (!gil || gil == thread.gil) return;
  settle(thread);
  thread.gil = gil;
}

void Model::wait_behind(Thread& thread, Thread* holder, uint64_t ts_ns) {
  thread.light.behind = holder;
  thread.light.since_ns = ts_ns;
  thread.light.woken_ns = 0;
  if (holder) thread.light.behind_had = held_times(*holder, ts_ns);
}

// All who wait, and were not woken to take it, wait behind this one now.
void Model::wait_behind(Gil& gil, Thread& holder, const Thread& by, uint64_t ts_ns) {
  for (Thread* waiter : gil.waiters) {
    if (waiter == &by || waiter == &holder || waiter->light.woken_ns != 0 ||
        waiter->light.behind == &holder)
      continue;
    gil.book(*waiter);
    wait_behind(*waiter, &holder, ts_ns);
  }
}

// The waiter's time since its mark, up to where the GIL was advanced to.
Ledger Gil::light_parts(const Thread& waiter) const {
  Ledger parts{};
  const Thread::Light& wait = waiter.light;
  uint64_t left = last_ns - std::min(wait.since_ns, last_ns);
  if (const Thread* const behind = wait.behind; behind && behind->last_ns <= last_ns) {
    const auto now = held_times(*behind, last_ns);
    constexpr LedgerColumn kColumns[] = {LedgerColumn::running, LedgerColumn::runnable,
                                         LedgerColumn::blocked};
    for (size_t c = 0; c < now.size(); c++) {
      // A switch that was charged otherwise meanwhile may have taken a little out of one.
      const auto grown = static_cast<int64_t>(now[c] - wait.behind_had[c]);
      const uint64_t part = std::min(left, static_cast<uint64_t>(std::max<int64_t>(grown, 0)));
      parts[static_cast<size_t>(kColumns[c])] = part;
      left -= part;
    }
  }
  // It let go, and who took it then was not seen.
  parts[static_cast<size_t>(LedgerColumn::unknown)] = left;
  return parts;
}

void Gil::book_light(Thread& waiter) {
  Thread::Light& wait = waiter.light;
  if (wait.since_ns >= last_ns) return;
  Ledger parts = light_parts(waiter);
  const auto unknown = static_cast<size_t>(LedgerColumn::unknown);
  Ledger nobodys{};
  nobodys[unknown] = std::exchange(parts[unknown], 0);
  if (nobodys[unknown] != 0) {
    row(waiter, nullptr).parts[unknown] += nobodys[unknown];
    waiter.wait_so_far.add(nobodys);
    waiter.wait_so_far.add(nullptr, nobodys[unknown]);
  }
  if (wait.behind) {
    waiter.wait_so_far.add(parts);
    waiter.wait_so_far.add(wait.behind, last_ns - wait.since_ns - nobodys[unknown]);
    Row& booked = row(waiter, wait.behind);
    for (size_t c = 0; c < kLedgerColumns; c++) booked.parts[c] += parts[c];
    wait.behind_had = held_times(*wait.behind, last_ns);
  }
  wait.since_ns = last_ns;
}

void Gil::book_handoff(Thread& waiter) {
  if (waiter.light.since_ns >= last_ns) return;
  Ledger parts{};
  const auto column = static_cast<size_t>(LedgerColumn::handoff);
  parts[column] = last_ns - waiter.light.since_ns;
  row(waiter, waiter.light.behind).parts[column] += parts[column];
  waiter.wait_so_far.add(parts);
  waiter.wait_so_far.add(waiter.light.behind, parts[column]);
  waiter.light.since_ns = last_ns;
}

Ledger Gil::whole_ledger() const {
  Ledger whole = ledger;
  const auto add = [&](LedgerColumn column, uint64_t ns) {
    whole[static_cast<size_t>(column)] += ns;
  };
  // Glimpses may make a little more of it than there was time.
  uint64_t left = share.life_ns;
  const auto take = [&](uint64_t ns) {
    const uint64_t taken = std::min(ns, left);
    left -= taken;
    return taken;
  };
  add(LedgerColumn::blocked, take(share.held[static_cast<size_t>(CpuState::blocked)]));
  add(LedgerColumn::runnable, take(share.held[static_cast<size_t>(CpuState::runnable)]));
  add(LedgerColumn::handoff, take(share.handoff_ns));
  add(LedgerColumn::running, take(share.held[kRunning]));
  // What was decided later than its thread's GIL was found is taken out of what was never put in.
  const auto unknown = static_cast<int64_t>(share.unknown_ns);
  add(LedgerColumn::unknown, take(share.held[static_cast<size_t>(CpuState::unknown)] +
                                  static_cast<uint64_t>(std::max<int64_t>(unknown, 0))));
  add(LedgerColumn::idle, left);
  return whole;
}

// --- events --------------------------------------------------------------------------------------

Thread* Model::by_own_id(const Process& process, uint32_t own_id) {
  if (own_id == 0 || own_id > kMaxTid) return nullptr;
  Thread* const thread = by_tid_[own_id];
  if (thread && !thread->ended && thread->process == &process && thread->ns_tid == 0) return thread;
  const auto found = std::find_if(process.alive.begin(), process.alive.end(),
                                  [&](const Thread* t) { return t->ns_tid == own_id; });
  return found == process.alive.end() ? nullptr : *found;
}

void Model::light_wait(Thread& thread, Gil& gil, const Event& event, Change& change) {
  Thread* holder = by_own_id(*thread.process, event.other);
  if (holder == &thread) holder = nullptr;
  change.behind = holder;
  gil.advance(event.ts_ns);
  if (holder) wait_behind(gil, *holder, thread, event.ts_ns);
  if (thread.gil_state == GilState::waiting && thread.gil == &gil) {
    // It woke and found it taken. By another than before: what lies in between was a hand-off to
    // that one.
    if (thread.light.woken_ns != 0 && holder != thread.light.behind) {
      gil.book_handoff(thread);
    } else {
      gil.book(thread);
    }
    wait_behind(thread, holder, event.ts_ns);
    thread.wait_step_ns = event.ts_ns;
    thread.light.by_reading = false;
    return;
  }
  // The event repeats while the wait goes on: of a thread in an unknown state it may be a repeat.
  const bool from_beginning = thread.light.sure && event.state == 0;
  set_gil_state(thread, GilState::waiting, event.ts_ns);
  thread.state_since_known = from_beginning;
  if (thread.gil != &gil) settle(thread);
  thread.gil = &gil;
  thread.light.sure = true;
  thread.light.by_reading = false;
  thread.wait_step_ns = event.ts_ns;
  wait_behind(thread, holder, event.ts_ns);
  gil.add_waiter(thread, event.ts_ns);
}

// The thread, which runs, does not wait any more.
void Model::end_light_wait(Thread& thread, uint64_t ts_ns) {
  Gil& gil = *thread.gil;
  gil.advance(ts_ns);
  gil.book(thread);
  gil.remove_waiter(thread);
  thread.light.behind = nullptr;
  set_gil_state(thread, GilState::unknown, ts_ns);
}

void Model::light_gil_event(Thread& thread, Gil& gil, const Event& event, Change& change) {
  if (thread.gil_state == GilState::waiting && thread.gil != &gil)
    end_light_wait(thread, event.ts_ns);  // how it ended was not seen
  const bool waited = thread.gil_state == GilState::waiting;
  thread.process->gil_enabled = true;
  switch (event.kind) {
    case EventKind::gil_wait:
      light_wait(thread, gil, event, change);
      return;
    case EventKind::gil_acquire:
      if (waited) {
        gil.advance(event.ts_ns);
        gil.contended++;
        thread.contended++;
        if (thread.light.woken_ns != 0) {
          // Who let it go woke this thread: wakeup → on CPU → acquired.
          const uint64_t woken = thread.light.woken_ns;
          const uint64_t on_cpu = std::clamp(thread.switch_in_ns, woken, event.ts_ns);
          gil.handoff.add(event.ts_ns - woken);
          gil.handoff_runqueue_ns += on_cpu - woken;
          gil.handoff_lock_ns += event.ts_ns - on_cpu;
          gil.share.handoff_ns += event.ts_ns - std::max(woken, thread.process->light_since_ns);
          gil.book_handoff(thread);
          wait_behind(thread, nullptr, event.ts_ns);
        } else {
          gil.book(thread);
        }
        if (thread.state_since_known) {
          thread.wait.add(event.ts_ns - thread.state_since_ns);
          note_wait(thread, event.ts_ns);
        }
      }
      break;
    case EventKind::gil_release:
      if (event.state != 0) thread.process->gil_enabled = false;
      break;
    default:
      break;
  }
  if (waited) end_light_wait(thread, event.ts_ns);
  if (event.kind == EventKind::gil_acquire) {
    gil.advance(event.ts_ns);
    wait_behind(gil, thread, thread, event.ts_ns);
  }
  if (thread.gil != &gil) settle(thread);
  thread.gil = &gil;
  thread.light.sure = true;
}

// A wait that was going on at attach, of which no event told since, may have ended unseen. Who
// waits holds none, too: while it sleeps for gil->mutex, or is preempted.
bool Model::waits_still(Thread& thread, GilSight sight, uint64_t ts_ns) {
  if (thread.gil_state != GilState::waiting) return false;
  const bool ends_unseen =
      thread.light.by_reading && (!thread.light.knew_gil || thread.process->light_gils[1]);
  if (sight.read && (sight.holds || ends_unseen)) end_light_wait(thread, ts_ns);
  return thread.gil_state == GilState::waiting;
}

void Model::light_switch_out(Thread& thread, const Event& event) {
  const GilSight sight = gil_sight(event);
  if (!sight.read || waits_still(thread, sight, event.ts_ns)) return;
  note_sight(thread, sight);
  set_gil_state(thread, sight.holds ? GilState::holding : GilState::released, event.ts_ns);
}

void Model::light_switch_in(Thread& thread, uint64_t ts_ns) {
  settle(thread);
  if (thread.gil_state != GilState::waiting) set_gil_state(thread, GilState::unknown, ts_ns);
}

// Also of a thread that has not left its CPU: if it waits and was not woken, how it got there was
// hidden (prove_running()), and this is the first that is told of its hand-off. The kernel counts
// likewise (count_woken() in bpf/count.bpf.h).
bool Model::light_wakeup(Thread& thread, uint64_t ts_ns) {
  if (thread.gil_state != GilState::waiting || thread.light.woken_ns != 0) return false;
  thread.gil->advance(ts_ns);
  thread.gil->book(thread);
  wait_behind(thread, thread.light.behind, ts_ns);
  thread.light.woken_ns = ts_ns;
  return true;
}

void Model::light_sample(Thread& thread, const Event& event) {
  const GilSight sight = gil_sight(event);
  if (!sight.read) {  // nor may the next sample decide what this one could not
    advance(thread, event.ts_ns);
    thread.light.undecided_from = thread.matrix[kUnknown][kRunning];
    return;
  }
  if (waits_still(thread, sight, event.ts_ns)) return;
  advance(thread, event.ts_ns);
  note_sight(thread, sight);
  uint64_t& undecided = thread.matrix[kUnknown][kRunning];
  const uint64_t decided = undecided - std::min(thread.light.undecided_from, undecided);
  const GilState state = sight.holds ? GilState::holding : GilState::released;
  thread.matrix[static_cast<size_t>(state)][kRunning] += decided;
  undecided -= decided;
  settle(thread);
  set_gil_state(thread, GilState::unknown, event.ts_ns);
}

}  // namespace giltop
