#include "probe/targets.h"

#include <bpf/bpf.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/clock.h"
#include "probe/gil_readings.h"
#include "target/process.h"
#include "target/process_gils.h"

namespace giltop {
namespace {

constexpr size_t kMaxRefusals = 64;  // lines

std::map<pid_t, std::string> threads_of(uint32_t tgid) {
  std::map<pid_t, std::string> result;
  if (const auto threads = process_threads(static_cast<pid_t>(tgid)))
    for (const ThreadInfo& t : *threads) result[t.tid] = t.comm;
  return result;
}

}  // namespace

// --- which processes -----------------------------------------------------------------------------

Status Targets::track(uint32_t tgid) {
  const uint64_t now = boot_ns();
  if (maps_.images >= 0) bpf_map_update_elem(maps_.images, &tgid, &now, BPF_ANY);
  if (!maps_.tracked.set(tgid, track_as()))
    return Error("cannot trace process " + std::to_string(tgid) + ": no process has such an id");
  new_.emplace_back(tgid, nullptr);
  return ok();
}

// Where the process of that id maps `file`, as it was seen before, and is still. Null: look anew. A
// process's mappings are costly to read, one of them is not.
const MappedFile* Targets::seen_place(uint32_t tgid, const File* file) const {
  const auto image = images_.find(tgid);
  if (image == images_.end() || !file || image->second.seen.file != file) return nullptr;
  const Mapped& seen = image->second.seen;
  const auto now = mapping_id(static_cast<pid_t>(tgid), seen.place);
  return now && *now == seen.id ? &seen.place : nullptr;
}

// Whether the process of that id is still one that runs `file`.
bool Targets::maps(uint32_t tgid, const File* file) const {
  if (seen_place(tgid, file)) return true;
  const auto pid = static_cast<pid_t>(tgid);
  const auto program = executable_id(pid);
  if (!program) return false;
  if (attachments_.find(*program) == file) return true;
  const auto mappings = executable_mappings(pid);
  if (!mappings) return false;
  return std::any_of(mappings->begin(), mappings->end(), [&](const MappedFile& place) {
    const auto id = mapping_id(pid, place);
    return id && attachments_.find(*id) == file;
  });
}

Targets::Witness::Witness(const Targets& targets, uint32_t tgid, const File* file)
    : targets_(targets),
      tgid_(tgid),
      file_(file),
      process_(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(tgid), 0))),
      began_(!file || targets.maps(tgid, file)) {}

bool Targets::Witness::holds() const {
  pollfd ended{process_.get(), POLLIN, 0};
  return began_ && process_ && (!file_ || targets_.maps(tgid_, file_)) && poll(&ended, 1, 0) == 0;
}

// Traces one that runs already, unless its id went to another process since we looked, or the
// kernel side has come to trace it, and tells. What it does from here on is in its file's mode.
bool Targets::trace_running(uint32_t tgid, const File& file,
                            const std::function<bool()>& is_there) {
  const uint64_t before_ns = boot_ns();
  if (is_tracked(tgid)) return false;
  // First, as a wait may be counted at once.
  if (maps_.images >= 0) bpf_map_update_elem(maps_.images, &tgid, &before_ns, BPF_NOEXIST);
  if (!maps_.tracked.claim(tgid, track_as())) return false;
  if (!is_there()) {
    maps_.tracked.give_up(tgid);
    uint64_t began_ns = 0;
    if (maps_.images >= 0 && bpf_map_lookup_elem(maps_.images, &tgid, &began_ns) == 0 &&
        began_ns == before_ns)
      bpf_map_delete_elem(maps_.images, &tgid);
    return false;
  }
  maps_.tracked.keep(tgid);
  new_.emplace_back(tgid, &file);
  if (armed_ && file.is_light()) push_(mode_event(tgid, before_ns, true));
  return true;
}

void Targets::untrack(uint32_t tgid) {
  maps_.tracked.erase(tgid);
  if (maps_.images >= 0) bpf_map_delete_elem(maps_.images, &tgid);
  std::erase_if(new_, [tgid](const auto& traced) { return traced.first == tgid; });
}

Status Targets::attach_process(uint32_t tgid) {
  const std::string id = std::to_string(tgid);
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (!info) return info.error();
  const std::string who = "cannot trace " + id + " (" + info->comm + ")";
  auto files = mapped_files(tgid);
  if (!files) return files.error().in(who);
  if (files->empty()) return Error(who + ": it maps no program: a kernel thread or a zombie");
  std::string reason;
  Image image;
  for (File* file : *files) {
    if (file->is_traced()) {
      image.pythons.push_back(file);
    } else if (!file->refusal().empty()) {
      reason = file->refusal();
    }
  }
  if (reason.empty()) reason = files->front()->error;
  if (image.pythons.empty())
    return Error(who + ": " + (reason.empty() ? "it is not a Python process" : reason));
  report(tgid, image, kWhenSeen, false);
  images_[tgid] = std::move(image);
  return ok();
}

void Targets::attach_all() {
  for (const pid_t pid : process_ids()) {
    const auto tgid = static_cast<uint32_t>(pid);
    if (is_tracked(tgid)) continue;
    const auto mappings = executable_mappings(pid);
    if (!mappings) continue;  // it ended
    Image image;
    Mapped proof;
    for (const MappedFile& place : *mappings) {
      const auto id = mapping_id(pid, place);
      if (!id) continue;
      File* file = file_of(pid, *id, place);
      if (!file) continue;
      refuse(tgid, *file);
      if (!file->is_traced() || image.has(file)) continue;
      image.pythons.push_back(file);
      proof = {file, *id, place};
    }
    if (image.pythons.empty() || !adopt(tgid, proof)) continue;
    know_program(tgid, *proof.file);
    image.seen = proof;
    images_[tgid] = image;
    report(tgid, image, kWhenSeen, false);
  }
}

bool Targets::adopt(uint32_t tgid, const Mapped& mapped) {
  return trace_running(tgid, *mapped.file, [&] {
    const auto now = mapping_id(static_cast<pid_t>(tgid), mapped.place);
    return now && *now == mapped.id;
  });
}

void Targets::rescan_processes() {
  attach_all();
  see_threads(boot_ns);
}

void Targets::rescan() {
  if (options_.host_wide) attach_all();
  std::vector<uint32_t> traced;
  maps_.tracked.for_each([&](uint32_t tgid) { traced.push_back(tgid); });
  for (const uint32_t tgid : traced) (void)look_at(tgid);
  see_threads(boot_ns);
}

// False: it runs no Python but what is known already.
bool Targets::look_at(uint32_t tgid) {
  Image& image = images_[tgid];
  if (image.at_loader) return false;
  const size_t probed = attachments_.probed_files();
  const auto files = mapped_files(tgid);
  if (!files) return false;
  const File* more = nullptr;
  for (File* file : *files) {
    if (!file->is_traced() || image.has(file)) continue;
    image.pythons.push_back(file);
    more = file;
  }
  if (!more) return false;
  report(tgid, image, kWhenSeen, attachments_.probed_files() != probed);
  new_.emplace_back(tgid, more);
  return true;
}

// --- their threads -------------------------------------------------------------------------------

// A thread that was there before and after `now` was there at it. One that is there only after may
// have been made on either side of it: if no fork event tells, it is reported later.
void Targets::see_threads(const std::function<uint64_t()>& now) {
  struct Seen {
    uint32_t tgid;
    const File* file;
    Witness witness;
    std::map<pid_t, std::string> before;
  };
  std::vector<Seen> all;
  for (const auto& [tgid, file] : std::exchange(new_, {}))
    all.push_back({tgid, file, Witness(*this, tgid, file), threads_of(tgid)});
  std::vector<std::pair<uint32_t, ProcessFacts>> unseen = std::exchange(unseen_, {});
  const uint64_t now_ns = now();
  armed_ = true;
  // Before waits are read: the kernel side tells the end of one if it knows for what it is.
  light_gils_.look(boot_ns());
  for (const Seen& seen : all) {
    std::vector<Event> events;
    for (const auto& [tgid, facts] : unseen) {
      if (tgid != seen.tgid) continue;
      Event& event = events.emplace_back();
      event.kind = EventKind::process;
      event.ts_ns = now_ns;
      event.tgid = tgid;
      event.other = tables_.add(facts, now_ns);
      const auto image = images_.find(tgid);
      if (image != images_.end()) image->second.seen_ns = now_ns;
      const bool light = image != images_.end() && image->second.is_light();
      if (light || chooser_) events.push_back(mode_event(tgid, now_ns, light));
    }
    const auto threads = threads_of(seen.tgid);
    const uint64_t listed_ns = boot_ns();
    for (const auto& [tid, comm] : threads) {
      if (!seen.before.contains(tid)) continue;
      Event& event = events.emplace_back();
      event.kind = EventKind::thread_seen;
      event.ts_ns = now_ns;
      event.tgid = seen.tgid;
      event.tid = static_cast<uint32_t>(tid);
      event.other = tables_.intern(comm, now_ns);
    }
    add_namespace_ids(seen.tgid, threads, events);
    add_gil_readings(seen.tgid, events);
    if (!seen.witness.holds()) {
      forget_python(seen.tgid, seen.file);
      continue;
    }
    for (const Event& event : events) push_(event);
    for (const auto& [tid, comm] : threads)
      if (!seen.before.contains(tid))
        pending_threads_[{seen.tgid, static_cast<uint32_t>(tid)}] = listed_ns;
  }
}

// It ended while it was looked at, and what was seen may be of its id's next owner. If it has run
// Python, its first GIL event is yet to tell of it.
void Targets::forget_python(uint32_t tgid, const File* file) {
  const auto image = images_.find(tgid);
  if (image == images_.end()) return;
  std::erase_if(image->second.pythons,
                [file](const File* python) { return !file || python == file; });
}

// Ids of a container, where the process is in one.
void Targets::add_namespace_ids(uint32_t tgid, const std::map<pid_t, std::string>& threads,
                                std::vector<Event>& events) const {
  const auto pid = static_cast<pid_t>(tgid);
  const auto own = namespace_ids(pid, pid);
  if (!own || own->size() < 2) return;
  for (const auto& [tid, comm] : threads) {
    const auto ids = namespace_ids(pid, tid);
    if (!ids || ids->size() < 2) continue;
    Event& event = events.emplace_back();
    event.kind = EventKind::ns_id;
    event.ts_ns = boot_ns();
    event.tgid = tgid;
    event.tid = static_cast<uint32_t>(tid);
    event.other = static_cast<uint32_t>(ids->back());
  }
}

// Who holds its GILs now. Its events are seen already, and prevail.
void Targets::add_gil_readings(uint32_t tgid, std::vector<Event>& events) const {
  const auto found = images_.find(tgid);
  if (found == images_.end()) return;
  for (const File* file : found->second.pythons) {
    const CPythonFile& python = file->inspection.cpython;
    const auto bias = bias_of(tgid, python);
    if (!bias) continue;
    if (const auto read = read_gils(static_cast<pid_t>(tgid), python, *bias)) {
      const std::vector<Event> readings = reading_events(tgid, *read);
      events.insert(events.end(), readings.begin(), readings.end());
    }
  }
}

// Where the process has mapped that file. Nothing: nowhere, by now.
std::optional<uint64_t> Targets::bias_of(uint32_t tgid, const CPythonFile& python) const {
  const auto pid = static_cast<pid_t>(tgid);
  if (const auto image = images_.find(tgid); image != images_.end()) {
    const File* const file = image->second.seen.file;
    if (file && &file->inspection.cpython == &python)
      if (const MappedFile* const place = seen_place(tgid, file))
        if (const auto bias = load_bias(python, *place)) return bias;
  }
  const auto mappings = executable_mappings(pid);
  if (!mappings) return std::nullopt;
  for (const MappedFile& place : *mappings) {
    const auto id = mapping_id(pid, place);
    const File* const file = id ? attachments_.find(*id) : nullptr;
    if (!file || &file->inspection.cpython != &python) continue;
    if (const auto bias = load_bias(python, place)) return bias;
  }
  return std::nullopt;
}

void Targets::on_fork(const Event& fork) {
  if (!pending_threads_.empty()) pending_threads_.erase({fork.tgid, fork.tid});
}

void Targets::settle_threads(uint64_t now_ns) {
  std::erase_if(pending_threads_, [&](const auto& pending) {
    const auto& [thread, listed_ns] = pending;
    if (listed_ns > now_ns) return false;
    Event event;
    event.kind = EventKind::thread_seen;
    event.ts_ns = now_ns;
    event.tgid = thread.first;
    event.tid = thread.second;
    push_(event);
    return true;
  });
}

bool Targets::inherits(uint32_t tgid, const File* file) const {
  const auto child = inherited_.find(tgid);
  return child != inherited_.end() &&
         std::find(child->second.begin(), child->second.end(), file) != child->second.end();
}

// --- what they run -------------------------------------------------------------------------------

Result<std::vector<Attachments::File*>> Targets::mapped_files(uint32_t tgid) {
  const auto pid = static_cast<pid_t>(tgid);
  auto mappings = executable_mappings(pid);
  if (!mappings) return mappings.error();
  std::vector<File*> files;
  for (const MappedFile& mapping : *mappings) {
    const auto id = mapping_id(pid, mapping);
    File* file = id ? file_of(pid, *id, mapping) : nullptr;
    if (!file) {
      auto fd = open_mapping(pid, mapping);
      if (!fd) continue;  // gone again, or not a file at all
      file = attachments_.add(std::move(*fd), mapping.path);
    }
    if (std::find(files.begin(), files.end(), file) == files.end()) files.push_back(file);
  }
  return files;
}

// The file at `place` of a process, whose identity is known. Null: it is gone.
Targets::File* Targets::file_of(pid_t pid, const FileId& id, const MappedFile& place) {
  File* file = attachments_.find(id);
  const bool untried =
      !file || (file->inspection.kind == Inspection::Kind::cpython && !file->is_traced());
  if (!untried) return file;
  auto fd = open_mapping(pid, place);
  return fd ? attachments_.add(std::move(*fd), place.path) : file;
}

void Targets::report(uint32_t tgid, const Image& image, uint64_t ts_ns, bool late,
                     const Told& told) {
  ProcessFacts facts;
  facts.late = late;
  facts.comm = told.comm;
  facts.user = told.user;
  for (const File* file : image.pythons) {
    const CPythonFile& python = file->inspection.cpython;
    if (facts.python.empty()) {
      facts.python = python.version;
      facts.build_id = python.build_id;
    } else {
      facts.python += " and " + python.version;
    }
    facts.free_threaded = facts.free_threaded || python.free_threaded;
  }
  const Witness witness(*this, tgid, image.pythons.front());
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (info && witness.holds()) {
    facts.comm = info->comm;
    facts.cmdline = info->cmdline;
    if (info->user) facts.user = info->user;
  }
  const bool light = image.is_light();
  const auto child = inherited_.find(tgid);
  const bool mode_told = child != inherited_.end() && child->second == image.pythons;
  if (!mode_told) {
    if (light) {
      light_gils_.add(tgid, image.pythons.front()->inspection.cpython, image.pythons.size() == 1);
    } else {
      light_gils_.forget(tgid);
    }
    if (chooser_) maps_.tracked.change(tgid, 0xff, GT_TRACED | GT_TELL | (light ? GT_LIGHT : 0));
    own_.erase(tgid);  // this Python is not among them
  }
  end_unlooked(tgid, image);
  if (ts_ns == kWhenSeen) {
    unseen_.emplace_back(tgid, std::move(facts));
    return;
  }
  Event event;
  event.kind = EventKind::process;
  event.ts_ns = ts_ns;
  event.tgid = tgid;
  event.other = tables_.add(std::move(facts), ts_ns);
  push_(event);
  if (mode_told || (!light && !chooser_)) return;
  const bool was_light = image.was_light_since(ts_ns);
  push_(mode_event(tgid, ts_ns, was_light));
  // Also where it was told another one meanwhile, of what it was before its exec.
  if ((was_light != light || mode_told_ns_ >= ts_ns) && is_tracked(tgid))
    push_(mode_event(tgid, boot_ns(), light));
}

void Targets::refuse(uint32_t tgid, const File& file) {
  const std::string& reason = file.refusal();
  if (reason.empty()) return;
  const std::pair<std::string, std::string> key(file.path, reason);
  const auto known = refusals_.find(key);
  if (known != refusals_.end()) {
    known->second.count++;
  } else if (refusals_.size() < kMaxRefusals) {
    refusals_[key] = {tgid, 1};
  }
}

std::vector<std::string> Targets::refusals() const {
  std::vector<std::string> lines;
  for (const auto& [key, refusal] : refusals_) {
    std::string who = std::to_string(refusal.tgid) + " (" + key.first + ")";
    if (refusal.count > 1) who += " and " + std::to_string(refusal.count - 1) + " more";
    lines.push_back("cannot trace " + who + ": " + key.second);
  }
  for (const File* file : attachments_.numbered())
    if (file && !file->mode_error.empty())
      lines.push_back(file->path + " stays in its mode, whatever that costs: " + file->mode_error);
  if (missed_)
    lines.push_back(
        "some programs ran before giltop could look at them: their first events are missed");
  if (never_entered_ != 0)
    lines.push_back(std::to_string(never_entered_) +
                    " programs ended before giltop saw them start: were they Pythons, they are not "
                    "in the figures");
  return lines;
}

}  // namespace giltop
