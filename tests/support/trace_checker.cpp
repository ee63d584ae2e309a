#include "support/trace_checker.h"

#include <zlib.h>

#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <set>

namespace giltop::testing {
namespace {

using protozero::pbf_reader;

// Written down again on purpose: a wrong number in the writer must not be right here.
enum : uint32_t {
  kTimestamp = 8,
  kSequence = 10,
  kTrackEvent = 11,
  kInterned = 12,
  kFlags = 13,
  kClocks = 6,
  kDropped = 42,
  kSystemInfo = 45,
  kCompressed = 50,
  kClockId = 58,
  kDefaults = 59,
  kDescriptor = 60,
  kFirst = 87,
  kTaskState = 117,
  kAttributes = 126
};
enum : uint32_t { kCleared = 1, kNeeds = 2 };
enum : uint64_t { kBegin = 1, kEnd = 2, kInstant = 3, kCounter = 4 };
enum : uint64_t {
  kRunnable = 2,
  kRunning = 3,
  kStopped = 6,
  kDead = 7,
  kDestroyed = 8,
  kNull = 99
};
constexpr size_t kMaxBundle = 512 * 1024;

class Checker {
 public:
  explicit Checker(TraceCounts& counts) : counts_(counts) {}
  void file(std::string_view bytes);
  std::vector<std::string> take() { return std::move(broken_); }

 private:
  struct Track {
    uint64_t parent = 0;
    uint64_t tgid = 0, tid = 0;  // of a thread's track
    bool counter = false, thread = false, process = false;
    int depth = 0;
    uint64_t begun_ns = 0;  // the open slice
    bool by_rank = false;   // its children are ordered
  };
  struct Task {
    uint64_t state = 0, last_ns = ~uint64_t{0};
    uint64_t cpu = 0;
    uint64_t uuid = 0, tgid = 0;
    bool forgotten = false;  // DESTROYED
  };

  void rule(std::string line) {
    if (broken_.size() < 100)
      broken_.push_back("packet " + std::to_string(counts_.packets) + ": " + std::move(line));
  }
  void outer(std::string_view packet);
  void bundle(std::string_view packed);
  void packet(std::string_view data);
  void snapshot(std::string_view data);
  void interned(std::string_view data);
  void intern(pbf_reader entry, std::map<uint64_t, std::string>& names);
  std::pair<std::string, uint64_t> annotation(pbf_reader reader);
  void wait_arguments(const Track& track, const std::map<std::string, uint64_t>& arguments);
  void attributes(std::string_view data);
  void descriptor(std::string_view data);
  void track_event(std::string_view data);
  void task_state(std::string_view data);
  void flow(uint64_t id, bool terminating, uint64_t type);

  TraceCounts& counts_;
  std::vector<std::string> broken_;
  bool has_clock_ = false, has_system_ = false, has_state_ = false, has_defaults_ = false;
  bool has_sequence_ = false, must_clear_ = false;
  uint64_t now_ns_ = 0;
  std::map<uint64_t, uint64_t> last_clock_;
  std::map<uint64_t, std::string> names_, argument_names_;
  std::map<uint64_t, Track> tracks_;
  std::map<uint64_t, Task> tasks_;
  std::map<uint64_t, uint64_t> on_cpu_;  // cpu → tid of its open slice
  std::set<uint64_t> flows_, ended_flows_;
};

std::string_view view(pbf_reader& reader) {
  const auto data = reader.get_view();
  return {data.data(), data.size()};
}

pbf_reader reader_of(std::string_view data) { return pbf_reader(data.data(), data.size()); }

void Checker::file(std::string_view bytes) {
  counts_.bytes = bytes.size();
  size_t at = 0;
  while (at < bytes.size()) {
    if (bytes[at] != 0x0a) return rule("byte " + std::to_string(at) + " begins no packet");
    uint64_t length = 0;
    size_t header = 1;
    bool whole = false;
    for (unsigned shift = 0; at + header < bytes.size() && shift < 63 && !whole; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[at + header++]);
      length |= uint64_t{byte & 0x7fu} << shift;
      whole = byte < 0x80;
    }
    if (!whole || length > bytes.size() - at - header) {
      counts_.truncated = true;
      break;
    }
    outer(bytes.substr(at + header, length));
    at += header + length;
  }
  if (!has_system_) rule("no SystemInfo");
  if (!counts_.finished || counts_.truncated) return;
  for (const auto& [uuid, track] : tracks_)
    if (track.depth != 0) rule("a slice of track " + std::to_string(uuid) + " never ends");
}

void Checker::outer(std::string_view data) {
  pbf_reader reader = reader_of(data);
  bool compressed = false;
  size_t fields = 0;
  std::string_view packed;
  while (reader.next()) {
    fields++;
    if (reader.tag() == kCompressed) {
      compressed = true;
      packed = view(reader);
    } else {
      reader.skip();
    }
  }
  if (!compressed) return packet(data);
  if (fields != 1) rule("compressed_packets has company in its packet");
  if (data.size() >= kMaxBundle) rule("a bundle of " + std::to_string(data.size()) + " bytes");
  bundle(packed);
}

void Checker::bundle(std::string_view packed) {
  counts_.bundles++;
  std::string out(16 * kMaxBundle, '\0');
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return rule("zlib does not start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int code = inflate(&stream, Z_FINISH);
  const size_t rest = stream.avail_in;
  out.resize(out.size() - stream.avail_out);
  inflateEnd(&stream);
  if (code != Z_STREAM_END) return rule("a bundle is not one whole zlib stream");
  if (rest != 0) rule("bytes follow the zlib stream of a bundle");
  if (out.size() > kMaxBundle)
    rule("a bundle inflates to " + std::to_string(out.size()) + " bytes");
  pbf_reader reader = reader_of(out);
  while (reader.next()) {
    if (reader.tag() != 1) return rule("a bundle holds something else than packets");
    packet(view(reader));
  }
}

void Checker::packet(std::string_view data) {
  counts_.packets++;
  pbf_reader reader = reader_of(data);
  std::optional<uint64_t> timestamp, clock_id;
  uint64_t sequence = 0, flags = 0;
  bool dropped = false, first = false;
  std::map<uint32_t, std::string_view> parts;
  while (reader.next()) {
    switch (reader.tag()) {
      case kTimestamp:
        timestamp = reader.get_uint64();
        break;
      case kClockId:
        clock_id = reader.get_uint32();
        break;
      case kSequence:
        sequence = reader.get_uint32();
        break;
      case kFlags:
        flags = reader.get_uint32();
        break;
      case kDropped:
        dropped = reader.get_bool();
        break;
      case kFirst:
        first = reader.get_bool();
        break;
      case kCompressed:
        reader.skip();
        rule("a bundle within a bundle");
        break;
      default:
        if (reader.wire_type() != protozero::pbf_wire_type::length_delimited) {
          reader.skip();
          break;
        }
        const uint32_t tag = reader.tag();
        if (!parts.emplace(tag, view(reader)).second)
          rule("field " + std::to_string(tag) + " twice");
    }
  }
  const auto has = [&](uint32_t tag) { return parts.contains(tag); };
  if (counts_.packets == 1 && !has(kSystemInfo)) rule("the first packet is not SystemInfo");
  has_system_ = has_system_ || has(kSystemInfo);

  const bool on_sequence = has(kTrackEvent) || has(kInterned) || has(kDefaults) || flags || dropped;
  if (on_sequence && sequence == 0) rule("it needs a sequence id");
  if (sequence != 0) {
    if (!has_sequence_ && !(first && (flags & kCleared)))
      rule("the sequence's first packet does not say so, or does not clear the state");
    if (has_sequence_ && first) rule("first_packet_on_sequence again");
    if (!has_sequence_ && dropped) rule("packets dropped before the first one");
    has_sequence_ = true;
  }
  if (dropped) {
    counts_.losses++;
    must_clear_ = true;
  }
  if (flags & kCleared) {
    must_clear_ = false;
    has_state_ = true;
    names_.clear();
    argument_names_.clear();
    has_defaults_ = false;
    if (!has(kDefaults)) rule("the state is cleared without new defaults");
    if (!has(kClocks)) rule("the state is cleared without a clock snapshot");
  }
  if (must_clear_) rule("packets were dropped, but the state is not cleared");
  if ((flags & kNeeds) && !has_state_) rule("it needs a state that is not there");
  if (has(kDefaults)) {
    pbf_reader d = reader_of(parts[kDefaults]);
    while (d.next()) {
      if (d.tag() == kClockId) {
        has_defaults_ = d.get_uint32() == 64;
      } else {
        d.skip();
      }
    }
  }
  if (has(kInterned)) {
    if (!(flags & kNeeds)) rule("interned data without SEQ_NEEDS_INCREMENTAL_STATE");
    interned(parts[kInterned]);
  }
  if (has(kClocks)) {
    snapshot(parts[kClocks]);
    return;  // the importer reads nothing else of it
  }
  const bool timed = has(kTrackEvent) || has(kTaskState);
  if (timed && !timestamp) rule("an event without a time");
  if (timestamp && sequence != 0 && !clock_id) {
    if (!has_clock_) rule("a difference of time before the first clock snapshot");
    if (!has_defaults_) rule("a difference of time without the default clock");
    if (!(flags & kNeeds)) rule("it relies on the defaults without saying so");
    if (*timestamp >= uint64_t{1} << 63) {
      rule("a negative difference of time");
    } else {
      now_ns_ += *timestamp;
    }
  } else if (timed) {
    rule("an event that is not on the sequence's clock");
  }
  if (has(kAttributes)) attributes(parts[kAttributes]);
  if (has(kDescriptor)) descriptor(parts[kDescriptor]);
  if (has(kTrackEvent)) track_event(parts[kTrackEvent]);
  if (has(kTaskState)) task_state(parts[kTaskState]);
}

void Checker::snapshot(std::string_view data) {
  std::map<uint64_t, uint64_t> clocks;
  uint64_t primary = 0;
  pbf_reader reader = reader_of(data);
  while (reader.next()) {
    if (reader.tag() == 2) {
      primary = reader.get_uint32();
    } else if (reader.tag() == 1) {
      pbf_reader c = reader.get_message();
      uint64_t id = 0, value = 0;
      bool incremental = false;
      while (c.next()) {
        switch (c.tag()) {
          case 1:
            id = c.get_uint32();
            break;
          case 2:
            value = c.get_uint64();
            break;
          case 3:
            incremental = c.get_bool();
            break;
          default:
            c.skip();
        }
      }
      if (!clocks.emplace(id, value).second) rule("a snapshot with a clock twice");
      if ((id == 64) != incremental) rule("clock " + std::to_string(id) + " changed its kind");
    } else {
      reader.skip();
    }
  }
  if (primary != 6) rule("the primary clock is not BOOTTIME");
  if (!has_clock_ &&
      !(clocks.contains(64) && clocks.contains(6) && clocks.contains(3) && clocks.contains(1)))
    rule("the first snapshot lacks a clock");
  if (clocks.size() < 2) rule("a snapshot of one clock");
  for (const auto& [id, value] : clocks) {
    if (last_clock_.contains(id) && value < last_clock_[id] && id != 1)
      rule("clock " + std::to_string(id) + " runs backwards in snapshots, by " +
           std::to_string(last_clock_[id] - value));
    last_clock_[id] = value;
  }
  if (clocks.contains(64)) {
    if (clocks.contains(6) && clocks[6] != clocks[64]) rule("clock 64 is not BOOTTIME");
    if (clocks[64] < now_ns_) rule("a snapshot turns time back");
    now_ns_ = clocks[64];
    has_clock_ = true;
  }
}

void Checker::interned(std::string_view data) {
  pbf_reader reader = reader_of(data);
  while (reader.next()) {
    if (reader.tag() == 2 || reader.tag() == 3) {
      const bool event = reader.tag() == 2;
      intern(reader.get_message(), event ? names_ : argument_names_);
    } else {
      reader.skip();
      rule("interned data of an unknown kind");
    }
  }
}

void Checker::intern(pbf_reader entry, std::map<uint64_t, std::string>& names) {
  uint64_t id = 0;
  std::string name;
  while (entry.next()) {
    if (entry.tag() == 1) {
      id = entry.get_uint64();
    } else if (entry.tag() == 2) {
      name = view(entry);
    } else {
      entry.skip();
    }
  }
  if (id == 0) rule("an interned id of zero");
  if (!names.emplace(id, name).second) rule("interned id " + std::to_string(id) + " twice");
}

// Name and number; of a text the number is 0.
std::pair<std::string, uint64_t> Checker::annotation(pbf_reader reader) {
  std::string name;
  uint64_t number = 0;
  while (reader.next()) {
    switch (reader.tag()) {
      case 1: {
        const auto found = argument_names_.find(reader.get_uint64());
        if (found == argument_names_.end()) {
          rule("an argument's name is not interned");
        } else {
          name = found->second;
        }
        break;
      }
      case 2:
        number = reader.get_bool();
        break;
      case 3:
        number = reader.get_uint64();
        break;
      case 10:
        name = view(reader);
        break;
      default:
        reader.skip();
    }
  }
  if (name.empty()) rule("an argument without a name");
  return {name, number};
}

// The importer does not mind, but people would: what a wait says of itself is all of it.
void Checker::wait_arguments(const Track& track, const std::map<std::string, uint64_t>& arguments) {
  uint64_t sum = 0;
  for (const char* const part :
       {"holder_running_ns", "holder_preempted_ns", "holder_asleep_ns", "handoff_ns", "unknown_ns"})
    if (const auto found = arguments.find(part); found != arguments.end()) sum += found->second;
  if (sum == 0 || arguments.contains("cut")) return;
  counts_.waits_told++;
  if (sum != now_ns_ - track.begun_ns)
    counts_.odd_waits.push_back("a wait of " + std::to_string(now_ns_ - track.begun_ns) +
                                " ns has parts of " + std::to_string(sum));
}

void Checker::attributes(std::string_view data) {
  pbf_reader reader = reader_of(data);
  while (reader.next()) {
    pbf_reader entry = reader.get_message();
    std::string key, value;
    while (entry.next()) {
      if (entry.tag() == 1) {
        key = view(entry);
      } else if (entry.tag() == 2) {
        value = std::to_string(entry.get_int64());
      } else {
        value = view(entry);
      }
    }
    if (key.empty()) rule("an attribute without a key");
    counts_.attributes[key] = value;
  }
}

void Checker::descriptor(std::string_view data) {
  uint64_t uuid = 0;
  int rank = 0;
  std::string name;
  Track track;
  pbf_reader reader = reader_of(data);
  const auto names = [&](pbf_reader r, uint32_t name_tag) {
    while (r.next()) {
      if (r.tag() == 1) {
        track.tgid = static_cast<uint64_t>(r.get_int32());
      } else if (r.tag() == 2 && track.thread) {
        track.tid = static_cast<uint64_t>(r.get_int32());
      } else if (r.tag() == name_tag) {
        if (view(r).empty()) rule("an empty name takes the name away");
      } else {
        r.skip();
      }
    }
  };
  while (reader.next()) {
    switch (reader.tag()) {
      case 1:
        uuid = reader.get_uint64();
        break;
      case 3:
        track.process = true;
        names(reader.get_message(), 6);
        break;
      case 4:
        track.thread = true;
        names(reader.get_message(), 5);
        break;
      case 5:
        track.parent = reader.get_uint64();
        break;
      case 8:
        track.counter = true;
        reader.skip();
        break;
      case 2:
        name = view(reader);
        break;
      case 11:
        track.by_rank = reader.get_enum() == 3;
        break;
      case 12:
        rank = reader.get_int32();
        break;
      default:
        reader.skip();
    }
  }
  if (uuid == 0) return rule("a track without a uuid");
  if (track.parent != 0 && !tracks_.contains(track.parent))
    rule("track " + std::to_string(uuid) + " has a parent that is not described before");
  if ((rank != 0) != (track.parent != 0 && tracks_[track.parent].by_rank))
    rule("track " + std::to_string(uuid) + " has a rank where none counts, or lacks one");
  if (track.thread && (track.tid == 0 || track.tgid == 0)) rule("a thread without ids");
  const auto found = tracks_.find(uuid);
  if (found != tracks_.end()) {
    const Track& old = found->second;
    if (old.parent != track.parent || old.tgid != track.tgid || old.tid != track.tid ||
        old.counter != track.counter || old.thread != track.thread || old.process != track.process)
      rule("track " + std::to_string(uuid) + " is described anew as something else");
    return;
  }
  counts_.tracks++;
  if (rank != 0) counts_.ranked[rank] = name;
  tracks_[uuid] = track;
  if (track.thread) {
    counts_.threads++;
    Task& task = tasks_[track.tid];
    task = Task{};  // a new uuid for known ids begins a new thread
    task.uuid = uuid;
    task.tgid = track.tgid;
  }
}

void Checker::flow(uint64_t id, bool terminating, uint64_t type) {
  if (id == 0) rule("a flow of id 0");
  if (!terminating) {
    if (type == kBegin) rule("a flow begins where a slice begins");
    if (!flows_.insert(id).second) rule("flow " + std::to_string(id) + " begins twice");
    counts_.flows_begun++;
  } else {
    if (type != kBegin) rule("a flow ends elsewhere than where a slice begins");
    if (!flows_.contains(id)) rule("flow " + std::to_string(id) + " ends before it begins");
    if (!ended_flows_.insert(id).second) rule("flow " + std::to_string(id) + " ends twice");
    counts_.flows_ended++;
  }
}

void Checker::track_event(std::string_view data) {
  uint64_t type = 0, uuid = 0, name_id = 0;
  bool has_value = false;
  std::string_view name;
  std::vector<std::pair<uint64_t, bool>> flows;
  std::map<std::string, uint64_t> arguments;
  pbf_reader reader = reader_of(data);
  while (reader.next()) {
    switch (reader.tag()) {
      case 4:
        arguments.insert(annotation(reader.get_message()));
        break;
      case 9:
        type = reader.get_uint32();
        break;
      case 10:
        name_id = reader.get_uint64();
        break;
      case 11:
        uuid = reader.get_uint64();
        break;
      case 23:
        name = view(reader);
        break;
      case 30:
        has_value = true;
        reader.skip();
        break;
      case 47:
      case 48: {
        const bool terminating = reader.tag() == 48;
        flows.emplace_back(reader.get_fixed64(), terminating);
        break;
      }
      default:
        reader.skip();
    }
  }
  const auto found = tracks_.find(uuid);
  if (found == tracks_.end())
    return rule("an event on track " + std::to_string(uuid) + ", which is not described");
  Track& track = found->second;
  if ((type == kCounter) != track.counter) rule("a counter and a slice share a track");
  if (type != kEnd && name_id != 0 && !names_.contains(name_id))
    rule("name " + std::to_string(name_id) + " is not interned");
  if ((type == kBegin || type == kInstant) && name_id == 0 && name.empty())
    rule("an event without a name");
  if (type == kEnd && (name_id != 0 || !name.empty()))
    rule("an end with a name ends only a slice of that name");
  for (const auto& [id, terminating] : flows) flow(id, terminating, type);
  switch (type) {
    case kBegin:
      if (++track.depth > 1) rule("two slices at once on track " + std::to_string(uuid));
      counts_.slices++;
      track.begun_ns = now_ns_;
      if (arguments.contains("contended")) counts_.contended += arguments["contended"];
      break;
    case kEnd:
      if (track.depth == 0) {
        rule("an end without a beginning on track " + std::to_string(uuid));
      } else {
        track.depth--;
        wait_arguments(track, arguments);
        if (arguments.contains("release_forced")) counts_.forced += arguments["release_forced"];
      }
      break;
    case kInstant:
      counts_.instants++;
      if (name == "end") counts_.finished = true;
      break;
    case kCounter:
      counts_.counters++;
      if (!has_value) rule("a counter without a value");
      break;
    default:
      rule("an event of type " + std::to_string(type));
  }
}

void Checker::task_state(std::string_view data) {
  uint64_t cpu = 0, tid = 0, state = 0;
  bool has_cpu = false;
  pbf_reader reader = reader_of(data);
  while (reader.next()) {
    switch (reader.tag()) {
      case 1:
        cpu = static_cast<uint64_t>(int64_t{reader.get_int32()});
        has_cpu = true;
        break;
      case 2:
        if (view(reader).empty()) rule("an empty comm takes the name away");
        break;
      case 3:
        tid = static_cast<uint64_t>(reader.get_int64());
        break;
      case 4:
        state = static_cast<uint64_t>(int64_t{reader.get_enum()});
        break;
      default:
        reader.skip();
    }
  }
  const std::string who = "thread " + std::to_string(tid);
  if (cpu >= 65536) return rule("a CPU out of range");
  if (state < 1 || state > 8) return rule("task state " + std::to_string(state));
  if (state == 1) rule("CREATED is an error for a thread that is known");
  if (state == kRunning || (state > kRunning && state <= kStopped))
    if (!has_cpu) rule(who + " enters or leaves no CPU");
  if (state == kRunning) {
    // Whoever was on this CPU leaves it for the unknown.
    const auto current = on_cpu_.find(cpu);
    if (current != on_cpu_.end() && current->second != tid && current->second != 0) {
      Task& other = tasks_[current->second];
      if (other.state == kRunning && other.cpu == cpu) {
        other.state = kNull;
        if (other.last_ns == now_ns_)
          rule("thread " + std::to_string(current->second) + " runs for no time");
        other.last_ns = now_ns_;
      }
    }
    on_cpu_[cpu] = tid;
  }
  if (tid == 0) {
    if (state != kRunning) rule("the idle task does not run");
    return;
  }
  counts_.states++;
  const auto found = tasks_.find(tid);
  if (found == tasks_.end() || found->second.uuid == 0)
    return rule("a state of " + who + ", which is not described");
  Task& task = found->second;
  if (task.forgotten) return rule("a state of " + who + " after it was destroyed");
  if (task.state == kDead && state != kDestroyed)
    return rule("a state of " + who + " after its death");
  if (state == kRunning && task.state == kRunning) return rule(who + " is running twice");
  if (task.last_ns == now_ns_) rule("two states of " + who + " at once");
  if (state == kDestroyed) {
    if (task.tgid == tid) rule("the main thread's destruction ends its process");
    task.forgotten = true;
  }
  if (state != kRunning && has_cpu)
    if (const auto current = on_cpu_.find(cpu); current != on_cpu_.end() && current->second == tid)
      on_cpu_.erase(current);
  task.state = state;
  task.last_ns = now_ns_;
  if (state == kRunning) task.cpu = cpu;
}

}  // namespace

std::vector<std::string> check_trace_bytes(std::string_view bytes, TraceCounts* counts) {
  TraceCounts own;
  TraceCounts& used = counts ? *counts : own;
  used = {};
  Checker checker(used);
  try {
    checker.file(bytes);
  } catch (const protozero::exception& error) {
    auto broken = checker.take();
    broken.push_back("packet " + std::to_string(used.packets) + " is no protobuf: " + error.what());
    return broken;
  }
  return checker.take();
}

std::vector<std::string> check_trace(const std::string& path, TraceCounts* counts) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return {"cannot read " + path};
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return check_trace_bytes(bytes, counts);
}

}  // namespace giltop::testing
