// The live view without its screen: batch text and JSON on programs that run.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <sstream>

#include "support/live_view.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<Json> lines_of(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (Json::accept(line)) lines.push_back(Json::parse(line));
  return lines;
}

class Top : public Live {
 protected:
  std::vector<std::string> top(const std::vector<std::string>& more) {
    std::vector<std::string> words = {GILTOP_BINARY};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  std::string json_file() const { return directory_.path("top.json"); }

  // Its first interval is over: it traces.
  void wait_for_interval() {
    for (int i = 0; i < 1000 && read_file(json_file()).empty(); i++) usleep(20'000);
    ASSERT_FALSE(read_file(json_file()).empty());
  }

  void sums_up(const std::string& name);

  static const Json& process(const Json& report, int pid) {
    static const Json none;
    for (const Json& p : report.at("processes"))
      if (p.at("pid") == pid) return p;
    return none;
  }
};

// Figures of a process that can be summed up over intervals, by what they are of.
using Figures = std::map<std::string, double>;

void add(Figures& sum, const Json& process) {
  for (const Json& t : process.at("threads")) {
    const std::string of = t.at("tid").dump() + " ";
    for (const auto& [gil, row] : t.at("matrix").items())
      for (const auto& [cpu, s] : row.items()) sum[of + gil + " " + cpu] += s.get<double>();
    for (const char* count : {"acquires", "contended", "forced_releases", "voluntary_releases"})
      sum[of + count] += t.at(count).get<double>();
    for (const char* histogram : {"wait", "hold"}) {
      sum[of + histogram] += t.at(histogram).at("sum_s").get<double>();
      sum[of + histogram + " count"] += t.at(histogram).at("count").get<double>();
    }
  }
  for (const Json& g : process.at("gils")) {
    for (const auto& [column, s] : g.at("ledger").items()) sum["GIL " + column] += s.get<double>();
    for (const char* count : {"acquires", "contended", "forced_releases"})
      sum[std::string("GIL ") + count] += g.at(count).get<double>();
    for (const Json& b : g.at("blame"))
      for (const char* part : {"running_s", "runnable_s", "blocked_s", "handoff_s"})
        sum[b.at("waiter_tid").dump() + " behind " + b.at("holder_tid").dump() + " " + part] +=
            b.at(part).get<double>();
  }
}

TEST_F(Top, TwoThreadsThatTakeTurnsAreEachOthersBlocker) {
  Program target({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  std::map<std::string, double> wanted;  // for a CPU, percent of an interval
  const auto add_wanted = [&](double sign) {
    for (const int tid : threads_of(target.pid()))
      wanted[std::to_string(tid)] += sign * 100 / 0.5 * wanted_cpu_s(target.pid(), tid);
  };
  add_wanted(-1);
  const Ran ran = run(top({"-p", std::to_string(target.pid()), "-H", "-n", "3", "-d", "0.5", "-s",
                           "pid", "--mode", "exact"}));
  add_wanted(1);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(ran.out, Not(HasSubstr("\x1b")));
  std::istringstream in(ran.out);
  size_t heads = 0;
  std::map<std::string, std::map<std::string, int>> blockers;  // by waiter
  std::map<std::string, double> wait, held;
  std::vector<std::string> columns;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::vector<std::string> fields;
    for (std::string word; words >> word;) fields.push_back(word);
    if (fields.empty() || fields[0] == "giltop") continue;
    if (fields[0] == "PID") {
      heads++;
      EXPECT_TRUE(columns.empty() || columns == fields);
      columns = fields;
      continue;
    }
    ASSERT_GE(fields.size(), columns.size()) << line;  // a name may have spaces
    const auto field = [&](const std::string& name) {
      const auto at = std::find(columns.begin(), columns.end(), name) - columns.begin();
      return fields[static_cast<size_t>(at)];
    };
    EXPECT_EQ(field("PID"), std::to_string(target.pid()));
    if (field("TID") == "-" || field("TID") == field("PID")) continue;
    blockers[field("TID")][field("BLOCKER")]++;
    wait[field("TID")] += std::stod(field("WAIT%"));
    held[field("TID")] += std::stod(field("HELD%"));
  }
  EXPECT_EQ(heads, 3u);
  ASSERT_EQ(blockers.size(), 2u) << ran.out;
  const std::string one = blockers.begin()->first, other = blockers.rbegin()->first;
  // In these three intervals it was always held, or about to be: that took as long as it did for
  // one to get a CPU. While one holds it the other waits, or has no CPU to ask for it on.
  const double handoffs = wanted[one] + wanted[other];
  EXPECT_LE(held[one] + held[other], 303) << ran.out;
  EXPECT_GE(held[one] + held[other], 285 - handoffs) << ran.out;
  for (const auto& [waiter, holder] : {std::pair(one, other), {other, one}}) {
    EXPECT_GT(held[holder], 0) << ran.out;
    EXPECT_GE(wait[waiter], held[holder] - wanted[waiter] - 15) << waiter << "\n" << ran.out;
    EXPECT_LE(wait[waiter], 303 - held[waiter]) << waiter << "\n" << ran.out;
  }
  EXPECT_GE(blockers[one][other], 2) << ran.out;
  EXPECT_GE(blockers[other][one], 2) << ran.out;
}

// The whole work is done while both look: the sum of the intervals is the recording.
void Top::sums_up(const std::string& name) {
  (void)unlink(json_file().c_str());
  Program target({python(), workload(), name, "--scale", "0.5", "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const std::string pid = std::to_string(target.pid());
  const std::string report = directory_.path("record.json");
  Program recorder(
      {GILTOP_BINARY, "record", "-o", directory_.path("r.pftrace"), "--json=" + report, "-p", pid});
  ASSERT_TRUE(recorder.wait_for("tracing")) << recorder.err();
  Program viewer(top({"-p", pid, "-d", "0.2", "--mode", "exact", "--json=" + json_file()}));
  wait_for_interval();
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
  EXPECT_EQ(recorder.finish().status, 0);
  const Ran viewed = viewer.finish();
  EXPECT_EQ(viewed.status, 0) << viewed.err;
  EXPECT_EQ(viewed.out, "");
  const std::vector<Json> intervals = lines_of(read_file(json_file()));
  EXPECT_GT(intervals.size(), 3u);
  const Json recorded = Json::parse(read_file(report));
  Figures summed, whole;
  double end = 0;
  // What the kernel did not report each of them finds out for itself, and an interval may be shown
  // by then.
  double inferred = recorded.at("inferred_s").get<double>();
  for (const Json& interval : intervals) {
    EXPECT_EQ(interval.at("schema"), "giltop.report/1");
    EXPECT_EQ(interval.at("lost_events"), 0);
    EXPECT_EQ(interval.at("violations"), 0);
    const double start = interval.at("start_boottime_s").get<double>();
    if (end != 0) {
      EXPECT_NEAR(start, end, 1e-6) << "no time is left out";
    }
    end = start + interval.at("duration_s").get<double>();
    inferred += interval.at("inferred_s").get<double>();
    if (!process(interval, target.pid()).is_null()) add(summed, process(interval, target.pid()));
  }
  add(whole, process(recorded, target.pid()));
  // While the main thread waited for the word, one was there and the other was not yet.
  for (const char* idle : {"GIL idle_s", "GIL unknown_s"}) summed[idle] = whole[idle] = 0;
  for (const char* cell : {" released blocked_s", " unknown running_s", " unknown runnable_s",
                           " unknown blocked_s", " unknown unknown_s"})
    summed[pid + cell] = whole[pid + cell] = 0;
  for (const auto& [figure, value] : summed) whole.try_emplace(figure, 0);
  for (const auto& [figure, value] : whole)
    EXPECT_NEAR(summed[figure], value, std::max(value * 0.01, 0.001) + inferred) << figure;
}

TEST_F(Top, IntervalsSumUpToTheRecording) {
  for (const std::string name : {"cpu2", "yield2", "iomix"}) {
    SCOPED_TRACE(name);
    sums_up(name);
  }
}

TEST_F(Top, AHoldCountsWhileItLasts) {
  // A thread sleeps in C with the GIL in its hands, for as long as we want.
  const std::string script =
      "import ctypes, threading, sys, time\n"
      "read = ctypes.PyDLL(None).read\n"
      "t = threading.Thread(target=lambda: time.sleep(1e9), daemon=True)\n"
      "t.start()\n"
      "w = threading.Thread(target=lambda: [time.sleep(0.001) for i in range(10**9)], "
      "daemon=True)\n"
      "w.start()\n"
      "time.sleep(0.1)\n"
      "print('holding', flush=True)\n"
      "read(0, ctypes.create_string_buffer(10), 10)\n"
      "import os; os._exit(0)\n";
  Program target({python(), "-c", script});
  ASSERT_TRUE(target.wait_for("holding"));
  Program viewer(top(
      {"-p", std::to_string(target.pid()), "-d", "0.3", "-n", "4", "--mode", "exact", "--json"}));
  const Ran ran = viewer.finish();
  EXPECT_EQ(ran.status, 0) << ran.err;
  const std::vector<Json> intervals = lines_of(ran.out);
  ASSERT_EQ(intervals.size(), 4u);
  for (size_t i = 1; i < intervals.size(); i++) {
    const Json& p = process(intervals[i], target.pid());
    ASSERT_FALSE(p.is_null());
    const double duration = intervals[i].at("duration_s").get<double>();
    const Json& holder = Recorded::thread(p, static_cast<uint32_t>(target.pid()));
    EXPECT_NEAR(holder.at("matrix").at("holding").at("blocked_s").get<double>(), duration, 0.002);
    EXPECT_NEAR(p.at("gils")[0].at("ledger").at("held_blocked_s").get<double>(), duration, 0.002);
    EXPECT_EQ(p.at("gils")[0].at("max_waiters"), 1);
  }
  target.write_line("enough");
  EXPECT_EQ(target.finish().status, 0);
}

TEST_F(Top, EndsWithItsTargetHoweverThatEnds) {
  for (const int how : {SIGTERM, SIGKILL}) {
    Program target({python(), workload(), "cpu2", "--scale", "100", "--started"});
    ASSERT_TRUE(target.wait_for("started"));
    (void)unlink(json_file().c_str());
    Program viewer(top({"-p", std::to_string(target.pid()), "-d", "0.1", "--json=" + json_file()}));
    wait_for_interval();
    target.signal(how);
    const Ran ran = viewer.finish(seconds(20));
    EXPECT_EQ(ran.status, 0) << ran.err;
    for (const Json& interval : lines_of(read_file(json_file())))
      EXPECT_EQ(interval.at("violations"), 0);
  }
}

TEST_F(Top, ACommandsStatusAndOutputAreItsOwn) {
  const Ran ran = run(top({"-d", "0.1", "--json=" + json_file(), "--", python(), "-c",
                           "import sys, time; time.sleep(0.3); print('mine'); sys.exit(41)"}));
  EXPECT_EQ(ran.status, 41);
  EXPECT_EQ(ran.out, "mine\n");
  const std::vector<Json> intervals = lines_of(read_file(json_file()));
  ASSERT_GE(intervals.size(), 2u);
  uint64_t acquires = 0;
  for (const Json& interval : intervals)
    for (const Json& p : interval.at("processes"))
      for (const Json& g : p.at("gils"))
        if (!g.at("acquires").is_null()) acquires += g.at("acquires").get<uint64_t>();
  EXPECT_GT(acquires, 0u);
  // As text it goes to stderr; a command that is over at once is shown, too.
  const Ran brief = run(top({"--mode", "exact", "--", python(), "-c", "print('brief')"}));
  EXPECT_EQ(brief.status, 0) << brief.err;
  EXPECT_EQ(brief.out, "brief\n");
  EXPECT_THAT(brief.err, AllOf(HasSubstr("HELD%"), HasSubstr("-c print('brief')")));
  const Ran none = run(top({"--", "/no/such/program"}));
  EXPECT_EQ(none.status, 127);
  EXPECT_THAT(none.err, HasSubstr("/no/such/program"));
}

TEST_F(Top, ManyProgramsOneAfterAnother) {
  const std::string script =
      "i=0; while [ $i -lt 200 ]; do " + python() + " -S -E -c 'pass' || exit 1; i=$((i+1)); done";
  const Ran ran =
      run(top({"-d", "0.2", "--mode", "exact", "--json=" + json_file(), "--", "sh", "-c", script}),
          seconds(200));
  EXPECT_EQ(ran.status, 0) << ran.err;
  std::map<int, double> life, cells;
  for (const Json& interval : lines_of(read_file(json_file()))) {
    EXPECT_EQ(interval.at("violations"), 0);
    EXPECT_EQ(interval.at("lost_events"), 0);
    for (const Json& p : interval.at("processes")) {
      for (const Json& t : p.at("threads")) {
        const int pid = p.at("pid").is_null() ? 0 : p.at("pid").get<int>();
        life[pid] += t.at("life_s").get<double>();
        for (const Json& row : t.at("matrix"))
          for (const Json& cell : row) cells[pid] += cell.get<double>();
      }
    }
  }
  EXPECT_GE(life.size(), 200u);
  for (const auto& [pid, s] : life) EXPECT_NEAR(cells[pid], s, 0.0001) << pid;
}

TEST_F(Top, AnotherProgramIsAnotherProcess) {
  Program target({python(), "-c",
                  "import os, sys; print('first', flush=True); input()\n"
                  "os.execv(sys.executable, [sys.executable, '-c', "
                  "\"print('second', flush=True); input()\"])\n"});
  ASSERT_TRUE(target.wait_for("first"));
  Program viewer(top({"-p", std::to_string(target.pid()), "-d", "0.1", "--json=" + json_file()}));
  wait_for_interval();
  target.write_line("go");
  ASSERT_TRUE(target.wait_for("second"));
  const std::string before = read_file(json_file());
  for (int i = 0; i < 500 && read_file(json_file()).size() < before.size() + 2000; i++)
    usleep(20'000);
  target.write_line("end");
  EXPECT_EQ(target.finish().status, 0);
  EXPECT_EQ(viewer.finish(seconds(20)).status, 0);
  for (const Json& interval : lines_of(read_file(json_file())))
    EXPECT_EQ(interval.at("violations"), 0);
}

TEST_F(Top, AClosedPipeEndsItQuietly) {
  Program target({python(), "-c", "print('here', flush=True); input()"});
  ASSERT_TRUE(target.wait_for("here"));
  const Ran ran = run(
      {"bash", "-c", "set -o pipefail; \"$0\" -i -d 0.1 -p \"$1\" | head -3; exit ${PIPESTATUS[0]}",
       GILTOP_BINARY, std::to_string(target.pid())},
      seconds(30));
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(ran.out, HasSubstr("HELD%"));
}

TEST_F(Top, AnInterruptEndsItInOrder) {
  Program target({python(), "-c", "print('here', flush=True); input()"});
  ASSERT_TRUE(target.wait_for("here"));
  Program viewer(top({"-i", "-d", "0.1", "-p", std::to_string(target.pid())}));
  ASSERT_TRUE(viewer.wait_for("HELD%"));
  viewer.signal(SIGINT);
  const Ran ran = viewer.finish(seconds(20));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out.substr(ran.out.size() - 2), "\n\n") << "whole blocks only";
}

// A filter that nothing matches leaves a host without Pythons.
TEST_F(Top, WaitsForThePythonsToCome) {
  Program viewer(top({"--comm", "no such name", "-d", "0.1"}));
  ASSERT_TRUE(viewer.wait_for("HELD%"));
  const std::string name = directory_.path("comes later");
  Program filtered(top({"--comm", "comes later", "-i", "-d", "0.1", "--json=" + json_file()}));
  wait_for_interval();
  write_file(name, "print('here', flush=True); input()\n");
  Program target({python(), name});
  ASSERT_TRUE(target.wait_for("here"));
  bool shown = false;
  for (int i = 0; i < 500 && !shown; i++) {
    usleep(20'000);
    for (const Json& interval : lines_of(read_file(json_file()))) {
      for (const Json& p : interval.at("processes")) EXPECT_EQ(p.at("pid"), target.pid());
      shown = shown || !interval.at("processes").empty();
    }
  }
  EXPECT_TRUE(shown);
  viewer.signal(SIGINT);
  filtered.signal(SIGINT);
  EXPECT_EQ(filtered.finish().status, 0);
  EXPECT_EQ(viewer.finish().status, 0);
}

TEST_F(Top, OlderKernelsAreTracedExactly) {
  Program target({python(), "-c", "print('here', flush=True); input()"});
  ASSERT_TRUE(target.wait_for("here"));
  Program viewer(top({"-i", "-d", "0.1", "-n", "1", "-p", std::to_string(target.pid())}),
                 {{"GILTOP_UPROBES", "perf"}});
  const Ran ran = viewer.finish(seconds(60));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("Linux 6.6"));
  EXPECT_THAT(ran.out, HasSubstr("mode exact"));
}

TEST_F(Top, WithoutRootItSaysWhatToType) {
  const Ran ran = run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                       "--inh-caps=-all", GILTOP_BINARY, "-p", "1", "--comm", "it's"});
  EXPECT_EQ(ran.status, 1) << ran.err;
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, HasSubstr(std::string("sudo ") + GILTOP_BINARY + " -p 1 --comm 'it'\\''s'"));
  EXPECT_LE(std::count(ran.err.begin(), ran.err.end(), '\n'), 24);
}

TEST_F(Top, RefusesWhatItDoesNotUnderstand) {
  const std::vector<std::vector<std::string>> wrong = {{"-d", "0"},
                                                       {"-d", "x"},
                                                       {"-s", "colour"},
                                                       {"-p", "0"},
                                                       {"-p", "1", "--", "true"},
                                                       {"-n", "0"},
                                                       {"--comm", "("},
                                                       {"-u", "nobody-of-that-name"},
                                                       {"--mode", "exact", "--overhead", "1%"},
                                                       {"--no-such-option"},
                                                       {"4242"}};
  for (const auto& words : wrong) {
    const Ran ran = run(top(words), seconds(20));
    EXPECT_EQ(ran.status, 2) << words[0] << " " << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
  const Ran keys = run(top({"-s", "help"}));
  EXPECT_EQ(keys.status, 0);
  EXPECT_THAT(keys.out, HasSubstr("off  "));
  const Ran gone = run(top({"-p", "4194303"}));
  EXPECT_EQ(gone.status, 1);
  EXPECT_THAT(gone.err, HasSubstr("no process 4194303"));
}

}  // namespace
}  // namespace giltop::testing
