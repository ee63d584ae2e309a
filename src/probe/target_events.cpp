// What the kernel side tells of the traced: programs executed, Pythons found, files mapped.
#include <bpf/bpf.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/clock.h"
#include "probe/targets.h"
#include "target/installed_pythons.h"
#include "target/process.h"

namespace giltop {
namespace {

constexpr size_t kMaxRemembered = 65536;  // programs or mapped files; then all over again
constexpr uint64_t kTrustMapping_ns = 1'000'000'000;  // then it may have been overwritten

std::string_view comm_of(const char (&comm)[GT_COMM]) {
  return std::string_view(comm, strnlen(comm, GT_COMM));
}

// Whether the open file is the one that the kernel side means. What runs under an id may be another
// program by now. File systems that show other inode numbers than they have: overlayfs, btrfs.
bool is_file_of(const gt_file_key& key, const Fd& fd) {
  struct stat status;
  struct statfs system;
  if (fstat(fd.get(), &status) != 0 || fstatfs(fd.get(), &system) != 0) return false;
  const bool numbers_differ =
      system.f_type == OVERLAYFS_SUPER_MAGIC || system.f_type == BTRFS_SUPER_MAGIC;
  return static_cast<uint64_t>(status.st_size) == key.size &&
         (numbers_differ || status.st_ino == key.inode);
}

// What the kernel side calls the file. Where file systems show it other numbers than us, it is one
// that it does not know.
gt_file_key key_of(const Fd& fd) {
  gt_file_key key{};
  struct stat status;
  if (fstat(fd.get(), &status) != 0) return key;
  key.inode = status.st_ino;
  key.size = static_cast<uint64_t>(status.st_size);
  // MKDEV(), include/linux/kdev_t.h
  key.device = major(status.st_dev) << 20 | minor(status.st_dev);
  // It is defined to give a long; ext4 and others give an int.
  union {
    long all = 0;
    uint32_t generation;
  } version;
  if (ioctl(fd.get(), FS_IOC_GETVERSION, &version) == 0) key.generation = version.generation;
  return key;
}

}  // namespace

// --- programs ------------------------------------------------------------------------------------

void Targets::tell_kernel(const gt_file_key& key, Known& known, uint32_t what) {
  known.what = what;
  bpf_map_update_elem(maps_.known_files, &key, &what, BPF_ANY);
}

// The program that `tgid` runs, which the kernel side knows as `key`.
Targets::Known& Targets::look_at_program(uint32_t tgid, const gt_file_key& key) {
  if (programs_.size() > kMaxRemembered) programs_.clear();
  Known& known = programs_[key];
  auto fd = open_executable(static_cast<pid_t>(tgid));
  if (!fd || !is_file_of(key, *fd)) return known;
  const auto info = process_info(static_cast<pid_t>(tgid));
  known.file = attachments_.add(std::move(*fd), info ? info->comm : std::string("?"));
  return known;
}

// Host-wide: whatever the program of `tgid` is, it runs `file`. Its next process is traced from its
// exec on.
void Targets::know_program(uint32_t tgid, const File& file) {
  const auto fd = open_executable(static_cast<pid_t>(tgid));
  if (!fd) return;
  const gt_file_key key = key_of(*fd);
  if (const auto known = programs_.find(key);
      known != programs_.end() && known->second.what == GT_PYTHON)
    return;
  if (maps(tgid, &file)) tell_kernel(key, programs_[key], GT_PYTHON);
}

void Targets::attach_installed(std::string_view path) {
  for (const std::string& name : installed_pythons(path)) {
    auto fd = open_regular_file(name);
    if (!fd) continue;
    const gt_file_key key = key_of(*fd);
    File* file = attachments_.add(std::move(*fd), name);
    // The name of one that has its GIL in a library says that it is a Python.
    const bool launcher = file->inspection.kind == Inspection::Kind::launcher &&
                          std::filesystem::path(name).filename().native().starts_with("python");
    if (!file->is_traced() && !launcher) continue;
    Known& known = programs_[key];
    known.file = file;
    tell_kernel(key, known, GT_PYTHON);
  }
}

// Under that id runs something else from now on, or nothing.
void Targets::forget_image(uint32_t tgid) {
  images_.erase(tgid);
  inherited_.erase(tgid);
  unlooked_.erase(tgid);
  light_gils_.forget(tgid);
  forget_mode(tgid);
}

void Targets::on_exec(const gt_exec& exec) {
  forget_image(exec.h.tgid);
  if (options_.host_wide) {
    exec_host_wide(exec);
  } else {
    exec_held(exec);
  }
}

// The guard lets go of whom we have held for too long.
bool Targets::is_still_held(const gt_header& record) const {
  return record.state == GT_HELD && holds_.is_held(record.tgid);
}

// A traced process runs another program. What it is is looked up, or looked at while it is held.
void Targets::exec_held(const gt_exec& exec) {
  const uint32_t tgid = exec.h.tgid;
  const auto found = programs_.find(exec.file);
  const bool is_known = found != programs_.end() && found->second.file;
  Known& known = is_known ? found->second : look_at_program(tgid, exec.file);
  // A file that is new, in a process that could not be held, or not for so long: it may run Python
  // already.
  const bool late = !is_known && options_.follow_children && !is_still_held(exec.h);
  if (late) missed_ = true;
  if (!known.file) missed_ = true;
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
      report(tgid, image, exec.h.ts_ns, late, {comm_of(exec.comm), exec.user});
    }
  }
  const auto image = images_.find(tgid);
  if (image == images_.end() || (image->second.pythons.empty() && !image->second.at_loader))
    await_python(tgid, exec.h.ts_ns);
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
  if (exec.h.state & GT_NEW && (!file || !file->is_traced())) await_python(tgid, exec.h.ts_ns);
  if (!file) {  // it has ended: by its name alone it was a Python
    if (comm_of(exec.comm).starts_with("python")) missed_ = true;
    return;
  }
  refuse(tgid, *file);
  if (exec.h.state & GT_UNSEEN) {
    const bool python = file->is_traced() || known.what == GT_PYTHON;
    tell_kernel(exec.file, known, python ? GT_PYTHON : GT_OTHER);
  }
  if (!file->is_traced()) return;
  const bool late = exec.h.state & GT_UNSEEN;
  // Its first GIL event tells of it, and comes after this. In light mode there may never be one.
  const bool probed = file->probed_ns != 0 && file->probed_ns < exec.h.ts_ns;
  if (late && probed && !file->is_light()) return;
  Image image;
  image.pythons = {file};
  if (late && !trace_running(tgid, *file, [&] { return maps(tgid, file); })) return;
  report(tgid, image, late ? kWhenSeen : exec.h.ts_ns, late, {comm_of(exec.comm), exec.user});
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
    const bool late = attachments_.probed_files() != probed && !is_still_held(entry.h);
    if (late) missed_ = true;
    if (!image.pythons.empty()) {
      report(tgid, image, entry.h.ts_ns, late);
      tell_kernel(entry.file, programs_[entry.file], GT_TELL_AT_ENTRY);
    } else {
      if (!files->empty()) attachments_.unwatch_entry(*files->front());
      await_python(tgid, entry.h.ts_ns);
    }
  } else {
    missed_ = true;
  }
  if (entry.h.state == GT_HELD) holds_.let_go(tgid);
}

void Targets::on_found(const gt_found& found) {
  const uint32_t tgid = found.h.tgid;
  File* file = attachments_.by_number(found.h.extra);
  if (!file) return;
  if (options_.host_wide) {
    // As know_program().
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
  if (!image.has(file)) {
    if (image.pythons.empty() && inherits(tgid, file)) {
      image.pythons = inherited_.at(tgid);
    } else {
      image.pythons.push_back(file);
    }
    report(tgid, image, found.h.ts_ns, false, {comm_of(found.comm), found.user});
  }
  if (found.h.state & GT_NEW) {
    // Whose id may be another's by now: its name is what the kernel side said.
    Event event;
    event.kind = EventKind::thread_seen;
    event.ts_ns = found.h.ts_ns;
    event.tgid = tgid;
    event.tid = found.h.tid;
    event.other = tables_.intern(comm_of(found.comm), found.h.ts_ns);
    push_(event);
    new_.emplace_back(tgid, file);
    see_threads(boot_ns);
  }
}

void Targets::on_last_exit(uint32_t tgid) {
  if (const auto image = images_.find(tgid); image != images_.end() && image->second.at_loader)
    never_entered_++;
  forget_image(tgid);
}

template <typename Which>
void Targets::forget_programs(Which&& which) {
  std::erase_if(programs_, [&](const auto& program) {
    if (!which(program.second)) return false;
    bpf_map_delete_elem(maps_.known_files, &program.first);
    return true;
  });
}

void Targets::forget_overwritten() {
  for (const File* file : attachments_.take_overwritten()) {
    // Who runs it is not traced any more: half of its hand-overs are missing from here on.
    for (auto image = images_.begin(); image != images_.end();) {
      if (!image->second.has(file)) {
        ++image;
        continue;
      }
      untrack(image->first);
      light_gils_.forget(image->first);
      forget_mode(image->first);
      Event event;
      event.kind = EventKind::exit;
      event.ts_ns = boot_ns();
      event.tgid = event.tid = image->first;
      event.state = 2;
      push_(event);
      refusals_[{file->path, "its file was written to while it was traced"}] = {image->first, 1};
      image = images_.erase(image);
    }
    forget_programs([file](const Known& program) { return program.file == file; });
  }
}

void Targets::forget_some() {
  if (attachments_.crowded()) {
    forget_programs([](const Known& program) { return program.file && program.file->is_plain(); });
    attachments_.forget_plain();
  }
  if (images_.size() + unlooked_.size() >= many_images_) {
    std::erase_if(images_, [this](const auto& image) {
      if (is_tracked(image.first)) return false;
      light_gils_.forget(image.first);
      forget_mode(image.first);
      return true;
    });
    std::erase_if(inherited_, [this](const auto& child) {
      if (is_tracked(child.first)) return false;
      forget_mode(child.first);
      return true;
    });
    std::erase_if(unlooked_, [this](const auto& other) { return !is_tracked(other.first); });
    many_images_ = std::max(kFewImages, 2 * (images_.size() + unlooked_.size()));
  }
}

// --- what they map -------------------------------------------------------------------------------

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

bool Targets::on_mapping(const NewMapping& mapping) {
  const uint32_t tgid = mapping.tgid;
  const bool traced = is_tracked(tgid);
  if (!traced && !options_.host_wide) return false;
  const auto found = images_.find(tgid);
  if (found != images_.end() && found->second.at_loader) return false;
  const size_t probed = attachments_.probed_files();
  const Mapped mapped = mapped_file(mapping);
  if (!mapped.file) return false;
  if (found != images_.end() && found->second.has(mapped.file)) return false;
  const auto program = executable_id(static_cast<pid_t>(tgid));
  if (program && attachments_.find(*program) == mapped.file) return false;  // its exec tells
  if (traced) {
    new_.emplace_back(tgid, mapped.file);
  } else if (adopt(tgid, mapped)) {
    know_program(tgid, *mapped.file);
  } else {
    return false;
  }
  Image& image = images_[tgid];
  image.pythons.push_back(mapped.file);
  report(tgid, image, kWhenSeen, attachments_.probed_files() != probed);
  see_threads(boot_ns);
  return true;
}

}  // namespace giltop
