#include "cli/playback.h"

#include <filesystem>
#include <utility>

#include "cli/output.h"
#include "cli/progress.h"

namespace giltop {
namespace {

constexpr uint64_t kEvents = 4096;  // between looks at the clock

}  // namespace

Result<Playback> Playback::open(const std::string& file, EventTables& tables, bool anonymize) {
  auto reader = TraceReader::open(file, tables);
  if (!reader) return reader.error();
  Playback playback(*std::move(reader), file);
  if (anonymize) playback.anonymizer_.emplace(tables);
  return playback;
}

Result<TraceReader::Outcome> Playback::read(const std::function<void(const Event&)>& sink) {
  Progress progress("reading " + std::filesystem::path(file_).filename().string());
  uint64_t count = 0;
  auto outcome = reader_.read([&](const Event& event) {
    if (progress.is_shown() && ++count % kEvents == 0)
      progress.update(reader_.bytes_read(), reader_.size());
    if (!anonymizer_) {
      sink(event);
      return;
    }
    Event neutral = event;
    anonymizer_->apply(neutral);
    sink(neutral);
  });
  if (outcome && anonymizer_) outcome->run.kernel = Anonymizer::release(outcome->run.kernel);
  return outcome;
}

void say_if_cut(const std::string& file, const RunFacts& run) {
  if (!run.finished)
    say(file +
        " breaks off: its recorder was killed, or still runs; up to a second is "
        "missing at its end");
}

}  // namespace giltop
