// giltop hist in light mode: waits and hand-offs that the kernel side counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <map>
#include <sstream>
#include <thread>

#include "support/live_view.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

// contend(threads, times): that many threads, the caller one of them, compute until each has had
// the GIL so often after another; so each has waited for it almost as often, at the least.
constexpr const char* kContend =
    "import threading\n"
    "def contend(threads, times, begin=lambda n: None):\n"
    "    last, had = [None], [0] * threads\n"
    "    def work(n):\n"
    "        begin(n)\n"
    "        while min(had) < times:\n"
    "            if last[0] != n:\n"
    "                last[0] = n\n"
    "                had[n] += 1\n"
    "            sum(range(1000))\n"
    "    others = [threading.Thread(target=work, args=(n,)) for n in range(1, threads)]\n"
    "    for t in others: t.start()\n"
    "    work(0)\n"
    "    for t in others: t.join()\n";
constexpr uint64_t kTimes = 12, kWaitsAtLeast = kTimes - 3;

class HistLight : public Live {
 protected:
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
  static double wanted_cpus_s(pid_t pid) {
    double sum = 0;
    for (const int tid : threads_of(pid)) sum += wanted_cpu_s(pid, tid);
    return sum;
  }
  static uint64_t counts_of(const Json& document, const std::string& kind = "wait") {
    uint64_t sum = 0;
    for (const Json& series : document.at("series"))
      if (series.at("kind") == kind) sum += series.at("histogram").at("count").get<uint64_t>();
    return sum;
  }
};

TEST_F(HistLight, NoEventMovesAndIntervalsAddUp) {
  Program target({python(), workload(), "turns", "--scale", "3", "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const std::string kept = directory_.path("h.json");
  Program hist({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "--mode", "light",
                "--wait", "--handoff", "--json=" + directory_.path("intervals.json"), "-o", kept,
                "0.3"});
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
  ASSERT_GE(intervals.size(), 3u);
  uint64_t waits = 0, handoffs = 0, events = 0;
  double duration = 0, due = 0;
  for (const Json& interval : intervals) {
    ASSERT_FALSE(interval.is_null());
    ASSERT_EQ(interval.at("series").size(), 2u);
    waits += counts_of(interval, "wait");
    handoffs += counts_of(interval, "handoff");
    events += interval.at("events").get<uint64_t>();
    duration += interval.at("duration_s").get<double>();
    // None ends before its time; who is late for one is shorter the next time.
    due += 0.3;
    if (&interval != &intervals.back()) {
      EXPECT_GT(duration, due - 0.01);
    }
    EXPECT_EQ(interval.at("lost_events"), 0);
    EXPECT_EQ(interval.at("not_counted"), 0);
    EXPECT_EQ(interval.at("mode"), "light");
  }
  EXPECT_GT(waits, 50u);
  EXPECT_LE(events, 3u) << "that its first wait told which Python it is, and its end";
  EXPECT_EQ(total.at("events"), events);
  EXPECT_EQ(counts_of(total, "wait"), waits);
  EXPECT_EQ(counts_of(total, "handoff"), handoffs);
  EXPECT_NEAR(total.at("duration_s"), duration, 1e-6);
  // What a recorder was told of the same run.
  uint64_t recorded = 0;
  const Json recording = parsed(read_file(report));
  for (const Json& thread : recording.at("processes").at(0).at("threads"))
    recorded += thread.at("contended").get<uint64_t>();
  for (const Json& series : total.at("series")) EXPECT_EQ(series.at("contended"), recorded);
  uint64_t handed = 0;
  for (const Json& gil : recording.at("processes").at(0).at("gils"))
    handed += gil.at("handoff").at("count").get<uint64_t>();
  EXPECT_GT(handed, 50u);
  EXPECT_EQ(handoffs, handed);
}

// Of a process each, whatever is asked for, and still no event of a thread.
TEST_F(HistLight, HandoffsByProcessAlone) {
  Program one({python(), workload(), "turns", "--scale", "30", "--started"});
  Program other({python(), workload(), "convoy", "--scale", "30", "--started"});
  ASSERT_TRUE(one.wait_for("started") && other.wait_for("started"));
  for (const char* group : {"-P", "-L"}) {
    const std::map<pid_t, double> before = {{one.pid(), wanted_cpus_s(one.pid())},
                                            {other.pid(), wanted_cpus_s(other.pid())}};
    const Ran ran = run(
        {GILTOP_BINARY, "hist", "-a", "--mode", "light", "--handoff", group, "--json", "0.7", "1"});
    ASSERT_EQ(ran.status, 0) << ran.err;
    const Json document = parsed(ran.out);
    ASSERT_FALSE(document.is_null()) << ran.out;
    int found = 0;
    uint64_t contended = 0;
    for (const Json& series : document.at("series")) {
      EXPECT_EQ(series.at("kind"), "handoff");
      contended += series.at("contended").get<uint64_t>();
      EXPECT_TRUE(series.at("tid").is_null());
      EXPECT_TRUE(series.at("acquires").is_null());
      EXPECT_GE(series.at("contended"), series.at("histogram").at("count"));
      if (series.at("pid") == one.pid() || series.at("pid") == other.pid()) {
        found++;
        const double count = series.at("histogram").at("count");
        EXPECT_GT(count, 20);
        // It ends when the one that was woken has the GIL, and so has got a CPU: what the kernel
        // counted of that meanwhile, and some µs.
        const pid_t pid = series.at("pid");
        EXPECT_LT(series.at("histogram").at("sum_s"),
                  wanted_cpus_s(pid) - before.at(pid) + 0.001 * count);
      }
    }
    EXPECT_EQ(found, 2) << ran.out;
    EXPECT_LT(document.at("events"), contended) << "processes that come and go";
    EXPECT_EQ(document.at("not_counted"), 0);
  }
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
  // A thread may be preempted before it sleeps, and its first wait is for a GIL that is not known.
  EXPECT_GE(histogram.at("count"), lengths.size() * 97 / 100);
  EXPECT_LE(histogram.at("count"), lengths.size());
  const auto truth = [&](double q) {
    const auto rank = static_cast<size_t>(q * static_cast<double>(lengths.size()));
    return static_cast<double>(lengths[std::min(rank, lengths.size() - 1)]) / 1e9;
  };
  for (const auto& [name, q] : {std::pair("p50_s", 0.5), {"p90_s", 0.9}, {"p99_s", 0.99}}) {
    // It begins where the thread falls asleep, a µs or some after it asked. A few of a hundred
    // waits may be other ones.
    EXPECT_GE(histogram.at(name), truth(q - 0.03) * 0.97 - 5e-6) << name;
    EXPECT_LE(histogram.at(name), truth(q + 0.03) * 1.03 + 5e-6) << name;
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
  const std::string script = directory_.path("contend.py");
  write_file(script, std::string(kContend) + "contend(2, " + std::to_string(kTimes) + ")\n");
  for (int i = 0; i < 3; i++) {
    Program one({python(), script});
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
    EXPECT_THAT(each.at("name").get<std::string>(), HasSubstr("contend.py"));
  }
  for (const auto& [pid, count] : waits) EXPECT_GE(count, 2 * kWaitsAtLeast) << pid;
  EXPECT_EQ(document.at("lost_events"), 0);
}

TEST_F(HistLight, ThreadsThatEndedAreNamed) {
  const Ran ran = run({GILTOP_BINARY, "hist", "--mode", "light", "-L",
                       "--json=" + directory_.path("h.json"), "--", python(), "-c",
                       std::string(kContend) +
                           "import ctypes\n"
                           "prctl = ctypes.CDLL(None).prctl\n"  // PR_SET_NAME
                           "contend(3, " +
                           std::to_string(kTimes) + ", lambda n: prctl(15, b'worker-%d' % n))\n"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  std::map<std::string, uint64_t> waits;
  const Json document = parsed(read_file(directory_.path("h.json")));
  for (const Json& series : document.at("series"))
    waits[series.at("name")] += series.at("histogram").at("count").get<uint64_t>();
  for (const char* name : {"worker-0", "worker-1", "worker-2"})
    EXPECT_GE(waits[name], kWaitsAtLeast) << name;
}

// An exec gives its thread the name of the next program.
TEST_F(HistLight, AThreadThatExecutesAProgramKeepsItsName) {
  const Ran ran = run({GILTOP_BINARY, "hist", "--mode", "light", "-L",
                       "--json=" + directory_.path("h.json"), "--", python(), "-c",
                       std::string(kContend) +
                           "import ctypes, os\n"
                           "ctypes.CDLL(None).prctl(15, b'first')\n"  // PR_SET_NAME
                           "contend(2, " +
                           std::to_string(kTimes) +
                           ")\n"
                           "os.execv('/bin/true', ['true'])\n"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  std::map<std::string, uint64_t> waits;
  const Json document = parsed(read_file(directory_.path("h.json")));
  ASSERT_FALSE(document.is_null());
  for (const Json& series : document.at("series"))
    waits[series.at("name")] += series.at("histogram").at("count").get<uint64_t>();
  EXPECT_GE(waits["first"], kWaitsAtLeast) << document;
  EXPECT_FALSE(waits.contains("true")) << document;
}

// One program after another under one id, and a forked child, each with what it waited itself.
TEST_F(HistLight, ForksAndExecs) {
  const std::string contend = "contend(2, " + std::to_string(kTimes) + ")\n";
  const std::string second = directory_.path("second.py"), first = directory_.path("first.py");
  write_file(second, kContend + contend);
  write_file(first, kContend + ("import os, sys\n" + contend) +
                        "pid = os.fork()\n"
                        "if pid == 0:\n"
                        "    " +
                        contend +
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
  for (const auto& [name, count] : waits) EXPECT_GE(count, 2 * kWaitsAtLeast) << name;
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
                       "--hold", "--handoff", "-o", directory_.path("h.json"), "0.5", "1"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_LE(parsed(read_file(directory_.path("h.json"))).at("events"), 3);
  EXPECT_THAT(ran.out, HasSubstr("not known in light mode"));
  EXPECT_THAT(ran.out, HasSubstr("GIL hand-off, "));
}

}  // namespace
}  // namespace giltop::testing
