#include "sink/trace_writer.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "sink/trace_format.h"

namespace giltop {

using namespace trace;

namespace {

uint32_t task_state_of(const Event& event) {
  switch (task_state(event)) {
    case TaskState::runnable:
      return task::kRunnable;
    case TaskState::interruptible:
      return task::kInterruptible;
    case TaskState::uninterruptible:
      return task::kUninterruptible;
    case TaskState::stopped:
      return task::kStopped;
    case TaskState::dead:
      break;
  }
  return task::kDead;
}

// Unique in a trace: each GIL numbers its own hand-offs.
uint64_t flow_of(const Gil& gil) { return gil.number << 40 | gil.handoffs; }

}  // namespace

TraceWriter::TraceWriter(const EventTables& tables, BlockSink block)
    : TracePackets(std::move(block)), tables_(tables) {}

// --- the run -------------------------------------------------------------------------------------

void TraceWriter::start(const SystemFacts& system, const ClockReading& clocks,
                        const RunFacts& run) {
  ProtoBuffer uts;
  uts.bytes(system_info::kSysname, system.sysname);
  uts.bytes(system_info::kVersion, system.version);
  uts.bytes(system_info::kRelease, system.release);
  uts.bytes(system_info::kMachine, system.machine);
  ProtoBuffer info;
  info.bytes(system_info::kUtsname, uts.data());
  info.field(system_info::kCpus, system.cpus);
  ProtoBuffer body;
  body.bytes(packet::kSystemInfo, info.data());
  raw_packet(body.data());

  begin_sequence(clocks.boottime_ns, &clocks, true);
  attributes({{"giltop.version", run.version}, {"giltop.mode", run.mode}});
  ProtoBuffer root;
  root.field(track::kUuid, kRootTrack);
  root.bytes(track::kName, kRootTrackName);
  root.bytes(track::kDescription, "What has no picture: the run, processes, losses");
  packet(clocks.boottime_ns, packet::kTrackDescriptor, root.data());
  run_facts(clocks.boottime_ns, run);
}

// All of them once, then what has changed.
void TraceWriter::run_facts(uint64_t ts_ns, const RunFacts& run) {
  const std::optional<RunFacts> told = std::exchange(told_run_, run);
  // The first by its name in full, whatever the ids of names are to who reads it.
  if (told) {
    root_begin(kNameRun);
  } else {
    root_begin(kFixedNames[kNameRun - 1]);
  }
  const auto number = [&](uint8_t name, uint64_t RunFacts::*fact) {
    if (!told || run.*fact != (*told).*fact) note(name, run.*fact);
  };
  const auto text = [&](std::string_view name, std::string RunFacts::*fact) {
    if (!told || run.*fact != (*told).*fact) note(name, run.*fact);
  };
  if (!told) note("format", kFormat);
  text("version", &RunFacts::version);
  text("kernel", &RunFacts::kernel);
  text("mode", &RunFacts::mode);
  if (!told || run.cpus != told->cpus) note("cpus", run.cpus);
  number(kArgEvents, &RunFacts::events);
  number(kArgProbeHits, &RunFacts::probe_hits);
  number(kArgOtherProbeHits, &RunFacts::other_probe_hits);
  number(kArgProbeCost, &RunFacts::probe_cost_ns);
  number(kArgOwnCpu, &RunFacts::own_cpu_ns);
  if (run.finished) note("finished", run.finished);
  root_end(ts_ns);
}

void TraceWriter::finish(uint64_t ts_ns, const RunFacts& run) {
  draw_late(ts_ns);
  for (ThreadTrack& shown : threads_)
    if (shown.uuid != 0) close_slice(shown, ts_ns);
  for (GilTracks& tracks : gils_) {
    if (tracks.owner_open) slice_end(ts_ns, tracks.owner, 0, true);
    tracks.owner_open = false;
  }
  root_begin(kEnd);
  root_end(ts_ns);
  run_facts(ts_ns, run);
  attributes({{"giltop.mode", run.mode},
              {"giltop.events", {}, run.events},
              {"giltop.lost_events", {}, lost_events_},
              {"giltop.probe_hits", {}, run.probe_hits},
              {"giltop.probe_cost_ns", {}, run.probe_cost_ns}});
  if (has_unwritten_clocks()) write_clocks();
  flush();
}

// --- events --------------------------------------------------------------------------------------

void TraceWriter::write(const Event& event, const Change& change) {
  if (!late_ends_.empty() || !late_offs_.empty()) [[unlikely]]
    draw_late(event.ts_ns);
  switch (event.kind) {
    case EventKind::gil_wait:
    case EventKind::gil_acquire:
    case EventKind::gil_release:
    case EventKind::gil_forced:
      if (change.gil) {
        write_gil(event, change);
      } else if (change.thread) {
        track_of(*change.thread, event.ts_ns);
        write_raw(event);
      }
      break;
    case EventKind::switch_out:
    case EventKind::switch_in:
    case EventKind::wakeup:
      if (change.thread) write_sched(event, change);
      break;
    case EventKind::loss:
      write_loss(event);
      break;
    case EventKind::end:
      break;
    case EventKind::sample:
      if (change.thread) write_light(event, change);
      break;
    case EventKind::mode:
    case EventKind::light_gil:
      write_raw(event);
      break;
    case EventKind::gil_read:
    case EventKind::thread_read:
      write_reading(event, change);
      break;
    default:
      write_life(event, change);
      break;
  }
}

void TraceWriter::close_slice(ThreadTrack& shown, uint64_t ts_ns) {
  if (shown.open == Open::none) return;
  slice_end(ts_ns, shown.open_uuid, 0, true);
  shown.open = Open::none;
  shown.open_read = false;
}

void TraceWriter::end_wait(ThreadTrack& shown, const Thread& thread, uint64_t ts_ns, bool cut) {
  std::array<Argument, 6> arguments;
  size_t count = 0;
  const auto add = [&](uint8_t name, uint64_t value) {
    if (value != 0) arguments[count++] = {name, value};
  };
  const Ledger parts = thread.wait_parts();
  const auto part = [&](LedgerColumn column) { return parts[static_cast<size_t>(column)]; };
  add(kArgHolder, thread.wait_so_far.holder_tid().value_or(0));
  add(kArgPreempted, part(LedgerColumn::runnable));
  add(kArgAsleep, part(LedgerColumn::blocked));
  // In light mode the rest is not told apart so well that it would be worth its bytes.
  if (!thread.process->light) {
    add(kArgRunning, part(LedgerColumn::running));
    add(kArgHandoff, part(LedgerColumn::handoff));
    add(kArgUnknown,
        part(LedgerColumn::unknown) + part(LedgerColumn::idle) + part(LedgerColumn::off));
  }
  slice_end(ts_ns, shown.open_uuid, 0, cut, std::span(arguments.data(), count));
  shown.open = Open::none;
  shown.open_read = false;
}

// `thread` has let go: of its own accord, or because a waiter asked.
void TraceWriter::end_held(ThreadTrack& shown, const Thread& thread, uint64_t ts_ns,
                           uint64_t flow) {
  std::array<Argument, 3> arguments{{{kArgForced, thread.last_release_forced, true}}};
  size_t count = 1;
  const auto off_cpu = [&](uint8_t name, CpuState state) {
    const auto i = static_cast<size_t>(state);
    const uint64_t now = thread.matrix[static_cast<size_t>(GilState::holding)][i];
    if (now > shown.held_before[i]) arguments[count++] = {name, now - shown.held_before[i]};
  };
  off_cpu(kArgHeldPreempted, CpuState::runnable);
  off_cpu(kArgHeldAsleep, CpuState::blocked);
  slice_end(ts_ns, shown.open_uuid, flow, false, std::span(arguments.data(), count));
  shown.open = Open::none;
}

void TraceWriter::owner_close(const Gil& gil, uint64_t ts_ns) {
  GilTracks& tracks = gil_tracks(gil, ts_ns);
  if (!tracks.owner_open) return;
  slice_end(ts_ns, tracks.owner, 0, false);
  tracks.owner_open = false;
}

void TraceWriter::show_waiters(const Gil& gil, uint64_t ts_ns) {
  GilTracks& tracks = gil_tracks(gil, ts_ns);
  if (tracks.shown_waiters == gil.waiters.size()) return;
  tracks.shown_waiters = gil.waiters.size();
  counter(ts_ns, tracks.waiters, tracks.shown_waiters);
}

void TraceWriter::write_gil(const Event& event, const Change& change) {
  if (change.thread->process->light) {
    write_light(event, change);
    return;
  }
  const Gil& gil = *change.gil;
  const uint64_t ts = event.ts_ns;
  track_of(*change.thread, ts);
  if (change.evicted) close_slice(track_of(*change.evicted, ts), ts);
  if (change.disproved) close_disproved(change, ts);
  ThreadTrack& shown = track_of(*change.thread, ts);
  shown.open_read = false;
  const bool same = shown.open != Open::none && shown.open_gil == &gil;
  const auto open = [&](Open kind, uint64_t uuid) {
    shown.open = kind;
    shown.open_gil = &gil;
    shown.open_uuid = uuid;
  };
  switch (event.kind) {
    case EventKind::gil_wait: {
      if (same && shown.open == Open::wait) {
        instant(ts, shown.open_uuid, kNameWaitsOn);
        return;
      }
      if (shown.open == Open::held) owner_close(*shown.open_gil, ts);
      close_slice(shown, ts);
      const uint64_t uuid = gil_track(shown, gil, ts);
      slice_begin(ts, uuid, kNameWait);
      open(Open::wait, uuid);
      show_waiters(gil, ts);
      return;
    }
    case EventKind::gil_acquire: {
      const uint64_t uuid = gil_track(shown, gil, ts);
      if (same && shown.open == Open::wait) {
        end_wait(shown, *change.thread, ts, false);
      } else {
        if (shown.open == Open::held && !same) owner_close(*shown.open_gil, ts);
        close_slice(shown, ts);
      }
      owner_close(gil, ts);
      const Argument contended{kArgContended, change.gil_before == GilState::waiting, true};
      slice_begin(ts, uuid, kNameHeld, change.handoff ? flow_of(gil) : 0, std::span(&contended, 1));
      open(Open::held, uuid);
      shown.held_before = change.thread->matrix[static_cast<size_t>(GilState::holding)];
      GilTracks& tracks = gil_tracks(gil, ts);
      slice_begin(ts, tracks.owner, name_of(shown, ts));
      tracks.owner_open = true;
      show_waiters(gil, ts);
      return;
    }
    case EventKind::gil_release: {
      if (event.state != 0) {  // it was switched off
        close_slice(shown, ts);
        owner_close(gil, ts);
        show_waiters(gil, ts);
        write_raw(event);
        return;
      }
      const uint64_t flow = gil.waiters.empty() ? 0 : flow_of(gil);
      if (same && shown.open == Open::held) {
        end_held(shown, *change.thread, ts, flow);
      } else {
        close_slice(shown, ts);
        instant(ts, gil_track(shown, gil, ts), kNameReleased, flow);
      }
      if (!gil.holder) owner_close(gil, ts);
      show_waiters(gil, ts);
      return;
    }
    default:
      instant(ts, gil_track(shown, gil, ts), kNameForced);
      return;
  }
}

// What of a CPU's time went to no task: only when it grew.
void TraceWriter::show_uncharged(const Event& event) {
  if (at(cpu_uncharged_, event.cpu) == event.value) return;
  cpu_uncharged_[event.cpu] = event.value;
  counter(event.ts_ns, stolen_track(event.cpu, event.ts_ns), event.value);
}

// Whom the importer takes to run on `cpu`; null: nobody that is known.
TraceWriter::ThreadTrack* TraceWriter::runs_on(uint16_t cpu) {
  const uint64_t number = at(cpu_runs_, cpu);
  if (number == 0) return nullptr;
  ThreadTrack& shown = threads_[at(cpu_threads_, cpu)];
  return shown.number == number ? &shown : nullptr;
}

// False: the importer would refuse it. It takes one state of a thread a moment, and of whoever was
// on a CPU a run there begins another: unknown.
bool TraceWriter::draw_task(ThreadTrack& shown, uint64_t ts_ns, int cpu, uint32_t state,
                            const OfSwitch& of_switch) {
  if (shown.state_ns == ts_ns) return false;
  const auto on = static_cast<uint16_t>(std::max(cpu, 0));  // none is CPU 0 to the importer
  ThreadTrack* const before = runs_on(on);
  if (state == task::kRunning) {
    if (shown.task_state == task::kRunning || before == &shown) return false;
    if (before) {
      if (before->state_ns == ts_ns) return false;
      before->task_state = 0;
      before->state_ns = ts_ns;
    }
    at(cpu_runs_, on) = shown.number;
    at(cpu_threads_, on) = static_cast<uint32_t>(&shown - threads_.data());
    shown.cpu = on;
  } else if (before == &shown) {
    at(cpu_runs_, on) = 0;
  }
  task_state(ts_ns, cpu, shown.tid, state, of_switch);
  shown.task_state = static_cast<uint8_t>(state);
  shown.state_ns = ts_ns;
  return true;
}

void TraceWriter::write_sched(const Event& event, const Change& change) {
  ThreadTrack& shown = track_of(*change.thread, event.ts_ns);
  if (event.kind == EventKind::wakeup) {
    if (!change.woke) return;
    const bool drawn =
        change.cpu_after != change.cpu_before && draw_task(shown, event.ts_ns, -1, task::kRunnable);
    if (!drawn) write_raw(event);
    return;
  }
  show_uncharged(event);
  if (event.kind == EventKind::switch_in) {
    if (!draw_task(shown, event.ts_ns, event.cpu, task::kRunning)) write_raw(event);
    return;
  }
  const uint32_t state = task_state_of(event);
  const bool light = change.thread->process->light;
  if (light) show_light(event, change);
  if (state == task::kDead) {
    write_raw(event);  // its exit event was lost: the end is not drawn by the scheduler's word
    end_track(shown, event.ts_ns, false);
    return;
  }
  OfSwitch of_switch;
  if (light) of_switch.sight = event.state & kSightBits;
  if (change.told_apart) {
    of_switch.ran_ns = event.other;
  } else {
    of_switch.lead_ns = change.lead_ns;
  }
  if (!draw_task(shown, event.ts_ns, event.cpu, state, of_switch)) write_raw(event);
}

// The importer forgets a thread at DESTROYED; for a main thread that would end the process, so that
// one is only DEAD.
void TraceWriter::end_track(ThreadTrack& shown, uint64_t ts_ns, bool exec) {
  if (shown.ended) return;
  close_track(shown, ts_ns);
  const bool main = shown.tid == shown.tgid;
  const int cpu = shown.task_state == task::kRunning ? shown.cpu : -1;
  const uint32_t state = main || exec ? task::kDead : task::kDestroyed;
  if (shown.state_ns != ts_ns) {
    shown.state_ns = ts_ns;
    draw_end({shown.number, shown.tid, state, cpu, shown.task_state}, ts_ns);
    return;
  }
  late_ends_.push_back({shown.number, shown.tid, state, cpu, shown.task_state});
  late_ns_ = ts_ns;
}

void TraceWriter::draw_late(uint64_t ts_ns) {
  if (ts_ns <= late_ns_) return;
  for (const End& end : late_ends_) draw_end(end, ts_ns);
  late_ends_.clear();
  for (const Off& off : late_offs_)
    if (at(cpu_runs_, off.cpu) == off.number) draw_off(off, ts_ns);
  late_offs_.clear();
}

void TraceWriter::draw_end(const End& end, uint64_t ts_ns) {
  task_state(ts_ns, end.cpu, end.tid, end.state);
  uint64_t& runs = at(cpu_runs_, static_cast<size_t>(std::max(end.cpu, 0)));
  if (runs == end.number) runs = 0;
}

void TraceWriter::close_track(ThreadTrack& shown, uint64_t ts_ns) {
  if (shown.open_gil) {
    const bool held = shown.open == Open::held;
    close_slice(shown, ts_ns);
    if (held) owner_close(*shown.open_gil, ts_ns);
    show_waiters(*shown.open_gil, ts_ns);
  }
  shown.ended = true;
  shown.gils.clear();
  shown.gils.shrink_to_fit();
  by_tid_.erase(shown.tid);
}

void TraceWriter::write_life(const Event& event, const Change& change) {
  const uint64_t ts = event.ts_ns;
  if (change.ended) {
    for (const Thread* thread : change.ended->threads) {
      if (change.thread == thread) continue;
      if (ThreadTrack* const shown = drawn(*thread))
        end_track(*shown, ts, event.kind == EventKind::exec);
    }
  }
  if (event.kind == EventKind::process) {
    const ProcessFacts& facts = tables_.facts(event.other);
    if (change.thread) {
      process_uuid(*change.thread->process, ts);
      describe_process(*change.thread->process, ts);
    }
    root_begin(kProcess);
    note("pid", event.tgid);
    note("comm", facts.comm);
    note("cmdline", facts.cmdline);
    note("python", facts.python);
    note("build_id", facts.build_id);
    note("free_threaded", facts.free_threaded);
    note("late", facts.late);
    root_end(ts);
    return;
  }
  // An exit may end its process though its thread was never heard of.
  if (!change.thread && !change.ended) return;
  if (change.thread) {
    ThreadTrack& shown = track_of(*change.thread, ts);
    if (shown.comm != change.thread->comm) rename(shown, *change.thread, ts);
  }
  const char* name = nullptr;
  switch (event.kind) {
    case EventKind::fork:
      name = kFork;
      break;
    case EventKind::exec:
      name = kExec;
      break;
    case EventKind::exit:
      name = kExit;
      break;
    case EventKind::thread_seen:
      name = kSeen;
      break;
    case EventKind::ns_id:
      name = kNsId;
      break;
    default:
      name = kRename;
      break;
  }
  root_begin(name);
  note("pid", event.tgid);
  note("tid", event.tid);
  if (event.kind == EventKind::ns_id) {
    note("ns_tid", event.other);
  } else {
    note("comm", tables_.text(event.other));
  }
  if (event.kind == EventKind::fork) {
    note("parent_pid", event.value >> 32);
    note("parent_tid", event.value & 0xffffffffu);
  }
  if (event.kind == EventKind::exec) note("cpu", event.cpu);
  if (event.kind == EventKind::exit) note("last", event.state);
  root_end(ts);

  if (!change.thread) return;
  ThreadTrack& shown = track_of(*change.thread, ts);
  if (event.kind == EventKind::exit) {
    end_track(shown, ts, false);
  } else if (event.kind == EventKind::fork && change.thread->cpu_state == CpuState::runnable) {
    draw_task(shown, ts, -1, task::kRunnable);
    // A forked child has the GIL that its parent had, until it makes it anew.
    if (change.thread->gil_state == GilState::holding && !change.thread->process->light)
      draw_state(shown, *change.thread->gil, true, ts);
  } else if (event.kind == EventKind::exec && change.thread->cpu_state == CpuState::running) {
    draw_task(shown, ts, event.cpu, task::kRunning);
    shown.state_ns = ts;  // the reader takes no other state of this moment
  }
}

// Only the idle task's arrival can take a thread off its CPU without a word on how it left.
void TraceWriter::draw_off(const Off& off, uint64_t ts_ns) {
  task_state(ts_ns, off.cpu, 0, task::kRunning);
  at(cpu_runs_, off.cpu) = 0;
  const auto found = by_tid_.find(off.tid);
  if (found == by_tid_.end()) return;
  ThreadTrack& shown = threads_[found->second];
  shown.task_state = 0;
  shown.state_ns = ts_ns;
}

void TraceWriter::write_loss(const Event& event) {
  const uint64_t ts = event.ts_ns;
  for (ThreadTrack& shown : threads_) {
    if (shown.uuid == 0 || shown.ended) continue;
    close_slice(shown, ts);
    if (shown.task_state != task::kRunning) {
      shown.task_state = 0;
    } else if (shown.state_ns != ts) {
      draw_off({shown.number, shown.tid, shown.cpu}, ts);
    } else {
      late_offs_.push_back({shown.number, shown.tid, shown.cpu});
      late_ns_ = ts;
    }
  }
  for (GilTracks& tracks : gils_) {
    if (tracks.owner_open) slice_end(ts, tracks.owner, 0, true);
    tracks.owner_open = false;
    if (tracks.shown_waiters != 0) counter(ts, tracks.waiters, 0);
    tracks.shown_waiters = 0;
  }
  begin_sequence(ts, nullptr, false);
  lost_events_ += event.other;
  root_begin(kLost);
  note("kind", kRecordKinds[std::min<size_t>(event.state, kRecordKinds.size() - 1)]);
  note("count", event.other);
  note(kUntil, event.value);
  root_end(ts);
}

// An event as bare numbers: those that are not 0. A switch's CPU has its value drawn already.
void TraceWriter::write_raw(const Event& event) {
  const bool drawn = (event.kind == EventKind::switch_out || event.kind == EventKind::switch_in) &&
                     at(cpu_uncharged_, event.cpu) == event.value;
  std::array<Argument, 7> arguments{
      {{kArgKind, static_cast<uint64_t>(event.kind)}, {kArgPid, event.tgid}, {kArgTid, event.tid}}};
  size_t count = 3;
  const auto add = [&](uint8_t name, uint64_t value) { arguments[count++] = {name, value}; };
  if (event.cpu != 0) add(kArgCpu, event.cpu);
  if (event.state != 0) add(kArgState, event.state);
  if (!drawn) add(kArgValue, event.value);
  if (event.other != 0) add(kArgOther, event.other);
  instant(event.ts_ns, kRootTrack, kNameRaw, 0, std::span(arguments.data(), count));
}

}  // namespace giltop
