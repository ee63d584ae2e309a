// What the live tests share: programs run with a deadline, giltop's JSON, Pythons found by
// convention.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace giltop::testing {

using Json = nlohmann::json;

struct Ran {
  int status = -1;  // as a shell has it; -1: killed at the deadline
  std::string out, err;
};

// A program under way. Its stdout and stderr are collected; it is killed when this goes out of
// scope.
class Program {
 public:
  explicit Program(std::vector<std::string> command,
                   const std::map<std::string, std::string>& environment = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return pid_; }
  void write_line(const std::string& line);
  void close_stdin();
  // Waits until stdout (or stderr) holds `text`. False: it ended, or the deadline passed.
  bool wait_for(const std::string& text, std::chrono::seconds deadline = std::chrono::seconds(30));
  void signal(int number);
  Ran finish(std::chrono::seconds deadline = std::chrono::seconds(120));
  const std::string& out() const { return ran_.out; }
  const std::string& err() const { return ran_.err; }

 private:
  void pump(int timeout_ms);
  bool reap();
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1, err_ = -1;
  bool ended_ = false;
  Ran ran_;
};

Ran run(const std::vector<std::string>& command,
        std::chrono::seconds deadline = std::chrono::seconds(120));

// A directory of the test's own, removed with what is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string path(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text, bool executable = false);

// The first CPython of PATH, itself and not a shim that leads to it. Empty: none.
std::string python();
std::string workload();  // tools/workloads/workload.py

// How many times longer a moment may last here than on a machine: GILTOP_SLOWNESS, for emulated
// ones.
double slowness();

// Root, on a kernel that runs BPF. Where GILTOP_REQUIRE_LIVE is set, less than that is a failure.
class Live : public ::testing::Test {
 public:
  struct Recorded {
    Ran ran;
    std::string file;
    Json report;  // of record --json
    Json truth;   // of the workload
    const Json& process() const;
    // By tid; null where there is none.
    static const Json& thread(const Json& process, uint32_t tid);
  };

 protected:
  void SetUp() override;
  void TearDown() override;  // nothing may be left behind in the kernel

  // giltop record -- COMMAND, with report and (for the workload) truth read. Asserts success and
  // that nothing was lost or contradictory.
  Recorded record(const std::vector<std::string>& command,
                  const std::vector<std::string>& options = {});
  Recorded record_workload(const std::vector<std::string>& arguments,
                           const std::vector<std::string>& options = {});

  TemporaryDirectory directory_;

 private:
  int recordings_ = 0;
};

// Sums over a thread's matrix, seconds.
double in_gil_state(const Json& thread, const std::string& state);
double in_cpu_state(const Json& thread, const std::string& state);
double life(const Json& thread);

// How long a thread has wanted for a CPU so far, as the kernel counts it; seconds.
double wanted_cpu_s(pid_t pid, int tid);

// Of a thread's waits, seconds: while the holder, or who was to be the next one, wanted for a CPU.
double waited_for_cpus(const Json& process, const Json& tid);

// One thread sleeps with the GIL while the other has no rest but waiting for it: what that one lost
// by it. `unsure_s`: of that giltop may know no better.
void expect_lost_to_sleeper(const Json& report, const Json& process, uint32_t computer,
                            uint32_t sleeper, double unsure_s = 0);

// How many sleeps a report may lack, or take for one, as the kernel has not reported a switch; a
// few.
int unreported_switches(const Json& report);

}  // namespace giltop::testing
