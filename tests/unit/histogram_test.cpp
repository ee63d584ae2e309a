// The histogram against a sorted list of the same values.
#include "model/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "model/snapshot.h"

namespace giltop {
namespace {

constexpr uint64_t kMax = ~uint64_t{0};

Histogram of(const std::vector<uint64_t>& values) {
  Histogram h;
  for (const uint64_t v : values) h.add(v);
  return h;
}

// Every quantile within 3 % of the order statistic it stands for.
void expect_quantiles(std::vector<uint64_t> values, const std::string& what) {
  const Histogram h = of(values);
  std::sort(values.begin(), values.end());
  ASSERT_EQ(h.count(), values.size()) << what;
  ASSERT_EQ(h.min_ns(), values.front()) << what;
  ASSERT_EQ(h.max_ns(), values.back()) << what;
  for (const unsigned permille : {0u, 1u, 10u, 100u, 250u, 500u, 900u, 990u, 999u, 1000u}) {
    const size_t rank = std::max<size_t>((values.size() * permille + 999) / 1000, 1);
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto found = static_cast<double>(h.quantile_ns(permille / 1000.0));
    ASSERT_LE(std::abs(found - exact), exact * 0.03 + 0.5)
        << what << ", " << values.size() << " values, quantile " << permille << " ‰: " << found
        << " for " << exact;
  }
}

TEST(Histogram, QuantilesOfSeveralDistributions) {
  std::mt19937_64 rng(42);
  std::exponential_distribution<double> waits(1 / 5e6);
  std::lognormal_distribution<double> holds(9, 3);
  const std::vector<std::pair<std::string, std::function<uint64_t()>>> distributions = {
      {"one value", [] { return uint64_t{5'000'123}; }},
      {"zeros", [] { return uint64_t{0}; }},
      {"small", [&] { return rng() % 200; }},
      {"uniform", [&] { return rng() % 10'000'000; }},
      {"exponential", [&] { return static_cast<uint64_t>(waits(rng)); }},
      {"log-normal", [&] { return static_cast<uint64_t>(holds(rng)); }},
      {"two humps", [&] { return rng() % 2 ? 900 + rng() % 100 : 5'000'000 + rng() % 1'000'000; }},
      {"powers of two", [&] { return uint64_t{1} << rng() % 64; }},
      {"every size", [&] { return rng() >> rng() % 64; }},
      {"extremes", [&] { return rng() % 2 ? kMax : 0; }},
  };
  for (const auto& [what, draw] : distributions) {
    for (const size_t count : {1, 2, 3, 10, 99, 100, 101, 1000, 10'007}) {
      std::vector<uint64_t> values(count);
      for (uint64_t& v : values) v = draw();
      expect_quantiles(values, what);
    }
  }
}

TEST(Histogram, NothingIsAllZero) {
  const Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.min_ns(), 0u);
  EXPECT_EQ(h.max_ns(), 0u);
  EXPECT_EQ(h.quantile_ns(0.5), 0u);
}

TEST(Histogram, BucketsAreContiguousAndNarrow) {
  const unsigned last = Histogram::index_of(kMax);
  ASSERT_EQ(Histogram::lower_of(0), 0u);
  for (unsigned i = 0; i < last; i++) {
    const uint64_t lower = Histogram::lower_of(i), upper = Histogram::upper_of(i);
    ASSERT_EQ(upper, Histogram::lower_of(i + 1)) << i;
    ASSERT_LT(lower, upper) << i;
    ASSERT_LE(static_cast<double>(upper - lower), std::max(1.0, 0.03 * static_cast<double>(lower)));
    ASSERT_EQ(Histogram::index_of(lower), i);
    ASSERT_EQ(Histogram::index_of(upper - 1), i);
  }
  EXPECT_EQ(Histogram::upper_of(last), kMax);
}

// The kernel side has no other definition, but for the number of bits. Here both are held against
// what counts and divides.
TEST(Histogram, ABucketIsTheKernelSidesToo) {
  const auto expected = [](uint64_t value) {
    unsigned octave = 0;
    while (value >= 128) {
      value /= 2;
      octave++;
    }
    return static_cast<unsigned>(value) + 64 * octave;
  };
  std::mt19937_64 rng(5);
  std::vector<uint64_t> values = {0, kMax};
  for (unsigned bit = 0; bit < 64; bit++)
    for (uint64_t near = 0; near < 4; near++)
      values.insert(values.end(), {(uint64_t{1} << bit) - near, (uint64_t{1} << bit) + near});
  for (int i = 0; i < 100'000; i++) values.push_back(rng() >> rng() % 64);
  for (const uint64_t value : values) {
    ASSERT_EQ(gt_bucket_of(value), expected(value)) << value;
    ASSERT_EQ(gt_width_by_halves(value), static_cast<unsigned>(std::bit_width(value))) << value;
    ASSERT_LT(gt_bucket_of(value), static_cast<unsigned>(GT_BUCKETS));
    ASSERT_EQ(Histogram::index_of(value), gt_bucket_of(value));
  }
}

TEST(Histogram, BucketsHoldWhatWasAdded) {
  std::mt19937_64 rng(3);
  Histogram h;
  for (int i = 0; i < 10'000; i++) h.add(rng() >> rng() % 64);
  uint64_t count = 0, before = 0;
  h.for_each([&](uint64_t lower, uint64_t upper, uint64_t n) {
    EXPECT_GE(lower, before);
    EXPECT_GT(n, 0u);
    before = upper;
    count += n;
  });
  EXPECT_EQ(count, h.count());
}

TEST(Histogram, Merging) {
  std::mt19937_64 rng(4);
  Histogram all, some, others;
  for (int i = 0; i < 10'000; i++) {
    const uint64_t v = rng() >> (10 + rng() % 54);
    all.add(v);
    (i % 3 ? some : others).add(v);
  }
  some.add(others);
  some.add(Histogram());
  Histogram from_nothing;
  from_nothing.add(some);
  for (const Histogram* merged : {&some, &from_nothing}) {
    EXPECT_EQ(merged->count(), all.count());
    EXPECT_EQ(merged->sum_ns(), all.sum_ns());
    EXPECT_EQ(merged->min_ns(), all.min_ns());
    EXPECT_EQ(merged->max_ns(), all.max_ns());
    for (const double q : {0.1, 0.5, 0.9, 0.999})
      EXPECT_EQ(merged->quantile_ns(q), all.quantile_ns(q));
  }
}

TEST(Histogram, ASnapshotSaysTheSame) {
  const HistogramSnapshot s = snapshot_of(of({1000, 2000, 3000, 4000}));
  EXPECT_EQ(s.count, 4u);
  EXPECT_EQ(s.sum_ns, 10'000u);
  EXPECT_EQ(s.min_ns, 1000u);
  EXPECT_EQ(s.max_ns, 4000u);
  EXPECT_NEAR(static_cast<double>(s.p50_ns), 2000, 60);
  ASSERT_EQ(s.buckets.size(), 4u);
  for (const auto& b : s.buckets) EXPECT_EQ(b.count, 1u);
}

}  // namespace
}  // namespace giltop
