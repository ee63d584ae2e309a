// giltop report: read a recording and print what record printed.
#include <filesystem>
#include <system_error>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/playback.h"
#include "model/model.h"
#include "sink/json.h"
#include "view/text_report.h"

namespace giltop {

int run_report(const ReportArguments& arguments) {
  std::error_code no_such_file;
  if (std::filesystem::equivalent(arguments.file, arguments.output, no_such_file)) {
    say("cannot write " + arguments.output + ": it is the recording");
    return 1;
  }
  if (arguments.format == "chrometrace") return run_chrometrace(arguments);
  EventTables tables;
  Model model(tables);
  auto playback = Playback::open(arguments.file, tables, arguments.anonymize);
  if (!playback) {
    say(playback.error());
    return 1;
  }
  const auto outcome = playback->read([&](const Event& event) {
    model.apply(event);
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome) {
    say(outcome.error());
    return 1;
  }
  const Snapshot snapshot = snapshot_of(model, outcome->run);
  const bool json = !arguments.json.empty() || arguments.format == "json";
  const std::string text = json ? to_json(snapshot) : text_report(snapshot);
  const std::string& output = arguments.json.empty() ? arguments.output : arguments.json;
  if (const Status written = write_text(output, text); !written) {
    say(written.error());
    return 1;
  }
  say_if_cut(arguments.file, outcome->run);
  if (arguments.strict && snapshot.lost_events != 0) return static_cast<int>(Exit::lost);
  return 0;
}

}  // namespace giltop
