// How far a long reading is, on a terminal and nowhere else.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "sink/trace_file.h"
#include "sink/trace_writer.h"
#include "support/live.h"

namespace giltop {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Ran;
using ::testing::StartsWith;
using testing::TemporaryDirectory;

// Long enough that no machine reads it before progress is first shown, even where the test is not
// there to stop it.
void write_recording(const std::string& path) {
  auto file = TraceFile::make(path, std::nullopt);
  ASSERT_TRUE(file) << file.error().message();
  EventTables tables;
  Model model(tables);
  TraceWriter writer(tables, [&](std::string block) { (*file)->write(std::move(block)); });
  writer.start({"Linux", "6.1.0", "#1", "x86_64", 1}, {1000, 900, 1}, {});
  Event event;
  event.ts_ns = 1000;
  event.tgid = event.tid = 100;
  event.kind = EventKind::exec;
  event.other = tables.intern("python3");
  writer.write(event, model.apply(event));
  ProcessFacts facts;
  facts.comm = facts.cmdline = "python3";
  facts.python = "3.11.2";
  event.kind = EventKind::process;
  event.other = tables.add(facts);
  writer.write(event, model.apply(event));
  event.other = 0;
  event.value = 0x7f0000001000;
  for (int i = 0; i < 8'000'000; i++) {
    event.ts_ns += 100;
    event.kind = i % 2 == 0 ? EventKind::gil_acquire : EventKind::gil_release;
    writer.write(event, model.apply(event));
  }
  RunFacts run;
  run.finished = true;
  writer.finish(model.last_ns(), run);
  ASSERT_TRUE((*file)->close());
}

// giltop with stderr on a terminal of 60 columns, and stopped for most of the time, so that the
// reading is long by the clock until it has drawn something. All that it wrote there.
std::string read_slowly(const std::string& file, const char* term) {
  winsize size{};
  size.ws_col = 60;
  size.ws_row = 20;
  int terminal = -1;
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);
  if (pid == 0) {
    setenv("TERM", term, 1);
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    execl(GILTOP_BINARY, GILTOP_BINARY, "report", file.c_str(), nullptr);
    _exit(127);
  }
  const Fd owned(terminal);
  std::string seen;
  // False: the terminal has closed.
  const auto drain = [&](int wait_ms) {
    pollfd ready{terminal, POLLIN, 0};
    while (poll(&ready, 1, wait_ms) > 0) {
      char block[4096];
      const ssize_t got = read(terminal, block, sizeof(block));
      if (got <= 0) return false;
      seen.append(block, static_cast<size_t>(got));
      wait_ms = 0;
    }
    return true;
  };
  // Where nothing will come, so long that something would have.
  const bool draws = std::strcmp(term, "dumb") != 0;
  for (int i = 0; seen.empty() && (draws || i < 12); i++) {
    if (!drain(5)) break;
    kill(pid, SIGSTOP);
    drain(45);
    kill(pid, SIGCONT);
  }
  while (drain(30'000)) {
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  return seen;
}

TEST(Progress, IsALineOfATerminalThatIsGoneAtTheEnd) {
  const TemporaryDirectory directory;
  const std::string file = directory.path(std::string(100, 'a') + "\x1b[31m.pftrace");
  write_recording(file);
  if (HasFatalFailure()) return;

  const std::string seen = read_slowly(file, "xterm");
  EXPECT_THAT(seen, StartsWith("\r"));
  EXPECT_THAT(seen, HasSubstr(" %  reading aaaa"));
  EXPECT_THAT(seen, EndsWith("\r\x1b[K"));
  EXPECT_EQ(seen.find('\n'), std::string::npos);
  EXPECT_EQ(seen.find("\x1b[31m"), std::string::npos) << "a file's name drives no terminal";
  const std::string first = seen.substr(1, seen.find('\r', 1) - 1);
  EXPECT_LE(first.size(), 59u + 2) << "in one line; the ellipsis has three bytes";

  EXPECT_THAT(read_slowly(file, "dumb"), IsEmpty());
  const Ran piped = testing::run({GILTOP_BINARY, "report", file});
  EXPECT_EQ(piped.status, 0);
  EXPECT_THAT(piped.err, IsEmpty());
}

}  // namespace
}  // namespace giltop
