// Which running processes map a CPython, and which file it is.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "target/gil_sites.h"
#include "target/process.h"

namespace giltop {

// Looks at each file once, by its identity, however many processes map it. Keeps results as long as
// it lives, and no descriptors.
class PythonProcesses {
 public:
  struct File {
    Inspection inspection;
    std::string error;        // it could not be read, or is no well-formed ELF file
    bool is_program = false;  // has a loader of its own (PT_INTERP): not a library
  };
  struct Mapped {
    MappedFile mapping;
    std::shared_ptr<const File> file;
    bool is_python() const { return file->inspection.kind == Inspection::Kind::cpython; }
    bool is_refused() const { return file->inspection.kind == Inspection::Kind::refused; }
  };
  struct Process {
    ProcessInfo info;
    std::vector<Mapped> files;  // what is a CPython, or an interpreter that cannot be traced
    // Files that could not be looked at ("path: why"): there may be a CPython among them.
    std::vector<std::string> unread;
  };

  // Errors: no such process, no permission.
  Result<Process> look_at(pid_t tgid);

  struct Scan {
    size_t processes = 0;   // with a program (no kernel threads)
    size_t unreadable = 0;  // that we may not look at
  };
  // Every process that maps one, in order of process id; those that end meanwhile are left out.
  // Errors: /proc cannot be read.
  Result<Scan> for_each(const std::function<void(const Process&)>& visit);

  size_t files_looked_at() const { return by_id_.size(); }

 private:
  // Within one mount namespace the same place, device and inode are the same file; alone, the
  // device and inode of /proc/PID/maps are not (btrfs subvolumes share them).
  Result<Process> look(pid_t tgid);
  using Place = std::tuple<uint64_t, uint32_t, uint32_t, uint64_t, std::string>;
  Result<std::shared_ptr<const File>> file_of(pid_t tgid, uint64_t mount_namespace,
                                              const MappedFile& mapping);

  std::map<FileId, std::shared_ptr<const File>> by_id_;
  std::map<Place, std::shared_ptr<const File>> by_place_;  // of the scan under way
};

}  // namespace giltop
