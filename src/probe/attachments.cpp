#include "probe/attachments.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "giltop/abi.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

// A path that leads to the open file itself, whatever its name leads to by now.
std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

gt_kind kind_of(SiteKind kind) {
  switch (kind) {
    case SiteKind::wait:
      return GT_GIL_WAIT;
    case SiteKind::acquire:
      return GT_GIL_ACQUIRE;
    case SiteKind::release:
      return GT_GIL_RELEASE;
    case SiteKind::forced:
      break;
  }
  return GT_GIL_FORCED;
}

}  // namespace

Attachments::File* Attachments::add(Fd fd, const std::string& path) {
  const auto id = file_id(fd);
  if (id) {
    const auto known = files_.find(*id);
    if (known != files_.end()) return known->second.get();
  }
  auto owned = std::make_unique<File>();
  File* file = owned.get();
  file->path = path;
  if (id) {
    files_.emplace(*id, std::move(owned));
  } else {
    nameless_.push_back(std::move(owned));
  }
  Fd probe_fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  auto elf = ElfFile::make(std::move(fd));
  if (!elf) {
    file->error = elf.error().message();
    return file;
  }
  auto inspection = inspect_elf(*elf);
  if (!inspection) {
    file->error = inspection.error().message();
    return file;
  }
  if (inspection->is_foreign()) {
    file->error =
        "ELF file of another machine (e_machine " + std::to_string(inspection->machine) + ")";
    return file;
  }
  file->inspection = std::move(*inspection);
  if (file->inspection.kind == Inspection::Kind::cpython) {
    if (const Status attached = attach_sites(*file, probe_fd); !attached)
      file->error = attached.error().message();
  }
  return file;
}

Status Attachments::attach_sites(File& file, const Fd& fd) {
  const CPythonFile& python = file.inspection.cpython;
  std::vector<UprobePlace> places;
  for (const GilSite& site : python.sites) {
    const bool on_switch_cond = site.kind == SiteKind::acquire || site.kind == SiteKind::forced;
    const uint64_t offset = on_switch_cond ? python.switch_cond_offset : python.cond_offset;
    places.push_back(
        {site.file_offset, uint64_t{kind_of(site.kind)} << GT_COOKIE_KIND_SHIFT | offset});
  }
  auto probes = Uprobes::make(programs_.way, programs_.gil, path_of(fd), places, only_pid_);
  if (!probes) return std::move(probes).error().in("attach the GIL's sites in " + file.path);
  file.sites = std::move(*probes);
  probed_files_++;
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

void Attachments::clear() {
  for (auto& [id, file] : files_) {
    file->sites.reset();
    file->entry.reset();
  }
  for (auto& file : nameless_) {
    file->sites.reset();
    file->entry.reset();
  }
}

}  // namespace giltop
