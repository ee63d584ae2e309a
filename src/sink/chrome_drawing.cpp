#include "sink/chrome_drawing.h"

#include <string>
#include <utility>

namespace giltop {

ChromeDrawing::ChromeDrawing(const EventTables& tables, ChromeTrace::TextSink text)
    : chrome_(std::move(text)),
      writer_(tables, [this](const std::string& block) { chrome_.take(block); }) {}

void ChromeDrawing::take(const Event& event, const Change& change, const ClockReading& clocks) {
  if (!clocks_ns_) {
    writer_.start({}, clocks, {});
  } else if (*clocks_ns_ != clocks.boottime_ns) {
    writer_.clocks(clocks);
  }
  clocks_ns_ = clocks.boottime_ns;
  writer_.write(event, change);
}

void ChromeDrawing::finish(uint64_t last_ns, const RunFacts& run, uint64_t lost_events) {
  writer_.finish(last_ns, run);
  chrome_.finish(run, lost_events);
}

}  // namespace giltop
