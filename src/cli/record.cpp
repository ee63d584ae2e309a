// giltop record: trace processes or a command into a file and sum up.
#include <fmt/format.h>

#include <utility>

#include "base/format.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/recording.h"
#include "sink/json.h"
#include "view/text_report.h"

namespace giltop {

namespace {

// So that one knows that it works, and how it ends.
std::string tracing_line(const RecordArguments& arguments) {
  std::string whom = "every Python of this host";
  if (!arguments.all) {
    whom.clear();
    for (const uint32_t pid : arguments.pids)
      whom += (whom.empty() ? "" : ", ") + std::to_string(pid);
    if (arguments.subprocesses)
      whom += arguments.pids.size() == 1 ? " and its children" : " and their children";
  }
  return "tracing " + whom +
         (arguments.duration_s > 0 ? fmt::format(" for {:g} s", arguments.duration_s) : "") +
         "; Ctrl-C ends it";
}

}  // namespace

int run_record(const RecordArguments& arguments) {
  RecordingOptions options;
  options.file = arguments.output;
  options.ring_bytes = arguments.buffer_bytes;
  options.mode = arguments.mode == "light"  ? Mode::light
                 : arguments.mode == "auto" ? Mode::automatic
                                            : Mode::exact;
  options.budget = arguments.overhead_percent / 100;
  if (arguments.duration_s > 0)
    options.duration_ns = static_cast<uint64_t>(arguments.duration_s * 1e9);
  options.pids = arguments.pids;
  options.host_wide = arguments.all;
  options.follow_children = arguments.subprocesses || !arguments.command.empty();
  if (!arguments.command.empty()) {
    Child::Options command;
    command.command = arguments.command;
    command.user = invoking_user();
    options.command = command;
  }
  std::optional<Output> json;
  if (!arguments.json.empty()) {  // whatever is wrong with it is said before, not after
    auto made = Output::make(arguments.json);
    if (!made) {
      say(made.error());
      return 1;
    }
    json = *std::move(made);
  }
  const StopSignals signals;
  std::optional<Child> child;
  bool said = arguments.quiet || !arguments.command.empty();
  const auto result = record(options, child, [&](uint64_t) {
    if (!std::exchange(said, true)) say(tracing_line(arguments));
  });
  if (!result) {
    say(result.error());
    return child && child->failed_status() != 0 ? child->failed_status()
                                                : static_cast<int>(result.error().exit());
  }
  int exit = 0;
  const Snapshot& snapshot = result->snapshot;
  for (const std::string& refusal : result->refusals) say(refusal);
  std::string summary = text_report(snapshot);
  if (result->write_error) {
    say(*result->write_error);
    exit = 1;
  } else {
    summary += fmt::format(
        "Wrote {} ({} events, {} lost, {}): open it at ui.perfetto.dev, or "
        "giltop report {}\n",
        arguments.output, format_count(snapshot.run.events), format_count(snapshot.lost_events),
        format_bytes(result->file_bytes), arguments.output);
  }
  if (json) {
    json->insist();
    if (const auto written = json->write(to_json(snapshot)); !written) {
      say(written.error());
      exit = 1;
    }
  }
  // Under `-- CMD` stdout is the command's; and --json to stdout must be all that is there.
  if (!arguments.quiet) {
    const bool to_stdout = arguments.command.empty() && arguments.json != "-";
    if (to_stdout) {
      (void)write_text("-", summary);
    } else {
      std::fputs(("\n" + summary).c_str(), stderr);
    }
  }
  if (child) {
    if (result->interrupted && StopSignals::sent_signal() != 0)
      child->signal(StopSignals::sent_signal());
    if (!result->interrupted && !arguments.quiet && !child->poll())
      say("the command goes on, and this waits for its end");
    const int status = child->wait();
    if (status != 0) return status;
  }
  if (exit == 0 && arguments.strict && snapshot.lost_events != 0)
    return static_cast<int>(Exit::lost);
  return exit;
}

}  // namespace giltop
