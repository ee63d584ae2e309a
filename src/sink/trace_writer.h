// TraceWriter: events and what they changed, as packets of a Perfetto trace.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/model.h"
#include "model/snapshot.h"
#include "sink/trace_format.h"
#include "sink/trace_packets.h"

namespace giltop {

struct SystemFacts {
  std::string sysname, release, version, machine;
  unsigned cpus = 0;
};

// What is written can be read back into the same events (TraceReader), but for those that change
// nothing. Per thread the writer keeps what the importer believes, because the importer refuses
// some sequences (two RUNNING in a row, two states of one moment); such an event is written as an
// instant of its own instead.
// What it keeps is by the model's indexes, so that it forgets what the model forgets; track numbers
// and names are never given again.
class TraceWriter : private TracePackets {
 public:
  using TracePackets::BlockSink;
  using TracePackets::clocks;
  using TracePackets::flush;
  TraceWriter(const EventTables& tables, BlockSink block);

  void start(const SystemFacts& system, const ClockReading& clocks, const RunFacts& run);
  void write(const Event& event, const Change& change);
  void run_facts(uint64_t ts_ns, const RunFacts& run);
  void finish(uint64_t ts_ns, const RunFacts& run);

 private:
  enum class Open : uint8_t { none, wait, held };
  struct GilTrack {
    const Gil* gil;
    uint64_t uuid;
  };
  struct ThreadTrack {
    uint64_t number = 0;  // of the thread; 0: none yet
    uint64_t uuid = 0;
    uint32_t tgid = 0, tid = 0;
    std::vector<GilTrack> gils;
    uint64_t open_uuid = 0;
    const Gil* open_gil = nullptr;
    Open open = Open::none;
    bool open_read = false;  // it rests on a reading alone
    // Of an open hold: what the thread had held the GIL off its CPU before, by CpuState.
    std::array<uint64_t, 4> held_before{};
    uint8_t task_state = 0;  // trace::task; 0: none that the importer could hold against us
    uint64_t state_ns = 0;   // when that was drawn
    uint16_t cpu = 0;
    uint32_t comm = 0;
    uint64_t name_id = 0;     // of its name, interned; 0: it is not yet
    uint32_t name_epoch = 0;  // when it was
    bool ended = false;
  };
  struct GilTracks {
    uint64_t number = 0;  // of the GIL
    uint64_t owner = 0, waiters = 0;
    bool owner_open = false;
    uint64_t shown_waiters = 0;
  };
  struct End {
    uint64_t number;  // of the thread
    uint32_t tid;
    uint32_t state;
    int cpu;
    uint8_t before;  // the state that it had
  };
  struct Off {
    uint64_t number;  // of the thread
    uint32_t tid;
    uint16_t cpu;
  };
  struct ProcessTrack {
    uint64_t number = 0;  // of the process
    uint64_t uuid = 0;
  };

  // Grows.
  template <typename T>
  static T& at(std::vector<T>& list, size_t index) {
    if (index >= list.size()) list.resize(std::max(index + 1, list.size() * 2));
    return list[index];
  }
  ThreadTrack& track_of(const Thread& thread, uint64_t ts_ns);
  ThreadTrack* drawn(const Thread& thread);  // null: it is not
  uint64_t process_uuid(const Process& process, uint64_t ts_ns);
  void add_thread(ThreadTrack& track, const Thread& thread, uint64_t ts_ns);
  // A track below another; its siblings are in the order of their ranks, if the parent says so.
  struct Child {
    uint64_t uuid, parent;
    std::string_view name, description;
    uint64_t rank = 0;
    uint64_t unit = 0;  // of a counter; 0: it is none
  };
  void describe_child(const Child& child, uint64_t ts_ns);
  uint64_t gil_track(ThreadTrack& track, const Gil& gil, uint64_t ts_ns);
  uint64_t add_gil_track(ThreadTrack& track, const Gil& gil, uint64_t ts_ns);
  GilTracks& gil_tracks(const Gil& gil, uint64_t ts_ns);
  void add_gil(GilTracks& tracks, const Gil& gil, uint64_t ts_ns);
  void describe_process(const Process& process, uint64_t ts_ns);
  void describe_thread(const ThreadTrack& track, uint64_t ts_ns);

  uint64_t name_of(ThreadTrack& track, uint64_t ts_ns);
  void rename(ThreadTrack& track, const Thread& thread, uint64_t ts_ns);

  void close_slice(ThreadTrack& track, uint64_t ts_ns);
  void end_wait(ThreadTrack& track, const Thread& thread, uint64_t ts_ns, bool cut);
  void end_held(ThreadTrack& track, const Thread& thread, uint64_t ts_ns, uint64_t flow);
  void owner_close(const Gil& gil, uint64_t ts_ns);
  void show_waiters(const Gil& gil, uint64_t ts_ns);
  uint64_t stolen_track(uint16_t cpu, uint64_t ts_ns);
  void show_uncharged(const Event& event);
  void write_gil(const Event& event, const Change& change);
  void write_light(const Event& event, const Change& change);
  void tell_sample(const Event& event);
  void tell_light(const Event& event, const Gil& gil, ThreadTrack& shown);
  void show_light(const Event& event, const Change& change);
  void draw_held(const Thread& thread, const Gil& gil, uint64_t ts_ns);
  void draw_released(ThreadTrack& shown, uint64_t ts_ns);
  ThreadTrack* runs_on(uint16_t cpu);
  bool draw_task(ThreadTrack& track, uint64_t ts_ns, int cpu, uint32_t state,
                 const OfSwitch& of_switch = {});
  void write_sched(const Event& event, const Change& change);
  void write_life(const Event& event, const Change& change);
  void write_reading(const Event& event, const Change& change);
  void draw_state(ThreadTrack& track, const Gil& gil, bool held, uint64_t ts_ns);
  void close_disproved(const Change& change, uint64_t ts_ns);
  void write_loss(const Event& event);
  void write_raw(const Event& event);
  void close_track(ThreadTrack& track, uint64_t ts_ns);
  void end_track(ThreadTrack& track, uint64_t ts_ns, bool exec);
  void draw_late(uint64_t ts_ns);
  void draw_off(const Off& off, uint64_t ts_ns);
  void draw_end(const End& end, uint64_t ts_ns);

  const EventTables& tables_;
  uint64_t next_uuid_ = 2;
  uint64_t next_name_id_ = trace::kFirstThreadName;
  std::vector<ThreadTrack> threads_;
  std::unordered_map<uint32_t, uint32_t> by_tid_;  // tracks that are not ended
  std::vector<ProcessTrack> processes_;
  std::vector<GilTracks> gils_;
  std::vector<uint64_t> stolen_tracks_;  // uuids, by CPU
  std::vector<uint64_t> cpu_uncharged_;
  std::vector<uint64_t> cpu_runs_;     // number of the thread that the importer takes to run there
  std::vector<uint32_t> cpu_threads_;  // its index
  // Of threads that had another state at the moment of their end, or got their CPU at that of a
  // loss; drawn at the next moment.
  std::vector<End> late_ends_;
  std::vector<Off> late_offs_;
  uint64_t late_ns_ = 0;
  uint64_t lost_events_ = 0;
  std::optional<RunFacts> told_run_;  // what the trace says last
};

}  // namespace giltop
