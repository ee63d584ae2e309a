// Light mode: what is exact in it, and what is right on average.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "giltop/abi.h"
#include "model/model.h"
#include "support/event_builder.h"
#include "support/light_history.h"

namespace giltop {
namespace {

using testing::broken_tilings;
using testing::cells_of;
using ::testing::IsEmpty;
using testing::Played;
using testing::row_of;
using testing::Simulation;

constexpr auto kRunning = static_cast<size_t>(CpuState::running);
constexpr auto kHolding = static_cast<size_t>(GilState::holding);
constexpr auto kWaiting = static_cast<size_t>(GilState::waiting);
constexpr auto kReleased = static_cast<size_t>(GilState::released);
constexpr auto kUnknown = static_cast<size_t>(GilState::unknown);

TEST(LightModelProperties, WaitsAndWhatIsOffTheCpuAreExact) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 100 + seed % 400, .gils = 1 + unsigned(seed % 2)});
    const Played played(simulation.tables(),
                        testing::as_light(simulation.tables(), simulation.events(), seed, 500'000));
    ASSERT_THAT(broken_tilings(played.model), IsEmpty()) << "seed " << seed;
    ASSERT_EQ(played.model.violations(), 0u) << "seed " << seed;
    ASSERT_EQ(played.model.threads().size(), simulation.truth().size()) << "seed " << seed;
    for (size_t i = 0; i < simulation.truth().size(); i++) {
      const Simulation::Truth& truth = simulation.truth()[i];
      const Thread& thread = played.model.threads()[i];
      ASSERT_EQ(thread.tid, truth.tid) << "seed " << seed;
      ASSERT_EQ(cells_of(thread), truth.last_ns - truth.first_ns) << "seed " << seed;
      ASSERT_EQ(thread.matrix[kWaiting], truth.matrix[kWaiting]) << "seed " << seed << " " << i;
      ASSERT_EQ(thread.contended, truth.contended) << "seed " << seed;
      ASSERT_EQ(thread.wait.count(), truth.contended) << "seed " << seed;
      uint64_t running = 0, truly = 0;
      for (const size_t g : {kHolding, kReleased, kUnknown}) {
        running += thread.matrix[g][kRunning];
        truly += truth.matrix[g][kRunning];
        for (size_t c = 0; c < 4; c++) {
          // A forked child holds its copy of the GIL if its parent held, which is not known while
          // that one runs.
          if (c != kRunning && !thread.process->forked) {
            ASSERT_EQ(thread.matrix[g][c], truth.matrix[g][c]) << "seed " << seed << " " << i;
          }
        }
      }
      ASSERT_EQ(running, truly) << "seed " << seed;
    }
  }
}

// A sample may hit what has ended and has not been switched out for good.
TEST(LightModel, ASampleOfWhoHasEndedIsNobodysLife) {
  EventTables tables;
  Model model(tables);
  const auto tell = [&](EventKind kind, uint64_t ts_ns) {
    Event event;
    event.kind = kind;
    event.ts_ns = ts_ns;
    event.tgid = 10;
    event.tid = 11;
    model.apply(event);
  };
  tell(EventKind::thread_seen, 100);
  tell(EventKind::exit, 200);
  tell(EventKind::sample, 250);
  ASSERT_EQ(model.threads().size(), 1u);
  EXPECT_EQ(model.threads()[0].last_ns, 200u);
}

// Two threads of one process, in light mode from 100 ns on.
class LightHandoff : public ::testing::Test {
 protected:
  LightHandoff() {
    tell(EventKind::mode, 0, 100, 0, 0, 1);
    tell(EventKind::thread_seen, 11, 100);
    tell(EventKind::thread_seen, 12, 100);
  }
  void tell(EventKind kind, uint32_t tid, uint64_t ts_ns, uint64_t value = 0, uint32_t other = 0,
            uint8_t state = 0) {
    Event event;
    event.kind = kind;
    event.ts_ns = ts_ns;
    event.tgid = 10;
    event.tid = tid;
    event.value = value;
    event.other = other;
    event.state = state;
    model_.apply(event);
  }
  void fall_asleep(uint64_t ts_ns, uint8_t sight = 0) {
    tell(EventKind::switch_out, 11, ts_ns, 0, 0,
         static_cast<uint8_t>(TaskState::interruptible) | sight);
  }
  const Gil& gil() const {
    EXPECT_EQ(model_.processes().size(), 1u);
    return *model_.processes().front().gils.at(0);
  }

  EventTables tables_;
  Model model_{tables_};
};

// One that is in exact mode, and of which it is known where its GIL is, forks a child in light
// mode.
TEST_F(LightHandoff, AForkedChildHasItsGilWhereItsParentHasIt) {
  tell(EventKind::mode, 0, 110, 0, 0, 0);
  tell(EventKind::light_gil, 0, 120, 0x1000, 0, 0);
  Event fork;
  fork.kind = EventKind::fork;
  fork.ts_ns = 200;
  fork.tgid = fork.tid = 20;
  fork.value = uint64_t{10} << 32 | 11;
  model_.apply(fork);
  Event event = fork;
  event.kind = EventKind::mode;
  event.state = 1;
  model_.apply(event);
  event.kind = EventKind::switch_in;
  event.ts_ns = 250;
  model_.apply(event);
  event.kind = EventKind::switch_out;
  event.ts_ns = 300;
  event.state = static_cast<uint8_t>(TaskState::interruptible) | 0x18;  // it holds the first one
  model_.apply(event);
  const Thread& child = model_.threads().back();
  ASSERT_EQ(child.tid, 20u);
  ASSERT_TRUE(child.gil);
  EXPECT_EQ(child.gil->address, 0x1000u);
  EXPECT_EQ(child.gil->process, child.process);
  EXPECT_EQ(child.gil_state, GilState::holding);
}

// A thread sleeps for a GIL that is not known yet, wakes in vain, and goes on to sleep for it.
TEST_F(LightHandoff, OfAWaitThatBeganEarlierTheLengthIsNotKnown) {
  constexpr uint64_t kForkOf = uint64_t{10} << 32 | 11;
  for (const uint32_t tid : {13u, 14u}) {
    tell(EventKind::fork, tid, 100 + tid, kForkOf);
    const bool earlier = tid == 14;
    tell(EventKind::switch_in, tid, 100 * tid);
    tell(EventKind::gil_wait, tid, 100 * tid + 10, 0x1000, 0, earlier);
    tell(EventKind::gil_acquire, tid, 100 * tid + 60, 0x1000);
    const Thread& thread = model_.threads().back();
    ASSERT_EQ(thread.tid, tid);
    EXPECT_EQ(thread.matrix[kWaiting][kRunning], 50u);
    EXPECT_EQ(thread.contended, 1u);
    EXPECT_EQ(thread.wait.count(), earlier ? 0u : 1u);
  }
  EXPECT_EQ(gil().contended, 2u);
}

// Who let the GIL go may end before the one it woke has it: that is a hand-off all the same.
TEST_F(LightHandoff, OutlivesWhoLetGo) {
  tell(EventKind::gil_wait, 11, 200, 0x1000, 12);
  fall_asleep(210);
  tell(EventKind::wakeup, 11, 300);
  tell(EventKind::exit, 12, 310);
  tell(EventKind::switch_in, 11, 350);
  tell(EventKind::gil_acquire, 11, 400, 0x1000);
  ASSERT_THAT(broken_tilings(model_), IsEmpty());
  EXPECT_EQ(gil().handoff.count(), 1u);
  EXPECT_EQ(gil().handoff.max_ns(), 100u);
  EXPECT_EQ(gil().handoff_runqueue_ns, 50u);
  EXPECT_EQ(gil().handoff_lock_ns, 50u);
  uint64_t handoff = 0, total = 0;
  for (const Gil::Blame& b : gil().blame()) {
    handoff += b.handoff_ns;
    total += b.running_ns + b.runnable_ns + b.blocked_ns + b.handoff_ns + b.unknown_ns;
  }
  EXPECT_EQ(handoff, 100u);
  EXPECT_EQ(total, 200u);
}

// What the kernel hides (a wakeup and the switch after it) began it; the next wakeup is of one that
// runs, for gil->mutex. It tells of the same hand-off.
TEST_F(LightHandoff, OfOneThatWasWokenUnseen) {
  tell(EventKind::gil_wait, 11, 200, 0x1000, 12);
  fall_asleep(210);
  tell(EventKind::switch_in, 11, 350);
  tell(EventKind::wakeup, 11, 360);
  tell(EventKind::wakeup, 11, 370);
  tell(EventKind::gil_acquire, 11, 400, 0x1000);
  ASSERT_THAT(broken_tilings(model_), IsEmpty());
  EXPECT_EQ(gil().handoff.count(), 1u);
  EXPECT_EQ(gil().handoff.max_ns(), 40u);
  EXPECT_EQ(gil().handoff_runqueue_ns, 0u);
  EXPECT_EQ(gil().handoff_lock_ns, 40u);
}

// It was woken in exact mode: that is known in light mode, too.
TEST_F(LightHandoff, ThatBeganInExactMode) {
  tell(EventKind::mode, 0, 150, 0, 0, 0);
  tell(EventKind::gil_acquire, 12, 160, 0x1000);
  tell(EventKind::gil_wait, 11, 200, 0x1000);
  fall_asleep(210);
  tell(EventKind::gil_release, 12, 290, 0x1000);
  tell(EventKind::wakeup, 11, 300);
  tell(EventKind::switch_in, 11, 350);
  tell(EventKind::mode, 0, 355, 0, 0, 1);
  tell(EventKind::wakeup, 11, 390);
  tell(EventKind::gil_acquire, 11, 400, 0x1000);
  ASSERT_THAT(broken_tilings(model_), IsEmpty());
  EXPECT_EQ(gil().handoff.count(), 1u);
  EXPECT_EQ(gil().handoff.max_ns(), 100u);
  EXPECT_EQ(gil().handoff_runqueue_ns, 50u);
}

// Who waits at attach, is woken and then sleeps for gil->mutex holds none, and waits.
class LightReading : public LightHandoff {
 protected:
  void wait_and_sleep_for_the_mutex() {
    tell(EventKind::thread_read, 11, 120, 0x1000, 0, kReadBlocked | kReadWaiting);
    tell(EventKind::wakeup, 11, 300);
    tell(EventKind::switch_in, 11, 310);
    fall_asleep(320, GT_GIL_READ);  // and no GIL is its own
    tell(EventKind::wakeup, 11, 380);
    tell(EventKind::switch_in, 11, 390);
    tell(EventKind::gil_acquire, 11, 400, 0x1000);
    ASSERT_THAT(broken_tilings(model_), IsEmpty());
  }
};

TEST_F(LightReading, AWaitEndsWhereItsEndIsSeen) {
  tell(EventKind::light_gil, 0, 110, 0x1000);
  wait_and_sleep_for_the_mutex();
  EXPECT_EQ(gil().contended, 1u);
  EXPECT_EQ(gil().handoff.count(), 1u);
  EXPECT_EQ(gil().handoff.max_ns(), 100u);
  EXPECT_EQ(model_.threads().front().wait.count(), 0u) << "its beginning is not known";
}

// With another GIL the kernel side cannot tell for which it waited.
TEST_F(LightReading, AWaitWhoseEndMayGoUnseenIsGivenUp) {
  tell(EventKind::light_gil, 0, 110, 0x1000);
  tell(EventKind::light_gil, 0, 115, 0x2000, 0, 1);
  wait_and_sleep_for_the_mutex();
  EXPECT_EQ(gil().contended, 0u);
}

// Behind whom, and what that one did meanwhile: what light mode says is true, or unknown.
TEST(LightModelProperties, NobodyIsBlamedForWhatItDidWithoutTheGil) {
  uint64_t asleep = 0, asleep_truly = 0, unknown = 0, total = 0;
  for (uint64_t seed = 1; seed <= 300; seed++) {
    const Simulation simulation(seed, {.steps = 500});
    const Played exact(simulation.tables(), simulation.events());
    const Played light(simulation.tables(),
                       testing::as_light(simulation.tables(), simulation.events(), seed, 500'000));
    for (const auto& process : exact.model.processes())
      for (const auto& gil : process.gils)
        for (const Gil::Blame& b : gil->blame()) asleep_truly += b.blocked_ns;
    for (const auto& process : light.model.processes())
      for (const auto& gil : process.gils)
        for (const Gil::Blame& b : gil->blame()) {
          asleep += b.blocked_ns;
          unknown += b.unknown_ns;
          total += b.running_ns + b.runnable_ns + b.blocked_ns + b.handoff_ns + b.unknown_ns;
        }
  }
  EXPECT_LE(asleep, asleep_truly);
  EXPECT_GT(asleep * 2, asleep_truly);
  EXPECT_LT(unknown * 2, total);
}

TEST(LightModelProperties, SamplesAreRightOnAverage) {
  uint64_t held = 0, held_truly = 0, ran = 0, undecided = 0;
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 500});
    const Played played(simulation.tables(),
                        testing::as_light(simulation.tables(), simulation.events(), seed, 500'000));
    for (size_t i = 0; i < simulation.truth().size(); i++) {
      const Thread& thread = played.model.threads()[i];
      const auto& truth = simulation.truth()[i].matrix;
      const uint64_t left = thread.matrix[kUnknown][kRunning];
      held += thread.matrix[kHolding][kRunning];
      undecided += left;
      held_truly += truth[kHolding][kRunning];
      ran += truth[kHolding][kRunning] + truth[kReleased][kRunning];
    }
  }
  const double share = static_cast<double>(held) / static_cast<double>(ran - undecided);
  const double truly = static_cast<double>(held_truly) / static_cast<double>(ran);
  EXPECT_NEAR(share, truly, 0.01);
  EXPECT_LT(static_cast<double>(undecided), 0.5 * static_cast<double>(ran));
}

TEST(LightModelProperties, WaitsAreExactAlsoWhereTheModeChanges) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(seed, {.steps = 400, .gils = 1 + unsigned(seed % 2)});
    const Played played(
        simulation.tables(),
        testing::as_light(simulation.tables(), simulation.events(), seed, 500'000, true));
    ASSERT_THAT(broken_tilings(played.model), IsEmpty()) << "seed " << seed;
    ASSERT_EQ(played.model.violations(), 0u) << "seed " << seed;
    ASSERT_EQ(played.model.threads().size(), simulation.truth().size()) << "seed " << seed;
    for (size_t i = 0; i < simulation.truth().size(); i++) {
      const Simulation::Truth& truth = simulation.truth()[i];
      const Thread& thread = played.model.threads()[i];
      ASSERT_EQ(thread.matrix[kWaiting], truth.matrix[kWaiting]) << "seed " << seed << " " << i;
      ASSERT_EQ(thread.contended, truth.contended) << "seed " << seed;
    }
  }
}

TEST(LightModelProperties, WhateverComesItTiles) {
  for (uint64_t seed = 1; seed <= 500; seed++) {
    const Simulation simulation(
        seed, {.steps = 300, .unseen_steps = seed % 100, .gils = 1 + unsigned(seed % 2)});
    auto events = testing::as_light(simulation.tables(), simulation.events(), seed, 300'000);
    if (seed % 4 == 0) events = testing::with_losses(events, seed, 1 + seed % 8);
    if (seed % 4 == 1) events = testing::with_hidden_switch_ins(events, seed, 20);
    if (seed % 4 == 2) events = testing::with_other_charges(events, seed);
    if (seed % 4 == 3) events = testing::with_garbage(events, seed, 1 + seed % 100);
    const Played played(simulation.tables(), events);
    ASSERT_THAT(broken_tilings(played.model), IsEmpty()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace giltop
