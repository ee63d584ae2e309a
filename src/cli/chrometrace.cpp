// giltop report -f chrometrace: a recording as Chrome's JSON trace events.
#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <utility>

#include "base/format.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/playback.h"
#include "model/model.h"
#include "sink/chrome_drawing.h"

namespace giltop {
namespace {

constexpr size_t kBlockBytes = 256 * 1024;  // of text, before it is written

// Text on its way out, which is opened when there is some: what was there stays until then. The
// first error is kept; nothing is written after it, or when nobody reads.
class TextFile {
 public:
  explicit TextFile(std::string path) : path_(std::move(path)) {}
  void add(std::string_view text) {
    text_ += text;
    if (text_.size() >= kBlockBytes) flush();
  }
  Status close() {
    flush();
    return error_ ? Status(*error_) : ok();
  }
  uint64_t bytes() const { return bytes_; }
  bool is_open() const { return open_; }

 private:
  void flush() {
    const std::string text = std::exchange(text_, {});
    if (!open_ || text.empty()) return;
    const auto written = write(text);
    if (!written) error_ = written.error();
    open_ = written && *written;
    bytes_ += text.size();
  }
  Result<bool> write(const std::string& text) {
    if (!output_) {
      auto made = Output::make(path_);
      if (!made) return made.error();
      output_ = *std::move(made);
    }
    return output_->write(text);
  }
  std::string path_;
  std::optional<Output> output_;
  std::string text_;
  std::optional<Error> error_;
  bool open_ = true;
  uint64_t bytes_ = 0;
};

}  // namespace

int run_chrometrace(const ReportArguments& arguments) {
  if (arguments.output == "-" && isatty(STDOUT_FILENO)) {
    say("chrometrace is not for a terminal: give -o FILE.json");
    return static_cast<int>(Exit::usage);
  }
  EventTables tables;
  Model model(tables);
  auto playback = Playback::open(arguments.file, tables, arguments.anonymize);
  if (!playback) {
    say(playback.error());
    return 1;
  }
  TextFile file(arguments.output);
  ChromeDrawing drawing(tables, [&](std::string_view text) { file.add(text); });
  const auto outcome = playback->read([&](const Event& event) {
    drawing.take(event, model.apply(event), playback->clocks());
    if (!file.is_open()) playback->stop();
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome && !drawing.begun()) {  // there is nothing to write
    say(outcome.error());
    return 1;
  }
  const RunFacts run = outcome ? outcome->run : RunFacts();
  drawing.finish(model.last_ns(), run, model.lost());
  const Status closed = file.close();
  if (!outcome) {
    say(outcome.error());
    return 1;
  }
  if (!closed) {
    say(closed.error());
    return 1;
  }
  if (!file.is_open()) return 0;  // who read it has seen enough
  if (arguments.output != "-")
    say(fmt::format(
        "wrote {} ({}): open it at ui.perfetto.dev, or put it together with VizTracer's "
        "file of the same run: viztracer --combine",
        arguments.output, format_bytes(file.bytes())));
  say_if_cut(arguments.file, run);
  return arguments.strict && model.lost() != 0 ? static_cast<int>(Exit::lost) : 0;
}

}  // namespace giltop
