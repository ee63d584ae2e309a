// The live view in a real terminal over a frame made by hand: what the tests of the terminal drive.
//   live_view_double [--empty] [--many]
// The world stands still, so that what is on the screen follows from what was typed. Keys of its
// own end it in ways that no program means to: ! @ $ %
#include <poll.h>
#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "support/live_frames.h"
#include "view/live_keys.h"
#include "view/live_layout.h"
#include "view/tui.h"

using namespace giltop;

namespace {

volatile sig_atomic_t g_ended = 0;
void on_end(int) { g_ended = 1; }

// A sanitizer that sees it coming would say so, and end it in another way.
[[gnu::no_sanitize("undefined")]] void crash() {
  volatile int* volatile nowhere = nullptr;
  *nowhere = 1;
}

int overflow(int depth) {
  volatile char much[65536];
  much[0] = static_cast<char>(depth);
  return depth == 0 ? 0 : overflow(depth + 1) + much[0];
}

}  // namespace

int main(int argc, char** argv) {
  LiveFrame frame = testing::web_host();
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--empty") == 0) {
      frame = LiveFrame();
      frame.clock = "12:04:31";
    }
    if (std::strcmp(argv[i], "--many") == 0) {
      testing::FrameMaker maker;
      maker.frame.interval.processes.reserve(300);
      for (uint32_t p = 0; p < 300; p++) {
        ProcessSnapshot& process = maker.process(
            1000 + p, "python3", "python3 app.py --shard " + std::to_string(p), "3.12.1");
        maker.gil(process, {p, 0, 0, 0, 1000 - p});
        maker.thread(process, 1000 + p, "python3", {p, 0, 0, 300 - p, 0, 0, 400});
      }
      frame = maker.frame;
    }
  }
  // They come while it waits for input, and at no other time.
  sigset_t ends, before;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, &before);
  struct sigaction action {};
  action.sa_handler = on_end;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);

  auto made = Tui::make();
  if (!made) {
    std::fprintf(stderr, "live_view_double: %s\n", made.error().message().c_str());
    return 1;
  }
  Tui& tui = **made;
  LiveState state;
  state.letters = tui.letters();
  while (!g_ended) {
    frame.accumulated = state.accumulated;
    const auto [columns, rows] = tui.size();
    tui.paint(live_screen(frame, state, columns, rows));
    pollfd input{tui.input_fd(), POLLIN, 0};
    if (ppoll(&input, 1, nullptr, &before) < 0 && errno != EINTR) break;
    while (const auto key = tui.read()) {
      const Action action_of_key = press(state, *key, frame);
      if (action_of_key == Action::quit) return 0;
      if (action_of_key == Action::redraw) tui.redraw();
      if (key->kind != Input::Kind::character) continue;
      if (key->number == '!') crash();
      if (key->number == '@') std::abort();
      if (key->number == '$') return overflow(1);
      if (key->number == '%') std::exit(3);
    }
  }
  return 0;
}
