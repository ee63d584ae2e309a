// What a running process maps, and whether that is a CPython.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace giltop {

// A file by what it is, not by its name: an upgraded file is another one.
struct FileId {
  uint64_t device = 0;  // st_dev as stat(2) gives it
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  uint64_t size = 0;
  auto operator<=>(const FileId&) const = default;
};

struct MappedFile {
  std::string path;  // as /proc/PID/maps prints it, for messages only ("… (deleted)" included)
  uint64_t start = 0, end = 0;  // of one executable mapping of it, to open it by
  // As maps prints them: on btrfs and overlayfs the device is not what stat(2) gives.
  uint32_t device_major = 0, device_minor = 0;
  uint64_t inode = 0;
  uint64_t offset = 0;  // of `start` in the file, bytes
};

// Every distinct file that `tgid` maps executable, in order of address.
// Errors: no such process ("no process 4242"), no permission.
Result<std::vector<MappedFile>> executable_mappings(pid_t tgid);

// Opens a mapped file itself, also when it is deleted or in another mount namespace
// (/proc/PID/map_files, else /proc/PID/root + path when its identity agrees with the mapping's).
// Errors: neither can be opened; not a regular file.
Result<Fd> open_mapping(pid_t tgid, const MappedFile& file);

// The identity of a mapped file without opening it. Errors: as above.
Result<FileId> mapping_id(pid_t tgid, const MappedFile& file);

// The identity of /proc/PID/exe. Errors: no such process; it has none.
Result<FileId> executable_id(pid_t tgid);

// A file of our own mount namespace, for reading. Errors: there is none that we may read, or it is
// something else: a FIFO would hang us, a device may do something.
Result<Fd> open_regular_file(const std::string& path);

// Opens /proc/PID/exe. Errors: as above; a kernel thread or zombie has none.
Result<Fd> open_executable(pid_t tgid);

// Identity of an open file. Errors: fstat fails.
Result<FileId> file_id(const Fd& fd);

// Whether the process's first thread has ended while others live on: it has no memory of its own to
// show then, and the functions above look through another of its threads.
bool first_thread_ended(pid_t tgid);

// Every process there is, ids ascending. Empty where /proc cannot be read.
std::vector<pid_t> process_ids();

// The children of `tgids`, theirs, and so on, as they are now: without `tgids` themselves, parents
// before their children.
std::vector<pid_t> descendants_of(std::vector<pid_t> tgids);

struct ThreadInfo {
  pid_t tid = 0;
  std::string comm;  // control characters escaped
};

struct ProcessInfo {
  pid_t tgid = 0;
  pid_t parent = 0;
  std::string comm;              // control characters escaped
  std::string cmdline;           // arguments joined by one blank, control characters escaped
  uint64_t start_time_ns = 0;    // boot clock, from /proc/PID/stat (clock-tick resolution)
  std::optional<uint32_t> user;  // effective
};

// What is its own and not giltop's: it is in a container, or under chroot.
struct ProcessPlace {
  pid_t namespace_id = 0;   // its id in its own PID namespace; 0: it is in ours
  bool own_mounts = false;  // another mount namespace
  std::string root;         // its root folder, raw, where that is not "/"
  bool is_host() const { return namespace_id == 0 && !own_mounts && root.empty(); }
};
// Errors: no such process, no permission.
Result<ProcessPlace> process_place(pid_t tgid);

// Errors: no such process ("no process 4242"); the id of a thread that is not its process's first.
Result<ProcessInfo> process_info(pid_t tgid);
// Its effective user now, as ps has it. Nothing: it has ended.
std::optional<uint32_t> process_user(pid_t tgid);
// Threads that end meanwhile are left out.
Result<std::vector<ThreadInfo>> process_threads(pid_t tgid);

// The ids of a thread in each PID namespace that it is in, from giltop's own (which is `tid`)
// inwards: the last is what the process itself calls it. Give `tgid` twice for the process.
// Errors: no such thread.
Result<std::vector<pid_t>> namespace_ids(pid_t tgid, pid_t tid);

// What a thread is doing, by the kernel's word.
struct ThreadActivity {
  pid_t tid = 0;
  pid_t own_id = 0;      // as the process itself calls it: in the innermost PID namespace
  bool blocked = false;  // off its CPU, asleep or stopped
  uint32_t cpu = 0;      // the one it is or was on
  int64_t call = -1;     // the system call that it is blocked in; -1: none, or not known
  uint64_t argument0 = 0;
};
// Threads that end meanwhile are left out. Errors: no such process, no permission.
Result<std::vector<ThreadActivity>> thread_activities(pid_t tgid);

}  // namespace giltop
