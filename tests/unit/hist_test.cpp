// hist: sums of histograms, their text, their JSON.
#include "model/hist.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "sink/hist_json.h"
#include "view/hist.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr uint64_t kMs = 1'000'000;

// Some ns to some hundred seconds, evenly by magnitude.
std::vector<uint64_t> some_values(std::mt19937_64& random, size_t n) {
  std::uniform_real_distribution<double> magnitude(0.5, 11.5);
  std::vector<uint64_t> values;
  for (size_t i = 0; i < n; i++)
    values.push_back(static_cast<uint64_t>(std::pow(10, magnitude(random))));
  return values;
}

HistogramSnapshot histogram_of(const std::vector<uint64_t>& values) {
  Histogram h;
  for (const uint64_t v : values) h.add(v);
  return snapshot_of(h);
}

void expect_same(const HistogramSnapshot& a, const HistogramSnapshot& b) {
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.sum_ns, b.sum_ns);
  EXPECT_EQ(a.min_ns, b.min_ns);
  EXPECT_EQ(a.max_ns, b.max_ns);
  EXPECT_EQ(a.p50_ns, b.p50_ns);
  EXPECT_EQ(a.p90_ns, b.p90_ns);
  EXPECT_EQ(a.p99_ns, b.p99_ns);
  EXPECT_EQ(a.p999_ns, b.p999_ns);
  ASSERT_EQ(a.buckets.size(), b.buckets.size());
  for (size_t i = 0; i < a.buckets.size(); i++) {
    EXPECT_EQ(a.buckets[i].lower_ns, b.buckets[i].lower_ns);
    EXPECT_EQ(a.buckets[i].upper_ns, b.buckets[i].upper_ns);
    EXPECT_EQ(a.buckets[i].count, b.buckets[i].count);
  }
}

TEST(Hist, SumsAreThoseOfAllValues) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; round++) {
    const auto a = some_values(random, random() % 200), b = some_values(random, random() % 200);
    HistogramSnapshot sum = histogram_of(a);
    add_values(sum, histogram_of(b));
    set_quantiles(sum);
    std::vector<uint64_t> both = a;
    both.insert(both.end(), b.begin(), b.end());
    expect_same(sum, histogram_of(both));
  }
}

Snapshot two_processes() {
  Snapshot s;
  s.first_ns = 1000;
  s.last_ns = 1000 + 10'000 * kMs;
  s.run.mode = "exact";
  for (uint32_t p = 0; p < 2; p++) {
    ProcessSnapshot& process = s.processes.emplace_back();
    process.pid = 100 * (p + 1);
    process.comm = "python3";
    process.cmdline = "/usr/bin/python3 /srv/app.py";
    for (uint32_t t = 0; t < 2; t++) {
      ThreadSnapshot& thread = process.threads.emplace_back();
      thread.tid = process.pid + t;
      thread.comm = "worker";
      thread.acquires = 10;
      thread.contended = 3;
      thread.wait = histogram_of({5 * kMs, 6 * kMs, (t + 1) * 100 * kMs});
      thread.hold = histogram_of({2000, 3000});
    }
    process.gils.emplace_back().handoff = histogram_of({10'000, 20'000, 1'500'000});
    process.gils[0].acquires = 20;
    process.gils[0].contended = 6;
  }
  return s;
}

TEST(Hist, AllByProcessByThread) {
  const Snapshot s = two_processes();
  const HistReport all = hist_of(s, HistGroup::all, {HistKind::wait, HistKind::handoff});
  ASSERT_THAT(all.series, SizeIs(2));
  EXPECT_EQ(all.series[0].name, "2 Pythons");
  EXPECT_EQ(all.series[0].values.count, 12u);
  EXPECT_EQ(all.series[0].acquires, 40u);
  EXPECT_EQ(all.series[0].contended, 12u);
  EXPECT_EQ(all.series[1].values.count, 6u);
  EXPECT_EQ(all.series[1].values.max_ns, 1'500'000u);

  const HistReport processes = hist_of(s, HistGroup::process, {HistKind::wait});
  ASSERT_THAT(processes.series, SizeIs(2));
  EXPECT_EQ(processes.series[1].pid, 200u);
  EXPECT_EQ(processes.series[1].name, "python3 /srv/app.py");
  EXPECT_EQ(processes.series[1].values.count, 6u);

  const HistReport threads = hist_of(s, HistGroup::thread, {HistKind::wait, HistKind::hold});
  ASSERT_THAT(threads.series, SizeIs(8));
  EXPECT_EQ(threads.series[3].tid, 201u);
  EXPECT_EQ(threads.series[3].values.max_ns, 200 * kMs);
  EXPECT_EQ(threads.series[4].kind, HistKind::hold);
}

TEST(Hist, NothingIsSaidToo) {
  const HistReport nothing = hist_of(Snapshot(), HistGroup::all, {HistKind::wait});
  EXPECT_THAT(hist_text(nothing, HistUnit::microseconds), HasSubstr("nobody waited"));
  Snapshot s = two_processes();
  for (ProcessSnapshot& p : s.processes)
    for (ThreadSnapshot& t : p.threads) t.wait = {};
  EXPECT_THAT(hist_of(s, HistGroup::thread, {HistKind::wait}).series, IsEmpty());
}

TEST(Hist, ASampledProcessHasNoCountOfAcquires) {
  Snapshot s = two_processes();
  s.processes[1].exact = false;
  const HistReport all = hist_of(s, HistGroup::all, {HistKind::wait});
  EXPECT_FALSE(all.series[0].acquires);
  EXPECT_EQ(all.series[0].contended, 12u);
  EXPECT_THAT(hist_text(all, HistUnit::microseconds), Not(HasSubstr("acquires")));
}

TEST(Hist, WhatTheKernelHadNoRoomForIsShown) {
  Snapshot s = two_processes();
  const auto text = [&] {
    return hist_text(hist_of(s, HistGroup::all, {HistKind::wait}), HistUnit::microseconds);
  };
  EXPECT_THAT(text(), Not(HasSubstr("not counted")));
  s.not_counted = 12'345;
  EXPECT_THAT(text(), HasSubstr("0 lost, 12 345 waits not counted: no room in the kernel\n"));
}

TEST(Hist, LightModeDoesNotKnowHolds) {
  Snapshot s = two_processes();
  s.processes.clear();
  const auto text = [&] {
    return hist_text(hist_of(s, HistGroup::all, {HistKind::hold}), HistUnit::microseconds);
  };
  EXPECT_THAT(text(), HasSubstr("none\n"));
  s.run.mode = "light";
  EXPECT_THAT(text(), HasSubstr("not known in light mode\n"));
}

// Whatever mode the run began in.
TEST(Hist, AProcessThatIsNotExactHasNoHolds) {
  Snapshot s = two_processes();
  s.run.mode = "auto";
  s.processes[1].exact = false;
  const auto report = [&] { return hist_of(s, HistGroup::all, {HistKind::hold}); };
  const auto text = [&] { return hist_text(report(), HistUnit::microseconds); };
  EXPECT_THAT(text(), AllOf(HasSubstr("in exact mode alone"), HasSubstr(" : 8 ")));
  for (ProcessSnapshot& p : s.processes)
    for (ThreadSnapshot& t : p.threads) t.hold = {};
  EXPECT_THAT(text(), HasSubstr("not known in light mode\n"));
  EXPECT_THAT(to_json(report()), HasSubstr("\"count\":null,\"sum_s\":null"));
  EXPECT_THAT(to_json(report()), HasSubstr("\"p50_s\":null"));
  const auto again = hist_from_json(to_json(report()));
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_THAT(hist_text(*again, HistUnit::microseconds), HasSubstr("not known in light mode\n"));
  EXPECT_THAT(hist_diff(*again, *again, HistUnit::microseconds),
              HasSubstr("GIL hold: not known in light mode\n"));
  s.processes[1].exact = true;
  EXPECT_THAT(text(), HasSubstr("none\n"));
  EXPECT_THAT(to_json(report()), HasSubstr("\"count\":0,"));
}

TEST(Hist, TextIsRunqlats) {
  Snapshot s = two_processes();
  s.processes.resize(1);
  const std::string us =
      hist_text(hist_of(s, HistGroup::all, {HistKind::wait}), HistUnit::microseconds);
  EXPECT_EQ(us,
            "python3 /srv/app.py (100)  GIL wait, 10.0 s, 20 acquires, 6 contended, 0 lost\n"
            "                  usecs    : count     distribution\n"
            "        4096 -> 8191       : 4         |****************************************|\n"
            "        8192 -> 16383      : 0         |                                        |\n"
            "       16384 -> 32767      : 0         |                                        |\n"
            "       32768 -> 65535      : 0         |                                        |\n"
            "       65536 -> 131071     : 1         |**********                              |\n"
            "      131072 -> 262143     : 1         |**********                              |\n"
            "p50 6.0ms  p90 200ms  p99 200ms  max 200ms\n");
  const std::string ms =
      hist_text(hist_of(s, HistGroup::all, {HistKind::wait}), HistUnit::milliseconds);
  EXPECT_THAT(ms, AllOf(HasSubstr("msecs"), HasSubstr("4 -> 7          : 4")));
}

TEST(Hist, RowsHoldAllValues) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 20; round++) {
    Snapshot s = two_processes();
    s.processes.resize(1);
    s.processes[0].threads.resize(1);
    s.processes[0].threads[0].wait = histogram_of(some_values(random, 500));
    const std::string text =
        hist_text(hist_of(s, HistGroup::all, {HistKind::wait}), HistUnit::microseconds);
    size_t sum = 0;
    for (size_t at = text.find(" : "); at != std::string::npos; at = text.find(" : ", at + 3))
      sum += std::strtoul(text.c_str() + at + 3, nullptr, 10);
    EXPECT_EQ(sum, 500u);
  }
}

TEST(Hist, IntervalsAddUp) {
  Snapshot a = two_processes(), b = two_processes();
  b.processes[1].pid = 300;  // another one by now
  const std::vector<HistKind> kinds = {HistKind::wait, HistKind::handoff};
  HistReport sum;
  for (const Snapshot& s : {a, b, a}) add(sum, hist_of(s, HistGroup::process, kinds));
  EXPECT_EQ(sum.duration_ns, 3 * a.duration_ns());
  ASSERT_THAT(sum.series, SizeIs(6));
  uint64_t waits = 0;
  for (const HistSeries& s : sum.series) {
    if (s.kind != HistKind::wait) continue;
    waits += s.values.count;
    EXPECT_EQ(s.values.count, s.pid == 100u ? 18u : s.pid == 200u ? 12u : 6u);
    EXPECT_EQ(s.acquires, s.pid == 100u ? 60u : s.pid == 200u ? 40u : 20u);
  }
  EXPECT_EQ(waits, 36u);
}

// A process that executed another program, or its id's next owner.
TEST(Hist, IntervalsKeepProcessesOfOneIdApart) {
  Snapshot a = two_processes();
  a.processes[1].pid = a.processes[0].pid;
  a.processes[1].cmdline = "/usr/bin/python3 /srv/next.py";
  a.processes[0].number = 1;
  a.processes[1].number = 2;
  for (const HistGroup group : {HistGroup::process, HistGroup::thread}) {
    HistReport sum;
    for (int i = 0; i < 2; i++) add(sum, hist_of(a, group, {HistKind::wait, HistKind::handoff}));
    ASSERT_THAT(sum.series, SizeIs(group == HistGroup::process ? 4 : 6));
    for (const HistSeries& s : sum.series)
      if (s.kind == HistKind::handoff) {
        EXPECT_EQ(s.values.count, 6u);
        EXPECT_EQ(s.name, s.process == 1 ? "python3 /srv/app.py" : "python3 /srv/next.py");
      }
  }
}

TEST(Hist, JsonAndBack) {
  std::mt19937_64 random(3);
  Snapshot s = two_processes();
  s.processes[0].threads[0].wait = histogram_of(some_values(random, 1000));
  s.processes[1].exact = false;
  s.lost_events = 7;
  s.run.events = 11;
  s.not_counted = 13;
  const HistReport before =
      hist_of(s, HistGroup::thread, {HistKind::wait, HistKind::hold, HistKind::handoff});
  const std::string text = to_json(before);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const auto after = hist_from_json(text);
  ASSERT_TRUE(after) << after.error().message();
  EXPECT_EQ(after->duration_ns, before.duration_ns);
  EXPECT_EQ(after->lost_events, 7u);
  EXPECT_EQ(after->events, 11u);
  EXPECT_EQ(after->not_counted, 13u);
  ASSERT_EQ(after->series.size(), before.series.size());
  for (size_t i = 0; i < before.series.size(); i++) {
    EXPECT_EQ(after->series[i].kind, before.series[i].kind);
    EXPECT_EQ(after->series[i].pid, before.series[i].pid);
    EXPECT_EQ(after->series[i].tid, before.series[i].tid);
    EXPECT_EQ(after->series[i].name, before.series[i].name);
    EXPECT_EQ(after->series[i].acquires, before.series[i].acquires);
    expect_same(after->series[i].values, before.series[i].values);
  }
}

TEST(Hist, WhatIsNoSuchJsonIsAnError) {
  const std::string good = to_json(hist_of(two_processes(), HistGroup::all, {HistKind::wait}));
  const auto with = [&](const std::string& what, const std::string& by) {
    std::string text = good;
    text.replace(text.find(what), what.size(), by);
    return text;
  };
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("[]"), std::string("\x00\xff", 2),
        good.substr(0, good.size() / 2), with("giltop.hist/1", "giltop.hist/2"),
        with("\"wait\"", "\"bogus\""), with("\"duration_s\":", "\"duration_s\":-"),
        with("\"buckets\":[[", "\"buckets\":[[1e300,1],["),
        with("\"buckets\":[[", "\"buckets\":[[99,1],["), with("\"series\":[", "\"series\":[7,"),
        with("\"contended\":", "\"contended\":-"),
        with("\"contended\":", "\"contended\":9e99,\"was\":"),
        with("\"lost_events\":", "\"lost_events\":" + std::string(400'000, '[') +
                                     std::string(400'000, ']') + ",\"was\":"),
        with("\"pid\":", "\"pid\":4294967296,\"was\":"),
        with("\"lost_events\":", "\"lost_events\":0.5,\"was\":")}) {
    EXPECT_FALSE(hist_from_json(text)) << text.substr(0, 1000);
  }
}

TEST(Hist, DifferencesOfTwo) {
  Snapshot a = two_processes(), b = two_processes();
  a.processes.resize(1);
  b.processes.resize(1);
  b.processes[0].pid = 777;
  for (ThreadSnapshot& t : b.processes[0].threads) t.wait = histogram_of({kMs, kMs, 2 * kMs});
  const auto report = [](const Snapshot& s) {
    return hist_of(s, HistGroup::all, {HistKind::wait});
  };
  const std::string diff = hist_diff(report(a), report(b), HistUnit::microseconds);
  EXPECT_THAT(diff, AllOf(HasSubstr("6 values in 10.0 s, then 6 in 10.0 s"),
                          HasSubstr("66.7 % |********************|"),
                          HasSubstr("max 200ms -> 2.0ms (-99 %)")));
  EXPECT_THAT(diff, HasSubstr("p50 6.0ms -> 1.0ms (-83 %)"));
  EXPECT_THAT(diff, Not(HasSubstr("mode")));
  b.run.mode = "light";
  EXPECT_THAT(hist_diff(report(a), report(b), HistUnit::microseconds),
              HasSubstr("then 6 in 10.0 s, in exact and in light mode\n"));
  // By process: each is compared with itself.
  a = b = two_processes();
  b.processes[1].pid = 300;
  const std::string some = hist_diff(
      hist_of(a, HistGroup::process, {HistKind::wait}),
      hist_of(b, HistGroup::process, {HistKind::hold, HistKind::wait}), HistUnit::microseconds);
  EXPECT_THAT(some, AllOf(HasSubstr("(200)  GIL wait: only in the first"),
                          HasSubstr("(300)  GIL wait: only in the second"),
                          HasSubstr("(100)  GIL hold: only in the second")));
}

// A process that executed another program is two, with one id: each is compared with its own, in
// whatever order they come.
TEST(Hist, DiffTellsTwoOfOneIdApart) {
  HistReport a = hist_of(two_processes(), HistGroup::process, {HistKind::wait});
  ASSERT_EQ(a.series.size(), 2u);
  a.series[1].pid = a.series[0].pid;
  a.series[0].name = "first";
  a.series[1].name = "then";
  HistReport b = a;
  std::swap(b.series[0], b.series[1]);
  const std::string diff = hist_diff(a, b, HistUnit::microseconds);
  EXPECT_THAT(diff, Not(HasSubstr("only in")));
  for (const HistSeries& s : a.series) {
    const std::string count = std::to_string(s.values.count);
    EXPECT_THAT(diff, HasSubstr(count + " values in 10.0 s, then " + count + " in"));
  }
}

}  // namespace
}  // namespace giltop
