// The live view as users have it: giltop in a terminal, over programs that run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>

#include "support/terminal.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kShown = "F10 Quit";

// A screen, by column; each character is one wide here.
class Picture {
 public:
  explicit Picture(const std::string& screen) {
    std::istringstream in(screen);
    for (std::string line; std::getline(in, line);) {
      std::u32string& row = rows_.emplace_back();
      for (size_t i = 0; i < line.size();) {
        const auto byte = static_cast<unsigned char>(line[i]);
        const size_t length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
        row += byte < 0x80 ? static_cast<char32_t>(byte) : U'?';
        i += length;
      }
    }
  }
  // What stands under a head, which is aligned to the right, in the row of this process or thread.
  std::optional<std::string> under(const std::string& head, int id) const {
    const std::u32string wanted(head.begin(), head.end()), number = wide(std::to_string(id));
    for (size_t h = 0; h < rows_.size(); h++) {
      const size_t at = rows_[h].find(wanted);
      if (at == std::u32string::npos || rows_[h].find(U"NAME") == std::u32string::npos) continue;
      const size_t end = at + wanted.size();
      for (size_t r = h + 1; r < rows_.size(); r++) {
        const std::u32string& row = rows_[r];
        const size_t first = row.find_first_not_of(U' ');
        if (first == std::u32string::npos ||
            row.compare(first, number.size() + 1, number + U" ") != 0)
          continue;
        if (row.size() < end) return "";
        const size_t begin = row.rfind(U' ', end - 1);
        const auto text = row.substr(begin + 1, end - begin - 1);
        return std::string(text.begin(), text.end());
      }
    }
    return std::nullopt;
  }
  double number_under(const std::string& head, int id) const {
    const auto text = under(head, id);
    return text && !text->empty() ? std::atof(text->c_str()) : -1;
  }
  // The first row's id.
  int first() const {
    for (size_t h = 0; h + 1 < rows_.size(); h++)
      if (rows_[h].find(U"NAME") != std::u32string::npos &&
          rows_[h].find(U"WAIT%") != std::u32string::npos) {
        const std::u32string& row = rows_[h + 1];
        return std::atoi(std::string(row.begin(), row.end()).c_str());
      }
    return 0;
  }

 private:
  static std::u32string wide(const std::string& text) { return {text.begin(), text.end()}; }
  std::vector<std::u32string> rows_;
};

std::string fmt_pid(int pid) { return "-p " + std::to_string(pid); }

// The line that begins with this id.
std::string row_of(const std::string& screen, int id) {
  std::istringstream in(screen);
  for (std::string line; std::getline(in, line);)
    if (std::atoi(line.c_str()) == id) return line;
  return {};
}

std::vector<int> threads_of(int pid) {
  std::vector<int> tids;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error))
    tids.push_back(std::stoi(entry.path().filename()));
  std::sort(tids.begin(), tids.end());
  return tids;
}

class LiveView : public Live {
 protected:
  void SetUp() override {
    Live::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!Terminal::available()) {
      if (std::getenv("GILTOP_REQUIRE_LIVE")) FAIL() << "tmux is not installed";
      GTEST_SKIP() << "tmux is not installed";
    }
  }

  // Two threads that compute, and one that sleeps, for a minute or till they are killed.
  std::unique_ptr<Program> turns() {
    auto program = std::make_unique<Program>(
        std::vector<std::string>{python(), workload(), "setswitch", "--scale", "60", "--started"});
    EXPECT_TRUE(program->wait_for("started"));
    return program;
  }
  // A thread that sleeps with the GIL for a minute while another wants to compute.
  std::unique_ptr<Program> sleeper() {
    const std::string file = directory_.path("sleeper.py");
    write_file(file,
               "import ctypes, os, threading\n"
               "library = ctypes.PyDLL(None)\n"
               "def compute():\n"
               "    while True: sum(range(1000))\n"
               "def sleep():\n"
               "    os.write(1, b'sleeps %d\\n' % library.gettid())\n"
               "    library.sleep(60)\n"
               "threading.Thread(target=compute, daemon=True).start()\n"
               "threading.Thread(target=sleep, daemon=True).start()\n"
               "threading.Event().wait()\n");
    auto program = std::make_unique<Program>(std::vector<std::string>{python(), file});
    EXPECT_TRUE(program->wait_for("sleeps"));
    return program;
  }

  static std::string start(Terminal& terminal, const std::string& options) {
    terminal.ask("clear");
    const std::string modes = terminal.ask("stty -g");
    terminal.type_line(std::string(GILTOP_BINARY) + " " + options);
    EXPECT_TRUE(terminal.wait_for(kShown)) << terminal.screen();
    return modes;
  }
  static void expect_given_back(Terminal& terminal, const std::string& modes) {
    EXPECT_TRUE(terminal.wait_until([&] { return terminal.format("#{alternate_on}") == "0"; }))
        << terminal.screen();
    EXPECT_EQ(terminal.ask("stty -g"), modes);
    EXPECT_EQ(terminal.format("#{cursor_flag} #{mouse_any_flag}"), "1 0");
  }
};

TEST_F(LiveView, TwoThreadsThatComputeWaitForEachOther) {
  const auto program = turns();
  Terminal terminal(140, 20);
  const std::string modes = start(terminal, fmt_pid(program->pid()) + " -H");
  std::vector<int> computers;
  const bool seen = terminal.wait_until(
      [&] {
        const Picture picture(terminal.screen());
        computers.clear();
        for (const int tid : threads_of(program->pid()))
          if (picture.number_under("WAIT%", tid) >= 40 && picture.number_under("WAIT%", tid) <= 60)
            computers.push_back(tid);
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

TEST_F(LiveView, KeysDoWhatTheHelpSays) {
  const auto program = turns();
  const auto asleep = sleeper();
  const int pid = program->pid(), other = asleep->pid();
  Terminal terminal(140, 40);
  const std::string modes = start(terminal, fmt_pid(pid) + "," + std::to_string(other) + " -d 0.3");
  const auto rows = [&] {
    const Picture picture(terminal.screen());
    return std::pair(picture.under("WAIT%", pid).has_value(),
                     picture.under("WAIT%", other).has_value());
  };
  const auto shows = [&](const std::string& text) {
    EXPECT_TRUE(terminal.wait_for(text)) << "waited for " << text << "\n" << terminal.screen();
  };
  const auto gone = [&](const std::string& text) {
    EXPECT_TRUE(terminal.wait_until([&] {
      return terminal.screen().find(text) == std::string::npos;
    })) << text
        << " is there still\n"
        << terminal.screen();
  };
  EXPECT_TRUE(terminal.wait_until([&] { return rows() == std::pair(true, true); }))
      << terminal.screen();
  terminal.press({"N"});
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).first() == std::min(pid, other);
  })) << terminal.screen();
  terminal.press({"I"});
  EXPECT_TRUE(terminal.wait_until([&] {
    return Picture(terminal.screen()).first() == std::max(pid, other);
  })) << terminal.screen();
  terminal.press({"W"});
  shows("WAIT%");
  terminal.press({"P"});
  EXPECT_TRUE(terminal.wait_until([&] { return Picture(terminal.screen()).first() == pid; }))
      << "the sleeper's process has no CPU time\n"
      << terminal.screen();
  terminal.press({"\\"});
  terminal.press({"s", "l", "e", "e", "p", "e", "r", "Enter"});
  EXPECT_TRUE(terminal.wait_until([&] { return rows() == std::pair(false, true); }))
      << terminal.screen();
  terminal.press({"Escape"});
  EXPECT_TRUE(terminal.wait_until([&] { return rows() == std::pair(true, true); }))
      << terminal.screen();
  // Whoever is named is unfolded from the beginning.
  const int thread = threads_of(pid).back();
  const auto thread_is_shown = [&](bool wanted) {
    EXPECT_TRUE(terminal.wait_until([&] {
      return Picture(terminal.screen()).under("WAIT%", thread).has_value() == wanted;
    })) << terminal.screen();
  };
  thread_is_shown(true);
  terminal.press({"H"});
  thread_is_shown(false);
  terminal.press({"H"});
  thread_is_shown(true);
  terminal.press({"h"});
  shows("Keys of the table");
  terminal.press({"Escape"});
  gone("Keys of the table");
  // The world stands still; its clock, too.
  terminal.press({"Z"});
  shows("PAUSED");
  const std::string frozen = terminal.screen();
  usleep(1'500'000);  // what is shown has no reason to change meanwhile
  EXPECT_EQ(terminal.screen(), frozen);
  terminal.press({"Z"});
  gone("PAUSED");
  terminal.press({"Home", "Enter"});
  shows("a column");
  shows("WAITED  WHO");
  terminal.press({"Escape"});
  gone("a column");
  terminal.press({"F10"});
  expect_given_back(terminal, modes);
}

TEST_F(LiveView, SurvivesBeingResizedAllTheTime) {
  const auto program = turns();
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, fmt_pid(program->pid()) + " -H -d 0.1");
  const auto end = std::chrono::steady_clock::now() + seconds(10);
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
  EXPECT_TRUE(terminal.wait_for(kShown)) << terminal.screen();
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
                 python() + "' -c pass & '" + python() +
                 "' -c 'import threading' &\n"
                 "  '" +
                 python() +
                 "' -c 'import os; os.execv(\"/bin/true\", [\"true\"])' &\n"
                 "  '" +
                 python() +
                 "' -c 'import os; os.kill(os.getpid(), 9)' &\n"
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

}  // namespace
}  // namespace giltop::testing
