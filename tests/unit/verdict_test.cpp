// The verdict's rules, from ledgers made by hand.
#include "model/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support/event_builder.h"
#include "support/snapshot_builder.h"
#include "view/text_report.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using enum GilState;
using testing::blame, testing::gil, testing::snapshot, testing::thread, testing::turns,
    testing::verdict;
using testing::kBlocked, testing::kMs, testing::kRunnable, testing::kRunning, testing::kSecond;

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
    t.number += 10;
    p.threads.push_back(t);
  }
  GilSnapshot second = p.gils[0];
  for (BlameSnapshot& b : second.blame) {
    b.waiter += 10;
    b.holder += 10;
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
  BlameSnapshot b = blame(101, 100);
  b.blocked_ns = 900 * kMs;
  s.processes[0].gils[0].blame = {b};
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("100 slept 1.00s with the GIL"), HasSubstr("50 times"),
                                HasSubstr("21ms"), HasSubstr("101 lost 900ms")));
}

TEST(Verdict, NativeWorkInParallelIsFine) {
  Snapshot s =
      snapshot({thread(100, {{released, kRunning, 1900 * kMs}, {holding, kRunning, 100 * kMs}}),
                thread(101, {{released, kRunning, 1900 * kMs}, {holding, kRunning, 100 * kMs}})},
               gil(200 * kMs, 0, 0, 0, 1800 * kMs));
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("not the problem"), HasSubstr("2.0 of 4 CPUs used.")));
  s.processes[0].threads[0] =
      thread(100, {{released, kRunning, 1000 * kMs}, {released, kRunnable, 1000 * kMs}});
  EXPECT_THAT(verdict(s),
              HasSubstr("used; threads were ready to run and had no CPU for up to 50 %"));
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

TEST(Verdict, LossIsBlamedOnTheBufferOnlyWhereThisProcessHadIt) {
  Snapshot s = snapshot({thread(100, {{unknown, kRunning, 2 * kSecond}})},
                        gil(0, 0, 0, 0, 500 * kMs, 1500 * kMs));
  s.lost_events = 7;
  EXPECT_THAT(verdict(s), HasSubstr("record for longer")) << "another's were lost";
  s.processes[0].lost = true;
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("--buffer-size"), HasSubstr("--mode light")));
  s.processes[0].exact = false;
  EXPECT_THAT(verdict(s), AllOf(HasSubstr("--buffer-size"), Not(HasSubstr("--mode light"))))
      << "it is in light mode";
}

TEST(Verdict, NothingAtAllDoesNotDivideByZero) {
  Snapshot s;
  s.processes.emplace_back().gils.emplace_back().acquires = 1;
  s.processes[0].threads.emplace_back();
  EXPECT_FALSE(verdict(s).empty());
  EXPECT_THAT(text_report(s), Not(AnyOf(HasSubstr("nan"), HasSubstr("inf"))));
}

// Two threads by turns on a busy machine: each was preempted with the GIL for some of its holds,
// and the other waited for that. `preempted_ms` of 1000 ms of holds each.
Snapshot turns_preempted(uint64_t preempted_ms) {
  const uint64_t lost = preempted_ms * kMs, ran = 1000 * kMs - lost;
  const auto one = [&](uint32_t tid) {
    return thread(
        tid,
        {{holding, kRunning, ran}, {holding, kRunnable, lost}, {waiting, kBlocked, 1000 * kMs}});
  };
  Snapshot s = snapshot({one(101), one(102)}, gil(2 * ran, 2 * lost, 0, 0, 0));
  for (uint32_t tid : {101, 102}) {
    BlameSnapshot b = blame(tid, 203 - tid);
    b.running_ns = ran;
    b.runnable_ns = lost;
    s.processes[0].gils[0].blame.push_back(b);
  }
  return s;
}

// No holder alone is to blame for most of it.
TEST(Verdict, HoldersThatArePreemptedByTurns) {
  const Snapshot s = turns_preempted(600);
  const Verdict v = verdict_of(s.processes[0], s);
  EXPECT_EQ(v.finding, "preempted-with-gil");
  EXPECT_EQ(v.sentence,
            "Two threads were preempted with the GIL for 1.20s, 60 % of their holds: others lost "
            "1.20s to it.");
  EXPECT_EQ(v.lost_ns, 1200 * kMs);
  ASSERT_EQ(v.also.size(), 1u) << "40 % of the waits are the other's computing";
  EXPECT_EQ(v.also[0].finding, "taking-turns");
  EXPECT_EQ(v.also[0].sentence, "Another 800ms of waits was behind threads that took turns.");
  EXPECT_EQ(v.also[0].lost_ns, 800 * kMs) << "not what the first explains";
  EXPECT_THAT(v.also[0].advice, HasSubstr("independent and each gets a CPU"));
}

// Fewer switches do not help who waits for a CPU.
TEST(Verdict, AHandOffThatWaitsForACpuWantsOne) {
  Snapshot s = turns_preempted(300);
  GilSnapshot& g = s.processes[0].gils[0];
  g.handoff.count = 100;
  g.handoff.sum_ns = 600 * kMs;
  for (BlameSnapshot& b : g.blame) b.handoff_ns = 300 * kMs;
  const std::string kCpu = "more CPU time", kLessOften = "sys.setswitchinterval";
  const auto advice = [&] {
    const Verdict v = verdict_of(s.processes[0], s);
    for (const Verdict& other : v.also)
      if (other.finding == "hand-off-bound") return other.advice;
    return v.finding == "hand-off-bound" ? v.advice : "none";
  };
  g.handoff_runqueue_ns = 250 * kMs;
  EXPECT_THAT(advice(), HasSubstr(kLessOften));
  g.handoff_runqueue_ns = 350 * kMs;
  EXPECT_THAT(advice(), AllOf(HasSubstr(kCpu), Not(HasSubstr(kLessOften))));
  // The preempted holders want the same: once is enough.
  for (BlameSnapshot& b : g.blame) b.running_ns = 0;
  const Verdict v = verdict_of(s.processes[0], s);
  ASSERT_EQ(v.also.size(), 1u);
  EXPECT_EQ(v.advice, v.also[0].advice);
  const std::string text = text_report(s);
  EXPECT_EQ(text.find(kCpu), text.rfind(kCpu)) << text;
}

TEST(Verdict, WhatExplainsMoreOfTheWaitsGoesFirst) {
  const auto of = [](uint64_t preempted_ms) {
    const Snapshot s = turns_preempted(preempted_ms);
    const Verdict v = verdict_of(s.processes[0], s);
    std::string all = v.finding;
    for (const Verdict& other : v.also) all += " " + other.finding;
    return all;
  };
  EXPECT_EQ(of(50), "taking-turns") << "a twentieth of the waits is not worth a word";
  EXPECT_EQ(of(150), "taking-turns preempted-with-gil");
  EXPECT_EQ(of(490), "taking-turns preempted-with-gil");
  EXPECT_EQ(of(510), "preempted-with-gil taking-turns");
  EXPECT_EQ(of(950), "preempted-with-gil");
}

TEST(Verdict, AShortSleepWithTheGilDoesNotHideThatThreadsTakeTurns) {
  Snapshot s = turns();
  ProcessSnapshot& p = s.processes[0];
  const auto sleeps = [&](uint64_t ns) {
    p.threads[1].matrix[0] = {1000 * kMs - ns, 0, ns, 0};
    p.threads[1].held_sleeps = 3;
    p.threads[1].held_sleep_max_ns = 40 * kMs;
    p.gils[0].blame[1].running_ns = 1036 * kMs - ns;
    p.gils[0].blame[1].blocked_ns = ns;
    return verdict_of(p, s);
  };
  EXPECT_TRUE(sleeps(60 * kMs).also.empty());
  const Verdict v = sleeps(300 * kMs);
  EXPECT_EQ(v.finding, "taking-turns");
  ASSERT_EQ(v.also.size(), 1u);
  EXPECT_EQ(v.also[0].sentence,
            "101 slept 300ms with the GIL in its hands (3 times, longest 40ms); 102 lost 300ms to "
            "it.");
  EXPECT_THAT(text_report(s), HasSubstr("\nAlso: 101 slept 300ms"));
}

constexpr uint64_t kFolded = 1;  // their number

// What `waiter` lost while `holder` slept; 0: folded threads.
BlameSnapshot slept(uint32_t waiter, uint32_t holder, uint64_t ms) {
  BlameSnapshot b = blame(waiter, holder);
  if (waiter == 0) {
    b.waiter = kFolded;
    b.waiter_tid.reset();
  }
  if (holder == 0) {
    b.holder = kFolded;
    b.holder_tid.reset();
  }
  b.holder_folded = holder == 0;
  b.blocked_ns = ms * kMs;
  return b;
}

ThreadSnapshot sleeper(uint32_t tid, uint64_t ms, uint64_t times) {
  ThreadSnapshot t =
      thread(tid, {{holding, kBlocked, ms * kMs}, {released, kBlocked, (2000 - ms) * kMs}});
  t.held_sleeps = times;
  t.held_sleep_max_ns = times == 0 ? 0 : 40 * kMs;
  return t;
}

ThreadSnapshot ended_sleepers(uint64_t ms, uint64_t times) {
  ThreadSnapshot t = sleeper(0, ms, times);
  t.number = kFolded;
  t.folded = 900;
  t.folded_life_ns = 900 * kMs;
  return t;
}

std::string sleep_verdict(std::vector<ThreadSnapshot> threads, std::vector<BlameSnapshot> blame) {
  Snapshot s = snapshot(std::move(threads), gil(1000 * kMs, 0, 1000 * kMs, 0, 0));
  s.processes[0].gils[0].blame = std::move(blame);
  return verdict_of(s.processes[0], s).sentence;
}

TEST(Verdict, ASleepWithoutEndIsNotHiddenByOthersThatEnded) {
  EXPECT_EQ(sleep_verdict({sleeper(100, 600, 3), sleeper(101, 600, 0)},
                          {slept(102, 100, 600), slept(102, 101, 600)}),
            "Two threads slept 1.20s with the GIL in their hands (3 times, longest 40ms, and once "
            "without end); 102 lost 1.20s to it.");
}

TEST(Verdict, NobodyIsNamedForWhatEndedThreadsCost) {
  EXPECT_EQ(sleep_verdict({sleeper(100, 300, 3), ended_sleepers(800, 20)},
                          {slept(102, 100, 230), slept(102, 0, 770)}),
            "One thread and ended ones slept 1.10s with the GIL in their hands (23 times, longest "
            "40ms); 102 lost 1.00s to it.");
  EXPECT_EQ(sleep_verdict({sleeper(100, 300, 3), ended_sleepers(800, 20)},
                          {slept(102, 100, 100), slept(103, 0, 900)}),
            "Ended threads slept 800ms with the GIL in their hands (20 times, longest 40ms); 103 "
            "lost 900ms to it.");
  EXPECT_THAT(sleep_verdict({sleeper(100, 300, 3), ended_sleepers(800, 20)},
                            {slept(102, 100, 900), slept(103, 0, 100)}),
              HasSubstr("100 slept 300ms"));
}

TEST(Verdict, OneIsNotNamedAloneThatCostLessThanMost) {
  std::vector<ThreadSnapshot> threads = {sleeper(100, 700, 7)};
  std::vector<BlameSnapshot> blame = {slept(102, 100, 700)};
  for (uint32_t tid = 110; tid < 120; tid++) {
    threads.push_back(sleeper(tid, 30, 1));
    blame.push_back(slept(102, tid, 30));
  }
  EXPECT_THAT(sleep_verdict(threads, blame), HasSubstr("11 threads slept 1.00s"));
}

// One that slept, and after its end another of its id that did, too.
TEST(Verdict, AnIdThatIsUsedAgainIsAnotherThread) {
  std::vector<ThreadSnapshot> threads = {sleeper(100, 500, 5), sleeper(100, 500, 5)};
  std::vector<BlameSnapshot> blame = {slept(102, 100, 400), slept(102, 100, 400)};
  threads[1].number = blame[1].holder = 7;
  EXPECT_EQ(sleep_verdict(threads, blame),
            "Two threads slept 1.00s with the GIL in their hands (10 times, longest 40ms); 102 "
            "lost 800ms to it.");
  blame[1].waiter = 8;
  EXPECT_THAT(sleep_verdict(threads, blame), HasSubstr("; others lost 800ms to it"))
      << "who lost may have the id of another that lost";
}

TEST(Verdict, EndedThreadsThatLostAreNotCountedAsOne) {
  EXPECT_THAT(sleep_verdict({sleeper(100, 900, 3)}, {slept(0, 100, 900)}),
              HasSubstr("; others lost 900ms to it"));
  EXPECT_THAT(sleep_verdict({sleeper(100, 900, 3)}, {slept(102, 100, 300), slept(0, 100, 900)}),
              HasSubstr("; others lost 1.20s to it"));
  EXPECT_THAT(sleep_verdict({sleeper(100, 900, 3)}, {slept(102, 100, 300), slept(103, 100, 900)}),
              HasSubstr("; 2 others lost 1.20s to it"));
}

// What is said first may be less than what is said in all.
TEST(Verdict, ProcessesAreRankedByAllThatIsExplained) {
  Snapshot s = turns_preempted(490);  // of 2 s of waits 1.02 and 0.98
  const auto of = [&](uint32_t pid) {
    const auto ranked = verdicts_of(s);
    return std::find_if(ranked.begin(), ranked.end(),
                        [&](const auto& each) { return each.first->pid == pid; }) -
           ranked.begin();
  };
  Snapshot other = turns_preempted(0);
  ProcessSnapshot& second = s.processes.emplace_back(other.processes[0]);
  second.pid = 200;
  for (BlameSnapshot& b : second.gils[0].blame) b.running_ns = 600 * kMs;  // 1.2 s of one cause
  EXPECT_EQ(of(100), 0);
  EXPECT_EQ(of(200), 1);
}

// A second of one thread's work before two take turns for two.
TEST(Verdict, WhatOneThreadDoesAloneIsNoFasterWithoutAGil) {
  Snapshot s = turns();
  ProcessSnapshot& p = s.processes[0];
  p.threads[0] = thread(100, {{holding, kRunning, 1000 * kMs}, {released, kBlocked, 2000 * kMs}});
  for (size_t i = 1; i < 3; i++) {
    p.threads[i].first_ns += kSecond;
    p.threads[i].last_ns += kSecond;
  }
  p.gils[0].ledger[0] += kSecond;
  p.gils[0].last_ns += kSecond;
  const double bound = verdict_of(p, s).bound;
  EXPECT_GE(bound, 1.5) << "3 s become 2";
  EXPECT_LE(bound, 1.7);
}

// Many wait for a short while each: much in sum, little of the time.
TEST(Verdict, ManyWaitersMakeNoCauseOfAMoment) {
  std::vector<ThreadSnapshot> threads = {thread(100, {{holding, kRunning, 990 * kMs},
                                                      {holding, kBlocked, 10 * kMs},
                                                      {released, kBlocked, 9 * kSecond}})};
  GilSnapshot g = gil(990 * kMs, 0, 10 * kMs, 0, 9 * kSecond);
  for (uint32_t tid = 101; tid < 200; tid++) {
    threads.push_back(
        thread(tid, {{waiting, kBlocked, 10 * kMs}, {released, kBlocked, 9990 * kMs}}));
    BlameSnapshot b = blame(tid, 100);
    b.blocked_ns = 10 * kMs;
    g.blame.push_back(b);
  }
  threads[0].held_sleeps = 1;
  threads[0].held_sleep_max_ns = 10 * kMs;
  const Snapshot s = snapshot(std::move(threads), g);
  EXPECT_EQ(verdict_of(s.processes[0], s).finding, "not-the-gil") << verdict(s);
}

// What a thread sleeps that hardly waits for the GIL it may sleep for those that do.
TEST(Verdict, AThreadThatJoinsOthersDoesNotLimitThem) {
  Snapshot s = turns();
  s.processes[0].threads[0] =
      thread(100, {{released, kBlocked, 1800 * kMs}, {holding, kRunning, 200 * kMs}});
  EXPECT_THAT(verdict(s), HasSubstr("up to 2.0× faster"));
  s.processes[0].threads[0] =
      thread(100, {{released, kRunning, 1800 * kMs}, {holding, kRunning, 200 * kMs}});
  EXPECT_THAT(verdict(s), Not(HasSubstr("faster"))) << "it has work of its own all the time";
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
      BlameSnapshot b = blame(tid, tid == 100 ? 101 : 100);
      b.running_ns = waited[0];
      b.runnable_ns = waited[1];
      b.blocked_ns = waited[2];
      g.blame.push_back(b);
    }
    g.ledger[4] = 10 * kSecond - g.ledger[0] - g.ledger[1] - g.ledger[2] - g.ledger[3];
    g.last_ns = 10 * kSecond;
    g.handoff.sum_ns = g.ledger[3];
    g.handoff.count = 100;
    const Snapshot s = snapshot(std::move(threads), g);
    ASSERT_EQ(verdict_of(s.processes[0], s).finding, "not-the-gil") << verdict(s) << " " << seed;
  }
}

uint64_t waits_of(const ProcessSnapshot& process) {
  uint64_t sum = 0;
  for (const GilSnapshot& g : process.gils)
    for (const BlameSnapshot& b : g.blame) sum += b.total_ns();
  return sum;
}

TEST(Verdict, RandomSnapshotsAreJudgedToo) {
  uint64_t explained = 0;
  for (uint64_t seed = 1; seed <= 100; seed++) {
    const testing::Simulation simulation(seed, {.steps = seed * 4});
    const testing::Played played(simulation.tables(), simulation.events());
    RunFacts run;
    run.cpus = 2;
    const Snapshot s = snapshot_of(played.model, run);
    const std::string text = text_report(s);
    EXPECT_THAT(text, Not(AnyOf(HasSubstr("nan"), HasSubstr("inf"))));
    EXPECT_EQ(text.back(), '\n');
    for (const auto& [process, verdict] : verdicts_of(s)) {
      uint64_t lost_ns = verdict.lost_ns;
      for (const Verdict& other : verdict.also) lost_ns += other.lost_ns;
      EXPECT_LE(lost_ns, waits_of(*process)) << "a wait counts twice: " << verdict.sentence;
      explained += lost_ns;
    }
  }
  EXPECT_NE(explained, 0u);
}

}  // namespace
}  // namespace giltop
