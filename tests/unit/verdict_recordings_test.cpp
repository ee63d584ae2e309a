// The rules of the verdict, each against a recording of what it is made for, and one like it that
// it must leave alone. Recorded by tools/record-verdicts.
//
//   rule                     speaks of                      leaves alone
//   summed-up                summed-up, ended summed up     summed-up, as it is
//   free-threaded            free-threaded                  free-threaded-not: its GIL is on
//   unused                   unused                         unused-not: they wake meanwhile
//   unknown                  unknown                        unknown-not: sampled, nothing lost
//   asleep-with-gil          asleep                         asleep-not: it lets go first
//   preempted-with-gil       preempted, preempted-turns     preempted-not: nobody waits for it
//   hand-off-bound           hand-off                       hand-off-not: 3 ms of work in between
//   convoy                   convoy                         convoy-not: it computes without the GIL
//   taking-turns             taking-turns                   native-not: short waits of I/O
//   waiting                  native-not                     sleeping: nobody waits
//   interpreters-in-parallel interpreters                   interpreters-not: one GIL for all
//   native-in-parallel       native                         native-not: the GIL between calls
//   one-thread               one-thread                     taking-turns
//   too-few-cpus             preempted-not                  native: each has a CPU
//   not-the-gil              sleeping, convoy-not           all others
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>

#include "model/model.h"
#include "model/verdict.h"
#include "sink/trace_reader.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

std::optional<Snapshot> snapshot_of_recording(const std::string& name, const ModelLimits& limits) {
  const std::string file = std::string(GILTOP_TEST_DIR) + "/recordings/" + name + ".pftrace";
  EventTables tables;
  Model model(tables, limits);
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
  bool summed_up = false;  // what has ended is, and so judged
};

class VerdictRecordings : public ::testing::TestWithParam<Expected> {};

TEST_P(VerdictRecordings, AreJudgedRight) {
  const bool summed_up = GetParam().summed_up;
  const auto snapshot = snapshot_of_recording(
      GetParam().recording, summed_up ? ModelLimits{.ended_processes = 1} : ModelLimits());
  ASSERT_TRUE(snapshot);
  const ProcessSnapshot& process =
      summed_up ? snapshot->processes.back() : snapshot->processes.front();
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

constexpr Expected kExpected[] = {
    {"taking-turns", "taking-turns", "Two threads took turns on one GIL"},
    {"convoy", "convoy", "Three threads needed the GIL for"},
    {"convoy-not", "not-the-gil", "not the problem"},
    {"asleep", "asleep-with-gil taking-turns", "times, longest 20ms"},
    {"asleep-not", "convoy", "One thread needed the GIL for"},
    {"preempted", "preempted-with-gil waiting", "was preempted with the GIL"},
    {"preempted-not", "too-few-cpus", "CPUs are"},
    {"preempted-turns", "preempted-with-gil taking-turns",
     "Two threads were preempted with the GIL"},
    {"hand-off", "hand-off-bound waiting", "Handing the GIL over took"},
    {"hand-off-second", "taking-turns hand-off-bound", "took turns"},
    {"hand-off-not", "taking-turns", "took turns"},
    {"native", "native-in-parallel", "ran native code without it"},
    {"native-not", "waiting", "for the GIL"},
    {"sleeping", "not-the-gil", "not the problem"},
    {"one-thread", "one-thread", "nobody waited"},
    {"interpreters", "interpreters-in-parallel", "a GIL of its own"},
    {"interpreters-not", "taking-turns", "took turns on one GIL"},
    {"free-threaded", "free-threaded", "GIL off"},
    {"free-threaded-not", "taking-turns", "took turns on one GIL"},
    {"unused", "unused", "Nobody took or released the GIL meanwhile"},
    {"unused-not", "not-the-gil", "not the problem"},
    {"summed-up", "waiting preempted-with-gil", "for the GIL"},
    {"summed-up", "summed-up", "Summed up,", true},
    {"unknown", "unknown", "not known who held the GIL"},
    {"unknown-not", "taking-turns", "took turns on one GIL"}};

TEST(VerdictRules, EachHasARecording) {
  std::set<std::string> spoke;
  for (const Expected& expected : kExpected)
    spoke.insert(
        std::string(expected.findings).substr(0, std::string(expected.findings).find(' ')));
  EXPECT_THAT(spoke, IsSupersetOf(all_findings()));
}

INSTANTIATE_TEST_SUITE_P(, VerdictRecordings, ::testing::ValuesIn(kExpected), [](const auto& test) {
  std::string name = test.param.recording;
  if (test.param.summed_up) name += "-folded";
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
});

}  // namespace
}  // namespace giltop
