// giltop demo: the blog's five workloads, recorded and compared.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/format.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/recording.h"
#include "sink/json.h"
#include "view/comparison.h"
#include "workload.embed.h"

namespace giltop {
namespace {

struct Workload {
  const char* name;
  const char* title;
  const char* description;
};

constexpr Workload kWorkloads[] = {
    {"cpu1", "1 thread, CPU", "Two tasks, one after the other."},
    {"io1", "1 thread, sleeping", "Four sleeps, one after the other."},
    {"cpu2", "2 threads, CPU", "The same two tasks, in two threads."},
    {"io4", "4 threads, sleeping", "The four sleeps, in four threads."},
    {"yield2", "2 threads, CPU + yields",
     "The two tasks, each with a hundred calls of time.sleep(0)."},
};

// A private copy of the workloads' program, readable by whoever runs it.
class WorkloadFile {
 public:
  static Result<WorkloadFile> make(std::optional<User> user) {
    const char* base = std::getenv("TMPDIR");
    std::string directory = std::string(base && *base ? base : "/tmp") + "/giltop-demo-XXXXXX";
    if (!mkdtemp(directory.data())) return system_error("cannot make " + directory, errno);
    WorkloadFile file;
    file.directory_ = directory;
    const std::string text(reinterpret_cast<const char*>(embedded::workload),
                           sizeof(embedded::workload));
    if (const Status written = write_text(file.path(), text); !written) return written.error();
    if (user && chown(directory.c_str(), user->uid, user->gid) != 0)
      return system_error("cannot give away " + directory, errno);
    return file;
  }
  WorkloadFile(WorkloadFile&& other) noexcept : directory_(std::exchange(other.directory_, {})) {}
  WorkloadFile& operator=(WorkloadFile&&) = delete;
  ~WorkloadFile() {
    if (directory_.empty()) return;
    unlink(path().c_str());
    rmdir(directory_.c_str());
  }
  std::string path() const { return directory_ + "/workload.py"; }

 private:
  WorkloadFile() = default;
  std::string directory_;
};

}  // namespace

int run_demo(const DemoArguments& arguments) {
  const auto user = invoking_user();
  auto workload = WorkloadFile::make(user);
  if (!workload) {
    say(workload.error());
    return 1;
  }
  if (mkdir(arguments.directory.c_str(), 0755) != 0 && errno != EEXIST) {
    say(system_error("cannot make " + arguments.directory, errno));
    return 1;
  }
  if (user && chown(arguments.directory.c_str(), user->uid, user->gid) != 0) {
    // A file system without owners.
  }
  const StopSignals signals;
  const char* term = std::getenv("TERM");
  const bool terminal = isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
  std::vector<ComparedRun> runs;
  nlohmann::ordered_json documents = nlohmann::ordered_json::array();
  int exit = 0;
  for (size_t i = 0; i < std::size(kWorkloads); i++) {
    const Workload& w = kWorkloads[i];
    const std::string file = arguments.directory + "/" + w.name + ".pftrace";
    RecordingOptions options;
    options.file = file;
    Child::Options command;
    command.command = {arguments.python, workload->path(), w.name, "--scale",
                       arguments.full ? "1" : "0.1"};
    command.user = user;
    command.quiet = true;
    options.command = command;
    const auto line = [&](uint64_t ns) {
      std::fprintf(stderr, "\r\033[K[%zu/%zu] %s  %s", i + 1, std::size(kWorkloads), w.title,
                   format_seconds(ns).c_str());
    };
    uint64_t shown = 0;
    if (!terminal) std::fprintf(stderr, "[%zu/%zu] %s\n", i + 1, std::size(kWorkloads), w.title);
    std::optional<Child> child;
    auto result = record(options, child, [&](uint64_t ns) {
      if (!terminal || (ns < shown + 100'000'000 && shown != 0)) return;
      shown = ns;
      line(ns);
    });
    if (terminal) std::fprintf(stderr, "\r\033[K");
    if (!result) {
      say(result.error());
      return child && child->failed_status() ? child->failed_status() : 1;
    }
    for (const std::string& refusal : result->refusals) say(refusal);
    if (result->interrupted) {
      child->signal(SIGTERM);
      child->wait();
      return 130;
    }
    if (result->write_error) {
      say(*result->write_error);
      return 1;
    }
    if (const int status = child->wait(); status != 0) {
      say(fmt::format("{} {} ended with status {}", arguments.python, w.name, status));
      exit = 1;
    }
    if (!arguments.json.empty())
      documents.push_back({{"workload", w.name},
                           {"file", file},
                           {"report", nlohmann::ordered_json::parse(to_json(result->snapshot))}});
    runs.push_back({w.title, w.description, file, std::move(result->snapshot)});
  }
  if (!arguments.json.empty()) {
    const nlohmann::ordered_json all = {{"schema", "giltop.demo/1"}, {"runs", documents}};
    if (const Status written = write_text(arguments.json, all.dump(2) + "\n"); !written) {
      say(written.error());
      return 1;
    }
    if (arguments.json == "-") return exit;
  }
  std::string text = comparison(runs);
  uint64_t lost = 0;
  for (const ComparedRun& run : runs) lost += run.snapshot.lost_events;
  text += fmt::format(
      "\nRecordings in {}/ ({} events lost): giltop report {}, or open them at "
      "ui.perfetto.dev\n",
      arguments.directory, format_count(lost), runs[2].file);
  (void)write_text("-", text);
  return exit;
}

}  // namespace giltop
