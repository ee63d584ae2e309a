// Histogram of durations: log-linear buckets, those of gt_bucket_of(), at most 1.6 % wide.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "giltop/abi.h"

namespace giltop {

// Values are nanoseconds, 0 to 2^64 - 1. Values below 128 have a bucket each. An octave's buckets
// are allocated when it is first used: an empty histogram is half a kilobyte.
class Histogram {
 public:
  static constexpr unsigned kSubBits = GT_BUCKET_BITS;
  static constexpr unsigned kSub = 1u << kSubBits;
  static constexpr unsigned kOctaves =
      64 - kSubBits;  // the first holds 0 .. 2 * kSub - 1's lower half

  void add(uint64_t value) {
    const unsigned index = index_of(value);
    auto& octave = octaves_[index >> kSubBits];
    if (!octave) octave = std::make_unique<Octave>();
    (*octave)[index & (kSub - 1)]++;
    count_++;
    sum_ += value;
    if (value < min_) min_ = value;
    if (value > max_) max_ = value;
  }
  void add(const Histogram& other);

  uint64_t count() const { return count_; }
  uint64_t sum_ns() const { return sum_; }
  uint64_t min_ns() const { return count_ ? min_ : 0; }
  uint64_t max_ns() const { return max_; }

  // The value at quantile `q` (0 .. 1): the middle of its bucket, kept within min and max, so
  // within 0.8 % of the true order statistic. 0 when empty.
  uint64_t quantile_ns(double q) const;

  // Calls sink(lower_ns, upper_ns, count) for each bucket that is not empty, in order; a bucket
  // holds lower <= value < upper (the last one's upper saturates).
  template <typename Sink>
  void for_each(Sink&& sink) const {
    for (unsigned o = 0; o <= kOctaves; o++) {
      if (!octaves_[o]) continue;
      for (unsigned s = 0; s < kSub; s++) {
        if ((*octaves_[o])[s] == 0) continue;
        const unsigned index = o << kSubBits | s;
        sink(lower_of(index), upper_of(index), (*octaves_[o])[s]);
      }
    }
  }

  static unsigned index_of(uint64_t value) { return gt_bucket_of(value); }
  static uint64_t lower_of(unsigned index) {
    const unsigned octave = index >> kSubBits;
    const uint64_t sub = index & (kSub - 1);
    return octave == 0 ? sub : (kSub | sub) << (octave - 1);
  }
  static uint64_t upper_of(unsigned index) {
    const unsigned octave = index >> kSubBits;
    const uint64_t width = octave == 0 ? 1 : uint64_t{1} << (octave - 1);
    const uint64_t upper = lower_of(index) + width;
    return upper == 0 ? ~uint64_t{0} : upper;
  }

 private:
  using Octave = std::array<uint64_t, kSub>;
  std::array<std::unique_ptr<Octave>, kOctaves + 1> octaves_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t min_ = ~uint64_t{0};
  uint64_t max_ = 0;
};

}  // namespace giltop
