// What the loader tells the kernel side of processes: a byte each.
#include "probe/tracked.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

namespace giltop {
namespace {

using ::testing::ElementsAre;

std::vector<uint32_t> all_of(const Tracked& tracked) {
  std::vector<uint32_t> found;
  tracked.for_each([&](uint32_t tgid) { found.push_back(tgid); });
  return found;
}

TEST(Tracked, KnowsWhomItWasTold) {
  std::vector<uint8_t> bytes(64);
  const Tracked tracked(bytes);
  EXPECT_TRUE(all_of(tracked).empty());
  for (const uint32_t tgid : {1u, 7u, 8u, 63u})
    EXPECT_TRUE(tracked.set(tgid, GT_TRACED | GT_LIGHT)) << tgid;
  EXPECT_THAT(all_of(tracked), ElementsAre(1, 7, 8, 63));
  EXPECT_EQ(tracked.how(8), GT_TRACED | GT_LIGHT);
  EXPECT_FALSE(tracked.contains(9));
  tracked.erase(8);
  EXPECT_THAT(all_of(tracked), ElementsAre(1, 7, 63));
}

// 0 is the idle task, and the kernel gives no id beyond the last one.
TEST(Tracked, TakesNoOtherIds) {
  std::vector<uint8_t> bytes(64);
  const Tracked tracked(bytes);
  EXPECT_FALSE(tracked.set(0, GT_TRACED));
  EXPECT_FALSE(tracked.set(64, GT_TRACED));
  tracked.erase(64);
  tracked.change(64, 0, GT_LIGHT);
  EXPECT_EQ(tracked.how(64), 0);
  EXPECT_EQ(bytes, std::vector<uint8_t>(64));
}

TEST(Tracked, ChangesOnlyTheBitsItIsTold) {
  std::vector<uint8_t> bytes(8);
  const Tracked tracked(bytes);
  tracked.set(3, GT_TRACED | GT_TELL | GT_LIGHT);
  tracked.change(3, GT_LIGHT | GT_OWN | GT_SWAP, GT_OWN);
  EXPECT_EQ(tracked.how(3), GT_TRACED | GT_TELL | GT_OWN);
}

// The kernel side may have come to trace it first, or what it executed meanwhile.
TEST(Tracked, AClaimIsGivenUpOnlyIfItIsStillOurs) {
  std::vector<uint8_t> bytes(8);
  const Tracked tracked(bytes);
  EXPECT_TRUE(tracked.claim(3, GT_TRACED | GT_TELL));
  EXPECT_FALSE(tracked.claim(3, GT_TRACED | GT_LIGHT));
  tracked.give_up(3);
  EXPECT_EQ(tracked.how(3), 0);
  EXPECT_TRUE(tracked.claim(3, GT_TRACED));
  bytes[3] = GT_TRACED | GT_TELL;  // an exec
  tracked.give_up(3);
  EXPECT_EQ(tracked.how(3), GT_TRACED | GT_TELL);
  tracked.keep(3);
  EXPECT_EQ(tracked.how(3), GT_TRACED | GT_TELL);
  EXPECT_FALSE(tracked.claim(0, GT_TRACED));
  EXPECT_FALSE(tracked.claim(8, GT_TRACED));
}

TEST(Tracked, WhoHasEndedStaysSo) {
  std::vector<uint8_t> bytes(8);
  const Tracked tracked(bytes);
  tracked.change(3, 0, GT_LIGHT);
  EXPECT_EQ(tracked.how(3), 0);
}

// The kernel side takes GT_TELL away with an atomic and of eight bytes (told(), bpf/filter.bpf.h).
TEST(Tracked, LosesNothingThatIsWrittenAtTheSameTime) {
  alignas(8) std::array<uint8_t, 8> bytes{};
  const Tracked tracked(bytes);
  constexpr int kRounds = 200;
  for (int i = 0; i < kRounds; i++) {
    tracked.set(2, GT_TRACED | GT_TELL);
    std::atomic<int> ready = 0;
    const auto meet = [&] {
      ready++;
      while (ready != 2) {
      }
    };
    std::thread other([&] {
      meet();
      __sync_fetch_and_and(reinterpret_cast<uint64_t*>(bytes.data()),
                           ~(uint64_t{GT_TELL} << 2 * 8));
    });
    meet();
    tracked.change(2, GT_OWN, GT_LIGHT);
    other.join();
    ASSERT_EQ(tracked.how(2), GT_TRACED | GT_LIGHT);
  }
}

}  // namespace
}  // namespace giltop
