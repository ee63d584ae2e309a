#include "target/process_gils.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/clock.h"
#include "base/fd.h"

namespace giltop {
namespace {

constexpr uint64_t kCondBytes = 48;  // sizeof(pthread_cond_t), glibc and musl
constexpr int kTries = 3;

// Both ways need PTRACE_MODE_ATTACH; a seccomp filter of giltop's own container may refuse the
// first.
class ProcessMemory {
 public:
  explicit ProcessMemory(pid_t tgid)
      : tgid_(tgid),
        file_(::open(("/proc/" + std::to_string(tgid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC)) {}

  bool read(uint64_t address, std::span<std::byte> to) const {
    if (address == 0 || address > ~uint64_t{0} - to.size()) return false;
    const iovec local{to.data(), to.size()};
    const iovec remote{reinterpret_cast<void*>(address), to.size()};
    const ssize_t got = ::process_vm_readv(tgid_, &local, 1, &remote, 1, 0);
    if (got == static_cast<ssize_t>(to.size())) return true;
    if (got >= 0 || errno == EFAULT || errno == ESRCH || !file_) return false;
    return ::pread(file_.get(), to.data(), to.size(), static_cast<off_t>(address)) ==
           static_cast<ssize_t>(to.size());
  }

 private:
  pid_t tgid_;
  Fd file_;
};

}  // namespace

ProcessGils judge_gils(const CPythonFile& file, const GilMemory& before,
                       const std::vector<ThreadActivity>& threads, const GilMemory& after) {
  ProcessGils out;
  out.missing = after.missing;
  std::map<int64_t, pid_t> by_own_id;
  for (const ThreadActivity& thread : threads) by_own_id[thread.own_id] = thread.tid;

  // A thread is known to hold no GIL only when every GIL's holder is known.
  bool all_known = after.missing.empty() && before.missing.empty() && !after.gils.empty() &&
                   before.gils.size() == after.gils.size();
  std::vector<pid_t> holders;
  for (const GilInMemory& memory : after.gils) {
    ProcessGils::Gil& gil = out.gils.emplace_back();
    gil.memory = memory;
    const auto was =
        std::find_if(before.gils.begin(), before.gils.end(),
                     [&](const GilInMemory& g) { return g.address == memory.address; });
    bool steady = was != before.gils.end() && was->state == memory.state &&
                  was->holder_state == memory.holder_state && was->holder_id == memory.holder_id;
    if (steady && memory.state == GilInMemory::State::held) {
      const auto holder = by_own_id.find(memory.holder_id);
      steady = holder != by_own_id.end();
      if (steady) holders.push_back(gil.holder = holder->second);
    }
    if (!steady) {
      gil.memory.state = GilInMemory::State::unknown;
      if (was == before.gils.end() || was->enabled != memory.enabled) gil.memory.enabled.reset();
    }
    all_known = all_known && gil.memory.state != GilInMemory::State::unknown;
  }

  for (const ThreadActivity& activity : threads) {
    ProcessGils::Thread thread;
    thread.tid = activity.tid;
    thread.blocked = activity.blocked;
    thread.cpu = activity.cpu;
    const bool holds = std::find(holders.begin(), holders.end(), activity.tid) != holders.end();
    if (activity.blocked && activity.call >= 0 && !holds) {
      bool released = all_known;
      if (activity.call == SYS_futex) {
        for (const ProcessGils::Gil& gil : out.gils) {
          const auto inside = [&](uint64_t offset, uint64_t size) {
            const uint64_t start = gil.memory.address + offset;
            return activity.argument0 >= start && activity.argument0 - start < size;
          };
          // A GIL that was switched off has nobody waiting for it, but some may yet have to notice.
          const bool off = gil.memory.state == GilInMemory::State::disabled;
          if (inside(file.cond_offset, kCondBytes) && !off) {
            thread.state = ProcessGils::Thread::State::waiting;
            thread.gil = gil.memory.address;
          }
          // In one of its mutexes: on the way in or on the way out. After a forced release a thread
          // waits for switch_cond, and that is `released`.
          if (inside(0, file.switch_cond_offset + kCondBytes + sizeof(pthread_mutex_t)) &&
              !inside(file.switch_cond_offset, kCondBytes))
            released = false;
        }
      }
      if (released) thread.state = ProcessGils::Thread::State::released;
    }
    if (thread.blocked || thread.state != ProcessGils::Thread::State::unknown)
      out.threads.push_back(thread);
  }
  return out;
}

GilMemory read_gil_memory(pid_t tgid, const CPythonFile& file, uint64_t load_bias) {
  const ProcessMemory memory(tgid);
  return gils_in_memory(file, load_bias, [&](uint64_t address, std::span<std::byte> to) {
    return memory.read(address, to);
  });
}

Result<ProcessGils> read_gils(pid_t tgid, const CPythonFile& file, uint64_t load_bias) {
  const ProcessMemory memory(tgid);
  const MemoryReader read = [&](uint64_t address, std::span<std::byte> to) {
    return memory.read(address, to);
  };
  for (int attempt = 1;; attempt++) {
    const uint64_t begin_ns = boot_ns();
    const GilMemory before = gils_in_memory(file, load_bias, read);
    const auto threads = thread_activities(tgid);
    if (!threads) return threads.error();
    const GilMemory after = gils_in_memory(file, load_bias, read);
    if (before != after && attempt < kTries) continue;
    ProcessGils result = judge_gils(file, before, *threads, after);
    result.begin_ns = begin_ns;
    result.end_ns = boot_ns();
    return result;
  }
}

}  // namespace giltop
