#include "probe/attachments.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "target/elf_file.h"

namespace giltop {
namespace {

// A path that leads to the open file itself, whatever its name leads to by now.
std::string path_of(const Fd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

Result<Link> attach(bpf_program* program, const Fd& fd, uint64_t offset, uint64_t cookie, int pid) {
  LIBBPF_OPTS(bpf_uprobe_opts, options, .bpf_cookie = cookie);
  bpf_link* link = bpf_program__attach_uprobe_opts(program, pid, path_of(fd).c_str(), offset, &options);
  if (!link) return system_error("set a uprobe at file offset " + hex(offset), errno);
  return Link(link);
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
  file->inspection = std::move(*inspection);
  if (file->inspection.kind == Inspection::Kind::cpython) {
    if (const Status attached = attach_sites(*file, probe_fd); !attached)
      file->error = attached.error().message();
  }
  return file;
}

Status Attachments::attach_sites(File& file, const Fd& fd) {
  const CPythonFile& python = file.inspection.cpython;
  for (const GilSite& site : python.sites) {
    bpf_program* program = nullptr;
    uint64_t cookie = python.cond_offset;
    switch (site.kind) {
      case SiteKind::wait: program = programs_.wait; break;
      case SiteKind::release: program = programs_.release; break;
      case SiteKind::acquire:
        program = programs_.acquire;
        cookie = python.switch_cond_offset;
        break;
      case SiteKind::forced:
        program = programs_.forced;
        cookie = python.switch_cond_offset;
        break;
    }
    auto link = attach(program, fd, site.file_offset, cookie, only_pid_);
    if (!link) {
      file.sites.clear();  // some sites without the others would tell lies
      return std::move(link).error().in(std::string("attach the ") + to_string(site.kind) +
                                        " site of " + file.path);
    }
    file.sites.push_back(std::move(*link));
  }
  probes_ += file.sites.size();
  return ok();
}

Status Attachments::watch_entry(File& file, const Fd& fd) {
  if (file.entry) return ok();
  auto elf = ElfFile::make(Fd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)));
  if (!elf) return elf.error();
  const auto offset = elf->entry_file_offset();
  if (!offset) return Error(file.path + " has no entry point");
  auto link = attach(programs_.entry, fd, *offset, 0, only_pid_);
  if (!link) return std::move(link).error().in("watch the entry point of " + file.path);
  file.entry = std::move(*link);
  return ok();
}

void Attachments::clear() {
  for (auto& [id, file] : files_) {
    file->sites.clear();
    file->entry.reset();
  }
  for (auto& file : nameless_) file->sites.clear();
}

}  // namespace giltop
