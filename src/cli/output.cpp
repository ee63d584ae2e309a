#include "cli/output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "base/keep_old.h"

namespace giltop {
namespace {

constexpr int kPatience_ms = 1000;  // with a reader, when we are to end
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
volatile sig_atomic_t stop_count = 0;
volatile sig_atomic_t sent = 0;
std::atomic<void (*)()> before_exit = nullptr;

void on_signal(int number, siginfo_t* info, void*) {
  if (stop_count != 0) {
    if (const auto done = before_exit.load()) done();
    _exit(128 + number);
  }
  stop_count = 1;
  if (info && info->si_code == SI_USER) sent = number;
}

std::optional<unsigned> number_of(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return std::nullopt;
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (*end != 0) return std::nullopt;
  return static_cast<unsigned>(value);
}

}  // namespace

void say(const std::string& message) { std::fprintf(stderr, "giltop: %s\n", message.c_str()); }
void say(const Error& error) { say(error.message()); }

Result<Output> Output::make(const std::string& path) {
  if (path == "-") return Output(Fd(), STDOUT_FILENO, "to stdout");
  // What was there stays until there is something to write; and stays whose it was.
  Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  bool is_new = static_cast<bool>(file);
  if (!file) file = Fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) {  // a link that leads to no file yet
    file = Fd(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    is_new = static_cast<bool>(file);
  }
  if (!file) return system_error("cannot write " + path, errno);
  if (const auto user = invoking_user(); user && is_new) {
    if (fchown(file.get(), user->uid, user->gid) != 0) {
      // Stays root's where the file system has no owners.
    }
  }
  const int fd = file.get();
  return Output(std::move(file), fd, path, is_new);
}

Output::~Output() {
  if (!file_ || !is_new_ || begun_) return;
  struct stat ours, there;
  if (fstat(file_.get(), &ours) == 0 && lstat(name_.c_str(), &there) == 0 &&
      ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
    unlink(name_.c_str());
}

Result<bool> Output::write(const std::string& text) {
  if (file_ && !std::exchange(begun_, true)) {
    // A device has no length.
    if (ftruncate(fd_, 0) != 0 && errno != EINVAL)
      return system_error("cannot empty " + name_, errno);
  }
  size_t done = 0;
  while (done < text.size()) {
    // Never more than there is room for: a reader that stalls does not keep us from ending.
    pollfd ready{fd_, POLLOUT, 0};
    const int can = poll(&ready, 1, kPatience_ms);
    if (can == 0 && !insists_ && StopSignals::stop_requested()) return false;
    if (can <= 0) continue;
    const size_t some = std::min(text.size() - done, size_t{PIPE_BUF});
    const ssize_t put = ::write(fd_, text.data() + done, some);
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (put < 0 && errno == EPIPE) return false;
    if (put < 0) return system_error("cannot write " + name_, errno);
    done += static_cast<size_t>(put);
  }
  return true;
}

Status write_text(const std::string& path, const std::string& text) {
  auto output = Output::make(path);
  if (!output) return output.error();
  output->insist();
  const auto written = output->write(text);  // a reader may have seen enough
  return written ? ok() : Status(written.error());
}

Status write_new_file(const std::string& path, const std::string& text) {
  if (path != "-")
    if (const auto kept = keep_old(path); !kept) return kept.error();
  return write_text(path, text);
}

std::optional<User> invoking_user() {
  if (geteuid() != 0) return std::nullopt;
  const auto uid = number_of("SUDO_UID"), gid = number_of("SUDO_GID");
  if (!uid || !gid) return std::nullopt;
  return User{*uid, *gid};
}

StopSignals::StopSignals() {
  stop_count = 0;
  sent = 0;
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < std::size(kSignals); i++) {
    sigaction(kSignals[i], &action, &before_[i]);
    // nohup and the like have it ignored: so do we, and so does the command.
    if (before_[i].sa_handler == SIG_IGN) sigaction(kSignals[i], &before_[i], nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < std::size(kSignals); i++) sigaction(kSignals[i], &before_[i], nullptr);
}

void StopSignals::reset_in_child() {
  for (const int number : kSignals) {
    struct sigaction now {};
    if (sigaction(number, nullptr, &now) == 0 && now.sa_handler != SIG_IGN)
      std::signal(number, SIG_DFL);
  }
}

void StopSignals::at_once_after(void (*done)()) { before_exit = done; }
bool StopSignals::stop_requested() { return stop_count != 0; }
int StopSignals::sent_signal() { return sent; }

}  // namespace giltop
