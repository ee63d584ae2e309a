#include "cli/top_screen.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "cli/output.h"
#include "cli/process_filter.h"
#include "view/live_columns.h"
#include "view/live_keys.h"
#include "view/live_layout.h"
#include "view/tui.h"

namespace giltop {
namespace {

constexpr int kWait_ms = 1000;

class ScreenLoop {
 public:
  ScreenLoop(Live& live, Tui& tui, const TopArguments& arguments, std::optional<Child>& child,
             KeptOutput* kept)
      : live_(live),
        tui_(tui),
        arguments_(arguments),
        child_(child),
        kept_(kept),
        filter_(arguments.users, arguments.comm),
        frame_(live.frame()) {
    state_.delay_s = arguments.delay_s;
    state_.accumulated = arguments.accumulated;
    // Whoever is named is looked into.
    state_.threads = arguments.threads || !arguments.pids.empty() || !arguments.command.empty();
    state_.sort = *column_of_key(arguments.sort_key);
    state_.letters = tui.letters();
  }

  Result<int> run();

 private:
  bool take_keys();
  void obey();
  void take_frame();
  Status next_frame();
  void show();
  void say_ended();

  Live& live_;
  Tui& tui_;
  const TopArguments& arguments_;
  std::optional<Child>& child_;
  KeptOutput* kept_;  // null: there is no command
  ProcessFilter filter_;
  LiveState state_;
  LiveFrame frame_;  // shown, or to be
  uint64_t frames_ = 0;
  double delay_s_ = 0;
  bool changed_ = true;
  bool ended_ = false;  // tracing is over
};

// False: the user leaves.
bool ScreenLoop::take_keys() {
  while (const auto input = tui_.read()) {
    changed_ = true;
    switch (press(state_, *input, frame_)) {
      case Action::quit:
        return false;
      case Action::redraw:
        tui_.redraw();
        break;
      case Action::reset:
        if (!ended_) {
          live_.reset();
          if (!state_.paused) take_frame();
        }
        break;
      case Action::none:
        break;
    }
    obey();
  }
  return true;
}

// What the user has set that is not of the screen alone.
void ScreenLoop::obey() {
  if (ended_) return;
  if (std::exchange(delay_s_, state_.delay_s) != state_.delay_s)
    live_.set_delay(static_cast<uint64_t>(state_.delay_s * 1e9));
  live_.set_accumulated(state_.accumulated);
  // So that there is a past to see when the row under the cursor is looked into.
  const uint64_t pointed = state_.selected ? state_.selected->process : 0;
  live_.watch(state_.watched != 0 ? state_.watched : pointed);
}

void ScreenLoop::take_frame() {
  frame_ = live_.frame();
  filter_.apply(frame_.interval);
  changed_ = true;
}

// The last frame stays: what it shows is what one wanted to see.
void ScreenLoop::say_ended() {
  ended_ = true;
  live_.stop();
  take_frame();
  state_.message = "the process has ended; q leaves";
  if (child_) {
    const auto status = child_->poll();
    state_.message = status && *status != 0
                         ? fmt::format("the command has ended with status {}; q leaves", *status)
                         : std::string("the command has ended; q leaves");
  }
  changed_ = true;
}

Status ScreenLoop::next_frame() {
  if (kept_) kept_->trim();
  if (ended_) {
    pollfd keys{tui_.input_fd(), POLLIN, 0};
    (void)poll(&keys, 1, kWait_ms);
    return ok();
  }
  const auto is_new = live_.poll(kWait_ms);
  if (!is_new) return is_new.error();
  if (*is_new && !state_.paused) take_frame();
  if (*is_new) frames_++;
  if (live_.ended()) say_ended();
  return ok();
}

void ScreenLoop::show() {
  // Before the first frame it is not known whether there is anybody.
  if ((frames_ == 0 && !ended_) || !std::exchange(changed_, false)) return;
  const auto [columns, rows] = tui_.size();
  tui_.paint(live_screen(frame_, state_, columns, rows));
}

Result<int> ScreenLoop::run() {
  live_.add_wakeup(tui_.input_fd());
  obey();
  while (!StopSignals::stop_requested()) {
    show();
    if (const Status polled = next_frame(); !polled) return polled.error();
    if (!take_keys()) break;
    obey();
    if (arguments_.iterations == 0 || frames_ < arguments_.iterations) continue;
    show();
    break;
  }
  if (!ended_) live_.stop();
  return 0;
}

}  // namespace

int run_screen(Live& live, const TopArguments& arguments, std::optional<Child>& child,
               KeptOutput* kept) {
  Result<int> result = 1;
  {
    auto tui = Tui::make();
    if (!tui) {
      say(tui.error());
      return 1;
    }
    StopSignals::at_once_after(Tui::give_back);
    result = ScreenLoop(live, **tui, arguments, child, kept).run();
    StopSignals::at_once_after(nullptr);
  }
  if (!result) {
    say(result.error());
    return child && child->failed_status() != 0 ? child->failed_status() : 1;
  }
  return *result;
}

// --- the command's output ------------------------------------------------------------------------

Result<KeptOutput> KeptOutput::make() {
  const char* base = std::getenv("TMPDIR");
  std::string path = std::string(base && *base ? base : "/tmp") + "/giltop-output-XXXXXX";
  Fd file(mkostemp(path.data(), O_CLOEXEC | O_APPEND));
  if (!file) return system_error("cannot keep the command's output in " + path, errno);
  unlink(path.c_str());
  return KeptOutput(std::move(file));
}

void KeptOutput::trim() {
  struct stat status;
  if (fstat(file_.get(), &status) != 0 || status.st_size - gone_ < 2 * kKept) return;
  const off_t end = status.st_size - kKept;
  if (fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, gone_, end - gone_) == 0)
    gone_ = end;
}

void KeptOutput::print() const {
  off_t at = gone_;
  if (at != 0)
    std::fprintf(stderr, "giltop: of the command's output the first %lld MB were not kept\n",
                 static_cast<long long>(at >> 20));
  char bytes[65536];
  while (!StopSignals::stop_requested()) {
    const ssize_t got = pread(file_.get(), bytes, sizeof(bytes), at);
    if (got <= 0) return;
    if (fwrite(bytes, 1, static_cast<size_t>(got), stdout) != static_cast<size_t>(got)) return;
    at += got;
  }
}

}  // namespace giltop
