// The rows of the live view's table: their order stands still unless it clearly changes, the cursor
// stays with its row, and who is shown.
#include "view/live_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "support/live_frames.h"
#include "view/live_figures.h"
#include "view/live_keys.h"
#include "view/live_layout.h"

namespace giltop {
namespace {

using ::testing::ElementsAre;
using testing::FrameMaker;
using testing::histogram_of;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kMs = 1'000'000;

// Processes that wait for so many milliseconds of the second; 0: they do nothing.
LiveFrame waiting(const std::vector<unsigned>& waits_ms, uint64_t second = 100) {
  FrameMaker maker;
  maker.end_ns = second * 1000 * kMs;
  maker.frame.interval.last_ns = maker.end_ns;
  maker.frame.interval.first_ns = maker.end_ns - 1000 * kMs;
  for (size_t i = 0; i < waits_ms.size(); i++) {
    ProcessSnapshot& p = maker.process(static_cast<uint32_t>(100 + i), "python3",
                                       "python3 app" + std::to_string(i), "3.12.1");
    p.number = i + 1;
    ThreadSnapshot& t =
        maker.thread(p, p.pid, "main", {0, 0, 0, waits_ms[i], 0, 0, 1000 - waits_ms[i]});
    t.number = 1000 + i;
    t.acquires = 0;
  }
  return maker.frame;
}

std::vector<uint32_t> order(const LiveFrame& frame, LiveState& state) {
  std::vector<uint32_t> pids;
  for (const LiveRow& row : live_rows(frame, state))
    pids.push_back(row.thread ? row.thread->tid : row.process->pid);
  return pids;
}

TEST(LiveRows, NoiseMovesNothing) {
  LiveState state;
  std::mt19937_64 random(7);
  const std::vector<unsigned> usual = {900, 880, 860, 400, 390, 100, 95, 5, 4, 0};
  const std::vector<uint32_t> first = order(waiting(usual), state);
  EXPECT_EQ(first, (std::vector<uint32_t>{100, 101, 102, 103, 104, 105, 106, 107, 108, 109}));
  for (uint64_t second = 101; second < 300; second++) {
    std::vector<unsigned> now = usual;
    for (unsigned& ms : now) ms = ms * static_cast<unsigned>(93 + random() % 15) / 100;
    ASSERT_EQ(order(waiting(now, second), state), first) << second;
  }
}

TEST(LiveRows, WhoClearlyOvertakesMoves) {
  LiveState state;
  order(waiting({500, 300, 100}), state);
  EXPECT_THAT(order(waiting({500, 300, 900}, 101), state), ElementsAre(100, 102, 101));
  EXPECT_THAT(order(waiting({500, 300, 900}, 102), state), ElementsAre(102, 100, 101));
  // However the figures crept there, the order is right to within the tenth.
  for (uint64_t second = 103; second < 203; second++) {
    const auto creeping = static_cast<unsigned>(5 * (second - 103));
    order(waiting({500, 300 + creeping, 900}, second), state);
  }
  EXPECT_THAT(order(waiting({500, 800, 900}, 203), state), ElementsAre(102, 101, 100));
}

TEST(LiveRows, EqualOnesStayInOrderOfAppearance) {
  LiveState state;
  const std::vector<uint32_t> expected = {100, 101, 102, 103};
  EXPECT_EQ(order(waiting({50, 50, 50, 50}), state), expected);
  state.inverted = true;
  EXPECT_EQ(order(waiting({50, 50, 50, 50}), state), expected);
}

TEST(LiveRows, TheSameFrameAgainMovesNothing) {
  LiveState state;
  order(waiting({500, 300, 100}), state);
  const LiveFrame frame = waiting({500, 300, 900}, 101);
  const std::vector<uint32_t> once = order(frame, state);
  for (int i = 0; i < 50; i++) EXPECT_EQ(order(frame, state), once) << "keys are no news";
}

TEST(LiveRows, AnotherColumnSortsAtOnce) {
  LiveState state;
  const LiveFrame frame = waiting({100, 900, 500});
  EXPECT_THAT(order(frame, state), ElementsAre(101, 102, 100));
  state.sort = LiveColumn::pid;
  EXPECT_THAT(order(frame, state), ElementsAre(100, 101, 102));
  state.inverted = true;
  EXPECT_THAT(order(frame, state), ElementsAre(102, 101, 100));
  state.sort = LiveColumn::wait;
  EXPECT_THAT(order(frame, state), ElementsAre(100, 102, 101));
}

TEST(LiveRows, TheCursorStaysWithItsRowAndTheViewFollows) {
  std::vector<unsigned> waits(100, 10);
  for (size_t i = 0; i < waits.size(); i++) waits[i] = static_cast<unsigned>(1000 - 9 * i);
  LiveState state;
  LiveFrame frame = waiting(waits);
  live_screen(frame, state, 80, 20);
  for (int i = 0; i < 3; i++) press(state, {Input::Kind::down}, frame);
  live_screen(frame, state, 80, 20);
  ASSERT_TRUE(state.selected);
  EXPECT_EQ(state.selected->number, 4u);
  // It falls to the bottom.
  waits[3] = 0;
  for (uint64_t second = 101; second < 110; second++) {
    frame = waiting(waits, second);
    live_screen(frame, state, 80, 20);
  }
  EXPECT_EQ(state.selected->number, 4u);
  EXPECT_EQ(state.rows.back().number, 4u);
  EXPECT_EQ(state.scroll, 100 - state.page);
  // And ends: the cursor stays at its place.
  frame.interval.processes.erase(frame.interval.processes.begin() + 3);
  live_screen(frame, state, 80, 20);
  EXPECT_EQ(state.selected->number, 100u);
}

TEST(LiveRows, WithoutAMoveTheCursorIsTheTop) {
  LiveState state;
  LiveFrame frame = waiting({900, 10});
  live_screen(frame, state, 80, 20);
  for (uint64_t second = 101; second < 105; second++) {
    frame = waiting({0, 900}, second);
    live_screen(frame, state, 80, 20);
  }
  press(state, {Input::Kind::enter}, frame);
  EXPECT_EQ(state.detail.process, 2u) << "the one that is first now";
}

TEST(LiveRows, IdleOnesAreHiddenWhenTheyHaveBeenForAWhile) {
  LiveState state;
  state.idle = false;
  EXPECT_THAT(order(waiting({500, 0}), state), ElementsAre(100)) << "never did anything";
  EXPECT_THAT(order(waiting({0, 500}, 101), state), UnorderedElementsAre(101, 100))
      << "just now it did";
  for (uint64_t second = 102; second < 105; second++) order(waiting({0, 500}, second), state);
  EXPECT_THAT(order(waiting({0, 500}, 105), state), ElementsAre(101));
  state.idle = true;
  EXPECT_THAT(order(waiting({0, 500}, 106), state), ElementsAre(101, 100));
}

TEST(LiveRows, FoldedTreeUnfoldedTreeAndLists) {
  const LiveFrame frame = testing::web_host();
  LiveState state;
  EXPECT_EQ(live_rows(frame, state).size(), 4u);
  state.threads = true;
  const std::vector<LiveRow> tree = live_rows(frame, state);
  EXPECT_EQ(tree.size(), 4u + 10 + 2) << "and two GILs, where there are two";
  EXPECT_EQ(tree[0].depth, 0u);
  EXPECT_EQ(tree[1].depth, 1u);
  state.unfolded[frame.interval.processes[0].number] = false;
  EXPECT_EQ(live_rows(frame, state).size(), 4u + 6 + 2);
  state.tree = false;
  const std::vector<LiveRow> threads = live_rows(frame, state);
  EXPECT_EQ(threads.size(), 10u);
  EXPECT_TRUE(
      std::all_of(threads.begin(), threads.end(), [](const LiveRow& r) { return r.thread; }));
  EXPECT_EQ(threads[0].thread->tid, 20319u) << "the worst of the host";
  state.threads = false;
  EXPECT_EQ(live_rows(frame, state).size(), 4u);
}

TEST(LiveRows, TheFilterFindsNamesCommandsAndIds) {
  const LiveFrame frame = testing::web_host();
  LiveState state;
  state.filter = "GUNI";
  EXPECT_THAT(order(frame, state), ElementsAre(20313));
  state.filter = "20877";
  EXPECT_THAT(order(frame, state), ElementsAre(20877));
  state.filter = "asyncio";  // a thread's: shown with its process, and alone
  EXPECT_THAT(order(frame, state), ElementsAre(20313, 20321));
  state.filter = "nobody";
  EXPECT_THAT(order(frame, state), IsEmpty());
  state.tree = false;
  state.threads = true;
  state.filter = "celery";
  EXPECT_EQ(live_rows(frame, state).size(), 2u);
}

TEST(LiveRows, WhatIsRememberedOfRowsIsForgottenWithThem) {
  LiveState state;
  for (uint64_t second = 100; second < 400; second++) {
    FrameMaker maker;
    for (uint32_t i = 0; i < 20; i++) {
      ProcessSnapshot& p = maker.process(i, "python3", "", "3.12.1");
      p.number = second * 100 + i;
    }
    maker.frame.interval.last_ns = second * 1000 * kMs;
    live_rows(maker.frame, state);
  }
  EXPECT_LE(state.sticky.size(), 2u * 20 + 256 + 20);
}

TEST(LiveFigures, AWaitThatLastsIsTheLongest) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(1, "python3", "", "3.12.1");
  ThreadSnapshot& t = maker.thread(p, 2, "w", {0, 0, 0, 1000});
  t.wait = histogram_of({5 * kMs});
  t.gil_state = GilState::waiting;
  t.state_since_ns = maker.end_ns - 3200 * kMs;
  Figures f = figures_of(p, maker.frame.interval);
  EXPECT_EQ(f.longest_ns, 3200 * kMs);
  EXPECT_TRUE(f.longest_lasts);
  EXPECT_NEAR(f.wait, 100, 1e-9);
  t.state_since_ns = 0;  // it is not known since when
  f = figures_of(p, maker.frame.interval);
  EXPECT_EQ(f.longest_ns, 5 * kMs);
  EXPECT_FALSE(f.longest_lasts);
}

TEST(LiveFigures, NoMoreIsHeldInLightModeThanThereIs) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(1, "python3", "", "3.12.1");
  maker.gil(p, {1040});
  maker.thread(p, 2, "w", {1040});
  EXPECT_NEAR(figures_of(p, maker.frame.interval).held, 104, 1e-9) << "this would be a mistake";
  p.exact = false;  // some of it was decided late
  EXPECT_NEAR(figures_of(p, maker.frame.interval).held, 100, 1e-9);
  EXPECT_NEAR(figures_of(p.threads[0], p, maker.frame.interval).held, 100, 1e-9);
  EXPECT_NEAR(figures_of(p.gils[0], p, maker.frame.interval).held, 100, 1e-9);
  maker.gil(p, {900});
  maker.thread(p, 3, "x", {900});
  EXPECT_NEAR(figures_of(p, maker.frame.interval).held, 194, 1e-9) << "two GILs at once";
}

TEST(LiveFigures, TheBlockerIsWhoMostWaitsWereBehind) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(1, "python3", "", "3.12.1");
  GilSnapshot& g = maker.gil(p, {1000});
  g.blame = {{10, 11, 10, 11, false, 30 * kMs, 0, 0, 0, 0},
             {10, 12, 10, 12, false, 0, 0, 40 * kMs, 0, 0},
             {13, 11, 13, 11, false, 30 * kMs, 0, 0, 0, 0}};
  const auto blocker = figures_of(p, maker.frame.interval).blocker;
  ASSERT_TRUE(blocker);
  EXPECT_EQ(blocker->tid, 11u) << "60 ms in all";
  EXPECT_EQ(blocker->what(), "running");
  const auto of_each = blockers_of(p);
  EXPECT_EQ(of_each.at(10).tid, 12u);
  EXPECT_EQ(of_each.at(10).what(), "asleep");
  EXPECT_TRUE(of_each.at(10).off_cpu());
  EXPECT_EQ(of_each.at(13).tid, 11u);
}

TEST(LiveFigures, TwoThreadsOfOneIdAreTwo) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(1, "python3", "", "3.12.1");
  maker.thread(p, 10, "first", {0, 0, 0, 100}).number = 1;
  maker.thread(p, 10, "second", {0, 0, 0, 50}).number = 2;
  maker.thread(p, 11, "worker", {900}).number = 3;
  // Waiters 1 and 2; of the holders 4 and 5 the second had the first one's id.
  maker.gil(p, {900}).blame = {{1, 4, 10, 20, false, 40 * kMs, 0, 0, 0, 0},
                               {1, 5, 10, 20, false, 0, 0, 40 * kMs, 0, 0},
                               {1, 3, 10, 11, false, 50 * kMs, 0, 0, 0, 0},
                               {2, 4, 10, 20, false, 0, 20 * kMs, 0, 0, 0}};
  const auto blocker = figures_of(p, maker.frame.interval).blocker;
  ASSERT_TRUE(blocker);
  EXPECT_EQ(blocker->tid, 20u) << "60 ms of number 4";
  EXPECT_EQ(blocker->what(), "running");
  EXPECT_EQ(blocker->parts.total_ns(), 60 * kMs);
  LiveState state;
  state.threads = true;
  std::map<std::string, std::string> behind;
  for (const LiveRow& row : live_rows(maker.frame, state))
    if (row.thread && row.figures.blocker)
      behind[row.thread->comm] =
          std::to_string(row.figures.blocker->tid.value_or(0)) + " " + row.figures.blocker->what();
  EXPECT_EQ(behind, (std::map<std::string, std::string>{{"first", "11 running"},
                                                        {"second", "20 preempted"}}));
}

TEST(LiveFigures, MergedHistogramsHaveTheQuantilesOfAll) {
  std::mt19937_64 random(3);
  std::vector<HistogramSnapshot> parts;
  Histogram all;
  for (int part = 0; part < 5; part++) {
    std::vector<uint64_t> values;
    for (int i = 0; i < 500; i++) values.push_back(random() >> (20 + random() % 30));
    for (const uint64_t value : values) all.add(value);
    parts.push_back(histogram_of(values));
  }
  std::vector<const HistogramSnapshot*> pointers;
  for (const HistogramSnapshot& part : parts) pointers.push_back(&part);
  const HistogramSnapshot sum = sum_of(pointers), expected = snapshot_of(all);
  EXPECT_EQ(sum.count, expected.count);
  EXPECT_EQ(sum.sum_ns, expected.sum_ns);
  EXPECT_EQ(sum.min_ns, expected.min_ns);
  EXPECT_EQ(sum.max_ns, expected.max_ns);
  EXPECT_EQ(sum.p50_ns, expected.p50_ns);
  EXPECT_EQ(sum.p90_ns, expected.p90_ns);
  EXPECT_EQ(sum.p99_ns, expected.p99_ns);
  EXPECT_EQ(sum_of({}).count, 0u);
}

TEST(LiveFigures, AProcessIsCalledByWhatItRuns) {
  const auto title = [](const std::string& cmdline) {
    ProcessSnapshot p;
    p.comm = "comm";
    p.cmdline = cmdline;
    return title_of(p);
  };
  EXPECT_EQ(title("/usr/bin/python3 /srv/app.py --port=80 /x"), "app.py --port=80 /x");
  EXPECT_EQ(title("python3.11 -m http.server"), "-m http.server");
  EXPECT_EQ(title("python3 -B -u /srv/app.py -v"), "app.py -v");
  EXPECT_EQ(title("python3 -X dev -Wignore -W error::Warning a/b.py"), "b.py");
  EXPECT_EQ(title("/usr/bin/python3 -X faulthandler -I -c import x"), "-c import x");
  EXPECT_EQ(title("python3 -Im site"), "-Im site");
  EXPECT_EQ(title("python3 - -u"), "- -u");
  EXPECT_EQ(title("python3 -X dev"), "-X dev");
  EXPECT_EQ(title("python3 -X"), "-X");
  EXPECT_EQ(title("gunicorn: worker [api]"), "gunicorn: worker [api]");
  EXPECT_EQ(title("/opt/uwsgi/bin/uwsgi --ini /etc/a.ini"), "uwsgi --ini /etc/a.ini");
  EXPECT_EQ(title("python3"), "python3");
  EXPECT_EQ(title("python3 -c import x\nx.run()"), "-c import x x.run()");
  EXPECT_EQ(title(""), "comm");
}

TEST(LiveFigures, AProcessesBarLeavesSleepersOut) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(1, "python3", "", "3.12.1");
  for (uint32_t i = 0; i < 40; i++) maker.thread(p, 100 + i, "idle", {0, 0, 0, 0, 0, 0, 1000});
  maker.thread(p, 1, "busy", {250, 0, 0, 0, 0, 0, 750});
  const Figures f = figures_of(p, maker.frame.interval);
  const std::vector<Cell> bar = bar_of(f.states, 20, false);
  ASSERT_EQ(bar.size(), 20u);
  EXPECT_EQ(std::count_if(bar.begin(), bar.end(), [](const Cell& c) { return c.text == "█"; }), 5);
  EXPECT_THAT(bar_of({}, 20, false), IsEmpty());
}

}  // namespace
}  // namespace giltop
