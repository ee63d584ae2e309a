// Fuzzing: a file that says it holds histograms (giltop hist -o).
#include "view/hist.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "sink/hist_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using giltop::HistUnit;
  const auto report =
      giltop::hist_from_json(std::string(reinterpret_cast<const char*>(data), size));
  if (!report) return 0;
  (void)giltop::hist_text(*report, HistUnit::microseconds);
  (void)giltop::hist_diff(*report, *report, HistUnit::milliseconds);
  giltop::HistReport sum = *report;
  giltop::add(sum, *report);
  // What was read can be written and read again.
  if (!giltop::hist_from_json(giltop::to_json(*report))) std::abort();
  return 0;
}
