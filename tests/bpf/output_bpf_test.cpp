// Where the data goes: stdout and files, whose these are, and readers that do not read.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <sstream>

#include "base/fd.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

constexpr uid_t kNobody = 65534, kSomebody = 4242;

class OutputOf : public Live {
 protected:
  void SetUp() override {
    Live::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    target_ = std::make_unique<Program>(
        std::vector<std::string>{python(), workload(), "setswitch", "--scale", "60", "--started"});
    ASSERT_TRUE(target_->wait_for("started"));
    pid_ = std::to_string(target_->pid());
  }
  std::string file(const std::string& name) const { return directory_.path(name); }
  static std::vector<std::string> giltop(const std::vector<std::string>& more) {
    std::vector<std::string> words = {GILTOP_BINARY};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  // As sudo has it for the user nobody.
  static Ran run_for_nobody(const std::vector<std::string>& words) {
    Program program(giltop(words), {{"SUDO_UID", "65534"}, {"SUDO_GID", "65534"}});
    return program.finish();
  }
  static uid_t owner_of(const std::string& path) {
    struct stat status {};
    return lstat(path.c_str(), &status) == 0 ? status.st_uid : ~uid_t{0};
  }

  std::unique_ptr<Program> target_;
  std::string pid_;
};

TEST_F(OutputOf, JsonToStdoutIsInNoFile) {
  const std::string recording = file("r.pftrace");
  ASSERT_EQ(run(giltop({"record", "-q", "-o", recording, "-p", pid_, "-d", "0.2"})).status, 0);
  const std::string folder = file("here");
  std::filesystem::create_directory(folder);
  const std::vector<std::vector<std::string>> commands = {
      {"top", "-p", pid_, "-n", "1", "-d", "0.2"},
      {"-p", pid_, "-n", "1", "-d", "0.2"},
      {"record", "-o", file("another.pftrace"), "-p", pid_, "-d", "0.2"},
      {"hist", "-p", pid_, "0.2", "1"},
      {"hist", recording},
      {"report", recording},
      {"doctor", "-p", pid_}};
  for (const auto& command : commands) {
    for (const std::string json : {"-j", "--json", "--json=-"}) {
      SCOPED_TRACE(command[0] + " " + json);
      std::vector<std::string> words = {"sh", "-c", "cd \"$0\" && exec \"$@\"", folder};
      for (const std::string& word : giltop(command)) words.push_back(word);
      words.push_back(json);
      const Ran ran = run(words);
      EXPECT_EQ(ran.status, 0) << ran.err;
      EXPECT_TRUE(Json::accept(ran.out)) << ran.out.substr(0, 200);
      EXPECT_TRUE(std::filesystem::is_empty(folder))
          << std::filesystem::directory_iterator(folder)->path();
    }
  }
}

TEST_F(OutputOf, FilesAreWhoseTheyWereOrWhoTypedSudo) {
  const std::string top = file("top.json"), record = file("record.json"), hist = file("hist.json"),
                    trace = file("r.pftrace"), saved = file("saved.json");
  const std::vector<std::vector<std::string>> commands = {
      {"-p", pid_, "-n", "1", "-d", "0.2", "--json=" + top},
      {"record", "-q", "-p", pid_, "-d", "0.2", "-o", trace, "--json=" + record},
      {"hist", "-p", pid_, "0.2", "1", "-o", saved, "--json=" + hist}};
  const std::set<std::string> files = {top, record, hist, trace, saved};
  for (const auto& command : commands) EXPECT_EQ(run_for_nobody(command).status, 0) << command[0];
  for (const std::string& each : files) {
    EXPECT_EQ(owner_of(each), kNobody) << each;
    EXPECT_FALSE(read_file(each).empty()) << each;
    write_file(each, "what was there");
    ASSERT_EQ(chown(each.c_str(), kSomebody, kSomebody), 0);
  }
  for (const auto& command : commands) EXPECT_EQ(run_for_nobody(command).status, 0) << command[0];
  for (const std::string& each : files) {
    // A recording that was there is kept.
    const std::string old = each == trace ? each + ".old" : each;
    EXPECT_EQ(owner_of(old), kSomebody) << old;
    EXPECT_EQ(read_file(each).find("what was there"), std::string::npos) << each;
  }
  EXPECT_EQ(read_file(trace + ".old"), "what was there");
}

// Whose stdout is closed is told so, however it writes; no file of giltop's own takes its place.
TEST_F(OutputOf, AClosedStdoutIsAnError) {
  for (const char* command : {"top -b -n 1", "top -n 1 --json", "hist -a 0.1 1", "doctor"}) {
    SCOPED_TRACE(command);
    const Ran ran =
        run({"/bin/sh", "-c", std::string("exec \"$0\" ") + command + " >&-", GILTOP_BINARY});
    EXPECT_EQ(ran.status, 1);
    EXPECT_THAT(ran.err, HasSubstr("cannot write to stdout: Bad file descriptor"));
  }
  // And a command that giltop runs has none either.
  const Ran ran =
      run({"/bin/sh", "-c", "exec \"$0\" record -q -o \"$1\" -- test ! -e /proc/self/fd/1 >&-",
           GILTOP_BINARY, directory_.path("a.pftrace")});
  EXPECT_EQ(ran.status, 0) << ran.err;
}

// The time may be over before the command is.
TEST_F(OutputOf, ThatTheCommandGoesOnIsSaid) {
  const std::string recording = file("a.pftrace"), end = file("end"),
                    goes_on = "the command goes on";
  const Ran brief = run(giltop({"record", "-d", "60", "-o", recording, "--", "/bin/true"}));
  EXPECT_EQ(brief.status, 0);
  EXPECT_THAT(brief.err, ::testing::Not(HasSubstr(goes_on)));
  EXPECT_THAT(brief.err, ::testing::Not(HasSubstr("That is much"))) << "no Python, no share";
  Program longer(giltop({"record", "-d", "0.1", "-o", recording, "--", "/bin/sh", "-c",
                         "while ! test -e \"$0\"; do sleep 0.1; done", end}));
  EXPECT_TRUE(longer.wait_for(goes_on));
  std::ofstream(end) << "now";
  EXPECT_EQ(longer.finish().status, 0);
}

TEST_F(OutputOf, ADeviceStaysWhoseItIs) {
  const std::string null = file("null");
  if (mknod(null.c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0) GTEST_SKIP() << "no devices here";
  if (!Fd(open(null.c_str(), O_WRONLY | O_CLOEXEC))) GTEST_SKIP() << "no devices here";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"-p", pid_, "-n", "1", "-d", "0.2", "--json=" + null},
        {"record", "-q", "-p", pid_, "-d", "0.2", "-o", null, "--json=" + null},
        {"hist", "-p", pid_, "0.2", "1", "-o", null, "--json=" + null}}) {
    EXPECT_EQ(run_for_nobody(command).status, 0) << command[0];
    EXPECT_EQ(owner_of(null), 0u) << command[0];
    struct stat status {};
    EXPECT_TRUE(stat(null.c_str(), &status) == 0 && S_ISCHR(status.st_mode)) << command[0];
  }
}

TEST_F(OutputOf, ARunThatDoesNotBeginEmptiesNothing) {
  const std::string there = file("there"), none = "4194303";
  write_file(there, "what was there");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"-p", none, "--json=" + there},
        {"record", "-p", none, "-o", there},
        {"record", "-p", none, "-o", file("r.pftrace"), "--json=" + there},
        {"hist", "-p", none, "--json=" + there, "1", "1"},
        {"hist", "-p", none, "-o", there, "1", "1"},
        {"hist", "/no/such/recording", "--json=" + there},
        {"hist", there, "--json=" + there},
        {"hist", there, "-o", there},
        {"report", "/no/such/recording", "--json=" + there}}) {
    const Ran ran = run(giltop(command));
    EXPECT_EQ(ran.status, 1) << command[0] << " " << ran.err;
    EXPECT_EQ(read_file(there), "what was there") << command[0];
    EXPECT_FALSE(std::filesystem::exists(there + ".old")) << command[0];
  }
}

// Nor does one that does not begin leave an empty file.
TEST_F(OutputOf, ARunThatDoesNotBeginMakesNoFile) {
  const std::string made = file("made"), none = "4194303";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"-p", none, "--json=" + made},
        {"record", "-p", none, "-o", made},
        {"record", "-p", none, "-o", file("r.pftrace"), "--json=" + made},
        {"hist", "-p", none, "--json=" + made, "1", "1"},
        {"hist", "-p", none, "-o", made, "1", "1"},
        {"hist", "/no/such/recording", "--json=" + made},
        {"report", "/no/such/recording", "--json=" + made}}) {
    const Ran ran = run(giltop(command));
    EXPECT_EQ(ran.status, 1) << command[0] << " " << ran.err;
    EXPECT_FALSE(std::filesystem::exists(made)) << command[0];
  }
}

// Each way to name one file twice.
TEST_F(OutputOf, TwoOutputsDoNotShareAFile) {
  namespace fs = std::filesystem;
  const std::string there = file("there"), fresh = file("fresh");
  write_file(there, "what was there");
  fs::create_symlink(there, file("link"));
  fs::create_hard_link(there, file("hard"));
  fs::create_symlink("fresh", file("dangling"));
  fs::create_directory_symlink(directory_.path(), file("folder"));
  const std::vector<std::pair<std::string, std::string>> same = {{there, there},
                                                                 {there, file("link")},
                                                                 {file("link"), there},
                                                                 {there, file("hard")},
                                                                 {fresh, fresh},
                                                                 {fresh, file("dangling")},
                                                                 {file("dangling"), fresh},
                                                                 {fresh, file("folder/fresh")},
                                                                 {there, there + ".old"}};
  for (const auto& [output, json] : same) {
    SCOPED_TRACE(output + " and " + json);
    const Ran recorded =
        run(giltop({"record", "-q", "-p", pid_, "-d", "0.2", "-o", output, "--json=" + json}));
    EXPECT_EQ(recorded.status, 2);
    EXPECT_EQ(std::count(recorded.err.begin(), recorded.err.end(), '\n'), 1) << recorded.err;
    EXPECT_THAT(recorded.err, HasSubstr("--json"));
    if (json != there + ".old") {
      const Ran hist =
          run(giltop({"hist", "-p", pid_, "-o", output, "--json=" + json, "0.2", "1"}));
      EXPECT_EQ(hist.status, 2) << hist.err;
    }
    EXPECT_EQ(read_file(there), "what was there");
    EXPECT_FALSE(fs::exists(there + ".old"));
    EXPECT_FALSE(fs::exists(fresh));
  }
  // What the shell's > made is one, too.
  const std::string shell = "\"$0\" record -q -p " + pid_ + " -d 0.2 -o \"$1\" --json >> \"$1\"";
  const Ran redirected = run({"sh", "-c", shell, GILTOP_BINARY, there});
  EXPECT_EQ(redirected.status, 2) << redirected.err;
  EXPECT_EQ(read_file(there), "what was there");
  const Ran to_stdout = run(giltop({"record", "-q", "-p", pid_, "-d", "0.2", "-o", "-"}));
  EXPECT_EQ(to_stdout.status, 2);
  EXPECT_THAT(to_stdout.err, HasSubstr("give -o FILE"));
}

TEST_F(OutputOf, NothingIsWrittenOverTheRecordingThatIsRead) {
  const std::string recording = file("r.pftrace");
  ASSERT_EQ(run(giltop({"record", "-q", "-o", recording, "-p", pid_, "-d", "0.2"})).status, 0);
  const std::string before = read_file(recording);
  const std::string hard = file("hard");
  std::filesystem::create_hard_link(recording, hard);
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"report", recording, "--json=" + hard},
        {"report", recording, "-o", hard},
        {"report", recording, "--html", hard},
        {"report", recording, "-f", "chrometrace", "-o", hard},
        {"hist", recording, "--json=" + hard},
        {"hist", recording, "-o", hard}}) {
    const Ran ran = run(giltop(command));
    EXPECT_EQ(ran.status, 1) << command[0];
    EXPECT_EQ(ran.err, "giltop: cannot write " + hard + ": it is the recording\n");
  }
  const Ran appended =
      run({"sh", "-c", "\"$0\" report \"$1\" >> \"$1\"", GILTOP_BINARY, recording});
  EXPECT_EQ(appended.err, "giltop: cannot write to stdout: it is the recording\n");
  EXPECT_TRUE(read_file(recording) == before);
}

// giltop with a pipe of one page for its stdout, of which nobody reads until we do.
class WithAStalledReader : public OutputOf {
 protected:
  void start(std::vector<std::string> words) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    reading_ = Fd(ends[0]);
    const Fd writing(ends[1]);
    room_ = fcntl(reading_.get(), F_SETPIPE_SZ, 4096);
    ASSERT_GE(room_, 4096);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_of_giltop_ = fork();
    if (pid_of_giltop_ != 0) return;
    dup2(writing.get(), STDOUT_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  void TearDown() override {
    if (pid_of_giltop_ > 0 && !ended_) {
      kill(pid_of_giltop_, SIGKILL);
      waitpid(pid_of_giltop_, &status_, 0);
    }
    OutputOf::TearDown();
  }
  bool wait_until(const std::function<bool()>& is) {
    for (int i = 0; i < 1500 && !is() && !ended_; i++) {
      ended_ = waitpid(pid_of_giltop_, &status_, WNOHANG) == pid_of_giltop_;
      usleep(20'000);
    }
    return is();
  }
  bool is_full() const {
    int unread = 0;
    return ioctl(reading_.get(), FIONREAD, &unread) == 0 && unread >= room_;
  }

  Fd reading_;
  int room_ = 0, status_ = 0;
  pid_t pid_of_giltop_ = 0;
  bool ended_ = false;
};

TEST_F(WithAStalledReader, ItEndsAllTheSame) {
  start(giltop({"-p", pid_, "-d", "0.1", "--json"}));
  EXPECT_TRUE(wait_until([&] { return is_full(); }));
  if (!ended_) kill(pid_of_giltop_, SIGTERM);
  EXPECT_TRUE(wait_until([&] { return ended_; })) << "it still waits for its reader";
  EXPECT_TRUE(WIFEXITED(status_)) << "in order";
}

// The report of a recording that Ctrl-C ended is what it was made for.
TEST_F(WithAStalledReader, TheResultIsWhole) {
  const std::string trace = file("r.pftrace");
  start(giltop({"record", "-q", "-p", pid_, "-o", trace, "--json"}));
  EXPECT_TRUE(wait_until([&] { return std::filesystem::exists(trace); }));
  kill(pid_of_giltop_, SIGINT);
  EXPECT_TRUE(wait_until([&] { return is_full(); }));
  usleep(1'500'000);  // longer than it has patience with the reader of a view
  std::string text;
  char some[4096];
  for (ssize_t got; (got = read(reading_.get(), some, sizeof(some))) > 0;)
    text.append(some, static_cast<size_t>(got));
  EXPECT_TRUE(Json::accept(text)) << text.size();
  EXPECT_TRUE(wait_until([&] { return ended_; }));
  EXPECT_TRUE(WIFEXITED(status_) && WEXITSTATUS(status_) == 0) << status_;
}

}  // namespace
}  // namespace giltop::testing
