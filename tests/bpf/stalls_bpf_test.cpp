// tools/stalls: what it does to a program, and that it does no more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "support/live.h"

namespace giltop::testing {
namespace {

class Stalls : public Live {};

// A moment takes milliseconds, and for all that the kernel knows the program was running.
TEST_F(Stalls, AreNotSeen) {
  const std::string script = directory_.path("stalled.py");
  write_file(
      script,
      "import sys, time\n"
      "def now(): return time.monotonic(), time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)\n"
      "begin, stalls = now(), 0\n"
      "before = begin\n"
      "while before[0] - begin[0] < 1:\n"
      "    after = now()\n"
      "    took, ran = after[0] - before[0], after[1] - before[1]\n"
      "    stalls += took > 0.001 and ran > 0.9 * took\n"
      "    before = after\n"
      "print(stalls)\n"
      "sys.exit(7)\n");
  const Ran ran =
      run({GILTOP_STALLS, "--share", "30", "--longest", "8", "--", python(), "-S", "-E", script});
  EXPECT_EQ(ran.status, 7);
  ASSERT_FALSE(ran.out.empty()) << ran.err;
  EXPECT_GT(std::stoi(ran.out), 10);
  EXPECT_THAT(ran.err, ::testing::StartsWith("stalls: "));
}

TEST_F(Stalls, BadInput) {
  for (const char* share : {"0", "60", "much"}) {
    const Ran ran = run({GILTOP_STALLS, "--share", share, "--", "true"});
    EXPECT_NE(ran.status, 0);
    EXPECT_THAT(ran.err, ::testing::HasSubstr("--share"));
  }
  const Ran ran = run({GILTOP_STALLS, "--", "/nowhere/to/be/found"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, ::testing::HasSubstr("giltop_stalls: run /nowhere/to/be/found: No such file"));
}

}  // namespace
}  // namespace giltop::testing
