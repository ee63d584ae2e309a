// What a person reads: the report as a whole, the verdict's rules, bars and figures.
#include "view/text_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "base/format.h"
#include "model/verdict.h"
#include "support/event_builder.h"
#include "view/comparison.h"
#include "view/format.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using enum GilState;

constexpr uint64_t kMs = 1'000'000, kSecond = 1'000'000'000;
constexpr CpuState kRunning = CpuState::running, kRunnable = CpuState::runnable,
                   kBlocked = CpuState::blocked;

// GILTOP_UPDATE_GOLDEN=1 writes the file anew; read its diff before committing it.
void expect_golden(const std::string& name, const std::string& text) {
  const auto path =
      std::filesystem::path(__FILE__).parent_path().parent_path() / "golden" / (name + ".txt");
  if (const char* update = std::getenv("GILTOP_UPDATE_GOLDEN"); update && *update == '1') {
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  std::ifstream in(path, std::ios::binary);
  ASSERT_TRUE(in) << path << " is missing: set GILTOP_UPDATE_GOLDEN=1";
  const std::string golden((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, golden);
}

struct Cell {
  GilState gil;
  CpuState cpu;
  uint64_t ns;
};

// A thread that lived from the beginning for as long as its cells say.
ThreadSnapshot thread(uint32_t tid, const std::vector<Cell>& cells) {
  ThreadSnapshot t;
  t.tid = tid;
  t.comm = "python3";
  for (const Cell& c : cells) {
    t.matrix[static_cast<size_t>(c.gil)][static_cast<size_t>(c.cpu)] += c.ns;
    t.last_ns += c.ns;
  }
  return t;
}

GilSnapshot gil(uint64_t running, uint64_t runnable, uint64_t blocked, uint64_t handoff,
                uint64_t idle, uint64_t unknown_ns = 0) {
  GilSnapshot g;
  g.address = 0x7f0000001000;
  g.ledger = {running, runnable, blocked, handoff, idle, 0, unknown_ns};
  for (const uint64_t part : g.ledger) g.last_ns += part;
  g.acquires = 100;
  return g;
}

Snapshot snapshot(std::vector<ThreadSnapshot> threads, const GilSnapshot& g) {
  Snapshot s;
  s.run.cpus = 4;
  ProcessSnapshot& p = s.processes.emplace_back();
  p.pid = 100;
  p.comm = "python3";
  p.cmdline = "python3 app.py";
  p.python = "3.11.2";
  p.threads = std::move(threads);
  p.gils.push_back(g);
  for (const ThreadSnapshot& t : p.threads) s.last_ns = std::max(s.last_ns, t.last_ns);
  return s;
}

std::string verdict(const Snapshot& s) {
  const Verdict v = verdict_of(s.processes[0], s);
  return v.sentence + " " + v.advice;
}

Snapshot turns() {
  Snapshot s =
      snapshot({thread(100, {{released, kBlocked, 1960 * kMs}, {holding, kRunning, 40 * kMs}}),
                thread(101, {{holding, kRunning, 1000 * kMs},
                             {waiting, kBlocked, 980 * kMs},
                             {waiting, kRunnable, 20 * kMs}}),
                thread(102, {{holding, kRunning, 960 * kMs},
                             {waiting, kBlocked, 1020 * kMs},
                             {waiting, kRunning, 20 * kMs}})},
               gil(1990 * kMs, 4 * kMs, 0, 6 * kMs, 0));
  Histogram waits;
  for (uint64_t i = 0; i < 200; i++) waits.add(5 * kMs + i * 1000);
  for (size_t i = 1; i < 3; i++) {
    s.processes[0].threads[i].wait = snapshot_of(waits);
    s.processes[0].threads[i].hold = snapshot_of(waits);
  }
  GilSnapshot& g = s.processes[0].gils[0];
  g.contended = 400;
  g.forced_releases = 398;
  g.voluntary_releases = 1302;
  g.acquires = 1701;
  Histogram handoff;
  for (int i = 0; i < 400; i++) handoff.add(15'000);
  g.handoff = snapshot_of(handoff);
  g.handoff_wakeup_ns = 400 * 5000;
  g.handoff_runqueue_ns = 400 * 7000;
  g.handoff_lock_ns = 400 * 3000;
  BlameSnapshot a, b;
  a.waiter_tid = 101;
  a.holder_tid = 102;
  a.running_ns = 997 * kMs;
  a.handoff_ns = 3 * kMs;
  b.waiter_tid = 102;
  b.holder_tid = 101;
  b.running_ns = 1036 * kMs;
  b.runnable_ns = 4 * kMs;
  g.blame = {a, b};
  return s;
}

TEST(TextReport, Golden) {
  Snapshot s = turns();
  s.run.probe_hits = 18'412;
  s.run.probe_cost_ns = 9 * kMs;
  s.run.own_cpu_ns = 30 * kMs;
  s.processes[0].threads[2].comm = "worker-2";
  expect_golden("text_report", text_report(s));
}

TEST(TextReport, AFreeThreadedBuildHasNoFiguresOfAGil) {
  Snapshot s =
      snapshot({thread(100, {{released, kRunning, 1900 * kMs}, {released, kBlocked, 100 * kMs}}),
                thread(101, {{released, kRunning, 2000 * kMs}})},
               gil(0, 0, 0, 0, 0));
  ProcessSnapshot& p = s.processes[0];
  p.gils.clear();
  p.free_threaded = true;
  p.gil_enabled = false;
  const std::string text = text_report(s);
  EXPECT_THAT(text, HasSubstr("GIL off: free-threaded build; 1.9 of 4 CPUs used.\n"));
  EXPECT_THAT(text, HasSubstr("2.00s         –        –         –          –       –"));
  EXPECT_THAT(text, Not(HasSubstr("0.0%")));
  EXPECT_THAT(text, Not(HasSubstr("GIL 0x")));
  p.threads[0].matrix[2] = {500 * kMs, 1500 * kMs, 0, 0};
  EXPECT_THAT(verdict(s), HasSubstr("no CPU for up to 75 % of their life"));
  p.gil_enabled.reset();
  EXPECT_THAT(verdict(s), HasSubstr("Free-threaded build, and nobody took or released its GIL"));
}

TEST(TextReport, ReadingsThatProvedWrongAreSaid) {
  Snapshot s = turns();
  s.memory_disagreements = 2;
  EXPECT_THAT(text_report(s), HasSubstr("2 readings of a process's memory proved wrong"));
}

// Two interpreters with a GIL each.
TEST(TextReport, GilsOfSeveralInterpretersAreNamed) {
  Snapshot s =
      snapshot({thread(100, {{holding, kRunning, 2000 * kMs}}),
                thread(101, {{holding, kRunning, 1980 * kMs}, {waiting, kBlocked, 20 * kMs}})},
               gil(2000 * kMs, 0, 0, 0, 0));
  s.processes[0].gils[0].interpreter = 0;
  EXPECT_THAT(text_report(s), Not(HasSubstr("interpreter"))) << "there is but one";
  s.processes[0].gils.push_back(s.processes[0].gils[0]);
  s.processes[0].gils[1].interpreter = 3;
  EXPECT_THAT(text_report(s), AllOf(HasSubstr("interpreter 0 · held 100.0 %"),
                                    HasSubstr("interpreter 3 · held 100.0 %")));
  EXPECT_THAT(verdict(s), HasSubstr("Two interpreters ran in parallel, each with a GIL of its own: "
                                    "2.0 of 4 CPUs used."));
}

TEST(Verdict, UnknownIsAShareOfEachGilsLife) {
  Snapshot s = snapshot({thread(100, {{holding, kRunning, 1000 * kMs}})},
                        gil(700 * kMs, 0, 0, 0, 0, 300 * kMs));
  s.processes[0].gils.push_back(s.processes[0].gils[0]);
  EXPECT_THAT(verdict(s), Not(HasSubstr("not known who held")));
  s.processes[0].gils[0] = s.processes[0].gils[1] = gil(300 * kMs, 0, 0, 0, 0, 700 * kMs);
  EXPECT_THAT(verdict(s), HasSubstr("For 70 % of the time it is not known"));
}

TEST(Verdict, TurnsOnTwoGilsAreNotOnOne) {
  Snapshot s = turns();
  ProcessSnapshot& p = s.processes[0];
  for (uint32_t i = 1; i < 3; i++) {
    ThreadSnapshot t = p.threads[i];
    t.tid += 10;
    p.threads.push_back(t);
  }
  GilSnapshot second = p.gils[0];
  for (BlameSnapshot& b : second.blame) {
    *b.waiter_tid += 10;
    b.holder_tid = *b.holder_tid + 10;
  }
  p.gils.push_back(second);
  EXPECT_THAT(verdict(s), HasSubstr("Four threads took turns on 2 GILs"));
}

TEST(Verdict, AHoldThatNeverEndsIsSeenThoughNobodyTookTheGil) {
  Snapshot s =
      snapshot({thread(100, {{holding, kBlocked, 5 * kSecond}})}, gil(0, 0, 5 * kSecond, 0, 0));
  s.processes[0].gils[0].acquires = 0;
  EXPECT_THAT(verdict(s), HasSubstr("100 slept 5.00s with the GIL in its hands (without end); "
                                    "nobody waited for it meanwhile."));
}

TEST(TextReport, LossesAndViolationsAreOnEveryScreen) {
  Snapshot s = turns();
  EXPECT_THAT(text_report(s), Not(HasSubstr("LOST")));
  s.lost_events = 12'345;
  s.lost_by_kind[0] = 12'000;
  s.lost_by_kind[4] = 345;
  s.violations = 3;
  EXPECT_THAT(text_report(s), AllOf(HasSubstr("12 345 events were LOST"), HasSubstr("gil_wait"),
                                    HasSubstr("345 switch"), HasSubstr("3 contradictions")));
}

TEST(TextReport, NothingSeen) {
  EXPECT_THAT(text_report(Snapshot()), HasSubstr("No CPython process was seen"));
}

TEST(TextReport, ManyThreadsAndProcessesAreSummedUp) {
  Snapshot s = turns();
  for (uint32_t i = 0; i < 100; i++)
    s.processes[0].threads.push_back(thread(200 + i, {{released, kBlocked, 2000 * kMs}}));
  for (uint32_t i = 0; i < 30; i++) {
    s.processes.push_back(s.processes[0]);
    s.processes.back().pid = 1000 + i;
  }
  const std::string text = text_report(s);
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 300);
  EXPECT_THAT(text, HasSubstr("more processes"));
}

TEST(TextReport, NoNameDrivesTheTerminal) {
  const std::string names[] = {"\x1b[31mred",
                               "a\nb\rc\td",
                               "bell\a",
                               "del\x7f",
                               "c1 \xc2\x9b"
                               "31m",
                               "raw c1 \x9b"
                               "31m",
                               "\xff\xfe",
                               "\xe2\x82",
                               "\xc0\x9b",
                               "\xe0\x82\x9b"};
  for (const std::string& name : names) {
    Snapshot s = turns();
    s.processes.push_back(s.processes[0]);  // with two, each has its command line above it
    for (ProcessSnapshot& p : s.processes) {
      p.comm = p.cmdline = name;
      for (ThreadSnapshot& t : p.threads) t.comm = name;
    }
    const std::string text = text_report(s) + comparison({{"title", "lesson", "file", s}});
    for (size_t i = 0; i < text.size(); i++) {
      const auto byte = static_cast<unsigned char>(text[i]);
      ASSERT_TRUE(byte == '\n' || (byte >= 0x20 && byte != 0x7f)) << "byte " << +byte;
      if (byte == 0xc2 && i + 1 < text.size()) {
        ASSERT_GE(static_cast<unsigned char>(text[i + 1]), 0xa0) << "a C1 control character";
      }
      ASSERT_LT(byte, 0xf5);
      ASSERT_NE(byte, 0xc0);
    }
    EXPECT_THAT(text, Not(HasSubstr("\x9b"
                                    "31m")));
  }
}

TEST(Format, PrintableKeepsWhatIsText) {
  for (const std::string text : {"plain", "ünïcödé", "日本語", "✓ ok", "𝔘"})
    EXPECT_EQ(printable(text), text);
  EXPECT_EQ(printable("a\x1b[0mb"), "a?[0mb");
  EXPECT_EQ(printable("\xc2\x9b"
                      "2J"),
            "?2J");
}

// --- the verdict ---------------------------------------------------------------------------------

TEST(Verdict, ThreadsThatTakeTurns) {
  EXPECT_THAT(verdict(turns()), AllOf(HasSubstr("took turns"), HasSubstr("1.0 of 4 CPUs"),
                                      HasSubstr("50–52 %"), HasSubstr("faster")));
}

TEST(Verdict, AThreadThatSleepsWithTheGil) {
  Snapshot s =
      snapshot({thread(100, {{holding, kBlocked, 1000 * kMs}, {released, kRunning, 1000 * kMs}}),
                thread(101, {{waiting, kBlocked, 900 * kMs}, {holding, kRunning, 1100 * kMs}})},
               gil(1000 * kMs, 0, 1000 * kMs, 0, 0));
  s.processes[0].threads[0].held_sleeps = 50;
  s.processes[0].threads[0].held_sleep_max_ns = 21 * kMs;
  BlameSnapshot b;
  b.waiter_tid = 101;
  b.holder_tid = 100;
  b.blocked_ns = 900 * kMs;
  s.processes[0].gils[0].blame = {b};
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("100 slept 1.00s with the GIL"), HasSubstr("50 times"),
                                HasSubstr("21ms"), HasSubstr("101 lost 0.90s")));
}

TEST(Verdict, NativeWorkInParallelIsFine) {
  const Snapshot s =
      snapshot({thread(100, {{released, kRunning, 1900 * kMs}, {holding, kRunning, 100 * kMs}}),
                thread(101, {{released, kRunning, 1900 * kMs}, {holding, kRunning, 100 * kMs}})},
               gil(200 * kMs, 0, 0, 0, 1800 * kMs));
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("not the problem"), HasSubstr("2.0 of 4 CPUs")));
}

TEST(Verdict, OneThreadAlone) {
  const Snapshot s =
      snapshot({thread(100, {{holding, kRunning, 2 * kSecond}})}, gil(2 * kSecond, 0, 0, 0, 0));
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("nobody waited"), HasSubstr("1.0 of 4 CPUs")));
}

TEST(Verdict, APreemptedHolder) {
  const Snapshot s =
      snapshot({thread(100, {{holding, kRunning, 1000 * kMs}, {holding, kRunnable, 1000 * kMs}})},
               gil(1000 * kMs, 1000 * kMs, 0, 0, 0));
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("preempted"), HasSubstr("1.00s")));
}

TEST(Verdict, WhatIsNotKnownIsNotJudged) {
  Snapshot s = snapshot({thread(100, {{unknown, kRunning, 2 * kSecond}})},
                        gil(0, 0, 0, 0, 500 * kMs, 1500 * kMs));
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("75 %"), HasSubstr("not known")));
  s.processes[0].gils[0].acquires = 0;
  EXPECT_THAT(verdict(s), HasSubstr("Nobody took"));
  s.processes[0].free_threaded = true;
  EXPECT_THAT(verdict(s), HasSubstr("Free-threaded"));
}

TEST(Verdict, NothingAtAllDoesNotDivideByZero) {
  Snapshot s;
  s.processes.emplace_back().gils.emplace_back().acquires = 1;
  s.processes[0].threads.emplace_back();
  EXPECT_FALSE(verdict(s).empty());
  EXPECT_THAT(text_report(s), Not(AllOf(HasSubstr("nan"), HasSubstr("inf"))));
}

// Threads that sleep, get in each other's way now and then, and are preempted now and then.
TEST(Verdict, NoRuleFiresOnNoise) {
  for (uint64_t seed = 1; seed <= 1000; seed++) {
    std::mt19937_64 rng(seed);
    const auto up_to = [&](uint64_t most_ms) { return rng() % (most_ms * kMs); };
    std::vector<ThreadSnapshot> threads;
    GilSnapshot g = gil(0, 0, 0, up_to(100), 0);
    for (uint32_t tid = 100; tid < 102 + seed % 8; tid++) {
      const uint64_t held = up_to(300), preempted = up_to(10), asleep = up_to(10);
      const std::array<uint64_t, 3> waited = {up_to(150), up_to(8), up_to(8)};
      const uint64_t all = waited[0] + waited[1] + waited[2];
      const uint64_t native = up_to(500), starved = up_to(500);
      threads.push_back(
          thread(tid, {{holding, kRunning, held},
                       {holding, kRunnable, preempted},
                       {holding, kBlocked, asleep},
                       {waiting, kBlocked, all},
                       {released, kRunning, native},
                       {released, kRunnable, starved},
                       {released, kBlocked,
                        10 * kSecond - held - preempted - asleep - all - native - starved}}));
      threads.back().wait.count = threads.back().contended = 1 + rng() % 100;
      threads.back().wait.sum_ns = all;
      threads.back().held_sleeps = asleep / kMs;
      threads.back().held_sleep_max_ns = asleep;
      g.ledger[0] += held;
      g.ledger[1] += preempted;
      g.ledger[2] += asleep;
      BlameSnapshot blame;
      blame.waiter_tid = tid;
      blame.holder_tid = tid == 100 ? 101 : 100;
      blame.running_ns = waited[0];
      blame.runnable_ns = waited[1];
      blame.blocked_ns = waited[2];
      g.blame.push_back(blame);
    }
    g.ledger[4] = 10 * kSecond - g.ledger[0] - g.ledger[1] - g.ledger[2] - g.ledger[3];
    g.last_ns = 10 * kSecond;
    g.handoff.sum_ns = g.ledger[3];
    g.handoff.count = 100;
    const Snapshot s = snapshot(std::move(threads), g);
    ASSERT_EQ(verdict_of(s.processes[0], s).finding, "not-the-gil") << verdict(s) << " " << seed;
  }
}

TEST(Verdict, RandomSnapshotsAreJudgedToo) {
  for (uint64_t seed = 1; seed <= 100; seed++) {
    const testing::Simulation simulation(seed, {.steps = seed * 4});
    const testing::Played played(simulation.tables(), simulation.events());
    RunFacts run;
    run.cpus = 2;
    const std::string text = text_report(snapshot_of(played.model, run));
    EXPECT_THAT(text, Not(HasSubstr("nan")));
    EXPECT_THAT(text, Not(HasSubstr("inf%")));
    EXPECT_EQ(text.back(), '\n');
  }
}

// --- figures -------------------------------------------------------------------------------------

size_t glyphs(const std::string& bar) {
  return static_cast<size_t>(std::count_if(bar.begin(), bar.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

TEST(StateBar, IsFullAndTrueToAGlyph) {
  std::mt19937_64 rng(9);
  for (int i = 0; i < 1000; i++) {
    std::vector<Cell> cells;
    for (size_t g = 0; g < 4; g++)
      for (size_t c = 0; c < 4; c++)
        if (rng() % 2)
          cells.push_back({static_cast<GilState>(g), static_cast<CpuState>(c), rng() % kSecond});
    const ThreadSnapshot t = thread(1, cells);
    if (t.life_ns() == 0) continue;
    for (const size_t width : {1u, 7u, 20u, 80u}) {
      const std::string bar = state_bar(t, width);
      ASSERT_EQ(glyphs(bar), width);
      size_t full = 0;
      for (size_t at = bar.find("█"); at != std::string::npos; at = bar.find("█", at + 1)) full++;
      const double exact = static_cast<double>(t.in(holding, kRunning)) *
                           static_cast<double>(width) / static_cast<double>(t.life_ns());
      ASSERT_NEAR(static_cast<double>(full), exact, 1.0);
    }
  }
}

TEST(StateBar, Simple) {
  EXPECT_EQ(state_bar(thread(1, {{holding, kRunning, 10}, {waiting, kBlocked, 10}}), 4), "██░░");
  EXPECT_EQ(state_bar(thread(1, {{released, kBlocked, 1}}), 3), "···");
  EXPECT_EQ(state_bar(thread(1, {{unknown, CpuState::unknown, 1}}), 3), "???");
  EXPECT_EQ(state_bar(thread(1, {})), "");
  EXPECT_THAT(bar_legend("██░░"),
              AllOf(HasSubstr("holding"), HasSubstr("waiting"), Not(HasSubstr("unknown"))));
}

TEST(Format, Figures) {
  EXPECT_EQ(format_duration(0), "0");
  EXPECT_EQ(format_duration(640), "640ns");
  EXPECT_EQ(format_duration(28'000), "28µs");
  EXPECT_EQ(format_duration(5'100'000), "5.1ms");
  EXPECT_EQ(format_duration(9'970'000), "10ms");
  EXPECT_EQ(format_duration(999'600), "1.0ms");
  EXPECT_EQ(format_duration(1'250'000'000), "1.25s");
  EXPECT_EQ(format_seconds(4'210'000'000), "4.21s");
  EXPECT_EQ(format_seconds(123'400'000'000), "123.4s");
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(18'412), "18 412");
  EXPECT_EQ(format_count(1'234'567), "1 234 567");
  EXPECT_EQ(format_bytes(92'000), "92 KB");
  EXPECT_EQ(format_percent(1, 2), "50.0");
  EXPECT_EQ(format_percent(1, 0), "0.0");
  EXPECT_EQ(pad_left("µs", 4), "  µs");
  EXPECT_EQ(pad_right("µs", 4), "µs  ");
  EXPECT_EQ(pad_right("abcdef", 4), "abc…");
  EXPECT_EQ(pad_right("äöüßab", 4), "äöü…");
}

}  // namespace
}  // namespace giltop
