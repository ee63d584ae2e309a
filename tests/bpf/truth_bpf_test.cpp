// States made on purpose: asleep with the GIL, preempted with it, native work without it.
#include <gtest/gtest.h>

#include "support/live.h"
#include "support/replay.h"

namespace giltop::testing {
namespace {

class Truth : public Live {
 protected:
  static uint32_t tid_of(const Recorded& recorded, const std::string& name) {
    for (const Json& t : recorded.truth.at("threads"))
      if (t.at("name") == name) return t.at("tid");
    ADD_FAILURE() << "no thread " << name;
    return 0;
  }
  // 50 sleeps of 20 ms: none is shorter, and the kernel may wake it later, but not later than it
  // saw.
  static void expect_slept(const Recorded& recorded, double blocked_s) {
    EXPECT_GE(blocked_s, 0.99);
    for (const Json& t : recorded.truth.at("threads"))
      if (t.at("name") == "sleeper") {
        EXPECT_LE(blocked_s, t.at("slept_s").get<double>());
      }
  }
  static double blame(const Json& process, uint32_t waiter, uint32_t holder, const char* part) {
    double sum = 0;
    for (const Json& gil : process.at("gils"))
      for (const Json& row : gil.at("blame"))
        if (row.at("waiter_tid") == waiter && row.at("holder_tid") == holder)
          sum += row.at(part).get<double>();
    return sum;
  }
};

TEST_F(Truth, AsleepWithTheGil) {
  const Recorded recorded = record_workload({"asleep"});
  ASSERT_FALSE(recorded.process().is_null());
  const uint32_t sleeper = tid_of(recorded, "sleeper"), computer = tid_of(recorded, "computer");
  const Json& thread = Recorded::thread(recorded.process(), sleeper);
  expect_slept(recorded, thread.at("matrix").at("holding").at("blocked_s"));
  EXPECT_GE(thread.at("held_sleeps").get<int>(), 50 - unreported_switches(recorded.report));
  expect_lost_to_sleeper(recorded.report, recorded.process(), computer, sleeper);
  EXPECT_NE(recorded.ran.err.find(std::to_string(sleeper) + " slept"), std::string::npos)
      << "the first line is the finding:\n"
      << recorded.ran.err;
}

TEST_F(Truth, AsleepWithoutTheGil) {
  const Recorded recorded = record_workload({"asleep", "--release"});
  ASSERT_FALSE(recorded.process().is_null());
  const uint32_t sleeper = tid_of(recorded, "sleeper"), computer = tid_of(recorded, "computer");
  const Json& thread = Recorded::thread(recorded.process(), sleeper);
  expect_slept(recorded, thread.at("matrix").at("released").at("blocked_s"));
  EXPECT_LT(thread.at("matrix").at("holding").at("blocked_s").get<double>(), 0.01);
  EXPECT_LT(blame(recorded.process(), computer, sleeper, "blocked_s"), 0.01);
}

TEST_F(Truth, PreemptedWithTheGil) {
  const Recorded recorded = record_workload({"preempted"});
  ASSERT_FALSE(recorded.process().is_null());
  const uint32_t computer = tid_of(recorded, "computer");
  const Json& thread = Recorded::thread(recorded.process(), computer);
  const double preempted = thread.at("matrix").at("holding").at("runnable_s").get<double>();
  // Two CPU-bound tasks share one CPU: about half, and the kernel's own account of it, which the
  // thread read between the end of its work and that of its life.
  EXPECT_GT(preempted, 0.25 * life(thread));
  for (const Json& t : recorded.truth.at("threads")) {
    if (t.at("tid") != computer) continue;
    const double kernel = t.at("runnable_ns").get<double>() / 1e9;
    const auto by_then =
        done_at(recorded.file, computer, static_cast<uint64_t>(t.at("end").get<double>() * 1e9));
    ASSERT_TRUE(by_then);
    EXPECT_LE(by_then->runnable_s, 1.02 * kernel + 0.005);
    EXPECT_GE(in_cpu_state(thread, "runnable") + in_cpu_state(thread, "unknown"),
              0.98 * kernel - 0.005);
  }
}

TEST_F(Truth, NativeWorkRunsInParallelWithoutTheGil) {
  const Recorded recorded = record_workload({"native", "--scale", "0.5"});
  ASSERT_FALSE(recorded.process().is_null());
  for (const char* name : {"native-1", "native-2"}) {
    const Json& thread = Recorded::thread(recorded.process(), tid_of(recorded, name));
    const double native = thread.at("matrix").at("released").at("running_s").get<double>();
    for (const Json& t : recorded.truth.at("threads"))
      if (t.at("name") == name) {
        const double unknown = in_cpu_state(thread, "unknown");
        EXPECT_GT(native + unknown, 0.9 * t.at("native_cpu_s").get<double>()) << name;
      }
    EXPECT_GT(native, 0.9 * in_cpu_state(thread, "running")) << name;
    // But for a holder that wants for a CPU.
    const double for_cpus = waited_for_cpus(recorded.process(), thread.at("tid"));
    EXPECT_LT(in_gil_state(thread, "waiting") - for_cpus, 0.05 * life(thread)) << name;
  }
}

}  // namespace
}  // namespace giltop::testing
