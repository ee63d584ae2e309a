// Light mode on live programs: what it shares with exact mode, and what it does not cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "support/host.h"
#include "support/interpreters.h"
#include "support/live.h"
#include "support/replay.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

class Light : public Live {
 protected:
  static const Json& process(const Json& report, const Json& pid) {
    static const Json none;
    for (const Json& p : report.at("processes"))
      if (p.at("pid") == pid) return p;
    return none;
  }
};

class LightHostWide : public Host {};

// Both modes on the same run: one recorder follows the command, the other the host.
TEST_F(Light, HoldsAreThoseOfExactModeWithinSomePoints) {
  // From then on the host's recorder knows this Python from its exec on.
  Program light({GILTOP_BINARY, "record", "-a", "--mode", "light", "-o",
                 directory_.path("l.pftrace"), "--json=" + directory_.path("l.json")});
  ASSERT_TRUE(light.wait_for("tracing every Python")) << light.err();
  EXPECT_EQ(run({python(), "-c", "import time; time.sleep(0.4)"}).status, 0);
  std::vector<Recorded> exact;
  for (const char* name : {"cpu1", "cpu2", "io4", "yield2", "io1"})
    exact.push_back(record_workload({name, "--scale", "0.3"}));
  light.signal(SIGINT);
  const Ran ran = light.finish();
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json report = Json::parse(read_file(directory_.path("l.json")));
  EXPECT_EQ(report.at("mode"), "light");
  EXPECT_EQ(report.at("violations"), 0);
  size_t threads = 0;
  for (const Recorded& recorded : exact) {
    const Json& true_process = recorded.process();
    ASSERT_FALSE(true_process.is_null());
    const Json& found = process(report, true_process.at("pid"));
    ASSERT_FALSE(found.is_null()) << recorded.truth.dump();
    for (const Json& truth : true_process.at("threads")) {
      const Json& thread = Recorded::thread(found, truth.at("tid"));
      ASSERT_FALSE(thread.is_null());
      if (life(truth) < 0.3) continue;
      threads++;
      const double running = in_cpu_state(truth, "running"), lived = life(truth);
      // Three points, and three standard deviations of so many samples: a thread's few are chance.
      const double samples = 199 * running;
      const double chance = samples > 1 ? 3 * 0.5 / std::sqrt(samples) * running / lived : 0.01;
      // Until giltop has had a CPU to look for the GIL, what a thread does with it is not known.
      const double share = in_gil_state(truth, "holding") / lived,
                   held = in_gil_state(thread, "holding") / life(thread),
                   unknown = in_gil_state(thread, "unknown") / life(thread);
      const auto known = gil_known_at(directory_.path("l.pftrace"), found.at("pid"));
      ASSERT_TRUE(known);
      SCOPED_TRACE(truth.at("comm").dump() + " of " + true_process.at("cmdline").dump());
      EXPECT_LE(held, share + 0.03 + chance);
      EXPECT_GE(held + unknown, share - 0.03 - chance);
      EXPECT_LE(unknown * life(thread), life_before(report, thread, *known) + 0.03 * life(thread));
      // The two do not begin and end at the same event.
      EXPECT_NEAR(in_gil_state(thread, "waiting"), in_gil_state(truth, "waiting"),
                  0.002 + 0.02 * in_gil_state(truth, "waiting"));
      EXPECT_EQ(thread.at("contended"), truth.at("contended"));
    }
  }
  EXPECT_GE(threads, 6u);
}

TEST_F(Light, AsleepWithTheGil) {
  const Recorded recorded = record_workload({"asleep"}, {"--mode", "light"});
  ASSERT_FALSE(recorded.process().is_null());
  uint32_t sleeper = 0, computer = 0;
  for (const Json& t : recorded.truth.at("threads")) {
    if (t.at("name") == "sleeper") sleeper = t.at("tid");
    if (t.at("name") == "computer") computer = t.at("tid");
  }
  const Json& thread = Recorded::thread(recorded.process(), sleeper);
  // 50 sleeps of 20 ms: what is read as it goes to sleep is no sample, but sure; from when giltop
  // has had a CPU to look for the GIL.
  const double slept = thread.at("matrix").at("holding").at("blocked_s");
  const auto known = gil_known_at(recorded.file, recorded.process().at("pid"));
  ASSERT_TRUE(known);
  const double before = life_before(recorded.report, thread, *known);
  EXPECT_LT(before, 0.5);
  EXPECT_GE(slept, 0.99 - before);
  for (const Json& t : recorded.truth.at("threads"))
    if (t.at("tid") == sleeper) {
      EXPECT_LE(slept, t.at("slept_s").get<double>());
    }
  EXPECT_GE(thread.at("held_sleeps").get<int>(),
            50 - static_cast<int>(std::ceil(before / 0.02)) - unreported_switches(recorded.report));
  // Behind whom a thread waits is read at its steps.
  expect_lost_to_sleeper(recorded.report, recorded.process(), computer, sleeper,
                         before + 0.05 * slept);
  EXPECT_THAT(recorded.ran.err, HasSubstr(std::to_string(sleeper) + " slept"));
  EXPECT_THAT(recorded.ran.err, HasSubstr("~"));
}

TEST_F(Light, WhoNeverWaitsNeverTraps) {
  const Recorded recorded = record_workload({"writers", "1", "1"}, {"--mode", "light"});
  ASSERT_FALSE(recorded.process().is_null());
  // writer-1 TID CALLS
  const std::string& out = recorded.ran.out;
  const uint64_t calls = std::stoull("0" + out.substr(std::min(out.size(), out.rfind(' ') + 1)));
  EXPECT_GT(calls, 10'000u);
  EXPECT_LT(recorded.report.at("overhead").at("probe_hits").get<uint64_t>(), 100u)
      << "but for the main thread's join";
}

TEST_F(Light, ReportPrintsWhatRecordPrinted) {
  const Recorded recorded = record_workload({"yield2", "--scale", "0.1"}, {"--mode", "light"});
  const Ran report = run({GILTOP_BINARY, "report", recorded.file, "--json"});
  ASSERT_EQ(report.status, 0) << report.err;
  EXPECT_EQ(Json::parse(report.out), recorded.report);
}

TEST_F(Light, FollowsAProcessFromTheMiddleOn) {
  Program target({python(), "-c",
                  "import threading, time\n"
                  "def spin():\n"
                  "    while True: sum(range(1000))\n"
                  "for _ in range(2): threading.Thread(target=spin, daemon=True).start()\n"
                  "print('ready', flush=True)\n"
                  "time.sleep(60)\n"});
  ASSERT_TRUE(target.wait_for("ready"));
  const Ran ran = run({GILTOP_BINARY, "record", "-d", "1", "--mode", "light", "-o",
                       directory_.path("p.pftrace"), "--json=" + directory_.path("p.json"), "-p",
                       std::to_string(target.pid())});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json report = Json::parse(read_file(directory_.path("p.json")));
  ASSERT_EQ(report.at("processes").size(), 1u);
  const Json& process = report.at("processes")[0];
  ASSERT_EQ(process.at("gils").size(), 1u);
  const auto known =
      gil_known_at(directory_.path("p.pftrace"), static_cast<uint32_t>(target.pid()));
  ASSERT_TRUE(known);
  // The two that compute are never without it of their own will: it is held, or about to be, and
  // who has it not waits, or wants for a CPU to do so.
  double spun = 0, held = 0, waited = 0, wanted = 0, before = 0;
  for (const Json& thread : process.at("threads")) {
    const double unknown = life_before(report, thread, *known);
    EXPECT_LT(in_gil_state(thread, "unknown"), 0.1 + unknown) << thread;
    if (thread.at("tid") == process.at("pid")) continue;
    before += unknown;
    spun += life(thread);
    held += in_gil_state(thread, "holding");
    waited += in_gil_state(thread, "waiting");
    wanted += thread.at("matrix").at("released").at("runnable_s").get<double>();
  }
  const double handoff = process.at("gils")[0].at("ledger").at("handoff_s");
  EXPECT_LT(before, 0.5);
  EXPECT_GT(held, 0.5 * 0.85 * spun - handoff - before);
  EXPECT_GT(waited, 0.5 * 0.85 * spun - wanted - handoff - before);
}

// The holder is read by the id that its process calls it.
TEST_F(Light, NamesTheHolderInsideAPidNamespace) {
  const Recorded recorded =
      record({"unshare", "--pid", "--fork", python(), workload(), "cpu2", "--scale", "0.1"},
             {"--mode", "light"});
  const Json& process = recorded.process();
  ASSERT_FALSE(process.is_null()) << recorded.ran.err;
  EXPECT_EQ(process.at("ns_pid"), 1);
  const auto known = gil_known_at(recorded.file, process.at("pid"));
  ASSERT_TRUE(known);
  double named = 0, waited = 0, before = 0;
  for (const Json& row : process.at("gils")[0].at("blame"))
    if (!row.at("holder_tid").is_null()) named += row.at("running_s").get<double>();
  for (const Json& thread : process.at("threads")) {
    waited += in_gil_state(thread, "waiting") - waited_for_cpus(process, thread.at("tid"));
    before += life_before(recorded.report, thread, *known);
  }
  EXPECT_GT(waited, 0.05);
  EXPECT_GT(named, 0.8 * waited - before - recorded.report.at("inferred_s").get<double>());
}

// An interpreter that gets a GIL of its own when giltop has long looked at the process: the waits
// for it tell of it.
TEST_F(Light, LearnsAGilThatComesLater) {
  const std::vector<Interpreter> all = installed_interpreters();
  const auto python = std::find_if(all.begin(), all.end(), [](const Interpreter& p) {
    return p.minor >= 12 && !p.free_threaded && !p.debug;
  });
  if (python == all.end()) GTEST_SKIP() << "no Python has interpreters with GILs of their own";
  write_file(directory_.path("late.py"),
             "import time\n"
             "code = '''\n"
             "import threading, time\n"
             "end = time.monotonic() + 0.7\n"
             "def spin():\n"
             "    while time.monotonic() < end: sum(range(1000))\n"
             "threads = [threading.Thread(target=spin) for _ in range(2)]\n"
             "for t in threads: t.start()\n"
             "for t in threads: t.join()\n"
             "'''\n"
             "time.sleep(1.3)\n"
             "try:\n"
             "    import _interpreters as module  # 3.13\n"
             "    module.exec(module.create('isolated'), code)\n"
             "except ImportError:\n"
             "    import _xxsubinterpreters as module\n"
             "    module.run_string(module.create(isolated=True), code)\n");
  const Recorded recorded =
      record(python->command(directory_.path(), "late.py", {}), {"--mode", "light"});
  const Json& process = recorded.process();
  ASSERT_FALSE(process.is_null()) << recorded.ran.err;
  ASSERT_EQ(process.at("gils").size(), 2u);
  EXPECT_GT(process.at("gils")[1].at("contended").get<int>(), 5);
  ASSERT_EQ(process.at("threads").size(), 3u) << process.at("threads");
  const auto known = gil_known_at(recorded.file, process.at("pid"), 1);
  ASSERT_TRUE(known);
  for (const Json& thread : process.at("threads")) {
    if (thread.at("tid") == process.at("pid")) continue;
    const double running = in_cpu_state(thread, "running"),
                 before = life_before(recorded.report, thread, *known);
    EXPECT_LT(before, 0.5) << "its waits tell of it";
    EXPECT_GT(thread.at("matrix").at("holding").at("running_s").get<double>(),
              0.7 * running - before)
        << thread;
  }
}

// A thread goes to sleep for the GIL while giltop has no CPU and has not told the kernel side where
// it is: its first sleeps tell nothing, and the wait is longer than what is seen of it.
TEST_F(LightHostWide, OfAWaitThatBeganBeforeItsGilWasKnownTheLengthIsNot) {
  const std::string script = directory_.path("early.py"), stop = directory_.path("stop");
  write_file(script,
             "import itertools, os, sys, threading, time\n"
             "sys.setswitchinterval(0.1)\n"
             "waited = []\n"
             "def wait():\n"
             "    begin = time.monotonic()\n"
             "    time.sleep(0.05)\n"
             "    waited.append(time.monotonic() - begin - 0.05)\n"
             "def hold(calls): return sum(itertools.repeat(1, calls))\n"
             "calls, took = 10**6, 0\n"
             "while took < 0.05:\n"
             "    calls *= 2\n"
             "    begin = time.monotonic()\n"
             "    hold(calls)\n"
             "    took = time.monotonic() - begin\n"
             "waiter = threading.Thread(target=wait)\n"
             "waiter.start()\n"
             "hold(int(calls * 0.5 / took))\n"
             "waiter.join()\n"
             "print('waited', waited[0], flush=True)\n"
             "while not os.access(sys.argv[1], os.F_OK): time.sleep(0.01)\n");
  const std::vector<Interpreter> all = installed_interpreters();
  const auto whole = std::find_if(all.begin(), all.end(), [](const Interpreter& p) {
    return p.root.empty() && p.program == p.gil_file && !p.embedded() && p.minor >= 7;
  });
  const std::string program = whole == all.end() ? python() : whole->program;
  Recorder recorder(directory_, {"--mode", "light"});
  get_known(program);
  recorder.program.signal(SIGSTOP);
  Program alone({program, "-S", "-E", script, stop});
  ASSERT_TRUE(alone.wait_for("waited")) << alone.err();
  ASSERT_TRUE(alone.wait_for("\n"));
  const double waited = std::stod(alone.out().substr(7));
  recorder.program.signal(SIGCONT);
  write_file(stop, "");
  EXPECT_EQ(alone.finish().status, 0);
  const Json report = recorder.finish();
  const Json found = process(report, alone.pid());
  ASSERT_FALSE(found.is_null());
  for (const Json& thread : found.at("threads")) {
    if (thread.at("tid") == alone.pid()) continue;
    EXPECT_GE(thread.at("contended"), 1);
    // It may have waited before, so that its GIL was known by then.
    for (const Json& bucket : thread.at("wait").at("buckets")) {
      const double length = bucket.at(0);
      EXPECT_TRUE(length < 0.05 || length > waited - 0.08) << length << " of " << waited;
    }
    return;
  }
  FAIL() << "no waiter: " << found.at("threads");
}

// What a Python forks before it was looked at itself: it maps nothing that would tell of it, and
// nobody waits for its GIL.
TEST_F(LightHostWide, AChildThatWasForkedBeforeItsParentWasLookedAt) {
  const std::string script = directory_.path("forks.py");
  write_file(script,
             "import os, time\n"
             "pid = os.fork()\n"
             "if pid == 0:\n"
             "    print('child', os.getpid(), flush=True)\n"
             "    end = time.monotonic() + 0.8\n"
             "    while time.monotonic() < end: pass\n"
             "    os._exit(0)\n"
             "os.waitpid(pid, 0)\n");
  std::set<std::string> programs = {python()};
  for (const Interpreter& p : installed_interpreters())
    if (p.root.empty() && !p.embedded() && p.minor >= 7 && !p.debug && programs.size() < 3)
      programs.insert(p.program);
  for (const std::string& program : programs) {
    SCOPED_TRACE(program);
    Recorder recorder(directory_, {"--mode", "light"});
    get_known(program);
    recorder.program.signal(SIGSTOP);
    Program parent({program, "-S", "-E", script});
    ASSERT_TRUE(parent.wait_for("child ")) << parent.err();
    ASSERT_TRUE(parent.wait_for("\n"));
    usleep(100'000);
    recorder.program.signal(SIGCONT);
    EXPECT_EQ(parent.finish().status, 0);
    const Json report = recorder.finish();
    const Json child = process(report, std::stoi(parent.out().substr(6)));
    ASSERT_FALSE(child.is_null());
    const Json& thread = child.at("threads").at(0);
    EXPECT_LT(thread.at("matrix").at("released").at("running_s"), 0.05);
    EXPECT_GT(thread.at("matrix").at("holding").at("running_s"),
              0.6 * in_cpu_state(thread, "running"));
  }
}

// A copy of Python that is linked to the same C library by another name.
TEST_F(Light, NeedsTheCLibraryThatItKnows) {
  const std::vector<Interpreter> all = installed_interpreters();
  const auto python = std::find_if(all.begin(), all.end(), [](const Interpreter& p) {
    return p.root.empty() && p.program == p.gil_file && !p.embedded() && p.minor >= 7;
  });
  if (python == all.end()) GTEST_SKIP() << "no Python has all in one file";
  const std::string ours = "libc.so.6", theirs = "libx.so.6";
  std::string program = read_file(python->program);
  const size_t at = program.find('\0' + ours + '\0');
  ASSERT_NE(at, std::string::npos);
  program.replace(at + 1, ours.size(), theirs);
  write_file(directory_.path("python3"), program, true);
  const std::string maps = read_file("/proc/self/maps");
  const size_t end = maps.find("/libc.so.6\n");
  ASSERT_NE(end, std::string::npos);
  const size_t begin = maps.rfind(' ', end) + 1;
  const std::string library = maps.substr(begin, end - begin) + "/" + ours;
  ASSERT_EQ(symlink(library.c_str(), directory_.path(theirs).c_str()), 0);
  const auto home = std::filesystem::path(python->program).parent_path().parent_path();
  const std::vector<std::string> command = {"env",
                                            "LD_LIBRARY_PATH=" + directory_.path(""),
                                            "PYTHONHOME=" + home.string(),
                                            directory_.path("python3"),
                                            "-c",
                                            "print('ran')"};
  const Recorded recorded = record(command, {"--mode", "light"});
  EXPECT_EQ(recorded.ran.out, "ran\n") << recorded.ran.err;
  EXPECT_THAT(recorded.ran.err, HasSubstr("light mode needs GNU's C library"));
  EXPECT_EQ(recorded.report.at("processes").size(), 0u);
  EXPECT_EQ(record(command).report.at("processes").size(), 1u) << "exact mode does not";
}

}  // namespace
}  // namespace giltop::testing
