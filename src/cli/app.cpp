// The command line.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "cli/app_hist.h"
#include "cli/checks.h"
#include "cli/commands.h"
#include "cli/output.h"

namespace giltop {
namespace {

// What is wrong with where it would write to; or nothing.
std::string wrong_outputs(const RecordArguments& record) {
  if (record.output == "-") return "a recording does not go to stdout: give -o FILE";
  std::string wrong = wrong_pair("--output", record.output, "--json", record.json);
  // The summary's, or the command's.
  if (wrong.empty()) wrong = wrong_pair("--output", record.output, "what is printed", "-");
  if (wrong.empty())
    wrong = wrong_if_printed("--json", record.json, !record.quiet || !record.command.empty());
  return wrong;
}

std::string wrong_outputs(const ReportArguments& report) {
  std::string wrong = wrong_pair("--html", report.html, "--json", report.json);
  if (wrong.empty()) wrong = wrong_if_printed("--json", report.json, false);
  return wrong;
}

// Says what is wrong, if something is.
bool is_wrong(const std::string& error) {
  if (!error.empty()) say(error);
  return !error.empty();
}

}  // namespace

int run(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  // What follows `--` is the command's: its words are not ours to read.
  int own = argc;
  for (int i = 1; i < argc; i++) {
    if (std::strcmp(argv[i], "--") == 0) {
      own = i;
      break;
    }
  }
  const std::vector<std::string> command(argv + std::min(own + 1, argc), argv + argc);

  CLI::App app(
      "Who holds the Python GIL, who waits for it, and what the holder was doing.\n"
      "Without a command it is `giltop top`: see `giltop top --help`.",
      "giltop");
  app.set_version_flag("-V,--version", "giltop " GILTOP_VERSION);
  app.require_subcommand(0, 1);
  app.fallthrough(false);
  app.footer(
      "Examples:\n"
      "  sudo giltop                              every Python of the host, live\n"
      "  sudo giltop -p 4242 -H                   one of them, and its threads\n"
      "  sudo giltop record -- python3 app.py     run and trace a command\n"
      "  sudo giltop record -p 4242 -d 10         trace a process for ten seconds\n"
      "  sudo giltop record -a -d 10              every Python of the host\n"
      "  giltop report giltop.pftrace             the summary of a recording\n"
      "  giltop report a.pftrace --html a.html    the same, with pictures\n"
      "  giltop open giltop.pftrace               its timeline, at ui.perfetto.dev\n"
      "  sudo giltop hist -p 4242 10 1            ten seconds' waits, as a histogram\n"
      "  sudo giltop demo                         five workloads, compared\n"
      "  sudo giltop doctor                       what works here, and which Pythons there are");

  TopArguments top;
  CLI::App* top_app =
      app.add_subcommand("top", "What happens now, an interval at a time (default)");
  CLI::Option* top_pids = top_app->add_option("-p,--pid", top.pids, "These processes only")
                              ->delimiter(',')
                              ->allow_extra_args(false)
                              ->check(CLI::Range(1u, 4194304u));
  std::string delay = "1.0";
  top_app->add_option("-d,--delay", delay, "Seconds of an interval")
      ->check(CLI::Validator(check_delay, "SECONDS"))
      ->capture_default_str();
  top_app->add_option("-n,--iterations", top.iterations, "End after so many intervals")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 62));
  top_app->add_flag("-b,--batch", top.batch, "Plain text, as when stdout is no terminal");
  top_app->add_flag("-H,--threads", top.threads, "A row for each thread, too");
  top_app->add_option("-s,--sort-key", top.sort_key, "By which the most is first; help lists them")
      ->capture_default_str();
  top_app->add_flag("-i,--idle", top.idle, "Also those that do nothing");
  top_app->add_flag("-a,--accumulated", top.accumulated, "All since the start, not the interval");
  top_app->add_flag("-T,--timestamp", top.timestamp, "The time in each row");
  top_app->add_flag("-j{-},--json{-}", top.json,
                    "A line of JSON an interval, to stdout or --json=FILE");
  top_app->add_flag(
      "--subprocesses", top.subprocesses,
      "With -p: their child processes, too, now and later (always on with a command)");
  std::vector<std::string> users;
  top_app->add_option("-u,--user", users, "Processes of these users only")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->transform(CLI::Validator(check_user, "USER"));
  top_app->add_option("--comm", top.comm, "Processes only whose name or command line matches")
      ->check(CLI::Validator(check_regex, "REGEX"));
  top_app->add_option("--mode", top.mode, "exact, light, or auto: exact where --overhead allows")
      ->check(CLI::IsMember({"exact", "light", "auto"}))
      ->capture_default_str();
  std::string top_overhead = "2";
  CLI::Option* top_budget =
      top_app
          ->add_option("--overhead", top_overhead,
                       "Percent of a CPU that exact mode may take from a process [2]")
          ->transform(CLI::Validator(check_percent, "PERCENT"));

  RecordArguments record;
  CLI::App* record_app = app.add_subcommand(
      "record",
      "Trace a command or processes into a Perfetto trace, then sum up: record -- COMMAND");
  record_app->add_option("-o,--output", record.output, "File to write; an old one becomes FILE.old")
      ->capture_default_str();
  record_app->add_option("-d,--duration", record.duration_s, "Stop after so many seconds")
      ->check(CLI::Validator(check_seconds, "SECONDS"));
  CLI::Option* pids = record_app->add_option("-p,--pid", record.pids, "Processes to attach to")
                          ->delimiter(',')
                          ->check(CLI::Range(1u, 4194304u));
  CLI::Option* all = record_app->add_flag("-a,--all", record.all,
                                          "Every CPython process of the host, now and later");
  record_app->add_flag("-s,--subprocesses", record.subprocesses,
                       "Their child processes, too, now and later (always on with a command)");
  record_app
      ->add_option(
          "--mode", record.mode,
          "exact: every hand-over of the GIL; light: every wait, holds sampled; auto: exact "
          "where --overhead allows")
      ->check(CLI::IsMember({"exact", "light", "auto"}))
      ->capture_default_str();
  std::string overhead = "2";
  CLI::Option* budget =
      record_app
          ->add_option(
              "--overhead", overhead,
              "Of --mode auto: percent of a CPU that exact mode may take from a process [2]")
          ->transform(CLI::Validator(check_percent, "PERCENT"));
  std::string buffer = std::to_string(record.buffer_bytes);
  record_app
      ->add_option("--buffer-size", buffer,
                   "Ring buffers of all CPUs together, a power of two [16M; of more than 4 CPUs 4M "
                   "each, up to 64M]")
      ->transform(CLI::Validator(check_size, "SIZE"));
  record_app->add_flag("-j{-},--json{-}", record.json, "Report as JSON, to stdout or --json=FILE");
  record_app->add_flag("--strict", record.strict, "Exit with 4 when events were lost");
  record_app->add_flag("-q,--quiet", record.quiet, "No summary");

  ReportArguments report;
  CLI::App* report_app = app.add_subcommand("report", "Sum up a recording");
  report_app->add_option("FILE", report.file, "A file that giltop record wrote")->required();
  CLI::Option* report_json = report_app->add_flag("-j{-},--json{-}", report.json,
                                                  "Report as JSON, to stdout or --json=FILE");
  CLI::Option* report_format =
      report_app
          ->add_option("-f,--format", report.format,
                       "text, json, or chrometrace: the timeline as Chrome's JSON trace events, to "
                       "be put together with VizTracer's of the same run")
          ->check(CLI::IsMember({"text", "json", "chrometrace"}))
          ->excludes(report_json)
          ->capture_default_str();
  CLI::Option* report_output =
      report_app->add_option("-o,--output", report.output, "File for that; - is stdout")
          ->excludes(report_json)
          ->capture_default_str();
  report_app->add_flag("--anonymize", report.anonymize,
                       "Names of threads and programs, command lines and paths become thread-1, "
                       "program-1; ids, times and Python's version and build-id stay");
  report_app
      ->add_option("--html", report.html, "One page, for a browser; an old one becomes OUT.old")
      ->type_name("OUT")
      ->excludes(report_format)
      ->excludes(report_output);
  CLI::Option* html_size =
      report_app
          ->add_option("--html-size", report.html_megabytes,
                       "The page's size, at most: what does not fit is shown coarser")
          ->type_name("MB")
          ->check(CLI::Range(1u, 1024u))
          ->capture_default_str();
  report_app->add_flag("--strict", report.strict, "Exit with 4 when events were lost");

  OpenArguments open;
  CLI::App* open_app =
      app.add_subcommand("open", "Hand a recording to ui.perfetto.dev: serve it once, locally");
  open_app->add_option("FILE", open.file, "A file that giltop record wrote")->required();

  HistOptions hist(app);

  DemoArguments demo;
  CLI::App* demo_app = app.add_subcommand(
      "demo", "Record the five workloads of the blog and print them side by side");
  demo_app->add_flag("--full", demo.full, "The blog's sizes; else a tenth");
  demo_app->add_option("-o,--output", demo.directory, "Folder for the recordings")
      ->capture_default_str();
  demo_app->add_option("--python", demo.python, "The interpreter")->capture_default_str();
  demo_app->add_flag("-j{-},--json{-}", demo.json, "Reports as JSON, to stdout or --json=FILE");

  DoctorArguments doctor;
  CLI::App* doctor_app = app.add_subcommand(
      "doctor", "What works on this host, or how the GIL of a Python was found; exit 3: a blocker");
  doctor_app->add_option("-p,--pid", doctor.pids, "Running processes to look at")
      ->delimiter(',')
      ->check(CLI::Range(1u, 4194304u));
  doctor_app
      ->add_option("--binary", doctor.binaries, "A python or libpython to look at; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false);
  doctor_app->add_flag("-j{-},--json{-}", doctor.json, "As JSON, to stdout or --json=FILE");

  // No command, or an option that is not giltop's own: the live view.
  std::vector<std::string> words(argv + std::min(1, argc), argv + own);
  const auto is_own = [](const std::string& word) {
    return word == "-h" || word == "--help" || word == "-V" || word == "--version";
  };
  if (words.empty() || (words[0][0] == '-' && !is_own(words[0])))
    words.insert(words.begin(), "top");
  std::reverse(words.begin(), words.end());  // as CLI11 takes them
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    const bool stray = dynamic_cast<const CLI::ExtrasError*>(&e) &&
                       (record_app->parsed() || top_app->parsed() || hist.parsed());
    say(std::string(e.what()) + (stray ? "; a command goes behind --" : ""));
    return static_cast<int>(Exit::usage);
  }

  if (!command.empty() || own < argc) {
    if (!record_app->parsed() && !top_app->parsed() && !hist.parsed()) {
      say("only top, record and hist run a command: giltop record -- COMMAND");
      return static_cast<int>(Exit::usage);
    }
    if (command.empty()) {
      say("there is no command behind --");
      return static_cast<int>(Exit::usage);
    }
  }
  if ((pids->count() != 0 || top_pids->count() != 0) && !command.empty()) {
    say("either -p PID or -- COMMAND, not both");
    return static_cast<int>(Exit::usage);
  }
  if (top_app->parsed()) {
    if (top_budget->count() != 0 && top.mode != "auto") {
      say("--overhead is the budget of --mode auto");
      return static_cast<int>(Exit::usage);
    }
    top.delay_s = std::stod(delay);
    top.overhead_percent = std::stod(top_overhead);
    for (const std::string& user : users) top.users.push_back(static_cast<uid_t>(std::stoul(user)));
    top.command = command;
    // With it only the command prints.
    if (is_wrong(wrong_if_printed("--json", top.json, !command.empty())))
      return static_cast<int>(Exit::usage);
    top.words.assign(argv + std::min(1, argc), argv + argc);
    return run_top(top);
  }
  if (record_app->parsed()) {
    if (all->count() != 0 && (pids->count() != 0 || !command.empty())) {
      say("-a is every process of the host: it goes with neither -p PID nor -- COMMAND");
      return static_cast<int>(Exit::usage);
    }
    if (pids->count() == 0 && command.empty() && all->count() == 0) {
      say("nothing to record: give -p PID, -a, or -- COMMAND");
      return static_cast<int>(Exit::usage);
    }
    if (budget->count() != 0 && record.mode != "auto") {
      say("--overhead is the budget of --mode auto");
      return static_cast<int>(Exit::usage);
    }
    record.command = command;
    if (is_wrong(wrong_outputs(record))) return static_cast<int>(Exit::usage);
    record.overhead_percent = std::stod(overhead);
    record.buffer_bytes = std::stoull(buffer);
    return run_record(record);
  }
  if (report_app->parsed()) {
    if (html_size->count() != 0 && report.html.empty()) {
      say("--html-size is the size of the page that --html writes");
      return static_cast<int>(Exit::usage);
    }
    if (is_wrong(wrong_outputs(report))) return static_cast<int>(Exit::usage);
    return run_report(report);
  }
  if (open_app->parsed()) return run_open(open);
  if (hist.parsed()) return hist.run(command);
  if (doctor_app->parsed()) {
    if (is_wrong(wrong_if_printed("--json", doctor.json, false)))
      return static_cast<int>(Exit::usage);
    return run_doctor(doctor);
  }
  if (is_wrong(wrong_if_printed("--json", demo.json, true))) return static_cast<int>(Exit::usage);
  return run_demo(demo);
}

}  // namespace giltop
