#include "support/trace_checker.h"

#include <zlib.h>

#include <fstream>
#include <iterator>
#include <optional>

#include "support/trace_checker_impl.h"

namespace giltop::testing {

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
  for (const auto& [tid, task] : tasks_)
    if (task.state == kRunning) counts_.running_ns[tid] += now_ns_ - task.last_ns;
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
