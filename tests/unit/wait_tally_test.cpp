// WaitTally: readings of the kernel's counts to snapshots of intervals.
#include "model/wait_tally.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "giltop/abi.h"
#include "model/hist.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMs = 1'000'000;

// The kernel side's maps: counts grow until who has them was told as ended.
class Kernel {
 public:
  explicit Kernel(bool by_thread) : by_thread_(by_thread) {}

  void wait(const Waiter& waiter, uint64_t length) {
    add(key(waiter), false, gt_bucket_of(length), length);
  }
  void wait_from_before(const Waiter& waiter) { add(key(waiter), false, GT_NO_BUCKET, 0); }
  void handoff(const Waiter& waiter, uint64_t length) {
    add(of_process(waiter), true, gt_bucket_of(length), length);
  }
  void end(const Waiter& waiter) {
    for (auto& [id, each] : waiters_)
      if (id == key(waiter).id) each.ended = true;
  }
  void end_process(const Waiter& waiter) {
    for (auto& [id, each] : waiters_)
      if (id == of_process(waiter).id) each.ended = true;
  }
  void refuse(uint64_t waits) { not_counted_ += waits; }

  // All of it, at one moment.
  CountedWaits read(uint64_t now_ns) {
    CountedWaits all;
    all.begun_ns = now_ns;
    all.not_counted = not_counted_;
    for (const auto& [id, waiter] : waiters_) all.waiters.push_back(waiter);
    for (const auto& [id, buckets] : counts_)
      for (const auto& [bucket, count] : buckets) all.counts.push_back(count);
    std::erase_if(counts_, [&](const auto& each) { return waiters_.at(each.first).ended; });
    std::erase_if(waiters_, [](const auto& each) { return each.second.ended; });
    return all;
  }

 private:
  static Waiter of_process(Waiter waiter) {
    waiter.id = {waiter.image_ns, waiter.id.tgid, 0};
    return waiter;
  }
  Waiter key(const Waiter& waiter) const { return by_thread_ ? waiter : of_process(waiter); }
  void add(const Waiter& of, bool handoffs, uint32_t bucket, uint64_t length) {
    waiters_.emplace(of.id, of);
    WaitCount& count = counts_[of.id][{handoffs, bucket}];
    if (count.count == 0) count = {of.id, handoffs, bucket, 0, 0, ~uint64_t{0}, 0};
    count.count++;
    count.sum_ns += length;
    count.min_ns = std::min(count.min_ns, length);
    count.max_ns = std::max(count.max_ns, length);
  }

  bool by_thread_;
  std::map<WaiterId, Waiter> waiters_;
  std::map<WaiterId, std::map<std::pair<bool, uint32_t>, WaitCount>> counts_;
  uint64_t not_counted_ = 0;
};

class WaitTallyTest : public ::testing::Test {
 protected:
  WaitTallyTest() { tally_.begin(1000); }

  void apply(EventKind kind, uint64_t ts_ns, uint32_t tgid, uint64_t value = 0, uint32_t other = 0,
             uint8_t state = 0) {
    Event event;
    event.kind = kind;
    event.ts_ns = ts_ns;
    event.tgid = event.tid = tgid;
    event.value = value;
    event.other = other;
    event.state = state;
    tally_.apply(event, tables_);
  }
  void python(uint64_t ts_ns, uint32_t tgid, const std::string& cmdline) {
    ProcessFacts facts;
    facts.comm = "python3";
    facts.cmdline = cmdline;
    facts.python = "3.11.2";
    apply(EventKind::process, ts_ns, tgid, 0, tables_.add(facts));
  }
  void exec(uint64_t ts_ns, uint32_t tgid) {
    apply(EventKind::exec, ts_ns, tgid, 0, tables_.intern("python3"));
  }
  void fork(uint64_t ts_ns, uint32_t parent, uint32_t child) {
    apply(EventKind::fork, ts_ns, child, uint64_t{parent} << 32 | parent,
          tables_.intern("python3"));
  }
  void exit(uint64_t ts_ns, uint32_t tgid) { apply(EventKind::exit, ts_ns, tgid, 0, 0, 1); }

  static Waiter thread(uint32_t tgid, uint64_t image_ns, uint32_t tid, uint64_t born_ns,
                       const std::string& comm = "worker") {
    return {{born_ns, tgid, tid}, image_ns, comm, false};
  }
  HistReport report(Kernel& kernel, uint64_t now_ns, HistGroup group) {
    tally_.take(kernel.read(now_ns), now_ns);
    return hist_of(tally_.next(run_), group, {HistKind::wait});
  }
  static uint64_t count(const HistReport& report) {
    uint64_t sum = 0;
    for (const HistSeries& s : report.series) sum += s.values.count;
    return sum;
  }

  EventTables tables_;
  WaitTally tally_;
  RunFacts run_;
};

void expect_same(const HistogramSnapshot& found, const HistogramSnapshot& expected) {
  EXPECT_EQ(found.count, expected.count);
  EXPECT_EQ(found.sum_ns, expected.sum_ns);
  EXPECT_EQ(found.min_ns, expected.min_ns);
  EXPECT_EQ(found.max_ns, expected.max_ns);
  EXPECT_EQ(found.p50_ns, expected.p50_ns);
  EXPECT_EQ(found.p999_ns, expected.p999_ns);
  ASSERT_EQ(found.buckets.size(), expected.buckets.size());
  for (size_t i = 0; i < found.buckets.size(); i++) {
    EXPECT_EQ(found.buckets[i].lower_ns, expected.buckets[i].lower_ns);
    EXPECT_EQ(found.buckets[i].upper_ns, expected.buckets[i].upper_ns);
    EXPECT_EQ(found.buckets[i].count, expected.buckets[i].count);
  }
}

TEST_F(WaitTallyTest, OneReadingIsTheHistogramOfItsValues) {
  std::mt19937_64 random(1);
  Kernel kernel(false);
  Histogram histogram;
  python(2000, 7, "python3 app.py");
  for (int i = 0; i < 5000; i++) {
    const uint64_t length = random() >> (20 + random() % 44);
    kernel.wait(thread(7, 1500, 7 + i % 3, 1600), length);
    histogram.add(length);
  }
  kernel.wait_from_before(thread(7, 1500, 7, 1600));
  const HistReport all = report(kernel, 10 * kMs, HistGroup::all);
  ASSERT_THAT(all.series, SizeIs(1));
  EXPECT_EQ(all.series[0].name, "python3 app.py");
  EXPECT_EQ(all.series[0].pid, 7u);
  EXPECT_EQ(all.series[0].contended, 5001u) << "one of them began before it was seen";
  EXPECT_FALSE(all.series[0].acquires);
  EXPECT_EQ(all.duration_ns, 10 * kMs - 1000);
  expect_same(all.series[0].values, snapshot_of(histogram));
}

TEST_F(WaitTallyTest, IntervalsAddUpHoweverOftenItIsRead) {
  std::mt19937_64 random(2);
  for (const bool by_thread : {false, true}) {
    Kernel kernel(by_thread);
    WaitTally tally;
    tally_ = tally;
    tally_.begin(1000);
    Histogram histogram;
    HistReport sum;
    python(2000, 7, "python3 app.py");
    uint64_t now = kMs;
    for (int interval = 0; interval < 20; interval++) {
      Histogram here;
      for (int reading = 0; reading < 3; reading++) {
        for (uint64_t i = random() % 50; i > 0; i--) {
          const uint64_t length = random() % (1000 * kMs);
          kernel.wait(thread(7, 1500, 7 + i % 4, 1600 + i % 4), length);
          histogram.add(length);
          here.add(length);
        }
        now += kMs;
        tally_.take(kernel.read(now), now);
      }
      run_.events += 2;
      const HistReport part = hist_of(tally_.next(run_), HistGroup::all, {HistKind::wait});
      EXPECT_EQ(part.events, 2u);
      ASSERT_THAT(part.series, SizeIs(1));
      EXPECT_EQ(part.series[0].values.count, here.count());
      EXPECT_EQ(part.series[0].values.sum_ns, here.sum_ns());
      // Where an extreme is an older one's, it is that of the bucket.
      EXPECT_NEAR(static_cast<double>(part.series[0].values.max_ns),
                  static_cast<double>(here.max_ns()), 0.016 * static_cast<double>(here.max_ns()));
      add(sum, part);
    }
    ASSERT_THAT(sum.series, SizeIs(1));
    EXPECT_EQ(sum.series[0].values.max_ns, histogram.max_ns());
    EXPECT_EQ(sum.series[0].values.sum_ns, histogram.sum_ns());
    EXPECT_EQ(sum.series[0].values.count, histogram.count());
    EXPECT_EQ(sum.duration_ns, now - 1000);
    run_ = {};
  }
}

// Hand-offs are of a process, whoever waits are of, and as contended as that.
TEST_F(WaitTallyTest, HandoffsAreOfTheProcess) {
  for (const bool by_thread : {false, true}) {
    Kernel kernel(by_thread);
    WaitTally fresh;
    tally_ = fresh;
    tally_.begin(1000);
    python(2000, 7, "python3 app.py");
    Histogram handoffs;
    const Waiter one = thread(7, 1500, 7, 1600, "one"), two = thread(7, 1500, 8, 1700, "two");
    for (int i = 0; i < 6; i++) {
      kernel.wait(i % 2 == 0 ? one : two, kMs);
      if (i == 5) continue;
      kernel.handoff(i % 2 == 0 ? one : two, 1000u * i);
      handoffs.add(1000u * i);
    }
    const auto report_of = [&](HistGroup group) {
      const std::vector<HistKind> kinds = {HistKind::wait, HistKind::handoff};
      return hist_of(tally_.next(run_), group, kinds);
    };
    tally_.take(kernel.read(10'000), 10'000);
    const HistReport first = report_of(by_thread ? HistGroup::thread : HistGroup::process);
    ASSERT_THAT(first.series, SizeIs(by_thread ? 3 : 2));
    for (const HistSeries& series : first.series) {
      const bool handoff = series.kind == HistKind::handoff;
      EXPECT_EQ(series.pid, 7u);
      EXPECT_EQ(series.tid.has_value(), by_thread && !handoff);
      EXPECT_FALSE(series.acquires);
      EXPECT_EQ(series.contended, by_thread && !handoff ? 3u : 6u);
      if (handoff) {
        expect_same(series.values, snapshot_of(handoffs));
      } else {
        EXPECT_EQ(series.values.count, by_thread ? 3u : 6u);
      }
    }
    // A thread's end is not its process's.
    kernel.wait(two, kMs);
    kernel.handoff(two, 7000);
    kernel.end(two);
    tally_.take(kernel.read(20'000), 20'000);
    kernel.wait(one, kMs);
    kernel.handoff(one, 9000);
    kernel.end_process(one);
    exit(25'000, 7);
    tally_.take(kernel.read(30'000), 30'000);
    const HistReport second = report_of(HistGroup::all);
    ASSERT_THAT(second.series, SizeIs(2));
    EXPECT_EQ(second.series[1].values.count, 2u);
    EXPECT_EQ(second.series[1].values.sum_ns, 16'000u);
    EXPECT_EQ(second.series[1].contended, 2u);
    tally_.take(kernel.read(40'000), 40'000);
    EXPECT_THAT(report_of(HistGroup::process).series, IsEmpty());
  }
}

// Three programs one after the other under one id, and a child that was forked from the second.
TEST_F(WaitTallyTest, WaitsAreOfTheProgramOfTheirTime) {
  for (const bool by_thread : {false, true}) {
    Kernel kernel(by_thread);
    WaitTally fresh;
    tally_ = fresh;
    tally_.begin(1000);
    exec(2000, 7);
    python(2001, 7, "python3 first.py");  // moved behind the exec
    kernel.wait(thread(7, 2000, 7, 2500), 1 * kMs);
    kernel.end(thread(7, 2000, 7, 2500));
    exec(3000, 7);
    python(3001, 7, "python3 second.py");
    fork(3500, 7, 8);
    for (int i = 0; i < 2; i++) kernel.wait(thread(7, 3000, 7, 3100), 2 * kMs);
    for (int i = 0; i < 3; i++) kernel.wait(thread(8, 3500, 8, 3600), 3 * kMs);
    kernel.end(thread(7, 3000, 7, 3100));
    exit(4000, 7);
    exec(5000, 7);
    python(5001, 7, "python3 third.py");
    for (int i = 0; i < 4; i++) kernel.wait(thread(7, 5000, 7, 5100), 4 * kMs);
    const HistReport first = report(kernel, 10'000, HistGroup::process);
    ASSERT_THAT(first.series, SizeIs(4));
    const char* const names[] = {"first.py", "second.py", "second.py", "third.py"};
    const uint64_t counts[] = {1, 2, 3, 4};
    for (size_t i = 0; i < 4; i++) {
      EXPECT_THAT(first.series[i].name, HasSubstr(names[i]));
      EXPECT_EQ(first.series[i].values.count, counts[i]);
      EXPECT_EQ(first.series[i].values.max_ns, counts[i] * kMs);
    }
    kernel.wait(thread(7, 5000, 7, 5100), 5 * kMs);
    const HistReport second = report(kernel, 20'000, HistGroup::process);
    ASSERT_THAT(second.series, SizeIs(1));
    EXPECT_THAT(second.series[0].name, HasSubstr("third.py"));
    EXPECT_EQ(second.series[0].values.count, 1u);
  }
}

// The loader traces a process that runs before it tells of it.
TEST_F(WaitTallyTest, WhoWasFoundRunningIsKnownByTheNextThatIsTold) {
  Kernel kernel(true);
  python(2000, 7, "python3 found.py");
  kernel.wait(thread(7, 1900, 9, 1950), kMs);
  exec(3000, 7);
  python(3001, 7, "python3 later.py");
  kernel.wait(thread(7, 1900, 9, 1950), kMs);
  kernel.wait(thread(7, 3000, 7, 3100), kMs);
  const HistReport processes = report(kernel, 10'000, HistGroup::process);
  ASSERT_THAT(processes.series, SizeIs(2));
  EXPECT_EQ(processes.series[0].values.count, 2u);
  EXPECT_THAT(processes.series[0].name, HasSubstr("found.py"));
}

TEST_F(WaitTallyTest, AThreadThatEndedHasItsNameOnce) {
  Kernel kernel(true);
  python(2000, 7, "python3 app.py");
  const Waiter ended = thread(7, 1500, 9, 1600, "pool-1"),
               other = thread(7, 1500, 9, 1700, "pool-2");
  kernel.wait(ended, kMs);
  kernel.end(ended);
  kernel.wait(other, 2 * kMs);  // the same id, given again
  const HistReport threads = report(kernel, 10'000, HistGroup::thread);
  ASSERT_THAT(threads.series, SizeIs(2));
  EXPECT_EQ(threads.series[0].name, "pool-1");
  EXPECT_EQ(threads.series[1].name, "pool-2");
  EXPECT_EQ(threads.series[1].tid, 9u);
  EXPECT_THAT(report(kernel, 20'000, HistGroup::thread).series, IsEmpty());
}

TEST_F(WaitTallyTest, OfManyThatEndedTheSumIsKept) {
  Kernel kernel(true);
  python(2000, 7, "python3 app.py");
  uint64_t waits = 0;
  for (uint32_t round = 0; round < 10; round++) {
    for (uint32_t t = 0; t < 1000; t++) {
      const Waiter waiter = thread(7, 1500, 10 + t, 10'000 + 1000 * round + t);
      for (uint32_t i = 0; i <= t % 3; i++, waits++) kernel.wait(waiter, (i + 1) * kMs);
      kernel.end(waiter);
    }
    tally_.take(kernel.read(100'000 * (round + 1)), 100'000 * (round + 1));
  }
  const Snapshot snapshot = tally_.next(run_);
  const HistReport threads = hist_of(snapshot, HistGroup::thread, {HistKind::wait});
  EXPECT_EQ(count(threads), waits);
  EXPECT_LE(threads.series.size(), WaitTally::kMostEnded + 1);
  EXPECT_THAT(threads.series.back().name, HasSubstr(" ended threads of python3 app.py"));
  EXPECT_EQ(count(hist_of(snapshot, HistGroup::all, {HistKind::wait})), waits);
}

TEST_F(WaitTallyTest, OfManyProcessesThatEndedToo) {
  Kernel kernel(false);
  uint64_t waits = 0;
  for (uint32_t round = 0; round < 10; round++) {
    for (uint32_t p = 0; p < 1000; p++) {
      const uint64_t at = 1'000'000 * (round + 1) + 100 * p;
      exec(at, 10 + p);
      python(at + 1, 10 + p, "python3 job.py");
      for (uint32_t i = 0; i <= p % 3; i++, waits++) {
        kernel.wait(thread(10 + p, at, 10 + p, at), kMs);
        kernel.handoff(thread(10 + p, at, 10 + p, at), kMs);
      }
      kernel.end(thread(10 + p, at, 10 + p, at));
      exit(at + 50, 10 + p);
    }
    tally_.take(kernel.read(1'000'000 * (round + 2)), 1'000'000 * (round + 2));
  }
  const Snapshot snapshot = tally_.next(run_);
  EXPECT_EQ(count(hist_of(snapshot, HistGroup::process, {HistKind::handoff})), waits);
  const HistReport processes = hist_of(snapshot, HistGroup::process, {HistKind::wait});
  EXPECT_EQ(count(processes), waits);
  EXPECT_LE(processes.series.size(), WaitTally::kMostEnded + 1);
  EXPECT_THAT(processes.series.back().name, HasSubstr("python3: "));
}

// Of who ends while the counts are being read, what was added since comes with the next reading.
TEST_F(WaitTallyTest, AProcessThatEndsDuringAReadingIsKeptForTheNext) {
  Kernel kernel(false);
  python(2000, 7, "python3 app.py");
  const Waiter waiter = thread(7, 1500, 7, 1600);
  for (int i = 0; i < 10; i++) kernel.wait(waiter, kMs);
  const CountedWaits begun = kernel.read(9000);
  for (int i = 0; i < 5; i++) kernel.wait(waiter, kMs);
  kernel.end(waiter);
  exit(9500, 7);
  tally_.take(begun, 10'000);
  EXPECT_EQ(count(hist_of(tally_.next(run_), HistGroup::process, {HistKind::wait})), 10u);
  const HistReport second = report(kernel, 20'000, HistGroup::process);
  ASSERT_THAT(second.series, SizeIs(1));
  EXPECT_THAT(second.series[0].name, HasSubstr("app.py"));
  EXPECT_EQ(second.series[0].values.count, 5u);
  EXPECT_EQ(second.not_counted, 0u);
}

// A process whose beginning was lost, or is not told yet.
TEST_F(WaitTallyTest, WaitsOfNobodyAreToldAsNotCounted) {
  Kernel kernel(false);
  const Waiter ended = thread(7, 1500, 7, 1600), late = thread(8, 1700, 8, 1800),
               never = thread(9, 1900, 9, 2000);
  for (int i = 0; i < 3; i++) kernel.wait(ended, kMs);
  kernel.end(ended);
  for (int i = 0; i < 4; i++) kernel.wait(late, kMs);
  for (int i = 0; i < 5; i++) kernel.wait(never, kMs);
  EXPECT_EQ(report(kernel, 10'000, HistGroup::process).not_counted, 3u);
  python(11'000, 8, "python3 late.py");
  const HistReport second = report(kernel, 20'000, HistGroup::process);
  EXPECT_EQ(second.not_counted, 0u);
  EXPECT_EQ(count(second), 4u);
  run_.finished = true;
  EXPECT_EQ(report(kernel, 30'000, HistGroup::process).not_counted, 5u);
}

TEST_F(WaitTallyTest, WhatFoundNoRoomIsToldOnce) {
  Kernel kernel(false);
  python(2000, 7, "python3 app.py");
  kernel.refuse(5);
  EXPECT_EQ(report(kernel, 10'000, HistGroup::all).not_counted, 5u);
  kernel.refuse(2);
  EXPECT_EQ(report(kernel, 20'000, HistGroup::all).not_counted, 2u);
  EXPECT_EQ(report(kernel, 30'000, HistGroup::all).not_counted, 0u);
}

}  // namespace
}  // namespace giltop
