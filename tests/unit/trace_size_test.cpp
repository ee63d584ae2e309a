// How many bytes a recording takes.
#include <gtest/gtest.h>
#include <libdeflate.h>

#include <memory>
#include <string>

#include "sink/trace_writer.h"
#include "support/event_builder.h"
#include "support/light_history.h"

namespace giltop {
namespace {

using testing::Simulation;

// Compressed as TraceFile does what comes once a second.
size_t size_of(const EventTables& tables, const std::vector<Event>& events) {
  const std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> compressor(
      libdeflate_alloc_compressor(9), libdeflate_free_compressor);
  Model model(tables);
  size_t bytes = 0;
  TraceWriter writer(tables, [&](const std::string& block) {
    std::string packed(libdeflate_zlib_compress_bound(compressor.get(), block.size()), '\0');
    bytes += libdeflate_zlib_compress(compressor.get(), block.data(), block.size(), packed.data(),
                                      packed.size());
  });
  writer.start({"Linux", "6.1.0", "#1", "x86_64", 2}, {events.front().ts_ns, 1, 1}, {});
  RunFacts run;
  constexpr size_t kSecond = 500;  // events of light mode in about as long
  for (size_t i = 0; i < events.size(); i++) {
    writer.write(events[i], model.apply(events[i]));
    if (i % kSecond != 0) continue;
    run.events = run.own_cpu_ns = i;
    writer.run_facts(model.last_ns(), run);
    writer.flush();
  }
  writer.finish(model.last_ns(), run);
  return bytes;
}

// An event of light mode takes no more than one of exact mode, which is drawn and nothing else.
TEST(TraceSize, OfLightMode) {
  const Simulation simulation(1, {.steps = 20'000});
  const auto light = testing::as_light(simulation.tables(), simulation.events(), 1, 100'000);
  const auto per_event = [&](const std::vector<Event>& events) {
    return static_cast<double>(size_of(simulation.tables(), events)) /
           static_cast<double>(events.size());
  };
  EXPECT_LT(per_event(light), 8);
  EXPECT_LT(per_event(light), per_event(simulation.events()));
}

}  // namespace
}  // namespace giltop
