// ChromeDrawing: a recording that is read back, as Chrome's JSON trace events.
#pragma once

#include <cstdint>
#include <optional>

#include "sink/chrome_trace.h"
#include "sink/trace_writer.h"

namespace giltop {

// Draws the events once more, as the recorder drew them, and has the drawing written down anew.
class ChromeDrawing {
 public:
  ChromeDrawing(const EventTables& tables, ChromeTrace::TextSink text);
  ChromeDrawing(const ChromeDrawing&) = delete;
  ChromeDrawing& operator=(const ChromeDrawing&) = delete;

  // After each event: what it changed, and the last reading of the clocks before it.
  void take(const Event& event, const Change& change, const ClockReading& clocks);
  bool begun() const { return clocks_ns_.has_value(); }
  // `last_ns`: of the last event.
  void finish(uint64_t last_ns, const RunFacts& run, uint64_t lost_events);

 private:
  ChromeTrace chrome_;
  TraceWriter writer_;
  std::optional<uint64_t> clocks_ns_;  // of the reading that was drawn last
};

}  // namespace giltop
