// What intervals tell sums up to what the last snapshot says.
#include "model/interval.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "model/timeline.h"
#include "sink/json.h"
#include "support/event_builder.h"
#include "support/light_history.h"
#include "support/snapshot_sum.h"

namespace giltop {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::kStart_ns;
using testing::Simulation;
using ::testing::SizeIs;
using testing::Story;
using testing::Sum;

constexpr size_t kAll = 1'000'000;
constexpr ModelLimits kNoFolding{kAll, kAll, kAll, kAll};

// What was held back of the last snapshot, as it is not decided yet.
Snapshot without_undecided(Snapshot s) {
  for (ProcessSnapshot& p : s.processes) {
    for (ThreadSnapshot& t : p.threads) t.matrix[3][0] -= std::min(t.matrix[3][0], t.undecided_ns);
    for (GilSnapshot& g : p.gils) g.ledger[kLedgerColumns - 1] -= g.undecided_ns;
  }
  return s;
}

// A history that was looked at now and then, at random.
struct Watched {
  Watched(const EventTables& tables, const std::vector<Event>& events, uint64_t seed,
          unsigned ticks_percent, const ModelLimits& limits = kNoFolding)
      : model(tables, limits), rng(seed) {
    model.begin_interval();
    for (size_t i = 0; i < events.size(); i++) {
      Event event = events[i];
      event.ts_ns = std::max(event.ts_ns, model.last_ns());  // as_light() is not that exact
      model.apply(event);
      // Not between the halves of a switch.
      const bool at_end = i + 1 == events.size();
      if (at_end || events[i + 1].ts_ns <= event.ts_ns || rng() % 100 >= ticks_percent) continue;
      const uint64_t until = rng() % 4 == 0 ? 1 : events[i + 1].ts_ns - event.ts_ns;
      model.advance_to(event.ts_ns + rng() % until);
      tick();
    }
    model.advance_to(model.last_ns());
    tick();
  }

  void tick() {
    last = snapshot_of(model, {});
    model.begin_interval();
    for (const auto& [number, into] : last.folded_processes) {
      sums[into].add(sums[number]);
      sums.erase(number);
    }
    if (ticks == baseline) later.next(last);
    if (ticks > baseline) later_sum = later.since(last);
    if (ticks < baseline) later.skip(last);
    ticks++;
    const uint64_t from = intervals.empty() ? last.first_ns : intervals.back().last_ns;
    const Snapshot& interval = intervals.emplace_back(told.next(last));
    EXPECT_EQ(interval.first_ns, from);
    EXPECT_EQ(interval.last_ns, last.last_ns);
    for (const ProcessSnapshot& p : interval.processes) {
      sums[p.number].add_figures(p);
      for (const ThreadSnapshot& t : p.threads) {
        EXPECT_GE(t.first_ns, seen.insert(t.number).second ? 0 : interval.first_ns);
        EXPECT_LE(t.last_ns, interval.last_ns);
      }
    }
  }

  // Empty lines mean 0.
  static std::map<std::string, uint64_t> lines(const Sum& sum) {
    std::map<std::string, uint64_t> result = sum.of;
    std::erase_if(result, [](const auto& line) { return line.second == 0; });
    return result;
  }

  void expect_sums_are_whole(const std::string& what) {
    for (const ProcessSnapshot& p : without_undecided(last).processes) {
      Sum whole;
      whole.add_figures(p);
      ASSERT_EQ(lines(sums[p.number]), lines(whole)) << what << " process " << p.pid;
    }
  }

  Model model;
  std::mt19937_64 rng;
  Intervals told, later;
  size_t ticks = 0, baseline = 3;
  std::vector<Snapshot> intervals;
  Snapshot last, later_sum;
  std::map<uint64_t, Sum> sums;
  std::set<uint64_t> seen;
};

TEST(Interval, TheSumIsTheWhole) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    Simulation simulation(seed, {.steps = 1500, .gils = 1 + unsigned(seed % 3), .max_threads = 16});
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    Watched watched(simulation.tables(), events, seed, 1 + seed % 20);
    watched.expect_sums_are_whole("seed " + std::to_string(seed));
    // To look changes nothing.
    const testing::Played unwatched(simulation.tables(), events, kNoFolding);
    ASSERT_EQ(to_json(watched.last), to_json(snapshot_of(unwatched.model, {}))) << seed;
  }
}

TEST(Interval, WhatWasFoldedIsToldOnce) {
  uint64_t folded_threads = 0, folded_processes = 0;
  for (uint64_t seed = 1; seed <= 40; seed++) {
    Simulation simulation(seed, {.steps = 5000, .gils = 1 + unsigned(seed % 2), .max_threads = 24});
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    const ModelLimits limits{seed % 7, seed % 5, seed % 3 ? kAll : 2, 16};
    Watched watched(simulation.tables(), events, seed, 1 + seed % 10, limits);
    watched.expect_sums_are_whole("seed " + std::to_string(seed));
    uint64_t threads = 0, processes = 0;
    for (const Snapshot& interval : watched.intervals) {
      for (const ProcessSnapshot& p : interval.processes) {
        processes += p.folded;
        for (const ThreadSnapshot& t : p.threads) threads += t.folded;
      }
    }
    uint64_t most_threads = 0, most_processes = 0;
    for (const ProcessSnapshot& p : watched.last.processes) {
      most_processes += p.folded;
      for (const ThreadSnapshot& t : p.threads) most_threads += t.folded;
    }
    // Those that had their say before they were folded are not said again.
    EXPECT_LE(threads, most_threads + watched.ticks) << seed;
    EXPECT_LE(processes, most_processes + watched.ticks) << seed;
    folded_threads += most_threads;
    folded_processes += most_processes;
  }
  EXPECT_GT(folded_threads, 500u);
  EXPECT_GT(folded_processes, 500u);
}

TEST(Interval, LightModeTellsWhatIsDecided) {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Simulation simulation(seed, {.steps = 2500, .gils = 1 + unsigned(seed % 2), .max_threads = 16});
    const auto programs = testing::with_programs(simulation.tables(), simulation.events());
    const auto events = testing::as_light(simulation.tables(), programs, seed, 2'000'000, false);
    Watched watched(simulation.tables(), events, seed, 1 + seed % 20);
    for (const ProcessSnapshot& p : without_undecided(watched.last).processes) {
      Sum whole;
      whole.add_figures(p);
      const Sum& summed = watched.sums[p.number];
      for (const auto& [what, value] : whole.of) {
        const auto told = summed.of.find(what);
        const uint64_t sum = told == summed.of.end() ? 0 : told->second;
        if (what.starts_with("column") || what.starts_with("behind")) {
          ASSERT_GE(sum, value) << what << " seed " << seed;
        } else {
          ASSERT_EQ(sum, value) << what << " seed " << seed << " process " << p.pid;
        }
      }
    }
  }
}

// Cells of threads that are never summed up: what was told too much is a debt.
TEST(Interval, CorrectionsAreDebts) {
  uint64_t owed = 0;
  for (uint64_t seed = 1; seed <= 100; seed++) {
    Simulation simulation(
        seed, {.steps = 1500,
               .unseen_steps = seed % 2 ? 200u : 0u,
               .max_threads = 8,
               .readings = seed % 3 ? testing::Readings::wrong : testing::Readings::right});
    auto events = testing::with_programs(simulation.tables(), simulation.events());
    events = testing::with_other_charges(events, seed);
    events = testing::with_hidden_switch_ins(events, seed, 10);
    if (seed % 4 == 0) events = testing::with_losses(events, seed, 4);
    if (seed % 5 == 0) events = testing::as_light(simulation.tables(), events, seed, 500'000, true);
    Watched watched(simulation.tables(), events, seed, 5 + seed % 30);
    std::map<std::pair<uint64_t, uint64_t>, std::array<std::array<uint64_t, 4>, 4>> told;
    for (const Snapshot& interval : watched.intervals)
      for (const ProcessSnapshot& p : interval.processes)
        for (const ThreadSnapshot& t : p.threads)
          for (size_t g = 0; g < 4; g++)
            for (size_t c = 0; c < 4; c++) told[{p.number, t.number}][g][c] += t.matrix[g][c];
    for (const ProcessSnapshot& p : without_undecided(watched.last).processes) {
      for (const ThreadSnapshot& t : p.threads) {
        uint64_t sum = 0;
        for (size_t g = 0; g < 4; g++) {
          for (size_t c = 0; c < 4; c++) {
            const uint64_t all = told[{p.number, t.number}][g][c];
            ASSERT_GE(all, t.matrix[g][c]) << seed;
            sum += all;
            owed += all - t.matrix[g][c];
          }
        }
        ASSERT_GE(sum + t.undecided_ns, t.life_ns()) << seed;
      }
    }
  }
  EXPECT_GT(owed, 0u);
}

TEST(Interval, SinceABeginning) {
  int compared = 0;
  for (uint64_t seed = 1; seed <= 40; seed++) {
    Simulation simulation(seed, {.steps = 4000, .max_threads = 24});
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    const ModelLimits limits = seed % 2 ? kNoFolding : ModelLimits{seed % 7, seed % 5, kAll, 16};
    Watched watched(simulation.tables(), events, seed, 3, limits);
    if (watched.ticks <= watched.baseline + 1) continue;
    compared++;
    Sum expected, since;
    for (size_t i = watched.baseline + 1; i < watched.intervals.size(); i++)
      for (const ProcessSnapshot& p : watched.intervals[i].processes)
        if (watched.sums.contains(p.number)) expected.add_figures(p);
    // Who was no Python after all is in neither.
    std::map<uint64_t, bool> there;
    for (const ProcessSnapshot& p : watched.last.processes) there[p.number] = true;
    bool all = true;
    for (const auto& [number, sum] : watched.sums) all = all && there[number];
    if (!all) continue;
    for (const ProcessSnapshot& p : watched.later_sum.processes) since.add_figures(p);
    ASSERT_EQ(Watched::lines(since), Watched::lines(expected)) << seed;
    EXPECT_EQ(watched.later_sum.first_ns, watched.intervals[watched.baseline].last_ns);
  }
  EXPECT_GT(compared, 10);
}

// Whatever comes and goes: what is kept is what the model keeps.
TEST(Interval, TakesNoMoreAndMore) {
  EventTables tables;
  Model model(tables);
  model.begin_interval();
  Intervals told, later;
  WaitHistory history;
  const uint32_t facts = tables.add({"python3", "", "3.11.2", "", false, false});
  uint64_t now_ns = kStart_ns, most = 0, seen = 0;
  const auto add = [&](EventKind kind, uint32_t tgid, uint32_t tid, uint64_t value = 0,
                       uint8_t state = 0, uint32_t other = 0) {
    history.pass(model, now_ns);
    model.apply({now_ns += 100'000, tgid, tid, 0, kind, state, other, value});
  };
  for (uint32_t i = 0; i < 20'000; i++) {
    const uint32_t tgid = 1000 + i % 20'000, other = tgid + 100'000;
    add(EventKind::exec, tgid, tgid);
    add(EventKind::process, tgid, 0, 0, 0, facts);
    add(EventKind::gil_acquire, tgid, tgid, testing::kGil);
    add(EventKind::fork, tgid, other, uint64_t{tgid} << 32 | tgid);
    add(EventKind::switch_in, tgid, other);
    add(EventKind::gil_wait, tgid, other, testing::kGil);
    add(EventKind::gil_release, tgid, tgid, testing::kGil);
    add(EventKind::gil_acquire, tgid, other, testing::kGil);
    add(EventKind::exit, tgid, other);
    if (i % 100 == 0) {
      model.advance_to(now_ns);
      const Snapshot now = snapshot_of(model, {});
      model.begin_interval();
      if (i == 5000) later.next(now);
      (void)later.since(now);
      for (const ProcessSnapshot& p : told.next(now).processes)
        for (const GilSnapshot& g : p.gils) seen += g.contended;
      if (i == 10'000) most = told.kept() + later.kept();
      EXPECT_LE(history.values().size(), 1u);
    }
    add(EventKind::exit, tgid, tgid, 0, 1);
  }
  EXPECT_EQ(seen, 19'901u) << "and nothing gets lost";
  // Of each of the 512 processes two threads, a GIL and a row; and a round of those to be folded.
  EXPECT_LE(most, 2 * 4u * 800);
  EXPECT_LE(told.kept() + later.kept(), most + most / 5);
}

// A tick in the model's time, and what it tells.
struct Ticking {
  explicit Ticking(Story& story) : model(story.tables()) { model.begin_interval(); }
  Snapshot tick(Story& story, uint64_t ns) {
    for (; next < story.events().size(); next++) model.apply(story.events()[next]);
    model.advance_to(kStart_ns + ns);
    const Snapshot now = snapshot_of(model, {});
    model.begin_interval();
    return intervals.next(now);
  }
  Model model;
  Intervals intervals;
  size_t next = 0;
};

TEST(Interval, WhatLastsCountsWhileItLasts) {
  Story story;
  story.process("main", 100).thread("a", "main", 101);
  story.at(0).execs("main").is_python("main").acquires("main").forks("main", "a");
  story.at(5).on_cpu("a", 1).runs("a").waits("a").sleeps("a").at(10).sleeps("main");
  Ticking ticking(story);
  (void)ticking.tick(story, 1000);
  for (int second = 2; second < 5; second++) {
    const Snapshot s = ticking.tick(story, 1000 * static_cast<uint64_t>(second));
    ASSERT_THAT(s.processes, SizeIs(1));
    const ProcessSnapshot& p = s.processes[0];
    ASSERT_THAT(p.threads, SizeIs(2));
    EXPECT_EQ(p.threads[0].in(GilState::holding, CpuState::blocked), 1000u);
    EXPECT_EQ(p.threads[0].gil_state, GilState::holding);
    EXPECT_EQ(p.threads[0].life_ns(), 1000u);
    EXPECT_EQ(p.threads[1].in(GilState::waiting, CpuState::blocked), 1000u);
    ASSERT_THAT(p.gils, SizeIs(1));
    EXPECT_EQ(p.gils[0].of(LedgerColumn::blocked), 1000u);
    EXPECT_EQ(p.gils[0].max_waiters, 1u);
    ASSERT_THAT(p.gils[0].blame, SizeIs(1));
    EXPECT_EQ(p.gils[0].blame[0].blocked_ns, 1000u);
    ASSERT_THAT(p.longest_waits, SizeIs(1));
    const WaitSnapshot& wait = p.longest_waits[0];
    EXPECT_TRUE(wait.ongoing);
    EXPECT_EQ(wait.start_ns, kStart_ns + 5);
    EXPECT_EQ(wait.end_ns, kStart_ns + 1000 * static_cast<uint64_t>(second));
    EXPECT_EQ(wait.holder_tid, 100u);
    EXPECT_EQ(wait.parts[static_cast<size_t>(LedgerColumn::running)], 5u);
    EXPECT_EQ(wait.parts[static_cast<size_t>(LedgerColumn::blocked)], wait.total_ns() - 5);
  }
}

TEST(Interval, WhoEndedIsToldOnceMore) {
  Story story;
  story.process("main", 100).thread("a", "main", 101);
  story.at(0).execs("main").is_python("main").acquires("main").forks("main", "a");
  Ticking ticking(story);
  EXPECT_THAT(ticking.tick(story, 1000).processes.at(0).threads, SizeIs(2));
  story.at(1400).exits("a");
  const Snapshot ended = ticking.tick(story, 2000);
  ASSERT_THAT(ended.processes.at(0).threads, SizeIs(2));
  EXPECT_EQ(ended.processes[0].threads[1].life_ns(), 400u);
  EXPECT_TRUE(ended.processes[0].threads[1].ended);
  EXPECT_THAT(ticking.tick(story, 3000).processes.at(0).threads, SizeIs(1));
  story.at(3100).exits_last("main");
  EXPECT_THAT(ticking.tick(story, 4000).processes, SizeIs(1));
  EXPECT_THAT(ticking.tick(story, 5000).processes, IsEmpty());
}

TEST(Interval, MaximaAreTheIntervals) {
  Story story;
  story.process("main", 100).thread("a", "main", 101).thread("b", "main", 102);
  story.on_cpu("a", 1).on_cpu("b", 2);
  story.at(0)
      .execs("main")
      .is_python("main")
      .acquires("main")
      .forks("main", "a")
      .forks("main", "b");
  story.at(1).runs("a").at(2).runs("b").at(3).waits("a").at(4).waits("b");
  story.at(800).releases("main").at(801).acquires("a").at(810).releases("a").at(811).acquires("b");
  story.at(812).releases("b");
  Ticking ticking(story);
  const Snapshot first = ticking.tick(story, 1000);
  EXPECT_EQ(first.processes.at(0).gils.at(0).max_waiters, 2u);
  EXPECT_THAT(first.processes[0].longest_waits, SizeIs(2));
  story.at(1100).acquires("main").at(1200).waits("a").at(1300).releases("main").at(1310).acquires(
      "a");
  story.at(1311).releases("a");
  const Snapshot second = ticking.tick(story, 2000);
  const ProcessSnapshot& p = second.processes.at(0);
  EXPECT_EQ(p.gils.at(0).max_waiters, 1u);
  EXPECT_EQ(p.gils[0].contended, 1u);
  EXPECT_EQ(p.gils[0].acquires, 2u);
  const auto& wait = p.threads.at(1).wait;
  EXPECT_EQ(wait.count, 1u);
  EXPECT_EQ(wait.sum_ns, 110u);
  EXPECT_EQ(wait.max_ns, 110u) << "below 128 ns a bucket is one value";
  EXPECT_EQ(wait.p50_ns, 110u);
  ASSERT_THAT(p.longest_waits, SizeIs(1));
  EXPECT_EQ(p.longest_waits[0].total_ns(), 110u);
  EXPECT_EQ(p.longest_waits[0].holder_tid, 100u);
  EXPECT_THAT(ticking.tick(story, 3000).processes.at(0).longest_waits, IsEmpty());
}

// A quantile of the interval's own values, within a bucket of the true one.
TEST(Interval, QuantilesAreTheIntervals) {
  std::mt19937_64 rng(7);
  Histogram all;
  Story story;
  story.process("main", 100).thread("a", "main", 101).on_cpu("a", 1);
  story.at(0).execs("main").is_python("main").forks("main", "a").runs("a");
  Ticking ticking(story);
  uint64_t now = 10;
  for (int round = 0; round < 5; round++) {
    std::vector<uint64_t> waits;
    for (int i = 0; i < 200; i++) {
      const uint64_t wait = 1 + rng() % (uint64_t{100} << (4 * (5 - round)));
      waits.push_back(wait);
      story.at(now).acquires("main").at(now + 1).waits("a");
      story.at(now + wait).releases("main").at(now + 1 + wait).acquires("a");
      story.at(now + wait + 2).releases("a");
      now += wait + 10;
    }
    const Snapshot s = ticking.tick(story, now);
    const HistogramSnapshot& h = s.processes.at(0).threads.at(1).wait;
    std::sort(waits.begin(), waits.end());
    ASSERT_EQ(h.count, 200u);
    const auto near = [](uint64_t value, uint64_t truth) {
      EXPECT_NEAR(static_cast<double>(value), static_cast<double>(truth),
                  static_cast<double>(truth) * 0.016);
    };
    near(h.p50_ns, waits[99]);
    near(h.p90_ns, waits[179]);
    near(h.p99_ns, waits[197]);
    near(h.max_ns, waits.back());
    near(h.min_ns, waits.front());
    const std::vector<WaitSnapshot>& longest = s.processes[0].longest_waits;
    ASSERT_EQ(longest.size(), kLongestWaits);
    for (size_t i = 0; i < longest.size(); i++)
      EXPECT_EQ(longest[i].total_ns(), waits[waits.size() - 1 - i]);
  }
}

TEST(LongestWaits, AreTheLongestAndTheirPartsTheWhole) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    Simulation simulation(seed, {.steps = 4000, .max_threads = 16});
    const auto exact = testing::with_programs(simulation.tables(), simulation.events());
    const auto events =
        seed % 2 ? exact
                 : testing::as_light(simulation.tables(), exact, seed, 2'000'000, seed % 4 == 0);
    const testing::Played played(simulation.tables(), events, kNoFolding);
    const Snapshot s = snapshot_of(played.model, {});
    for (const ProcessSnapshot& p : s.processes) {
      EXPECT_LE(p.longest_waits.size(), kLongestWaits);
      uint64_t longest_ns = 0;
      size_t over = 0, waits = 0;
      for (const ThreadSnapshot& t : p.threads) {
        longest_ns = std::max(longest_ns, t.wait.max_ns);
        waits += t.wait.count;
      }
      for (const WaitSnapshot& w : p.longest_waits) {
        uint64_t sum = 0;
        for (const uint64_t part : w.parts) sum += part;
        ASSERT_EQ(sum, w.total_ns()) << "seed " << seed;
        over += !w.ongoing;
        if (!w.ongoing) {
          EXPECT_LE(w.total_ns(), longest_ns);
        }
      }
      const auto first = std::find_if(p.longest_waits.begin(), p.longest_waits.end(),
                                      [](const WaitSnapshot& w) { return !w.ongoing; });
      if (first != p.longest_waits.end()) {
        EXPECT_EQ(first->total_ns(), longest_ns);
      }
      if (p.longest_waits.size() < kLongestWaits) {
        EXPECT_EQ(over, waits);
      }
    }
  }
}

TEST(LongestWaits, NameWhomMostOfItWasBehind) {
  Story story;
  story.process("main", 100).thread("w", "main", 200).on_cpu("w", 9);
  story.at(0).execs("main").is_python("main").acquires("main").forks("main", "w").runs("w");
  for (uint32_t i = 1; i < 8; i++)
    story.thread("t" + std::to_string(i), "main", 100 + i)
        .on_cpu("t" + std::to_string(i), static_cast<uint16_t>(i))
        .forks("main", "t" + std::to_string(i))
        .runs("t" + std::to_string(i));
  story.at(10).waits("w");
  uint64_t now = 20;
  story.at(now).releases("main");
  for (uint32_t i = 1; i < 8; i++) {
    const std::string name = "t" + std::to_string(i);
    story.at(now).acquires(name);
    now += i == 3 ? 1000 : 100 + i;
    story.at(now).releases(name);
  }
  story.at(now + 5).acquires("w").at(now + 10).releases("w");
  const testing::Played played(story);
  const Snapshot s = snapshot_of(played.model, {});
  ASSERT_THAT(s.processes.at(0).longest_waits, SizeIs(1));
  EXPECT_EQ(s.processes[0].longest_waits[0].holder_tid, 103u);
  EXPECT_EQ(s.processes[0].longest_waits[0].waiter_tid, 200u);
}

}  // namespace
}  // namespace giltop
