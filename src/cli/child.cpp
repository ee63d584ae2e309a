#include "cli/child.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/descriptor_limit.h"

namespace giltop {
namespace {

int status_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

struct Identity {
  User user;
  std::string name, home;
  std::vector<gid_t> groups;
};

// Runs in the child, between fork and exec.
[[noreturn]] void run(const Child::Options& options, const Identity* identity, int go, int error) {
  const auto fail = [&](int number) {
    (void)!write(error, &number, sizeof(number));
    _exit(number == ENOENT ? 127 : 126);
  };
  StopSignals::reset_in_child();
  std::signal(SIGPIPE, SIG_DFL);  // ignored by giltop, and an exec would keep that
  char word;
  ssize_t got;
  do {
    got = read(go, &word, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) _exit(0);  // giltop gave up before it began
  if (identity) {
    if (setgroups(identity->groups.size(), identity->groups.data()) != 0 ||
        setresgid(identity->user.gid, identity->user.gid, identity->user.gid) != 0 ||
        setresuid(identity->user.uid, identity->user.uid, identity->user.uid) != 0)
      fail(errno);
    setenv("HOME", identity->home.c_str(), 1);
    setenv("USER", identity->name.c_str(), 1);
    setenv("LOGNAME", identity->name.c_str(), 1);
    for (const char* name : {"SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"}) unsetenv(name);
  }
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) fail(errno);
  const bool keep = options.output_fd >= 0;
  if (options.quiet || keep) {
    const int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
      dup2(null, STDIN_FILENO);
      dup2(keep ? options.output_fd : null, STDOUT_FILENO);
      if (keep) dup2(options.output_fd, STDERR_FILENO);
    }
  }
  std::vector<char*> arguments;
  for (const std::string& argument : options.command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  restore_descriptor_limit();
  execvp(arguments[0], arguments.data());
  fail(errno);
  _exit(127);
}

}  // namespace

Result<Child> Child::make(const Options& options) {
  Identity identity;
  if (options.user) {
    identity.user = *options.user;
    const passwd* entry = getpwuid(options.user->uid);
    if (!entry)
      return Error("cannot run the command as user " + std::to_string(options.user->uid) +
                   " (SUDO_UID): there is no such user");
    identity.name = entry->pw_name;
    identity.home = entry->pw_dir;
    int count = 64;
    identity.groups.resize(static_cast<size_t>(count));
    if (getgrouplist(entry->pw_name, options.user->gid, identity.groups.data(), &count) < 0) {
      identity.groups.resize(static_cast<size_t>(count));
      getgrouplist(entry->pw_name, options.user->gid, identity.groups.data(), &count);
    }
    identity.groups.resize(static_cast<size_t>(count));
  }
  int go[2], error[2];
  if (pipe2(go, O_CLOEXEC) != 0) return system_error("cannot start the command", errno);
  Fd go_read(go[0]), go_write(go[1]);
  if (pipe2(error, O_CLOEXEC) != 0) return system_error("cannot start the command", errno);
  Fd error_read(error[0]), error_write(error[1]);
  const pid_t pid = fork();
  if (pid < 0) return system_error("cannot start the command", errno);
  if (pid == 0) {
    go_write.reset();
    run(options, options.user ? &identity : nullptr, go_read.get(), error_write.get());
  }
  return Child(pid, std::move(go_write), std::move(error_read), options.command.front());
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      go_(std::move(other.go_)),
      error_(std::move(other.error_)),
      name_(std::move(other.name_)),
      ran_(other.ran_),
      started_(other.started_),
      failed_status_(other.failed_status_),
      status_(other.status_) {}

Child::~Child() {
  if (pid_ < 0 || ran_) return;
  go_.reset();
  wait();
}

void Child::go() {
  ran_ = true;
  (void)!write(go_.get(), "g", 1);
  go_.reset();
}

Result<bool> Child::started() {
  if (started_) return true;
  pollfd ready{error_.get(), POLLIN, 0};
  if (::poll(&ready, 1, 0) <= 0) return false;
  int number = 0;
  ssize_t got;
  do {
    got = read(error_.get(), &number, sizeof(number));
  } while (got < 0 && errno == EINTR);
  error_.reset();
  started_ = true;
  if (got != sizeof(number)) return true;  // closed by the exec
  failed_status_ = number == ENOENT ? 127 : 126;
  wait();
  return system_error("cannot run " + name_, number);
}

std::optional<int> Child::poll() {
  if (status_) return status_;
  int status = 0;
  const pid_t done = waitpid(pid_, &status, WNOHANG);
  if (done == pid_) status_ = status_of(status);
  return status_;
}

int Child::wait() {
  while (!status_) {
    int status = 0;
    const pid_t done = waitpid(pid_, &status, 0);
    if (done == pid_) status_ = status_of(status);
    if (done < 0 && errno != EINTR) status_ = 1;
  }
  return *status_;
}

void Child::signal(int number) const {
  if (!status_) kill(pid_, number);
}

}  // namespace giltop
