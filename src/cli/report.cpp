// giltop report: read a recording and print what record printed.
#include "cli/commands.h"
#include "cli/output.h"
#include "model/model.h"
#include "sink/json.h"
#include "sink/trace_reader.h"
#include "view/text_report.h"

namespace giltop {

int run_report(const ReportArguments& arguments) {
  EventTables tables;
  Model model(tables);
  auto reader = TraceReader::open(arguments.file, tables);
  if (!reader) {
    say(reader.error());
    return 1;
  }
  const auto outcome = reader->read([&](const Event& event) {
    model.apply(event);
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome) {
    say(outcome.error());
    return 1;
  }
  const Snapshot snapshot = snapshot_of(model, outcome->run);
  const std::string text = arguments.json.empty() ? text_report(snapshot) : to_json(snapshot);
  if (const Status written = write_text(arguments.json.empty() ? "-" : arguments.json, text);
      !written) {
    say(written.error());
    return 1;
  }
  if (!outcome->run.finished)
    say(arguments.file +
        " breaks off: its recorder was killed, or still runs; up to a second is "
        "missing at its end");
  if (arguments.strict && snapshot.lost_events != 0) return static_cast<int>(Exit::lost);
  return 0;
}

}  // namespace giltop
