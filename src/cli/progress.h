// Progress: how far long work has come, on a terminal.
#pragma once

#include <cstdint>
#include <string>

namespace giltop {

// One line of stderr, written over itself, and gone when this ends. Nothing where stderr is no
// terminal or a dumb one, or where the work is short.
class Progress {
 public:
  // `what` is being done, "reading a.pftrace".
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool is_shown() const { return shown_; }
  void update(uint64_t done, uint64_t all);

 private:
  std::string what_;
  bool shown_ = false;
  bool drawn_ = false;
  uint64_t next_ns_ = 0;
};

}  // namespace giltop
