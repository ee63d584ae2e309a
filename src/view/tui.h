// Tui: the terminal, by ncurses. Paints a Screen and reads keys; knows nothing of what they mean.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "base/result.h"
#include "view/live_state.h"
#include "view/screen.h"

namespace giltop {

// There is one at a time, on stdin and stdout. It takes the terminal when it is made and gives it
// back as it was when it goes; also when the process exits, aborts or crashes. It takes SIGWINCH,
// SIGTSTP and SIGCONT: a stop leaves the screen, going on restores it. Signals that end the process
// are the caller's, who lets this go before it exits. Of one thread only.
class Tui {
 public:
  static Result<std::unique_ptr<Tui>> make();
  ~Tui();
  Tui(const Tui&) = delete;
  Tui& operator=(const Tui&) = delete;

  // Readable when read() has something.
  int input_fd() const;
  // To be called until there is nothing more. Stops the process where SIGTSTP came.
  std::optional<Input> read();
  void paint(const Screen& screen);
  void redraw();                               // all of it, whatever another program wrote over it
  std::pair<unsigned, unsigned> size() const;  // columns, rows
  // Gives the terminal back at once, as a crash does; a signal handler may call it.
  static void give_back();
  bool letters() const;  // few colours, or no UTF-8: LiveState::letters

 private:
  struct Impl;
  explicit Tui(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace giltop
