#include "sink/trace_packets.h"

#include <algorithm>
#include <utility>

#include "sink/trace_format.h"

namespace giltop {

using namespace trace;

TracePackets::TracePackets(BlockSink block) : block_(std::move(block)) {
  out_.reserve(kBlockBytes + kMaxHotPacket);
}

namespace {

void add_arguments(ProtoFields& fields, std::span<const Argument> arguments) {
  for (const Argument& argument : arguments) {
    char* const note = fields.begin(event::kAnnotation);
    fields.field(annotation::kNameId, argument.name);
    fields.field(argument.is_flag ? annotation::kBool : annotation::kUint, argument.value);
    fields.end(note);
  }
}

}  // namespace

// Before each packet: blocks stay small, and clock readings come in the order of time.
void TracePackets::make_room(uint64_t ts_ns) {
  if (out_.size() >= kBlockBytes) flush();
  if (unwritten_clocks_ && unwritten_clocks_->boottime_ns <= ts_ns) write_clocks();
}

// Packets of the hot path, all small enough for nested lengths of one byte.
TracePackets::Packet TracePackets::begin_packet(uint64_t ts_ns) {
  make_room(ts_ns);
  Packet packet{out_.open(kMaxHotPacket), nullptr};
  packet.length = packet.fields.begin(kTracePacket);
  packet.fields.field(packet::kTimestamp, ts_ns > last_ns_ ? ts_ns - last_ns_ : 0);
  last_ns_ = std::max(last_ns_, ts_ns);
  packet.fields.field(packet::kSequenceId, kSequence);
  packet.fields.field(packet::kSequenceFlags, kNeedsState);
  return packet;
}

void TracePackets::end_packet(Packet& packet) {
  packet.fields.end(packet.length);
  out_.close(packet.fields);
}

// For messages of any size.
void TracePackets::packet(uint64_t ts_ns, uint32_t field, std::string_view message) {
  make_room(ts_ns);
  ProtoBuffer body;
  body.field(packet::kTimestamp, ts_ns > last_ns_ ? ts_ns - last_ns_ : 0);
  last_ns_ = std::max(last_ns_, ts_ns);
  body.field(packet::kSequenceId, kSequence);
  body.field(packet::kSequenceFlags, kNeedsState);
  body.bytes(field, message);
  out_.bytes(kTracePacket, body.data());
}

void TracePackets::begin_sequence(uint64_t ts_ns, const ClockReading* clocks, bool first) {
  make_room(ts_ns);
  last_ns_ = std::max(last_ns_, ts_ns);
  epoch_++;
  ProtoBuffer snapshot;
  const auto add = [&](uint32_t id, uint64_t value) {
    const size_t clock = snapshot.begin(clock_snapshot::kClocks);
    snapshot.field(clock_snapshot::kId, id);
    snapshot.field(clock_snapshot::kTimestamp, value);
    if (id == kClockDelta) snapshot.field(clock_snapshot::kIsIncremental, 1);
    snapshot.end(clock);
  };
  add(kClockDelta, last_ns_);
  add(kClockBoottime, last_ns_);
  if (clocks) {
    add(kClockMonotonic, clocks->monotonic_ns);
    add(kClockRealtime, clocks->realtime_ns);
  }
  snapshot.field(clock_snapshot::kPrimary, kClockBoottime);

  ProtoBuffer names;
  for (size_t i = 0; i < std::size(kFixedNames); i++) {
    if (*kFixedNames[i] == 0) continue;
    const size_t name = names.begin(interned::kEventNames);
    names.field(interned::kId, i + 1);
    names.bytes(interned::kName, kFixedNames[i]);
    names.end(name);
  }
  for (size_t i = 0; i < std::size(kArgumentNames); i++) {
    const size_t name = names.begin(interned::kArgumentNames);
    names.field(interned::kId, i + 1);
    names.bytes(interned::kName, kArgumentNames[i]);
    names.end(name);
  }
  ProtoBuffer packet_defaults;
  packet_defaults.field(defaults::kClock, kClockDelta);

  ProtoBuffer body;
  body.field(packet::kSequenceId, kSequence);
  body.field(packet::kSequenceFlags, kStateCleared | kNeedsState);
  if (first) body.field(packet::kFirstOnSequence, 1);
  if (!first) body.field(packet::kPreviousPacketDropped, 1);
  body.bytes(packet::kDefaults, packet_defaults.data());
  body.bytes(packet::kInternedData, names.data());
  body.bytes(packet::kClockSnapshot, snapshot.data());
  out_.bytes(kTracePacket, body.data());
}

void TracePackets::slice_begin(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow,
                               std::span<const Argument> arguments) {
  Packet packet = begin_packet(ts_ns);
  ProtoFields& fields = packet.fields;
  char* const event = fields.begin(packet::kTrackEvent);
  fields.field(event::kType, event::kBegin);
  fields.field(event::kTrack, uuid);
  fields.field(event::kNameId, name);
  add_arguments(fields, arguments);
  if (flow) fields.field_fixed64(event::kTerminatingFlow, flow);
  fields.end(event);
  end_packet(packet);
}

void TracePackets::slice_end(uint64_t ts_ns, uint64_t uuid, uint64_t flow, bool cut,
                             std::span<const Argument> arguments) {
  Packet packet = begin_packet(ts_ns);
  ProtoFields& fields = packet.fields;
  char* const event = fields.begin(packet::kTrackEvent);
  fields.field(event::kType, event::kEnd);
  fields.field(event::kTrack, uuid);
  const Argument is_cut{kArgCut, 1, true};
  if (cut) add_arguments(fields, std::span(&is_cut, 1));
  add_arguments(fields, arguments);
  if (flow) fields.field_fixed64(event::kFlow, flow);
  fields.end(event);
  end_packet(packet);
}

void TracePackets::instant(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow,
                           std::span<const Argument> arguments) {
  Packet packet = begin_packet(ts_ns);
  ProtoFields& fields = packet.fields;
  char* const event = fields.begin(packet::kTrackEvent);
  fields.field(event::kType, event::kInstant);
  fields.field(event::kTrack, uuid);
  fields.field(event::kNameId, name);
  add_arguments(fields, arguments);
  if (flow) fields.field_fixed64(event::kFlow, flow);
  fields.end(event);
  end_packet(packet);
}

void TracePackets::counter(uint64_t ts_ns, uint64_t uuid, uint64_t value) {
  Packet packet = begin_packet(ts_ns);
  ProtoFields& fields = packet.fields;
  char* const event = fields.begin(packet::kTrackEvent);
  fields.field(event::kType, event::kCounter);
  fields.field(event::kTrack, uuid);
  fields.field(event::kCounterValue, value);
  fields.end(event);
  end_packet(packet);
}

void TracePackets::task_state(uint64_t ts_ns, int cpu, uint32_t tid, uint32_t state,
                              const OfSwitch& of_switch) {
  Packet packet = begin_packet(ts_ns);
  ProtoFields& fields = packet.fields;
  char* const task = fields.begin(packet::kTaskState);
  if (cpu >= 0) fields.field(task::kCpu, static_cast<uint64_t>(cpu));
  fields.field(task::kTid, tid);
  fields.field(task::kState, state);
  if (of_switch.sight != 0) fields.field(task::kSight, of_switch.sight);
  if (of_switch.ran_ns) fields.field(task::kRan, *of_switch.ran_ns);
  if (const int64_t lead = of_switch.lead_ns; lead != 0)
    fields.field(task::kLead, static_cast<uint64_t>(lead) << 1 ^ static_cast<uint64_t>(lead >> 63));
  fields.end(task);
  end_packet(packet);
}

void TracePackets::root_begin(const char* name) {
  event_.clear();
  event_.field(event::kType, event::kInstant);
  event_.field(event::kTrack, kRootTrack);
  event_.bytes(event::kName, name);
}

void TracePackets::root_begin(uint64_t name) {
  event_.clear();
  event_.field(event::kType, event::kInstant);
  event_.field(event::kTrack, kRootTrack);
  event_.field(event::kNameId, name);
}

void TracePackets::note(uint8_t name, uint64_t value) {
  ProtoBuffer a;
  a.field(annotation::kNameId, name);
  a.field(annotation::kUint, value);
  event_.bytes(event::kAnnotation, a.data());
}

void TracePackets::note(std::string_view name, uint64_t value) {
  ProtoBuffer a;
  a.bytes(annotation::kName, name);
  a.field(annotation::kUint, value);
  event_.bytes(event::kAnnotation, a.data());
}

void TracePackets::note(std::string_view name, std::string_view text) {
  ProtoBuffer a;
  a.bytes(annotation::kName, name);
  a.bytes(annotation::kString, text);
  event_.bytes(event::kAnnotation, a.data());
}

void TracePackets::root_end(uint64_t ts_ns) { packet(ts_ns, packet::kTrackEvent, event_.data()); }

// The importer refuses a BOOTTIME that runs backwards, and a loss, which writes a snapshot too, is
// of a moment before now: a reading waits until the events have caught up with it.
void TracePackets::clocks(const ClockReading& clocks) { unwritten_clocks_ = clocks; }

void TracePackets::write_clocks() {
  const ClockReading clocks = *std::exchange(unwritten_clocks_, std::nullopt);
  ProtoBuffer snapshot;
  const auto add = [&](uint32_t id, uint64_t value) {
    const size_t clock = snapshot.begin(clock_snapshot::kClocks);
    snapshot.field(clock_snapshot::kId, id);
    snapshot.field(clock_snapshot::kTimestamp, value);
    snapshot.end(clock);
  };
  add(kClockBoottime, clocks.boottime_ns);
  add(kClockMonotonic, clocks.monotonic_ns);
  add(kClockRealtime, clocks.realtime_ns);
  snapshot.field(clock_snapshot::kPrimary, kClockBoottime);
  ProtoBuffer body;
  body.field(packet::kSequenceId, kSequence);
  body.bytes(packet::kClockSnapshot, snapshot.data());
  out_.bytes(kTracePacket, body.data());
}

void TracePackets::attributes(std::initializer_list<Attribute> list) {
  ProtoBuffer all;
  for (const Attribute& one : list) {
    ProtoBuffer entry;
    entry.bytes(attribute::kKey, one.key);
    if (one.text.empty()) {
      entry.field(attribute::kLong, one.number);
    } else {
      entry.bytes(attribute::kString, one.text);
    }
    all.bytes(attribute::kAttribute, entry.data());
  }
  ProtoBuffer body;
  body.bytes(packet::kTraceAttributes, all.data());
  raw_packet(body.data());
}

void TracePackets::flush() {
  if (out_.size() == 0) return;
  block_(out_.take());
  out_.reserve(kBlockBytes + kMaxHotPacket);
}

void TracePackets::raw_packet(std::string_view packet) { out_.bytes(kTracePacket, packet); }

}  // namespace giltop
