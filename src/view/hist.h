// Histograms as text.
#pragma once

#include <string>

#include "model/hist.h"

namespace giltop {

enum class HistUnit : uint8_t { microseconds, milliseconds };

// As bcc's runqlat draws it: a row for each power of two.
std::string hist_text(const HistReport& report, HistUnit unit);

// Two reports beside each other, series by series: the bars as shares of all values, and how each
// quantile moved. What only one of them has is said.
std::string hist_diff(const HistReport& a, const HistReport& b, HistUnit unit);

}  // namespace giltop
