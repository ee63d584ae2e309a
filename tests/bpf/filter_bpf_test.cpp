// Who is shown: by user and by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <regex>
#include <sstream>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Filter : public Live {
 protected:
  std::string json_file() const { return directory_.path("top.json"); }
  std::vector<std::string> top(const std::vector<std::string>& more) {
    std::vector<std::string> words = {GILTOP_BINARY, "--json=" + json_file()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::vector<Json> intervals() const {
    std::vector<Json> all;
    std::istringstream in(read_file(json_file()));
    for (std::string line; std::getline(in, line);)
      if (Json::accept(line)) all.push_back(Json::parse(line));
    return all;
  }
  // In how many intervals this process is, from the interval `from` on.
  size_t times_shown(int pid, size_t from = 0) const {
    const std::vector<Json> all = intervals();
    size_t times = 0;
    for (size_t i = from; i < all.size(); i++)
      for (const Json& p : all[i].at("processes")) times += p.at("pid") == pid;
    return times;
  }
  bool wait_until(const std::function<bool()>& is) const {
    for (int i = 0; i < 1500 && !is(); i++) usleep(20'000);
    return is();
  }
  bool wait_for_intervals(size_t more) const {
    const size_t before = intervals().size();
    return wait_until([&] { return intervals().size() >= before + more; });
  }
};

// Giltop follows who starts them, and so misses nothing.
TEST_F(Filter, AProcessThatLivesForAMomentIsOfItsUser) {
  Program server({python(), "-c",
                  "import subprocess, sys\n"
                  "brief = [sys.executable, '-c', 'import os; print(os.getuid(), os.getpid())']\n"
                  "nobody = 'setpriv --reuid=65534 --regid=65534 --clear-groups'.split()\n"
                  "print('ready', flush=True); input()\n"
                  "for i in range(4):\n"
                  "    subprocess.run(nobody + brief); subprocess.run(brief)\n"
                  "print('done', flush=True); input()\n"});
  ASSERT_TRUE(server.wait_for("ready"));
  Program viewer(top({"-u", "65534", "-d", "0.5", "-p", std::to_string(server.pid()),
                      "--subprocesses", "--mode", "exact"}));
  ASSERT_TRUE(wait_for_intervals(1));
  server.write_line("go");
  ASSERT_TRUE(server.wait_for("done"));
  ASSERT_TRUE(wait_for_intervals(2));
  server.write_line("end");
  EXPECT_EQ(server.finish().status, 0);
  EXPECT_EQ(viewer.finish().status, 0) << viewer.err();
  std::istringstream words(server.out().substr(server.out().find('\n') + 1));
  std::map<unsigned, int> seen;  // by user
  for (unsigned user = 0, pid = 0; words >> user >> pid; seen[user]++)
    EXPECT_EQ(times_shown(static_cast<int>(pid)) > 0, user == 65534) << pid << " of " << user;
  EXPECT_EQ(seen[0], 4);
  if (seen[65534] == 0) GTEST_SKIP() << "nobody may not run " << python();
  EXPECT_EQ(seen[65534], 4);
}

// As a server that begins as root, and its workers, each of which ends at once.
TEST_F(Filter, WhoBecomesAnotherUserIsOfThatOne) {
  Program server({python(), "-c",
                  "import os\n"
                  "print('root', flush=True); input()\n"
                  "os.setgid(65534); os.setuid(65534)\n"
                  "print('nobody', flush=True); input()\n"
                  "for i in range(5):\n"
                  "    pid = os.fork()\n"
                  "    if pid == 0:\n"
                  "        sum(range(100000)); os._exit(0)\n"
                  "    os.waitpid(pid, 0); print('worker', pid, flush=True)\n"
                  "print('forked', flush=True); input()\n"});
  ASSERT_TRUE(server.wait_for("root"));
  Program viewer(top({"-u", "65534", "-d", "0.2", "-p", std::to_string(server.pid()),
                      "--subprocesses", "--mode", "exact"}));
  ASSERT_TRUE(wait_for_intervals(3));
  EXPECT_EQ(times_shown(server.pid()), 0u);
  server.write_line("go");
  ASSERT_TRUE(server.wait_for("nobody"));
  EXPECT_TRUE(wait_until([&] { return times_shown(server.pid()) > 0; }));
  server.write_line("go");
  ASSERT_TRUE(server.wait_for("forked"));
  ASSERT_TRUE(wait_for_intervals(2));
  server.write_line("end");
  EXPECT_EQ(server.finish().status, 0);
  EXPECT_EQ(viewer.finish().status, 0) << viewer.err();
  std::istringstream words(server.out());
  int workers = 0;
  for (std::string word; words >> word;) {
    int pid = 0;
    if (word != "worker" || !(words >> pid)) continue;
    workers++;
    EXPECT_GT(times_shown(pid), 0u) << pid;
  }
  EXPECT_EQ(workers, 5);
}

TEST_F(Filter, ACommandLineOfAnyLength) {
  const std::string much(100'000, 'a');
  Program target({python(), "-c", "print('here', flush=True); input()", much, "the end"});
  ASSERT_TRUE(target.wait_for("here"));
  for (const std::string expression :
       {"(a+)+b", "((a|aa)*)*$b", "(.*)*x(.*)*y", "a{100,200}c", "(a|b|ab)*#"}) {
    const Ran ran = run(top({"-i", "-n", "1", "-d", "0.1", "-p", std::to_string(target.pid()),
                             "--comm", expression}),
                        std::chrono::seconds(60));
    EXPECT_EQ(ran.status, 0) << expression << " " << ran.err;
    EXPECT_EQ(times_shown(target.pid()), 0u) << expression;
  }
  for (const std::string expression : {"here", "a{20}", "^.*print"}) {
    const Ran ran = run(top(
        {"-i", "-n", "1", "-d", "0.1", "-p", std::to_string(target.pid()), "--comm", expression}));
    EXPECT_EQ(ran.status, 0) << expression << " " << ran.err;
    EXPECT_EQ(times_shown(target.pid()), 1u) << expression;
  }
}

// What tracing costs does not depend on who is looked at.
TEST_F(Filter, TheOverheadIsOfAll) {
  Program target({python(), "-c",
                  "import os\n"
                  "null = os.open('/dev/null', os.O_WRONLY)\n"
                  "print('started', flush=True)\n"
                  "while True: os.write(null, b'.')\n"});
  ASSERT_TRUE(target.wait_for("started"));
  const std::string pid = std::to_string(target.pid());
  const std::vector<std::vector<std::string>> filters = {
      {}, {"--comm", "no such name"}, {"-u", "65534"}};
  std::vector<double> taken_s;
  for (const auto& filter : filters) {
    std::vector<std::string> words = top({"-p", pid, "-n", "2", "-d", "0.3", "--mode", "exact"});
    words.insert(words.end(), filter.begin(), filter.end());
    EXPECT_EQ(run(words).status, 0);
    const std::vector<Json> all = intervals();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[1].at("processes").size(), filter.empty() ? 1u : 0u);
    taken_s.push_back(all[1].at("overhead").at("estimated_s").get<double>());
    EXPECT_GT(all[1].at("overhead").at("probe_hits"), 1000);
    words[1] = "-b";
    const Ran text = run(words);
    std::smatch percent;
    ASSERT_TRUE(std::regex_search(text.out, percent, std::regex("overhead ([0-9.]+) %")))
        << text.out;
    EXPECT_GT(std::stod(percent[1]), 0.5) << "of one CPU\n" << text.out;
    EXPECT_LT(std::stod(percent[1]), 200) << "of one CPU\n" << text.out;
  }
  for (const double s : taken_s) EXPECT_GT(s, taken_s[0] / 20) << "and not of nobody";
}

}  // namespace
}  // namespace giltop::testing
