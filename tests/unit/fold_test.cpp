// What has ended is summed up beyond a bound, and no figure gets lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "model/snapshot.h"
#include "sink/json.h"
#include "support/event_builder.h"
#include "support/light_history.h"
#include "support/snapshot_sum.h"
#include "view/text_report.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;
using testing::broken_invariants;
using testing::broken_tilings;
using testing::kStart_ns;
using testing::Played;
using testing::Simulation;
using testing::Sum;

constexpr size_t kAll = 1'000'000;

size_t alive_in(const Model& model) {
  size_t alive = 0;
  for (const Process& p : model.processes()) alive += p.alive.size();
  return alive;
}

size_t kept_in(const Model& model) {
  size_t kept = 0;
  for (const Thread& t : model.threads()) kept += !t.gone;
  return kept;
}

Simulation long_history(uint64_t seed, size_t steps) {
  return Simulation(seed, {.steps = steps, .gils = 1 + unsigned(seed % 2), .max_threads = 24});
}

TEST(Fold, ThreadsAreSummedUpByProcess) {
  uint64_t folded = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Simulation simulation = long_history(seed, 4000);
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    const ModelLimits limits{seed % 6, kAll, kAll, kAll};
    const Played all(simulation.tables(), events, {kAll, kAll, kAll, kAll});
    const Played few(simulation.tables(), events, limits);
    ASSERT_THAT(broken_invariants(few.model), IsEmpty()) << "seed " << seed;
    const Snapshot a = snapshot_of(all.model, {}), b = snapshot_of(few.model, {});
    ASSERT_EQ(a.processes.size(), b.processes.size());
    for (size_t i = 0; i < a.processes.size(); i++) {
      Sum expected, summed;
      expected.add(a.processes[i]);
      summed.add(b.processes[i]);
      ASSERT_EQ(a.processes[i].pid, b.processes[i].pid);
      ASSERT_EQ(a.processes[i].comm, b.processes[i].comm);
      ASSERT_EQ(summed.of, expected.of) << "seed " << seed << " process " << i;
      if (b.processes[i].threads.back().folded != 0) folded += b.processes[i].threads.back().folded;
    }
  }
  EXPECT_GT(folded, 500u);
}

TEST(Fold, ProcessesAreSummedUpByProgram) {
  uint64_t folded = 0;
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Simulation simulation = long_history(seed, 6000);
    const auto events = testing::with_programs(simulation.tables(), simulation.events());
    const ModelLimits limits{seed % 8, seed % 5, seed % 3 ? kAll : 2, 16};
    const Played all(simulation.tables(), events, {kAll, kAll, kAll, kAll});
    const Played few(simulation.tables(), events, limits);
    ASSERT_THAT(broken_invariants(few.model), IsEmpty()) << "seed " << seed;
    std::map<std::tuple<std::string, std::string, std::string>, Sum> expected, summed;
    for (const ProcessSnapshot& p : snapshot_of(all.model, {}).processes)
      expected[{p.comm, p.python, p.build_id}].add(p);
    for (const ProcessSnapshot& p : snapshot_of(few.model, {}).processes) {
      summed[{p.comm, p.python, p.build_id}].add(p);
      folded += p.folded;
      if (p.folded == 0) continue;
      EXPECT_EQ(p.threads.size(), 1u);
      EXPECT_LE(p.gils.size(), 1u);
    }
    ASSERT_EQ(summed.size(), expected.size()) << "seed " << seed;
    for (const auto& [program, sum] : expected)
      ASSERT_EQ(summed[program].of, sum.of) << "seed " << seed;
    // One round is late, and every process has its first thread and its rest.
    const Model& model = few.model;
    const size_t ended = limits.ended_threads + limits.ended_processes;
    ASSERT_LE(kept_in(model), alive_in(model) + ended + 2 * model.processes().size() + 8);
  }
  EXPECT_GT(folded, 1000u);
}

TEST(Fold, InLightModeTooNothingIsLost) {
  uint64_t folded = 0;
  for (uint64_t seed = 1; seed <= 40; seed++) {
    Simulation simulation = long_history(seed, 4000);
    const auto events = testing::as_light(
        simulation.tables(), testing::with_programs(simulation.tables(), simulation.events()), seed,
        500'000, seed % 2 != 0);
    const Played all(simulation.tables(), events, {kAll, kAll, kAll, kAll});
    const Played few(simulation.tables(), events, {seed % 6, kAll, kAll, kAll});
    ASSERT_THAT(broken_tilings(few.model), IsEmpty()) << "seed " << seed;
    const Snapshot a = snapshot_of(all.model, {}), b = snapshot_of(few.model, {});
    ASSERT_EQ(a.processes.size(), b.processes.size());
    for (size_t i = 0; i < a.processes.size(); i++) {
      Sum expected, summed;
      expected.add(a.processes[i]);
      summed.add(b.processes[i]);
      ASSERT_EQ(summed.of, expected.of) << "seed " << seed << " process " << i;
      ASSERT_EQ(a.processes[i].light_ns, b.processes[i].light_ns);
      folded += b.processes[i].threads.back().folded;
    }
  }
  EXPECT_GT(folded, 300u);
}

TEST(Fold, WhateverComesItTiles) {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    Simulation simulation(
        seed, {.steps = 1000,
               .unseen_steps = seed % 100,
               .readings = seed % 3 ? testing::Readings::none : testing::Readings::wrong});
    auto events = testing::with_programs(simulation.tables(), simulation.events());
    if (seed % 4 != 0) events = testing::with_garbage(events, seed, 1 + seed % 100);
    if (seed % 2) events = testing::with_losses(events, seed, 3);
    const ModelLimits limits{seed % 4, seed % 3, seed % 5, seed % 2};
    const Played played(simulation.tables(), events, limits);
    ASSERT_THAT(broken_tilings(played.model), IsEmpty()) << "seed " << seed;
    (void)to_json(snapshot_of(played.model, {}));
  }
}

// One process whose threads come and go; each has a name of its own.
std::vector<Event> brief_threads(EventTables& tables, uint32_t count, bool are_processes) {
  std::vector<Event> events;
  uint64_t now_ns = kStart_ns;
  const auto add = [&](EventKind kind, uint32_t tgid, uint32_t tid, uint64_t value = 0,
                       uint8_t state = 0, uint32_t other = 0) {
    events.push_back({now_ns += 10, tgid, tid, 0, kind, state, other, value});
  };
  constexpr uint32_t kMain = 100;
  add(EventKind::exec, kMain, kMain, 0, 0, tables.intern("main", now_ns));
  add(EventKind::process, kMain, 0, 0, 0,
      tables.add({"python3", "python3 app.py", "3.11.2", "abcd", false}, now_ns));
  add(EventKind::gil_acquire, kMain, kMain, testing::kGil);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t tid = 1000 + i % 30'000, tgid = are_processes ? tid : kMain;
    const uint32_t name = tables.intern("brief " + std::to_string(i), now_ns);
    add(EventKind::fork, tgid, tid, uint64_t{kMain} << 32 | kMain, 0, name);
    add(EventKind::switch_in, tgid, tid);
    if (!are_processes) {
      add(EventKind::gil_wait, tgid, tid, testing::kGil);
      add(EventKind::gil_release, kMain, kMain, testing::kGil);
    }
    add(EventKind::gil_acquire, tgid, tid, testing::kGil);
    add(EventKind::gil_release, tgid, tid, testing::kGil);
    if (!are_processes) add(EventKind::gil_acquire, kMain, kMain, testing::kGil);
    add(EventKind::exit, tgid, tid, 0, are_processes, name);
    add(EventKind::switch_out, tgid, tid, 0, static_cast<uint8_t>(TaskState::dead), 10);
  }
  add(EventKind::end, 0, 0);
  return events;
}

TEST(Fold, BriefThreadsTakeNoMoreAndMore) {
  EventTables tables;
  const auto events = brief_threads(tables, 20'000, false);
  const Played played(tables, events);
  EXPECT_LE(played.model.threads().size(), 2048u + 8);
  const Snapshot snapshot = snapshot_of(played.model, {});
  ASSERT_EQ(snapshot.processes.size(), 1u);
  const ThreadSnapshot& rest = snapshot.processes[0].threads.back();
  EXPECT_EQ(rest.folded + snapshot.processes[0].threads.size() - 1, 20'001u);
  EXPECT_EQ(rest.contended, rest.folded);
  EXPECT_EQ(snapshot.processes[0].gils[0].contended, 20'000u);
  EXPECT_LE(snapshot.processes[0].gils[0].blame.size(), 2u * 2048 + 8);

  const Json document = Json::parse(to_json(snapshot));
  const Json& threads = document["processes"][0]["threads"];
  EXPECT_EQ(threads[0]["folded"], 0);
  EXPECT_EQ(threads.back()["tid"], nullptr);
  EXPECT_EQ(threads.back()["folded"], rest.folded);
  double cells = 0;
  for (const Json& row : threads.back()["matrix"])
    for (const Json& cell : row) cells += cell.get<double>();
  EXPECT_NEAR(cells, threads.back()["life_s"].get<double>(), 1e-9);
  const Json& blame = document["processes"][0]["gils"][0]["blame"].back();
  EXPECT_EQ(blame["waiter_tid"], nullptr);
  EXPECT_THAT(text_report(snapshot), HasSubstr(" ended threads "));
}

TEST(Fold, BriefProcessesTakeNoMoreAndMore) {
  EventTables tables;
  const auto events = brief_threads(tables, 20'000, true);
  const Played played(tables, events);
  EXPECT_LE(played.model.threads().size(), 512u + 2 * 257 + 8);
  EXPECT_LE(played.model.processes().size(), 512u + 257 + 8);
  const Snapshot snapshot = snapshot_of(played.model, {});
  uint64_t processes = 0;
  for (const ProcessSnapshot& p : snapshot.processes) processes += std::max<uint64_t>(p.folded, 1);
  EXPECT_EQ(processes, 20'001u);
  const ProcessSnapshot& last = snapshot.processes.back();
  EXPECT_EQ(last.comm, "") << "too many names to tell them apart";
  const Json document = Json::parse(to_json(snapshot));
  EXPECT_EQ(document["processes"].back()["pid"], nullptr);
  EXPECT_EQ(document["processes"].back()["folded"], last.folded);
  EXPECT_EQ(document["processes"].back()["gils"][0]["address"], nullptr);
  EXPECT_THAT(text_report(snapshot), HasSubstr(" ended processes "));
}

// What used the GIL most is what one looks for.
TEST(Fold, TheBusiestAreKept) {
  testing::Story story;
  story.process("main", 100);
  story.at(0).execs("main").is_python("main");
  for (uint32_t i = 0; i < 50; i++) {
    const std::string name = "worker " + std::to_string(i);
    story.thread(name, "main", 200 + i).at(100'000 * (i + 1)).forks("main", name);
    story.at(100'000 * (i + 1) + 10).runs(name).acquires(name);
    story.at(100'000 * (i + 1) + 20 + 1000 * (i == 7)).releases(name).exits(name).dies(name);
  }
  story.at(10'000'000).ends();
  const Played played(story.tables(), story.events(), {4, 4, 4, 4});
  const Snapshot snapshot = snapshot_of(played.model, {});
  std::vector<uint32_t> kept;
  for (const ThreadSnapshot& t : snapshot.processes[0].threads) kept.push_back(t.tid);
  EXPECT_THAT(kept, ::testing::Contains(207u));
  EXPECT_THAT(kept, Not(::testing::Contains(206u)));
}

// Names and facts are forgotten with their threads and processes, and stay right meanwhile.
TEST(Fold, TextsAreForgotten) {
  EventTables tables;
  Model model(tables);
  size_t most = 0;
  for (uint32_t i = 0; i < 50'000; i++) {
    const uint64_t now_ns = kStart_ns + i * uint64_t{1'000'000};  // 1000 a second
    const uint32_t tid = 1000 + i % 5000;
    const std::string name = "brief " + std::to_string(i);
    const uint32_t comm = tables.intern(name, now_ns);
    const uint32_t facts = tables.add({name, name, "3.11.2", "", false}, now_ns);
    most = std::max<size_t>({most, comm, facts});
    model.apply({now_ns, tid, tid, 0, EventKind::exec, 0, comm, 0});
    model.apply({now_ns + 1, tid, 0, 0, EventKind::process, 0, facts, 0});
    const Thread& thread =
        *model.apply({now_ns + 2, tid, tid, 0, EventKind::wakeup, 0, 0, 0}).thread;
    ASSERT_EQ(tables.text(thread.comm), name);
    ASSERT_EQ(tables.facts(thread.process->facts).cmdline, name);
    model.apply({now_ns + 3, tid, tid, 0, EventKind::exit, 1, comm, 0});
    if (tables.crowded()) model.forget_unused(tables);
  }
  EXPECT_LE(most, 8192u);
  for (const ProcessSnapshot& p : snapshot_of(model, {}).processes) {
    if (p.folded == 0) {
      ASSERT_EQ(p.comm, p.cmdline);
    }
  }
}

// Brief processes, each of which holds the GIL for less time than the one before.
class BriefProcesses {
 public:
  explicit BriefProcesses(const ModelLimits& limits) : model(tables, limits) {}

  void run_one(uint32_t user) {
    const uint32_t facts = tables.add({"python3", "", "3.11.2", "", false, false, user});
    const uint32_t tgid = next_++;
    const auto add = [&](EventKind kind, uint32_t tid, uint8_t state = 0, uint32_t other = 0,
                         uint64_t value = 0) {
      model.apply({now_ns_, tgid, tid, 0, kind, state, other, value});
      now_ns_ += 10;
    };
    add(EventKind::exec, tgid, 0, tables.intern("python3"));
    add(EventKind::process, 0, 0, facts);
    add(EventKind::gil_acquire, tgid, 0, 0, testing::kGil);
    now_ns_ += 100'000 - 10 * tgid;
    add(EventKind::gil_release, tgid, 0, 0, testing::kGil);
    add(EventKind::exit, tgid, 1, tables.intern("python3"), user + 1);
  }
  size_t of_user(uint32_t user) const {
    size_t count = 0;
    for (const ProcessSnapshot& p : snapshot_of(model, {}).processes)
      if (p.user == user) count += std::max<uint64_t>(p.folded, 1);
    return count;
  }

  EventTables tables;
  Model model;

 private:
  uint32_t next_ = 100;
  uint64_t now_ns_ = kStart_ns;
};

TEST(Fold, WhoEndedInThePresentIntervalGoesLast) {
  BriefProcesses brief({kAll, 8, kAll, kAll});
  brief.model.begin_interval();
  for (int interval = 0; interval < 50; interval++) {
    for (int i = 0; i < 3; i++) brief.run_one(0);
    std::vector<uint32_t> ended;
    for (const ProcessSnapshot& p : snapshot_of(brief.model, {}).processes)
      if (p.folded == 0) ended.push_back(p.pid);
    const uint32_t last = 100 + 3 * static_cast<uint32_t>(interval) + 2;
    for (const uint32_t pid : {last - 2, last - 1, last})
      ASSERT_THAT(ended, ::testing::Contains(pid)) << "it held the GIL less than all before it";
    brief.model.advance_to(brief.model.last_ns() + 1000);
    brief.model.begin_interval();
  }
}

TEST(Fold, ProgramsOfEachUserWhereWanted) {
  for (const bool by_user : {true, false}) {
    BriefProcesses brief({kAll, 4, kAll, kAll, by_user});
    for (uint32_t i = 0; i < 100; i++) brief.run_one(i % 4 == 0 ? 1000 : 0);
    const size_t all = brief.of_user(1000) + brief.of_user(0);
    if (by_user) {
      EXPECT_EQ(brief.of_user(1000), 25u);
      EXPECT_EQ(brief.of_user(0), 75u);
    } else {
      EXPECT_LE(all, 5u) << "the sum is of nobody in particular";
    }
  }
}

TEST(Fold, NobodyAliveIsNoProcessForEver) {
  EventTables tables;
  Model model(tables);
  const uint32_t facts = tables.add({"python3", "", "3.11.2", "", false});
  for (uint32_t i = 1; i < 20'000; i++)  // told of when they were gone
    model.apply({kStart_ns + i, i, 0, 0, EventKind::process, 0, facts, 0});
  EXPECT_LE(model.processes().size(), 1024u);
  for (uint32_t i = 1; i < 20'000; i++) {  // their last exits were lost
    model.apply({2 * kStart_ns + 10 * i, i, i, 0, EventKind::exec, 0, 0, 0});
    model.apply({2 * kStart_ns + 10 * i + 1, i, i, 0, EventKind::exit, 0, 0, 0});
  }
  EXPECT_LE(model.processes().size(), 2048u);
  EXPECT_LE(model.threads().size(), 2048u);
  EXPECT_THAT(broken_tilings(model), IsEmpty());
}

}  // namespace
}  // namespace giltop
