// Threads that get another name while they are traced.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <sstream>

#include "support/interpreters.h"
#include "support/live.h"
#include "support/trace_checker.h"

namespace giltop::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Two threads that sleep: of these one renames itself, the other is renamed by the main thread.
constexpr const char* kTwoSleepers =
    "import ctypes, sys, threading\n"
    "PR_SET_NAME = 15\n"
    "renamed = threading.Event()\n"
    "rename = threading.Event()\n"
    "def first():\n"
    "    rename.wait()\n"
    "    ctypes.CDLL(None).prctl(PR_SET_NAME, b'by itself', 0, 0, 0)\n"
    "    renamed.set()\n"
    "    threading.Event().wait()\n"
    "a = threading.Thread(target=first, daemon=True); a.start()\n"
    "b = threading.Thread(target=threading.Event().wait, daemon=True); b.start()\n"
    "print('tids', a.native_id, b.native_id, 'started', flush=True)\n"
    "sys.stdin.readline()\n"
    "rename.set(); renamed.wait()\n"
    "with open('/proc/self/task/%d/comm' % b.native_id, 'w') as comm: comm.write('by another')\n"
    "print('renamed', flush=True)\n"
    "sys.stdin.readline()\n";

class Rename : public Live {
 protected:
  void start() {
    sleepers_ = std::make_unique<Program>(std::vector<std::string>{python(), "-c", kTwoSleepers});
    ASSERT_TRUE(sleepers_->wait_for("started"));
    std::istringstream words(sleepers_->out());
    std::string word;
    ASSERT_TRUE(words >> word >> first_ >> second_) << sleepers_->out();
    pid_ = std::to_string(sleepers_->pid());
  }
  void rename() {
    sleepers_->write_line("rename");
    ASSERT_TRUE(sleepers_->wait_for("renamed"));
  }
  // The names of the sleepers in a report.
  std::pair<std::string, std::string> names(const Json& report) const {
    std::pair<std::string, std::string> found;
    for (const Json& process : report.at("processes"))
      for (const Json& thread : process.at("threads")) {
        if (thread.at("tid") == first_) found.first = thread.at("comm");
        if (thread.at("tid") == second_) found.second = thread.at("comm");
      }
    return found;
  }

  std::unique_ptr<Program> sleepers_;
  std::string pid_;
  uint32_t first_ = 0, second_ = 0;
};

const std::pair<std::string, std::string> kRenamed = {"by itself", "by another"};

TEST_F(Rename, ARecordingHasTheNameOfAThreadThatGoesOn) {
  ASSERT_NO_FATAL_FAILURE(start());
  const std::string file = directory_.path("r.pftrace"), json = directory_.path("r.json");
  Program recorder({GILTOP_BINARY, "record", "-o", file, "--json=" + json, "-p", pid_});
  ASSERT_TRUE(recorder.wait_for("Ctrl-C ends it")) << recorder.err();
  ASSERT_NO_FATAL_FAILURE(rename());
  recorder.signal(SIGINT);
  ASSERT_EQ(recorder.finish().status, 0) << recorder.err();
  EXPECT_EQ(names(Json::parse(read_file(json))), kRenamed);
  EXPECT_THAT(recorder.out(), AllOf(HasSubstr("by itself"), HasSubstr("by another")));
  for (const std::string& broken : check_trace(file)) ADD_FAILURE() << broken;

  const auto giltop = [](std::vector<std::string> words) {
    words.insert(words.begin(), GILTOP_BINARY);
    const Ran ran = run(words);
    EXPECT_EQ(ran.status, 0) << ran.err;
    return ran.out;
  };
  EXPECT_EQ(names(Json::parse(giltop({"report", "--json", file}))), kRenamed);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"report", file}, {"report", file, "-f", "chrometrace"}})
    EXPECT_THAT(giltop(words), AllOf(HasSubstr("by itself"), HasSubstr("by another")));
  EXPECT_THAT(giltop({"hist", "-L", "--hold", file}), HasSubstr("by itself")) << "it ran, once";
  EXPECT_THAT(giltop({"report", file, "--anonymize"}),
              AllOf(Not(HasSubstr("by itself")), Not(HasSubstr("by another"))));
}

TEST_F(Rename, TheLiveViewHasTheNameWithinAnInterval) {
  for (const std::string mode : {"exact", "light"}) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(start());
    const std::string json = directory_.path(mode + ".json");
    const auto intervals = [&] {
      std::vector<Json> all;
      std::istringstream in(read_file(json));
      for (std::string line; std::getline(in, line);)
        if (Json::accept(line)) all.push_back(Json::parse(line));
      return all;
    };
    const auto wait_for_interval = [&](size_t number) {
      for (int i = 0; i < 1500 && intervals().size() <= number; i++) usleep(20'000);
      return intervals().size() > number;
    };
    Program viewer(
        {GILTOP_BINARY, "-i", "-d", "0.3", "--mode", mode, "--json=" + json, "-p", pid_});
    ASSERT_TRUE(wait_for_interval(0));
    EXPECT_EQ(names(intervals()[0]).first.substr(0, 6), "python");
    ASSERT_NO_FATAL_FAILURE(rename());
    // One may have been over and not yet written.
    const size_t now = intervals().size() + 1;
    ASSERT_TRUE(wait_for_interval(now));
    EXPECT_EQ(names(intervals()[now]), kRenamed);
    viewer.signal(SIGINT);
    EXPECT_EQ(viewer.finish().status, 0) << viewer.err();
  }
}

// An exec gives its thread a name, which is that of the program that follows.
TEST_F(Rename, AnImageThatEndsByAnExecKeepsItsName) {
  const Recorded recorded =
      record({python(), "-c",
              "import ctypes, os, sys\n"
              "ctypes.CDLL(None).prctl(15, b'the first', 0, 0, 0)\n"
              "os.symlink(sys.executable, sys.argv[1])\n"
              "os.execv(sys.argv[1], [sys.argv[1], '-S', '-c', 'print(1)'])\n",
              directory_.path("the-second")});
  std::map<std::string, int> comms;
  for (const Json& process : recorded.report.at("processes"))
    for (const Json& thread : process.at("threads")) comms[thread.at("comm")]++;
  EXPECT_EQ(comms, (std::map<std::string, int>{{"the first", 1}, {"the-second", 1}}));
}

// From 3.14 on threading.Thread's name is the kernel's, too.
TEST_F(Rename, NamesThatPythonGives) {
  const auto all = installed_interpreters();
  const auto python = std::find_if(all.begin(), all.end(), [](const Interpreter& p) {
    return p.minor >= 14 && !p.embedded() && !p.debug;
  });
  if (python == all.end()) GTEST_SKIP() << "no Python 3.14 here: tools/interpreters fetch";
  write_file(directory_.path("named.py"),
             "import os, threading\n"
             "done = threading.Event()\n"
             "t = threading.Thread(target=done.wait, name='feeder', daemon=True); t.start()\n"
             "print(os.getpid(), 'started', flush=True)\n"
             "input()\n"
             "threading.Thread(target=done.wait, name='eater', daemon=True).start()\n"
             "print('both', flush=True)\n"
             "input()\n"
             "os._exit(0)\n");
  Program target(python->command(directory_.path(), "named.py", {}));
  ASSERT_TRUE(target.wait_for("started")) << target.err();
  const std::string json = directory_.path("r.json");
  Program recorder({GILTOP_BINARY, "record", "-o", directory_.path("r.pftrace"), "--json=" + json,
                    "-p", std::to_string(std::stoi(target.out()))});
  ASSERT_TRUE(recorder.wait_for("Ctrl-C ends it")) << recorder.err();
  target.write_line("go");
  ASSERT_TRUE(target.wait_for("both"));
  recorder.signal(SIGINT);
  ASSERT_EQ(recorder.finish().status, 0) << recorder.err();
  std::vector<std::string> comms;
  const Json report = Json::parse(read_file(json));
  for (const Json& process : report.at("processes"))
    for (const Json& thread : process.at("threads")) comms.push_back(thread.at("comm"));
  EXPECT_THAT(comms, ::testing::IsSupersetOf({"feeder", "eater"}));
  target.write_line("end");
  target.finish();
}

}  // namespace
}  // namespace giltop::testing
