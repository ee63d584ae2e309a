#include "probe/host_checks.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

#include "base/fd.h"
#include "event/event.h"
#include "probe/session.h"
#include "probe/uprobes.h"

namespace giltop {
namespace {

// Bits of CapEff, include/uapi/linux/capability.h.
constexpr unsigned kSysAdmin = 21, kPerfmon = 38, kBpf = 39;

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

uint64_t effective_capabilities() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view kField = "CapEff:\t";
    if (!line.starts_with(kField)) continue;
    uint64_t bits = 0;
    std::from_chars(line.data() + kField.size(), line.data() + line.size(), bits, 16);
    return bits;
  }
  return 0;
}

HostCheck good(std::string what, bool blocks = true) { return {true, blocks, std::move(what), ""}; }
HostCheck missing(std::string what, std::string cure, bool blocks = true) {
  return {false, blocks, std::move(what), std::move(cure)};
}

HostCheck check_kernel(const utsname& system) {
  unsigned major = 0, minor = 0;
  const bool known = std::sscanf(system.release, "%u.%u", &major, &minor) == 2;
  if (known && (major < 5 || (major == 5 && minor < 15)))
    return missing("Linux 5.15 or newer", "boot a newer kernel");
  return good("Linux 5.15 or newer");
}

HostCheck check_btf() {
  if (access("/sys/kernel/btf/vmlinux", R_OK) == 0) return good("kernel types (BTF)");
  return missing("kernel types (/sys/kernel/btf/vmlinux)",
                 "a kernel with CONFIG_DEBUG_INFO_BTF=y; Debian 12, Fedora and Ubuntu 22.04 and "
                 "newer have it");
}

HostCheck check_capabilities(uint64_t has) {
  const auto can = [has](unsigned bit) { return (has >> bit & 1) != 0; };
  std::string lacking;
  if (!can(kSysAdmin)) {
    if (!can(kBpf)) lacking = "CAP_BPF";
    if (!can(kPerfmon)) lacking += lacking.empty() ? "CAP_PERFMON" : " and CAP_PERFMON";
  }
  if (lacking.empty()) return good("permission for BPF and probes");
  return missing("permission for BPF and probes (" + lacking + ")",
                 geteuid() == 0 ? "root lacks them here: run giltop on the host, or the container "
                                  "with --privileged"
                                : "run giltop with sudo");
}

// Only `confidentiality` stands in the way (LOCKDOWN_BPF_READ_KERNEL, include/linux/security.h).
std::optional<HostCheck> check_lockdown() {
  const std::string modes = first_line("/sys/kernel/security/lockdown");
  if (modes.empty()) return std::nullopt;  // a kernel without lockdown
  if (modes.find("[confidentiality]") == std::string::npos)
    return good("no lockdown of the kernel that forbids tracing");
  return missing("a kernel that may be traced (lockdown is at confidentiality)",
                 "boot with lockdown=integrity or none");
}

HostCheck check_pid_namespace() {
  constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, include/linux/proc_ns.h
  struct stat status;
  if (stat("/proc/self/ns/pid", &status) == 0 && status.st_ino == kInitialPidNamespace)
    return good("PID namespace of the host");
  return missing("PID namespace of the host",
                 "run giltop on the host, or the container with docker run --pid=host");
}

// Loads the programs and sets a probe on giltop itself.
void check_session(HostChecks& host) {
  EventTables tables;
  SessionOptions options;
  options.ring_bytes = 256 << 10;
  const auto session = Session::make(options, tables);
  if (!session) {
    std::string why = session.error().message();
    constexpr std::string_view kPrefix = "cannot trace: ";
    if (why.starts_with(kPrefix)) why.erase(0, kPrefix.size());
    host.checks.push_back(missing("BPF programs and probes", why));
    return;
  }
  host.hit_cost_ns = (*session)->hit_cost_ns();
  char cost[32];
  std::snprintf(cost, sizeof(cost), "%.2f µs", *host.hit_cost_ns / 1000);
  host.checks.push_back(good("BPF programs load"));
  host.checks.push_back(good(std::string(uprobe_way() == UprobeWay::multi
                                             ? "uprobes, all of a file in one step (uprobe_multi)"
                                             : "uprobes, one by one (perf events; Linux 6.6 and "
                                               "newer set all of a file in one step)") +
                             "; a hit costs " + cost));
}

// New mappings of every process on one CPU, as the host-wide mode listens to them on each.
HostCheck check_mmap_events() {
  const std::string what = "mmap events of all processes (perf_event_open)";
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  int cpu = 0;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
    while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &allowed)) cpu++;
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.mmap = 1;
  attr.mmap2 = 1;
  attr.disabled = 1;
  const Fd fd(
      static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
  if (fd) return good(what, false);
  const int error = errno;
  if (error != EACCES && error != EPERM)
    return missing(what,
                   "a kernel with CONFIG_PERF_EVENTS (" + std::string(std::strerror(error)) +
                       "); until then only -p PID and -- COMMAND can be traced",
                   false);
  const std::string paranoid = first_line("/proc/sys/kernel/perf_event_paranoid");
  return missing(what,
                 "needs CAP_PERFMON, and CAP_SYS_ADMIN where Debian's kernel.perf_event_paranoid "
                 "is 3 (here it is " +
                     (paranoid.empty() ? "?" : paranoid) + "): run giltop with sudo",
                 false);
}

// Opens the memory of a child that is as closed to us as another user's process (not dumpable):
// that takes CAP_SYS_PTRACE, and a Yama that lets it (ptrace_may_access, kernel/ptrace.c).
bool can_open_memory() {
  int ready[2], go[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return false;
  Fd ready_read(ready[0]), ready_write(ready[1]);
  if (pipe2(go, O_CLOEXEC) != 0) return false;
  Fd go_read(go[0]), go_write(go[1]);
  char byte = 0;
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    close(go_write.release());  // so that our end is its end
    if (prctl(PR_SET_DUMPABLE, 0) == 0 && write(ready_write.get(), &byte, 1) == 1)
      while (read(go_read.get(), &byte, 1) < 0 && errno == EINTR) continue;
    _exit(0);
  }
  ready_write.reset();
  ssize_t got;
  while ((got = read(ready_read.get(), &byte, 1)) < 0 && errno == EINTR) continue;
  const std::string path = "/proc/" + std::to_string(child) + "/mem";
  const bool can = got == 1 && Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  go_write.reset();
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) continue;
  return can;
}

HostCheck check_memory() {
  const std::string what = "memory of other processes (/proc/PID/mem)";
  if (can_open_memory()) return good(what, false);
  std::string cure =
      "without it, who holds a GIL when giltop attaches is unknown at first: run "
      "giltop with sudo (CAP_SYS_PTRACE)";
  const std::string yama = first_line("/proc/sys/kernel/yama/ptrace_scope");
  if (yama == "3")
    cure =
        "kernel.yama.ptrace_scope is 3, which forbids it until the next boot: set it to 2 or "
        "less in /etc/sysctl.d";
  return missing(what, cure, false);
}

// Opens one of giltop's own: following such a link needs the capability even there
// (proc_map_files_get_link, fs/proc/base.c).
HostCheck check_map_files() {
  const std::string what = "files that processes map, also deleted ones (/proc/PID/map_files)";
  struct Close {
    void operator()(DIR* directory) const { closedir(directory); }
  };
  const std::unique_ptr<DIR, Close> folder(opendir("/proc/self/map_files"));
  while (const dirent* entry = folder ? readdir(folder.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const std::string path = std::string("/proc/self/map_files/") + entry->d_name;
    if (Fd(open(path.c_str(), O_PATH | O_CLOEXEC))) return good(what, false);
  }
  return missing(what,
                 "without it, a Python that was replaced on disk cannot be traced: run giltop with "
                 "sudo (CAP_CHECKPOINT_RESTORE)",
                 false);
}

}  // namespace

HostChecks check_host() {
  HostChecks host;
  utsname system{};
  uname(&system);
  host.kernel = system.release;
  host.machine = system.machine;
  host.cpus = static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  auto& checks = host.checks;
  checks.push_back(check_kernel(system));
  checks.push_back(check_btf());
  checks.push_back(check_capabilities(effective_capabilities()));
  if (auto lockdown = check_lockdown()) checks.push_back(*std::move(lockdown));
  checks.push_back(check_pid_namespace());
  // What is missing above is why it would fail.
  bool all = true;
  for (const HostCheck& check : checks) all = all && check.ok;
  if (all) check_session(host);
  checks.push_back(check_mmap_events());
  checks.push_back(check_memory());
  checks.push_back(check_map_files());
  return host;
}

}  // namespace giltop
