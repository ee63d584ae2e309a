#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "view/format.h"

namespace giltop {
namespace {

constexpr uint64_t kFirst_ns = 300'000'000, kEvery_ns = 100'000'000;

bool can_rewrite() {
  const char* const term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && term && *term && std::strcmp(term, "dumb") != 0;
}

size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::string what) : what_(printable(what)), shown_(can_rewrite()) {
  next_ns_ = clock_ns(CLOCK_MONOTONIC) + kFirst_ns;
}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

void Progress::update(uint64_t done, uint64_t all) {
  if (!shown_) return;
  const uint64_t now = clock_ns(CLOCK_MONOTONIC);
  if (now < next_ns_) return;
  next_ns_ = now + kEvery_ns;
  drawn_ = true;
  const uint64_t percent = all == 0 ? 0 : std::min<uint64_t>(done * 100 / all, 100);
  // A line that is too long would become two.
  const std::string line =
      pad_right(fmt::format("{:3} %  {}", percent, what_), terminal_columns() - 1);
  std::fputs(("\r" + line).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace giltop
