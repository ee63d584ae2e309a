// The recording: what report makes of it, what a killed recorder leaves, what Perfetto accepts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <set>
#include <sstream>

#include "support/live.h"
#include "support/trace_checker.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;

Json without_overhead(Json report) {
  report.erase("overhead");
  return report;
}

class Recording : public Live {};

TEST_F(Recording, ReportPrintsWhatRecordPrinted) {
  for (const std::string workload_name : {"cpu2", "yield2", "forks", "shortthreads"}) {
    const Recorded recorded = record_workload({workload_name, "--scale", "0.1"});
    const Ran json = run({GILTOP_BINARY, "report", "--json", recorded.file});
    ASSERT_EQ(json.status, 0) << json.err;
    EXPECT_EQ(without_overhead(Json::parse(json.out)), without_overhead(recorded.report))
        << workload_name;
    const Ran text = run({GILTOP_BINARY, "report", recorded.file});
    EXPECT_EQ(text.err, "");
    EXPECT_NE(recorded.ran.err.find(text.out), std::string::npos)
        << workload_name << ": record\n"
        << recorded.ran.err << "\nreport\n"
        << text.out;
  }
}

TEST_F(Recording, KeepsTheImportersRules) {
  for (const std::string workload_name : {"cpu2", "io4", "forks", "shortthreads"}) {
    const Recorded recorded = record_workload({workload_name, "--scale", "0.1"});
    for (const std::string& broken : check_trace(recorded.file)) ADD_FAILURE() << broken;
  }
}

TEST_F(Recording, DecodesWithTheSchema) {
  const Recorded recorded = record_workload({"cpu2", "--scale", "0.1"});
  const std::string support = std::string(GILTOP_TEST_DIR) + "/support";
  const Ran decoded = run({"sh", "-c",
                           std::string(GILTOP_PROTOC) + " --decode=giltop.trace.Trace -I" +
                               support + " " + support + "/giltop_trace.proto < " + recorded.file});
  EXPECT_EQ(decoded.status, 0) << decoded.err;
  EXPECT_NE(decoded.out.find("compressed_packets"), std::string::npos);
}

TEST_F(Recording, AKilledRecorderLeavesAReadableFileAndAnUnharmedTarget) {
  const std::string file = directory_.path("killed.pftrace");
  Program target({python(), workload(), "cpu2", "--scale", "0.5", "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  Program recorder({GILTOP_BINARY, "record", "-o", file, "-p", std::to_string(target.pid())});
  // Its first block is there: it is under way.
  for (int i = 0; i < 300 && read_file(file).empty(); i++) {
    usleep(20'000);
    if (i == 10) target.write_line("go");
  }
  // And more of it: some hundred hand-overs have been flushed.
  for (int i = 0; i < 500 && read_file(file).size() < 6000; i++) usleep(20'000);
  recorder.signal(SIGKILL);
  EXPECT_EQ(recorder.finish().status, 128 + SIGKILL);
  EXPECT_EQ(target.finish().status, 0) << target.err();
  const Ran report = run({GILTOP_BINARY, "report", "--json", file});
  ASSERT_EQ(report.status, 0) << report.err;
  EXPECT_NE(report.err.find("breaks off"), std::string::npos) << report.err;
  const Json read = Json::parse(report.out);
  ASSERT_EQ(read.at("processes").size(), 1u);
  EXPECT_GT(read.at("processes")[0].at("gils")[0].at("contended").get<int>(), 10);
  EXPECT_EQ(read.at("violations"), 0);
  for (const std::string& broken : check_trace(file)) ADD_FAILURE() << broken;
}

TEST_F(Recording, AKilledRecorderLeavesNobodyStopped) {
  // Many programs, each new to giltop and so held while it looks: kill it among them.
  const std::string script = directory_.path("many");
  std::string text = "#!/bin/sh\n";
  for (int i = 0; i < 200; i++) {
    const std::string name = directory_.path("tool" + std::to_string(i));
    text += "cp /bin/true " + name + " && " + name + " || exit 1\n";
  }
  write_file(script, text + "echo all done > " + directory_.path("done") + "\n", true);
  Program recorder({GILTOP_BINARY, "record", "-o", directory_.path("x.pftrace"), "--", script});
  for (int i = 0; i < 6000 && read_file(directory_.path("tool20")).empty(); i++) usleep(5'000);
  recorder.signal(SIGKILL);
  EXPECT_EQ(recorder.finish(seconds(5)).status, 128 + SIGKILL);
  std::string done;
  for (int i = 0; i < 2400 && done.empty(); i++) {
    usleep(25'000);
    done = read_file(directory_.path("done"));
  }
  EXPECT_EQ(done, "all done\n") << "the script was left stopped";
}

TEST_F(Recording, AttachesInMidRun) {
  const std::string json = directory_.path("a.json");
  Program target({python(), workload(), "cpu2", "--scale", "0.5", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  const Ran recorded = run({GILTOP_BINARY, "record", "-o", directory_.path("a.pftrace"),
                            "--json=" + json, "-d", "1", "-p", std::to_string(target.pid())});
  EXPECT_EQ(recorded.status, 0) << recorded.err;
  EXPECT_EQ(target.finish().status, 0);
  const Json report = Json::parse(read_file(json));
  EXPECT_EQ(report.at("violations"), 0);
  ASSERT_EQ(report.at("processes").size(), 1u);
  const Json& process = report.at("processes")[0];
  EXPECT_EQ(process.at("complete"), false);
  EXPECT_EQ(process.at("threads").size(), 3u);
  for (const Json& thread : process.at("threads")) {
    double sum = 0;
    for (const char* state : {"holding", "waiting", "released", "unknown"})
      sum += in_gil_state(thread, state);
    EXPECT_NEAR(sum, life(thread), 2e-9);
  }
  // What came before the first event is not known, and it is not guessed.
  double unknown = 0;
  for (const Json& thread : process.at("threads")) unknown += in_gil_state(thread, "unknown");
  EXPECT_GT(unknown, 0);
}

TEST_F(Recording, AttachesBeforeTheThreadsBegin) {
  const std::string file = directory_.path("b.pftrace"), json = directory_.path("b.json");
  Program target({GILTOP_DOUBLE, "4", "2", "3", directory_.path("log"), "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  Program recorder(
      {GILTOP_BINARY, "record", "-o", file, "--json=" + json, "-p", std::to_string(target.pid())});
  for (int i = 0; i < 500 && read_file(file).empty(); i++) usleep(20'000);
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
  const Ran recorded = recorder.finish();
  EXPECT_EQ(recorded.status, 0) << recorded.err;
  uint64_t acquires = 0;
  const std::string log = read_file(directory_.path("log"));
  for (size_t at = log.find(" acquire "); at != std::string::npos;
       at = log.find(" acquire ", at + 1))
    acquires++;
  const Json report = Json::parse(read_file(json));
  EXPECT_EQ(report.at("processes")[0].at("gils")[0].at("acquires"), acquires);
  EXPECT_EQ(report.at("violations"), 0);
}

TEST_F(Recording, AnInterruptFinishesTheFile) {
  const std::string file = directory_.path("i.pftrace");
  Program target({python(), workload(), "cpu2", "--scale", "1", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  Program recorder({GILTOP_BINARY, "record", "-o", file, "-p", std::to_string(target.pid())});
  for (int i = 0; i < 500 && read_file(file).empty(); i++) usleep(20'000);
  recorder.signal(SIGINT);
  const Ran recorded = recorder.finish();
  EXPECT_EQ(recorded.status, 0) << recorded.err;
  EXPECT_NE(recorded.out.find("Wrote " + file), std::string::npos) << recorded.out;
  const Ran report = run({GILTOP_BINARY, "report", file});
  EXPECT_EQ(report.status, 0);
  EXPECT_EQ(report.err, "");
}

TEST_F(Recording, TheCommandsStatusAndOutputAreItsOwn) {
  const Ran ran = run({GILTOP_BINARY, "record", "-q", "-o", directory_.path("s.pftrace"), "--",
                       python(), "-c", "import sys; print('mine'); sys.exit(41)"});
  EXPECT_EQ(ran.status, 41);
  EXPECT_EQ(ran.out, "mine\n");
  EXPECT_EQ(ran.err, "");
  const Ran killed = run({GILTOP_BINARY, "record", "-q", "-o", directory_.path("s.pftrace"), "--",
                          python(), "-c", "import os; os.kill(os.getpid(), 9)"});
  EXPECT_EQ(killed.status, 128 + SIGKILL);
  EXPECT_FALSE(read_file(directory_.path("s.pftrace.old")).empty()) << "the old file is kept";
}

TEST_F(Recording, TheCommandFindsItsSignalsAsTheyWere) {
  const Ran pipe = run({GILTOP_BINARY, "record", "-q", "-o", directory_.path("s.pftrace"), "--",
                        "sh", "-c", "yes | head -1"});
  EXPECT_EQ(pipe.out, "y\n");
  EXPECT_EQ(pipe.err, "") << "yes ends by SIGPIPE, with no word";
}

TEST_F(Recording, ParentsThatMindStoppedChildrenGoOn) {
  // script(1) stops itself when its child was stopped, and waits to be continued.
  const Ran ran = run({GILTOP_BINARY, "record", "-q", "-o", directory_.path("p.pftrace"), "--",
                       "script", "-qec", python() + " -c 'print(43)'", "/dev/null"},
                      seconds(30));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_NE(ran.out.find("43"), std::string::npos);
}

TEST_F(Recording, AStoppedGiltopHoldsNobody) {
  // As by Ctrl-Z: what its target starts meanwhile is not held, however new it is.
  Program recorder({GILTOP_BINARY, "record", "-q", "-o", directory_.path("z.pftrace"), "--", "sh",
                    "-c",
                    "echo ready; read go; cp /bin/echo " + directory_.path("new") + "; " +
                        directory_.path("new") + " through"});
  ASSERT_TRUE(recorder.wait_for("ready"));
  recorder.signal(SIGSTOP);
  usleep(700'000);  // longer than its heartbeat counts
  recorder.write_line("go");
  EXPECT_TRUE(recorder.wait_for("through", seconds(10)));
  recorder.signal(SIGCONT);
  EXPECT_EQ(recorder.finish().status, 0);
}

// Held at its exec while giltop is stopped: the guard lets it go, and what it did until giltop
// looked at it was not seen.
TEST_F(Recording, WhomTheGuardLetsGoHasMissedEvents) {
  const std::string copy = directory_.path("copy"), log = directory_.path("log");
  std::filesystem::copy_file(GILTOP_DOUBLE, copy);
  Program recorder({GILTOP_BINARY, "record", "-o", directory_.path("g.pftrace"),
                    "--json=" + directory_.path("g.json"), "--", "sh", "-c",
                    "echo begun; read line; exec \"$@\"", "sh", copy, "2", "0.5", "7", log,
                    "--ready"});
  ASSERT_TRUE(recorder.wait_for("begun"));
  recorder.signal(SIGSTOP);
  recorder.write_line("go");
  ASSERT_TRUE(recorder.wait_for("ready")) << "the guard let nobody go";
  recorder.signal(SIGCONT);
  recorder.write_line("go");
  const Ran ran = recorder.finish();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.err, ::testing::HasSubstr("their first events are missed"));
  const Json report = Json::parse(read_file(directory_.path("g.json")));
  ASSERT_EQ(report.at("processes").size(), 1u) << ran.err;
  EXPECT_EQ(report.at("processes")[0].at("complete"), false);
}

// A server's workers, which were forked long before; one of them by a shell in between.
TEST_F(Recording, SubprocessesThatRunAlready) {
  const std::string spin =
      "import os, time\n"
      "print('child', os.getpid(), flush=True)\n"
      "while True: time.sleep(0.001)\n";
  write_file(directory_.path("child.py"), spin);
  Program parent({python(), "-c",
                  "import subprocess, sys, time\n"
                  "def start(*words):\n"
                  "    words += (sys.executable, sys.argv[1])\n"
                  "    child = subprocess.Popen(words, stdout=subprocess.PIPE)\n"
                  "    print(child.stdout.readline().decode(), flush=True)\n"
                  "start()\n"
                  "start('sh', '-c', '\"$0\" \"$1\"; :')\n"
                  "print('ready', flush=True)\n"
                  "while True: time.sleep(0.001)\n",
                  directory_.path("child.py")});
  const auto children = [&] {
    std::set<int> pids;
    std::istringstream words(parent.out());
    for (std::string word; words >> word;)
      if (int pid = 0; word == "child" && words >> pid) pids.insert(pid);
    return pids;
  };
  ASSERT_TRUE(parent.wait_for("ready")) << parent.err();
  const auto traced = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {GILTOP_BINARY,
                                      "record",
                                      "-d",
                                      "0.5",
                                      "-o",
                                      directory_.path("s.pftrace"),
                                      "--json=" + directory_.path("s.json")};
    words.insert(words.end(), more.begin(), more.end());
    const Ran ran = run(words);
    EXPECT_EQ(ran.status, 0) << ran.err;
    std::set<int> pids;
    const Json report = Json::parse(read_file(directory_.path("s.json")));
    for (const Json& p : report.at("processes")) pids.insert(p.at("pid").get<int>());
    return pids;
  };
  const std::string pid = std::to_string(parent.pid());
  std::set<int> all = children();
  ASSERT_EQ(all.size(), 2u) << parent.out();
  all.insert(parent.pid());
  EXPECT_EQ(traced({"-p", pid, "-s"}), all);
  EXPECT_EQ(traced({"-p", pid}), std::set<int>{parent.pid()});
  for (const int child : children()) kill(child, SIGKILL);
}

TEST_F(Recording, AZombieHasEnded) {
  // Its parent does not reap it: it is there, and over.
  Program parent({python(), "-c",
                  "import subprocess, sys\n"
                  "p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
                  "print('child', p.pid, flush=True)\n"
                  "input()\n"
                  "p.stdin.close()\n"
                  "input()\n"});
  ASSERT_TRUE(parent.wait_for("\n"));
  const std::string pid = parent.out().substr(6, parent.out().find('\n') - 6);
  const std::string file = directory_.path("zombie.pftrace");
  Program recorder({GILTOP_BINARY, "record", "-q", "-o", file, "-p", pid});
  for (int i = 0; i < 500 && read_file(file).empty(); i++) usleep(20'000);
  parent.write_line("end it");
  EXPECT_EQ(recorder.finish(seconds(10)).status, 0);
}

TEST_F(Recording, TheCommandRunsAsTheInvokingUser) {
  // As sudo would set it, for the user nobody.
  Program ran({GILTOP_BINARY, "record", "-q", "-o", directory_.path("u.pftrace"), "--", "id", "-u"},
              {{"SUDO_UID", "65534"}, {"SUDO_GID", "65534"}});
  const Ran result = ran.finish();
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "65534\n");
  const Ran owner = run({"stat", "-c", "%u", directory_.path("u.pftrace")});
  EXPECT_EQ(owner.out, "65534\n");
}

}  // namespace
}  // namespace giltop::testing
