// What each thread was doing, moment by moment.
#include "model/spans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "model/snapshot.h"
#include "support/event_builder.h"
#include "support/light_history.h"

namespace giltop {
namespace {

using ::testing::ElementsAre;
using testing::kStart_ns;
using testing::Simulation;
using ::testing::SizeIs;
using testing::Story;

constexpr uint64_t kMs = 1'000'000;
constexpr unsigned kHoldingRunning = 0, kHoldingBlocked = 2, kWaitingRunning = 4,
                   kWaitingBlocked = 6, kReleasedRunning = 8, kReleasedRunnable = 9,
                   kReleasedBlocked = 10;

struct Recorded {
  Recorded(EventTables& tables, const std::vector<Event>& events, size_t most = SpanRecorder::kMost,
           const ModelLimits& limits = {})
      : model(tables, limits) {
    SpanRecorder recorder(most);
    for (const Event& event : events) {
      const Change change = model.apply(event);
      recorder.take(model, event, change);
    }
    spans = recorder.finish();
  }
  const SpanRow& of(uint32_t tid) const {
    for (const Thread& thread : model.threads())
      for (const SpanRow& row : spans.rows)
        if (thread.tid == tid && row.thread == thread.number) return row;
    static const SpanRow none;
    ADD_FAILURE() << "no row of " << tid;
    return none;
  }

  Model model;
  Spans spans;
};

std::array<uint64_t, 16> cells_of(const Thread& thread) {
  std::array<uint64_t, 16> cells;
  for (size_t i = 0; i < cells.size(); i++) cells[i] = thread.matrix[i / 4][i % 4];
  return cells;
}

// Two threads that hand the GIL to each other every 5 ms.
Story turns(unsigned count) {
  Story story;
  story.process("main", 100).thread("a", "main", 101).thread("b", "main", 102);
  story.on_cpu("a", 1).on_cpu("b", 2);
  story.at(0).execs("main").is_python("main").forks("main", "a").forks("main", "b");
  story.sleeps("main").runs("a").runs("b").acquires("a").waits("b").sleeps("b");
  for (uint64_t turn = 1; turn <= count; turn++) {
    const auto [from, to] = turn % 2 ? std::pair("a", "b") : std::pair("b", "a");
    story.at(turn * 5 * kMs).releases(from).runs(to).acquires(to).waits(from).sleeps(from);
  }
  story.at((count + 1) * 5 * kMs).ends();
  return story;
}

// Histories as the model meets them: whole ones, with losses, of light mode, with what must not be.
std::vector<Event> history(Simulation& simulation, uint64_t seed) {
  auto events = testing::with_programs(simulation.tables(), simulation.events());
  if (seed % 2 == 0) events = testing::as_light(simulation.tables(), events, seed, 3 * kMs);
  if (seed % 3 == 0) events = testing::with_other_charges(events, seed);
  if (seed % 5 == 0) events = testing::with_hidden_switch_ins(events, seed, 10);
  if (seed % 7 == 0) events = testing::with_losses(events, seed, 3);
  if (seed % 11 == 0) events = testing::with_garbage(events, seed, 100);
  return events;
}

TEST(SpanRecorder, ThreadsThatTakeTurnsAlternate) {
  Story story = turns(4);
  const Recorded recorded(story.tables(), story.events());
  const auto span = [](uint64_t ns, unsigned cell) { return Span{ns, cell}; };
  EXPECT_THAT(recorded.of(101).spans,
              ElementsAre(span(5 * kMs, kHoldingRunning), span(5 * kMs, kWaitingBlocked),
                          span(5 * kMs, kHoldingRunning), span(5 * kMs, kWaitingBlocked),
                          span(5 * kMs, kHoldingRunning)));
  EXPECT_THAT(recorded.of(102).spans,
              ElementsAre(span(5 * kMs, kWaitingBlocked), span(5 * kMs, kHoldingRunning),
                          span(5 * kMs, kWaitingBlocked), span(5 * kMs, kHoldingRunning),
                          span(5 * kMs, kWaitingBlocked)));
  EXPECT_THAT(recorded.of(100).spans, ElementsAre(span(25 * kMs, kReleasedBlocked)));
  EXPECT_EQ(recorded.of(100).first_ns, kStart_ns);
}

TEST(SpanRecorder, WhatTheSchedulerChargesLaterIsMovedToWhereItWas) {
  Story story;
  story.process("main", 100);
  story.at(0).execs("main").is_python("main").sleeps("main");
  story.at(100'000).wakes("main");
  story.at(150'000).runs("main");
  // It ran for 30 µs longer than it was seen to.
  story.after(250'000, 130'000).sleeps("main");
  story.at(300'000).ends();
  const Recorded recorded(story.tables(), story.events());
  EXPECT_THAT(recorded.of(100).spans,
              ElementsAre(Span{100'000, kReleasedBlocked}, Span{20'000, kReleasedRunnable},
                          Span{130'000, kReleasedRunning}, Span{50'000, kReleasedBlocked}));
}

TEST(SpanRecorder, SpansSayWhichGilTheyAreAbout) {
  Story story;
  story.process("main", 100).thread("a", "main", 101);
  story.at(0).execs("main").is_python("main").forks("main", "a").sleeps("main").runs("a");
  story.at(10).acquires("a").at(20).releases("a");
  story.with_gil("a", 0x7000).at(30).acquires("a").at(40).releases("a");
  story.at(50).ends();
  const Recorded recorded(story.tables(), story.events());
  const SpanRow& row = recorded.of(101);
  ASSERT_THAT(row.gils, SizeIs(2));
  ASSERT_THAT(row.spans, SizeIs(5));
  EXPECT_EQ(row.spans[row.gils[0].first].cell, kHoldingRunning);
  EXPECT_EQ(row.gils[0].first, 1u);
  EXPECT_EQ(row.gils[1].first, 3u);
  EXPECT_NE(row.gils[0].second, row.gils[1].second);
}

TEST(SpanRecorder, SpansAddUpToTheMatrix) {
  size_t rows = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Simulation simulation(seed, {.steps = 3000, .max_threads = 12});
    // Where few are kept, the place of one that is gone is another's.
    const ModelLimits few{.ended_threads = 3, .ended_processes = 2, .ended_gils = 4, .programs = 2};
    const Recorded recorded(simulation.tables(), history(simulation, seed), SpanRecorder::kMost,
                            seed % 4 == 0 ? few : ModelLimits());
    std::map<uint64_t, const SpanRow*> by_number;
    for (const SpanRow& row : recorded.spans.rows) by_number[row.thread] = &row;
    for (const Thread& thread : recorded.model.threads()) {
      if (thread.gone || thread.folded != 0) continue;
      const auto found = by_number.find(thread.number);
      if (found == by_number.end()) {  // never more than a moment
        EXPECT_EQ(thread.life_ns(), 0u) << "seed " << seed << " tid " << thread.tid;
        continue;
      }
      EXPECT_EQ(found->second->first_ns, thread.first_ns);
      EXPECT_EQ(found->second->cells(), cells_of(thread)) << "seed " << seed << " " << thread.tid;
      for (const Span& span : found->second->spans) EXPECT_NE(span.ns, 0u);
      rows++;
    }
  }
  EXPECT_GT(rows, 300u);
}

TEST(SpanRecorder, HoldsOfOneGilDoNotOverlap) {
  size_t count = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Simulation simulation(seed, {.steps = 3000, .gils = 1, .max_threads = 12});
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    const Recorded recorded(simulation.tables(), events);
    std::map<uint64_t, std::vector<std::pair<uint64_t, uint64_t>>> holds;  // by GIL
    for (const SpanRow& row : recorded.spans.rows) {
      uint64_t at = row.first_ns, gil = 0;
      size_t next = 0;
      for (size_t i = 0; i < row.spans.size(); i++) {
        if (next < row.gils.size() && row.gils[next].first == i) gil = row.gils[next++].second;
        if (row.spans[i].cell < 4) {
          holds[gil].emplace_back(at, at + row.spans[i].ns);
          count++;
        }
        at += row.spans[i].ns;
      }
    }
    for (auto& [gil, list] : holds) {
      std::sort(list.begin(), list.end());
      for (size_t i = 1; i < list.size(); i++) EXPECT_LE(list[i - 1].second, list[i].first) << gil;
    }
  }
  EXPECT_GT(count, 100u);
}

TEST(Spans, CoarserOnesAddUpToTheSame) {
  for (uint64_t seed = 1; seed <= 12; seed++) {
    Simulation simulation(seed, {.steps = 3000, .max_threads = 12});
    const Recorded recorded(simulation.tables(), history(simulation, seed));
    Spans coarser = recorded.spans;
    size_t before = coarser.count();
    // Again and again, as they are made to fit.
    for (const uint64_t resolution_ns : {kMs / 10, kMs, 20 * kMs}) {
      coarser.coarsen(resolution_ns);
      EXPECT_EQ(coarser.resolution_ns, resolution_ns);
      EXPECT_LE(coarser.count(), before);
      before = coarser.count();
      for (size_t i = 0; i < coarser.rows.size(); i++) {
        const SpanRow &row = coarser.rows[i], &exact = recorded.spans.rows[i];
        EXPECT_EQ(row.thread, exact.thread);
        EXPECT_EQ(row.cells(), exact.cells());
        // Of two neighbours one at least is as long as that.
        for (size_t s = 1; s < row.spans.size(); s++)
          EXPECT_GE(std::max<uint64_t>(row.spans[s - 1].ns, row.spans[s].ns), resolution_ns);
      }
    }
  }
}

TEST(Spans, WhatIsLongEnoughStaysAsItIs) {
  Story story = turns(6);
  const Recorded recorded(story.tables(), story.events());
  Spans coarser = recorded.spans;
  coarser.coarsen(5 * kMs);
  EXPECT_EQ(coarser.rows[1].spans, recorded.spans.rows[1].spans);
  coarser.coarsen(10 * kMs);
  ASSERT_FALSE(coarser.rows[1].spans.empty());
  EXPECT_EQ(coarser.rows[1].spans[0], (Span{10 * kMs, Span::kMixed}));
  ASSERT_GE(coarser.rows[1].parts.size(), 2u);
  EXPECT_EQ(coarser.rows[1].parts[0], (Span{5 * kMs, kHoldingRunning}));
  EXPECT_EQ(coarser.rows[1].parts[1], (Span{5 * kMs, kWaitingBlocked}));
}

TEST(SpanRecorder, MemoryIsBoundedAndSumsAreNot) {
  constexpr size_t kMost = 1000;
  Story story = turns(4000);
  // What light mode decides later is in mixed spans by then.
  const auto light = testing::as_light(story.tables(), story.events(), 1, 3 * kMs);
  for (const std::vector<Event>& events : {story.events(), light}) {
    const Recorded exact(story.tables(), events), bounded(story.tables(), events, kMost);
    ASSERT_GT(exact.spans.count(), 2 * kMost);
    EXPECT_LE(bounded.spans.count(), kMost);
    EXPECT_GT(bounded.spans.resolution_ns, 0u);
    ASSERT_EQ(bounded.spans.rows.size(), exact.spans.rows.size());
    for (size_t i = 0; i < exact.spans.rows.size(); i++)
      EXPECT_EQ(bounded.spans.rows[i].cells(), exact.spans.rows[i].cells());
  }
}

}  // namespace
}  // namespace giltop
