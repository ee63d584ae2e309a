// The live view on a terminal.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/live.h"

namespace giltop {

// Where the output of a command goes while the screen is ours.
class KeptOutput {
 public:
  static Result<KeptOutput> make();
  int fd() const { return file_.get(); }
  // Gives back the room of all but the last megabytes, where the file system can.
  void trim();
  // To stdout, as it came.
  void print() const;

 private:
  explicit KeptOutput(Fd file) : file_(std::move(file)) {}
  static constexpr off_t kKept = 4 << 20;
  Fd file_;
  off_t gone_ = 0;
};

// Shows frames and obeys keys until the user has seen enough. `kept` may be null. Returns the exit
// code.
int run_screen(Live& live, const TopArguments& arguments, std::optional<Child>& child,
               KeptOutput* kept);

}  // namespace giltop
