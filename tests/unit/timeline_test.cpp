// What threads were doing, column by column, and how much processes waited, second by second.
#include "model/timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "model/snapshot.h"
#include "support/event_builder.h"
#include "support/light_history.h"

namespace giltop {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::kStart_ns;
using testing::Simulation;
using ::testing::SizeIs;
using testing::Story;

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kStep = TimelineRecorder::kStep_ns;
constexpr size_t kHoldingRunning = 0, kWaitingBlocked = 1 * 4 + 2, kReleasedRunning = 2 * 4,
                 kReleasedBlocked = 2 * 4 + 2;

unsigned sum_of(const Timeline::Column& column) {
  return std::accumulate(column.begin(), column.end(), 0u);
}

struct Watching {
  explicit Watching(Story& told) : story(told), model(told.tables()) {}
  void play() {
    for (; next < story.events().size(); next++) {
      const Event& event = story.events()[next];
      recorder.pass(model, event.ts_ns);
      history.pass(model, event.ts_ns);
      model.apply(event);
    }
  }
  void tick(uint64_t ns) {
    play();
    recorder.pass(model, kStart_ns + ns);
    history.pass(model, kStart_ns + ns);
    model.advance_to(kStart_ns + ns);
  }
  Story& story;
  Model model;
  TimelineRecorder recorder;
  WaitHistory history;
  size_t next = 0;
};

TEST(TimelineRecorder, ThreadsThatTakeTurnsAlternate) {
  Story story;
  story.process("main", 100).thread("a", "main", 101).thread("b", "main", 102);
  story.on_cpu("a", 1).on_cpu("b", 2);
  story.at(0).execs("main").is_python("main").forks("main", "a").forks("main", "b");
  story.sleeps("main").runs("a").runs("b").acquires("a").waits("b").sleeps("b");
  Watching watching(story);
  watching.play();
  watching.recorder.watch(watching.model.processes().front().number, watching.model);
  for (uint64_t turn = 1; turn <= 40; turn++) {
    const auto [from, to] = turn % 2 ? std::pair("a", "b") : std::pair("b", "a");
    story.at(turn * 5 * kMs).releases(from).runs(to).acquires(to).waits(from).sleeps(from);
  }
  watching.tick(41 * 5 * kMs);
  const Timeline timeline = watching.recorder.timeline();
  EXPECT_EQ(timeline.step_ns, kStep);
  EXPECT_EQ(timeline.end_ns, kStart_ns + 41 * 5 * kMs);
  ASSERT_THAT(timeline.rows, SizeIs(3));
  EXPECT_EQ(timeline.rows[0].tid, 100u);
  EXPECT_EQ(timeline.rows[1].tid, 101u);
  EXPECT_EQ(timeline.rows[2].tid, 102u);
  for (size_t i = 0; i < 41; i++) {
    const size_t holder = i % 2 ? 2 : 1, waiter = 3 - holder;
    EXPECT_EQ(timeline.rows[0].columns.at(i)[kReleasedBlocked], 255) << i;
    EXPECT_EQ(timeline.rows[holder].columns.at(i)[kHoldingRunning], 255) << i;
    EXPECT_EQ(timeline.rows[waiter].columns.at(i)[kWaitingBlocked], 255) << i;
  }
}

TEST(TimelineRecorder, ColumnsAreWholeWhileAThreadLives) {
  for (uint64_t seed = 1; seed <= 30; seed++) {
    Simulation simulation(seed, {.steps = 3000, .max_threads = 12});
    auto events = testing::with_programs(simulation.tables(), simulation.events());
    if (seed % 2 == 0) events = testing::as_light(simulation.tables(), events, seed, 3 * kMs);
    if (seed % 3 == 0) events = testing::with_other_charges(events, seed);
    Model model(simulation.tables());
    TimelineRecorder recorder;
    std::mt19937_64 rng(seed);
    for (Event event : events) {
      event.ts_ns = std::max(event.ts_ns, model.last_ns());
      recorder.pass(model, event.ts_ns);
      model.apply(event);
      if (rng() % 40 == 0) model.advance_to(model.last_ns());
      const size_t count = model.processes().size();
      if (recorder.timeline().process == 0 || rng() % 1000 == 0)
        recorder.watch(model.processes()[rng() % count].number, model);
    }
    const Timeline timeline = recorder.timeline();
    const Process* const process = model.find_process(timeline.process);
    if (!process) continue;
    for (const Timeline::Row& row : timeline.rows) {
      ASSERT_EQ(row.columns.size(), timeline.rows[0].columns.size());
      const auto thread = std::find_if(process->threads.begin(), process->threads.end(),
                                       [&](const Thread* t) { return t->number == row.thread; });
      ASSERT_NE(thread, process->threads.end());
      for (size_t i = 0; i < row.columns.size(); i++) {
        const uint64_t end = timeline.end_ns - (row.columns.size() - 1 - i) * kStep;
        const unsigned sum = sum_of(row.columns[i]);
        ASSERT_LE(sum, 255u);
        // Whole, but for the first, where the watch began, and what light mode decides late.
        if (i != 0 && (*thread)->first_ns <= end - kStep && (*thread)->last_ns >= end) {
          ASSERT_GE(sum, 254u) << "seed " << seed << " column " << i;
        }
        if ((*thread)->first_ns >= end) {
          ASSERT_EQ(sum, 0u);
        }
      }
    }
  }
}

// Light mode: whether it held the GIL while it ran is known by the next sample, and then shown
// where it ran.
TEST(TimelineRecorder, WhatIsDecidedLaterIsMoved) {
  Story story;
  story.process("main", 100);
  story.at(0).execs("main").is_python("main");
  Watching watching(story);
  watching.play();
  const auto add = [&](EventKind kind, uint64_t ns, uint8_t state) {
    Event event;
    event.kind = kind;
    event.ts_ns = kStart_ns + ns;
    event.tgid = event.tid = 100;
    event.state = state;
    event.value = kind == EventKind::light_gil ? testing::kGil : 0;
    watching.recorder.pass(watching.model, event.ts_ns);
    watching.model.apply(event);
  };
  add(EventKind::mode, 1, 1);
  add(EventKind::light_gil, 2, 0);
  watching.recorder.watch(watching.model.processes().front().number, watching.model);
  add(EventKind::sample, 10 * kMs, 0x18);
  add(EventKind::sample, 30 * kMs, 0x18);  // held it for all of 20 ms
  add(EventKind::sample, 50 * kMs, 0x08);  // and then not
  watching.tick(60 * kMs);
  const Timeline timeline = watching.recorder.timeline();
  ASSERT_THAT(timeline.rows, SizeIs(1));
  ASSERT_THAT(timeline.rows[0].columns, SizeIs(12));
  for (size_t i = 1; i < 10; i++) {
    const Timeline::Column& column = timeline.rows[0].columns[i];
    EXPECT_GE(column[i < 6 ? kHoldingRunning : kReleasedRunning], 250) << i;
  }
  EXPECT_EQ(timeline.rows[0].columns[11][3 * 4], 255) << "not decided yet";
}

TEST(TimelineRecorder, KeepsSoMuchAndForgetsWhoEnded) {
  Story story;
  story.process("main", 100).thread("a", "main", 101);
  story.at(0).execs("main").is_python("main").forks("main", "a");
  Watching watching(story);
  watching.play();
  watching.recorder.watch(watching.model.processes().front().number, watching.model);
  story.at(20 * kMs).exits("a");
  watching.tick(100 * kMs);
  ASSERT_THAT(watching.recorder.timeline().rows, SizeIs(2));
  const auto ended = watching.recorder.timeline().rows[1].columns;
  EXPECT_EQ(sum_of(ended[3]), 255u);
  EXPECT_EQ(sum_of(ended[4]), 0u);
  for (uint64_t s = 1; s < 14; s++) watching.tick(s * 1000 * kMs);
  const Timeline later = watching.recorder.timeline();
  ASSERT_THAT(later.rows, SizeIs(1));
  EXPECT_THAT(later.rows[0].columns, SizeIs(TimelineRecorder::kColumns));
  // The machine slept for an hour: nobody knows what was then.
  watching.tick(3'600'000 * kMs);
  EXPECT_LE(watching.recorder.timeline().rows.at(0).columns.size(), 1u);
  watching.recorder.watch(0, watching.model);
  EXPECT_EQ(watching.recorder.timeline().process, 0u);
  EXPECT_THAT(watching.recorder.timeline().rows, IsEmpty());
}

TEST(TimelineRecorder, OfMoreThreadsThanItKeepsTheFirst) {
  Story story;
  story.process("main", 100);
  story.at(0).execs("main").is_python("main");
  for (uint32_t i = 0; i < 400; i++)
    story.thread("t" + std::to_string(i), "main", 1000 + i).forks("main", "t" + std::to_string(i));
  Watching watching(story);
  watching.play();
  watching.recorder.watch(watching.model.processes().front().number, watching.model);
  watching.tick(100 * kMs);
  EXPECT_THAT(watching.recorder.timeline().rows, SizeIs(TimelineRecorder::kThreads));
}

TEST(WaitHistory, IsOneValueASecondWhateverTheTicks) {
  Story story;
  story.process("main", 100).thread("a", "main", 101).thread("b", "main", 102);
  story.on_cpu("a", 1).on_cpu("b", 2);
  story.at(0)
      .execs("main")
      .is_python("main")
      .acquires("main")
      .forks("main", "a")
      .forks("main", "b");
  story.runs("a").runs("b").at(1).waits("a");
  Watching watching(story);
  watching.play();
  const uint64_t number = watching.model.processes().front().number;
  watching.tick(2'500 * kMs);
  EXPECT_THAT(watching.history.values().at(number), SizeIs(2));
  story.at(3'000 * kMs).waits("b").at(3'500 * kMs).exits("a");
  watching.tick(4'000 * kMs);
  const auto values = watching.history.values().at(number);
  ASSERT_THAT(values, SizeIs(4));
  EXPECT_NEAR(values[1], 1, 1e-6);
  EXPECT_NEAR(values[3], 1.5, 1e-6);
  watching.tick(100'000 * kMs);
  EXPECT_THAT(watching.history.values().at(number), SizeIs(WaitHistory::kValues));
  EXPECT_NEAR(watching.history.values().at(number).back(), 1, 1e-6);
  story.at(100'500 * kMs).exits_last("main");
  watching.tick(102'000 * kMs);
  EXPECT_THAT(watching.history.values(), IsEmpty());
}

}  // namespace
}  // namespace giltop
