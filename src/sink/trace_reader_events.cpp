// What the packets of a recording say: events, as the tracks that they are on and their names tell.
#include <algorithm>
#include <optional>
#include <utility>

#include "sink/trace_reader_impl.h"

namespace giltop {

using namespace trace;

namespace {

constexpr size_t kMaxName = 256;            // bytes of a comm, version or build-id
constexpr size_t kMaxCmdline = 256 * 1024;  // 64 KB, all of it escaped

}  // namespace

void TraceReader::track_event(std::string_view data) {
  pbf_reader reader = reader_of(data);
  uint64_t type = 0, uuid = 0, name_id = 0, value = 0;
  std::string_view name;
  Annotations notes;
  while (reader.next()) {
    switch (reader.tag()) {
      case event::kType:
        type = number_of(reader);
        break;
      case event::kTrack:
        uuid = number_of(reader);
        break;
      case event::kNameId:
        name_id = number_of(reader);
        break;
      case event::kCounterValue:
        value = number_of(reader);
        break;
      case event::kName:
        name = view_of(reader);
        break;
      case event::kAnnotation: {
        pbf_reader a = message_of(reader);
        Annotations::Entry entry;
        while (a.next()) {
          switch (a.tag()) {
            case annotation::kName:
              entry.name = view_of(a);
              break;
            case annotation::kNameId:
              if (const uint64_t id = number_of(a);
                  id >= kArgKind && id <= std::size(kArgumentNames))
                entry.name = kArgumentNames[id - 1];
              break;
            case annotation::kString:
              entry.text = view_of(a);
              break;
            case annotation::kUint:
              entry.number = number_of(a);
              break;
            default:
              a.skip();
          }
        }
        // What has none is for whoever looks at the slice, and nothing to us.
        if (!entry.name.empty()) notes.entries.push_back(entry);
        break;
      }
      default:
        reader.skip();
    }
  }
  Track& on = track(uuid);
  if (on.kind == TrackKind::root) {
    if (type != event::kInstant) return;
    if (name_id == kNameNoGil) {
      sight_ = kSightRead;
    } else if (name_id >= kNameGilOfSlot && name_id < kNameGilOfSlot + kSlots) {
      sight_ = static_cast<uint8_t>(kSightRead | kSightMine |
                                    (name_id - kNameGilOfSlot) << kSightSlotShift);
    } else if (name_id >= kNameSample && name_id < kNameSampleGilOfSlot + kSlots) {
      sample(name_id, notes);
    } else {
      const bool is_interned = name_id == kNameRaw || name_id == kNameRun;
      root_instant(is_interned ? kFixedNames[name_id - 1] : name, notes);
    }
    return;
  }
  if (on.kind == TrackKind::stolen) {
    if (type == event::kCounter) cpu_uncharged_[on.cpu] = value;
    return;
  }
  if (on.kind == TrackKind::lead) {
    if (type == event::kCounter) set_lead(static_cast<int64_t>(value));
    return;
  }
  if (on.kind != TrackKind::gil) return;
  Event e;
  e.tgid = on.tgid;
  e.tid = on.tid;
  e.value = on.gil;
  if (type == event::kBegin) {
    // Of one that was read the beginning is no event, but its end may be.
    if (name_id == kNameWaitRead || name_id == kNameHeldRead)
      on.open = name_id == kNameHeldRead ? kNameHeld : kNameWait;
    if (name_id != kNameWait && name_id != kNameHeld) return;
    on.open = static_cast<uint8_t>(name_id);
    e.kind = name_id == kNameWait ? EventKind::gil_wait : EventKind::gil_acquire;
  } else if (type == event::kEnd) {
    const bool released = on.open == kNameHeld && !notes.has(kArgumentNames[kArgCut - 1]);
    on.open = 0;
    if (!released) return;
    e.kind = EventKind::gil_release;
  } else if (type == event::kInstant && name_id == kNameReleased) {
    e.kind = EventKind::gil_release;
  } else if (type == event::kInstant && name_id == kNameForced) {
    e.kind = EventKind::gil_forced;
  } else if (type == event::kInstant && name_id == kNameWaitsOn) {
    e.kind = EventKind::gil_wait;
    e.other = static_cast<uint32_t>(notes.number(kArgumentNames[kArgHolderId - 1]));
  } else if (type == event::kInstant && name_id == kNameAcquired) {
    e.kind = EventKind::gil_acquire;
  } else {
    return;
  }
  emit(e);
}

void TraceReader::set_lead(int64_t ns) {
  constexpr auto kMost = static_cast<int64_t>(kMaxLength_ns);
  if (ns < -kMost || ns > kMost) throw Damaged{"a run of impossible length"};
  lead_ns_ = ns;
}

void TraceReader::task_state(std::string_view data) {
  pbf_reader reader = reader_of(data);
  uint64_t cpu = 0, tid = 0, state = 0;
  bool has_cpu = false;
  std::optional<uint32_t> ran_ns;
  while (reader.next()) {
    switch (reader.tag()) {
      case task::kCpu:
        cpu = number_of(reader);
        has_cpu = true;
        break;
      case task::kTid:
        tid = number_of(reader);
        break;
      case task::kState:
        state = number_of(reader);
        break;
      case task::kSight:
        sight_ = static_cast<uint8_t>(number_of(reader) & kSightBits);
        break;
      case task::kRan:
        ran_ns = static_cast<uint32_t>(number_of(reader));
        break;
      case task::kLead: {
        const uint64_t zigzag = number_of(reader);
        set_lead(static_cast<int64_t>(zigzag >> 1 ^ (~(zigzag & 1) + 1)));
        break;
      }
      default:
        reader.skip();
    }
  }
  if (tid > kMaxTid || cpu >= kMaxCpus) throw Damaged{"a task state out of range"};
  if (tid == 0) return;  // the idle task, drawn at a loss
  Task* const known = task(static_cast<uint32_t>(tid));
  if (!known) throw Damaged{"a task state of a thread that was never named"};
  if (state == task::kDead || state == task::kDestroyed) {
    end_thread(static_cast<uint32_t>(tid));
    return;
  }
  if (known->drawn_ns == now_ns_) return;  // drawn for an event that was told apart
  Event e;
  e.tid = static_cast<uint32_t>(tid);
  e.tgid = known->tgid;
  e.cpu = static_cast<uint16_t>(cpu);
  e.value = has_cpu && cpu < cpu_uncharged_.size() ? cpu_uncharged_[cpu] : 0;
  switch (state) {
    case task::kRunning:
      e.kind = EventKind::switch_in;
      known->running_ns = now_ns_;
      break;
    case task::kRunnable:
      e.kind = has_cpu ? EventKind::switch_out : EventKind::wakeup;
      e.state = static_cast<uint8_t>(TaskState::runnable);
      break;
    case task::kInterruptible:
    case task::kUninterruptible:
    case task::kStopped:
      e.kind = EventKind::switch_out;
      e.state = static_cast<uint8_t>(state - task::kInterruptible +
                                     static_cast<uint64_t>(TaskState::interruptible));
      break;
    default:
      return;
  }
  if (e.kind == EventKind::switch_out) e.state |= std::exchange(sight_, uint8_t{0});
  // How long it had run: as long as was drawn, and what the writer said it was charged before.
  if (e.kind == EventKind::switch_out && lead_ns_ != 0) {
    const int64_t ran = static_cast<int64_t>(now_ns_ - known->running_ns) + lead_ns_;
    e.other = static_cast<uint32_t>(std::clamp<int64_t>(ran, 0, ~uint32_t{0}));
    lead_ns_ = 0;
  }
  if (ran_ns) e.other = *ran_ns;
  emit(e);
}

void TraceReader::sample(uint64_t name_id, const Annotations& notes) {
  Event e;
  e.kind = EventKind::sample;
  e.tid = notes.id("tid");
  const Task* const known = task(e.tid);
  if (!known) throw Damaged{"a sample of a thread that was never named"};
  e.tgid = known->tgid;
  if (name_id == kNameSampleNoGil) {
    e.state = kSightRead;
  } else if (name_id != kNameSample) {
    e.state = static_cast<uint8_t>(kSightRead | kSightMine |
                                   (name_id - kNameSampleGilOfSlot) << kSightSlotShift);
  }
  emit(e);
}

// What is not said is what it was.
void TraceReader::run_facts(const Annotations& notes) {
  const std::string_view format = notes.text("format");
  if (!is_giltop_ && format != kFormat && format != kFormat1)
    throw Damaged{"its format is not the one that this giltop reads, " + std::string(kFormat),
                  format.starts_with("giltop.trace/")};
  if (!is_giltop_) draws_raw_ = format == kFormat1;
  is_giltop_ = true;
  RunFacts& run = outcome_.run;
  const auto text = [&](const char* name, std::string& fact) {
    if (notes.has(name)) fact = notes.text(name);
  };
  const auto number = [&](const char* name, uint64_t& fact) {
    if (notes.has(name)) fact = notes.number(name);
  };
  text("version", run.version);
  text("kernel", run.kernel);
  text("mode", run.mode);
  if (notes.has("cpus"))
    run.cpus = static_cast<unsigned>(std::min<uint64_t>(notes.number("cpus"), 65536));
  number("events", run.events);
  number("probe_hits", run.probe_hits);
  number("other_probe_hits", run.other_probe_hits);
  number("probe_cost_ns", run.probe_cost_ns);
  number("own_cpu_ns", run.own_cpu_ns);
  run.finished = notes.number("finished") != 0;
}

void TraceReader::root_instant(std::string_view name, const Annotations& notes) {
  Event e;
  if (name == kFixedNames[kNameRun - 1]) {
    run_facts(notes);
    return;
  }
  e.tgid = notes.id("pid");
  e.tid = notes.id("tid");
  e.other = tables_.intern(notes.text("comm").substr(0, kMaxName), 0);
  Task* const known = task(e.tid);
  if (name == kProcess) {
    ProcessFacts facts;
    facts.comm = notes.text("comm").substr(0, kMaxName);
    facts.cmdline = notes.text("cmdline").substr(0, kMaxCmdline);
    facts.python = notes.text("python").substr(0, kMaxName);
    facts.build_id = notes.text("build_id").substr(0, kMaxName);
    facts.free_threaded = notes.number("free_threaded") != 0;
    facts.late = notes.number("late") != 0;
    e.kind = EventKind::process;
    e.other = tables_.add(std::move(facts), 0);
  } else if (name == kSeen) {
    e.kind = EventKind::thread_seen;
  } else if (name == kFork) {
    e.kind = EventKind::fork;
    e.value = uint64_t{notes.id("parent_pid")} << 32 | notes.id("parent_tid");
  } else if (name == kExec) {
    e.kind = EventKind::exec;
    e.cpu = static_cast<uint16_t>(notes.number("cpu"));
    if (known) known->drawn_ns = now_ns_;
  } else if (name == kExit) {
    e.kind = EventKind::exit;
    e.state = static_cast<uint8_t>(std::min<uint64_t>(notes.number("last"), 2));
  } else if (name == kRename) {
    e.kind = EventKind::thread_name;
  } else if (name == kNsId) {
    e.kind = EventKind::ns_id;
    e.other = notes.id("ns_tid");
  } else if (name == kGilRead) {
    if (notes.number("state") > static_cast<uint64_t>(GilReading::held))
      throw Damaged{"a GIL in an unknown state"};
    e.kind = EventKind::gil_read;
    e.state = static_cast<uint8_t>(notes.number("state"));
    e.value = notes.number("gil");
    e.other = static_cast<uint32_t>(notes.number("interpreter"));
  } else if (name == kThreadRead) {
    e.kind = EventKind::thread_read;
    e.state = static_cast<uint8_t>(notes.number("state"));
    e.value = notes.number("gil");
    e.cpu = static_cast<uint16_t>(notes.number("cpu"));
    e.other = 0;
    if ((e.state & kReadBlocked) != 0 && known) known->drawn_ns = now_ns_;
  } else if (name == kLost) {
    const auto kind = std::find(kRecordKinds.begin(), kRecordKinds.end(), notes.text("kind"));
    if (kind == kRecordKinds.end()) throw Damaged{"a loss of an unknown kind"};
    e.kind = EventKind::loss;
    e.state = static_cast<uint8_t>(kind - kRecordKinds.begin());
    e.other = static_cast<uint32_t>(std::min<uint64_t>(notes.number("count"), ~uint32_t{0}));
    e.value = notes.number(kUntil);
    // Slices that were open are over.
    for (auto& [uuid, t] : tracks_) t.open = 0;
  } else if (name == kFixedNames[kNameRaw - 1]) {
    if (notes.number("kind") > static_cast<uint64_t>(EventKind::light_gil))
      throw Damaged{"an event of an unknown kind"};
    e.kind = static_cast<EventKind>(notes.number("kind"));
    if (!is_state_event(e.kind) && e.kind != EventKind::mode && e.kind != EventKind::light_gil)
      throw Damaged{"an event of a kind that has a form of its own"};
    e.cpu = static_cast<uint16_t>(notes.number("cpu"));
    e.state = static_cast<uint8_t>(notes.number("state"));
    e.value = notes.number("value");
    if (!notes.has("value") && e.cpu < cpu_uncharged_.size()) e.value = cpu_uncharged_[e.cpu];
    e.other = static_cast<uint32_t>(notes.number("other"));
    if (known && draws_raw_) known->drawn_ns = now_ns_;
    if (known && e.kind == EventKind::switch_in) known->running_ns = now_ns_;
  } else if (name == kEnd) {
    e.kind = EventKind::end;
    ended_ = true;
  } else {
    return;
  }
  emit(e);
}

}  // namespace giltop
