// The live view's picture of frames made by hand: goldens, and what holds for all of them.
#include "view/live_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "support/live_frames.h"
#include "support/screen_checks.h"
#include "view/live_columns.h"
#include "view/live_keys.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using testing::expect_sound;
using testing::FrameMaker;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::text_of;
using testing::web_host;

constexpr uint64_t kMs = 1'000'000;

// GILTOP_UPDATE_GOLDEN=1 writes the file anew; read its diff before committing it.
void expect_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(GILTOP_TEST_DIR) + "/golden/" + name + ".txt";
  if (const char* update = std::getenv("GILTOP_UPDATE_GOLDEN"); update && *update == '1') {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  std::ifstream in(path, std::ios::binary);
  ASSERT_TRUE(in) << path << " is missing: set GILTOP_UPDATE_GOLDEN=1";
  const std::string golden((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, golden);
}

// A letter for each cell's style.
std::string styles_of(const Screen& screen) {
  static const char kLetters[] = ".dbhstk!HOWRNA";
  std::string out;
  for (unsigned row = 0; row < screen.rows(); row++) {
    for (unsigned column = 0; column < screen.columns(); column++)
      out += kLetters[static_cast<size_t>(screen.at(column, row).style)];
    out += "\n";
  }
  return out;
}

Input character(char c) { return {Input::Kind::character, static_cast<unsigned char>(c)}; }

std::string shown(const LiveFrame& frame, LiveState& state, unsigned columns = 120,
                  unsigned rows = 24) {
  const Screen screen = live_screen(frame, state, columns, rows);
  expect_sound(screen);
  return text_of(screen);
}

std::string line_with(const std::string& text, const std::string& what) {
  const size_t at = text.find(what);
  if (at == std::string::npos) return "";
  const size_t begin = text.rfind('\n', at);
  return text.substr(begin == std::string::npos ? 0 : begin + 1, text.find('\n', at) - begin - 1);
}

class LiveLayout : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Columns, LiveLayout, ::testing::Values(60, 80, 120, 200));

TEST_P(LiveLayout, IsAsItWas) {
  const unsigned columns = GetParam();
  const LiveFrame frame = web_host();
  LiveState state;
  std::string text;
  const auto add = [&](const char* what, unsigned rows) {
    const Screen screen = live_screen(frame, state, columns, rows);
    expect_sound(screen);
    text += std::string("== ") + what + "\n" + text_of(screen);
    if (std::string(what) == "folded") text += "== its styles\n" + styles_of(screen);
  };
  add("folded", 15);
  press(state, character('H'), frame);
  add("unfolded", 20);
  state.letters = true;
  add("in letters", 20);
  press(state, {Input::Kind::down}, frame);
  press(state, {Input::Kind::enter}, frame);
  add("a thread, in letters", 40);
  press(state, {Input::Kind::escape}, frame);
  state.letters = false;
  press(state, {Input::Kind::home}, frame);
  press(state, {Input::Kind::enter}, frame);
  add("a process", 50);
  press(state, character('n'), frame);
  add("notes", 20);
  expect_golden("live_" + std::to_string(columns), text);
}

TEST_P(LiveLayout, ColumnsFitAndTheMostUsedStay) {
  for (unsigned columns = GetParam(); columns < GetParam() + 40; columns++) {
    const std::vector<PlacedColumn> placed = place_columns(columns);
    unsigned from = 0;
    std::vector<LiveColumn> which;
    for (const PlacedColumn& p : placed) {
      EXPECT_EQ(p.from, from);
      EXPECT_GE(p.width, facts_of(p.column).least);
      from = p.from + p.width + 1;
      which.push_back(p.column);
    }
    EXPECT_EQ(from - 1, columns) << "no column of the screen is left over";
    for (const auto column :
         {LiveColumn::pid, LiveColumn::name, LiveColumn::held, LiveColumn::off_cpu,
          LiveColumn::wait, LiveColumn::longest, LiveColumn::blocker})
      EXPECT_THAT(which, ::testing::Contains(column)) << columns;
  }
  const size_t least = place_columns(60).size(), all = place_columns(200).size();
  EXPECT_LT(least, all);
  EXPECT_EQ(all, kLiveColumns);
}

TEST(LiveLayoutOf, NoProcesses) {
  LiveFrame frame;
  frame.clock = "12:00:00";
  LiveState state;
  for (const unsigned columns : {60u, 80u, 120u, 200u}) {
    const std::string text = shown(frame, state, columns);
    EXPECT_THAT(text, HasSubstr("no Python processes yet"));
    EXPECT_THAT(text, HasSubstr("0 Pythons"));
    EXPECT_THAT(text, HasSubstr("none held or wanted"));
  }
}

TEST(LiveLayoutOf, OneProcessOfOneThread) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(7, "python3", "/usr/bin/python3 /srv/app.py --x", "3.11.2");
  maker.gil(p, {250, 0, 0, 0, 750});
  maker.thread(p, 7, "python3", {250, 0, 0, 0, 0, 0, 750});
  LiveState state;
  state.threads = true;
  const std::string text = shown(maker.frame, state);
  EXPECT_THAT(text, HasSubstr("1 Python  1 thread  1 GIL"));
  EXPECT_THAT(line_with(text, "app.py"), AllOf(HasSubstr("app.py --x"), HasSubstr("25.0")));
  EXPECT_THAT(text, Not(HasSubstr("▾ app.py"))) << "nothing to unfold";
}

TEST(LiveLayoutOf, ThreeHundredProcesses) {
  FrameMaker maker;
  for (uint32_t i = 0; i < 300; i++) {
    ProcessSnapshot& p = maker.process(1000 + i, "python3", "python3 shard.py", "3.12.1");
    maker.gil(p, {i, 0, 0, 0, 1000 - i});
    maker.thread(p, 1000 + i, "python3", {i, 0, 0, 300 - i, 0, 0, 700});
  }
  LiveState state;
  const std::string top = shown(maker.frame, state, 80, 24);
  EXPECT_THAT(top, HasSubstr("300 Pythons"));
  EXPECT_THAT(top, AllOf(HasSubstr("   1000   shard"), HasSubstr("   1018   shard"),
                         Not(HasSubstr("   1019   shard"))));
  press(state, {Input::Kind::end}, maker.frame);
  const std::string end = shown(maker.frame, state, 80, 24);
  EXPECT_THAT(end, AllOf(HasSubstr("   1299   shard"), HasSubstr("   1281   shard")));
}

TEST(LiveLayoutOf, ALongHoldShowsWhileItLasts) {
  // An interval in which nothing happened but that one thread slept on with the GIL.
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(50, "python3", "python3 app.py", "3.12.1");
  p.threads.reserve(2);
  GilSnapshot& g = maker.gil(p, {0, 0, 1000});
  g.waiters = g.max_waiters = 1;
  g.blame = {{52, 51, 52, 51, false, 0, 0, 1000 * kMs, 0, 0}};
  ThreadSnapshot& holder = maker.thread(p, 51, "sleeper", {0, 0, 1000});
  holder.gil_state = GilState::holding;
  holder.cpu_state = CpuState::blocked;
  holder.state_since_ns = maker.end_ns - 9800 * kMs;
  holder.state_since_exact = true;
  holder.gil = g.number;
  ThreadSnapshot& waiter = maker.thread(p, 52, "waiter", {0, 0, 0, 1000});
  waiter.gil_state = GilState::waiting;
  waiter.state_since_ns = maker.end_ns - 9700 * kMs;
  waiter.gil = g.number;

  LiveState state;
  state.threads = true;
  const std::string text = shown(maker.frame, state);
  EXPECT_THAT(text, HasSubstr("51 has held the GIL for 9.8s, asleep: 1 thread waits (app.py)"));
  EXPECT_THAT(line_with(text, "app.py  "),
              AllOf(HasSubstr("51 9.8s asleep"), HasSubstr("9.70s+"), HasSubstr("1/1")));
  EXPECT_THAT(line_with(text, "   sleeper"), HasSubstr("holding 9.8s asleep"));
  EXPECT_THAT(line_with(text, "   waiter"), AllOf(HasSubstr("9.70s+"), HasSubstr("51 asleep")));

  // It began before it was seen.
  LiveFrame joined = maker.frame;
  joined.interval.processes[0].threads[0].state_since_exact = false;
  EXPECT_THAT(shown(joined, state), HasSubstr("51 has held the GIL for over 9.8s, asleep"));

  // Sampled, it says so.
  maker.frame.interval.processes[0].exact = false;
  const std::string sampled = shown(maker.frame, state);
  EXPECT_THAT(line_with(sampled, "   sleeper"),
              AllOf(HasSubstr("holding ~9.8s"), HasSubstr("~100.0")));
  EXPECT_THAT(line_with(sampled, "   waiter"), HasSubstr(" 100.0")) << "waits are exact";

  // A lone thread that computes is nobody's harm.
  LiveFrame lone = maker.frame;
  lone.interval.processes[0].threads.pop_back();
  lone.interval.processes[0].threads[0].cpu_state = CpuState::running;
  lone.interval.processes[0].gils[0].waiters = 0;
  LiveState fresh;
  EXPECT_THAT(shown(lone, fresh), Not(HasSubstr("has held")));
}

TEST(LiveLayoutOf, WhatIsWrongIsRedAndNothingElse) {
  const LiveFrame frame = web_host();
  LiveState state;
  state.threads = true;
  const Screen screen = live_screen(frame, state, 200, 30);
  size_t red = 0;
  for (unsigned row = 0; row < screen.rows(); row++)
    for (unsigned column = 0; column < screen.columns(); column++)
      red += screen.at(column, row).style == Style::bad;
  EXPECT_GT(red, 0u);
  // Without sleeps and preemptions there is none.
  LiveFrame well = frame;
  for (ProcessSnapshot& p : well.interval.processes) {
    for (ThreadSnapshot& t : p.threads) {
      auto& holding = t.matrix[static_cast<size_t>(GilState::holding)];
      holding[1] = holding[2] = 0;
      if (t.gil_state == GilState::holding) t.cpu_state = CpuState::running;
    }
    for (GilSnapshot& g : p.gils) {
      g.ledger[1] = g.ledger[2] = 0;
      for (BlameSnapshot& b : g.blame) b.runnable_ns = b.blocked_ns = 0;
    }
  }
  LiveState fresh;
  fresh.threads = true;
  const Screen good = live_screen(well, fresh, 200, 30);
  for (unsigned row = 0; row < good.rows(); row++)
    for (unsigned column = 0; column < good.columns(); column++)
      EXPECT_NE(good.at(column, row).style, Style::bad) << row << " " << column;
  well.lost_events = 12;
  EXPECT_THAT(shown(well, fresh, 60, 15), HasSubstr("lost 12"));
}

TEST(LiveLayoutOf, AFreeThreadedBuildHasNoFiguresOfAGil) {
  const LiveFrame frame = web_host();
  LiveState state;
  state.threads = true;
  const std::string text = shown(frame, state);
  EXPECT_THAT(line_with(text, "21990 ▾"),
              AllOf(HasSubstr("149.0 GIL off: free-threaded build"), HasSubstr("▒▒▒▒▒")));
  EXPECT_THAT(line_with(text, "21991"), Not(HasSubstr(" 0.0")));
}

TEST(LiveLayoutOf, GilsAreRowsWhereThereAreMore) {
  LiveState state;
  state.threads = true;
  const std::string text = shown(web_host(), state, 120, 30);
  EXPECT_THAT(text, HasSubstr("GIL interp. 0"));
  EXPECT_THAT(line_with(text, "GIL interp. 1"), HasSubstr("90.0"));
}

TEST(LiveLayoutOf, HeaderDropsWhatIsLeastNeeded) {
  LiveFrame frame = web_host();
  frame.host = "a-very-long-host-name.of.a.far.away.example.com";
  LiveState state;
  state.paused = true;
  const std::string wide = shown(frame, state, 200);
  EXPECT_THAT(wide, AllOf(HasSubstr("Linux 6.18.44"), HasSubstr("12k events/s"),
                          HasSubstr("giltop 1.2 % CPU"), HasSubstr("1 note (n)"),
                          HasSubstr("a-very-long-host-name  ")));
  const std::string narrow = shown(frame, state, 60);
  EXPECT_THAT(narrow, AllOf(HasSubstr("PAUSED"), HasSubstr("lost 0"), HasSubstr("overhead 0.3 %"),
                            Not(HasSubstr("Linux"))));
  frame.accumulated = true;
  frame.interval.first_ns = frame.interval.last_ns - 34'000 * kMs;
  EXPECT_THAT(shown(frame, state), HasSubstr("SUM of 34"));
  frame.interval.violations = 2;
  EXPECT_THAT(shown(frame, state, 60), HasSubstr("2 contradictions"));
}

TEST(LiveLayoutOf, TooSmallATerminalIsSaid) {
  LiveState state;
  const LiveFrame frame = web_host();
  EXPECT_THAT(text_of(live_screen(frame, state, 59, 20)), HasSubstr("needs 60×15, here are 59×20"));
  EXPECT_THAT(text_of(live_screen(frame, state, 200, 14)), HasSubstr("here are 200×14"));
  for (const auto& [columns, rows] : {std::pair(1u, 1u), {5u, 0u}, {0u, 5u}, {12u, 3u}})
    expect_sound(live_screen(frame, state, columns, rows));
}

TEST(LiveLayoutOf, TheTimelineOfLargerColumnsStandsStill) {
  // As time goes on by a step, columns already full keep what they show.
  LiveFrame frame = web_host();
  LiveState state;
  press(state, {Input::Kind::enter}, frame);
  state.column_ns = 20 * kMs;
  const auto row_of = [&] { return line_with(shown(frame, state, 80, 40), "21877 Thread"); };
  const std::string before = row_of();
  for (Timeline::Row& row : frame.timeline.rows) {
    row.columns.erase(row.columns.begin());
    row.columns.push_back(row.columns.back());
  }
  frame.timeline.end_ns += 5 * kMs;
  const std::string after = row_of();
  // A new column began: all else moved by one place.
  const std::vector<Cell> a = cells_of(before), b = cells_of(after);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 22; i + 1 < b.size(); i++) EXPECT_EQ(b[i].text, a[i + 1].text) << i;
}

TEST(LiveLayoutOf, DetailOfAThreadWhoseIdAnotherHadBefore) {
  FrameMaker maker;
  ProcessSnapshot& p = maker.process(50, "python3", "python3 app.py", "3.12.1");
  p.threads.reserve(3);
  maker.thread(p, 51, "early", {100}).number = 1;
  ThreadSnapshot& late = maker.thread(p, 51, "late", {0, 0, 0, 300});
  late.number = 2;
  maker.thread(p, 52, "holder", {900}).number = 3;
  maker.gil(p, {1000}).blame = {{1, 3, 51, 52, false, 70 * kMs, 0, 0, 0, 0},
                                {2, 3, 51, 52, false, 300 * kMs, 0, 0, 0, 0},
                                {3, 1, 52, 51, false, 10 * kMs, 0, 0, 0, 0}};
  const uint64_t now = maker.end_ns;
  p.longest_waits = {{now - 300 * kMs, now, false, 51, 52, {300 * kMs}, 2, 3},
                     {now - 500 * kMs, now - 430 * kMs, false, 51, 52, {70 * kMs}, 1, 3},
                     {now - 900 * kMs, now - 890 * kMs, false, 52, 51, {10 * kMs}, 3, 1}};
  LiveState state;
  press(state, {Input::Kind::enter}, maker.frame);
  const std::string all = shown(maker.frame, state, 120, 60);
  EXPECT_THAT(line_with(all, "  70ms "), AllOf(HasSubstr("51 early"), HasSubstr("52 holder")));
  EXPECT_THAT(line_with(all, " 300ms "), AllOf(HasSubstr("51 late"), HasSubstr("52 holder")));
  EXPECT_THAT(line_with(all, "  10ms "), AllOf(HasSubstr("52 holder"), HasSubstr("51 early")));
  EXPECT_THAT(all, AllOf(HasSubstr("51 early behind 52 holder"), HasSubstr("51 late behind 52"),
                         HasSubstr("52 holder behind 51 early")));
  state.detail = {RowId::Kind::thread, p.number, late.number};
  const std::string one = shown(maker.frame, state, 120, 60);
  EXPECT_THAT(one, AllOf(HasSubstr("51 late behind 52"), Not(HasSubstr("early"))));
}

TEST(LiveLayoutOf, DetailOfWhatIsGone) {
  LiveFrame frame = web_host();
  LiveState state;
  press(state, {Input::Kind::enter}, frame);
  EXPECT_EQ(state.watched, frame.interval.processes[0].number);
  frame.interval.processes.erase(frame.interval.processes.begin());
  EXPECT_THAT(shown(frame, state), HasSubstr("has ended"));
}

TEST(LiveLayoutOf, WhenTheLongestWaitsBegan) {
  LiveFrame frame = web_host();
  LiveState state;
  press(state, {Input::Kind::enter}, frame);
  EXPECT_THAT(shown(frame, state, 120, 60),
              HasSubstr("3.20s+ at 12:04:28.050  20319 ThreadPoolExecutor-0_1 behind 21877"));
  frame.clock_ms = 100;  // just after midnight
  EXPECT_THAT(shown(frame, state, 120, 60), HasSubstr("at 23:59:56.900"));
  frame.clock_ms = 0;
  EXPECT_THAT(shown(frame, state, 120, 60), HasSubstr("3.20s ago"));
}

// Whatever comes, at whatever size, after whatever keys.
TEST(LiveLayoutOf, RandomKeysOnRandomFrames) {
  std::mt19937_64 random(20261122);
  const auto below = [&](uint64_t n) { return random() % n; };
  for (int run = 0; run < 60; run++) {
    LiveState state;
    state.letters = below(2) == 0;
    LiveFrame frame = testing::random_frame(random);
    unsigned columns = 60 + static_cast<unsigned>(below(150)),
             rows = 15 + static_cast<unsigned>(below(60));
    for (int step = 0; step < 60; step++) {
      if (below(4) == 0) {
        const uint64_t now = frame.interval.last_ns;
        frame = testing::random_frame(random);
        frame.interval.last_ns = now + below(3) * 500 * kMs;
      }
      if (below(8) == 0) columns = static_cast<unsigned>(below(220));
      if (below(8) == 0) rows = static_cast<unsigned>(below(80));
      Input input;
      input.kind = static_cast<Input::Kind>(below(20));
      if (input.kind == Input::Kind::hangup) input.kind = Input::Kind::down;
      input.number = input.kind == Input::Kind::function ? static_cast<uint32_t>(below(13))
                     : below(10) == 0                    ? static_cast<uint32_t>(below(0x120000))
                                                         : static_cast<uint32_t>(below(0x80));
      input.column = static_cast<unsigned>(below(230));
      input.row = static_cast<unsigned>(below(90));
      press(state, input, frame);
      const Screen screen = live_screen(frame, state, columns, rows);
      expect_sound(screen);
      if (::testing::Test::HasFatalFailure()) return;
      // Nothing changed: nothing moves.
      ASSERT_EQ(live_screen(frame, state, columns, rows), screen);
    }
  }
}

}  // namespace
}  // namespace giltop
