// TraceReader: a recording back into the events it was made of.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "event/event.h"
#include "model/snapshot.h"
#include "sink/trace_packets.h"

struct libdeflate_decompressor;

namespace giltop {

// Reads a file once, from its beginning, a block at a time: memory does not grow with its length,
// but with the threads that live at once. Texts and facts of an event hold until the sink returns.
// The file may be hostile: every length and id is checked, and what does not fit is an error that
// names the byte. A file that breaks off in the middle of a packet is a recorder that was killed:
// what is whole is read, and `truncated` says so.
class TraceReader {
 public:
  struct Outcome {
    RunFacts run;
    bool truncated = false;
    uint64_t bytes = 0;
  };
  using EventSink = std::function<void(const Event&)>;

  // Errors: unreadable; not a regular file; not a Perfetto trace.
  static Result<TraceReader> open(const std::string& path, EventTables& tables);

  uint64_t size() const { return size_; }  // of the file when it was opened, bytes
  uint64_t bytes_read() const { return offset_ + at_; }
  // The last that was read; zeros until then.
  const ClockReading& clocks() const { return clocks_; }

  // Errors: not a giltop recording; damaged at a byte.
  Result<Outcome> read(const EventSink& sink);
  // For the sink: read() returns soon, and what its outcome says is of what was read.
  void stop() { stopped_ = true; }

 private:
  enum class TrackKind : uint8_t { none, root, thread, gil, stolen, lead };
  struct Track {
    TrackKind kind = TrackKind::none;
    uint8_t open = 0;  // interned name of the open slice, 0: none
    uint16_t cpu = 0;
    uint32_t tgid = 0, tid = 0;  // of a thread's track and its GIL track
    uint64_t gil = 0;
    uint64_t next = 0;  // of the thread's GIL tracks
  };
  struct Task {
    uint32_t tgid = 0;
    uint64_t track = 0;
    uint64_t running_ns = 0;  // when it was last drawn running
    uint64_t drawn_ns = 0;    // a state of this time is part of an event told by an instant
  };
  struct Annotations;
  struct Damaged;  // thrown inside, caught in read()

  TraceReader(Fd fd, std::string path, EventTables& tables)
      : fd_(std::move(fd)), path_(std::move(path)), tables_(tables) {}

  bool fill(size_t bytes);  // false: the file ends before
  void bundle(std::string_view compressed);
  void packets(std::string_view records);
  void packet(std::string_view data);
  void clock_snapshot(std::string_view data);
  void advance_to(uint64_t ts_ns);
  void descriptor(std::string_view data);
  void track_event(std::string_view data);
  void task_state(std::string_view data);
  void set_lead(int64_t ns);
  void sample(uint64_t name_id, const Annotations& notes);
  void run_facts(const Annotations& notes);
  void root_instant(std::string_view name, const Annotations& notes);
  void emit(Event event);
  Track& track(uint64_t uuid);
  Track& add_track(uint64_t uuid);
  void forget_track(uint64_t uuid);
  void end_thread(uint32_t tid);
  Task* task(uint32_t tid);  // null: no such thread is alive

  Fd fd_;
  std::string path_;
  EventTables& tables_;
  const EventSink* sink_ = nullptr;
  bool stopped_ = false;
  Outcome outcome_;
  uint64_t size_ = 0;
  ClockReading clocks_;
  std::string buffer_;
  size_t at_ = 0;        // consumed of buffer_
  uint64_t offset_ = 0;  // file offset of buffer_'s beginning
  struct DecompressorDeleter {
    void operator()(libdeflate_decompressor* d) const;
  };
  std::unique_ptr<libdeflate_decompressor, DecompressorDeleter> decompressor_;
  std::string inflated_;
  uint64_t now_ns_ = 0;
  uint64_t begun_ns_ = 0;  // of the first clock reading
  bool has_clock_ = false;
  bool is_giltop_ = false;
  bool draws_raw_ = false;  // kFormat1: a state is drawn for an event that is told apart, too
  bool ended_ = false;
  // Those that tell events; the last that were asked for are found at once.
  std::unordered_map<uint64_t, Track> tracks_;
  struct Recent {
    uint64_t uuid = 0;
    Track* track = nullptr;
  };
  std::array<Recent, 256> recent_;
  Track other_;  // any that tells none, or is over
  uint64_t last_track_ = 0;
  std::unordered_map<uint32_t, Task> tasks_;
  std::vector<std::pair<uint32_t, uint64_t>>
      dead_;  // that died last, and when they had begun to run
  uint64_t dead_ns_ = 0;
  std::vector<uint64_t> cpu_uncharged_;
  int64_t lead_ns_ = 0;  // of the switch-out that comes next
  uint8_t sight_ = 0;    // the same: bits of its state
};

}  // namespace giltop
