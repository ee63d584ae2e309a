// Result and Error: what came out, or why not, with the context of each level.
#include "base/result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Result<int> half(int n) {
  if (n % 2) return Error(std::to_string(n) + " is odd");
  return n / 2;
}

Result<int> quarter(int n) {
  const auto once = half(n);
  if (!once) return once.error().in("quarter of " + std::to_string(n));
  auto twice = half(*once);
  if (!twice) return std::move(twice).error().in("quarter of " + std::to_string(n));
  return twice;
}

TEST(Result, HoldsAValueOrAnError) {
  EXPECT_TRUE(half(4).ok());
  EXPECT_EQ(*half(4), 2);
  EXPECT_FALSE(half(3));
  EXPECT_EQ(half(3).error().message(), "3 is odd");
}

TEST(Result, ChainsContextFromTheOutsideIn) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(5).error().message(), "quarter of 5: 5 is odd");
  EXPECT_EQ(quarter(6).error().message(), "quarter of 6: 3 is odd");
}

TEST(Result, CarriesWhatToExitWith) {
  const Error usage("no such flag", Exit::usage);
  EXPECT_EQ(usage.exit(), Exit::usage);
  EXPECT_EQ(usage.in("record").exit(), Exit::usage);
  EXPECT_EQ(Error("x").exit(), Exit::failure);
}

TEST(Result, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> made(std::make_unique<int>(7));
  const std::unique_ptr<int> taken = *std::move(made);
  EXPECT_EQ(*taken, 7);
}

TEST(Result, SystemErrorsSayWhatWasDone) {
  EXPECT_THAT(system_error("cannot read x", ENOENT).message(),
              AllOf(StartsWith("cannot read x"), HasSubstr("No such file")));
}

TEST(Result, StatusIsAResultOfNothing) {
  EXPECT_TRUE(ok());
  const Status failed = Error("no");
  EXPECT_FALSE(failed);
}

}  // namespace
}  // namespace giltop
