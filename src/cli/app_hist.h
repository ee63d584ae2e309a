// The options of giltop hist.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace giltop {

class HistOptions {
 public:
  explicit HistOptions(CLI::App& app);
  HistOptions(const HistOptions&) = delete;
  HistOptions& operator=(const HistOptions&) = delete;

  bool parsed() const { return app_->parsed(); }
  // `command`: what stood behind --. Returns the exit code.
  int run(const std::vector<std::string>& command);

 private:
  std::string wrong();  // with what was typed; empty: nothing
  std::string wrong_output() const;

  HistArguments arguments_;
  std::vector<std::string> words_;  // FILE, or INTERVAL COUNT
  std::string overhead_ = "2";
  CLI::App* app_;
  CLI::Option *budget_, *live_only_[2];
};

}  // namespace giltop
