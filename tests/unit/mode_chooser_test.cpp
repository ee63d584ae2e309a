#include "probe/mode_chooser.h"

#include <gtest/gtest.h>

namespace giltop {
namespace {

constexpr uint64_t kPeriod_ns = 500'000'000;

TEST(ModeChooser, WhoIsWithinTheBudgetStaysExact) {
  ModeChooser chooser(0.02);
  for (uint64_t now = 0; now < 100 * kPeriod_ns; now += kPeriod_ns)
    ASSERT_FALSE(chooser.choose(1, 0.019, now));
}

TEST(ModeChooser, OnePeriodSlightlyOverIsNoReason) {
  ModeChooser chooser(0.02);
  EXPECT_FALSE(chooser.choose(1, 0.03, 0));
  EXPECT_FALSE(chooser.choose(1, 0.01, kPeriod_ns));
  EXPECT_FALSE(chooser.choose(1, 0.03, 2 * kPeriod_ns));
  EXPECT_TRUE(chooser.choose(1, 0.03, 3 * kPeriod_ns));
}

TEST(ModeChooser, FarOverItGoesAtOnceAndAlone) {
  ModeChooser chooser(0.02);
  EXPECT_TRUE(chooser.choose(1, 0.5, 0));
  EXPECT_FALSE(chooser.choose(2, 0.01, 0));
}

// Periods spent in light mode before each trial, for as long as every trial fails.
TEST(ModeChooser, FailedTrialsBecomeRarer) {
  ModeChooser chooser(0.02);
  uint64_t now = 0, began = 0, before = 0;
  bool light = chooser.choose(1, 0.5, now);
  ASSERT_TRUE(light);
  for (int trial = 0; trial < 9; trial++) {
    while (light) light = chooser.choose(1, 0, now += kPeriod_ns);
    const uint64_t waited = now - began;
    EXPECT_GE(waited, ModeChooser::kFirstTrial_ns);
    EXPECT_LE(waited, ModeChooser::kLastTrial_ns + kPeriod_ns);
    if (trial > 0 && trial < 6) {
      EXPECT_GE(waited, 2 * (before - kPeriod_ns));
    }
    before = waited;
    light = chooser.choose(1, 0.5, began = now += kPeriod_ns);
    ASSERT_TRUE(light) << "it is as busy as ever";
  }
}

TEST(ModeChooser, ATrialWithinTheBudgetStaysAndStartsAfresh) {
  ModeChooser chooser(0.02);
  uint64_t now = 0;
  for (int round = 0; round < 3; round++) {
    bool light = chooser.choose(1, 0.5, now);
    ASSERT_TRUE(light);
    const uint64_t began = now;
    while (light) light = chooser.choose(1, 0, now += kPeriod_ns);
    EXPECT_EQ(now - began, ModeChooser::kFirstTrial_ns);
    for (const uint64_t until = now + ModeChooser::kSettled_ns; now < until;)
      ASSERT_FALSE(chooser.choose(1, 0.001, now += kPeriod_ns));
  }
}

}  // namespace
}  // namespace giltop
