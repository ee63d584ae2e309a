// A real terminal to drive programs in: tmux, with a shell in it.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "support/live.h"

namespace giltop::testing {

// A server of its own, which goes with this object and whatever runs in it.
class Terminal {
 public:
  static bool available();  // tmux is installed

  explicit Terminal(unsigned columns = 120, unsigned rows = 30,
                    const std::string& term = "screen-256color",
                    const std::string& environment = "LANG=C.UTF-8");
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // A command line to the shell, and Enter.
  void type_line(const std::string& line);
  // The same, and waits until it ended; what it printed.
  std::string ask(const std::string& line);
  // Keys by tmux's names ("Down", "F1", "C-z", "q").
  void press(const std::vector<std::string>& keys);
  void send_bytes(const std::string& bytes);
  void resize(unsigned columns, unsigned rows);
  pid_t child() const;  // what the shell runs; 0: nothing

  std::string screen(bool colours = false) const;       // a line a row, without trailing blanks
  std::string format(const std::string& format) const;  // of tmux: "#{cursor_flag}"
  bool wait_until(const std::function<bool()>& condition,
                  std::chrono::seconds deadline = std::chrono::seconds(30)) const;
  bool wait_for(const std::string& text,
                std::chrono::seconds deadline = std::chrono::seconds(30)) const;

 private:
  Ran tmux(std::vector<std::string> arguments) const;
  TemporaryDirectory directory_;
  bool up_ = false;
  int asked_ = 0;
};

}  // namespace giltop::testing
