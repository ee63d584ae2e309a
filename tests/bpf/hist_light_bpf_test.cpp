// giltop hist in light mode: waits that the kernel side counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <iostream>
#include <map>
#include <sstream>
#include <thread>

#include "giltop/abi.h"
#include "model/model.h"
#include "probe/session.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

// --- both sides of one session -------------------------------------------------------------------

using ThreadId = std::pair<uint32_t, uint32_t>;  // tgid, tid
struct Waits {
  std::map<uint32_t, uint64_t> buckets;
  uint64_t contended = 0, sum_ns = 0, min_ns = ~uint64_t{0}, max_ns = 0;
};
struct BothSides {
  std::map<ThreadId, Waits> events, counted;
  uint64_t moved = 0, lost = 0, not_counted = 0;
};

void add_counted(const CountedWaits& read, std::map<ThreadId, std::map<WaiterId, Waits>>& last) {
  for (const Waiter& waiter : read.waiters) last[{waiter.id.tgid, waiter.id.tid}][waiter.id] = {};
  for (const WaitCount& count : read.counts) {
    Waits& waits = last[{count.waiter.tgid, count.waiter.tid}][count.waiter];
    waits.contended += count.count;
    if (count.bucket == GT_NO_BUCKET) continue;
    waits.buckets[count.bucket] += count.count;
    waits.sum_ns += count.sum_ns;
    waits.min_ns = std::min(waits.min_ns, count.min_ns);
    waits.max_ns = std::max(waits.max_ns, count.max_ns);
  }
}

void merge(Waits& into, const Waits& more) {
  for (const auto& [bucket, count] : more.buckets) into.buckets[bucket] += count;
  into.contended += more.contended;
  into.sum_ns += more.sum_ns;
  into.min_ns = std::min(into.min_ns, more.min_ns);
  into.max_ns = std::max(into.max_ns, more.max_ns);
}

class HistLight : public Live {
 protected:
  uint32_t room_ = WaitCounting().room;

  // Watches `command`, which waits for a line on stdin after it said "ready", to its end.
  void watch(const std::vector<std::string>& command, BothSides& both) {
    EventTables tables;
    SessionOptions options;
    options.mode = Mode::light;
    options.ring_bytes = 64 << 20;
    options.counting = WaitCounting{.by_thread = true, .instead_of_events = false, .room = room_};
    ModelLimits limits;
    limits.ended_threads = 1 << 20;
    Model model(tables, limits);
    auto made = Session::make(options, tables);
    ASSERT_TRUE(made) << made.error().message();
    Session& session = **made;
    Program target(command);
    ASSERT_TRUE(target.wait_for("ready"));
    const auto pid = static_cast<uint32_t>(target.pid());
    ASSERT_TRUE(session.attach_process(pid));
    ASSERT_TRUE(session.track(pid));
    ASSERT_TRUE(session.arm());
    bool ended = false;
    const auto apply = [&](const Event& event) {
      model.apply(event);
      ended |= event.kind == EventKind::exit && event.tgid == pid && event.state == 1;
    };
    // What is read at attach has one time; from then on it takes two CPUs to give it twice.
    for (int i = 0; i < 3; i++) session.poll(0, apply);
    const uint64_t moved = session.moved();
    target.write_line("go");
    std::map<ThreadId, std::map<WaiterId, Waits>> last;
    const auto read = [&] {
      const auto counted = session.counted();
      ASSERT_TRUE(counted) << counted.error().message();
      both.not_counted = counted->not_counted;
      add_counted(*counted, last);
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!ended && std::chrono::steady_clock::now() < deadline) {
      session.poll(50, apply);
      read();
    }
    ASSERT_TRUE(ended);
    session.stop(apply);
    read();
    EXPECT_EQ(target.finish().status, 0);
    both.moved = session.moved() - moved;
    both.lost = model.lost();
    for (const auto& [thread, waiters] : last)
      for (const auto& [id, waits] : waiters) merge(both.counted[thread], waits);
    for (const Thread& thread : model.threads()) {
      if (thread.gone || thread.contended == 0) continue;
      Waits waits;
      thread.wait.for_each([&](uint64_t lower, uint64_t, uint64_t count) {
        waits.buckets[gt_bucket_of(lower)] += count;
      });
      waits.contended = thread.contended;
      waits.sum_ns = thread.wait.sum_ns();
      if (thread.wait.count() != 0) waits.min_ns = thread.wait.min_ns();
      waits.max_ns = thread.wait.max_ns();
      merge(both.events[{thread.process->tgid, thread.tid}], waits);
    }
    std::erase_if(both.counted, [](const auto& each) { return each.second.contended == 0; });
  }

  // Bucket by bucket, thread by thread. Times that were those of other events were moved by a ns
  // for the model: so many waits may be one bucket off there, and no more.
  static void expect_equal(const BothSides& both) {
    EXPECT_EQ(both.lost, 0u);
    EXPECT_EQ(both.not_counted, 0u);
    ASSERT_EQ(both.counted.size(), both.events.size());
    uint64_t different = 0;
    for (const auto& [thread, events] : both.events) {
      ASSERT_TRUE(both.counted.contains(thread)) << thread.second;
      const Waits& counted = both.counted.at(thread);
      EXPECT_EQ(counted.contended, events.contended) << thread.second;
      uint64_t counted_sum = 0, events_sum = 0;
      for (const auto& [bucket, count] : counted.buckets) {
        const auto there = events.buckets.find(bucket);
        const uint64_t others = there == events.buckets.end() ? 0 : there->second;
        different += count > others ? count - others : 0;
        counted_sum += count;
      }
      for (const auto& [bucket, count] : events.buckets) events_sum += count;
      EXPECT_EQ(counted_sum, events_sum) << thread.second;
      const auto off = [&](uint64_t a, uint64_t b) { return a > b ? a - b : b - a; };
      EXPECT_LE(off(counted.sum_ns, events.sum_ns), both.moved) << thread.second;
      EXPECT_LE(off(counted.min_ns, events.min_ns), std::min<uint64_t>(both.moved, 100));
      EXPECT_LE(off(counted.max_ns, events.max_ns), std::min<uint64_t>(both.moved, 100));
    }
    EXPECT_LE(different, both.moved);
  }

  static uint64_t waits_of(const std::map<ThreadId, Waits>& side) {
    uint64_t sum = 0;
    for (const auto& [thread, waits] : side) sum += waits.contended;
    return sum;
  }

  // --- the command -------------------------------------------------------------------------------

  static Json parsed(const std::string& text) {
    return Json::accept(text) ? Json::parse(text) : Json(nullptr);
  }
  // Until the file that is being written has so many.
  static void wait_for_lines(const std::string& path, int lines) {
    for (int i = 0; i < 3000; i++) {
      const std::string text = read_file(path);
      if (std::count(text.begin(), text.end(), '\n') >= lines) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << path;
  }
  static std::vector<Json> lines_of(const std::string& text) {
    std::vector<Json> documents;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) documents.push_back(parsed(line));
    return documents;
  }
  static uint64_t counts_of(const Json& document) {
    uint64_t sum = 0;
    for (const Json& series : document.at("series"))
      sum += series.at("histogram").at("count").get<uint64_t>();
    return sum;
  }
};

TEST_F(HistLight, TheKernelCountsWhatTheEventsTell) {
  const std::vector<std::vector<std::string>> workloads = {
      {"turns"},
      {"convoy"},
      {"writers", "2", "1"},
      {"writers", "4", "1"},
      {"pingpong"},
      {"iomix"},
      {"asleep"},
      {"shortthreads"},
      {"forks"},
  };
  for (const auto& arguments : workloads) {
    SCOPED_TRACE(arguments[0]);
    std::vector<std::string> command = {python(), workload()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.push_back("--ready");
    BothSides both;
    watch(command, both);
    if (HasFatalFailure()) return;
    EXPECT_GT(waits_of(both.events), 5u);
    std::cout << arguments[0] << ": " << waits_of(both.events) << " waits, " << both.moved
              << " events moved\n";
    expect_equal(both);
  }
}

TEST_F(HistLight, WhatFindsNoRoomIsCounted) {
  BothSides both;
  room_ = 8;
  watch({python(), workload(), "convoy", "--ready"}, both);
  if (HasFatalFailure()) return;
  EXPECT_EQ(both.lost, 0u);
  EXPECT_GT(both.not_counted, 10u);
  EXPECT_EQ(waits_of(both.counted) + both.not_counted, waits_of(both.events));
}

// A thousand threads one after another have at least a bucket each; what ended is removed when it
// was read.
TEST_F(HistLight, WhatEndedMakesRoom) {
  BothSides both;
  room_ = 400;
  watch({python(), workload(), "shortthreads", "--ready"}, both);
  if (HasFatalFailure()) return;
  EXPECT_GT(waits_of(both.events), 1000u);
  expect_equal(both);
}

// --- the command ---------------------------------------------------------------------------------

TEST_F(HistLight, NoEventMovesAndIntervalsAddUp) {
  Program target({python(), workload(), "turns", "--scale", "3", "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const std::string kept = directory_.path("h.json");
  Program hist({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "--mode", "light",
                "--json=" + directory_.path("intervals.json"), "-o", kept, "0.3"});
  const std::string file = directory_.path("r.pftrace"), report = directory_.path("r.json");
  Program recorder({GILTOP_BINARY, "record", "--mode", "light", "-o", file, "--json=" + report,
                    "-p", std::to_string(target.pid())});
  ASSERT_TRUE(recorder.wait_for("tracing")) << recorder.err();
  wait_for_lines(directory_.path("intervals.json"), 1);
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
  const Ran ran = hist.finish();
  ASSERT_EQ(ran.status, 0) << ran.err;
  ASSERT_EQ(recorder.finish().status, 0);

  const Json total = parsed(read_file(kept));
  const std::vector<Json> intervals = lines_of(read_file(directory_.path("intervals.json")));
  ASSERT_GE(intervals.size(), 8u);
  uint64_t waits = 0, events = 0;
  double duration = 0;
  for (const Json& interval : intervals) {
    ASSERT_FALSE(interval.is_null());
    waits += counts_of(interval);
    events += interval.at("events").get<uint64_t>();
    duration += interval.at("duration_s").get<double>();
    EXPECT_EQ(interval.at("lost_events"), 0);
    EXPECT_EQ(interval.at("not_counted"), 0);
    EXPECT_EQ(interval.at("mode"), "light");
  }
  EXPECT_GT(waits, 100u);
  EXPECT_LE(events, 3u) << "that its first wait told which Python it is, and its end";
  EXPECT_EQ(total.at("events"), events);
  EXPECT_EQ(counts_of(total), waits);
  EXPECT_NEAR(total.at("duration_s"), duration, 1e-6);
  // What a recorder was told of the same run.
  uint64_t recorded = 0;
  const Json recording = parsed(read_file(report));
  for (const Json& thread : recording.at("processes").at(0).at("threads"))
    recorded += thread.at("contended").get<uint64_t>();
  EXPECT_EQ(total.at("series").at(0).at("contended"), recorded);
}

TEST_F(HistLight, QuantilesAreTheWorkloadsOwn) {
  const std::string log = directory_.path("log");
  Program target({GILTOP_DOUBLE, "4", "2", "1", log, "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  Program hist({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "--mode", "light",
                "--json=" + directory_.path("h.json")});
  ASSERT_TRUE(hist.wait_for("tracing")) << hist.err();
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
  ASSERT_EQ(hist.finish().status, 0);
  std::istringstream in(read_file(log));
  std::map<uint32_t, uint64_t> since;
  std::vector<uint64_t> lengths;
  uint32_t tid;
  std::string what;
  for (uint64_t ns; in >> tid >> what >> ns;) {
    if (what == "wait") since.try_emplace(tid, ns);
    const auto wait = since.find(tid);
    if (what != "acquire" || wait == since.end()) continue;
    lengths.push_back(ns - wait->second);
    since.erase(wait);
  }
  ASSERT_GT(lengths.size(), 100u);
  std::sort(lengths.begin(), lengths.end());
  const Json document = parsed(read_file(directory_.path("h.json")));
  const Json& histogram = document.at("series").at(0).at("histogram");
  // The first wait of each thread is for a GIL that is not known yet.
  EXPECT_NEAR(histogram.at("count"), static_cast<double>(lengths.size()), 8);
  for (const auto& [name, q] : {std::pair("p50_s", 0.5), {"p90_s", 0.9}, {"p99_s", 0.99}}) {
    const auto rank = static_cast<size_t>(q * static_cast<double>(lengths.size()));
    const double truth = static_cast<double>(lengths[std::min(rank, lengths.size() - 1)]) / 1e9;
    // It begins where the thread falls asleep, a µs or some after it asked.
    EXPECT_NEAR(histogram.at(name), truth, 0.03 * truth + 5e-6) << name;
  }
}

TEST_F(HistLight, TheWholeHostByProcessAndDiff) {
  Program one({python(), workload(), "turns", "--scale", "30", "--started"});
  Program other({python(), workload(), "convoy", "--scale", "30", "--started"});
  ASSERT_TRUE(one.wait_for("started") && other.wait_for("started"));
  const std::string kept = directory_.path("h.json");
  const Ran ran = run(
      {GILTOP_BINARY, "hist", "-a", "--mode", "light", "-P", "-T", "-m", "-o", kept, "0.5", "2"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("workload.py turns --scale 30 --started (" +
                                 std::to_string(one.pid()) + ")  GIL wait, "));
  EXPECT_THAT(ran.out, HasSubstr("workload.py convoy"));
  EXPECT_THAT(ran.out, HasSubstr("msecs"));
  const Json document = parsed(read_file(kept));
  ASSERT_FALSE(document.is_null());
  uint64_t series = 0;
  for (const Json& each : document.at("series"))
    if (each.at("pid") == one.pid() || each.at("pid") == other.pid()) {
      series++;
      EXPECT_GT(each.at("histogram").at("count"), 20);
      EXPECT_TRUE(each.at("acquires").is_null());
    }
  EXPECT_EQ(series, 2u);
  const Ran diff = run({GILTOP_BINARY, "hist", "--diff", kept, kept});
  EXPECT_EQ(diff.status, 0) << diff.err;
  EXPECT_THAT(diff.out, HasSubstr("(+0 %)"));
}

// Programs that begin and end while the host is traced, the first of them under one reading.
TEST_F(HistLight, TheWholeHostHasThoseThatComeAndGo) {
  Program known({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(known.wait_for("started"));
  const std::string kept = directory_.path("h.json"), lines = directory_.path("lines.json");
  Program hist(
      {GILTOP_BINARY, "hist", "-a", "--mode", "light", "-P", "-o", kept, "--json=" + lines, "0.4"});
  wait_for_lines(lines, 1);
  std::map<pid_t, uint64_t> waits;
  for (int i = 0; i < 3; i++) {
    Program one({python(), workload(), "turns", "--scale", "0.3"});
    waits[one.pid()] = 0;
    ASSERT_EQ(one.finish().status, 0);
  }
  const auto had = static_cast<int>(lines_of(read_file(lines)).size());
  wait_for_lines(lines, had + 1);
  hist.signal(SIGINT);
  ASSERT_EQ(hist.finish().status, 0);
  const Json document = parsed(read_file(kept));
  for (const Json& each : document.at("series")) {
    const auto found = waits.find(each.at("pid").is_null() ? 0 : each.at("pid").get<pid_t>());
    if (found == waits.end()) continue;
    found->second += each.at("histogram").at("count").get<uint64_t>();
    EXPECT_THAT(each.at("name").get<std::string>(), HasSubstr("workload.py turns --scale 0.3"));
  }
  for (const auto& [pid, count] : waits) EXPECT_GT(count, 10u) << pid;
  EXPECT_EQ(document.at("lost_events"), 0);
}

TEST_F(HistLight, ThreadsThatEndedAreNamed) {
  const Ran ran = run({GILTOP_BINARY, "hist", "--mode", "light", "-L",
                       "--json=" + directory_.path("h.json"), "--", python(), "-c",
                       "import ctypes, threading, time\n"
                       "prctl = ctypes.CDLL(None).prctl\n"
                       "def work(n):\n"
                       "    prctl(15, b'worker-%d' % n)\n"  // PR_SET_NAME
                       "    end = time.monotonic() + 0.3\n"
                       "    while time.monotonic() < end: sum(range(1000))\n"
                       "threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]\n"
                       "for t in threads: t.start()\n"
                       "for t in threads: t.join()\n"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  std::map<std::string, uint64_t> waits;
  const Json document = parsed(read_file(directory_.path("h.json")));
  for (const Json& series : document.at("series"))
    waits[series.at("name")] += series.at("histogram").at("count").get<uint64_t>();
  for (const char* name : {"worker-0", "worker-1", "worker-2"}) EXPECT_GT(waits[name], 3u) << name;
}

// One program after another under one id, and a forked child, each with what it waited itself.
TEST_F(HistLight, ForksAndExecs) {
  const std::string contend =
      "def contend(seconds):\n"
      "    end = time.monotonic() + seconds\n"
      "    def work():\n"
      "        while time.monotonic() < end: sum(range(1000))\n"
      "    threads = [threading.Thread(target=work) for _ in range(2)]\n"
      "    for t in threads: t.start()\n"
      "    for t in threads: t.join()\n";
  const std::string second = directory_.path("second.py"), first = directory_.path("first.py");
  write_file(second, "import threading, time\n" + contend + "contend(0.3)\n");
  write_file(first, "import os, sys, threading, time\n" + contend +
                        "contend(0.3)\n"
                        "pid = os.fork()\n"
                        "if pid == 0:\n"
                        "    contend(0.3)\n"
                        "    os._exit(0)\n"
                        "os.waitpid(pid, 0)\n"
                        "print(pid, flush=True)\n"
                        "os.execv(sys.executable, [sys.executable, '" +
                        second + "'])\n");
  const Ran ran = run({GILTOP_BINARY, "hist", "--mode", "light", "-P",
                       "--json=" + directory_.path("h.json"), "--", python(), first});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const uint32_t child = static_cast<uint32_t>(std::stoul("0" + ran.out));
  const Json document = parsed(read_file(directory_.path("h.json")));
  ASSERT_FALSE(document.is_null());
  std::map<std::string, uint64_t> waits;
  for (const Json& series : document.at("series")) {
    const bool forked = series.at("pid") == child;
    waits[(forked ? "child of " : "") + series.at("name").get<std::string>()] +=
        series.at("histogram").at("count").get<uint64_t>();
  }
  ASSERT_EQ(waits.size(), 3u) << document;
  for (const auto& [name, count] : waits) EXPECT_GT(count, 20u) << name;
}

TEST_F(HistLight, WhoIsKilledWhileThreadsWait) {
  Program target({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  Program hist({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "--mode", "light",
                "--json=" + directory_.path("h.json"), "0.3"});
  wait_for_lines(directory_.path("h.json"), 2);
  target.signal(SIGKILL);
  const Ran ran = hist.finish();
  EXPECT_EQ(ran.status, 0) << ran.err;
  const std::vector<Json> documents = lines_of(read_file(directory_.path("h.json")));
  ASSERT_GE(documents.size(), 3u);
  EXPECT_GT(counts_of(documents[1]), 10u);
  EXPECT_EQ(documents.back().at("lost_events"), 0);
}

TEST_F(HistLight, HoldsAreNotKnown) {
  Program target({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  const Ran ran = run({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "--mode", "light",
                       "--hold", "--handoff", "0.5", "1"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("not known in light mode"));
  EXPECT_THAT(ran.out, HasSubstr("GIL hand-off, "));
}

}  // namespace
}  // namespace giltop::testing
