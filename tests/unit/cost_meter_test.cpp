#include "probe/cost_meter.h"

#include <gtest/gtest.h>

namespace giltop {
namespace {

constexpr uint32_t kTgid = 100, kOther = 200;
constexpr Costs kCosts{
    .hit = {.warm = 1, .cold = 10, .crowded = 3, .stepped = 30, .cold_after_ns = 100'000},
    .hook = 0.5,
    .cold_hook = 0.5,
    .sleep = 50};

gt_header record(gt_kind kind, uint64_t ts_ns, uint16_t cpu = 0, uint32_t tgid = kTgid,
                 uint8_t state = 0) {
  gt_header header{};
  header.kind = static_cast<uint8_t>(kind);
  header.ts_ns = ts_ns;
  header.cpu = cpu;
  header.tgid = tgid;
  header.state = state;
  return header;
}

TEST(CostMeter, AHitIsColdAfterAPauseOnItsCpu) {
  CostMeter meter(kCosts);
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'000'000)), 10);
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'050'000)), 1);
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'150'001)), 10);
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'160'000, 1)), 10) << "another CPU's first";
  EXPECT_EQ(meter.hits(), 4u);
  EXPECT_EQ(meter.total_ns(), 31);
}

TEST(CostMeter, AnotherSetOfProbesCostsEachHit) {
  CostMeter meter(kCosts);
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'000'000)), 10);
  meter.set_other_sets(50);
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'050'000)), 201) << "0.2 us";
  EXPECT_EQ(meter.add(record(GT_SWITCH, 1'060'000)), 0.5) << "and no hook";
  meter.set_other_sets(0);
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'070'000)), 1);
}

TEST(CostMeter, SoIsAHook) {
  Costs costs = kCosts;
  costs.cold_hook = 5;
  CostMeter meter(costs);
  EXPECT_EQ(meter.add(record(GT_SWITCH, 1'000'000)), 5);
  EXPECT_EQ(meter.add(record(GT_WAKEUP, 1'050'000)), 0.5);
  EXPECT_EQ(meter.add(record(GT_SWITCH, 1'060'000, 1)), 5) << "another CPU's first";
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'160'001)), 10);
  EXPECT_EQ(meter.add(record(GT_SWITCH, 1'160'002)), 5) << "a trap's code is not a hook's";
}

TEST(CostMeter, AWaitThatIsToldAtTheSwitchIsNoTrap) {
  CostMeter meter(kCosts);
  EXPECT_EQ(meter.add(record(GT_GIL_WAIT, 1'000'000, 0, kTgid, GT_NO_TRAP)), 0.5);
  EXPECT_EQ(meter.hits(), 0u);
  EXPECT_EQ(meter.add(record(GT_GIL_WAIT, 1'000'000)), 10) << "in exact mode it is one";
}

TEST(CostMeter, HitsOfTwoCpusAtOnceCostMore) {
  CostMeter meter(kCosts);
  meter.add(record(GT_GIL_ACQUIRE, 1'000'000, 0));
  meter.add(record(GT_GIL_RELEASE, 1'001'000, 1));
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'002'000, 0)), 3);
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'003'000, 0)), 3) << "the other CPU is still at it";
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'002'500, 1)), 3) << "a little out of order";
  EXPECT_EQ(meter.add(record(GT_GIL_ACQUIRE, 1'050'000, 0)), 1) << "and is not any more";
}

TEST(CostMeter, OfTwoProgramsTheyDoNot) {
  CostMeter meter(kCosts);
  meter.add(record(GT_GIL_ACQUIRE, 1'000'000, 0));
  meter.add(record(GT_GIL_ACQUIRE, 1'001'000, 1, kOther));
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'002'000, 0)), 1);
  EXPECT_EQ(meter.add(record(GT_GIL_RELEASE, 1'003'000, 1, kOther)), 1);
}

TEST(CostMeter, ASleepForTheMutexIsPutDownToATrapJustThen) {
  CostMeter meter(kCosts);
  const auto sleep = [&](uint64_t ts_ns, uint16_t cpu, uint32_t tgid = kTgid,
                         uint8_t state = GT_TASK_INTERRUPTIBLE | GT_GIL_MUTEX) {
    return meter.add(record(GT_SWITCH, ts_ns, cpu, tgid, state));
  };
  EXPECT_EQ(sleep(900'000, 1), 0.5) << "nobody trapped";
  EXPECT_EQ(meter.last_of_traps_ns(), 0);
  meter.add(record(GT_GIL_ACQUIRE, 1'000'000, 0));
  EXPECT_EQ(sleep(1'002'000, 1), 50.5);
  EXPECT_EQ(meter.last_of_traps_ns(), 50);
  EXPECT_EQ(sleep(1'002'000, 0), 0.5) << "the trap was its own";
  EXPECT_EQ(sleep(1'002'000, 1, kOther), 0.5) << "of another program";
  EXPECT_EQ(sleep(1'002'000, 1, kTgid, GT_TASK_INTERRUPTIBLE), 0.5) << "for something else";
  EXPECT_EQ(sleep(1'006'000, 1), 0.5) << "too late";
}

TEST(CostMeter, HooksAndSamples) {
  CostMeter meter(kCosts);
  EXPECT_EQ(meter.add(record(GT_WAKEUP, 1'000'000)), 0.5);
  EXPECT_EQ(meter.add(record(GT_SAMPLE, 1'000'000)), 10) << "an interrupt";
  EXPECT_EQ(meter.add(record(GT_FORK, 1'000'000)), 0);
  EXPECT_EQ(meter.hits(), 0u);
}

}  // namespace
}  // namespace giltop
