// Playback: a recording read back, as people wait for it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "event/anonymize.h"
#include "event/event.h"
#include "sink/trace_reader.h"

namespace giltop {

// A TraceReader that says how far it is, and that makes names neutral where it is asked to.
class Playback {
 public:
  // Errors: as TraceReader::open().
  static Result<Playback> open(const std::string& file, EventTables& tables,
                               bool anonymize = false);

  // Errors: as TraceReader::read().
  Result<TraceReader::Outcome> read(const std::function<void(const Event&)>& sink);
  // As TraceReader::stop().
  void stop() { reader_.stop(); }
  // The last reading of the clocks before the event that the sink has.
  const ClockReading& clocks() const { return reader_.clocks(); }

 private:
  Playback(TraceReader reader, std::string file)
      : reader_(std::move(reader)), file_(std::move(file)) {}
  TraceReader reader_;
  std::string file_;
  std::optional<Anonymizer> anonymizer_;
};

// Says so, where the recorder did not end in order.
void say_if_cut(const std::string& file, const RunFacts& run);

}  // namespace giltop
