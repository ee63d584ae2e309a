// What TraceWriter writes obeys the rules of Perfetto's importer, and the checker of these rules
// finds what breaks them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sink/trace_format.h"
#include "sink/trace_writer.h"
#include "support/event_builder.h"
#include "support/light_history.h"
#include "support/trace_checker.h"

namespace giltop {
namespace {

using ::testing::_;
using testing::check_trace_bytes;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kStart_ns;
using testing::Message;
using ::testing::Pair;
using testing::Simulation;
using testing::Story;
using testing::TraceCounts;

// The packets of a recording, uncompressed: to the importer that is the same.
class Writing {
 public:
  explicit Writing(const EventTables& tables)
      : model_(tables), writer_(tables, [this](std::string block) {
          largest_ = std::max(largest_, block.size());
          bytes_ += block;
        }) {
    run_.version = "test";
    writer_.start({"Linux", "6.1.0", "#1 SMP", "x86_64", 2},
                  {kStart_ns - 10, kStart_ns - 20, 1'700'000'000'000'000'000}, run_);
  }
  void take(const std::vector<Event>& events) {
    for (const Event& event : events) writer_.write(event, model_.apply(event));
  }
  const std::string& finish() {
    writer_.finish(model_.last_ns(), run_);
    return bytes_;
  }
  TraceWriter& writer() { return writer_; }
  size_t largest() const { return largest_; }

 private:
  RunFacts run_;
  Model model_;
  std::string bytes_;
  size_t largest_ = 0;
  TraceWriter writer_;
};

std::vector<std::string> check(const EventTables& tables, const std::vector<Event>& events,
                               TraceCounts* counts = nullptr) {
  Writing writing(tables);
  writing.take(events);
  return check_trace_bytes(writing.finish(), counts);
}

Story two_threads() {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main");
  story.at(1).forks("main", "worker").at(2).runs("worker");
  return story;
}

TEST(TraceRules, ATraceOfTwoThreads) {
  Story story = two_threads();
  story.at(10).acquires("main").at(20).waits("worker").at(22).sleeps("worker");
  story.at(30).releases("main").at(31).forced("main");
  story.at(35).wakes("worker").at(36).runs("worker").at(37).acquires("worker");
  story.at(50).releases("worker").at(60).exits("worker").at(61).dies("worker");
  story.at(70).exits_last("main").at(80).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.slices, 3u + 2u) << "a wait, two holds, and two holds on the owner's track";
  EXPECT_EQ(counts.threads, 2u);
  EXPECT_EQ(counts.flows_begun, 1u);
  EXPECT_EQ(counts.flows_ended, 1u);
  EXPECT_EQ(counts.states, 1u + 2u + 3u + 1u + 1u);
  EXPECT_EQ(counts.running_ns[101], (22u - 2) + (60 - 36));
  EXPECT_TRUE(counts.finished);
  EXPECT_FALSE(counts.truncated);
  EXPECT_EQ(counts.waits_told, 1u);
  EXPECT_THAT(counts.odd_waits, IsEmpty());
  EXPECT_EQ(counts.contended, 1u);
  EXPECT_EQ(counts.forced, 0u) << "the release came before the waiter asked for it";
  EXPECT_THAT(counts.ranked, ElementsAre(Pair(_, "GIL owner"), Pair(_, "GIL waiters")));
  EXPECT_EQ(counts.attributes["giltop.version"], "test");
  EXPECT_EQ(counts.attributes["giltop.mode"], "exact");
  EXPECT_EQ(counts.attributes["giltop.lost_events"], "0");
}

TEST(TraceRules, EachNameOfAThreadIsInternedOnItsOwn) {
  Story story = two_threads();
  story.at(10).acquires("worker").at(20).releases("worker").renamed("worker", "loader");
  story.at(30).acquires("worker").at(40).releases("worker").loses(1, 1, 50);
  story.at(60).acquires("worker").at(70).releases("worker").renamed("worker", "saver");
  story.at(80).acquires("worker").at(90).releases("worker").ends();
  EXPECT_THAT(check(story.tables(), story.events()), IsEmpty());
}

TEST(TraceRules, AReleaseThatAWaiterAskedFor) {
  Story story = two_threads();
  story.at(10).acquires("main").at(20).waits("worker").at(21).waits("worker");
  story.at(30).releases("main").at(40).acquires("worker").at(50).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.forced, 1u);
}

TEST(TraceRules, TracksOfSeveralGils) {
  Story story = two_threads();
  story.with_gil("worker", testing::kGil + 0x1000);
  story.at(10).acquires("main").acquires("worker").at(50).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_THAT(counts.ranked, ElementsAre(Pair(_, "GIL owner"), Pair(_, "GIL waiters"),
                                         Pair(_, "GIL owner 0x7f0000002000"),
                                         Pair(_, "GIL waiters 0x7f0000002000")));
}

TEST(TraceRules, AFlowEndsOnlyWhereOneBeganAlsoAfterAttachingInMidRun) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).seen("main").seen("worker");
  story.at(20).waits("worker").at(30).releases("main").at(40).acquires("worker").at(50).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.flows_begun, 1u);
  EXPECT_EQ(counts.flows_ended, 1u);
}

TEST(TraceRules, ALossAfterTheClocksWereWrittenAgain) {
  // The clocks are read now; the events, and so a loss, come from a moment before.
  Story story = two_threads();
  Writing writing(story.tables());
  writing.take(story.events());
  writing.writer().clocks({kStart_ns + 500, kStart_ns + 490, 1'700'000'000'000'000'510});
  Story loss;
  loss.at(100).loses(0, 5, 120).at(200).ends();
  writing.take(loss.events());
  EXPECT_THAT(check_trace_bytes(writing.finish()), IsEmpty());
}

TEST(TraceRules, AfterALossTheStateIsBuiltAnew) {
  Story story = two_threads();
  story.at(10).acquires("main").at(20).waits("worker");
  story.at(50).loses(1, 7, 60).at(51).loses(2, 1, 60);
  story.at(70).releases("main").at(80).acquires("worker").at(90).runs("main").at(95).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.losses, 2u);
  EXPECT_EQ(counts.attributes["giltop.lost_events"], "8");
}

TEST(TraceRules, AfterALossNobodyIsShownToRunOn) {
  Story story = two_threads();
  story.at(100).sleeps("worker").at(150).wakes("worker");
  // The importer takes one state of a thread a moment.
  story.at(200).runs("worker").loses(1, 7, 300).loses(2, 1, 250);
  story.at(310).acquires("main").at(5000).sleeps("worker").at(6000).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.running_ns[100], 200u);
  EXPECT_EQ(counts.running_ns[101], (100u - 2) + (310 - 200)) << "up to the next event";
}

TEST(TraceRules, WhoEndsInTheMomentOfALossIsOnlyShownToEnd) {
  Story story = two_threads();
  story.at(100).sleeps("worker").at(150).wakes("worker");
  story.at(200).runs("worker").loses(1, 7, 300).exits("worker");
  story.at(310).forks("main", "worker").at(320).runs("worker");
  story.at(400).runs("main").loses(1, 7, 410).execs("main");
  story.at(420).sleeps("main").at(500).exits("worker").at(600).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.running_ns[101], (100u - 2) + (310 - 200) + (400 - 320));
  EXPECT_EQ(counts.running_ns[100], 200u) << "of the new program nothing is known";
}

TEST(TraceRules, ExecAndReusedIds) {
  Story story = two_threads();
  story.at(10).acquires("main").at(20).exits("worker").at(21).dies("worker");
  story.at(30).execs("main").at(40).forks("main", "worker").at(50).runs("worker");
  story.at(60).exits("worker").at(70).exits_last("main").at(80).ends();
  EXPECT_THAT(check(story.tables(), story.events()), IsEmpty());
}

TEST(TraceRules, ThousandsOfThreadsLostAtOnceStayInSmallBlocks) {
  Story story;
  story.process("main", 100).at(0).execs("main").is_python("main");
  const uint32_t kThreads = 12'000;
  for (uint32_t i = 0; i < kThreads; i++) {
    const std::string name = "t" + std::to_string(i);
    story.thread(name, "main", 1000 + i).on_cpu(name, static_cast<uint16_t>(i % 64));
    story.at(10 + 4 * i).forks("main", name).at(11 + 4 * i).runs(name).at(12 + 4 * i).waits(name);
  }
  story.at(100'000).loses(4, 1, 100'010).at(200'000).ends();
  Writing writing(story.tables());
  writing.take(story.events());
  EXPECT_THAT(check_trace_bytes(writing.finish()), IsEmpty());
  EXPECT_LE(writing.largest(), trace::kMaxBlockBytes);
}

TEST(TraceRules, LegalHistories) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 400, .gils = 1 + unsigned(seed % 2)});
    TraceCounts counts;
    ASSERT_THAT(check(simulation.tables(), simulation.events(), &counts), IsEmpty())
        << "seed " << seed;
    uint64_t acquires = 0, waits = 0;
    for (const auto& truth : simulation.truth()) {
      acquires += truth.acquires;
      waits += truth.contended;
    }
    ASSERT_GE(counts.slices, 2 * acquires + waits);
    ASSERT_EQ(counts.threads, simulation.truth().size());
    ASSERT_EQ(counts.waits_told, waits) << "seed " << seed;
    ASSERT_EQ(counts.contended, waits) << "seed " << seed;
    ASSERT_THAT(counts.odd_waits, IsEmpty()) << "seed " << seed;
  }
}

TEST(TraceRules, HistoriesSeenFromTheMiddle) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    const Simulation simulation(seed, {.steps = 300, .unseen_steps = 20 + seed % 200});
    ASSERT_THAT(check(simulation.tables(), simulation.events()), IsEmpty()) << "seed " << seed;
  }
}

TEST(TraceRules, HistoriesWithReadings) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(
        seed, {.steps = 300,
               .unseen_steps = 20 + seed % 200,
               .gils = 1 + unsigned(seed % 2),
               .readings = seed % 3 ? testing::Readings::wrong : testing::Readings::right});
    auto events = simulation.events();
    if (seed % 5 == 0) events = testing::with_losses(events, seed, 1 + seed % 4);
    ASSERT_THAT(check(simulation.tables(), events), IsEmpty()) << "seed " << seed;
  }
}

TEST(TraceRules, HistoriesWithLossesAndHiddenSwitches) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 400, .gils = 1 + unsigned(seed % 2)});
    auto events = testing::with_losses(simulation.events(), seed, 1 + seed % 8);
    if (seed % 2) events = testing::with_hidden_switch_ins(events, seed, 10);
    ASSERT_THAT(check(simulation.tables(), events), IsEmpty()) << "seed " << seed;
  }
}

TEST(TraceRules, HistoriesInLightMode) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 300, .gils = 1 + unsigned(seed % 2)});
    auto events =
        testing::as_light(simulation.tables(), simulation.events(), seed, 300'000, seed % 2 != 0);
    if (seed % 3 == 0) events = testing::with_losses(events, seed, 1 + seed % 8);
    if (seed % 3 == 1) events = testing::with_garbage(events, seed, 1 + seed % 100);
    ASSERT_THAT(check(simulation.tables(), events), IsEmpty()) << "seed " << seed;
  }
}

// A forked child begins with the GIL. In light mode, where nobody has found its GIL yet, that is
// not known any more once it has run: what is drawn is no more than what the report knows.
TEST(TraceRules, AChildWhoseGilIsNotFound) {
  Story story;
  story.process("main", 100).process("child", 102).on_cpu("child", 1);
  story.at(0).execs("main").is_python("main").at(10).acquires("main");
  story.at(20).forks("main", "child").goes_light("child");
  story.at(30).runs("child").at(50).sleeps("child").at(400).wakes("child").runs("child");
  story.at(500).sleeps("child").at(900).ends();
  TraceCounts counts;
  EXPECT_THAT(check(story.tables(), story.events(), &counts), IsEmpty());
  EXPECT_EQ(counts.held_ns[102], 50u - 20);
}

TEST(TraceRules, HistoriesThatCannotBe) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 200});
    const auto events = testing::with_garbage(simulation.events(), seed, 1 + seed % 100);
    ASSERT_THAT(check(simulation.tables(), events), IsEmpty()) << "seed " << seed;
  }
}

// --- the checker itself --------------------------------------------------------------------------

// A packet of the sequence, `delta` ns after the one before.
std::string packet_of(uint32_t field, const Message& message, uint64_t delta = 1) {
  Message body;
  body.field(trace::packet::kTimestamp, delta);
  body.field(trace::packet::kSequenceId, 1);
  body.field(trace::packet::kSequenceFlags, 2);
  body.bytes(field, message.data());
  Message record;
  record.bytes(trace::kTracePacket, body.data());
  return record.data();
}

std::string state_of(uint32_t tid, uint32_t state, uint64_t delta = 1) {
  Message task;
  task.field(trace::task::kCpu, 0);
  task.field(trace::task::kTid, tid);
  task.field(trace::task::kState, state);
  return packet_of(trace::packet::kTaskState, task, delta);
}

std::string event_of(uint64_t type, uint64_t track, uint64_t name, uint64_t ends_flow = 0) {
  Message event;
  event.field(trace::event::kType, type);
  event.field(trace::event::kTrack, track);
  if (name) event.field(trace::event::kNameId, name);
  if (ends_flow) event.fixed64(trace::event::kTerminatingFlow, ends_flow);
  return packet_of(trace::packet::kTrackEvent, event);
}

TEST(TraceChecker, FindsWhatBreaksARule) {
  Story story = two_threads();
  Writing writing(story.tables());
  writing.take(story.events());
  writing.writer().flush();
  const std::string good = [&] {
    Writing again(story.tables());
    again.take(story.events());
    return again.finish();
  }();
  ASSERT_THAT(check_trace_bytes(good), IsEmpty());
  const auto with = [&](const std::string& more) { return check_trace_bytes(good + more); };
  using namespace trace;
  EXPECT_THAT(with(state_of(101, task::kRunning)), Contains(HasSubstr("running twice")));
  EXPECT_THAT(with(state_of(101, 4) + state_of(101, 3, 0)), Contains(HasSubstr("two states")));
  EXPECT_THAT(with(state_of(101, 8) + state_of(101, 3)), Contains(HasSubstr("destroyed")));
  EXPECT_THAT(with(state_of(101, 7) + state_of(101, 3)), Contains(HasSubstr("death")));
  EXPECT_THAT(with(state_of(100, 8)), Contains(HasSubstr("main thread")));
  EXPECT_THAT(with(state_of(555, 3)), Contains(HasSubstr("not described")));
  EXPECT_THAT(with(state_of(101, 1)), Contains(HasSubstr("CREATED")));
  EXPECT_THAT(with(event_of(event::kEnd, kRootTrack, 0)),
              Contains(HasSubstr("without a beginning")));
  EXPECT_THAT(with(event_of(event::kBegin, kRootTrack, 1)), Contains(HasSubstr("never ends")));
  EXPECT_THAT(with(event_of(event::kBegin, 999, 1)), Contains(HasSubstr("not described")));
  EXPECT_THAT(with(event_of(event::kInstant, kRootTrack, 12345)), Contains(HasSubstr("interned")));
  EXPECT_THAT(with(event_of(event::kBegin, kRootTrack, 1, 77)), Contains(HasSubstr("flow 77")));
  EXPECT_THAT(with(packet_of(packet::kTrackEvent, {}, ~uint64_t{0})),
              Contains(HasSubstr("negative")));
  EXPECT_THAT(with("x"), Contains(HasSubstr("begins no packet")));
  EXPECT_THAT(check_trace_bytes(""), Contains(HasSubstr("SystemInfo")));
  TraceCounts counts;
  check_trace_bytes(std::string_view(good).substr(0, good.size() - 3), &counts);
  EXPECT_TRUE(counts.truncated);
}

}  // namespace
}  // namespace giltop
