// Histograms as JSON, schema giltop.hist/1, and back.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "model/hist.h"

namespace giltop {

// HIST, as all of giltop's JSON has it: times in seconds, buckets as [upper, count].
nlohmann::ordered_json histogram_json(const HistogramSnapshot& histogram);
// The same of holds, which only exact mode sees; null, where it saw none, for all but the buckets.
nlohmann::ordered_json holds_json(const HistogramSnapshot& holds, bool exact);

// One object, on one line.
std::string to_json(const HistReport& report);
// Errors: it is no such JSON.
Result<HistReport> hist_from_json(const std::string& text);

}  // namespace giltop
