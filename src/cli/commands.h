// The commands, one file each: options are parsed in app.cpp, the rest is theirs.
#pragma once

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
  uint64_t buffer_bytes = 16 << 20;
  bool subprocesses = false;
  std::string mode = "exact";
  double overhead_percent = 2;  // the budget of --mode auto
  std::string json;             // empty: none; "-": stdout
  bool strict = false;
  bool quiet = false;
  std::string command_line;  // what was typed, to suggest it with sudo
};
int run_record(const RecordArguments& arguments);

struct ReportArguments {
  std::string file;
  std::string json;
  bool strict = false;
};
int run_report(const ReportArguments& arguments);

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
