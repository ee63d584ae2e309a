#include "support/live.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace giltop::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kMark = "GILTOP_TEST_RUN";  // in the environment of all we start: our pid

int left_ms(Clock::time_point end) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
  return static_cast<int>(std::max<int64_t>(0, left.count()));
}

bool drain(int& fd, std::string& into) {
  char buffer[65536];
  const ssize_t got = read(fd, buffer, sizeof(buffer));
  if (got > 0) into.append(buffer, static_cast<size_t>(got));
  if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) {
    close(fd);
    fd = -1;
  }
  return got > 0;
}

}  // namespace

Program::Program(std::vector<std::string> command,
                 const std::map<std::string, std::string>& environment) {
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) std::abort();
  const std::string mark = std::to_string(getpid());
  pid_ = fork();
  if (pid_ == 0) {
    // A shell has its background jobs ignore them.
    for (const int number : {SIGINT, SIGQUIT}) ::signal(number, SIG_DFL);
    setenv(kMark, mark.c_str(), 1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  close(err[1]);
  in_ = in[1];
  out_ = out[0];
  err_ = err[0];
}

Program::~Program() {
  if (!ended_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {in_, out_, err_})
    if (fd >= 0) close(fd);
}

void Program::write_line(const std::string& line) {
  const std::string text = line + "\n";
  (void)!write(in_, text.data(), text.size());
}

void Program::close_stdin() {
  if (in_ >= 0) close(in_);
  in_ = -1;
}

void Program::signal(int number) { kill(pid_, number); }

void Program::pump(int timeout_ms) {
  pollfd fds[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
  if (poll(fds, 2, timeout_ms) <= 0) return;
  if (out_ >= 0 && fds[0].revents) drain(out_, ran_.out);
  if (err_ >= 0 && fds[1].revents) drain(err_, ran_.err);
}

bool Program::reap() {
  if (ended_) return true;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  ended_ = true;
  ran_.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

bool Program::wait_for(const std::string& text, std::chrono::seconds deadline) {
  const auto end = Clock::now() + deadline;
  while (left_ms(end) > 0) {
    if (ran_.out.find(text) != std::string::npos || ran_.err.find(text) != std::string::npos)
      return true;
    if (out_ < 0 && err_ < 0) return false;
    pump(std::min(left_ms(end), 100));
  }
  return false;
}

Ran Program::finish(std::chrono::seconds deadline) {
  close_stdin();
  const auto end = Clock::now() + deadline;
  while (!reap() && left_ms(end) > 0) pump(10);
  if (!ended_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    ended_ = true;
    ran_.status = -1;
  }
  // What it wrote last; a descendant of its own may keep the pipe open, so not until the end of it.
  for (int i = 0; i < 100 && (out_ >= 0 || err_ >= 0); i++) {
    const size_t had = ran_.out.size() + ran_.err.size();
    pump(20);
    if (ran_.out.size() + ran_.err.size() == had && i > 2) break;
  }
  return ran_;
}

Ran run(const std::vector<std::string>& command, std::chrono::seconds deadline) {
  Program program(command);
  return program.finish(deadline);
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = std::filesystem::temp_directory_path() / "giltop-test-XXXXXX";
  if (!mkdtemp(name.data())) std::abort();
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text, bool executable) {
  std::ofstream(path, std::ios::binary) << text;
  if (executable) std::filesystem::permissions(path, std::filesystem::perms(0755));
}

std::string python() {
  static const std::string found = [] {
    const Ran asked = run({"python3", "-c", "import sys; print(sys.executable)"});
    std::string path = asked.out;
    while (!path.empty() && (path.back() == '\n' || path.back() == '\r')) path.pop_back();
    return asked.status == 0 ? path : std::string();
  }();
  return found;
}

std::string workload() { return std::string(GILTOP_SOURCE_DIR) + "/tools/workloads/workload.py"; }

double slowness() {
  const char* said = std::getenv("GILTOP_SLOWNESS");
  return said ? std::max(1.0, std::atof(said)) : 1;
}

void Live::SetUp() {
  const bool can = geteuid() == 0 && access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  if (can) return;
  if (std::getenv("GILTOP_REQUIRE_LIVE")) FAIL() << "live tests need root and kernel BTF";
  GTEST_SKIP() << "needs root and a kernel with BTF";
}

namespace {

// giltop's processes that this test program started, by a mark in their environment.
std::string own_giltops() {
  const std::string mark = std::string(kMark) + "=" + std::to_string(getpid());
  std::string found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string comm = read_file(entry.path() / "comm");
    if (comm.rfind("giltop", 0) != 0) continue;
    const std::string environment = read_file(entry.path() / "environ");
    if (environment.find(mark + '\0') != std::string::npos)
      found += entry.path().filename().string() + " " + comm;
  }
  return found;
}

}  // namespace

void Live::TearDown() {
  // No process of giltop's outlives its test, the guard included.
  std::string left;
  for (int i = 0; i < 100; i++) {
    left = own_giltops();
    if (left.empty()) break;
    usleep(50'000);
  }
  EXPECT_EQ(left, "") << "still there";
}

const Json& Live::Recorded::process() const {
  static const Json none;
  // The one with the most GIL events, which is the workload's.
  const Json* best = &none;
  uint64_t most = 0;
  for (const Json& p : report.at("processes")) {
    uint64_t acquires = 0;
    for (const Json& g : p.at("gils"))  // light mode counts the contended ones only
      acquires += g.at(g.at("acquires").is_null() ? "contended" : "acquires").get<uint64_t>();
    if (best == &none || acquires > most) {
      best = &p;
      most = acquires;
    }
  }
  return *best;
}

const Json& Live::Recorded::thread(const Json& process, uint32_t tid) {
  static const Json none;
  for (const Json& t : process.at("threads"))
    if (t.at("tid") == tid) return t;
  return none;
}

Live::Recorded Live::record(const std::vector<std::string>& command,
                            const std::vector<std::string>& options) {
  Recorded recorded;
  const std::string name = std::to_string(recordings_++);
  recorded.file = directory_.path(name + ".pftrace");
  const std::string json = directory_.path(name + ".json");
  std::vector<std::string> words = {GILTOP_BINARY, "record", "-o", recorded.file, "--json=" + json};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back("--");
  words.insert(words.end(), command.begin(), command.end());
  recorded.ran = run(words);
  EXPECT_EQ(recorded.ran.status, 0) << recorded.ran.err;
  const std::string text = read_file(json);
  if (!Json::accept(text)) {
    ADD_FAILURE() << "no report: " << recorded.ran.err;
    recorded.report = {{"processes", Json::array()}};
    return recorded;
  }
  recorded.report = Json::parse(text);
  EXPECT_EQ(recorded.report.at("violations"), 0);
  EXPECT_EQ(recorded.report.at("lost_events"), 0);
  return recorded;
}

Live::Recorded Live::record_workload(const std::vector<std::string>& arguments,
                                     const std::vector<std::string>& options) {
  const std::string truth = directory_.path("truth" + std::to_string(recordings_) + ".json");
  std::vector<std::string> command = {python(), workload()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  command.insert(command.end(), {"--truth", truth});
  Recorded recorded = record(command, options);
  const std::string text = read_file(truth);
  EXPECT_TRUE(Json::accept(text)) << "no truth from the workload: " << recorded.ran.err;
  if (Json::accept(text)) recorded.truth = Json::parse(text);
  return recorded;
}

double in_gil_state(const Json& thread, const std::string& state) {
  double sum = 0;
  for (const auto& [name, seconds] : thread.at("matrix").at(state).items())
    sum += seconds.get<double>();
  return sum;
}

double in_cpu_state(const Json& thread, const std::string& state) {
  double sum = 0;
  for (const auto& [name, row] : thread.at("matrix").items())
    sum += row.at(state + "_s").get<double>();
  return sum;
}

double life(const Json& thread) {
  return thread.at("last_s").get<double>() - thread.at("first_s").get<double>();
}

double wanted_cpu_s(pid_t pid, int tid) {
  std::istringstream in(
      read_file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/schedstat"));
  double on_cpu_ns = 0, runnable_ns = 0;
  in >> on_cpu_ns >> runnable_ns;
  return runnable_ns / 1e9;
}

double waited_for_cpus(const Json& process, const Json& tid) {
  double sum = 0;
  for (const Json& gil : process.at("gils"))
    for (const Json& row : gil.at("blame"))
      if (row.at("waiter_tid") == tid)
        sum += row.at("runnable_s").get<double>() + row.at("handoff_s").get<double>();
  return sum;
}

void expect_lost_to_sleeper(const Json& report, const Json& process, uint32_t computer,
                            uint32_t sleeper, double unsure_s) {
  const Json &waiter = Live::Recorded::thread(process, computer),
             &holder = Live::Recorded::thread(process, sleeper);
  ASSERT_FALSE(waiter.is_null() || holder.is_null());
  double lost = 0, unknown = 0;
  for (const Json& gil : process.at("gils"))
    for (const Json& row : gil.at("blame"))
      if (row.at("waiter_tid") == computer && row.at("holder_tid") == sleeper) {
        lost += row.at("blocked_s").get<double>();
        unknown += row.at("unknown_s").get<double>();
      }
  EXPECT_LE(unknown, report.at("inferred_s").get<double>() + unsure_s + 1e-6);
  // It was not there yet, or not any more; or it was let go and had no CPU to wait for the GIL on;
  // or the kernel did not report a switch of the sleeper, and what it did is known too late for it.
  const auto moment = [](const Json& thread, const char* name) {
    return thread.at(name).get<double>();
  };
  const Json& released = waiter.at("matrix").at("released");
  const double excused = std::max(0.0, moment(waiter, "first_s") - moment(holder, "first_s")) +
                         std::max(0.0, moment(holder, "last_s") - moment(waiter, "last_s")) +
                         released.at("running_s").get<double>() +
                         released.at("runnable_s").get<double>() + unknown + unsure_s;
  EXPECT_GE(lost, holder.at("matrix").at("holding").at("blocked_s").get<double>() - excused - 0.005)
      << waiter.at("matrix");
  // And nearly all that it waited.
  const double waited = in_gil_state(waiter, "waiting") - waited_for_cpus(process, computer);
  EXPECT_GE(lost, 0.9 * waited - unknown - unsure_s);
}

int unreported_switches(const Json& report) {
  constexpr int kFew = 5;
  return std::min(kFew, report.at("inferred_switches").get<int>());
}

}  // namespace giltop::testing
