#include "probe/targets.h"

#include <bpf/bpf.h>
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

constexpr size_t kMaxRemembered = 65536;  // programs or mapped files; then all over again
constexpr size_t kMaxRefusals = 64;       // lines
constexpr uint64_t kTrustMapping_ns = 1'000'000'000;  // then it may have been overwritten

std::map<pid_t, std::string> threads_of(uint32_t tgid) {
  std::map<pid_t, std::string> result;
  if (const auto threads = process_threads(static_cast<pid_t>(tgid)))
    for (const ThreadInfo& t : *threads) result[t.tid] = t.comm;
  return result;
}

std::string_view comm_of(const char (&comm)[GT_COMM]) {
  return std::string_view(comm, strnlen(comm, GT_COMM));
}

bool contains(const std::vector<Attachments::File*>& files, const Attachments::File* file) {
  return std::find(files.begin(), files.end(), file) != files.end();
}

}  // namespace

// --- which processes -----------------------------------------------------------------------------

Status Targets::track(uint32_t tgid) { return trace(tgid, nullptr); }

Status Targets::trace(uint32_t tgid, const File* file) {
  const uint32_t how = GT_TELL;
  if (bpf_map_update_elem(maps_.tracked, &tgid, &how, BPF_ANY) != 0)
    return system_error("trace process " + std::to_string(tgid), errno);
  new_.emplace_back(tgid, file);
  return ok();
}

// Whether the process of that id is still one that runs `file`.
bool Targets::maps(uint32_t tgid, const File* file) const {
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

bool Targets::is_tracked(uint32_t tgid) const {
  uint32_t how = 0;
  return bpf_map_lookup_elem(maps_.tracked, &tgid, &how) == 0;
}

void Targets::untrack(uint32_t tgid) {
  bpf_map_delete_elem(maps_.tracked, &tgid);
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
      if (!file->is_traced() || contains(image.pythons, file)) continue;
      image.pythons.push_back(file);
      proof = {file, *id, place};
    }
    if (image.pythons.empty() || !adopt(tgid, proof)) continue;
    report(tgid, image, kWhenSeen, false);
    images_[tgid] = std::move(image);
  }
}

bool Targets::adopt(uint32_t tgid, const Mapped& mapped) {
  if (!trace(tgid, mapped.file)) return false;
  // The id may have gone to another process since we looked: what it maps tells.
  const auto now = mapping_id(static_cast<pid_t>(tgid), mapped.place);
  if (now && *now == mapped.id) return true;
  untrack(tgid);
  return false;
}

void Targets::rescan() {
  if (options_.host_wide) attach_all();
  std::vector<uint32_t> traced;
  uint32_t key = 0, next = 0;
  for (bool first = true; bpf_map_get_next_key(maps_.tracked, first ? nullptr : &key, &next) == 0;
       first = false) {
    key = next;
    traced.push_back(key);
  }
  for (const uint32_t tgid : traced) {
    Image& image = images_[tgid];
    if (image.at_loader) continue;
    const size_t probed = attachments_.probed_files();
    const auto files = mapped_files(tgid);
    if (!files) continue;
    const size_t had = image.pythons.size();
    for (File* file : *files)
      if (file->is_traced() && !contains(image.pythons, file)) image.pythons.push_back(file);
    if (image.pythons.size() != had)
      report(tgid, image, boot_ns(), attachments_.probed_files() != probed);
  }
  see_threads(boot_ns);
}

// --- their threads -------------------------------------------------------------------------------

// A thread that was there before and after `now` was there at it. One that is there only after may
// have been made on either side of it: if no fork event tells, it is reported later.
void Targets::see_threads(const std::function<uint64_t()>& now) {
  const auto traced = std::exchange(new_, {});
  std::vector<std::map<pid_t, std::string>> before;
  for (const auto& [tgid, file] : traced) before.push_back(threads_of(tgid));
  const uint64_t now_ns = now();
  for (Event& event : std::exchange(unseen_, {})) {
    event.ts_ns = now_ns;
    push_(event);
  }
  for (size_t i = 0; i < traced.size(); i++) {
    const auto& [tgid, file] = traced[i];
    const auto threads = threads_of(tgid);
    if (file && !maps(tgid, file)) continue;
    for (const auto& [tid, comm] : threads) {
      if (!before[i].contains(tid)) {
        pending_threads_.emplace(tgid, static_cast<uint32_t>(tid));
        continue;
      }
      Event event;
      event.kind = EventKind::thread_seen;
      event.ts_ns = now_ns;
      event.tgid = tgid;
      event.tid = static_cast<uint32_t>(tid);
      event.other = tables_.intern(comm);
      push_(event);
    }
    tell_namespace_ids(tgid, threads);
    read_gils_of(tgid);
  }
}

// Ids of a container, where the process is in one.
void Targets::tell_namespace_ids(uint32_t tgid, const std::map<pid_t, std::string>& threads) {
  const auto pid = static_cast<pid_t>(tgid);
  const auto own = namespace_ids(pid, pid);
  if (!own || own->size() < 2) return;
  for (const auto& [tid, comm] : threads) {
    const auto ids = namespace_ids(pid, tid);
    if (!ids || ids->size() < 2) continue;
    Event event;
    event.kind = EventKind::ns_id;
    event.ts_ns = boot_ns();
    event.tgid = tgid;
    event.tid = static_cast<uint32_t>(tid);
    event.other = static_cast<uint32_t>(ids->back());
    push_(event);
  }
}

// Who holds its GILs now. Its events are seen already, and prevail.
void Targets::read_gils_of(uint32_t tgid) {
  const auto found = images_.find(tgid);
  if (found == images_.end()) return;
  const auto pid = static_cast<pid_t>(tgid);
  const auto mappings = executable_mappings(pid);
  if (!mappings) return;
  for (const File* file : found->second.pythons) {
    const CPythonFile& python = file->inspection.cpython;
    for (const MappedFile& place : *mappings) {
      const auto id = mapping_id(pid, place);
      if (!id || attachments_.find(*id) != file) continue;
      const auto bias = load_bias(python, place);
      if (!bias) continue;
      if (const auto read = read_gils(pid, python, *bias))
        for (const Event& event : reading_events(tgid, *read)) push_(event);
      break;
    }
  }
}

void Targets::on_fork(uint32_t tgid, uint32_t tid) {
  if (!pending_threads_.empty()) pending_threads_.erase({tgid, tid});
}

void Targets::settle_threads(uint64_t now_ns) {
  for (const auto& [tgid, tid] : pending_threads_) {
    Event event;
    event.kind = EventKind::thread_seen;
    event.ts_ns = now_ns;
    event.tgid = tgid;
    event.tid = tid;
    push_(event);
  }
  pending_threads_.clear();
}

// --- what they run -------------------------------------------------------------------------------

Result<std::vector<Attachments::File*>> Targets::mapped_files(uint32_t tgid) {
  const auto pid = static_cast<pid_t>(tgid);
  auto mappings = executable_mappings(pid);
  if (!mappings) return mappings.error();
  std::vector<File*> files;
  for (const MappedFile& mapping : *mappings) {
    auto fd = open_mapping(pid, mapping);
    if (!fd) continue;  // gone again, or not a file at all
    File* file = attachments_.add(std::move(*fd), mapping.path);
    if (!contains(files, file)) files.push_back(file);
  }
  return files;
}

void Targets::report(uint32_t tgid, const Image& image, uint64_t ts_ns, bool late,
                     std::string_view comm) {
  ProcessFacts facts;
  facts.late = late;
  facts.comm = comm;
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
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (info && maps(tgid, image.pythons.front())) {
    facts.comm = info->comm;
    facts.cmdline = info->cmdline;
  }
  Event event;
  event.kind = EventKind::process;
  event.ts_ns = ts_ns;
  event.tgid = tgid;
  event.other = tables_.add(std::move(facts));
  if (ts_ns != kWhenSeen) {
    push_(event);
  } else {
    unseen_.push_back(event);
  }
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
  if (missed_)
    lines.push_back(
        "some programs ran before giltop could look at them: their first events are missed");
  return lines;
}

void Targets::tell_kernel(const gt_file_key& key, Known& known, uint32_t what) {
  known.what = what;
  bpf_map_update_elem(maps_.known_files, &key, &what, BPF_ANY);
}

// The program that `tgid` runs, which the kernel side knows as `key`.
Targets::Known& Targets::look_at_program(uint32_t tgid, const gt_file_key& key) {
  if (programs_.size() > kMaxRemembered) programs_.clear();
  Known& known = programs_[key];
  auto fd = open_executable(static_cast<pid_t>(tgid));
  if (!fd) return known;
  const auto info = process_info(static_cast<pid_t>(tgid));
  known.file = attachments_.add(std::move(*fd), info ? info->comm : std::string("?"));
  return known;
}

void Targets::on_exec(const gt_exec& exec) {
  images_.erase(exec.h.tgid);
  if (options_.host_wide) {
    exec_host_wide(exec);
  } else {
    exec_held(exec);
  }
}

// A traced process runs another program. What it is is looked up, or looked at while it is held.
void Targets::exec_held(const gt_exec& exec) {
  const uint32_t tgid = exec.h.tgid;
  const auto found = programs_.find(exec.file);
  const bool is_known = found != programs_.end() && found->second.file;
  // A file that is new, in a process that could not be held: it may run Python already.
  const bool late = !is_known && options_.follow_children && exec.h.state != GT_HELD;
  if (late) missed_ = true;
  Known& known = is_known ? found->second : look_at_program(tgid, exec.file);
  if (File* file = known.file) {
    Image& image = images_[tgid];
    if (!is_known) {
      if (file->inspection.kind == Inspection::Kind::launcher && file->error.empty()) {
        if (const auto fd = open_executable(static_cast<pid_t>(tgid))) {
          if (const Status watched = attachments_.watch_entry(*file, *fd); !watched)
            file->error = watched.error().message();
        }
      }
      refuse(tgid, *file);
      tell_kernel(exec.file, known, GT_HOLD_AT_ENTRY);
    }
    image.at_loader = static_cast<bool>(file->entry);
    if (file->is_traced()) {
      image.pythons = {file};
      report(tgid, image, exec.h.ts_ns, late, comm_of(exec.comm));
    }
  }
  if (exec.h.state == GT_HELD) holds_.let_go(tgid);
}

// Nobody waits. What is told is an exec of a Python (it is traced by now), or of a file that is
// new.
void Targets::exec_host_wide(const gt_exec& exec) {
  const uint32_t tgid = exec.h.tgid;
  if (!(exec.h.state & (GT_NEW | GT_UNSEEN))) return;
  const auto found = programs_.find(exec.file);
  Known& known = found != programs_.end() && found->second.file ? found->second
                                                                : look_at_program(tgid, exec.file);
  File* file = known.file;
  if (!file) return;
  refuse(tgid, *file);
  if (exec.h.state & GT_UNSEEN) {
    const bool python = file->is_traced() || known.what == GT_PYTHON;
    tell_kernel(exec.file, known, python ? GT_PYTHON : GT_OTHER);
  }
  if (!file->is_traced()) return;
  Image image;
  image.pythons = {file};
  const bool late = exec.h.state & GT_UNSEEN;
  if (late) {
    if (!trace(tgid, file)) return;
    if (!maps(tgid, file)) {  // it ended, and its id may be another's
      untrack(tgid);
      return;
    }
  }
  report(tgid, image, late ? boot_ns() : exec.h.ts_ns, late, comm_of(exec.comm));
  images_[tgid] = std::move(image);
  if (late) see_threads(boot_ns);
}

// A program that the dynamic loader has just finished mapping: is there a CPython among it?
void Targets::on_entry(const gt_entry& entry) {
  const uint32_t tgid = entry.h.tgid;
  const size_t probed = attachments_.probed_files();
  if (const auto files = mapped_files(tgid)) {
    Image& image = images_[tgid];
    image.at_loader = false;
    image.pythons.clear();
    for (File* file : *files) {
      if (file->is_traced()) image.pythons.push_back(file);
      refuse(tgid, *file);
    }
    // Nobody waited, and there was a new CPython after all: its first events are missed.
    const bool late = entry.h.state != GT_HELD && attachments_.probed_files() != probed;
    if (!image.pythons.empty()) {
      report(tgid, image, entry.h.ts_ns, late);
      tell_kernel(entry.file, programs_[entry.file], GT_TELL_AT_ENTRY);
    } else if (!files->empty()) {
      attachments_.unwatch_entry(*files->front());
    }
  }
  if (entry.h.state == GT_HELD) holds_.let_go(tgid);
}

void Targets::on_found(const gt_found& found) {
  const uint32_t tgid = found.h.tgid;
  File* file = attachments_.by_number(found.h.extra);
  if (!file) return;
  if (options_.host_wide) {
    // Whatever it is, it runs Python: its next process is traced from its exec on.
    if (Known& known = programs_[found.file]; known.what != GT_PYTHON)
      tell_kernel(found.file, known, GT_PYTHON);
  } else if (const auto known = programs_.find(found.file); known != programs_.end()) {
    // It had no Python when it was first looked at.
    File* program = known->second.file;
    if (program && !program->entry && program->inspection.kind == Inspection::Kind::launcher) {
      if (const auto fd = open_executable(static_cast<pid_t>(tgid));
          fd && attachments_.watch_entry(*program, *fd))
        tell_kernel(found.file, known->second, GT_HOLD_AT_ENTRY);
    }
  }
  Image& image = images_[tgid];
  if (!contains(image.pythons, file)) {
    image.pythons.push_back(file);
    report(tgid, image, found.h.ts_ns, false, comm_of(found.comm));
  }
  if (found.h.state & GT_NEW) {
    new_.emplace_back(tgid, file);
    see_threads(boot_ns);
  }
}

void Targets::on_last_exit(uint32_t tgid) { images_.erase(tgid); }

// --- what they map -------------------------------------------------------------------------------

// The file at `place` of a process, whose identity is known. Null: it is gone.
Targets::File* Targets::file_of(pid_t pid, const FileId& id, const MappedFile& place) {
  File* file = attachments_.find(id);
  const bool untried =
      !file || (file->inspection.kind == Inspection::Kind::cpython && !file->is_traced());
  if (!untried) return file;
  auto fd = open_mapping(pid, place);
  return fd ? attachments_.add(std::move(*fd), place.path) : file;
}

// file is null where it is no Python, or is not mapped any more.
Targets::Mapped Targets::mapped_file(const NewMapping& mapping) {
  const auto pid = static_cast<pid_t>(mapping.tgid);
  const std::array<uint64_t, 3> key = {
      uint64_t{mapping.file.device_major} << 32 | mapping.file.device_minor, mapping.file.inode,
      mapping.generation};
  const uint64_t now = boot_ns();
  const auto other = others_.find(key);
  if (other != others_.end() && now - other->second < kTrustMapping_ns) return {};
  MappedFile place = mapping.file;
  auto id = mapping_id(pid, place);
  if (!id) {
    // The loader may have put other mappings over a part of it since.
    const auto mappings = executable_mappings(pid);
    if (!mappings) return {};
    for (const MappedFile& there : *mappings) {
      if (there.inode != place.inode || there.device_major != place.device_major ||
          there.device_minor != place.device_minor)
        continue;
      place = there;
      id = mapping_id(pid, place);
      break;
    }
    if (!id) return {};
  }
  File* file = file_of(pid, *id, place);
  if (!file) return {};
  if (!file->is_traced()) {
    refuse(mapping.tgid, *file);
    if (others_.size() > kMaxRemembered) others_.clear();
    others_[key] = now;
    return {};
  }
  return {file, *id, place};
}

void Targets::on_mapping(const NewMapping& mapping) {
  const uint32_t tgid = mapping.tgid;
  const bool traced = is_tracked(tgid);
  if (!traced && !options_.host_wide) return;
  const auto found = images_.find(tgid);
  if (found != images_.end() && found->second.at_loader) return;
  const size_t probed = attachments_.probed_files();
  const Mapped mapped = mapped_file(mapping);
  if (!mapped.file) return;
  if (found != images_.end() && contains(found->second.pythons, mapped.file)) return;
  const auto program = executable_id(static_cast<pid_t>(tgid));
  if (program && attachments_.find(*program) == mapped.file) return;  // its exec tells
  if (!traced && !adopt(tgid, mapped)) return;
  Image& image = images_[tgid];
  image.pythons.push_back(mapped.file);
  report(tgid, image, boot_ns(), attachments_.probed_files() != probed);
  if (!traced) see_threads(boot_ns);
}

}  // namespace giltop
