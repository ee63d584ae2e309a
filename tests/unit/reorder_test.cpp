// Reorder: what several CPUs say in turns comes out in the order of time.
#include "event/reorder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace giltop {
namespace {

Event event(uint64_t ts_ns, uint32_t tid = 1, EventKind kind = EventKind::wakeup,
            uint16_t cpu = 0) {
  Event e;
  e.ts_ns = ts_ns;
  e.tid = tid;
  e.kind = kind;
  e.cpu = cpu;
  return e;
}

std::vector<Event> all(Reorder& reorder, uint64_t watermark = ~uint64_t{0}) {
  std::vector<Event> out;
  reorder.release(watermark, [&](const Event& e) { out.push_back(e); });
  return out;
}

TEST(Reorder, SortsByTime) {
  Reorder reorder;
  for (const uint64_t ts : {30, 10, 20, 50, 40}) reorder.push(event(ts));
  const auto out = all(reorder);
  ASSERT_EQ(out.size(), 5u);
  for (size_t i = 0; i < 5; i++) EXPECT_EQ(out[i].ts_ns, 10 * (i + 1));
  EXPECT_EQ(reorder.late(), 0u);
}

// As when a CPU's reader, or its hypervisor, is late: many go far, with ties among them.
TEST(Reorder, SortsWhatGoesFar) {
  Reorder reorder;
  std::vector<uint64_t> expected;
  for (const uint64_t start : {5000, 0, 2500}) {
    for (uint64_t i = 0; i < 5000; i++) {
      reorder.push(
          event(1000 + 10 * ((start + i) / 2), static_cast<uint32_t>(expected.size() + 1)));
      expected.push_back(1000 + 10 * ((start + i) / 2));
    }
  }
  std::sort(expected.begin(), expected.end());
  const auto first = all(reorder, 20'000), rest = all(reorder);
  ASSERT_EQ(first.size() + rest.size(), expected.size());
  EXPECT_LE(first.back().ts_ns, 20'010u);
  uint64_t last_ns = 0;
  size_t i = 0;
  for (const auto* part : {&first, &rest}) {
    for (const Event& e : *part) {
      EXPECT_GT(e.ts_ns, last_ns);
      EXPECT_LT(e.ts_ns - expected[i], 10u) << "ties are 1 ns apart";
      last_ns = e.ts_ns;
      i++;
    }
  }
  EXPECT_EQ(reorder.late(), 0u);
}

TEST(Reorder, HoldsBackWhatIsPastTheWatermark) {
  Reorder reorder;
  for (const uint64_t ts : {30, 10, 20}) reorder.push(event(ts));
  EXPECT_EQ(all(reorder, 5).size(), 0u);
  EXPECT_EQ(all(reorder, 20).size(), 2u);
  EXPECT_EQ(reorder.pending(), 1u);
  reorder.push(event(25));
  const auto out = all(reorder);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].ts_ns, 25u);
}

TEST(Reorder, TiesComeOutInTheOrderPushedAndStrictlyIncreasing) {
  Reorder reorder;
  for (uint32_t i = 0; i < 5; i++) reorder.push(event(10, i));
  reorder.push(event(12, 5));
  const auto out = all(reorder);
  ASSERT_EQ(out.size(), 6u);
  for (uint32_t i = 0; i < 6; i++) {
    EXPECT_EQ(out[i].tid, i);
    EXPECT_EQ(out[i].ts_ns, 10 + i);
  }
  EXPECT_EQ(reorder.late(), 0u) << "a tie is not late";
}

TEST(Reorder, TheHalvesOfASwitchShareTheirTime) {
  Reorder reorder;
  reorder.push(event(10, 1, EventKind::wakeup, 1));
  reorder.push(event(10, 2, EventKind::switch_out, 0));
  reorder.push(event(10, 3, EventKind::switch_in, 0));
  reorder.push(event(10, 4, EventKind::switch_out, 1));
  reorder.push(event(10, 5, EventKind::switch_in, 1));
  reorder.push(event(10, 6, EventKind::switch_in, 0));  // of another record
  const auto out = all(reorder);
  ASSERT_EQ(out.size(), 6u);
  EXPECT_EQ(out[1].ts_ns, 11u);
  EXPECT_EQ(out[2].ts_ns, 11u);
  EXPECT_EQ(out[3].ts_ns, 12u);
  EXPECT_EQ(out[4].ts_ns, 12u);
  EXPECT_EQ(out[5].ts_ns, 13u);
}

TEST(Reorder, LateEventsAreMovedAndCounted) {
  Reorder reorder;
  reorder.push(event(100));
  all(reorder);
  reorder.push(event(90, 1, EventKind::switch_out));
  reorder.push(event(90, 2, EventKind::switch_in));
  reorder.push(event(101));
  const auto out = all(reorder);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[0].ts_ns, 101u);
  EXPECT_EQ(out[1].ts_ns, 101u) << "still one switch";
  EXPECT_EQ(out[2].ts_ns, 102u);
  EXPECT_EQ(reorder.late(), 2u);
}

// Eight CPUs with a clock each that is a little off; the reader takes what there is in rounds, and
// the watermark is the time at which it looked.
TEST(Reorder, RandomInterleavingsComeOutSorted) {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    std::mt19937_64 rng(seed);
    Reorder reorder;
    std::vector<Event> truth, out;
    std::vector<std::vector<Event>> in_flight;  // records
    uint64_t now = 1000;
    size_t most_pending = 0;
    for (uint32_t i = 0; i < 5000; i++) {
      now += 1 + rng() % 20;
      const auto cpu = static_cast<uint16_t>(rng() % 8);
      if (rng() % 4 == 0) {
        truth.push_back(event(now, i, EventKind::switch_out, cpu));
        truth.push_back(event(now, i + 100'000, EventKind::switch_in, cpu));
      } else {
        truth.push_back(event(now, i, EventKind::wakeup, cpu));
      }
      const ptrdiff_t events = truth.back().kind == EventKind::switch_in ? 2 : 1;
      in_flight.emplace_back(truth.end() - events, truth.end());
      if (rng() % 50 == 0) {
        std::shuffle(in_flight.begin(), in_flight.end(), rng);
        for (const auto& record : in_flight)
          for (const Event& e : record) reorder.push(e);
        in_flight.clear();
        reorder.release(now - rng() % 30, [&](const Event& e) { out.push_back(e); });
        most_pending = std::max(most_pending, reorder.pending());
      }
    }
    for (const auto& record : in_flight)
      for (const Event& e : record) reorder.push(e);
    reorder.release(~uint64_t{0}, [&](const Event& e) { out.push_back(e); });
    ASSERT_EQ(out.size(), truth.size()) << "seed " << seed;
    for (size_t i = 0; i < out.size(); i++) {
      ASSERT_EQ(out[i].tid, truth[i].tid) << "seed " << seed << " event " << i;
      ASSERT_EQ(out[i].ts_ns, truth[i].ts_ns) << "seed " << seed << " event " << i;
    }
    ASSERT_EQ(reorder.late(), 0u);
    ASSERT_EQ(reorder.pending(), 0u);
    ASSERT_LT(most_pending, 100u);
  }
}

TEST(Reorder, MemoryDoesNotGrowWithoutABound) {
  // Never empty: the place of what is out must be used again all the same.
  Reorder reorder;
  uint64_t now = 0, out = 0;
  for (int round = 0; round < 2000; round++) {
    for (int i = 0; i < 1000; i++) reorder.push(event(++now));
    reorder.release(now - 10, [&](const Event&) { out++; });
    ASSERT_EQ(reorder.pending(), 10u);
  }
  EXPECT_EQ(out, 2'000'000u - 10);
}

TEST(Reorder, ABurstsMemoryIsGivenBack) {
  Reorder reorder;
  Event event;
  for (uint64_t i = 1; i <= 1'000'000; i++) {
    event.ts_ns = i;
    reorder.push(event);
  }
  uint64_t out = 0;
  const auto count = [&](const Event&) { out++; };
  reorder.release(999'990, count);
  EXPECT_GE(reorder.capacity(), 10u);
  for (uint64_t i = 0; i < 10; i++) {
    event.ts_ns = 1'000'001 + i;
    reorder.push(event);
    reorder.release(999'991 + i, count);
  }
  EXPECT_EQ(reorder.pending(), 10u);
  EXPECT_LE(reorder.capacity(), 65'536u);
  reorder.release(~uint64_t{0}, count);
  EXPECT_EQ(out, 1'000'010u);
}

}  // namespace
}  // namespace giltop
