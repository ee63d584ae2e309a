// TraceWriter: events and what they changed, as packets of a Perfetto trace.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/model.h"
#include "model/snapshot.h"
#include "sink/proto_buffer.h"

namespace giltop {

struct ClockReading {
  uint64_t boottime_ns = 0, monotonic_ns = 0, realtime_ns = 0;
};

struct SystemFacts {
  std::string sysname, release, version, machine;
  unsigned cpus = 0;
};

// What is written can be read back into the same events (TraceReader), but for those that change
// nothing. Per thread the writer keeps what the importer believes, because the importer refuses
// some sequences (two RUNNING in a row); such an event is written as an instant of its own instead.
class TraceWriter {
 public:
  // `block` receives whole packet records, at most trace::kMaxBlockBytes at a time.
  using BlockSink = std::function<void(std::string block)>;
  TraceWriter(const EventTables& tables, BlockSink block);

  void start(const SystemFacts& system, const ClockReading& clocks, const RunFacts& run);
  void write(const Event& event, const Change& change);
  void run_facts(uint64_t ts_ns, const RunFacts& run);
  void clocks(const ClockReading& clocks);
  void finish(uint64_t ts_ns, const RunFacts& run);
  void flush();  // hands over what there is

 private:
  enum class Open : uint8_t { none, wait, held };
  struct GilTrack {
    const Gil* gil;
    uint64_t uuid;
  };
  struct ThreadTrack {
    const Thread* thread = nullptr;
    uint64_t uuid = 0;  // 0: no descriptor yet
    std::vector<GilTrack> gils;
    uint64_t open_uuid = 0;
    const Gil* open_gil = nullptr;
    Open open = Open::none;
    uint8_t task_state = 0;  // trace::task; 0: none that the importer could hold against us
    uint16_t cpu = 0;
    uint32_t comm = 0;
    uint32_t name_epoch = 0;  // when its name was interned
    bool ended = false;
  };
  struct GilTracks {
    uint64_t owner = 0, waiters = 0;
    bool owner_open = false;
    uint64_t shown_waiters = 0;
  };
  struct ProcessTrack {
    uint64_t uuid = 0;
  };

  ThreadTrack& track_of(const Thread& thread, uint64_t ts_ns);
  uint64_t process_uuid(const Process& process, uint64_t ts_ns);
  void add_thread(ThreadTrack& track, const Thread& thread, uint64_t ts_ns);
  uint64_t gil_track(ThreadTrack& track, const Gil& gil, uint64_t ts_ns);
  uint64_t add_gil_track(ThreadTrack& track, const Gil& gil, uint64_t ts_ns);
  GilTracks& gil_tracks(const Gil& gil, uint64_t ts_ns);
  void add_gil(GilTracks& tracks, const Gil& gil, uint64_t ts_ns);
  void describe_process(const Process& process, uint64_t ts_ns);
  void describe_thread(const ThreadTrack& track, uint64_t ts_ns);

  void make_room(uint64_t ts_ns);
  void write_clocks();
  static constexpr size_t kMaxHotPacket = 128;  // bytes
  struct Packet {
    ProtoFields fields;
    char* length;
  };
  Packet begin_packet(uint64_t ts_ns);
  void end_packet(Packet& packet);
  void packet(uint64_t ts_ns, uint32_t field, std::string_view message);
  void begin_sequence(uint64_t ts_ns, const ClockReading* clocks, bool first);
  void slice_begin(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow = 0);
  void slice_end(uint64_t ts_ns, uint64_t uuid, uint64_t flow, bool cut);
  void instant(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow = 0);
  void counter(uint64_t ts_ns, uint64_t uuid, uint64_t value);
  void task_state(uint64_t ts_ns, int cpu, uint32_t tid, uint32_t state);
  void intern_thread_name(ThreadTrack& track, uint64_t ts_ns);

  void close_slice(ThreadTrack& track, uint64_t ts_ns);
  void owner_close(const Gil& gil, uint64_t ts_ns);
  void show_waiters(const Gil& gil, uint64_t ts_ns);
  uint64_t cpu_track(std::vector<uint64_t>& tracks, uint16_t cpu, const char* what,
                     uint64_t ts_ns);
  void show_uncharged(const Event& event);
  void write_gil(const Event& event, const Change& change);
  void write_sched(const Event& event, const Change& change);
  void write_life(const Event& event, const Change& change);
  void write_loss(const Event& event);
  void write_raw(const Event& event);
  void close_track(ThreadTrack& track, uint64_t ts_ns);
  void end_track(ThreadTrack& track, uint64_t ts_ns, bool exec);

  // An instant of the root track: begin, then annotations, then end.
  void root_begin(const char* name);
  void note(std::string_view name, uint64_t value);
  void note(std::string_view name, std::string_view text);
  void root_end(uint64_t ts_ns);

  const EventTables& tables_;
  BlockSink block_;
  ProtoBuffer out_;
  ProtoBuffer event_;  // the message under construction
  uint64_t last_ns_ = 0;
  std::optional<ClockReading> unwritten_clocks_;
  uint64_t next_uuid_ = 2;
  uint32_t epoch_ = 0;  // of interned data; a loss begins a new one
  bool has_sequence_ = false;
  std::vector<ThreadTrack> threads_;
  std::unordered_map<uint32_t, uint32_t> by_tid_;  // the last thread of an id
  std::vector<ProcessTrack> processes_;
  std::vector<GilTracks> gils_;
  std::vector<uint64_t> stolen_tracks_, lead_tracks_;  // uuids, by CPU
  std::vector<uint64_t> cpu_uncharged_;
};

}  // namespace giltop
