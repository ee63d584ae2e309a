// What the parts of the checker of traces share.
#pragma once

#include <map>
#include <protozero/pbf_reader.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/trace_checker.h"

namespace giltop::testing {

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
    bool held = false;      // is a hold
    bool by_rank = false;   // its children are ordered
  };
  struct Task {
    uint64_t state = 0, last_ns = ~uint64_t{0};  // since when
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
  struct Run {
    uint64_t tid, uuid;
  };
  std::map<uint64_t, Run> on_cpu_;  // by CPU
  std::set<uint64_t> flows_, ended_flows_;
};

inline std::string_view view(pbf_reader& reader) {
  const auto data = reader.get_view();
  return {data.data(), data.size()};
}

inline pbf_reader reader_of(std::string_view data) { return pbf_reader(data.data(), data.size()); }

}  // namespace giltop::testing
