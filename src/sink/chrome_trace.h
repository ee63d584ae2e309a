// ChromeTrace: what TraceWriter drew, as Chrome's JSON trace events.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

// Takes the blocks of one TraceWriter, in their order, and writes an event as soon as it is over:
// memory grows with what lives at once only. A thread has two rows of its own, for the GIL and for
// the scheduler, below its process: a row of its real id is a profiler's, whose file of the same
// run may be put together with this one. Times are CLOCK_MONOTONIC in microseconds, as VizTracer's.
class ChromeTrace {
 public:
  using TextSink = std::function<void(std::string_view text)>;
  explicit ChromeTrace(TextSink text) : text_(std::move(text)) {}

  void take(std::string_view block);
  void finish(const RunFacts& run, uint64_t lost_events);

 private:
  enum class Row : uint8_t { none, root, process, thread, gil, owner, waiters };
  struct Track {
    Row row = Row::none;
    uint32_t pid = 0, tid = 0;
    uint64_t id = 0;  // of the row that its slices are on, or the counter's
    bool open = false;
    uint64_t begun_ns = 0;
    std::string name;       // of the open slice; a counter's own
    std::string arguments;  // of the open slice, as JSON
  };
  struct Process {
    uint64_t uuid = 0;
    std::vector<uint64_t> tracks;
    size_t threads = 0;  // that live
  };
  struct Thread {
    uint32_t pid = 0;
    uint64_t uuid = 0, process = 0;  // of the tracks
    std::vector<uint64_t> tracks;
    uint64_t name_id = 0;         // interned
    const char* state = nullptr;  // that lasts; null: none is known
    uint64_t since_ns = 0;
    int64_t cpu = -1;
  };
  struct TrackEvent;

  void packet(std::string_view data);
  void clocks(std::string_view data);
  void interned(std::string_view data);
  void descriptor(std::string_view data);
  void describe_process(uint64_t uuid, std::string_view data);
  void describe_thread(uint64_t uuid, std::string_view data);
  void child(uint64_t uuid, uint64_t parent, std::string_view name, bool is_counter);
  void name_rows(uint32_t pid, uint32_t tid, std::string_view comm);
  void track_event(std::string_view data);
  void annotation(std::string_view data, TrackEvent& event) const;
  void root_instant(const TrackEvent& event);
  void task_state(std::string_view data);
  void end_state(uint32_t tid, Thread& thread);
  void forget(uint32_t tid);
  void forget(const Process& process);

  void write(std::string_view event);
  void slice(uint32_t pid, uint64_t row, const char* category, std::string_view name,
             uint64_t begun_ns, std::string_view arguments);
  void row_name(uint32_t pid, uint64_t row, std::string_view name, uint64_t order);
  std::string time(uint64_t boot_ns) const;

  TextSink text_;
  bool any_ = false;
  uint64_t now_ns_ = 0;
  int64_t monotonic_lead_ns_ = 0;  // to be added to CLOCK_BOOTTIME
  std::unordered_map<uint64_t, std::string> names_, argument_names_;
  std::unordered_map<uint64_t, Track> tracks_;
  std::unordered_map<uint32_t, Process> processes_;  // by pid
  std::map<uint32_t, Thread> threads_;               // by tid
  uint64_t owners_ = 0;
};

}  // namespace giltop
