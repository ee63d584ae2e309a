// What was read of a process's memory at attach: taken as true until the first event of the GIL or
// the thread confirms it, or proves it wrong.
//
//     unknown ──reading──► assumed ──an event that fits──► known, and so was all since the reading
//                             └────an event that does not──► unknown, and so was all since then
//
// A reading says what is true when every event from before it on is seen: so one that comes when
// the state is known already is older than that knowledge, and ignored.
#include <algorithm>

#include "model/state_inl.h"

namespace giltop {

// False: it is of a process that is gone, or of a past with holes.
bool Model::may_read(const Event& event) {
  const auto process = by_tgid_.find(event.tgid);
  return process != by_tgid_.end() && !process->second->ended && !process->second->lost &&
         event.ts_ns >= loss_until_ns_;
}

void Model::assume(Thread& thread, GilState state, Gil* gil, uint64_t ts_ns) {
  if (gil) thread.gil = gil;
  set_gil_state(thread, state, ts_ns);
  thread.state_since_known = false;
  auto& assumed = thread.process->assumed;
  if (assumed.size() == assumed.capacity() &&
      std::none_of(assumed.begin(), assumed.end(), [](const auto& a) { return a.thread; }))
    assumed.clear();
  AssumedThread& mark = assumed.emplace_back();
  thread.assumed = static_cast<uint32_t>(assumed.size());
  mark.thread = &thread;
  mark.since_ns = ts_ns;
  mark.cells = thread.matrix[static_cast<size_t>(state)];
  mark.held_sleeps = thread.held_sleeps;
  mark.held_sleep_max_ns = thread.held_sleep_max_ns;
  if (state == GilState::waiting) mark.rows = gil->rows_of(thread);
}

void Model::on_thread_read(const Event& event, Change& change) {
  if (event.tid == 0 || !may_read(event)) return;
  Thread* const thread = find(event, change);
  if (!thread) return;
  change.thread = thread;
  change.gil_before = thread->gil_state;
  change.cpu_before = thread->cpu_state;
  if ((event.state & kReadBlocked) != 0 && thread->cpu_state == CpuState::unknown)
    set_cpu_state(*thread, CpuState::blocked, event.ts_ns);
  if (thread->gil_state == GilState::unknown) {
    if ((event.state & kReadWaiting) != 0) {
      Gil* const found = gil_of(*thread->process, event.value, event.ts_ns);
      if (!found) return;
      Gil& gil = *found;
      gil.advance(event.ts_ns);
      if (thread->process->light) {
        set_gil_state(*thread, GilState::waiting, event.ts_ns);
        thread->state_since_known = false;
        thread->gil = &gil;
        thread->light.by_reading = true;
        thread->light.knew_gil = thread->process->light_gils[0] == &gil;
        wait_behind(*thread, nullptr, event.ts_ns);
      } else {
        assume(*thread, GilState::waiting, &gil, event.ts_ns);
      }
      thread->wait_mark = gil.ledger;
      thread->wait_step_ns = event.ts_ns;
      gil.add_waiter(*thread, event.ts_ns);
      change.gil = &gil;
    } else if ((event.state & kReadReleased) != 0 && thread->process->light) {
      if (thread->cpu_state == CpuState::blocked)
        set_gil_state(*thread, GilState::released, event.ts_ns);
    } else if ((event.state & kReadReleased) != 0) {
      assume(*thread, GilState::released, nullptr, event.ts_ns);
    }
  }
  change.gil_after = thread->gil_state;
  change.cpu_after = thread->cpu_state;
}

void Model::on_gil_read(const Event& event, Change& change) {
  if (!may_read(event)) return;
  Process& process = process_of(event.tgid);
  if (event.other != 0) {
    const std::pair read(event.value, event.other - 1);
    auto& known = process.interpreters;
    if (std::find(known.begin(), known.end(), read) == known.end() && known.size() < kMostGils)
      known.push_back(read);
    for (auto& gil : process.gils)
      if (gil->address == event.value) gil->interpreter = event.other - 1;
  }
  const auto reading = static_cast<GilReading>(event.state);
  if (process.light) {
    if (reading == GilReading::disabled) process.gil_enabled = false;
    if (reading != GilReading::held && reading != GilReading::free) return;
    process.gil_enabled = true;
    Gil* const gil = gil_of(process, event.value, event.ts_ns);
    Thread* const holder = gil && event.tid != 0 ? find(event, change) : nullptr;
    if (!holder || holder->cpu_state != CpuState::blocked || holder->gil_state != GilState::unknown)
      return;
    settle(*holder);
    holder->gil = gil;
    set_gil_state(*holder, GilState::holding, event.ts_ns);
    return;
  }
  if (reading == GilReading::disabled && process.gil_events == 0) {
    process.gil_enabled = false;
    for (Thread* thread : process.alive)
      if (thread->gil_state == GilState::unknown)
        assume(*thread, GilState::released, nullptr, event.ts_ns);
  }
  const bool held = reading == GilReading::held;
  if (!held && reading != GilReading::free) return;
  process.gil_enabled = true;
  Gil* const found = gil_of(process, event.value, event.ts_ns);
  if (!found) return;
  Gil& gil = *found;
  if (gil.known) return;
  Thread* holder = nullptr;
  if (held) {
    holder = event.tid != 0 ? find(event, change) : nullptr;
    if (!holder) return;
    if (change.began) change.thread = holder;
  }
  gil.advance(event.ts_ns);
  // Whatever is known of a thread by now is from events, or from the same reading.
  const bool waited_for = std::any_of(gil.waiters.begin(), gil.waiters.end(),
                                      [](const Thread* waiter) { return waiter->assumed == 0; });
  if (held ? holder->gil_state != GilState::unknown : waited_for) {
    memory_disagreements_++;
    return;
  }
  gil.book_all_waiters();
  gil.assume(holder);
  change.gil = &gil;
  if (!holder) return;
  change.thread = holder;
  change.gil_before = holder->gil_state;
  change.cpu_before = change.cpu_after = holder->cpu_state;
  assume(*holder, GilState::holding, &gil, event.ts_ns);
  change.gil_after = holder->gil_state;
}

// A GIL event of a thread, or on a GIL, that rests on a reading.
void Model::check_reading(Thread& thread, Gil& gil, const Event& event, Change& change) {
  const bool waits = event.kind == EventKind::gil_wait;
  const bool acquires = event.kind == EventKind::gil_acquire;
  const bool releases = event.kind == EventKind::gil_release;
  bool thread_wrong = false, gil_wrong = false;
  Gil* also_wrong = nullptr;  // that the thread was thought to hold
  if (thread.assumed != 0) {
    const bool same = thread.gil == &gil;
    switch (thread.gil_state) {
      case GilState::holding:
        thread_wrong = !(same && releases);
        if (thread_wrong && !same) also_wrong = thread.gil;
        break;
      case GilState::waiting:
        thread_wrong = !(same && (waits || acquires));
        break;
      default:
        thread_wrong = releases;
        break;
    }
  }
  if (gil.assumed) {
    if (gil.holder) {
      // Another's wait fits whoever holds it, and its forced switch a release before the reading.
      const bool own = gil.holder == &thread;
      gil_wrong = acquires || own != releases;
      if (own && releases) gil.assumed.reset();
    } else {
      gil_wrong = waits || releases;
      if (acquires) gil.assumed.reset();
    }
  }
  if (thread.assumed != 0 && !thread_wrong) confirm(thread);
  if (!thread_wrong && !gil_wrong) return;
  memory_disagreements_++;
  change.disproved = true;
  change.self_disproved = thread_wrong;
  if (gil_wrong) disprove(gil, event.ts_ns);
  if (also_wrong && also_wrong->assumed) disprove(*also_wrong, event.ts_ns);
  if (thread.assumed != 0) disprove(thread, event.ts_ns);
}

void Model::confirm(Thread& thread) {
  thread.process->assumed[thread.assumed - 1].thread = nullptr;
  thread.assumed = 0;
}

void Model::disprove(Thread& thread, uint64_t ts_ns) {
  const AssumedThread& mark = thread.process->assumed[thread.assumed - 1];
  const GilState state = thread.gil_state;
  if (state == GilState::waiting) {
    Gil& gil = *thread.gil;
    gil.advance(ts_ns);
    gil.book(thread);
    gil.unbook(thread, mark.rows);
    gil.remove_waiter(thread);
  }
  advance(thread, ts_ns);
  auto& booked = thread.matrix[static_cast<size_t>(state)];
  auto& right = thread.matrix[static_cast<size_t>(GilState::unknown)];
  for (size_t c = 0; c < booked.size(); c++) right[c] += booked[c] - mark.cells[c];
  booked = mark.cells;
  // What its next switch may move is in the other row now.
  if (thread.run_gil_state == state && thread.switch_in_ns >= mark.since_ns)
    thread.run_gil_state = GilState::unknown;
  if (thread.inferred.gil_state == state && thread.inferred.from_ns >= mark.since_ns)
    thread.inferred.gil_state = GilState::unknown;
  thread.held_sleeps = mark.held_sleeps;
  thread.held_sleep_max_ns = mark.held_sleep_max_ns;
  thread.recent_held_sleep_max_ns =
      std::min(thread.recent_held_sleep_max_ns, thread.held_sleep_max_ns);
  confirm(thread);
  set_gil_state(thread, GilState::unknown, ts_ns);
}

// Who was thought to do without a GIL may have been its holder.
void Model::disprove(Gil& gil, uint64_t ts_ns) {
  gil.advance(ts_ns);
  gil.book_all_waiters();
  auto& assumed = gil.process->assumed;
  for (size_t i = 0; i < assumed.size(); i++) {
    Thread* const thread = assumed[i].thread;
    if (thread && (thread->gil == &gil || thread->gil_state == GilState::released))
      disprove(*thread, ts_ns);
  }
  gil.disprove(ts_ns);
}

}  // namespace giltop
