// tools/bench/overhead: that all its parts run and what it prints is whole. What tracing costs is
// not judged here.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "support/live.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;

class Overhead : public Live {
 protected:
  // In a folder for temporary files of its own.
  std::vector<std::string> command(const std::vector<std::string>& options) const {
    std::vector<std::string> words = {
        "env",
        "TMPDIR=" + directory_.path(),
        "python3",
        "-B",
        std::string(GILTOP_SOURCE_DIR) + "/tools/bench/cost",
        "--build=" + std::filesystem::path(GILTOP_BINARY).parent_path().string()};
    words.insert(words.end(), options.begin(), options.end());
    return words;
  }

  Json quick(const std::string& workloads, const std::string& tracers) const {
    const Ran ran =
        run(command({"--quick", "--json", "--only=" + workloads, "--tracers=" + tracers}));
    EXPECT_EQ(ran.status, 0) << ran.err;
    if (!Json::accept(ran.out)) {
      ADD_FAILURE() << "no JSON: " << ran.out << ran.err;
      return {};
    }
    const Json told = Json::parse(ran.out);
    EXPECT_EQ(told.at("schema"), "giltop.bench.overhead/2");
    EXPECT_EQ(told.at("failures"), Json::array());
    for (const Json& row : told.at("results")) EXPECT_GT(row.at("median_s"), 0) << row;
    return told;
  }

  std::string left_over() const {
    std::string names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path()))
      names += entry.path().string() + "\n";
    return names;
  }
};

TEST_F(Overhead, EveryWorkload) {
  const Json told = quick("writers1,writers2,writers4,cpu2,http,sqlite", "exact");
  ASSERT_FALSE(told.is_null());
  std::set<std::string> measured, untraced, estimated;
  for (const Json& row : told.at("results"))
    (row.at("tracer") == "exact" ? measured : untraced).insert(row.at("metric"));
  const std::set<std::string> all = {"writers1", "writers2", "writers4", "cpu2",
                                     "http.p50", "http.p99", "sqlite"};
  EXPECT_EQ(untraced, all);
  EXPECT_EQ(measured, all);
  for (const Json& row : told.at("estimates")) {
    estimated.insert(row.at("workload"));
    EXPECT_GT(row.at("estimated_s"), 0) << row;
  }
  EXPECT_EQ(estimated.size(), 6u);
  EXPECT_EQ(left_over(), "");
}

TEST_F(Overhead, EveryTracer) {
  // One that starts it, and one that has it attached to what runs.
  for (const std::string workload : {"writers1", "cpu2"}) {
    SCOPED_TRACE(workload);
    const Json told = quick(workload, "untraced,light,exact,floor,bpftrace,perf");
    ASSERT_FALSE(told.is_null());
    std::set<std::string> known;
    for (const Json& row : told.at("results")) known.insert(row.at("tracer"));
    for (const auto& [tracer, reason] : told.at("left_out").items()) {
      EXPECT_NE(reason, "");
      known.insert(tracer);
    }
    EXPECT_EQ(known,
              (std::set<std::string>{"untraced", "light", "exact", "floor", "bpftrace", "perf"}));
    for (const char* always : {"untraced", "exact", "floor"})
      EXPECT_FALSE(told.at("left_out").contains(always)) << always;
    EXPECT_EQ(left_over(), "");
  }
}

TEST_F(Overhead, LeavesNothingWhenInterrupted) {
  const auto recording = [&] {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_.path()))
      if (entry.path().filename() == "run.pftrace" && !read_file(entry.path()).empty()) return true;
    return false;
  };
  for (const std::string workload : {"writers1", "http"}) {
    SCOPED_TRACE(workload);
    Program bench(command({"--runs=1", "--seconds=2", "--only=" + workload, "--tracers=exact"}));
    for (int i = 0; i < 300 && !recording(); i++) usleep(50'000);
    ASSERT_TRUE(recording());
    bench.signal(SIGINT);
    const Ran ran = bench.finish(seconds(20));
    EXPECT_EQ(ran.status, 130) << ran.err;
    EXPECT_EQ(ran.out, "");
    EXPECT_EQ(left_over(), "");
  }
}

}  // namespace
}  // namespace giltop::testing
