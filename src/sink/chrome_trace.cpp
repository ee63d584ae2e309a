#include "sink/chrome_trace.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <protozero/pbf_reader.hpp>
#include <utility>

#include "sink/trace_format.h"

namespace giltop {

using namespace trace;
using protozero::pbf_reader;

namespace {

// Rows of a thread are told apart from the thread itself, and from each other, by this and its tid.
constexpr uint64_t kGilRow = 10'000'000, kCpuRow = 20'000'000;
constexpr uint64_t kOwnerRow = 30'000'000;  // and the how manieth

pbf_reader reader_of(std::string_view data) { return pbf_reader(data.data(), data.size()); }

std::string_view view_of(pbf_reader& reader) {
  const auto data = reader.get_view();
  return {data.data(), data.size()};
}

// A text from the target may be anything: what is no UTF-8 becomes U+FFFD.
std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

const char* state_name(uint64_t state) {
  switch (state) {
    case task::kRunning:
      return "running";
    case task::kRunnable:
      return "wants a CPU";
    case task::kInterruptible:
      return "asleep";
    case task::kUninterruptible:
      return "asleep, uninterruptible";
    case task::kStopped:
      return "stopped";
    default:
      return nullptr;
  }
}

// The fields of a small message, where none is repeated.
class Fields {
 public:
  explicit Fields(std::string_view data) {
    for (pbf_reader reader = reader_of(data); reader.next() && count_ < list_.size();) {
      Field& field = list_[count_];
      field.tag = reader.tag();
      if (reader.wire_type() == protozero::pbf_wire_type::varint) {
        field.number = reader.get_uint64();
        count_++;
      } else if (reader.wire_type() == protozero::pbf_wire_type::length_delimited) {
        field.text = view_of(reader);
        count_++;
      } else {
        reader.skip();
      }
    }
  }
  bool has(uint32_t tag) const { return find(tag).tag == tag; }
  uint64_t number(uint32_t tag) const { return find(tag).number; }
  std::string_view text(uint32_t tag) const { return find(tag).text; }

 private:
  struct Field {
    uint32_t tag = 0;
    uint64_t number = 0;
    std::string_view text;
  };
  const Field& find(uint32_t tag) const {
    static const Field kNone;
    for (size_t i = 0; i < count_; i++)
      if (list_[i].tag == tag) return list_[i];
    return kNone;
  }
  std::array<Field, 16> list_;
  size_t count_ = 0;
};

}  // namespace

struct ChromeTrace::TrackEvent {
  uint64_t type = 0, track = 0, value = 0, flow = 0;
  bool ends_flow = false;
  std::string name, arguments;

  void add(std::string_view argument, std::string_view json) {
    arguments += fmt::format("{}{}:{}", arguments.empty() ? "" : ",", json_text(argument), json);
  }
};

void ChromeTrace::take(std::string_view block) {
  for (pbf_reader reader = reader_of(block); reader.next();) packet(view_of(reader));
}

void ChromeTrace::packet(std::string_view data) {
  const Fields fields(data);
  const auto part = [&](uint32_t tag) { return fields.text(tag); };
  if (const auto names = part(packet::kInternedData); !names.empty()) interned(names);
  if (const auto snapshot = part(packet::kClockSnapshot); !snapshot.empty()) {
    clocks(snapshot);
    return;
  }
  now_ns_ += fields.number(packet::kTimestamp);
  if (const auto track = part(packet::kTrackDescriptor); !track.empty()) descriptor(track);
  if (const auto event = part(packet::kTrackEvent); !event.empty()) track_event(event);
  if (const auto state = part(packet::kTaskState); !state.empty()) task_state(state);
}

void ChromeTrace::clocks(std::string_view data) {
  uint64_t boottime = 0, monotonic = 0;
  for (pbf_reader reader = reader_of(data); reader.next(clock_snapshot::kClocks);) {
    const Fields clock(view_of(reader));
    const uint64_t value = clock.number(clock_snapshot::kTimestamp);
    const uint64_t id = clock.number(clock_snapshot::kId);
    if (id == kClockDelta) now_ns_ = value;
    if (id == kClockBoottime) boottime = value;
    if (id == kClockMonotonic) monotonic = value;
  }
  if (monotonic != 0) monotonic_lead_ns_ = static_cast<int64_t>(monotonic - boottime);
}

void ChromeTrace::interned(std::string_view data) {
  for (pbf_reader reader = reader_of(data); reader.next();) {
    const uint32_t kind = reader.tag();
    const Fields entry(view_of(reader));
    const uint64_t id = entry.number(interned::kId);
    auto& names = kind == interned::kEventNames ? names_ : argument_names_;
    names[id] = entry.text(interned::kName);
    if (kind != interned::kEventNames || id < kFirstThreadName) continue;
    // "31874 worker": forgotten with the thread, or when it gets another name.
    const auto tid = static_cast<uint32_t>(std::strtoul(names[id].c_str(), nullptr, 10));
    const auto thread = threads_.find(tid);
    if (thread == threads_.end()) continue;
    const uint64_t former = std::exchange(thread->second.name_id, id);
    if (former != id) names_.erase(former);
  }
}

// --- rows ----------------------------------------------------------------------------------------

void ChromeTrace::row_name(uint32_t pid, uint64_t row, std::string_view name, uint64_t order) {
  write(fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":{}}}}})",
                    pid, row, json_text(name)));
  write(fmt::format(
      R"({{"ph":"M","pid":{},"tid":{},"name":"thread_sort_index","args":{{"sort_index":{}}}}})",
      pid, row, order));
}

void ChromeTrace::name_rows(uint32_t pid, uint32_t tid, std::string_view comm) {
  const uint64_t order = 2 * uint64_t{tid};
  row_name(pid, kGilRow + tid, fmt::format("{} {}: GIL", tid, comm), order);
  row_name(pid, kCpuRow + tid, fmt::format("{} {}: CPU", tid, comm), order + 1);
}

void ChromeTrace::describe_process(uint64_t uuid, std::string_view data) {
  const Fields fields(data);
  const auto pid = static_cast<uint32_t>(fields.number(track::kPid));
  Process& process = processes_[pid];
  if (process.uuid != uuid) {
    forget(process);  // another that had its id
    process = {uuid, {uuid}, 0};
  }
  Track& described = tracks_[uuid];
  described.row = Row::process;
  described.pid = pid;
  write(fmt::format(R"({{"ph":"M","pid":{},"name":"process_name","args":{{"name":{}}}}})", pid,
                    json_text(fields.text(track::kProcessName))));
}

void ChromeTrace::describe_thread(uint64_t uuid, std::string_view data) {
  const Fields fields(data);
  const auto tid = static_cast<uint32_t>(fields.number(track::kTid));
  const auto pid = static_cast<uint32_t>(fields.number(track::kPid));
  if (const auto known = threads_.find(tid); known != threads_.end() && known->second.uuid != uuid)
    forget(tid);
  Thread& thread = threads_[tid];
  if (thread.uuid == 0) {
    Process& process = processes_[pid];
    process.threads++;
    thread.pid = pid;
    thread.uuid = uuid;
    thread.process = process.uuid;
    thread.tracks = {uuid};
    Track& described = tracks_[uuid];
    described.row = Row::thread;
    described.pid = pid;
    described.tid = tid;
  }
  name_rows(pid, tid, fields.text(track::kThreadName));
}

void ChromeTrace::descriptor(std::string_view data) {
  const Fields fields(data);
  const uint64_t uuid = fields.number(track::kUuid), parent = fields.number(track::kParent);
  if (const auto text = fields.text(track::kProcess); !text.empty()) {
    describe_process(uuid, text);
  } else if (const auto thread = fields.text(track::kThread); !thread.empty()) {
    describe_thread(uuid, thread);
  } else if (parent != 0) {
    child(uuid, parent, fields.text(track::kName), fields.has(track::kCounter));
  } else if (uuid == kRootTrack) {
    tracks_[uuid].row = Row::root;
  }
}

void ChromeTrace::child(uint64_t uuid, uint64_t parent, std::string_view name, bool is_counter) {
  const auto found = tracks_.find(parent);
  if (found == tracks_.end()) return;
  const Track above = found->second;
  Track added;
  added.pid = above.pid;
  added.tid = above.tid;
  if (above.row == Row::process) processes_[above.pid].tracks.push_back(uuid);
  if (above.row == Row::thread) {
    added.row = Row::gil;
    added.id = kGilRow + above.tid;
    threads_[above.tid].tracks.push_back(uuid);
  } else if (above.row == Row::process && is_counter) {
    added.row = Row::waiters;
    added.name = name;
  } else if (above.row == Row::process) {
    added.row = Row::owner;
    added.id = kOwnerRow + owners_++;
    row_name(added.pid, added.id, name, 0);
  } else {
    return;
  }
  tracks_[uuid] = std::move(added);
}

// --- events --------------------------------------------------------------------------------------

void ChromeTrace::annotation(std::string_view data, TrackEvent& event) const {
  const Fields fields(data);
  std::string_view name = fields.text(annotation::kName);
  if (const auto known = argument_names_.find(fields.number(annotation::kNameId));
      name.empty() && known != argument_names_.end())
    name = known->second;
  if (fields.has(annotation::kString)) {
    event.add(name, json_text(fields.text(annotation::kString)));
  } else if (fields.has(annotation::kBool)) {
    event.add(name, fields.number(annotation::kBool) != 0 ? "true" : "false");
  } else if (name == kUntil) {
    event.add(name, time(fields.number(annotation::kUint)));
  } else {
    event.add(name, std::to_string(fields.number(annotation::kUint)));
  }
}

void ChromeTrace::track_event(std::string_view data) {
  TrackEvent event;
  for (pbf_reader reader = reader_of(data); reader.next();) {
    switch (reader.tag()) {
      case event::kType:
        event.type = reader.get_uint64();
        break;
      case event::kTrack:
        event.track = reader.get_uint64();
        break;
      case event::kNameId:
        if (const auto name = names_.find(reader.get_uint64()); name != names_.end())
          event.name = name->second;
        break;
      case event::kName:
        event.name = view_of(reader);
        break;
      case event::kCounterValue:
        event.value = reader.get_uint64();
        break;
      case event::kFlow:
      case event::kTerminatingFlow:
        event.ends_flow = reader.tag() == event::kTerminatingFlow;
        event.flow = reader.get_fixed64();
        break;
      case event::kAnnotation:
        annotation(view_of(reader), event);
        break;
      default:
        reader.skip();
    }
  }
  const auto found = tracks_.find(event.track);
  if (found == tracks_.end()) return;
  Track& on = found->second;
  const auto flow = [&](char phase, uint64_t at_ns) {
    write(fmt::format(R"({{"ph":"{}","bp":"e","cat":"gil","name":"hand-off","id":{},)"
                      R"("pid":{},"tid":{},"ts":{}}})",
                      phase, event.flow, on.pid, on.id, time(at_ns)));
  };
  if (on.row == Row::root) {
    root_instant(event);
  } else if (on.row == Row::waiters) {
    write(fmt::format(R"({{"ph":"C","pid":{},"name":{},"ts":{},"args":{{"threads":{}}}}})", on.pid,
                      json_text(on.name), time(now_ns_), event.value));
  } else if (event.type == event::kInstant) {
    write(fmt::format(R"({{"ph":"i","s":"t","cat":"gil","name":{},"pid":{},"tid":{},"ts":{}}})",
                      json_text(event.name), on.pid, on.id, time(now_ns_)));
  } else if (event.type == event::kBegin) {
    on.open = true;
    on.begun_ns = now_ns_;
    on.name = std::move(event.name);
    on.arguments = std::move(event.arguments);
    if (event.flow != 0) flow('f', now_ns_);
  } else if (event.type == event::kEnd && std::exchange(on.open, false)) {
    if (!event.arguments.empty())
      on.arguments += (on.arguments.empty() ? "" : ",") + event.arguments;
    slice(on.pid, on.id, "gil", on.name, on.begun_ns, on.arguments);
    // An arrow begins within its slice.
    if (event.flow != 0 && now_ns_ > on.begun_ns) flow('s', now_ns_ - 1);
  }
}

// Of what has no picture, only losses are drawn.
void ChromeTrace::root_instant(const TrackEvent& event) {
  if (event.name != kLost) return;
  write(fmt::format(R"({{"ph":"i","s":"g","name":{},"pid":0,"tid":0,"ts":{},"args":{{{}}}}})",
                    json_text(event.name), time(now_ns_), event.arguments));
  for (auto& [tid, thread] : threads_) end_state(tid, thread);
}

void ChromeTrace::task_state(std::string_view data) {
  const Fields fields(data);
  const auto tid = static_cast<uint32_t>(fields.number(task::kTid));
  const auto found = threads_.find(tid);
  if (found == threads_.end()) return;
  Thread& thread = found->second;
  end_state(tid, thread);
  thread.state = state_name(fields.number(task::kState));
  thread.since_ns = now_ns_;
  thread.cpu =
      fields.has(task::kCpu) ? static_cast<int64_t>(fields.number(task::kCpu)) : int64_t{-1};
  if (!thread.state) forget(tid);
}

void ChromeTrace::end_state(uint32_t tid, Thread& thread) {
  const char* const state = std::exchange(thread.state, nullptr);
  if (!state) return;
  const bool runs = std::string_view(state) == "running";
  slice(thread.pid, kCpuRow + tid, "sched", state, thread.since_ns,
        runs ? fmt::format(R"("cpu":{})", thread.cpu) : std::string());
}

void ChromeTrace::forget(uint32_t tid) {
  const auto found = threads_.find(tid);
  if (found == threads_.end()) return;
  const Thread& thread = found->second;
  end_state(tid, found->second);
  for (const uint64_t uuid : thread.tracks) tracks_.erase(uuid);
  names_.erase(thread.name_id);
  const auto process = processes_.find(thread.pid);
  if (process != processes_.end() && process->second.uuid == thread.process &&
      --process->second.threads == 0) {
    forget(process->second);
    processes_.erase(process);
  }
  threads_.erase(found);
}

void ChromeTrace::forget(const Process& process) {
  for (const uint64_t uuid : process.tracks) tracks_.erase(uuid);
}

// --- text ----------------------------------------------------------------------------------------

std::string ChromeTrace::time(uint64_t boot_ns) const {
  const uint64_t ns = boot_ns + static_cast<uint64_t>(monotonic_lead_ns_);
  return fmt::format("{}.{:03}", ns / 1000, ns % 1000);
}

void ChromeTrace::slice(uint32_t pid, uint64_t row, const char* category, std::string_view name,
                        uint64_t begun_ns, std::string_view arguments) {
  const uint64_t length_ns = now_ns_ - begun_ns;
  write(fmt::format(R"({{"ph":"X","cat":"{}","name":{},"pid":{},"tid":{},"ts":{},"dur":{}.{:03},)"
                    R"("args":{{{}}}}})",
                    category, json_text(name), pid, row, time(begun_ns), length_ns / 1000,
                    length_ns % 1000, arguments));
}

void ChromeTrace::write(std::string_view event) {
  text_(std::exchange(any_, true) ? ",\n" : "{\"traceEvents\":[\n");
  text_(event);
}

void ChromeTrace::finish(const RunFacts& run, uint64_t lost_events) {
  for (auto& [tid, thread] : threads_) end_state(tid, thread);
  if (!any_) text_("{\"traceEvents\":[");
  // VizTracer, which puts files together, looks for its own key.
  text_(fmt::format(
      "\n],\"displayTimeUnit\":\"ns\",\"viztracer_metadata\":{{}},\n"
      "\"otherData\":{{\"giltop\":{},\"kernel\":{},\"mode\":{},\"clock\":"
      "\"CLOCK_MONOTONIC\",\"events\":{},\"lost_events\":{}}}}}\n",
      json_text(run.version), json_text(run.kernel), json_text(run.mode), run.events, lost_events));
}

}  // namespace giltop
