// The rules of the verdict, each against a recording of what it is made for, and one like it that
// it must leave alone. Recorded by tools/record-verdicts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "model/model.h"
#include "model/verdict.h"
#include "sink/trace_reader.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;

std::optional<Snapshot> snapshot_of_recording(const std::string& name) {
  const std::string file = std::string(GILTOP_TEST_DIR) + "/recordings/" + name + ".pftrace";
  EventTables tables;
  Model model(tables);
  auto reader = TraceReader::open(file, tables);
  if (!reader) {
    ADD_FAILURE() << reader.error().message();
    return {};
  }
  const auto outcome = reader->read([&](const Event& event) { model.apply(event); });
  if (!outcome) {
    ADD_FAILURE() << outcome.error().message();
    return {};
  }
  Snapshot snapshot = snapshot_of(model, outcome->run);
  if (snapshot.processes.empty()) {
    ADD_FAILURE() << "no process in " << file;
    return {};
  }
  return snapshot;
}

struct Expected {
  const char* recording;
  const char* findings;  // the first has the word
  const char* words;
};

class VerdictRecordings : public ::testing::TestWithParam<Expected> {};

TEST_P(VerdictRecordings, AreJudgedRight) {
  const auto snapshot = snapshot_of_recording(GetParam().recording);
  ASSERT_TRUE(snapshot);
  const ProcessSnapshot& process = snapshot->processes.front();
  const Verdict verdict = verdict_of(process, *snapshot);
  std::string findings = verdict.finding;
  uint64_t lost_ns = verdict.lost_ns, waits_ns = 0;
  for (const Verdict& other : verdict.also) {
    findings += " " + other.finding;
    lost_ns += other.lost_ns;
  }
  for (const GilSnapshot& g : process.gils)
    for (const BlameSnapshot& b : g.blame) waits_ns += b.total_ns();
  EXPECT_LE(lost_ns, waits_ns) << "no wait counts twice";
  EXPECT_EQ(findings, GetParam().findings) << verdict.sentence;
  EXPECT_THAT(verdict.sentence, HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    , VerdictRecordings,
    ::testing::Values(Expected{"taking-turns", "taking-turns", "Two threads took turns on one GIL"},
                      Expected{"convoy", "convoy", "Three threads needed the GIL for"},
                      Expected{"convoy-not", "not-the-gil", "not the problem"},
                      Expected{"asleep", "asleep-with-gil taking-turns", "times, longest 20ms"},
                      Expected{"asleep-not", "convoy", "One thread needed the GIL for"},
                      Expected{"preempted", "preempted-with-gil waiting",
                               "was preempted with the GIL"},
                      Expected{"preempted-not", "too-few-cpus", "CPUs are"},
                      Expected{"preempted-turns", "preempted-with-gil taking-turns",
                               "Two threads were preempted with the GIL"},
                      Expected{"hand-off", "taking-turns hand-off-bound", "took turns"},
                      Expected{"hand-off-not", "taking-turns", "took turns"},
                      Expected{"native", "native-in-parallel", "ran native code without it"},
                      Expected{"native-not", "waiting", "for the GIL"},
                      Expected{"sleeping", "not-the-gil", "not the problem"},
                      Expected{"one-thread", "one-thread", "nobody waited"},
                      Expected{"interpreters", "interpreters-in-parallel", "a GIL of its own"},
                      Expected{"interpreters-not", "taking-turns", "took turns on one GIL"},
                      Expected{"free-threaded", "free-threaded", "GIL off"},
                      Expected{"free-threaded-not", "taking-turns", "took turns on one GIL"},
                      Expected{"unknown", "unknown", "not known who held the GIL"},
                      Expected{"unknown-not", "taking-turns", "took turns on one GIL"}),
    [](const auto& test) {
      std::string name = test.param.recording;
      for (char& c : name)
        if (c == '-') c = '_';
      return name;
    });

}  // namespace
}  // namespace giltop
