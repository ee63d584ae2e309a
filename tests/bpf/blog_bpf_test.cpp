// The blog's five workloads on a real Python, against what they measure of themselves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "model/model.h"
#include "sink/trace_reader.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::Le;

// What a thread ran, less what was stolen, between two moments (boot clock, ns); seconds.
double ran_between(const std::string& file, uint32_t tid, uint64_t from_ns, uint64_t to_ns) {
  EventTables tables;
  Model model(tables);
  auto reader = TraceReader::open(file, tables);
  EXPECT_TRUE(reader.ok());
  if (!reader) return 0;
  const auto ran_ns = [&] {
    int64_t ns = 0;
    for (const Thread& thread : model.threads()) {
      if (thread.tid != tid) continue;
      for (const auto& row : thread.matrix)
        ns += static_cast<int64_t>(row[static_cast<size_t>(CpuState::running)]);
      ns -= static_cast<int64_t>(thread.stolen_ns);
    }
    return ns;
  };
  std::optional<int64_t> at_from, at_to;
  const auto reach = [&](uint64_t ts_ns, uint64_t mark_ns, std::optional<int64_t>& ran) {
    if (ran || ts_ns < mark_ns) return;
    model.advance_to(mark_ns);
    ran = ran_ns();
  };
  EXPECT_TRUE(reader
                  ->read([&](const Event& event) {
                    reach(event.ts_ns, from_ns, at_from);
                    reach(event.ts_ns, to_ns, at_to);
                    model.apply(event);
                  })
                  .ok());
  return static_cast<double>(at_to.value_or(ran_ns()) - at_from.value_or(0)) / 1e9;
}

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
  const uint32_t main = truth.at("pid");
  for (const Json& measured : truth.at("threads")) {
    const uint32_t tid = measured.at("tid");
    const Json& thread = Live::Recorded::thread(process, tid);
    ASSERT_FALSE(thread.is_null()) << tid << " was not seen";
    // schedstat leaves out what the hypervisor took while the thread was on its CPU. The main
    // thread counts from the fork on, when it was not Python yet: compared is what it ran while it
    // was.
    const auto ns = [&](const char* name) {
      return static_cast<uint64_t>(measured.at(name).get<double>() * 1e9);
    };
    const bool is_main = tid == main;
    const double running =
        is_main ? ran_between(recorded.file, tid, ns("start"), ns("end"))
                : in_cpu_state(thread, "running") - thread.at("stolen_s").get<double>();
    const double kernel = (measured.at("oncpu_ns").get<double>() -
                           (is_main ? measured.at("oncpu_start_ns").get<double>() : 0.0)) /
                          1e9;
    // Of what was stolen in the run that `start` falls into nobody knows on which side of it.
    const double stolen = is_main ? thread.at("stolen_s").get<double>() : 0;
    EXPECT_NEAR(running, kernel, 0.005 * kernel + 0.001 + stolen)
        << tid << " stolen " << thread.at("stolen_s");
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

  // The octave of milliseconds [low, 2 low) with the most waits.
  static double mode_ms(const std::vector<Json>& threads) {
    std::map<int, uint64_t> octaves;
    for (const Json& thread : threads)
      for (const Json& bucket : thread.at("wait").at("buckets"))
        octaves[static_cast<int>(std::floor(std::log2(bucket.at(0).get<double>() * 1e3 * 0.99)))] +=
            bucket.at(1).get<uint64_t>();
    int best = -99;
    for (const auto& [octave, count] : octaves)
      if (best == -99 || count > octaves[best]) best = octave;
    return std::exp2(best);
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
  // On a machine busy with other work the threads want for CPUs instead; then it says nothing of
  // the GIL, and is tried again.
  std::vector<Json> threads;
  double starved = 1;
  for (int attempt = 0; attempt < 5 && starved >= 0.1; attempt++) {
    const Recorded recorded = blog("cpu2");
    threads = workers(recorded);
    ASSERT_EQ(threads.size(), 2u);
    starved = 0;
    for (const Json& thread : threads)
      starved = std::max(starved, in_cpu_state(thread, "runnable") / life(thread));
  }
  for (const Json& thread : threads) {
    // The rest of its turn: that it was let go and has no CPU to wait for the GIL on.
    double turn = in_gil_state(thread, "waiting");
    if (starved >= 0.1) turn += thread.at("matrix").at("released").at("runnable_s").get<double>();
    EXPECT_THAT(turn / life(thread), AllOf(Ge(0.40), Le(0.60))) << "starved: " << starved;
    EXPECT_GT(thread.at("forced_releases").get<int>(), 10);
  }
  EXPECT_EQ(mode_ms(threads), 4) << "the switch interval is 5 ms";
}

TEST_F(Blog, TheSwitchIntervalIsWhatTheyWait) {
  const Recorded recorded = blog("cpu2", {"--switch-interval", "0.001"});
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 2u);
  EXPECT_EQ(mode_ms(threads), 1);
}

TEST_F(Blog, FourThreadsSleepAtOnce) {
  const Recorded recorded = blog("io4");
  const auto threads = workers(recorded);
  ASSERT_EQ(threads.size(), 4u);
  double slept = 0, first = 1e9, last = 0;
  for (const Json& thread : threads) {
    EXPECT_LT(in_gil_state(thread, "waiting") / life(thread), 0.1)
        << "a CPU may be somebody else's meanwhile";
    slept += thread.at("matrix").at("released").at("blocked_s").get<double>();
    first = std::min(first, thread.at("first_s").get<double>());
    last = std::max(last, thread.at("last_s").get<double>());
  }
  EXPECT_GT(slept, 3 * (last - first)) << "the sleeps overlap";
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
