#include "probe/guard.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "base/clock.h"
#include "giltop/abi.h"

namespace giltop {
namespace {

constexpr int kWatch_ms = 250;
constexpr uint64_t kStale_ns = 1'000'000'000;

// close_range(2), Linux 5.9, with no libc wrapper before glibc 2.34.
void close_others(int keep) {
  if (keep > 0) syscall(SYS_close_range, 0u, static_cast<unsigned>(keep - 1), 0u);
  syscall(SYS_close_range, static_cast<unsigned>(keep + 1), ~0u, 0u);
}

void let_all_go(uint32_t* held, size_t slots) {
  for (size_t i = 0; i < slots; i++) {
    const uint32_t tgid = std::atomic_ref<uint32_t>(held[i]).exchange(0) & ~GT_LETTING_GO;
    if (tgid != 0) kill(static_cast<pid_t>(tgid), SIGCONT);
  }
}

[[noreturn]] void run(int pipe, uint32_t* held, size_t slots, unsigned long long* heartbeat_ns) {
  setsid();
  prctl(PR_SET_NAME, "giltop-guard");
  close_others(pipe);
  for (;;) {
    pollfd ready{pipe, POLLIN, 0};
    if (poll(&ready, 1, kWatch_ms) > 0) {
      char word = 0;
      const ssize_t got = read(pipe, &word, 1);
      if (got == 1) _exit(0);
      if (got == 0) break;
    }
    const unsigned long long beat = std::atomic_ref(*heartbeat_ns).load();
    if (beat != 0 && boot_ns() > beat + kStale_ns) let_all_go(held, slots);
  }
  for (int round = 0; round < 20; round++) {
    let_all_go(held, slots);
    const timespec pause{0, 50'000'000};
    nanosleep(&pause, nullptr);
  }
  _exit(0);
}

}  // namespace

Result<Guard> Guard::make(uint32_t* held, size_t slots, unsigned long long* heartbeat_ns) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error("cannot make the guard's pipe", errno);
  Fd read_end(ends[0]), write_end(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return system_error("cannot start the guard process", errno);
  if (pid == 0) run(read_end.get(), held, slots, heartbeat_ns);
  return Guard(pid, std::move(write_end));
}

Guard::Guard(Guard&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pipe_(std::move(other.pipe_)) {}

Guard::~Guard() {
  if (pid_ < 0) return;
  const char word = 'q';
  ssize_t put;
  do {
    put = write(pipe_.get(), &word, 1);
  } while (put < 0 && errno == EINTR);
  pipe_.reset();
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace giltop
