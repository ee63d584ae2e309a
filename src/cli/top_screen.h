// The live view on a terminal.
#pragma once

#include <optional>

#include "base/fd.h"
#include "base/result.h"
#include "cli/child.h"
#include "cli/commands.h"
#include "cli/live.h"

namespace giltop {

// Shows frames and obeys keys until the user has seen enough. Returns the exit code.
int run_screen(Live& live, const TopArguments& arguments, std::optional<Child>& child);

// Where the output of a command goes while the screen is ours.
class KeptOutput {
 public:
  static Result<KeptOutput> make();
  int fd() const { return file_.get(); }
  // To stdout, as it came.
  void print() const;

 private:
  explicit KeptOutput(Fd file) : file_(std::move(file)) {}
  Fd file_;
};

}  // namespace giltop
