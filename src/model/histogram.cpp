#include "model/histogram.h"

#include <algorithm>
#include <cmath>

namespace giltop {

void Histogram::add(const Histogram& other) {
  for (size_t o = 0; o < octaves_.size(); o++) {
    if (!other.octaves_[o]) continue;
    if (!octaves_[o]) octaves_[o] = std::make_unique<Octave>();
    for (size_t s = 0; s < kSub; s++) (*octaves_[o])[s] += (*other.octaves_[o])[s];
  }
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

uint64_t Histogram::quantile_ns(double q) const {
  if (count_ == 0) return 0;
  // Nearest rank: the smallest value that at least q of all values do not exceed.
  const double exact = std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(exact), 1, count_);
  uint64_t seen = 0;
  uint64_t result = max_;
  bool found = false;
  for_each([&](uint64_t lower, uint64_t upper, uint64_t count) {
    seen += count;
    if (found || seen < rank) return;
    found = true;
    result = lower + (upper - 1 - lower) / 2;
  });
  return std::clamp(result, min_ns(), max_);
}

}  // namespace giltop
