#include "target/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <map>
#include <memory>

#include "target/proc_text.h"

namespace giltop {
namespace {

std::string proc_path(pid_t tgid, const std::string& rest) {
  return "/proc/" + std::to_string(tgid) + "/" + rest;
}

// What an errno from below /proc/PID means to a user.
Error process_error(pid_t tgid, int error, const std::string& what) {
  switch (error) {
    case ENOENT:
    case ESRCH:
      return Error("no process " + std::to_string(tgid));
    case EACCES:
    case EPERM:
      return Error("no permission to read process " + std::to_string(tgid) +
                   (geteuid() == 0 ? ": this system keeps it from root, too" : ": run as root"));
    default:
      return system_error(proc_path(tgid, what), error);
  }
}

// The whole file, up to `limit` bytes; /proc files have no size. `error` gets errno on failure.
bool read_whole(const std::string& path, size_t limit, std::string& text, int& error) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    error = errno;
    return false;
  }
  std::array<char, 16384> buffer;
  text.clear();
  while (text.size() < limit) {
    const ssize_t got =
        ::read(fd.get(), buffer.data(), std::min(buffer.size(), limit - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      error = errno;
      return false;
    }
    if (got == 0) break;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return true;
}

Result<std::string> read_process_file(pid_t tgid, const std::string& name, size_t limit) {
  std::string text;
  int error = 0;
  if (!read_whole(proc_path(tgid, name), limit, text, error)) {
    return process_error(tgid, error, name);
  }
  return text;
}

// Opens what `path` leads to for reading, but only a regular file: O_PATH first, since opening a
// FIFO may hang and opening a device may do something.
Result<Fd> open_regular(const std::string& path, const MappedFile* expected, int& error) {
  error = 0;
  const Fd place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status;
  if (!place || ::fstat(place.get(), &status) != 0) {
    error = errno;
    return system_error(path, error);
  }
  if (!S_ISREG(status.st_mode)) return Error(path + ": not a regular file");
  if (expected != nullptr &&
      (status.st_ino != expected->inode || major(status.st_dev) != expected->device_major ||
       minor(status.st_dev) != expected->device_minor)) {
    return Error(path + ": is another file than the one mapped");
  }
  const std::string again = "/proc/self/fd/" + std::to_string(place.get());
  Fd fd(::open(again.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    error = errno;
    return system_error(path, error);
  }
  return fd;
}

std::string hex(uint64_t value) {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return {digits.data(), end.ptr};
}

FileId id_of(const struct stat& status) {
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  // Unsigned: a file may claim any year, and only equality matters.
  const uint64_t mtime_ns = static_cast<uint64_t>(status.st_mtim.tv_sec) * kNsPerSecond +
                            static_cast<uint64_t>(status.st_mtim.tv_nsec);
  return FileId{status.st_dev, status.st_ino, static_cast<int64_t>(mtime_ns),
                static_cast<uint64_t>(status.st_size)};
}

// What a link below /proc/PID leads to.
Result<FileId> path_id(pid_t tgid, const std::string& name) {
  struct stat status;
  if (::stat(proc_path(tgid, name).c_str(), &status) != 0) return process_error(tgid, errno, name);
  return id_of(status);
}

bool process_exists(pid_t tgid) { return ::access(proc_path(tgid, "stat").c_str(), F_OK) == 0; }

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

}  // namespace

namespace {

// A thread that lives on after the process's first has ended, which then has no memory to show
// (/proc/TID is there for every thread, if not listed). 0: none.
pid_t surviving_thread(pid_t tgid) {
  const std::unique_ptr<DIR, CloseDirectory> tasks(::opendir(proc_path(tgid, "task").c_str()));
  while (const dirent* const entry = tasks ? ::readdir(tasks.get()) : nullptr) {
    const std::string_view name = entry->d_name;
    pid_t tid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), tid);
    if (parsed.ec != std::errc() || tid == tgid) continue;
    if (::access(proc_path(tid, "exe").c_str(), F_OK) == 0) return tid;
  }
  return 0;
}

}  // namespace

Result<std::vector<MappedFile>> executable_mappings(pid_t tgid) {
  constexpr size_t kMaxMaps = size_t{64} << 20;  // bytes; vm.max_map_count lines of 100 are 6.5 MB
  auto text = read_process_file(tgid, "maps", kMaxMaps);
  if (!text) return std::move(text).error();
  if (text->empty()) {
    if (const pid_t tid = surviving_thread(tgid); tid != 0)
      text = read_process_file(tid, "maps", kMaxMaps);
    if (!text) return std::move(text).error();
  }
  return parse_maps(*text);
}

Result<Fd> open_mapping(pid_t tgid, const MappedFile& file) {
  int error = 0;
  auto mapped = open_regular(proc_path(tgid, "map_files/" + hex(file.start) + "-" + hex(file.end)),
                             nullptr, error);
  if (mapped || error == 0) return mapped;
  if (const pid_t tid = error == ENOENT || error == ESRCH ? surviving_thread(tgid) : 0; tid != 0) {
    int again = 0;
    auto through = open_regular(
        proc_path(tid, "map_files/" + hex(file.start) + "-" + hex(file.end)), nullptr, again);
    if (through) return through;
  }
  // map_files wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; the mapping may also be gone by now.
  const int first_error = error;
  auto named = open_regular(proc_path(tgid, "root") + unescape_maps_path(file.path), &file, error);
  if (named) return named;
  if (!process_exists(tgid)) return process_error(tgid, ENOENT, "maps");
  if (first_error == EPERM || first_error == EACCES) {
    return process_error(tgid, first_error, "map_files").in(file.path);
  }
  return std::move(named).error();
}

Result<Fd> open_regular_file(const std::string& path) {
  int error = 0;
  return open_regular(path, nullptr, error);
}

Result<Fd> open_executable(pid_t tgid) {
  int error = 0;
  auto fd = open_regular(proc_path(tgid, "exe"), nullptr, error);
  if (fd || error == 0) return fd;
  if (const pid_t tid = error == ENOENT || error == ESRCH ? surviving_thread(tgid) : 0; tid != 0) {
    int again = 0;
    auto through = open_regular(proc_path(tid, "exe"), nullptr, again);
    if (through) return through;
  }
  if (error == ENOENT && process_exists(tgid)) {
    return Error("process " + std::to_string(tgid) +
                 " has no executable: a kernel thread or a zombie");
  }
  return process_error(tgid, error, "exe");
}

Result<FileId> file_id(const Fd& fd) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return system_error("fstat", errno);
  return id_of(status);
}

namespace {

Result<FileId> path_id_of_any_thread(pid_t tgid, const std::string& name) {
  auto id = path_id(tgid, name);
  if (id) return id;
  const pid_t tid = surviving_thread(tgid);
  return tid != 0 ? path_id(tid, name) : std::move(id);
}

}  // namespace

Result<FileId> mapping_id(pid_t tgid, const MappedFile& file) {
  return path_id_of_any_thread(tgid, "map_files/" + hex(file.start) + "-" + hex(file.end));
}

Result<FileId> executable_id(pid_t tgid) { return path_id_of_any_thread(tgid, "exe"); }

bool first_thread_ended(pid_t tgid) {
  return ::access(proc_path(tgid, "exe").c_str(), F_OK) != 0 && surviving_thread(tgid) != 0;
}

std::vector<pid_t> process_ids() {
  std::vector<pid_t> ids;
  const std::unique_ptr<DIR, CloseDirectory> processes(::opendir("/proc"));
  if (!processes) return ids;
  while (const dirent* const entry = ::readdir(processes.get())) {
    const std::string_view name = entry->d_name;
    pid_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<pid_t> descendants_of(std::vector<pid_t> tgids) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t tgid : process_ids())
    if (const auto info = process_info(tgid)) children.emplace(info->parent, tgid);
  const size_t given = tgids.size();
  for (size_t i = 0; i < tgids.size(); i++) {
    const auto [first, last] = children.equal_range(tgids[i]);
    for (auto child = first; child != last; ++child)
      if (std::find(tgids.begin(), tgids.end(), child->second) == tgids.end())
        tgids.push_back(child->second);
  }
  tgids.erase(tgids.begin(), tgids.begin() + static_cast<std::ptrdiff_t>(given));
  return tgids;
}

std::optional<uint32_t> process_user(pid_t tgid) {
  struct stat status {};
  if (::stat(proc_path(tgid, "").c_str(), &status) != 0) return std::nullopt;
  return status.st_uid;
}

Result<ProcessInfo> process_info(pid_t tgid) {
  constexpr size_t kMaxText = size_t{64} << 10;  // bytes; a longer command line is cut
  auto status = read_process_file(tgid, "status", kMaxText);
  if (!status) return std::move(status).error();
  const auto leader = parse_tgid(*status);
  if (leader && *leader != tgid) {
    return Error(std::to_string(tgid) + " is a thread of process " + std::to_string(*leader));
  }
  auto stat_text = read_process_file(tgid, "stat", kMaxText);
  if (!stat_text) return std::move(stat_text).error();
  auto stat = parse_stat(*stat_text);
  if (!stat) return Error(proc_path(tgid, "stat") + ": not as the kernel writes it");
  auto cmdline = read_process_file(tgid, "cmdline", kMaxText);
  if (!cmdline) return std::move(cmdline).error();

  ProcessInfo info;
  info.tgid = tgid;
  info.parent = static_cast<pid_t>(stat->parent);
  info.comm = escape_controls(stat->comm);
  info.cmdline = parse_cmdline(*cmdline);
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  const auto ticks_per_second = static_cast<uint64_t>(std::max(1L, ::sysconf(_SC_CLK_TCK)));
  info.start_time_ns = stat->start_time_ticks * (kNsPerSecond / ticks_per_second);
  info.user = process_user(tgid);
  return info;
}

Result<ProcessPlace> process_place(pid_t tgid) {
  constexpr size_t kMaxStatus = 65536;  // bytes
  auto status_text = read_process_file(tgid, "status", kMaxStatus);
  if (!status_text) return std::move(status_text).error();
  ProcessPlace place;
  if (const auto ids = parse_ns_ids(*status_text); ids.size() > 1) {
    place.namespace_id = ids.back();
  }
  struct stat own, theirs;
  if (::stat(proc_path(tgid, "ns/mnt").c_str(), &theirs) != 0) {
    return process_error(tgid, errno, "ns/mnt");
  }
  place.own_mounts = ::stat("/proc/self/ns/mnt", &own) == 0 &&
                     (own.st_ino != theirs.st_ino || own.st_dev != theirs.st_dev);
  std::array<char, 4096> root;
  const ssize_t length = ::readlink(proc_path(tgid, "root").c_str(), root.data(), root.size());
  if (length < 0) return process_error(tgid, errno, "root");
  const std::string_view path(root.data(), static_cast<size_t>(length));
  if (path != "/") place.root = path;
  return place;
}

namespace {

// The ids of the process's threads, sorted.
Result<std::vector<pid_t>> task_ids(pid_t tgid) {
  const std::unique_ptr<DIR, CloseDirectory> tasks(::opendir(proc_path(tgid, "task").c_str()));
  if (!tasks) return process_error(tgid, errno, "task");
  std::vector<pid_t> ids;
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(tasks.get());
    if (entry == nullptr) {
      if (errno != 0) return process_error(tgid, errno, "task");
      break;
    }
    const std::string_view name = entry->d_name;
    pid_t tid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), tid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;  // . and ..
    ids.push_back(tid);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::string task_path(pid_t tgid, pid_t tid, const char* name) {
  return proc_path(tgid, "task/" + std::to_string(tid) + "/" + name);
}

constexpr size_t kMaxTaskText = size_t{16} << 10;  // bytes; status is the longest, about 1.5 KB

}  // namespace

Result<std::vector<ThreadInfo>> process_threads(pid_t tgid) {
  const auto ids = task_ids(tgid);
  if (!ids) return ids.error();
  std::vector<ThreadInfo> threads;
  for (const pid_t tid : *ids) {
    int error = 0;
    std::string comm;
    constexpr size_t kMaxComm = 64;  // bytes; TASK_COMM_LEN is 16
    if (!read_whole(task_path(tgid, tid, "comm"), kMaxComm, comm, error)) {
      if (error == ENOENT || error == ESRCH) continue;
      return process_error(tgid, error, "task");
    }
    if (comm.ends_with('\n')) comm.pop_back();
    threads.push_back({tid, escape_controls(comm)});
  }
  return threads;
}

Result<std::vector<pid_t>> namespace_ids(pid_t tgid, pid_t tid) {
  int error = 0;
  std::string status;
  if (!read_whole(task_path(tgid, tid, "status"), kMaxTaskText, status, error))
    return process_error(tgid, error, "task");
  return parse_ns_ids(status);
}

Result<std::vector<ThreadActivity>> thread_activities(pid_t tgid) {
  const auto ids = task_ids(tgid);
  if (!ids) return ids.error();
  std::vector<ThreadActivity> threads;
  for (const pid_t tid : *ids) {
    int error = 0;
    std::string text;
    const auto own_ids = namespace_ids(tgid, tid);
    if (!own_ids || !read_whole(task_path(tgid, tid, "stat"), kMaxTaskText, text, error)) continue;
    const auto stat = parse_stat(text);
    if (!stat) continue;
    ThreadActivity& thread = threads.emplace_back();
    thread.tid = tid;
    thread.own_id = own_ids->empty() ? tid : own_ids->back();
    thread.cpu = stat->processor;
    // R is on a CPU or wants one; Z and X are no more.
    if (std::string_view("SDTt").find(stat->state) == std::string_view::npos) continue;
    thread.blocked = true;
    // Needs PTRACE_MODE_ATTACH and CONFIG_HAVE_ARCH_TRACEHOOK; without it the state above must do,
    // which a thread takes on some instructions before it leaves its CPU.
    if (!read_whole(task_path(tgid, tid, "syscall"), kMaxTaskText, text, error)) continue;
    const auto call = parse_syscall(text);
    if (!call) continue;
    thread.blocked = !call->running;
    thread.call = call->running ? -1 : call->number;
    thread.argument0 = call->argument0;
  }
  return threads;
}

}  // namespace giltop
