// giltop top, or giltop alone: what happens now.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <map>
#include <memory>
#include <regex>
#include <set>

#include "cli/commands.h"
#include "cli/live.h"
#include "cli/output.h"
#include "sink/json.h"
#include "view/batch.h"

namespace giltop {
namespace {

constexpr int kWait_ms = 1000;

// A word as a shell takes it.
std::string quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_./=,:+%@").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What to type instead. sudo may look for giltop elsewhere: its path is given.
std::string with_sudo(const std::vector<std::string>& words) {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  std::string line = "sudo ";
  line += quoted(length > 0 ? std::string(path, static_cast<size_t>(length)) : "giltop");
  for (const std::string& word : words) line += " " + quoted(word);
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

// Which processes are shown, of those that are traced.
class Filter {
 public:
  explicit Filter(const TopArguments& arguments) : users_(arguments.users) {
    if (!arguments.comm.empty()) name_.emplace(arguments.comm);
  }

  bool operator()(const ProcessSnapshot& process) {
    if (name_ && !std::regex_search(process.comm, *name_) &&
        !std::regex_search(process.cmdline, *name_))
      return false;
    return users_.empty() ||
           std::find(users_.begin(), users_.end(), owner(process)) != users_.end();
  }

 private:
  // Asked for when it is first seen; nobody's, if it has ended by then.
  uid_t owner(const ProcessSnapshot& process) {
    constexpr uid_t kNobody = ~uid_t{0};
    if (process.folded != 0) return kNobody;
    const auto [known, first] = owners_.try_emplace(process.number, kNobody);
    struct stat status;
    if (first && stat(fmt::format("/proc/{}", process.pid).c_str(), &status) == 0)
      known->second = status.st_uid;
    while (owners_.size() > kMostOwners) owners_.erase(owners_.begin());
    return known->second;
  }

  static constexpr size_t kMostOwners = 65536;
  std::optional<std::regex> name_;
  std::vector<uid_t> users_;
  std::map<uint64_t, uid_t> owners_;  // by number of the process
};

// Frames as text, or as lines of JSON.
class Batch {
 public:
  Batch(const TopArguments& arguments, Output& output)
      : arguments_(arguments), output_(output), filter_(arguments) {
    options_.key = *batch_key(arguments.sort_key);
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
    if (arguments_.users.size() + arguments_.comm.size() != 0)
      std::erase_if(frame.interval.processes, [this](const auto& p) { return !filter_(p); });
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
  Filter filter_;
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
    (void)write_text("-", batch_keys_help());
    return 0;
  }
  if (!batch_key(arguments.sort_key)) {
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
  if (!arguments.command.empty()) {
    Child::Options command;
    command.command = arguments.command;
    command.user = invoking_user();
    options.command = command;
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
  const int exit = run_batch(**live, arguments, *output, child);
  if (!child || child->failed_status() != 0) return exit;
  if (StopSignals::stop_requested() && StopSignals::sent_signal() != 0)
    child->signal(StopSignals::sent_signal());
  const int status = child->wait();
  return status != 0 ? status : exit;
}

}  // namespace giltop
