// What was read of a process, and no event: its GILs at attach, and in light mode. The trace has it
// in numbers, for the reader, and a picture of what it lets suppose.
#include "sink/trace_format.h"
#include "sink/trace_writer.h"

namespace giltop {

using namespace trace;

// --- at attach -----------------------------------------------------------------------------------

// What was assumed from here on is drawn as if it had begun here.
void TraceWriter::write_reading(const Event& event, const Change& change) {
  const uint64_t ts = event.ts_ns;
  const bool of_gil = event.kind == EventKind::gil_read;
  if (change.thread) track_of(*change.thread, ts);
  root_begin(of_gil ? kGilRead : kThreadRead);
  note("pid", event.tgid);
  note("tid", event.tid);
  note("gil", event.value);
  note("state", event.state);
  note(of_gil ? "interpreter" : "cpu", of_gil ? event.other : event.cpu);
  root_end(ts);
  if (change.thread && change.cpu_after == CpuState::blocked &&
      change.cpu_before != CpuState::blocked)
    draw_task(track_of(*change.thread, ts), ts, event.cpu, task::kInterruptible);
  // The reader takes no other state of this moment, whether that one was drawn or not.
  if (!of_gil && (event.state & kReadBlocked) != 0)
    if (const auto read = by_tid_.find(event.tid); read != by_tid_.end())
      threads_[read->second].state_ns = ts;
  if (!change.thread) return;
  ThreadTrack& shown = track_of(*change.thread, ts);
  if (!change.gil || change.gil_after == change.gil_before) return;
  draw_released(shown, ts);
  close_slice(shown, ts);
  draw_state(shown, *change.gil, change.gil_after == GilState::holding, ts);
  shown.open_read = true;
}

// A hold or a wait that no event began.
void TraceWriter::draw_state(ThreadTrack& shown, const Gil& gil, bool held, uint64_t ts_ns) {
  shown.open_uuid = gil_track(shown, gil, ts_ns);
  shown.open_gil = &gil;
  shown.open = held ? Open::held : Open::wait;
  slice_begin(ts_ns, shown.open_uuid, held ? kNameHeldRead : kNameWaitRead);
  show_waiters(gil, ts_ns);
  if (!held) return;
  GilTracks& tracks = gil_tracks(gil, ts_ns);
  slice_begin(ts_ns, tracks.owner, name_of(shown, ts_ns));
  tracks.owner_open = true;
}

// Slices that rested on a reading which this event proved wrong.
void TraceWriter::close_disproved(const Change& change, uint64_t ts_ns) {
  for (const Thread* thread : change.thread->process->threads) {
    ThreadTrack* const shown = drawn(*thread);
    if (!shown || !shown->open_read || thread->assumed != 0) continue;
    if (thread == change.thread && !change.self_disproved) continue;
    const bool held = shown->open == Open::held;
    close_slice(*shown, ts_ns);
    if (held) owner_close(*shown->open_gil, ts_ns);
    show_waiters(*shown->open_gil, ts_ns);
  }
}

// --- light mode ----------------------------------------------------------------------------------

// Light mode: the events as they are, and a picture of what they let suppose: one that took the
// GIL, or was seen with it, holds it until it is seen without, or another with it, or it cannot be
// told.
void TraceWriter::write_light(const Event& event, const Change& change) {
  track_of(*change.thread, event.ts_ns);
  if (event.kind == EventKind::sample) {
    tell_sample(event);
  } else {
    tell_light(event, *change.gil, track_of(*change.thread, event.ts_ns));
  }
  show_light(event, change);
}

void TraceWriter::tell_sample(const Event& event) {
  const GilSight sight = gil_sight(event);
  const Argument tid{kArgTid, event.tid};
  const uint64_t name = !sight.read    ? kNameSample
                        : !sight.holds ? kNameSampleNoGil
                                       : kNameSampleGilOfSlot + sight.slot;
  instant(event.ts_ns, kRootTrack, name, 0, std::span(&tid, 1));
}

void TraceWriter::tell_light(const Event& event, const Gil& gil, ThreadTrack& shown) {
  const uint64_t ts = event.ts_ns;
  if (event.kind == EventKind::gil_wait && event.state == 0) {
    const Argument holder{kArgHolderId, event.other};
    instant(ts, gil_track(shown, gil, ts), kNameWaitsOn, 0,
            std::span(&holder, event.other != 0 ? 1 : 0));
  } else if (event.kind == EventKind::gil_acquire) {
    instant(ts, gil_track(shown, gil, ts), kNameAcquired);
  } else if (event.kind == EventKind::gil_release && event.state == 0) {
    instant(ts, gil_track(shown, gil, ts), kNameReleased);
  } else {
    write_raw(event);
  }
}

void TraceWriter::show_light(const Event& event, const Change& change) {
  const Thread& thread = *change.thread;
  const uint64_t ts = event.ts_ns;
  if (change.behind) draw_held(*change.behind, *change.gil, ts);
  ThreadTrack& shown = track_of(thread, ts);
  if (thread.gil_state == GilState::waiting) {
    if (shown.open == Open::wait && shown.open_gil == thread.gil) return;
    draw_released(shown, ts);
    close_slice(shown, ts);
    draw_state(shown, *thread.gil, false, ts);
    return;
  }
  if (shown.open == Open::wait) {
    // By an event of its own; else it is not told what it was.
    if (change.gil_before == GilState::waiting && thread.gil == shown.open_gil) {
      end_wait(shown, thread, ts, true);
    } else {
      close_slice(shown, ts);
    }
    show_waiters(*shown.open_gil, ts);
  }
  const bool sighted = event.kind == EventKind::sample || event.kind == EventKind::switch_out;
  const GilSight sight = gil_sight(event);
  if (event.kind == EventKind::gil_acquire || (sighted && sight.read && sight.holds)) {
    if (thread.gil) draw_held(thread, *thread.gil, ts);
  } else if (event.kind == EventKind::gil_release ||
             (sighted && (sight.read || thread.gil_state == GilState::unknown))) {
    draw_released(shown, ts);
  }
}

void TraceWriter::draw_held(const Thread& thread, const Gil& gil, uint64_t ts_ns) {
  ThreadTrack& shown = track_of(thread, ts_ns);
  if (shown.open == Open::held && shown.open_gil == &gil) return;
  if (shown.open == Open::wait) return;  // what was glimpsed is over
  draw_released(shown, ts_ns);
  GilTracks& tracks = gil_tracks(gil, ts_ns);
  if (tracks.owner_open) {  // whoever it was, it is no more
    for (const Thread* other : gil.process->alive) {
      ThreadTrack* const before = drawn(*other);
      if (before && before->open == Open::held && before->open_gil == &gil)
        close_slice(*before, ts_ns);
    }
    owner_close(gil, ts_ns);
  }
  draw_state(shown, gil, true, ts_ns);
}

void TraceWriter::draw_released(ThreadTrack& shown, uint64_t ts_ns) {
  if (shown.open != Open::held) return;
  close_slice(shown, ts_ns);
  owner_close(*shown.open_gil, ts_ns);
}

}  // namespace giltop
