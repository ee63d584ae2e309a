// Fuzzing: what the report in its forms, and the Chrome trace, make of a recording that may be
// hostile. An input is a recording whose packets are not compressed, so that what changes in it is
// not hidden behind a checksum.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "event/anonymize.h"
#include "message_mutator.h"
#include "model/hist.h"
#include "model/model.h"
#include "model/spans.h"
#include "sink/chrome_trace.h"
#include "sink/hist_json.h"
#include "sink/html.h"
#include "sink/json.h"
#include "sink/trace_reader.h"
#include "sink/trace_writer.h"
#include "view/hist.h"
#include "view/text_report.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace giltop {
namespace {

// A file that is read by its name, as a recording is.
class Input {
 public:
  Input() : file_(memfd_create("recording", MFD_CLOEXEC)) {
    if (!file_) std::abort();
  }
  void put(const uint8_t* data, size_t size) const {
    if (ftruncate(file_.get(), 0) != 0 ||
        pwrite(file_.get(), data, size, 0) != static_cast<ssize_t>(size))
      std::abort();
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_.get()); }

 private:
  Fd file_;
};

void report(const std::string& path) {
  EventTables tables;
  Model model(tables);
  SpanRecorder spans;
  auto reader = TraceReader::open(path, tables);
  if (!reader) return;
  const auto outcome = reader->read([&](const Event& event) {
    spans.take(model, event, model.apply(event));
    if (tables.crowded()) model.forget_unused(tables);
  });
  // giltop shows nothing of one that is damaged; what came before that is worth a look here.
  const Snapshot snapshot = snapshot_of(model, outcome ? outcome->run : RunFacts());
  (void)text_report(snapshot);
  (void)to_json(snapshot);
  PageOptions page;
  page.most_bytes = 400'000;  // so that spans are made coarser, too
  (void)to_html(snapshot, spans.finish(), page);
  for (const HistGroup group : {HistGroup::all, HistGroup::process, HistGroup::thread})
    (void)to_json(hist_of(snapshot, group, {HistKind::wait, HistKind::hold, HistKind::handoff}));
}

// As `report -f chrometrace --anonymize` does.
void chrome_trace(const std::string& path) {
  EventTables tables;
  Model model(tables);
  Anonymizer anonymizer(tables);
  auto reader = TraceReader::open(path, tables);
  if (!reader) return;
  ChromeTrace chrome([](std::string_view) {});
  TraceWriter writer(tables, [&](const std::string& block) { chrome.take(block); });
  std::optional<uint64_t> clocks_ns;
  const auto outcome = reader->read([&](const Event& event) {
    const ClockReading& clocks = reader->clocks();
    if (!clocks_ns) {
      writer.start({}, clocks, {});
    } else if (*clocks_ns != clocks.boottime_ns) {
      writer.clocks(clocks);
    }
    clocks_ns = clocks.boottime_ns;
    Event neutral = event;
    anonymizer.apply(neutral);
    writer.write(neutral, model.apply(neutral));
    if (tables.crowded()) model.forget_unused(tables);
  });
  const RunFacts run = outcome ? outcome->run : RunFacts();
  writer.finish(model.last_ns(), run);
  chrome.finish(run, model.lost());
}

}  // namespace
}  // namespace giltop

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const giltop::Input input;
  input.put(data, size);
  giltop::report(input.path());
  giltop::chrome_trace(input.path());
  return 0;
}

// Half of all changes are of whole packets and fields, which keeps the lengths around them right.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most,
                                          unsigned int seed) {
  if (seed % 2 == 0) return LLVMFuzzerMutate(data, size, most);
  const std::string mutated = giltop::fuzz::mutated_message(
      std::string_view(reinterpret_cast<const char*>(data), size), seed);
  if (mutated.empty() || mutated.size() > most) return LLVMFuzzerMutate(data, size, most);
  mutated.copy(reinterpret_cast<char*>(data), mutated.size());
  return mutated.size();
}
