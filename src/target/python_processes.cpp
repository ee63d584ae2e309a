#include "target/python_processes.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "target/elf_file.h"
#include "target/proc_text.h"

namespace giltop {
namespace {

// 0: not to be had.
uint64_t mount_namespace_of(pid_t tgid) {
  struct stat status;
  const std::string path = "/proc/" + std::to_string(tgid) + "/ns/mnt";
  return ::stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace

Result<std::shared_ptr<const PythonProcesses::File>> PythonProcesses::file_of(
    pid_t tgid, uint64_t mount_namespace, const MappedFile& mapping) {
  const Place place(mount_namespace, mapping.device_major, mapping.device_minor, mapping.inode,
                    mapping.path);
  if (const auto known = by_place_.find(place); mount_namespace != 0 && known != by_place_.end()) {
    return known->second;
  }
  auto fd = open_mapping(tgid, mapping);
  if (!fd) return std::move(fd).error();
  const auto id = file_id(*fd);
  if (!id) return id.error();
  auto& file = by_id_[*id];
  if (!file) {
    auto looked_at = std::make_shared<File>();
    const auto elf = ElfFile::make(std::move(*fd));
    if (elf) {
      looked_at->is_program = elf->is_dynamic();
      auto inspection = inspect_native_elf(*elf);
      if (inspection) looked_at->inspection = *std::move(inspection);
      if (!inspection) looked_at->error = inspection.error().message();
    } else {
      looked_at->error = elf.error().message();
    }
    file = std::move(looked_at);
  }
  by_place_[place] = file;
  return file;
}

Result<PythonProcesses::Process> PythonProcesses::look_at(pid_t tgid) {
  by_place_.clear();  // an inode may be another file's by now
  return look(tgid);
}

Result<PythonProcesses::Process> PythonProcesses::look(pid_t tgid) {
  auto info = process_info(tgid);
  if (!info) return std::move(info).error();
  Process process;
  process.info = *std::move(info);
  auto mappings = executable_mappings(tgid);
  if (!mappings) return std::move(mappings).error();
  if (mappings->empty()) return Error("it maps no program: a kernel thread or a zombie");
  const uint64_t mount_namespace = mount_namespace_of(tgid);
  for (MappedFile& mapping : *mappings) {
    auto file = file_of(tgid, mount_namespace, mapping);
    if (!file) {
      process.unread.push_back(file.error().message());
    } else if (!(*file)->error.empty()) {
      process.unread.push_back(escape_controls(mapping.path) + ": " + (*file)->error);
    } else {
      Mapped mapped{std::move(mapping), *std::move(file)};
      if (mapped.is_python() || mapped.is_refused()) process.files.push_back(std::move(mapped));
    }
  }
  return process;
}

Result<PythonProcesses::Scan> PythonProcesses::for_each(
    const std::function<void(const Process&)>& visit) {
  const std::vector<pid_t> ids = process_ids();
  if (ids.empty()) return Error("cannot read /proc");
  by_place_.clear();
  Scan scan;
  for (const pid_t id : ids) {
    const std::string exe = "/proc/" + std::to_string(id) + "/exe";
    struct stat status;
    if (::stat(exe.c_str(), &status) != 0) {
      // A kernel thread and a zombie have none; without root, not to be told but by their empty
      // command line.
      if (errno != EACCES && errno != EPERM) continue;
      const auto info = process_info(id);
      if (info && !info->cmdline.empty()) scan.processes++, scan.unreadable++;
      continue;
    }
    scan.processes++;
    const auto process = look(id);
    if (!process && ::stat(exe.c_str(), &status) == 0) scan.unreadable++;  // it is still there
    if (process && !process->files.empty()) visit(*process);
  }
  return scan;
}

}  // namespace giltop
