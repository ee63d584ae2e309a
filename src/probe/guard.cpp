#include "probe/guard.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>

#include "giltop/abi.h"

namespace giltop {
namespace {

// close_range(2), Linux 5.9, with no libc wrapper before glibc 2.34.
void close_others(int keep) {
  if (keep > 0) syscall(SYS_close_range, 0u, static_cast<unsigned>(keep - 1), 0u);
  syscall(SYS_close_range, static_cast<unsigned>(keep + 1), ~0u, 0u);
}

[[noreturn]] void run(int pipe, uint32_t* held, size_t slots) {
  setsid();
  prctl(PR_SET_NAME, "giltop-guard");
  close_others(pipe);
  char word = 0;
  ssize_t got;
  do {
    got = read(pipe, &word, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1) _exit(0);
  for (int round = 0; round < 20; round++) {
    for (size_t i = 0; i < slots; i++) {
      const uint32_t tgid = std::atomic_ref<uint32_t>(held[i]).exchange(0) & ~GT_LETTING_GO;
      if (tgid != 0) kill(static_cast<pid_t>(tgid), SIGCONT);
    }
    const timespec pause{0, 50'000'000};
    nanosleep(&pause, nullptr);
  }
  _exit(0);
}

}  // namespace

Result<Guard> Guard::make(uint32_t* held, size_t slots) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return system_error("cannot make the guard's pipe", errno);
  Fd read_end(ends[0]), write_end(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return system_error("cannot start the guard process", errno);
  if (pid == 0) run(read_end.get(), held, slots);
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
