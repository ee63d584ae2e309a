// giltop report: read a recording and print what record printed, or draw it.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "base/format.h"
#include "cli/checks.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/playback.h"
#include "cli/progress.h"
#include "model/model.h"
#include "model/spans.h"
#include "sink/html.h"
#include "sink/json.h"
#include "view/text_report.h"

namespace giltop {
namespace {

Status write_page(const ReportArguments& arguments, const Snapshot& snapshot, Spans spans) {
  PageOptions options;
  options.most_bytes = size_t{arguments.html_megabytes} * 1'000'000;
  options.breaks_off = !snapshot.run.finished;
  const std::string page = [&] {
    Progress progress("writing " +
                      (arguments.html == "-"
                           ? "the page"
                           : std::filesystem::path(arguments.html).filename().string()));
    options.progress = [&](uint64_t done, uint64_t all) { progress.update(done, all); };
    return to_html(snapshot, std::move(spans), options);
  }();
  const Status written = write_new_file(arguments.html, page);
  if (written && page.size() > options.most_bytes)
    say(fmt::format(
        "the page has {}, not {}: its figures alone take that much, and the timeline is "
        "as coarse as it can be",
        format_bytes(page.size()), format_bytes(options.most_bytes)));
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
  if (!arguments.html.empty()) return ok();
  return write_text(arguments.output,
                    arguments.format == "json" ? to_json(snapshot) : text_report(snapshot));
}

Status check_outputs(const ReportArguments& arguments) {
  const Status spared =
      spare_recording(arguments.file, {arguments.output, arguments.json, arguments.html});
  if (!spared) return spared;
  if (arguments.html.empty() || arguments.html == "-") return ok();
  const std::string old = arguments.html + ".old";
  if (!is_same_output(arguments.file, old)) return ok();
  return Error("cannot write " + arguments.html + ": what is there would become " + old +
               ", which is the recording");
}

}  // namespace

int run_report(const ReportArguments& arguments) {
  if (arguments.html == "-" && isatty(STDOUT_FILENO)) {
    say("the page is not for a terminal: give --html FILE.html");
    return static_cast<int>(Exit::usage);
  }
  if (const Status spared = check_outputs(arguments); !spared) {
    say(spared.error());
    return 1;
  }
  if (arguments.format == "chrometrace") return run_chrometrace(arguments);
  EventTables tables;
  Model model(tables);
  std::optional<SpanRecorder> recorder;
  if (!arguments.html.empty()) recorder.emplace();
  auto playback = Playback::open(arguments.file, tables, arguments.anonymize);
  if (!playback) {
    say(playback.error());
    return 1;
  }
  const auto outcome = playback->read([&](const Event& event) {
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
  say_if_cut(arguments.file, outcome->run);
  if (arguments.strict && snapshot.lost_events != 0) return static_cast<int>(Exit::lost);
  return 0;
}

}  // namespace giltop
