#include "cli/app_hist.h"

#include <cstdlib>

#include "cli/checks.h"
#include "cli/output.h"

namespace giltop {

HistOptions::HistOptions(CLI::App& app)
    : app_(app.add_subcommand(
          "hist",
          "Histograms of waits, holds and hand-offs: of a recording (hist FILE), "
          "or live (hist -p PID [INTERVAL [COUNT]])")) {
  app_->add_option("FILE", words_, "A recording; with -p, -a or --: INTERVAL in seconds, and COUNT")
      ->expected(0, 2)
      ->option_text("FILE | INTERVAL [COUNT]");
  app_->add_option("-p,--pid", arguments_.pids, "Live, of these processes")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1u, 4194304u));
  app_->add_flag("-a,--all", arguments_.all, "Live, of every CPython process of the host");
  live_only_[0] =
      app_->add_flag("-s,--subprocesses", arguments_.subprocesses,
                     "Their child processes, too, now and later (always on with a command)");
  app_->add_flag("--wait", arguments_.wait, "From asking for the GIL to owning it (the default)");
  app_->add_flag("--hold", arguments_.hold, "From owning it to letting go");
  app_->add_flag(
      "--handoff", arguments_.handoff,
      "From letting go (light: from waking who waits) to owning it, by another that waited");
  CLI::Option* const by_process =
      app_->add_flag("-P", arguments_.by_process, "One for each process");
  app_->add_flag("-L", arguments_.by_thread, "One for each thread")->excludes(by_process);
  app_->add_flag("-m,--milliseconds", arguments_.milliseconds, "Milliseconds, not microseconds");
  app_->add_flag("-T,--timestamp", arguments_.timestamp, "The time above each");
  app_->add_option(
          "--mode", arguments_.mode,
          "exact: every hand-over of the GIL; light: every wait and hand-off, counted in the "
          "kernel, but no holds; auto: exact where --overhead allows")
      ->check(CLI::IsMember({"exact", "light", "auto"}))
      ->capture_default_str();
  budget_ = app_->add_option("--overhead", overhead_,
                             "Of --mode auto: percent of a CPU that exact mode may take from a "
                             "process [2]")
                ->transform(CLI::Validator(check_percent, "PERCENT"));
  live_only_[1] = budget_;
  app_->add_option("-o,--output", arguments_.output, "Also into this file, as JSON, for --diff");
  app_->add_option("--diff", arguments_.diff, "Compare two: recordings, or files of -o or --json")
      ->expected(2)
      ->type_name("BEFORE AFTER");
  app_->add_flag("-j{-},--json{-}", arguments_.json,
                 "As JSON, a line each, to stdout or --json=FILE");
}

// What is wrong with where -o would write to; or nothing.
std::string HistOptions::wrong_output() const {
  const std::string& output = arguments_.output;
  std::string wrong = wrong_if_same("--output", output, "--json", arguments_.json);
  // `-o -` may ask for stdout where nothing else of ours goes there.
  const bool is_alone = !arguments_.json.empty() || !arguments_.command.empty();
  if (wrong.empty() && output == "-" && !is_alone)
    wrong = wrong_if_same("--output", output, "what is printed", "-");
  if (wrong.empty()) wrong = wrong_if_printed("--output", output, true);
  // With it only the command prints.
  if (wrong.empty())
    wrong = wrong_if_printed("--json", arguments_.json, !arguments_.command.empty());
  return wrong;
}

std::string HistOptions::wrong() {
  if (std::string error = wrong_output(); !error.empty()) return error;
  const int live =
      !arguments_.pids.empty() + static_cast<int>(arguments_.all) + !arguments_.command.empty();
  if (live > 1) return "one of -p PID, -a and -- COMMAND, please";
  if (!arguments_.diff.empty()) {
    if (live != 0 || !words_.empty()) return "--diff compares two files, and nothing else";
    if (!arguments_.output.empty() || !arguments_.json.empty())
      return "--diff prints text, to stdout: it goes with neither --output nor --json";
    return {};
  }
  if (live == 0) {
    if (words_.size() != 1)
      return "give a recording: giltop hist FILE; or -p PID, -a or -- COMMAND to trace";
    for (const CLI::Option* option : live_only_)
      if (option->count() != 0) return option->get_name() + " is of live tracing";
    arguments_.file = words_[0];
    return {};
  }
  if (budget_->count() != 0 && arguments_.mode != "auto")
    return "--overhead is the budget of --mode auto";
  if (!words_.empty()) {
    if (std::string error = check_delay(words_[0]); !error.empty()) return error;
    arguments_.interval_s = std::strtod(words_[0].c_str(), nullptr);
  }
  if (words_.size() == 2) {
    char* end = nullptr;
    arguments_.count = std::strtoull(words_[1].c_str(), &end, 10);
    if (words_[1].empty() || words_[1][0] == '-' || *end != 0 || arguments_.count == 0)
      return "not a number of intervals: " + words_[1];
  }
  return {};
}

int HistOptions::run(const std::vector<std::string>& command) {
  arguments_.command = command;
  if (const std::string error = wrong(); !error.empty()) {
    say(error);
    return static_cast<int>(Exit::usage);
  }
  arguments_.overhead_percent = std::stod(overhead_);
  return run_hist(arguments_);
}

}  // namespace giltop
