// giltop hist: how long threads wait for the GIL, hold it, and are on their way to it.
#include "model/hist.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>
#include <utility>

#include "cli/checks.h"
#include "cli/commands.h"
#include "cli/hist_source.h"
#include "cli/output.h"
#include "cli/playback.h"
#include "model/model.h"
#include "sink/hist_json.h"
#include "view/hist.h"

namespace giltop {
namespace {

constexpr uint64_t kForever_ns = 1'000'000'000ull * 86400 * 365 * 100;

struct What {
  HistGroup group = HistGroup::all;
  std::vector<HistKind> kinds;
  HistUnit unit = HistUnit::microseconds;
};

What what_of(const HistArguments& arguments) {
  What what;
  if (arguments.by_process) what.group = HistGroup::process;
  if (arguments.by_thread) what.group = HistGroup::thread;
  if (arguments.milliseconds) what.unit = HistUnit::milliseconds;
  if (arguments.wait) what.kinds.push_back(HistKind::wait);
  if (arguments.hold) what.kinds.push_back(HistKind::hold);
  if (arguments.handoff) what.kinds.push_back(HistKind::handoff);
  if (what.kinds.empty()) what.kinds = {HistKind::wait};
  return what;
}

Result<HistReport> from_recording(const std::string& file, const What& what) {
  EventTables tables;
  Model model(tables);
  auto playback = Playback::open(file, tables);
  if (!playback) return playback.error();
  const auto outcome = playback->read([&](const Event& event) {
    model.apply(event);
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome) return outcome.error();
  return hist_of(snapshot_of(model, outcome->run), what.group, what.kinds);
}

// A recording, or what `hist -o` or `--json` wrote.
Result<HistReport> from_file(const std::string& file, const What& what) {
  std::ifstream in(file, std::ios::binary);
  if (in.peek() != '{') return from_recording(file, what);
  std::ostringstream text;
  text << in.rdbuf();
  auto report = hist_from_json(text.str());
  if (!report) return report.error().in(file);
  return report;
}

std::string clock_line() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return fmt::format("{:02}:{:02}:{:02}\n", local.tm_hour, local.tm_min, local.tm_sec);
}

int failed(const Error& error) {
  say(error);
  return static_cast<int>(error.exit());
}

int run_diff(const HistArguments& arguments) {
  const What what = what_of(arguments);
  const auto a = from_file(arguments.diff[0], what);
  if (!a) return failed(a.error());
  const auto b = from_file(arguments.diff[1], what);
  if (!b) return failed(b.error());
  if (const Status written = write_text("-", hist_diff(*a, *b, what.unit)); !written)
    return failed(written.error());
  return 0;
}

// Shows one report; all of them together go to -o.
class Shown {
 public:
  Shown(const HistArguments& arguments, Output& output)
      : arguments_(arguments), what_(what_of(arguments)), output_(output) {}

  const What& what() const { return what_; }

  void insist() { output_.insist(); }

  // False: nobody reads it any more.
  Result<bool> show(const HistReport& report) {
    begun_ = true;
    if (!arguments_.output.empty()) add(sum_, report);
    if (!arguments_.json.empty()) return output_.write(to_json(report));
    std::string text = arguments_.timestamp ? clock_line() : std::string();
    text += hist_text(report, what_.unit);
    if (std::exchange(any_, true)) text = "\n" + text;
    return output_.write(text);
  }

  // Where nothing was shown the file stays what it was.
  Status finish() const {
    return arguments_.output.empty() || !begun_ ? ok()
                                                : write_text(arguments_.output, to_json(sum_));
  }

 private:
  const HistArguments& arguments_;
  What what_;
  Output& output_;
  HistReport sum_;
  bool any_ = false;
  bool begun_ = false;
};

LiveOptions live_options(const HistArguments& arguments) {
  LiveOptions options;
  options.mode = arguments.mode == "light"  ? Mode::light
                 : arguments.mode == "auto" ? Mode::automatic
                                            : Mode::exact;
  options.budget = arguments.overhead_percent / 100;
  options.pids = arguments.pids;
  options.host_wide = arguments.all;
  options.follow_children = arguments.subprocesses || !arguments.command.empty();
  options.delay_ns =
      arguments.interval_s == 0 ? kForever_ns : static_cast<uint64_t>(arguments.interval_s * 1e9);
  if (!arguments.command.empty()) {
    Child::Options command;
    command.command = arguments.command;
    command.user = invoking_user();
    options.command = command;
  }
  return options;
}

int run_live(const HistArguments& arguments, Shown& shown) {
  const LiveOptions options = live_options(arguments);
  const What& what = shown.what();
  const auto wants = [&](HistKind kind) {
    return std::find(what.kinds.begin(), what.kinds.end(), kind) != what.kinds.end();
  };
  const StopSignals signals;
  std::optional<Child> child;
  const WaitCounting counting{.by_thread = what.group == HistGroup::thread && wants(HistKind::wait),
                              .handoffs = wants(HistKind::handoff)};
  auto made = options.mode == Mode::light ? CountSource::make(options, counting, child)
                                          : EventSource::make(options, child);
  if (!made) return failed(made.error());
  HistSource& source = **made;
  if (const Status started = source.start(); !started) return failed(started.error());
  if (arguments.command.empty() && arguments.interval_s == 0) say("tracing; Ctrl-C ends it");
  const auto show = [&] { return shown.show(hist_of(source.latest(), what.group, what.kinds)); };
  uint64_t count = 0;
  bool open = true;
  while (open && !source.ended() && !StopSignals::stop_requested()) {
    const auto is_new = source.poll();
    if (!is_new) {
      say(is_new.error());
      return child && child->failed_status() != 0 ? child->failed_status() : 1;
    }
    if (!*is_new) continue;
    const auto read = show();
    if (!read) return failed(read.error());
    open = *read && ++count != arguments.count;
  }
  const bool interrupted = StopSignals::stop_requested();
  const Status stopped = source.stop();
  if (!stopped) say(stopped.error());
  shown.insist();
  if (open && stopped) {
    if (const auto read = show(); !read) return failed(read.error());
  }
  for (const std::string& note : source.notes()) say(note);
  if (child) {
    if (interrupted && StopSignals::sent_signal() != 0) child->signal(StopSignals::sent_signal());
    if (!interrupted && !child->poll()) say("tracing is over; the command goes on, Ctrl-C ends it");
    return child->wait();
  }
  return stopped ? 0 : static_cast<int>(stopped.error().exit());
}

}  // namespace

int run_hist(const HistArguments& arguments) {
  if (!arguments.diff.empty()) return run_diff(arguments);
  const std::string shown_at = arguments.json.empty() ? "-" : arguments.json;
  if (const Status spared = spare_recording(arguments.file, {shown_at, arguments.output}); !spared)
    return failed(spared.error());
  // Under `-- CMD` stdout is the command's.
  auto output = !arguments.json.empty()     ? Output::make(arguments.json)
                : arguments.command.empty() ? Output::make("-")
                                            : Output::to_stderr();
  if (!output) return failed(output.error());
  Shown shown(arguments, *output);
  int exit = 0;
  if (!arguments.file.empty()) {
    const auto report = from_recording(arguments.file, shown.what());
    if (!report) return failed(report.error());
    if (const auto read = shown.show(*report); !read) return failed(read.error());
  } else {
    exit = run_live(arguments, shown);
  }
  if (const Status done = shown.finish(); !done) return failed(done.error());
  return exit;
}

}  // namespace giltop
