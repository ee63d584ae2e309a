// More events than can be kept: whatever is lost is counted, and nothing around it breaks.
#include <gtest/gtest.h>

#include "support/live.h"
#include "support/trace_checker.h"

namespace giltop::testing {
namespace {

class Loss : public Live {
 protected:
  // giltop record of writers; losses are allowed here.
  Json record_writers(const std::string& seconds, const std::vector<std::string>& options) {
    const std::string json = directory_.path("l.json");
    file_ = directory_.path("l.pftrace");
    std::vector<std::string> words = {GILTOP_BINARY, "record", "-o", file_, "--json=" + json};
    words.insert(words.end(), options.begin(), options.end());
    words.insert(words.end(), {"--", python(), workload(), "writers", "4", seconds});
    const Ran ran = run(words, std::chrono::seconds(200));
    EXPECT_EQ(ran.status, 0) << ran.err;
    return Json::parse(read_file(json));
  }

  void check(const Json& report) {
    EXPECT_EQ(report.at("violations"), 0);
    ASSERT_FALSE(report.at("processes").empty());
    for (const Json& process : report.at("processes")) {
      for (const Json& thread : process.at("threads")) {
        double sum = 0;
        for (const char* state : {"holding", "waiting", "released", "unknown"})
          sum += in_gil_state(thread, state);
        EXPECT_NEAR(sum, life(thread), 2e-9);
      }
      for (const Json& gil : process.at("gils")) {
        std::map<uint32_t, double> blamed;
        for (const Json& row : gil.at("blame"))
          for (const char* part :
               {"running_s", "runnable_s", "blocked_s", "handoff_s", "unknown_s"})
            blamed[row.at("waiter_tid")] += row.at(part).get<double>();
        for (const Json& thread : process.at("threads"))
          EXPECT_NEAR(blamed[thread.at("tid")], in_gil_state(thread, "waiting"),
                      1e-6 * in_gil_state(thread, "waiting") + 1e-6);
      }
    }
    uint64_t lost = 0;
    for (const auto& [kind, count] : report.at("lost_by_kind").items())
      lost += count.get<uint64_t>();
    EXPECT_EQ(lost, report.at("lost_events"));
    // The recording tells the same, losses included, and keeps Perfetto's rules around them.
    const Ran again = run({GILTOP_BINARY, "report", "--json", file_}, std::chrono::seconds(200));
    ASSERT_EQ(again.status, 0) << again.err;
    Json read = Json::parse(again.out), wrote = report;
    read.erase("overhead");
    wrote.erase("overhead");
    EXPECT_TRUE(read == wrote);
  }

  std::string file_;
};

// For a minute: GILTOP_LOSS_SECONDS=60.
TEST_F(Loss, TheWorstCaseAtTheDefaultBuffer) {
  const char* const seconds = std::getenv("GILTOP_LOSS_SECONDS");
  const Json report = record_writers(seconds ? seconds : "12", {});
  check(report);
  RecordProperty("events", report.at("events").dump());
  RecordProperty("lost", report.at("lost_events").dump());
}

TEST_F(Loss, ABufferFarTooSmall) {
  const Json report = record_writers("3", {"--buffer-size", "64K"});
  check(report);
  EXPECT_GT(report.at("lost_events").get<uint64_t>(), 0u);
  for (const std::string& broken : check_trace(file_)) ADD_FAILURE() << broken;
  double unknown = 0;
  for (const Json& process : report.at("processes"))
    for (const Json& thread : process.at("threads")) unknown += in_gil_state(thread, "unknown");
  EXPECT_GT(unknown, 0) << "what a loss covers is unknown";
  const Ran strict = run({GILTOP_BINARY, "report", "--strict", file_});
  EXPECT_EQ(strict.status, 4);
}

}  // namespace
}  // namespace giltop::testing
