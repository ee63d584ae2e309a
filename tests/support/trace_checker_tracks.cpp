// The rules of tracks, of what is on them, and of the scheduler's states.
#include "support/trace_checker_impl.h"

namespace giltop::testing {

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
      track.held = name_id != 0 && names_[name_id] == "GIL held";
      if (arguments.contains("contended")) counts_.contended += arguments["contended"];
      break;
    case kEnd:
      if (track.depth == 0) {
        rule("an end without a beginning on track " + std::to_string(uuid));
      } else {
        track.depth--;
        if (track.held) counts_.held_ns[tracks_[track.parent].tid] += now_ns_ - track.begun_ns;
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
    if (current != on_cpu_.end() && current->second.tid != 0) {
      Task& other = tasks_[current->second.tid];
      if (other.uuid == current->second.uuid) {  // and not another by now
        if (other.state == kRunning)
          counts_.running_ns[current->second.tid] += now_ns_ - other.last_ns;
        other.state = kNull;
        if (other.last_ns == now_ns_)
          rule("thread " + std::to_string(current->second.tid) + " runs for no time");
        other.last_ns = now_ns_;
      }
    }
    on_cpu_[cpu] = {tid, tasks_[tid].uuid};
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
  if (state != kRunning)  // no CPU is CPU 0
    if (const auto current = on_cpu_.find(cpu);
        current != on_cpu_.end() && current->second.tid == tid)
      on_cpu_.erase(current);
  if (task.state == kRunning) counts_.running_ns[tid] += now_ns_ - task.last_ns;
  task.state = state;
  task.last_ns = now_ns_;
  if (state == kRunning) task.cpu = cpu;
}

}  // namespace giltop::testing
