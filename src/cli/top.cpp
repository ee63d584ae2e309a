// giltop top, or giltop alone: what happens now.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <regex>
#include <set>

#include "cli/commands.h"
#include "cli/live.h"
#include "cli/output.h"
#include "cli/process_filter.h"
#include "cli/top_screen.h"
#include "sink/json.h"
#include "view/batch.h"
#include "view/live_columns.h"

namespace giltop {
namespace {

constexpr int kWait_ms = 1000;
constexpr uint64_t kFirstFrame_ns = 45'000'000;  // of the screen, which is empty till then
// Who has ended is of interest in the next frame, and in the sums since the start.
constexpr ModelLimits kLimits{256, 64, 512, 256, true};

// A word as a shell takes it.
std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_./=,:+%@").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') out += "'\\'";
    out += c;
  }
  out += '\'';
  return out;
}

// What to type instead. sudo may look for giltop elsewhere: its path is given.
std::string with_sudo(const std::vector<std::string>& words) {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  std::string line = "sudo ";
  line += quoted(length > 0 ? std::string(path, static_cast<size_t>(length)) : "giltop");
  for (const std::string& word : words) line.append(1, ' ').append(quoted(word));
  return line;
}

int say_why(const Error& error, const TopArguments& arguments) {
  say(error);
  if (geteuid() != 0) {
    std::fprintf(
        stderr,
        "\n"
        "giltop sets probes in running Pythons and listens to the scheduler, by BPF programs\n"
        "that it loads into the kernel. That takes root. Run:\n"
        "\n"
        "    %s\n"
        "\n"
        "Recordings are read without root: giltop report giltop.pftrace\n",
        with_sudo(arguments.words).c_str());
  }
  return static_cast<int>(error.exit());
}

// Frames as text, or as lines of JSON.
class Batch {
 public:
  Batch(const TopArguments& arguments, Output& output)
      : arguments_(arguments), output_(output), filter_(arguments.users, arguments.comm) {
    options_.sort = *column_of_key(arguments.sort_key);
    options_.threads = arguments.threads;
    // Whoever was named is shown whatever it does.
    options_.idle = arguments.idle || !arguments.pids.empty() || !arguments.command.empty();
    options_.timestamp = arguments.timestamp;
  }

  // False: nobody reads it any more.
  Result<bool> show(LiveFrame frame) {
    for (const std::string& note : frame.notes)
      if (said_.insert(without_counts(note)).second) say(note);
    if (frame.interval.processes.empty() && !waiting_said_ && arguments_.pids.empty() &&
        arguments_.command.empty()) {
      say("no Python processes yet");
      waiting_said_ = true;
    }
    filter_.apply(frame.interval);
    return output_.write(arguments_.json.empty() ? batch_text(frame, options_)
                                                 : to_json(frame.interval, true));
  }

 private:
  // The same with another count is not said again.
  static std::string without_counts(const std::string& note) {
    return std::regex_replace(note, std::regex("[0-9]+( more)?"), "");
  }

  const TopArguments& arguments_;
  Output& output_;
  ProcessFilter filter_;
  BatchOptions options_;
  std::set<std::string> said_;
  bool waiting_said_ = false;
};

int run_batch(Live& live, const TopArguments& arguments, Output& output,
              const std::optional<Child>& child) {
  Batch batch(arguments, output);
  uint64_t frames = 0;
  bool open = true;
  while (open && !live.ended() && !StopSignals::stop_requested()) {
    const auto is_new = live.poll(kWait_ms);
    if (!is_new) {
      say(is_new.error());
      return child && child->failed_status() != 0 ? child->failed_status() : 1;
    }
    if (!*is_new) continue;
    const auto shown = batch.show(live.frame());
    if (!shown) {
      say(shown.error());
      return 1;
    }
    open = *shown;
    if (++frames == arguments.iterations) open = false;
  }
  live.stop();
  // What was left: to have all figures, or because it was over before the first frame.
  const bool wanted = !arguments.json.empty() || !StopSignals::stop_requested();
  if (open && wanted) (void)batch.show(live.frame());
  return 0;
}

}  // namespace

int run_top(const TopArguments& arguments) {
  if (arguments.sort_key == "help") {
    (void)write_text("-", sort_keys_help());
    return 0;
  }
  if (!column_of_key(arguments.sort_key)) {
    say("there is no sort key " + arguments.sort_key + ": see giltop -s help");
    return static_cast<int>(Exit::usage);
  }
  LiveOptions options;
  options.mode = arguments.mode == "light"   ? Mode::light
                 : arguments.mode == "exact" ? Mode::exact
                                             : Mode::automatic;
  options.budget = arguments.overhead_percent / 100;
  options.pids = arguments.pids;
  options.host_wide = arguments.pids.empty() && arguments.command.empty();
  options.follow_children = arguments.subprocesses || !arguments.command.empty();
  options.delay_ns = static_cast<uint64_t>(arguments.delay_s * 1e9);
  options.limits = kLimits;
  if (!arguments.command.empty()) {
    Child::Options command;
    command.command = arguments.command;
    command.user = invoking_user();
    options.command = command;
  }
  const bool on_screen =
      !arguments.batch && arguments.json.empty() && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  std::optional<KeptOutput> kept;
  if (on_screen) {
    options.first_delay_ns = std::min(options.delay_ns, kFirstFrame_ns);
    if (options.command) {
      auto file = KeptOutput::make();
      if (!file) {
        say(file.error());
        return 1;
      }
      kept.emplace(std::move(*file));
      options.command->output_fd = kept->fd();
    }
  }
  // Under `-- CMD` stdout is the command's.
  const bool to_stderr = arguments.json.empty() && !arguments.command.empty();
  auto output =
      to_stderr ? Output::to_stderr() : Output::make(arguments.json.empty() ? "-" : arguments.json);
  if (!output) {
    say(output.error());
    return 1;
  }
  const StopSignals signals;
  std::optional<Child> child;
  auto live = Live::make(std::move(options), child);
  if (!live) return say_why(live.error(), arguments);
  if (const Status started = (*live)->start(); !started) return say_why(started.error(), arguments);
  (*live)->set_accumulated(arguments.accumulated);
  const int exit = on_screen ? run_screen(**live, arguments, child, kept ? &*kept : nullptr)
                             : run_batch(**live, arguments, *output, child);
  if (!child || child->failed_status() != 0) return exit;
  if (StopSignals::stop_requested() && StopSignals::sent_signal() != 0)
    child->signal(StopSignals::sent_signal());
  if (!child->poll()) {
    if (on_screen && !StopSignals::stop_requested()) {
      say("ending the command (SIGTERM); Ctrl-C leaves at once");
      child->signal(SIGTERM);
    } else if (!StopSignals::stop_requested()) {
      say("tracing is over; the command goes on, Ctrl-C ends it");
    }
  }
  const int status = child->wait();
  if (kept) kept->print();
  return status != 0 ? status : exit;
}

}  // namespace giltop
