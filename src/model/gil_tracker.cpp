// The GIL tracker: who waits for it, who holds it, who let it go.
#include <algorithm>

#include "model/state_inl.h"

namespace giltop {

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
    gil->assumed.reset();
  }
  if (thread.assumed != 0) confirm(thread);  // no event can prove it wrong any more
  set_gil_state(thread, GilState::unknown, ts_ns);
}

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
    contradiction(*thread.process);
    leave_gil(thread, ts_ns);
  }
  gil.advance(ts_ns);
  if (gil.known && !gil.holder) {  // it found the GIL taken: an acquire was missed
    contradiction(*thread.process);
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
  gil.add_waiter(thread, ts_ns);
}

void Model::on_gil_acquire(Thread& thread, Gil& gil, uint64_t ts_ns, Change& change) {
  gil.advance(ts_ns);
  if (gil.blamed() != &thread) gil.book_all_waiters();
  if (gil.known && gil.holder) {
    // A forked child re-creates the GIL it inherited and takes it again, with no release before.
    const bool recreated = gil.holder == &thread && thread.process->forked && gil.acquires == 0 &&
                           gil.holder->process == gil.process;
    if (!recreated) contradiction(*thread.process);
    if (gil.holder != &thread) {
      change.evicted = gil.holder;
      leave_gil(*gil.holder, ts_ns);
    }
  }
  const bool waited = thread.gil_state == GilState::waiting && thread.gil == &gil;
  if (thread.gil && !waited && thread.gil != &gil &&
      (thread.gil_state == GilState::holding || thread.gil_state == GilState::waiting)) {
    contradiction(*thread.process);
    leave_gil(thread, ts_ns);
  }
  if (waited) {
    gil.book(thread);
    gil.remove_waiter(thread);
    gil.contended++;
    thread.contended++;
    if (thread.state_since_known) {
      thread.wait.add(ts_ns - thread.state_since_ns);
      note_wait(thread, ts_ns);
    }
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
  if (gil.off || thread.process->gil_enabled != true) [[unlikely]] {
    gil.off = false;
    thread.process->gil_enabled = true;
  }
  thread.acquires++;
  gil.acquires++;
  gil.known = true;
  gil.holder = gil.last_holder = &thread;
  gil.drop_requested = false;
  gil.handoff_open = false;
}

void Model::on_gil_release(Thread& thread, Gil& gil, uint64_t ts_ns, bool off, Change& change) {
  gil.advance(ts_ns);
  if (thread.gil_state == GilState::waiting && thread.gil == &gil && gil.holder != &thread &&
      tables_->facts(thread.process->facts).free_threaded) {
    // It found the GIL switched off, which it had waited for, and goes on without (take_gil,
    // Python/ceval_gil.c, 3.13 with Py_GIL_DISABLED).
    gil.book(thread);
    gil.remove_waiter(thread);
    set_gil_state(thread, GilState::released, ts_ns);
    return;
  }
  if (gil.blamed() != &thread) gil.book_all_waiters();
  if (gil.known && gil.holder != &thread) {
    contradiction(*thread.process);
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
    contradiction(*thread.process);
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
  gil.handoff_open = !off;
  gil.handoffs++;
  if (off) {
    gil.off = true;
    thread.process->gil_enabled = false;
  }
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

}  // namespace giltop
