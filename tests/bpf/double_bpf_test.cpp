// Against an independent count: a C program with the GIL's own call pattern that logs what it does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "model/model.h"
#include "sink/trace_reader.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

struct Logged {
  std::vector<uint64_t> waits, acquires, releases;
  uint64_t asked = 0;  // releases that a waiter had asked for
};
using Log = std::map<uint32_t, Logged>;

Log read_log(const std::string& path) {
  Log log;
  std::ifstream in(path);
  uint32_t tid;
  std::string kind;
  uint64_t ns;
  while (in >> tid >> kind >> ns) {
    if (kind == "wait") log[tid].waits.push_back(ns);
    if (kind == "acquire") log[tid].acquires.push_back(ns);
    if (kind == "release") log[tid].releases.push_back(ns);
    if (kind == "asked") log[tid].asked++;
  }
  return log;
}

// The same from the recording, event by event.
Log read_recording(const std::string& path) {
  Log log;
  EventTables tables;
  auto reader = TraceReader::open(path, tables);
  EXPECT_TRUE(reader.ok());
  if (!reader) return log;
  std::map<uint32_t, bool> waiting;  // a wait is one, however often it is renewed
  const auto read = reader->read([&](const Event& event) {
    if (event.kind == EventKind::gil_wait && !std::exchange(waiting[event.tid], true))
      log[event.tid].waits.push_back(event.ts_ns);
    if (event.kind == EventKind::gil_acquire) waiting[event.tid] = false;
    if (event.kind == EventKind::gil_acquire) log[event.tid].acquires.push_back(event.ts_ns);
    if (event.kind == EventKind::gil_release) log[event.tid].releases.push_back(event.ts_ns);
  });
  EXPECT_TRUE(read.ok());
  return log;
}

void collect(const std::vector<uint64_t>& truth, const std::vector<uint64_t>& seen,
             std::vector<int64_t>& differences) {
  ASSERT_EQ(truth.size(), seen.size());
  for (size_t i = 0; i < truth.size(); i++)
    differences.push_back(std::abs(static_cast<int64_t>(seen[i] - truth[i])));
}

class Double : public Live {
 protected:
  // Runs the double behind `before`; `root` is what it sees as its root directory.
  void compare(const std::vector<std::string>& before, const std::string& root = "",
               const std::string& program = GILTOP_DOUBLE) {
    const std::string name =
        (root.empty() ? directory_.path("log") : "/log") + std::to_string(runs_++);
    const std::string log_file = root + name;
    std::vector<std::string> command = before;
    command.insert(command.end(), {program, "4", "2", "7", name});
    const Recorded recorded = record(command);
    const Log truth = read_log(log_file);
    ASSERT_FALSE(truth.empty()) << recorded.ran.err;
    const Log seen = read_recording(recorded.file);
    std::vector<int64_t> differences;
    uint64_t forced = 0, asked = 0;
    for (const auto& [tid, logged] : truth) {
      const auto found = seen.find(tid);
      ASSERT_NE(found, seen.end()) << tid;
      collect(logged.waits, found->second.waits, differences);
      collect(logged.acquires, found->second.acquires, differences);
      collect(logged.releases, found->second.releases, differences);
      const Json& thread = Recorded::thread(recorded.process(), tid);
      ASSERT_FALSE(thread.is_null()) << tid;
      EXPECT_EQ(thread.at("acquires"), logged.acquires.size());
      EXPECT_EQ(thread.at("contended"), logged.waits.size());
      forced += thread.at("forced_releases").get<uint64_t>();
      asked += logged.asked;
    }
    // The request is set a moment before the probe that tells of it, so some fall in between.
    EXPECT_NEAR(static_cast<double>(forced), static_cast<double>(asked),
                0.05 * static_cast<double>(asked) + 2);
    ASSERT_GT(differences.size(), 1000u);
    std::sort(differences.begin(), differences.end());
    EXPECT_LE(static_cast<double>(differences[differences.size() * 99 / 100]), 20'000 * slowness())
        << "ns, 99th percentile";
  }

 private:
  int runs_ = 0;
};

TEST_F(Double, EveryTransitionAtItsTime) { compare({}); }

// As on kernels before 6.6, Debian 12's among them.
TEST_F(Double, WithAPerfEventForEachProbe) {
  setenv("GILTOP_UPROBES", "perf", 1);
  compare({});
  unsetenv("GILTOP_UPROBES");
}

// The first events are not missed however the program came to be executed.
TEST_F(Double, BehindAShell) { compare({"sh", "-c", "\"$@\"; exit $?", "sh"}); }
TEST_F(Double, BehindEnvAndASecondExec) {
  compare({"env", "A=1", "sh", "-c", "exec \"$@\"", "sh"});
}
TEST_F(Double, BehindAScript) {
  const std::string script = directory_.path("shim");
  write_file(script, "#!/bin/sh\nset -e\nexec \"$@\"\n", true);
  compare({script});
}

TEST_F(Double, BehindAChroot) {
  // Another root, with copies of all that the double needs: other files than any giltop has seen.
  const std::string root = directory_.path("root");
  std::filesystem::create_directories(root);
  std::filesystem::copy_file(GILTOP_DOUBLE, root + "/double");
  std::istringstream libraries(run({"ldd", GILTOP_DOUBLE}).out);
  for (std::string word; libraries >> word;) {
    if (word[0] != '/') continue;
    const std::filesystem::path copy = root + word;
    std::filesystem::create_directories(copy.parent_path());
    std::filesystem::copy_file(word, copy, std::filesystem::copy_options::skip_existing);
  }
  compare({"chroot", root}, root, "/double");
}

}  // namespace
}  // namespace giltop::testing
