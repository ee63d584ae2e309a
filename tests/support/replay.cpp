#include "support/replay.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/model.h"
#include "sink/trace_reader.h"

namespace giltop::testing {

std::optional<DoneAt> done_at(const std::string& file, uint32_t tid, uint64_t ts_ns) {
  EventTables tables;
  Model model(tables);
  auto reader = TraceReader::open(file, tables);
  EXPECT_TRUE(reader.ok());
  if (!reader) return std::nullopt;
  bool over = false;
  const auto read = reader->read([&](const Event& event) {
    over |= event.ts_ns >= ts_ns;
    if (!over) model.apply(event);
  });
  EXPECT_TRUE(read.ok());
  model.advance_to(ts_ns);
  std::optional<DoneAt> done;
  for (const Thread& thread : model.threads()) {
    if (thread.tid != tid) continue;
    const auto in = [&](CpuState state) {
      uint64_t ns = 0;
      for (const auto& row : thread.matrix) ns += row[static_cast<size_t>(state)];
      return static_cast<double>(ns) / 1e9;
    };
    if (!done) done = DoneAt{};
    done->running_s += in(CpuState::running);
    done->runnable_s += in(CpuState::runnable);
    done->blocked_s += in(CpuState::blocked);
    done->stolen_s += static_cast<double>(thread.stolen_ns) / 1e9;
  }
  return done;
}

std::optional<uint64_t> gil_known_at(const std::string& file, uint32_t pid, uint32_t gil) {
  EventTables tables;
  auto reader = TraceReader::open(file, tables);
  EXPECT_TRUE(reader.ok());
  if (!reader) return std::nullopt;
  std::optional<uint64_t> known;
  const auto read = reader->read([&](const Event& event) {
    if (event.kind == EventKind::light_gil && event.tgid == pid && event.state == gil && !known)
      known = event.ts_ns;
  });
  EXPECT_TRUE(read.ok());
  return known;
}

double life_before(const Json& report, const Json& thread, uint64_t ts_ns) {
  const double moment =
      static_cast<double>(ts_ns) / 1e9 - report.at("start_boottime_s").get<double>();
  return std::clamp(moment - thread.at("first_s").get<double>(), 0.0, life(thread));
}

}  // namespace giltop::testing
