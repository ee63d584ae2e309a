// The blog's five workloads on a real Python, against what they measure of themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/live.h"
#include "support/replay.h"

namespace giltop::testing {
namespace {

// Invariants of every recording, and of every thread that measured itself.
void check_invariants(const Live::Recorded& recorded) {
  const Json &process = recorded.process(), &truth = recorded.truth;
  for (const Json& thread : process.at("threads")) {
    double sum = 0;
    for (const char* state : {"holding", "waiting", "released", "unknown"})
      sum += in_gil_state(thread, state);
    // The cells tile the lifetime to the nanosecond; what is left is the rounding of doubles.
    EXPECT_NEAR(sum, life(thread), 2e-9) << thread.at("tid");
    EXPECT_LT(in_gil_state(thread, "unknown"), 1e-9) << thread.at("tid");
  }
  for (const Json& gil : process.at("gils")) {
    std::map<uint32_t, double> blamed;
    for (const Json& row : gil.at("blame"))
      for (const char* part : {"running_s", "runnable_s", "blocked_s", "handoff_s", "unknown_s"})
        blamed[row.at("waiter_tid")] += row.at(part).get<double>();
    for (const Json& thread : process.at("threads"))
      EXPECT_NEAR(blamed[thread.at("tid")], in_gil_state(thread, "waiting"), 1e-7);
  }
  for (const Json& measured : truth.at("threads")) {
    const uint32_t tid = measured.at("tid");
    const Json& thread = Live::Recorded::thread(process, tid);
    ASSERT_FALSE(thread.is_null()) << tid << " was not seen";
    expect_ran(recorded, thread, measured);
  }
}

class Blog : public Live {
 protected:
  Recorded blog(const std::string& name, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {name, "--scale", "0.25"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Recorded recorded = record_workload(arguments);
    if (recorded.process().is_null()) {
      ADD_FAILURE() << "no Python was seen: " << recorded.ran.err;
      return recorded;
    }
    EXPECT_TRUE(recorded.process().at("complete"));
    check_invariants(recorded);
    return recorded;
  }

  // The workload's threads: those that measured themselves, but for the main thread.
  static std::vector<Json> workers(const Recorded& recorded) {
    std::vector<Json> found;
    for (const Json& measured : recorded.truth.at("threads")) {
      if (measured.at("tid") == recorded.truth.at("pid")) continue;
      found.push_back(Recorded::thread(recorded.process(), measured.at("tid")));
    }
    return found;
  }

  // The shortest octave of milliseconds [low, 2 low) with a tenth of the waits that took longer
  // than a tenth of a ms. The others lasted longer because somebody wanted for a CPU.
  static double least_ms(const std::vector<Json>& threads) {
    std::map<int, uint64_t> octaves;
    uint64_t waits = 0, shorter = 0;
    for (const Json& thread : threads)
      for (const Json& bucket : thread.at("wait").at("buckets")) {
        const double upper_ms = bucket.at(0).get<double>() * 1e3;
        if (upper_ms < 0.1) continue;
        octaves[static_cast<int>(std::floor(std::log2(upper_ms * 0.99)))] +=
            bucket.at(1).get<uint64_t>();
        waits += bucket.at(1).get<uint64_t>();
      }
    for (const auto& [octave, count] : octaves)
      if ((shorter += count) * 10 >= waits) return std::exp2(octave);
    return 0;
  }
};

TEST_F(Blog, OneThreadComputesAndNeverWaits) {
  const Recorded recorded = blog("cpu1");
  ASSERT_FALSE(recorded.process().is_null());
  for (const Json& gil : recorded.process().at("gils")) EXPECT_EQ(gil.at("contended"), 0);
}

TEST_F(Blog, OneThreadSleeps) {
  const Recorded recorded = blog("io1");
  ASSERT_FALSE(recorded.process().is_null());
  for (const Json& gil : recorded.process().at("gils")) EXPECT_EQ(gil.at("contended"), 0);
  const Json& main = Recorded::thread(recorded.process(), recorded.truth.at("pid"));
  // 4 sleeps of 0.5 s, scaled.
  EXPECT_GE(main.at("matrix").at("released").at("blocked_s").get<double>(), 0.5);
}

TEST_F(Blog, TwoThreadsTakeTurns) {
  const Recorded recorded = blog("cpu2");
  ASSERT_FALSE(recorded.process().is_null());
  expect_turns(recorded, recorded.process());
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 2u);
  for (const Json& thread : threads) EXPECT_GT(thread.at("forced_releases").get<int>(), 10);
  EXPECT_EQ(least_ms(threads), 4) << "the switch interval is 5 ms";
}

TEST_F(Blog, TheSwitchIntervalIsWhatTheyWait) {
  const Recorded recorded = blog("cpu2", {"--switch-interval", "0.001"});
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 2u);
  EXPECT_EQ(least_ms(threads), 1);
}

TEST_F(Blog, FourThreadsSleepAtOnce) {
  const Recorded recorded = blog("io4");
  ASSERT_FALSE(recorded.process().is_null());
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 4u);
  const double start = recorded.report.at("start_boottime_s");
  for (const Json& measured : recorded.truth.at("threads")) {
    if (measured.at("tid") == recorded.truth.at("pid")) continue;
    const Json& thread = Recorded::thread(recorded.process(), measured.at("tid"));
    // As long as it slept, and when: so they overlap as they did.
    const double began = measured.at("start").get<double>() - start,
                 ended = measured.at("end").get<double>() - start;
    EXPECT_LE(thread.at("first_s").get<double>(), began + 1e-6);
    EXPECT_GE(thread.at("last_s").get<double>(), ended - 1e-6);
    // A sleep's end is set before it lets go of the GIL: a probe's trap comes off its time.
    EXPECT_GE(thread.at("matrix").at("released").at("blocked_s").get<double>(), 0.1245);
    EXPECT_LT(thread.at("matrix").at("holding").at("blocked_s").get<double>(), 0.0125);
    // Who wants for a CPU may hold the GIL, or be next.
    EXPECT_LT(
        in_gil_state(thread, "waiting") - waited_for_cpus(recorded.process(), thread.at("tid")),
        0.0125);
  }
}

TEST_F(Blog, ThreadsThatYieldReleaseOfTheirOwnAccord) {
  const Recorded recorded = blog("yield2");
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 2u);
  for (const Json& thread : threads)
    EXPECT_GE(thread.at("voluntary_releases").get<int>(), 99) << thread.at("tid");
}

}  // namespace
}  // namespace giltop::testing
