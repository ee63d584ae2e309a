// What a person reads: the report as a whole, bars and figures.
#include "view/text_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "base/format.h"
#include "support/snapshot_builder.h"
#include "view/comparison.h"
#include "view/format.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using enum GilState;
using testing::Cell, testing::kBlocked, testing::kMs, testing::kRunnable, testing::kRunning,
    testing::kSecond;
using testing::gil, testing::snapshot, testing::thread, testing::turns, testing::verdict;

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

TEST(TextReport, MuchOverheadHasItsCure) {
  Snapshot s = turns();
  s.run.probe_cost_ns = 60 * kMs;
  EXPECT_THAT(text_report(s), Not(HasSubstr("--mode auto")));
  s.run.probe_cost_ns = 300 * kMs;
  EXPECT_THAT(text_report(s),
              HasSubstr("That is much: --mode auto keeps it low; holds are sampled then"));
  s.run.mode = "auto";
  EXPECT_THAT(text_report(s), Not(HasSubstr("--mode auto")));
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
