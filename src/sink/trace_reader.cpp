#include "sink/trace_reader.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "sink/trace_reader_impl.h"

namespace giltop {

using namespace trace;

namespace {

constexpr size_t kMaxBundle = 4 * 1024 * 1024;     // bytes in the file; we write below 512 KB
constexpr size_t kMaxTracks = 1 << 20;             // of what is alive at once
constexpr size_t kMaxInflated = 16 * 1024 * 1024;  // of one bundle
constexpr uint64_t kMaxTime_ns = uint64_t{1} << 62;

}  // namespace

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
    if (*timestamp > kMaxTime_ns) throw Damaged{"a time out of range"};
    advance_to(now_ns_ + *timestamp);
  }
  if (kind == packet::kTrackEvent) track_event(body);
  if (kind == packet::kTrackDescriptor) descriptor(body);
  if (kind == packet::kTaskState) task_state(body);
}

void TraceReader::advance_to(uint64_t ts_ns) {
  if (ts_ns > kMaxTime_ns || ts_ns - begun_ns_ > kMaxLength_ns)
    throw Damaged{"a time out of range"};
  now_ns_ = ts_ns;
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
    if (value < now_ns_) throw Damaged{"a clock that runs backwards"};
    if (!has_clock_) begun_ns_ = value;
    has_clock_ = true;
    advance_to(value);
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
  } else if (parent != 0 && name.starts_with(kGilTrackName) &&
             track(parent).kind == TrackKind::thread) {
    Track& owner = track(parent);
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

}  // namespace giltop
