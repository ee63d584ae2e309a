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

void expect_ran(const Live::Recorded& recorded, const Json& thread, const Json& measured) {
  const auto seconds = [&](const char* name) { return measured.at(name).get<double>(); };
  const auto at = [&](double boottime_s) {
    return done_at(recorded.file, measured.at("tid"), static_cast<uint64_t>(boottime_s * 1e9))
        .value_or(DoneAt{});
  };
  const bool is_main = measured.at("tid") == recorded.truth.at("pid");
  const double start_s = recorded.report.at("start_boottime_s");
  const DoneAt last = at(start_s + thread.at("last_s").get<double>() + 1e-6),
               end = at(seconds("end")), start = is_main ? at(seconds("start")) : DoneAt{},
               counted = is_main ? at(seconds("counted_from")) : DoneAt{};
  const double ran = (seconds("oncpu_ns") - (is_main ? seconds("oncpu_start_ns") : 0)) / 1e9,
               slack = 0.005 * ran + 0.001;
  // Of what was stolen in the run that a moment falls into nobody knows on which side of it.
  const double least = end.running_s - counted.running_s - last.stolen_s,
               most = last.running_s - start.running_s - (is_main ? 0 : last.stolen_s);
  EXPECT_LE(least, ran + slack) << measured << thread.at("matrix");
  EXPECT_GE(most + in_cpu_state(thread, "unknown"), ran - slack) << measured << thread.at("matrix");
}

void expect_turns(const Live::Recorded& recorded, const Json& process) {
  const Json& truth = recorded.truth;
  double handoff = 0;
  for (const Json& gil : process.at("gils"))
    handoff += gil.at("ledger").at("handoff_s").get<double>();
  for (const Json& measured : truth.at("threads")) {
    if (measured.at("tid") == truth.at("pid")) continue;
    SCOPED_TRACE(measured.dump());
    const Json& thread = Live::Recorded::thread(process, measured.at("tid"));
    ASSERT_FALSE(thread.is_null());
    SCOPED_TRACE(thread.at("matrix").dump());
    const auto seconds = [&](const char* name) { return measured.at(name).get<double>() / 1e9; };
    const double running = in_cpu_state(thread, "running"), stolen = thread.at("stolen_s"),
                 ran = seconds("oncpu_ns"), runnable = seconds("runnable_ns");
    expect_ran(recorded, thread, measured);
    // It goes on after it has read that of itself.
    EXPECT_GE(in_cpu_state(thread, "runnable") + in_cpu_state(thread, "unknown"),
              0.98 * runnable - 0.005);
    EXPECT_GT(thread.at("matrix").at("holding").at("running_s").get<double>(), 0.9 * running);
    // It sleeps when it waits; and after a forced release, until the next one has the GIL.
    const double asleep =
        measured.at("end").get<double>() - measured.at("counted_from").get<double>() -
        (ran - seconds("oncpu_start_ns")) - (runnable - seconds("runnable_start_ns")) - stolen;
    EXPECT_GE(in_gil_state(thread, "waiting"), 0.97 * asleep - handoff - 0.005);
    EXPECT_LE(thread.at("matrix").at("released").at("blocked_s").get<double>(),
              0.03 * life(thread) + handoff + 0.005);
  }
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
