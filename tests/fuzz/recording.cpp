// Fuzzing: what the report in its forms, and the Chrome trace, make of a recording that may be
// hostile. An input is a recording whose packets are not compressed, so that what changes in it is
// not hidden behind a checksum.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "event/anonymize.h"
#include "file_of.h"
#include "message_mutator.h"
#include "model/hist.h"
#include "model/model.h"
#include "model/spans.h"
#include "sink/chrome_drawing.h"
#include "sink/hist_json.h"
#include "sink/html.h"
#include "sink/json.h"
#include "sink/trace_reader.h"
#include "view/hist.h"
#include "view/text_report.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace giltop {
namespace {

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
  ChromeDrawing drawing(tables, [](std::string_view) {});
  const auto outcome = reader->read([&](const Event& event) {
    Event neutral = event;
    anonymizer.apply(neutral);
    drawing.take(neutral, model.apply(neutral), reader->clocks());
    if (tables.crowded()) model.forget_unused(tables);
  });
  drawing.finish(model.last_ns(), outcome ? outcome->run : RunFacts(), model.lost());
}

}  // namespace
}  // namespace giltop

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const giltop::Fd file = giltop::fuzz::file_of(data, size);
  // By its name, as a recording is read.
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  giltop::report(path);
  giltop::chrome_trace(path);
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
