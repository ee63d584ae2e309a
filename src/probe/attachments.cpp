#include "probe/attachments.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/inotify.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/clock.h"
#include "giltop/abi.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

// A path that leads to the open file itself, whatever its name leads to by now.
std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

bool is_on_overlay(const Fd& fd) {
  struct statfs system;
  return fstatfs(fd.get(), &system) == 0 && system.f_type == OVERLAYFS_SUPER_MAGIC;
}

gt_kind kind_of(SiteKind kind) {
  switch (kind) {
    case SiteKind::wait:
      return GT_GIL_WAIT;
    case SiteKind::acquire:
      return GT_GIL_ACQUIRE;
    case SiteKind::release:
    case SiteKind::gave_up:  // who waits tells them apart
      return GT_GIL_RELEASE;
    case SiteKind::forced:
      break;
  }
  return GT_GIL_FORCED;
}

gt_base base_of(GilBase base) {
  switch (base) {
    case GilBase::argument:
      break;
    case GilBase::code:
      return GT_BASE_CODE;
    case GilBase::rbx:
      return GT_BASE_RBX;
    case GilBase::rbp:
      return GT_BASE_RBP;
    case GilBase::r12:
      return GT_BASE_R12;
    case GilBase::r13:
      return GT_BASE_R13;
    case GilBase::r14:
      return GT_BASE_R14;
    case GilBase::r15:
      return GT_BASE_R15;
  }
  return GT_BASE_ARGUMENT;
}

uint64_t cookie_of(const Attachments::File& file, const GilSite& site) {
  return static_cast<uint32_t>(site.probe.below) |
         uint64_t{kind_of(site.kind)} << GT_COOKIE_KIND_SHIFT |
         uint64_t{file.number} << GT_COOKIE_FILE_SHIFT |
         uint64_t{base_of(site.probe.base)} << GT_COOKIE_BASE_SHIFT |
         (file.inspection.cpython.free_threaded ? GT_COOKIE_FREE_THREADED : 0) |
         (site.probe.emulated ? 0 : GT_COOKIE_STEPPED);
}

// What it is about was told at the call. The offset: of `locked` in the GIL's struct.
uint64_t resume_cookie_of(const Attachments::File& file) {
  const CPythonFile& python = file.inspection.cpython;
  return (python.cond_offset - kLockedBeforeCond) | uint64_t{GT_GIL_WAIT} << GT_COOKIE_KIND_SHIFT |
         uint64_t{file.number} << GT_COOKIE_FILE_SHIFT |
         (python.free_threaded ? GT_COOKIE_FREE_THREADED : 0);
}

}  // namespace

Attachments::Attachments(Programs programs, bool light, bool changes, int only_pid)
    : programs_(programs),
      light_(light),
      changes_(changes),
      only_pid_(only_pid),
      writes_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

const std::string& Attachments::File::refusal() const {
  return inspection.kind == Inspection::Kind::cpython ? error : inspection.reason;
}

Attachments::File* Attachments::find(const FileId& id) const {
  const auto known = files_.find(id);
  return known == files_.end() ? nullptr : known->second;
}

Attachments::File* Attachments::by_number(uint32_t number) const {
  return number < numbered_.size() ? numbered_[number] : nullptr;
}

// An overlay file system (containers) has inodes of its own, others for each mount; a uprobe is set
// on the inode below. A file that is below two overlays must have its probes once, or each hit is
// counted twice. Which inode is below cannot be asked; overlayfs passes on its number, time and
// size (Documentation/filesystems/overlayfs.rst), and with the same build-id it is taken for the
// same.
Attachments::File* Attachments::same_below(const FileId& id, const File& file) const {
  const std::string& build_id = file.inspection.cpython.build_id;
  if (build_id.empty()) return nullptr;
  for (const auto& [other_id, other] : files_) {
    if ((file.on_overlay || other->on_overlay) && other_id.inode == id.inode &&
        other_id.mtime_ns == id.mtime_ns && other_id.size == id.size &&
        other->inspection.cpython.build_id == build_id)
      return other;
  }
  return nullptr;
}

Attachments::File* Attachments::add(Fd fd, const std::string& path) {
  const auto id = file_id(fd);
  if (id) {
    if (File* known = find(*id)) {
      // A lack of memory or descriptors may be over.
      if (known->inspection.kind == Inspection::Kind::cpython && !known->is_traced())
        attach_or_note(*known, fd);
      return known;
    }
  }
  auto owned = std::make_unique<File>();
  owned->path = path;
  Fd probe_fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  auto elf = ElfFile::make(std::move(fd));
  if (elf) {
    auto inspection = inspect_native_elf(*elf);
    if (inspection) {
      owned->inspection = std::move(*inspection);
    } else {
      owned->error = inspection.error().message();
    }
  } else {
    owned->error = elf.error().message();
  }
  File* file = owned.get();
  if (file->inspection.kind == Inspection::Kind::cpython) {
    file->on_overlay = is_on_overlay(probe_fd);
    if (File* same = id ? same_content(*id, *file) : nullptr) {
      files_.emplace(*id, same);
      return same;
    }
    if (File* same = id ? same_below(*id, *file) : nullptr) {
      files_.emplace(*id, same);
      return same;
    }
  }
  if (id) drop_overwritten(*id);
  if (file->inspection.kind == Inspection::Kind::cpython) {
    attach_or_note(*file, probe_fd);
  }
  all_.push_back(std::move(owned));
  if (id) files_.emplace(*id, file);
  return file;
}

// The same inode under another time (touch): its probes are where they belong.
Attachments::File* Attachments::same_content(const FileId& id, const File& file) const {
  const CPythonFile& now = file.inspection.cpython;
  for (auto at = first_of_inode(id);
       at != files_.end() && at->first.device == id.device && at->first.inode == id.inode; ++at) {
    const CPythonFile& before = at->second->inspection.cpython;
    if (at->second->is_traced() && at->first.size == id.size && !now.build_id.empty() &&
        now.build_id == before.build_id && now.sites == before.sites)
      return at->second;
  }
  return nullptr;
}

std::map<FileId, Attachments::File*>::const_iterator Attachments::first_of_inode(
    const FileId& id) const {
  return files_.lower_bound({id.device, id.inode, std::numeric_limits<int64_t>::min(), 0});
}

// The same inode with another content, written in place: the old probes would now sit anywhere.
void Attachments::drop_overwritten(const FileId& id) {
  for (auto at = first_of_inode(id);
       at != files_.end() && at->first.device == id.device && at->first.inode == id.inode; ++at)
    detach(*at->second);
}

std::vector<Attachments::File*> Attachments::take_overwritten() {
  std::vector<File*> files;
  alignas(inotify_event) std::array<char, 4096> buffer;
  for (ssize_t got; (got = read(writes_.get(), buffer.data(), buffer.size())) > 0;) {
    for (size_t at = 0; at < static_cast<size_t>(got);) {
      inotify_event event;
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      at += sizeof(event) + event.len;
      const auto watched = watches_.find(event.wd);
      if (watched == watches_.end() || !watched->second->is_traced()) continue;
      detach(*watched->second);
      // Its times may be set back, so it is looked at again whatever it calls itself.
      std::erase_if(files_, [&](const auto& known) { return known.second == watched->second; });
      files.push_back(watched->second);
    }
  }
  return files;
}

void Attachments::detach(File& file) {
  std::atomic_ref(programs_.ready[file.number]).store(0);
  std::atomic_ref(programs_.light_files[file.number]).store(0);
  file.sites.reset();
  file.resumes.reset();
  file.fd.reset();
  file.entry.reset();
}

void Attachments::attach_or_note(File& file, const Fd& fd) {
  const Status attached = attach_sites(file, fd);
  file.error = attached ? std::string() : attached.error().message();
  if (attached) file.probed_ns = boot_ns();
}

Status Attachments::attach_sites(File& file, const Fd& fd) {
  if (file.number == 0) {
    if (numbered_.size() == GT_FILES) return Error("more Pythons than giltop probes at once");
    file.number = static_cast<uint32_t>(numbered_.size());
    numbered_.push_back(&file);
  }
  const Status attached = light_ ? attach_light(file, fd) : attach_exact(file, fd);
  if (!attached) return attached;
  if (changes_) file.fd = Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  std::atomic_ref(programs_.ready[file.number]).store(1);
  if (const int watch = inotify_add_watch(writes_.get(), path_of(fd).c_str(), IN_MODIFY);
      watch >= 0)
    watches_[watch] = &file;
  probed_files_++;
  return ok();
}

Status Attachments::set_light(File& file, bool light, const std::function<void()>& tell) {
  const Status attached = light ? attach_light(file, file.fd) : attach_exact(file, file.fd);
  if (!attached) return attached;
  const std::atomic_ref flag(programs_.light_files[file.number]);
  if (!light) flag.store(0);
  tell();
  if (light) {
    flag.store(1);
    file.sites.reset();
  } else {
    file.resumes.reset();
  }
  return ok();
}

Result<Uprobes> Attachments::exact_probes(const File& file, const Fd& fd, int pid,
                                          uint64_t flags) const {
  std::vector<UprobePlace> places;
  for (const GilSite& site : file.inspection.cpython.sites)
    places.push_back({site.probe.file_offset, cookie_of(file, site) | flags});
  auto probes = Uprobes::make(programs_.way, programs_.gil, path_of(fd), places, pid);
  if (!probes) return std::move(probes).error().in("attach the GIL's sites in " + file.path);
  return probes;
}

Status Attachments::attach_exact(File& file, const Fd& fd) {
  auto probes = exact_probes(file, fd, only_pid_, 0);
  if (!probes) return probes.error();
  file.sites = std::move(*probes);
  return ok();
}

Result<Uprobes> Attachments::attach_own(const File& file, uint32_t tgid) const {
  return exact_probes(file, file.fd, static_cast<int>(tgid), GT_COOKIE_OWN);
}

std::string Attachments::light_refusal(const File& file) {
  const CPythonFile& python = file.inspection.cpython;
  if (python.major == 3 && python.minor < 7)
    return "light mode needs CPython 3.7 or newer, this is " + python.version +
           ": record it with --mode exact";
  // Elsewhere a condition variable's waiters sleep on futexes of their own.
  if (!python.glibc)
    return "light mode needs GNU's C library, this Python is linked to another: record it with "
           "--mode exact";
  return {};
}

Status Attachments::attach_light(File& file, const Fd& fd) {
  const CPythonFile& python = file.inspection.cpython;
  if (const std::string reason = light_refusal(file); !reason.empty()) return Error(reason);
  std::vector<UprobePlace> resumes;
  for (const GilSite& site : python.sites)
    if (site.kind == SiteKind::wait)
      resumes.push_back({site.resume_offset, resume_cookie_of(file)});
  auto resume =
      Uprobes::make(programs_.way, programs_.light_resume, path_of(fd), resumes, only_pid_);
  if (!resume) return std::move(resume).error().in("attach the GIL's waits in " + file.path);
  file.resumes = std::move(*resume);
  return ok();
}

Status Attachments::watch_entry(File& file, const Fd& fd) {
  if (file.entry) return ok();
  auto elf = ElfFile::make(Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)));
  if (!elf) return elf.error();
  const auto offset = elf->entry_file_offset();
  if (!offset) return Error(file.path + " has no entry point");
  auto probe =
      Uprobes::make(programs_.way, programs_.entry, path_of(fd), {{*offset, 0}}, only_pid_);
  if (!probe) return std::move(probe).error().in("watch the entry point of " + file.path);
  file.entry = std::move(*probe);
  return ok();
}

void Attachments::forget_plain() {
  std::erase_if(files_, [](const auto& known) { return known.second->is_plain(); });
  std::erase_if(all_, [](const auto& file) { return file->is_plain(); });
  crowd_ = std::max(kFewFiles, 2 * all_.size());
}

void Attachments::clear() {
  for (auto& file : all_) detach(*file);
}

}  // namespace giltop
