// The live view as users have it: giltop in a terminal, over programs that run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>

#include "support/live_view.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string fmt_pid(int pid) { return "-p " + std::to_string(pid); }

// The line that begins with this id.
std::string row_of(const std::string& screen, int id) {
  std::istringstream in(screen);
  for (std::string line; std::getline(in, line);)
    if (std::atoi(line.c_str()) == id) return line;
  return {};
}

TEST_F(LiveView, TwoThreadsThatComputeWaitForEachOther) {
  const auto program = turns();
  Terminal terminal(140, 20);
  const std::string modes = start(terminal, fmt_pid(program->pid()) + " -H");
  std::vector<int> computers;
  const bool seen = terminal.wait_until(
      [&] {
        const Picture picture(terminal.screen());
        computers.clear();
        // Of the time that each had a CPU, or would have: others may want the CPUs, too.
        for (const int tid : threads_of(program->pid())) {
          if (tid == program->pid()) continue;  // its row is the process's
          const double wait = picture.number_under("WAIT%", tid);
          const double share = wait / (wait + picture.number_under("HELD%", tid));
          if (wait >= 5 && share >= 0.35 && share <= 0.6) computers.push_back(tid);
        }
        if (computers.size() != 2) return false;
        const std::string screen = terminal.screen();
        for (const int i : {0, 1}) {
          const std::string row = row_of(screen, computers[static_cast<size_t>(i)]);
          if (row.find(std::to_string(computers[static_cast<size_t>(1 - i)])) == std::string::npos)
            return false;
        }
        return true;
      },
      seconds(45));
  EXPECT_TRUE(seen) << terminal.screen();
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, AHoldShowsWhileItLasts) {
  const auto busy = turns();
  const auto asleep = sleeper();
  const int holder = std::atoi(asleep->out().c_str() + asleep->out().find(' '));
  Terminal terminal(140, 20);
  const std::string modes =
      start(terminal, fmt_pid(busy->pid()) + "," + std::to_string(asleep->pid()) + " -H -s off");
  terminal.press({"t"});  // one list
  const auto is_first = [&] { return Picture(terminal.screen()).first() == holder; };
  EXPECT_TRUE(terminal.wait_until(is_first)) << terminal.screen();
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).number_under("OFF%", holder) >= 99;
  })) << terminal.screen();
  // Its length since giltop came.
  EXPECT_TRUE(terminal.wait_for(std::to_string(holder) + " has held the GIL for "))
      << terminal.screen();
  const auto length = [&] {
    const std::string screen = terminal.screen();
    const size_t at = screen.find("has held the GIL for over ");
    return at == std::string::npos ? 0.0 : std::atof(screen.c_str() + at + 26);
  };
  const double first = length();
  EXPECT_GT(first, 0.5);
  EXPECT_TRUE(terminal.wait_until([&] { return length() > first + 1; })) << terminal.screen();
  EXPECT_THAT(terminal.screen(), HasSubstr("asleep"));
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, SurvivesBeingResizedAllTheTime) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(program->pid()) + " -H -d 0.1");
  const auto end = std::chrono::steady_clock::now() + seconds(5);
  for (unsigned i = 0; std::chrono::steady_clock::now() < end; i++)
    terminal.resize(20 + i * 37 % 200, 5 + i * 13 % 50);
  terminal.resize(100, 25);
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).number_under("WAIT%", program->pid()) > 0;
  })) << terminal.screen();
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, StopsAndGoesOn) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(program->pid()));
  terminal.press({"C-z"});
  expect_given_back(terminal, modes);
  terminal.type_line("fg");
  EXPECT_TRUE(terminal.wait_for("F10 Quit")) << terminal.screen();
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).number_under("WAIT%", program->pid()) > 0;
  })) << terminal.screen();
  terminal.press({"C-c"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, ACrashGivesTheTerminalBack) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(program->pid()));
  const Ran found =
      run({"pgrep", "-f", std::string(GILTOP_BINARY) + " " + fmt_pid(program->pid())});
  ASSERT_EQ(found.status, 0);
  ASSERT_EQ(kill(std::atoi(found.out.c_str()), SIGSEGV), 0);
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, SignalsThatEndItGiveTheTerminalBack) {
  const auto program = turns();
  Terminal terminal(120, 30);
  for (const int number : {0, SIGUSR1, SIGUSR2, SIGTERM, SIGHUP}) {
    const std::string modes = start(terminal, fmt_pid(program->pid()));
    if (number == 0) {
      terminal.press({"C-\\"});
    } else {
      ASSERT_EQ(kill(terminal.child(), number), 0);
    }
    expect_given_back(terminal, modes);
  }
}

TEST_F(LiveView, WhatEndsIsSaidAndStays) {
  auto program = turns();
  const int pid = program->pid();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(pid));
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).number_under("WAIT%", pid) > 0;
  })) << terminal.screen();
  program->signal(SIGKILL);
  program->finish();
  EXPECT_TRUE(terminal.wait_for("has ended")) << terminal.screen();
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, TheWholeHostWithProgramsThatComeAndGo) {
  Terminal terminal(160, 40);
  const std::string modes = start(terminal, "-d 0.2");
  // Two hundred Pythons, four at a time, some of them killed, some executing another program.
  const std::string script = directory_.path("churn.sh");
  write_file(script,
             "for i in $(seq 50); do\n"
             "  '" +
                 python() + "' -S -E -c pass & '" + python() +
                 "' -S -E -c 'import threading' &\n"
                 "  '" +
                 python() +
                 "' -S -E -c 'import os; os.execv(\"/bin/true\", [\"true\"])' &\n"
                 "  '" +
                 python() +
                 "' -S -E -c 'import os; os.kill(os.getpid(), 9)' &\n"
                 "  wait\n"
                 "done\n"
                 "echo done\n");
  Program churn({"/bin/sh", script});
  EXPECT_TRUE(churn.wait_for("done", seconds(120)));
  const auto program = turns();
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).number_under("WAIT%", program->pid()) > 0;
  })) << terminal.screen();
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, AResetPutsTheNextFrameOffByNoMoreThanADelay) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(program->pid()) + " -d 1");
  // Were each of them to cost a delay, the next frame would be two minutes away.
  terminal.press(std::vector<std::string>(120, "r"));
  EXPECT_TRUE(terminal.wait_for("Sums start anew")) << terminal.screen();
  EXPECT_TRUE(terminal.wait_until([&] {  // some frames later
    return terminal.screen().find("Sums start anew") == std::string::npos;
  })) << terminal.screen();
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, TheLastOfSomeFramesIsShown) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string painted = directory_.path("painted");
  terminal.ask("script -qec '" GILTOP_BINARY " -n 1 " + fmt_pid(program->pid()) + "' " + painted);
  EXPECT_THAT(read_file(painted), AllOf(HasSubstr("GIL time"), HasSubstr("F10")));
}

TEST_F(LiveView, ACommandsOutputComesWhenTheScreenIsGivenBack) {
  Terminal terminal(120, 30);
  const std::string modes =
      start(terminal, "-- " + python() +
                          " -c 'import time; print(1, end=str()); print(234567); time.sleep(1)'");
  EXPECT_TRUE(terminal.wait_for("the command has ended")) << terminal.screen();
  EXPECT_THAT(terminal.screen(), Not(HasSubstr("1234567")));
  terminal.press({"q"});
  EXPECT_TRUE(terminal.wait_for("1234567")) << terminal.screen();
  expect_given_back(terminal, modes);
}

// What the file of `pid` takes that has this in its name and is deleted, in bytes; 0: there is
// none.
uintmax_t room_of(pid_t pid, const std::string& name) {
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", error)) {
    struct stat status {};
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (target.find(name) != std::string::npos && stat(entry.path().c_str(), &status) == 0)
      return static_cast<uintmax_t>(status.st_blocks) * 512;
  }
  return 0;
}

TEST_F(LiveView, OfALongOutputTheEndIsKept) {
  constexpr uintmax_t kMega = 1 << 20;
  const std::string script = directory_.path("talker.py");
  write_file(script,
             "import sys\n"
             "print('the very', 'first line')\n"
             "for i in range(40 << 10): print('x' * 1023)\n"
             "print('the very', 'last line')\n"
             "sys.stdout.flush()\n");
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, "-d 0.2 -- " + python() + " " + script);
  EXPECT_TRUE(terminal.wait_for("the command has ended")) << terminal.screen();
  uintmax_t room = 0;
  EXPECT_TRUE(terminal.wait_until([&] {
    room = room_of(terminal.child(), "giltop-output");
    return room < 16 * kMega;
  })) << room;
  EXPECT_GT(room, kMega) << "of 40 MB";
  terminal.press({"q"});
  EXPECT_TRUE(terminal.wait_for("the very last line")) << terminal.screen();
  expect_given_back(terminal, modes);
}

}  // namespace
}  // namespace giltop::testing
