// Measures giltop's own speed, from the bytes in the ring to the file on disk and back, and
// compares it with what it is meant to be. Started by tools/bench/pipeline; see usage() for what it
// takes.
#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "event/decode.h"
#include "event/reorder.h"
#include "model/model.h"
#include "model/snapshot.h"
#include "sink/json.h"
#include "sink/trace_file.h"
#include "sink/trace_reader.h"
#include "sink/trace_writer.h"
#include "synthetic.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"

extern char** environ;

namespace giltop::bench {
namespace {

struct Options {
  bool json = false;
  size_t runs = 5;
  uint64_t records = 2'000'000;
  uint64_t long_records = 0;  // of a recording that is too long for memory; 0: none
  unsigned live_seconds = 5;
  std::string directory = "/tmp";        // for recordings, which are removed
  std::string giltop, python, workload;  // all set: measure live, too
  std::vector<std::string> elf_files;    // the first that is a CPython is measured
  std::string read;                      // read this recording, print a line, and no more
  std::string write, mix;                // write one of long_records, print a line, and no more
};

[[noreturn]] void usage(int status) {
  fmt::print(
      status == 0 ? stdout : stderr,
      "usage: giltop_bench_pipeline [--json] [--runs=N] [--records=N] [--long[=N]] [--elf=FILE]…\n"
      "         [--giltop=FILE --python=FILE --workload=FILE [--live-seconds=N]]\n");
  std::exit(status);
}

[[noreturn]] void fail(const std::string& message) {
  fmt::print(stderr, "giltop_bench_pipeline: {}\n", message);
  std::exit(1);
}

// --- results -------------------------------------------------------------------------------------

enum class Goal { none, at_least, at_most };

struct Series {
  std::string what, unit;
  Goal goal = Goal::none;
  double bound = 0;
  std::vector<double> values;

  double median() const {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const size_t half = sorted.size() / 2;
    return sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }
  bool met() const {
    return goal == Goal::none || (goal == Goal::at_least ? median() >= bound : median() <= bound);
  }
};

class Results {
 public:
  void add(std::string_view what, std::string_view unit, double value, Goal goal = Goal::none,
           double bound = 0) {
    auto found = find(what);
    if (found == all_.end())
      found = all_.insert(found, {std::string(what), std::string(unit), goal, bound, {}});
    found->values.push_back(value);
  }
  double median(std::string_view what) { return find(what)->median(); }
  void print(const Options& options) const;

 private:
  std::vector<Series>::iterator find(std::string_view what) {
    return std::find_if(all_.begin(), all_.end(), [&](auto& s) { return s.what == what; });
  }
  std::vector<Series> all_;
};

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M UTC", std::gmtime(&now));
  return text;
}

void Results::print(const Options& options) const {
  utsname system{};
  uname(&system);
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (options.json) {
    nlohmann::ordered_json out = {{"schema", "giltop.bench/1"}, {"date", today()},
                                  {"cpu", cpu_model()},         {"cores", cores},
                                  {"kernel", system.release},   {"results", nullptr}};
    for (const Series& s : all_) {
      auto& row = out["results"].emplace_back();
      row = {{"what", s.what}, {"unit", s.unit}, {"median", s.median()}, {"runs", s.values}};
      if (s.goal != Goal::none) row[s.goal == Goal::at_least ? "at_least" : "at_most"] = s.bound;
      row["met"] = s.met();
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{}, {} cores, Linux {}, {}\n\n", cpu_model(), cores, system.release, today());
  fmt::print("{:<44} {:>9}  {:>9} … {:<9} {:<12} {}\n", "", "median", "least", "most", "", "goal");
  for (const Series& s : all_) {
    const auto [least, most] = std::minmax_element(s.values.begin(), s.values.end());
    std::string goal;
    if (s.goal != Goal::none)
      goal = fmt::format("{} {:g}  {}", s.goal == Goal::at_least ? "≥" : "≤", s.bound,
                         s.met() ? "met" : "MISSED");
    fmt::print("{:<44} {:>9.5g}  {:>9.5g} … {:<9.5g} {:<12} {}\n", s.what, s.median(), *least,
               *most, s.unit, goal);
  }
}

// --- the pipeline --------------------------------------------------------------------------------

struct Cost {
  uint64_t wall_ns, thread_ns, process_ns;
};

Cost now() {
  return {clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID),
          clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
}

Cost since(const Cost& start) {
  const Cost end = now();
  return {end.wall_ns - start.wall_ns, end.thread_ns - start.thread_ns,
          end.process_ns - start.process_ns};
}

double per(uint64_t ns, const Records& records) {
  return static_cast<double>(ns) / static_cast<double>(records.count());
}

constexpr size_t kRound = 2 << 20;  // bytes in the ring when the kernel side wakes the reader

struct Mix {
  const char* name;
  void (*make)(uint64_t count, uint64_t part, const RecordSink& sink);
  bool churns = false;  // so much comes and goes that speeds have no goal
};
constexpr Mix kMixes[] = {{"1 writer", uncontended_writer},
                          {"4 writers", four_writers},
                          {"2 computers", two_computers},
                          {"brief threads", brief_threads, true}};

// What Session and Recording do with the ring's bytes, round by round.
class Consumer {
 public:
  // `writer` may be null.
  Consumer(EventTables& tables, Model& model, TraceWriter* writer)
      : tables_(tables), model_(model), decoder_(tables), sink_([this, writer](const Event& event) {
          const Change change = model_.apply(event);
          if (writer) writer->write(event, change);
        }) {}

  void take(const Records& records) {
    count_ += records.count();
    for (size_t at = 0; !records.done(at);) {
      at = records.take(at, kRound, [this](std::span<const std::byte> record) {
        decoder_.decode(record, [this](const Event& event) {
          if (newest_ns_ == 0 && event.kind != EventKind::exec) tell_process(event);
          newest_ns_ = std::max(newest_ns_, event.ts_ns);
          reorder_.push(event);
          if (event.kind == EventKind::exec) tell_process(event);
        });
      });
      reorder_.release(newest_ns_ - kDisorder_ns, sink_);
      if (tables_.crowded()) model_.forget_unused(tables_);
    }
  }
  void finish() {
    reorder_.release(newest_ns_, sink_);
    if (decoder_.counts().malformed != 0 || reorder_.late() != 0 || model_.violations() != 0)
      fail(fmt::format("the synthetic records are wrong: {} malformed, {} late, {} violations",
                       decoder_.counts().malformed, reorder_.late(), model_.violations()));
  }
  uint64_t count() const { return count_; }

 private:
  // What it runs: otherwise no report would show it.
  void tell_process(const Event& event) {
    Event process;
    process.kind = EventKind::process;
    process.ts_ns = event.ts_ns;
    process.tgid = event.tgid;
    process.other =
        tables_.add({"python3", "python3 synthetic.py", "3.11.2", "", false}, event.ts_ns);
    reorder_.push(process);
  }

  EventTables& tables_;
  Model& model_;
  Decoder decoder_;
  Reorder reorder_;
  const std::function<void(const Event&)> sink_;
  uint64_t newest_ns_ = 0;
  uint64_t count_ = 0;
};

void measure_join(const Mix& mix, const Records& records, Results& results) {
  EventTables tables;
  Model model(tables);
  const Cost start = now();
  Consumer consumer(tables, model, nullptr);
  consumer.take(records);
  consumer.finish();
  results.add(fmt::format("decode, reorder, join: {}", mix.name), "M events/s",
              1e3 / per(since(start).thread_ns, records), mix.churns ? Goal::none : Goal::at_least,
              20);
}

RunFacts run_facts(uint64_t count) {
  RunFacts run;
  run.version = "bench";
  run.events = count;
  run.finished = true;
  return run;
}

// `path` empty: packets are made and thrown away. `make` passes the records on to what it is given.
// Returns the bytes of the file.
uint64_t write_trace(const std::function<void(Consumer&)>& make, const std::string& path) {
  EventTables tables;
  Model model(tables);
  std::unique_ptr<TraceFile> file;
  if (!path.empty()) {
    auto made = TraceFile::make(path, std::nullopt);
    if (!made) fail(made.error().message());
    file = std::move(*made);
  }
  TraceWriter writer(tables, [&](std::string block) {
    if (file) file->write(std::move(block));
  });
  Consumer consumer(tables, model, &writer);
  writer.start({}, {}, run_facts(0));
  make(consumer);
  consumer.finish();
  writer.finish(model.last_ns(), run_facts(consumer.count()));
  if (!file) return 0;
  if (const Status closed = file->close(); !closed) fail(closed.error().message());
  return file->bytes_written();
}

uint64_t write_trace(const Records& records, const std::string& path) {
  return write_trace([&](Consumer& consumer) { consumer.take(records); }, path);
}

void measure_write(const std::string& mix, const Records& records, const std::string& path,
                   Results& results) {
  const auto name = [&](const char* what) { return fmt::format("{}: {}", what, mix); };
  const Cost before_packets = now();
  write_trace(records, "");
  results.add(name("to packets"), "ns/event", per(since(before_packets).thread_ns, records));

  const Cost before_null = now();
  write_trace(records, "/dev/null");
  const Cost null = since(before_null);
  results.add(name("to /dev/null, consumer"), "ns/event", per(null.thread_ns, records));
  results.add(name("to /dev/null, all threads"), "ns/event", per(null.process_ns, records),
              Goal::at_most, 400);

  const Cost before_file = now();
  const uint64_t bytes = write_trace(records, path);
  const Cost file = since(before_file);
  results.add(name("to a file, all threads"), "ns/event", per(file.process_ns, records),
              Goal::at_most, 400);
  results.add(name("file"), "bytes/event", per(bytes, records), Goal::at_most, 8);
}

// --- other processes -----------------------------------------------------------------------------

// Runs a command, its output going to `path`; returns its exit status.
int run(const std::vector<std::string>& command, const std::string& path) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, path.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0644);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) fail(system_error("cannot run " + command[0], error).message());
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

nlohmann::json run_for_json(const std::vector<std::string>& command, const std::string& path) {
  if (run(command, path) != 0) fail(command[0] + " " + command[1] + " failed");
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

uint64_t peak_kb() {  // getrusage's would count the process that started us
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtoull(line.c_str() + 6, nullptr, 10);
  return 0;
}

// What `giltop report --json` does, in a process of its own for the sake of its memory.
int read_trace(const std::string& path) {
  const Cost start = now();
  EventTables tables;
  Model model(tables);
  auto reader = TraceReader::open(path, tables);
  if (!reader) fail(reader.error().message());
  const auto outcome = reader->read([&](const Event& event) {
    model.apply(event);
    if (tables.crowded()) model.forget_unused(tables);
  });
  if (!outcome) fail(outcome.error().message());
  const std::string report = to_json(snapshot_of(model, outcome->run));
  const Cost cost = since(start);
  fmt::print("{{\"events\": {}, \"cpu_ns\": {}, \"peak_kb\": {}}}\n", outcome->run.events,
             cost.process_ns, peak_kb());
  return report.empty() ? 1 : 0;
}

void measure_read(const std::string& name, const std::string& path, Results& results, Goal goal) {
  const auto out = run_for_json({"/proc/self/exe", "--read=" + path}, path + ".read");
  results.add("report: " + name, "M events/s",
              1e3 * out["events"].get<double>() / out["cpu_ns"].get<double>(), goal, 5);
  results.add("report, peak memory: " + name, "MB", out["peak_kb"].get<double>() / 1024,
              Goal::at_most, 200);
}

// What `giltop record` does with a stream of records that are made as they are needed, which is not
// counted as time, but as memory.
int write_long(const Options& options) {
  const auto* const mix = std::find_if(std::begin(kMixes), std::end(kMixes),
                                       [&](const Mix& m) { return m.name == options.mix; });
  if (mix == std::end(kMixes)) usage(2);
  constexpr uint64_t kPart = 20'000;
  uint64_t cpu_ns = 0, count = 0;
  const uint64_t bytes = write_trace(
      [&](Consumer& consumer) {
        mix->make(options.long_records, kPart, [&](Records&& records) {
          const Cost start = now();
          consumer.take(records);
          cpu_ns += since(start).process_ns;  // with what the compressing thread did meanwhile
        });
        count = consumer.count();
      },
      options.write);
  fmt::print("{{\"events\": {}, \"cpu_ns\": {}, \"bytes\": {}, \"peak_kb\": {}}}\n", count, cpu_ns,
             bytes, peak_kb());
  return 0;
}

// A tenth of it, then all: memory must not tell which.
void measure_long(const Options& options, const std::string& path, Results& results) {
  if (options.long_records == 0) return;
  for (const uint64_t records : {options.long_records / 10, options.long_records}) {
    for (const char* mix : {"4 writers", "brief threads"}) {
      const std::string name = fmt::format("{} M, {}", records / 1'000'000, mix);
      const auto out =
          run_for_json({"/proc/self/exe", "--write=" + path, "--mix=" + std::string(mix),
                        "--long=" + std::to_string(records)},
                       path + ".read");
      results.add("record, peak memory: " + name, "MB", out["peak_kb"].get<double>() / 1024,
                  Goal::at_most, 200);
      results.add("file: " + name, "bytes/event",
                  out["bytes"].get<double>() / out["events"].get<double>(), Goal::at_most, 8);
      measure_read(name, path, results, Goal::at_least);
      unlink(path.c_str());
    }
  }
}

// --- call sites ----------------------------------------------------------------------------------

std::optional<double> inspect_ms(const std::string& path) {
  const uint64_t start = clock_ns(CLOCK_MONOTONIC);
  auto file = ElfFile::open(path);
  if (!file) return std::nullopt;
  const auto inspection = inspect_elf(*file);
  if (!inspection || inspection->kind != Inspection::Kind::cpython) return std::nullopt;
  return static_cast<double>(clock_ns(CLOCK_MONOTONIC) - start) / 1e6;
}

void measure_sites(const Options& options, Results& results) {
  for (const std::string& path : options.elf_files) {
    if (!inspect_ms(path)) continue;  // this also warms the page cache
    struct stat info {};
    stat(path.c_str(), &info);
    const std::string what =
        fmt::format("call sites: {} ({:.1f} MB)", path.substr(path.rfind('/') + 1),
                    static_cast<double>(info.st_size) / 1e6);
    for (size_t i = 0; i < options.runs; i++)
      results.add(what, "ms", inspect_ms(path).value_or(0), Goal::at_most, 50);
    return;
  }
}

// --- live ----------------------------------------------------------------------------------------

struct Live {
  double cpu_s, events, lost, bytes;
};

Live record(const Options& options, const std::string& directory,
            const std::vector<std::string>& command, const std::string& mode = "exact") {
  const std::string trace = directory + "/live.pftrace", report = directory + "/live.json";
  std::vector<std::string> all = {options.giltop, "record",           "-q", "--mode=" + mode, "-o",
                                  trace,          "--json=" + report, "--", options.python};
  all.insert(all.end(), command.begin(), command.end());
  if (run(all, "/dev/null") != 0) fail("giltop record failed");
  std::ifstream file(report);
  const auto out = nlohmann::json::parse(file);
  struct stat info {};
  stat(trace.c_str(), &info);
  unlink(trace.c_str());  // or giltop keeps it as live.pftrace.old
  return {out["overhead"]["giltop_cpu_s"], out["events"], out["lost_events"],
          static_cast<double>(info.st_size)};
}

void measure_live(const Options& options, const std::string& directory, Results& results) {
  if (options.giltop.empty() || options.python.empty() || options.workload.empty()) return;
  for (size_t i = 0; i < options.runs; i++)
    results.add("live: start and end", "ms CPU",
                1e3 * record(options, directory, {"-c", "pass"}).cpu_s);
  const double start_s = results.median("live: start and end") / 1e3;
  for (const char* threads : {"1", "4"}) {
    for (size_t i = 0; i < options.runs; i++) {
      const Live live =
          record(options, directory,
                 {options.workload, "writers", threads, std::to_string(options.live_seconds)});
      const auto name = [&](const char* what) {
        return fmt::format("live, writers {}: {}", threads, what);
      };
      results.add(name("events"), "M", live.events / 1e6);
      results.add(name("lost"), "events", live.lost, Goal::at_most, 0);
      results.add(name("giltop's CPU"), "ns/event", 1e9 * (live.cpu_s - start_s) / live.events,
                  Goal::at_most, 400);
      results.add(name("file"), "bytes/event", live.bytes / live.events, Goal::at_most, 8);
    }
  }
  // The blog's threads that compute, in light mode: few events, and irregular ones.
  for (const char* workload : {"cpu1", "cpu2", "yield2"}) {
    for (size_t i = 0; i < options.runs; i++) {
      const Live live =
          record(options, directory, {options.workload, workload, "--scale", "0.6"}, "light");
      results.add(fmt::format("live, light, {}: file", workload), "bytes/event",
                  live.bytes / live.events, Goal::at_most, 8);
    }
  }
}

// -------------------------------------------------------------------------------------------------

template <typename Number>
Number number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0) usage(2);
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : argument.substr(equals + 1);
    if (name == "--help") usage(0);
    if (name == "--json") {
      options.json = true;
    } else if (name == "--runs") {
      options.runs = number<size_t>(value);
    } else if (name == "--records") {
      options.records = number<uint64_t>(value);
    } else if (name == "--long") {
      options.long_records = value.empty() ? 100'000'000 : number<uint64_t>(value);
    } else if (name == "--write") {
      options.write = value;
    } else if (name == "--mix") {
      options.mix = value;
    } else if (name == "--directory") {
      options.directory = value;
    } else if (name == "--live-seconds") {
      options.live_seconds = number<unsigned>(value);
    } else if (name == "--giltop") {
      options.giltop = value;
    } else if (name == "--python") {
      options.python = value;
    } else if (name == "--workload") {
      options.workload = value;
    } else if (name == "--elf") {
      options.elf_files.emplace_back(value);
    } else if (name == "--read") {
      options.read = value;
    } else {
      usage(2);
    }
  }
  return options;
}

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (!options.read.empty()) return read_trace(options.read);
  if (!options.write.empty()) return write_long(options);

  std::string directory = options.directory + "/giltop-bench.XXXXXX";
  if (!mkdtemp(directory.data())) fail("cannot make a directory in " + options.directory);
  const std::string trace = directory + "/synthetic.pftrace";

  Results results;
  for (const Mix& mix : kMixes) {
    Records records;
    mix.make(options.records, ~uint64_t{0}, [&](Records&& all) { records = std::move(all); });
    for (size_t i = 0; i < options.runs; i++) measure_join(mix, records, results);
    for (size_t i = 0; i < options.runs; i++) {
      measure_write(mix.name, records, trace, results);
      measure_read(mix.name, trace, results, mix.churns ? Goal::none : Goal::at_least);
      unlink(trace.c_str());
    }
  }
  measure_long(options, trace, results);
  measure_sites(options, results);
  measure_live(options, directory, results);
  results.print(options);
  for (const char* name : {"/synthetic.pftrace.read", "/live.json"})
    unlink((directory + name).c_str());
  rmdir(directory.c_str());
  return 0;
}

}  // namespace
}  // namespace giltop::bench

int main(int argc, char** argv) { return giltop::bench::main(argc, argv); }
