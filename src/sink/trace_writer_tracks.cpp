// The tracks that a recording is drawn on: made when they are first needed.
#include <algorithm>
#include <cstdio>

#include "sink/trace_format.h"
#include "sink/trace_writer.h"

namespace giltop {

using namespace trace;

namespace {

constexpr uint64_t kMaxRank = uint64_t{1} << 29;  // ranks are of 32 bits

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// Behind the name of a GIL's track: nothing for the first of its process, which mostly has no
// other.
std::string whose(const Gil& gil) {
  if (gil.process->gils.front().get() == &gil) return {};
  if (gil.interpreter >= 0) return " of interpreter " + std::to_string(gil.interpreter);
  return ' ' + hex(gil.address);
}

}  // namespace

void TraceWriter::describe_process(const Process& process, uint64_t ts_ns) {
  const ProcessFacts& facts = tables_.facts(process.facts);
  // A process is called as its main thread, which may have got another name.
  const auto main =
      std::find_if(process.threads.begin(), process.threads.end(),
                   [&](const Thread* t) { return t->tid == process.tgid && t->comm != 0; });
  const std::string_view comm =
      tables_.text(main == process.threads.end() ? process.comm : (*main)->comm);
  ProtoBuffer p;
  p.field(track::kPid, process.tgid);
  if (!facts.cmdline.empty()) p.bytes(track::kCmdline, facts.cmdline);
  if (!comm.empty()) p.bytes(track::kProcessName, comm);
  ProtoBuffer t;
  t.field(track::kUuid, at(processes_, process.index).uuid);
  t.bytes(track::kProcess, p.data());
  t.field(track::kChildOrdering, track::kByRank);
  packet(ts_ns, packet::kTrackDescriptor, t.data());
}

uint64_t TraceWriter::process_uuid(const Process& process, uint64_t ts_ns) {
  ProcessTrack& shown = at(processes_, process.index);
  if (shown.number != process.number) {
    shown = {process.number, next_uuid_++};
    describe_process(process, ts_ns);
  }
  return shown.uuid;
}

void TraceWriter::describe_thread(const ThreadTrack& shown, uint64_t ts_ns) {
  const std::string_view comm = tables_.text(shown.comm);
  ProtoBuffer p;
  p.field(track::kPid, shown.tgid);
  p.field(track::kTid, shown.tid);
  if (!comm.empty()) p.bytes(track::kThreadName, comm);
  ProtoBuffer t;
  t.field(track::kUuid, shown.uuid);
  t.bytes(track::kThread, p.data());
  packet(ts_ns, packet::kTrackDescriptor, t.data());
}

TraceWriter::ThreadTrack& TraceWriter::track_of(const Thread& thread, uint64_t ts_ns) {
  ThreadTrack& shown = at(threads_, thread.index);
  if (shown.number != thread.number) add_thread(shown, thread, ts_ns);
  return shown;
}

TraceWriter::ThreadTrack* TraceWriter::drawn(const Thread& thread) {
  if (thread.index >= threads_.size()) return nullptr;
  ThreadTrack& shown = threads_[thread.index];
  return shown.number == thread.number ? &shown : nullptr;
}

void TraceWriter::add_thread(ThreadTrack& shown, const Thread& thread, uint64_t ts_ns) {
  process_uuid(*thread.process, ts_ns);
  // Of a thread whose end was not seen nothing may follow: it would be about this one.
  if (const auto same_tid = by_tid_.find(thread.tid); same_tid != by_tid_.end())
    close_track(threads_[same_tid->second], ts_ns);
  shown = {};
  shown.number = thread.number;
  shown.uuid = next_uuid_++;
  shown.tgid = thread.process->tgid;
  shown.tid = thread.tid;
  shown.comm = thread.comm;
  // To the importer one that ended at this moment is this one.
  const auto late = std::find_if(late_ends_.begin(), late_ends_.end(),
                                 [&](const End& end) { return end.tid == thread.tid; });
  if (late != late_ends_.end()) {
    shown.task_state = late->before;
    shown.state_ns = late_ns_;
    if (late->cpu >= 0) shown.cpu = static_cast<uint16_t>(late->cpu);
    late_ends_.erase(late);
  }
  by_tid_[thread.tid] = thread.index;
  describe_thread(shown, ts_ns);
}

uint64_t TraceWriter::gil_track(ThreadTrack& shown, const Gil& gil, uint64_t ts_ns) {
  for (const GilTrack& known : shown.gils)
    if (known.gil == &gil) return known.uuid;
  return add_gil_track(shown, gil, ts_ns);
}

uint64_t TraceWriter::add_gil_track(ThreadTrack& shown, const Gil& gil, uint64_t ts_ns) {
  shown.gils.push_back({&gil, next_uuid_++});
  const uint64_t uuid = shown.gils.back().uuid;
  describe_child({uuid, shown.uuid, kGilTrackName + whose(gil), hex(gil.address)}, ts_ns);
  return uuid;
}

void TraceWriter::describe_child(const Child& child, uint64_t ts_ns) {
  ProtoBuffer t;
  t.field(track::kUuid, child.uuid);
  t.field(track::kParent, child.parent);
  t.bytes(track::kName, child.name);
  t.bytes(track::kDescription, child.description);
  if (child.rank != 0) t.field(track::kRank, child.rank);
  if (child.unit != 0) {
    ProtoBuffer unit;
    unit.field(track::kUnit, child.unit);
    t.bytes(track::kCounter, unit.data());
  }
  t.field(track::kMerge, track::kMergeNone);
  packet(ts_ns, packet::kTrackDescriptor, t.data());
}

TraceWriter::GilTracks& TraceWriter::gil_tracks(const Gil& gil, uint64_t ts_ns) {
  GilTracks& tracks = at(gils_, gil.index);
  if (tracks.number != gil.number) add_gil(tracks, gil, ts_ns);
  return tracks;
}

void TraceWriter::add_gil(GilTracks& tracks, const Gil& gil, uint64_t ts_ns) {
  const uint64_t parent = process_uuid(*gil.process, ts_ns);
  if (tracks.owner_open) slice_end(ts_ns, tracks.owner, 0, true);
  tracks = {};
  tracks.number = gil.number;
  tracks.owner = next_uuid_++;
  tracks.waiters = next_uuid_++;
  const uint64_t rank = (gil.number % kMaxRank) * 2 + 1;
  describe_child({tracks.owner, parent, "GIL owner" + whose(gil),
                  "The thread that holds the GIL at " + hex(gil.address), rank},
                 ts_ns);
  describe_child(
      {tracks.waiters, parent, "GIL waiters" + whose(gil),
       "How many threads wait for the GIL at " + hex(gil.address), rank + 1, track::kUnitCount},
      ts_ns);
}

// The id of the thread's name, interned if it is not yet.
uint64_t TraceWriter::name_of(ThreadTrack& shown, uint64_t ts_ns) {
  if (shown.name_epoch == epoch()) return shown.name_id;
  shown.name_epoch = epoch();
  if (shown.name_id == 0) shown.name_id = next_name_id_++;
  ProtoBuffer entry;
  entry.field(interned::kId, shown.name_id);
  entry.bytes(interned::kName,
              std::to_string(shown.tid) + " " + std::string(tables_.text(shown.comm)));
  ProtoBuffer data;
  data.bytes(interned::kEventNames, entry.data());
  packet(ts_ns, packet::kInternedData, data.data());
  return shown.name_id;
}

// An interned id keeps its name: another name needs another one.
void TraceWriter::rename(ThreadTrack& shown, const Thread& thread, uint64_t ts_ns) {
  shown.comm = thread.comm;
  shown.name_id = 0;
  shown.name_epoch = 0;
  describe_thread(shown, ts_ns);
  if (shown.tid == shown.tgid) describe_process(*thread.process, ts_ns);
}

// A counter of one CPU, made when it is first needed.
uint64_t TraceWriter::stolen_track(uint16_t cpu, uint64_t ts_ns) {
  uint64_t& uuid = at(stolen_tracks_, cpu);
  if (uuid != 0) return uuid;
  uuid = next_uuid_++;
  const std::string number = std::to_string(cpu);
  describe_child({uuid, kRootTrack, "CPU " + number + " time stolen",
                  kStolen + number + ": taken by the hypervisor and interrupts, since boot", 0,
                  track::kUnitNs},
                 ts_ns);
  return uuid;
}

}  // namespace giltop
