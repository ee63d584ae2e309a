// The live view in a real terminal: painting, keys, resizing, stopping, and that every way out
// gives the terminal back.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <set>

#include "base/fd.h"
#include "support/terminal.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Program;
using testing::Ran;
using testing::Terminal;

const std::string kView = GILTOP_LIVE_VIEW_DOUBLE;
constexpr const char* kKeys = "F10 Quit";
constexpr const char* kTable = "F3 Search";  // of the table's keys, and of no other page's

class Tui : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Terminal::available()) GTEST_SKIP() << "tmux is not installed";
  }
  // The terminal is as it was, and the shell has it: modes, cursor, screen, mouse.
  static void expect_given_back(Terminal& terminal, const std::string& modes) {
    EXPECT_TRUE(terminal.wait_until([&] { return terminal.format("#{alternate_on}") == "0"; }));
    EXPECT_EQ(terminal.ask("stty -g"), modes);
    EXPECT_EQ(terminal.format("#{cursor_flag} #{mouse_any_flag} #{keypad_cursor_flag}"), "1 0 0");
    EXPECT_THAT(terminal.screen(), HasSubstr("a line before")) << "what was there before";
  }
  static std::string start(Terminal& terminal, const std::string& options = "") {
    terminal.type_line("clear");
    terminal.type_line("echo a line 'before'");
    const std::string modes = terminal.ask("stty -g");
    EXPECT_THAT(modes, HasSubstr(":"));
    terminal.type_line(kView + " " + options);
    EXPECT_TRUE(terminal.wait_for(kKeys)) << terminal.screen();
    return modes;
  }
};

TEST_F(Tui, PaintsAndReadsKeys) {
  Terminal terminal(120, 30);
  const std::string modes = start(terminal);
  EXPECT_THAT(terminal.screen(),
              AllOf(HasSubstr("4 Pythons  10 threads"), HasSubstr("▸ gunicorn: wo"),
                    HasSubstr("GIL off: free-threaded build"), HasSubstr("████")));
  EXPECT_EQ(terminal.format("#{alternate_on} #{cursor_flag}"), "1 0");
  terminal.press({"Right"});
  EXPECT_TRUE(terminal.wait_for("日本語のスレ"));
  EXPECT_THAT(terminal.screen(), HasSubstr("▾ gunicorn"));
  terminal.press({"Down", "Down", "Enter"});
  EXPECT_TRUE(terminal.wait_for("20320 日本語のスレッド名前 · of 20313"));
  terminal.press({"Escape"});
  EXPECT_TRUE(terminal.wait_for("▾ gunicorn"));
  terminal.press({"F1"});
  EXPECT_TRUE(terminal.wait_for("Keys of the table"));
  terminal.press({"F1"});
  EXPECT_TRUE(terminal.wait_for("▾ gunicorn"));
  terminal.press({"/", "c", "é"});
  EXPECT_TRUE(terminal.wait_for("Search: cé"));
  EXPECT_EQ(terminal.format("#{cursor_flag} #{cursor_x} #{cursor_y}"), "1 10 29");
  terminal.press({"BSpace", "e", "l", "Enter"});
  EXPECT_TRUE(terminal.wait_for(kKeys));
  terminal.press({"PPage", "NPage", "Home", "End", "F6"});
  EXPECT_TRUE(terminal.wait_for("Sort by"));
  terminal.press({"Escape", "C-l", "q"});
  expect_given_back(terminal, modes);
}

TEST_F(Tui, TheMouse) {
  Terminal terminal(120, 30);
  const std::string modes = start(terminal);
  EXPECT_EQ(terminal.format("#{mouse_any_flag}"), "1");
  const auto mouse = [&](int button, int column, int row) {
    // The terminal type's reports: ESC [ M and three bytes. A button is let go, too.
    terminal.send_bytes({'\x1b', '[', 'M', static_cast<char>(32 + button),
                         static_cast<char>(33 + column), static_cast<char>(33 + row)});
    if (button == 0)
      terminal.send_bytes(
          {'\x1b', '[', 'M', 32 + 3, static_cast<char>(33 + column), static_cast<char>(33 + row)});
  };
  mouse(0, 8, 4);  // the mark of the first process
  EXPECT_TRUE(terminal.wait_for("▾ gunicorn")) << terminal.screen();
  mouse(0, 4, 3);  // PID's head
  EXPECT_TRUE(terminal.wait_for("▴PID")) << terminal.screen();
  mouse(0, 4, 3);
  EXPECT_TRUE(terminal.wait_for("▾PID")) << terminal.screen();
  mouse(0, 2, 29);  // F1 of the bottom line
  EXPECT_TRUE(terminal.wait_for("Keys of the table"));
  mouse(65, 20, 10);  // wheel down
  EXPECT_TRUE(terminal.wait_for("4–")) << terminal.screen();
  mouse(64, 20, 10);
  EXPECT_TRUE(terminal.wait_for("1–")) << terminal.screen();
  terminal.press({"F10"});
  expect_given_back(terminal, modes);
}

// All that a process ends by, unless it is made to do otherwise.
TEST_F(Tui, WhateverSignalEndsItTheTerminalIsGivenBack) {
  Terminal terminal(120, 30);
  for (int number = 1; number < 32; number++) {
    static const std::set<int> kHarmless = {SIGCHLD, SIGCONT, SIGURG,  SIGWINCH,
                                            SIGTSTP, SIGTTIN, SIGTTOU, SIGSTOP};
    // Nobody can do anything about KILL; HUP and PIPE are the program's own concern.
    if (kHarmless.contains(number) || number == SIGKILL || number == SIGHUP || number == SIGPIPE)
      continue;
    SCOPED_TRACE(strsignal(number));
    const std::string modes = start(terminal);
    const pid_t view = terminal.child();
    ASSERT_GT(view, 1);
    ASSERT_EQ(kill(view, number), 0);
    expect_given_back(terminal, modes);
    if (HasFailure()) return;
  }
}

TEST_F(Tui, ResizesToAnything) {
  Terminal terminal(120, 30);
  const std::string modes = start(terminal, "--many");
  const std::pair<unsigned, unsigned> sizes[] = {{60, 15}, {200, 60}, {61, 16}, {80, 24},
                                                 {59, 20}, {300, 15}, {20, 5},  {100, 50},
                                                 {60, 14}, {120, 40}};
  for (int round = 0; round < 3; round++) {
    for (const auto& [columns, rows] : sizes) {
      terminal.resize(columns, rows);
      const bool small = columns < 60 || rows < 15;
      const std::string size = std::to_string(columns) + "×" + std::to_string(rows);
      ASSERT_TRUE(terminal.wait_until([&] {
        const std::string screen = terminal.screen();
        if (small)
          return screen.find(("needs 60×15, here are " + size).substr(0, columns - 8)) !=
                 std::string::npos;
        // The keys stand on the last line, and there alone.
        const size_t keys = screen.find("F1 Help");
        return keys != std::string::npos && screen.find("F1 Help", keys + 1) == std::string::npos &&
               std::count(screen.begin(), screen.begin() + static_cast<long>(keys), '\n') ==
                   static_cast<long>(rows) - 1;
      })) << size
          << "\n"
          << terminal.screen();
    }
  }
  terminal.press({"q"});
  expect_given_back(terminal, modes);
}

TEST_F(Tui, StopsAndGoesOn) {
  Terminal terminal(100, 40);
  const std::string modes = start(terminal);
  for (int round = 0; round < 3; round++) {
    terminal.press({"C-z"});
    // The shell says so each time, below what it said before.
    EXPECT_TRUE(terminal.wait_until([&] {
      const std::string screen = terminal.screen();
      int said = 0;
      for (size_t at = 0; (at = screen.find("Stopped", at)) != std::string::npos; at++) said++;
      return said == round + 1;
    })) << terminal.screen();
    expect_given_back(terminal, modes);
    if (round == 1) terminal.resize(90, 35);
    terminal.type_line("fg");
    EXPECT_TRUE(terminal.wait_for(kTable)) << terminal.screen();
    EXPECT_EQ(terminal.format("#{alternate_on} #{cursor_flag}"), "1 0");
    terminal.press({"F1"});
    EXPECT_TRUE(terminal.wait_for("Keys of the table")) << "it reads keys again";
    terminal.press({"F1"});
    // Not before it has read the key: C-z takes away what is unread.
    EXPECT_TRUE(terminal.wait_for(kTable));
  }
  // Stopped without a word, and the modes changed meanwhile.
  const pid_t view = terminal.child();
  ASSERT_GT(view, 1);
  ASSERT_EQ(kill(view, SIGSTOP), 0);
  ASSERT_TRUE(terminal.wait_for("Stopped")) << terminal.screen();
  terminal.ask("stty sane");
  const std::string sane = terminal.ask("stty -g");  // what the shell then goes back to
  terminal.type_line("clear");
  ASSERT_TRUE(terminal.wait_until([&] {
    return terminal.screen().find(kTable) == std::string::npos;
  })) << "what it has painted itself is gone";
  terminal.type_line("fg");
  EXPECT_TRUE(terminal.wait_for(kTable)) << terminal.screen();
  EXPECT_EQ(terminal.format("#{alternate_on} #{cursor_flag}"), "1 0");
  terminal.press({"F1"});
  EXPECT_TRUE(terminal.wait_for("Keys of the table"));
  terminal.press({"F10"});
  expect_given_back(terminal, sane);
}

class TuiEnds : public Tui, public ::testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(By, TuiEnds,
                         ::testing::Values("SEGV", "ABRT", "BUS", "FPE", "ILL", "TERM", "INT",
                                           "crash", "abort", "overflow", "exit"));

TEST_P(TuiEnds, TheTerminalIsGivenBack) {
  const std::string how = GetParam();
  Terminal terminal(100, 30);
  const std::string modes = start(terminal);
  if (how == "crash" || how == "abort" || how == "exit" || how == "overflow") {
    terminal.press({how == "crash" ? "!" : how == "abort" ? "@" : how == "exit" ? "%" : "$"});
  } else {
    const pid_t view = terminal.child();
    ASSERT_GT(view, 1);
    ASSERT_EQ(testing::run({"sh", "-c", "kill -" + how + " " + std::to_string(view)}).status, 0);
  }
  expect_given_back(terminal, modes);
  EXPECT_THAT(terminal.screen(), Not(HasSubstr(kKeys)));
}

TEST_F(Tui, ColoursLettersAndPlain) {
  {
    Terminal terminal(120, 30);
    start(terminal);
    EXPECT_THAT(terminal.screen(true), AllOf(HasSubstr("38;5;36m█"), HasSubstr("38;5;166m")));
  }
  {
    Terminal terminal(120, 30, "screen");
    start(terminal);
    EXPECT_THAT(terminal.screen(true), AllOf(HasSubstr("HHH"), HasSubstr("[32m"),
                                             Not(HasSubstr("38;5")), Not(HasSubstr("█"))));
  }
  {
    Terminal terminal(120, 30, "screen-256color", "LANG=C.UTF-8 NO_COLOR=1");
    start(terminal);
    EXPECT_THAT(terminal.screen(true),
                AllOf(HasSubstr("███"), Not(HasSubstr("38;5")), Not(ContainsRegex("\\[3[0-7]m"))));
  }
  {
    Terminal terminal(120, 30, "screen-256color", "LANG=C");
    start(terminal);
    terminal.press({"H"});
    ASSERT_TRUE(terminal.wait_for("v gunicorn"));
    const std::string screen = terminal.screen();
    EXPECT_TRUE(std::all_of(screen.begin(), screen.end(), [](char c) {
      return c == '\n' || (c >= 0x20 && c < 0x7f);
    })) << screen;
  }
}

TEST_F(Tui, NoUsableTerminalIsSaidInALine) {
  Program none({kView});
  Ran ran = none.finish();
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(ran.err,
            "live_view_double: the live view needs a terminal; --batch writes text instead\n");
  Terminal terminal(160, 30);
  const std::string modes = terminal.ask("stty -g");
  terminal.type_line("TERM=no-such-one " + kView);
  EXPECT_TRUE(terminal.wait_for("the terminal's type 'no-such-one' (TERM) is not known here"));
  terminal.type_line("TERM=dumb " + kView);
  EXPECT_TRUE(terminal.wait_for("a terminal of the type 'dumb' (TERM) cannot place its cursor"));
  terminal.type_line("TERM= " + kView);
  EXPECT_TRUE(terminal.wait_for("TERM is not set"));
  EXPECT_EQ(terminal.ask("stty -g"), modes);
}

// On a pseudo-terminal of our own, to count what is written to it, and to hang up.
class Pty {
 public:
  explicit Pty(const std::vector<std::string>& command) {
    winsize size{};
    size.ws_col = 120;
    size.ws_row = 30;
    pid_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      setenv("TERM", "xterm-256color", 1);
      setenv("LANG", "C.UTF-8", 1);
      unsetenv("LC_ALL");
      unsetenv("NO_COLOR");
      std::vector<char*> argv;
      for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~Pty() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    hang_up();
  }
  void write(const std::string& bytes) {
    ASSERT_EQ(::write(fd_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  // All that is written until `text` is. Empty: it did not come.
  std::string read_until(const std::string& text) {
    std::string out;
    while (out.find(text) == std::string::npos) {
      pollfd readable{fd_, POLLIN, 0};
      char bytes[65536];
      if (poll(&readable, 1, 30'000) <= 0) return "";
      const ssize_t n = read(fd_, bytes, sizeof(bytes));
      if (n <= 0) return "";
      out.append(bytes, static_cast<size_t>(n));
    }
    return out;
  }
  void hang_up() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // -1: it goes on.
  int wait() {
    const Fd ended(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    pollfd readable{ended.get(), POLLIN, 0};
    if (!ended || poll(&readable, 1, 30'000) <= 0) return -1;
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
};

TEST(TuiOnPty, WritesOnlyWhatHasChanged) {
  Pty pty({kView, "--many"});
  const std::string first = pty.read_until("Quit");
  ASSERT_GT(first.size(), 2000u);
  // A key that means nothing, then one whose mark is known: a word in the header.
  pty.write("~Z");
  const std::string pause = pty.read_until("PAUSED");
  ASSERT_FALSE(pause.empty());
  EXPECT_LT(pause.size(), 200u) << pause;
  pty.write("q");
  EXPECT_FALSE(pty.read_until("\x1b[?1049l").empty());
  EXPECT_EQ(pty.wait(), 0);
}

TEST(TuiOnPty, AHungUpTerminalEndsIt) {
  Pty pty({kView});
  ASSERT_FALSE(pty.read_until("Quit").empty());
  pty.hang_up();
  // By SIGHUP, or by what reading the terminal says: it does not go on.
  const int status = pty.wait();
  ASSERT_NE(status, -1);
  EXPECT_TRUE(WIFEXITED(status) || WIFSIGNALED(status));
}

}  // namespace
}  // namespace giltop
