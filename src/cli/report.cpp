// giltop report: read a recording and print what record printed, or draw it.
#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "cli/commands.h"
#include "cli/output.h"
#include "model/model.h"
#include "model/spans.h"
#include "sink/html.h"
#include "sink/json.h"
#include "sink/trace_reader.h"
#include "view/format.h"
#include "view/text_report.h"
#include "view/verdict.h"

namespace giltop {
namespace {

Status write_page(const ReportArguments& arguments, const Snapshot& snapshot, Spans spans) {
  std::vector<PageProcess> processes;
  for (const auto& [process, verdict] : verdicts_of(snapshot))
    processes.push_back({static_cast<size_t>(process - snapshot.processes.data()), verdict.sentence,
                         verdict.advice});
  PageOptions options;
  options.most_bytes = size_t{arguments.html_megabytes} * 1'000'000;
  options.breaks_off = !snapshot.run.finished;
  const std::string page = to_html(snapshot, std::move(spans), processes, options);
  const Status written = write_new_file(arguments.html, page);
  if (written && arguments.html != "-")
    say(fmt::format("wrote {} ({}): open it in a browser", arguments.html,
                    format_bytes(page.size())));
  return written;
}

Status write_all(const ReportArguments& arguments, const Snapshot& snapshot,
                 std::optional<Spans> spans) {
  if (spans)
    if (const Status written = write_page(arguments, snapshot, *std::move(spans)); !written)
      return written;
  if (!arguments.json.empty()) return write_text(arguments.json, to_json(snapshot));
  return arguments.html.empty() ? write_text("-", text_report(snapshot)) : ok();
}

}  // namespace

int run_report(const ReportArguments& arguments) {
  std::error_code no_such_file;
  if (std::filesystem::equivalent(arguments.file, arguments.html, no_such_file)) {
    say("cannot write " + arguments.html + ": it is the recording");
    return 1;
  }
  EventTables tables;
  Model model(tables);
  std::optional<SpanRecorder> recorder;
  if (!arguments.html.empty()) recorder.emplace();
  auto reader = TraceReader::open(arguments.file, tables);
  if (!reader) {
    say(reader.error());
    return 1;
  }
  const auto outcome = reader->read([&](const Event& event) {
    const Change change = model.apply(event);
    if (recorder) recorder->take(model, event, change);
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome) {
    say(outcome.error());
    return 1;
  }
  const Snapshot snapshot = snapshot_of(model, outcome->run);
  std::optional<Spans> spans;
  if (recorder) spans = recorder->finish();
  if (const Status written = write_all(arguments, snapshot, std::move(spans)); !written) {
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
