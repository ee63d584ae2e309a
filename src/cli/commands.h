// The commands, one file each: options are parsed in app.cpp, the rest is theirs.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace giltop {

struct RecordArguments {
  std::string output = "giltop.pftrace";
  double duration_s = 0;  // 0: until it ends
  std::vector<uint32_t> pids;
  bool all = false;  // every CPython process of the host
  std::vector<std::string> command;
  uint64_t buffer_bytes = 0;  // 0: not given
  bool subprocesses = false;
  std::string mode = "exact";
  double overhead_percent = 2;  // the budget of --mode auto
  std::string json;             // empty: none; "-": stdout
  bool strict = false;
  bool quiet = false;
};
int run_record(const RecordArguments& arguments);

struct TopArguments {
  std::vector<uint32_t> pids;  // none, and no command: every CPython process of the host
  std::vector<std::string> command;
  bool subprocesses = false;
  double delay_s = 1;
  uint64_t iterations = 0;  // 0: until it ends
  bool batch = false;       // plain text, whatever stdout is
  bool threads = false;
  std::string sort_key = "wait";  // or "help"
  bool idle = false;
  bool accumulated = false;
  bool timestamp = false;
  std::string json;  // empty: none; "-": stdout
  std::string mode = "auto";
  double overhead_percent = 2;     // the budget of --mode auto
  std::vector<uid_t> users;        // shown; none: all
  std::string comm;                // regular expression of names or command lines shown; empty: all
  std::vector<std::string> words;  // what was typed, to suggest it with sudo
};
int run_top(const TopArguments& arguments);

struct ReportArguments {
  std::string file;
  std::string json;             // empty: none; "-": stdout
  std::string html;             // the same
  unsigned html_megabytes = 5;  // of the page, at most
  std::string format = "text";  // or "json", "chrometrace"
  std::string output = "-";     // of that format
  bool anonymize = false;
  bool strict = false;
};
int run_report(const ReportArguments& arguments);
int run_chrometrace(const ReportArguments& arguments);

struct OpenArguments {
  std::string file;
};
int run_open(const OpenArguments& arguments);

struct HistArguments {
  std::string file;               // a recording; or one of
  std::vector<std::string> diff;  // two files; or live, of
  std::vector<uint32_t> pids;
  bool all = false;
  std::vector<std::string> command;
  bool subprocesses = false;
  double interval_s = 0;                             // 0: one histogram, at the end
  uint64_t count = 0;                                // of intervals; 0: until it ends
  bool wait = false, hold = false, handoff = false;  // none: wait
  bool by_process = false, by_thread = false;
  bool milliseconds = false;
  bool timestamp = false;
  std::string mode = "exact";
  double overhead_percent = 2;  // the budget of --mode auto
  std::string output;           // all of it as JSON; empty: none
  std::string json;             // empty: text; "-": stdout
};
int run_hist(const HistArguments& arguments);

struct DemoArguments {
  bool full = false;
  std::string directory = "giltop-demo";
  std::string python = "python3";
  std::string json;
};
int run_demo(const DemoArguments& arguments);

struct DoctorArguments {
  std::vector<uint32_t> pids;
  std::vector<std::string> binaries;
  std::string json;
};
int run_doctor(const DoctorArguments& arguments);

// All of giltop. Returns the exit code.
int run(int argc, char** argv);

}  // namespace giltop
