#include "sink/trace_reader.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <utility>

#include "sink/trace_format.h"

namespace giltop {

using namespace trace;
using protozero::pbf_reader;

namespace {

constexpr size_t kMaxBundle = 4 * 1024 * 1024;     // bytes in the file; we write below 512 KB
constexpr size_t kMaxTracks = 1 << 20;             // of what is alive at once
constexpr size_t kMaxName = 256;                   // bytes of a comm, version or build-id
constexpr size_t kMaxCmdline = 256 * 1024;         // 64 KB, all of it escaped
constexpr size_t kMaxInflated = 16 * 1024 * 1024;  // of one bundle

pbf_reader reader_of(std::string_view data) { return pbf_reader(data.data(), data.size()); }

// protozero asserts that a field has the type it is read as: of a file that is no bug of ours.
void expect_type(const pbf_reader& reader, protozero::pbf_wire_type type) {
  if (!reader.has_wire_type(type)) throw protozero::unknown_pbf_wire_type_exception();
}

std::string_view view_of(pbf_reader& reader) {
  expect_type(reader, protozero::pbf_wire_type::length_delimited);
  const auto data = reader.get_view();
  return std::string_view(data.data(), data.size());
}

pbf_reader message_of(pbf_reader& reader) { return reader_of(view_of(reader)); }

uint64_t number_of(pbf_reader& reader) {
  expect_type(reader, protozero::pbf_wire_type::varint);
  return reader.get_uint64();
}

}  // namespace

struct TraceReader::Damaged {
  std::string what;
  bool other_format = false;  // nothing is broken: another giltop wrote it
};

struct TraceReader::Annotations {
  struct Entry {
    std::string_view name, text;
    uint64_t number = 0;
  };
  std::vector<Entry> entries;

  uint64_t number(std::string_view name) const {
    for (const Entry& e : entries)
      if (e.name == name) return e.number;
    return 0;
  }
  bool has(std::string_view name) const {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const Entry& e) { return e.name == name; });
  }
  std::string_view text(std::string_view name) const {
    for (const Entry& e : entries)
      if (e.name == name) return e.text;
    return {};
  }
  uint32_t id(std::string_view name) const {
    const uint64_t value = number(name);
    if (value > kMaxTid) throw Damaged{"a thread id out of range"};
    return static_cast<uint32_t>(value);
  }
};

Result<TraceReader> TraceReader::open(const std::string& path, EventTables& tables) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return system_error("cannot read " + path, errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return system_error("cannot read " + path, errno);
  if (S_ISDIR(info.st_mode)) return Error("cannot read " + path + ": it is a directory");
  if (!S_ISREG(info.st_mode)) return Error("cannot read " + path + ": not a regular file");
  TraceReader reader(std::move(fd), path, tables);
  if (info.st_size == 0) return Error(path + " is empty: nothing was recorded");
  reader.size_ = static_cast<uint64_t>(info.st_size);
  return reader;
}

bool TraceReader::fill(size_t bytes) {
  if (buffer_.size() - at_ >= bytes) return true;
  buffer_.erase(0, at_);
  offset_ += at_;
  at_ = 0;
  const size_t want = std::max<size_t>(bytes, 1 << 20);
  while (buffer_.size() < want) {
    const size_t had = buffer_.size();
    buffer_.resize(want);
    const ssize_t got = ::read(fd_.get(), buffer_.data() + had, want - had);
    buffer_.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Damaged{std::string("reading failed: ") + std::strerror(errno)};
    if (got == 0) break;
  }
  return buffer_.size() >= bytes;
}

Result<TraceReader::Outcome> TraceReader::read(const EventSink& sink) {
  sink_ = &sink;
  uint64_t packet_at = 0;
  try {
    while (!stopped_ && fill(1)) {
      packet_at = offset_ + at_;
      if (static_cast<unsigned char>(buffer_[at_]) != (kTracePacket << 3 | 2)) {
        if (packet_at == 0) return Error(path_ + " is not a Perfetto trace");
        throw Damaged{"no packet begins there"};
      }
      size_t header = 1;
      uint64_t length = 0;
      bool whole = false;
      for (unsigned shift = 0; shift < 35; shift += 7) {
        if (!fill(header + 1)) break;
        const auto byte = static_cast<unsigned char>(buffer_[at_ + header++]);
        length |= uint64_t{byte & 0x7fu} << shift;
        if (byte < 0x80) {
          whole = true;
          break;
        }
      }
      if (!whole && !fill(header + 1)) {
        outcome_.truncated = true;
        break;
      }
      if (!whole || length > kMaxBundle) {
        if (packet_at == 0) return Error(path_ + " is not a Perfetto trace");
        throw Damaged{"a packet of impossible length"};
      }
      if (!fill(header + length)) {
        outcome_.truncated = true;
        break;
      }
      const std::string_view data(buffer_.data() + at_ + header, length);
      at_ += header + length;
      packet(data);
    }
  } catch (const Damaged& damaged) {
    if (damaged.other_format) return Error("cannot read " + path_ + ": " + damaged.what);
    if (!is_giltop_) return Error(path_ + " is not a giltop recording");
    return Error(path_ + " is damaged at byte " + std::to_string(packet_at) + ": " + damaged.what);
  } catch (const protozero::exception& error) {
    if (!is_giltop_) return Error(path_ + " is not a giltop recording");
    return Error(path_ + " is damaged at byte " + std::to_string(packet_at) + ": " + error.what());
  }
  outcome_.bytes = offset_ + at_;
  if (!is_giltop_) {
    if (outcome_.truncated) return Error(path_ + " breaks off before anything was recorded");
    return Error(path_ + " is not a giltop recording");
  }
  if (!ended_) {
    Event end;
    end.kind = EventKind::end;
    emit(end);
  }
  return outcome_;
}

void TraceReader::emit(Event event) {
  if (!is_giltop_) throw Damaged{"events before the recording's header"};
  event.ts_ns = now_ns_;
  (*sink_)(event);
}

TraceReader::Track& TraceReader::track(uint64_t uuid) {
  Recent& recent = recent_[uuid % recent_.size()];
  if (recent.uuid == uuid && recent.track) return *recent.track;
  if (uuid > last_track_) throw Damaged{"a track that was never described"};
  const auto found = tracks_.find(uuid);
  recent = {uuid, found == tracks_.end() ? &other_ : &found->second};
  return *recent.track;
}

TraceReader::Track& TraceReader::add_track(uint64_t uuid) {
  if (tracks_.size() == kMaxTracks) throw Damaged{"more tracks at once than any recording has"};
  Track& added = tracks_[uuid];
  recent_[uuid % recent_.size()] = {uuid, &added};
  return added;
}

void TraceReader::forget_track(uint64_t uuid) {
  Recent& recent = recent_[uuid % recent_.size()];
  if (recent.uuid == uuid) recent = {};
  tracks_.erase(uuid);
}

TraceReader::Task* TraceReader::task(uint32_t tid) {
  const auto found = tasks_.find(tid);
  return found == tasks_.end() ? nullptr : &found->second;
}

// Nothing more will be on its tracks.
void TraceReader::end_thread(uint32_t tid) {
  const auto found = tasks_.find(tid);
  if (found == tasks_.end()) return;
  if (dead_ns_ != now_ns_) dead_.clear();
  dead_ns_ = now_ns_;
  dead_.emplace_back(tid, found->second.running_ns);
  for (uint64_t uuid = found->second.track; uuid != 0;) {
    const uint64_t next = track(uuid).next;
    forget_track(uuid);
    uuid = next;
  }
  tasks_.erase(found);
}

void TraceReader::DecompressorDeleter::operator()(libdeflate_decompressor* d) const {
  libdeflate_free_decompressor(d);
}

void TraceReader::bundle(std::string_view compressed) {
  if (!decompressor_) decompressor_.reset(libdeflate_alloc_decompressor());
  if (!decompressor_) throw Damaged{"no memory to decompress"};
  inflated_.resize(std::max<size_t>(inflated_.capacity(), kBlockBytes * 2));
  for (;;) {
    size_t made = 0;
    const libdeflate_result result =
        libdeflate_zlib_decompress(decompressor_.get(), compressed.data(), compressed.size(),
                                   inflated_.data(), inflated_.size(), &made);
    if (result == LIBDEFLATE_SUCCESS) {
      packets(std::string_view(inflated_.data(), made));
      return;
    }
    if (result != LIBDEFLATE_INSUFFICIENT_SPACE) throw Damaged{"a block does not decompress"};
    if (inflated_.size() >= kMaxInflated) throw Damaged{"a block of impossible size"};
    inflated_.resize(inflated_.size() * 2);
  }
}

void TraceReader::packets(std::string_view records) {
  pbf_reader reader = reader_of(records);
  while (reader.next()) {
    if (reader.tag() != kTracePacket) throw Damaged{"a block holds something else than packets"};
    packet(view_of(reader));
  }
}

void TraceReader::packet(std::string_view data) {
  pbf_reader reader = reader_of(data);
  std::optional<uint64_t> timestamp;
  bool ours = false;
  uint32_t kind = 0;
  std::string_view body;
  while (reader.next()) {
    switch (reader.tag()) {
      case packet::kTimestamp:
        timestamp = number_of(reader);
        break;
      case packet::kSequenceId:
        ours = number_of(reader) == kSequence;
        break;
      case packet::kCompressedPackets:
        if (data.data() >= inflated_.data() && data.data() < inflated_.data() + inflated_.size())
          throw Damaged{"a block inside a block"};
        bundle(view_of(reader));
        return;
      case packet::kClockSnapshot:
      case packet::kTrackEvent:
      case packet::kTrackDescriptor:
      case packet::kTaskState:
        kind = reader.tag();
        body = view_of(reader);
        break;
      default:
        reader.skip();
    }
  }
  if (!ours) return;
  if (kind == packet::kClockSnapshot) {
    clock_snapshot(body);
    return;
  }
  if (timestamp) {
    if (!has_clock_) throw Damaged{"events before the first clock reading"};
    if (*timestamp > uint64_t{1} << 62 || now_ns_ + *timestamp > uint64_t{1} << 62)
      throw Damaged{"a time out of range"};
    now_ns_ += *timestamp;
  }
  if (kind == packet::kTrackEvent) track_event(body);
  if (kind == packet::kTrackDescriptor) descriptor(body);
  if (kind == packet::kTaskState) task_state(body);
}

void TraceReader::clock_snapshot(std::string_view data) {
  pbf_reader reader = reader_of(data);
  ClockReading clocks;
  while (reader.next(clock_snapshot::kClocks)) {
    pbf_reader clock = message_of(reader);
    uint64_t id = 0, value = 0;
    while (clock.next()) {
      if (clock.tag() == clock_snapshot::kId) {
        id = number_of(clock);
      } else if (clock.tag() == clock_snapshot::kTimestamp) {
        value = number_of(clock);
      } else {
        clock.skip();
      }
    }
    if (id == kClockBoottime) clocks.boottime_ns = value;
    if (id == kClockMonotonic) clocks.monotonic_ns = value;
    if (id == kClockRealtime) clocks.realtime_ns = value;
    if (id != kClockDelta) continue;
    if (value < now_ns_ || value > uint64_t{1} << 62) throw Damaged{"a clock that runs backwards"};
    now_ns_ = value;
    has_clock_ = true;
  }
  if (clocks.monotonic_ns != 0) clocks_ = clocks;  // after a loss there is one clock only
}

void TraceReader::descriptor(std::string_view data) {
  pbf_reader reader = reader_of(data);
  uint64_t uuid = 0, parent = 0;
  std::string_view name, description, thread;
  while (reader.next()) {
    switch (reader.tag()) {
      case track::kUuid:
        uuid = number_of(reader);
        break;
      case track::kParent:
        parent = number_of(reader);
        break;
      case track::kName:
        name = view_of(reader);
        break;
      case track::kDescription:
        description = view_of(reader);
        break;
      case track::kThread:
        thread = view_of(reader);
        break;
      default:
        reader.skip();
    }
  }
  // The writer numbers its tracks one by one.
  if (uuid > last_track_ + 1) throw Damaged{"a track number out of range"};
  if (uuid <= last_track_) return;  // it only has another name now
  last_track_ = uuid;
  if (!thread.empty()) {
    pbf_reader t = reader_of(thread);
    uint64_t pid = 0, tid = 0;
    while (t.next()) {
      if (t.tag() == track::kPid) {
        pid = number_of(t);
      } else if (t.tag() == track::kTid) {
        tid = number_of(t);
      } else {
        t.skip();
      }
    }
    if (pid > kMaxTid || tid > kMaxTid) throw Damaged{"a thread id out of range"};
    end_thread(static_cast<uint32_t>(tid));  // another that had its id
    Track& described = add_track(uuid);
    described.kind = TrackKind::thread;
    described.tgid = static_cast<uint32_t>(pid);
    described.tid = static_cast<uint32_t>(tid);
    Task& added = tasks_[described.tid];
    added.tgid = described.tgid;
    added.track = uuid;
    // At an exec its run goes on.
    for (const auto& [dead, running_ns] : dead_)
      if (dead == described.tid && dead_ns_ == now_ns_) added.running_ns = running_ns;
  } else if (parent != 0 && name == kGilTrackName) {
    Track& owner = track(parent);
    if (owner.kind != TrackKind::thread) throw Damaged{"a GIL's track of no thread"};
    Track& gil = add_track(uuid);
    gil.kind = TrackKind::gil;
    gil.tgid = owner.tgid;
    gil.tid = owner.tid;
    gil.next = std::exchange(owner.next, uuid);
    gil.gil = std::strtoull(std::string(description).c_str(), nullptr, 16);
  } else if (const bool stolen = description.starts_with(kStolen);
             stolen || description.starts_with(kLead)) {
    const std::string number(description.substr(std::strlen(stolen ? kStolen : kLead)));
    const unsigned long cpu = std::strtoul(number.c_str(), nullptr, 10);
    if (cpu >= kMaxCpus) throw Damaged{"a CPU number out of range"};
    Track& described = add_track(uuid);
    described.kind = stolen ? TrackKind::stolen : TrackKind::lead;
    described.cpu = static_cast<uint16_t>(cpu);
    if (cpu >= cpu_uncharged_.size()) cpu_uncharged_.resize(cpu + 1);
  } else if (name == kRootTrackName && uuid == kRootTrack) {
    add_track(uuid).kind = TrackKind::root;
  }
}

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
              if (const uint64_t id = number_of(a); id > 0 && id <= std::size(kArgumentNames))
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
        notes.entries.push_back(entry);
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
    if (type == event::kCounter) lead_ns_ = static_cast<int64_t>(value);
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
        lead_ns_ = static_cast<int64_t>(zigzag >> 1 ^ (~(zigzag & 1) + 1));
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
  if (!is_giltop_ && notes.text("format") != kFormat)
    throw Damaged{"its format is not the one that this giltop reads, " + std::string(kFormat),
                  notes.text("format").starts_with("giltop.trace/")};
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
    if (known) known->drawn_ns = now_ns_;
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
