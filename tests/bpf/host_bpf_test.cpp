// Host-wide: what runs already, what starts later, containers, and bad company.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "support/host.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::HasSubstr;

TEST_F(Host, WhatRunsAndWhatStarts) {
  Program before({GILTOP_DOUBLE, "2", "1", "7", directory_.path("before"), "--ready"});
  ASSERT_TRUE(before.wait_for("ready"));
  Recorder recorder(directory_, {});
  before.write_line("go");
  const int before_pid = before.pid();
  EXPECT_EQ(before.finish().status, 0);
  // Of a file that is known by now: nothing of it may be missed.
  Program after({GILTOP_DOUBLE, "2", "1", "7", directory_.path("after")});
  const int after_pid = after.pid();
  EXPECT_EQ(after.finish().status, 0);
  const Json report = recorder.finish();
  for (const auto& [pid, name] : {std::pair(before_pid, "before"), std::pair(after_pid, "after")}) {
    SCOPED_TRACE(name);
    const Json& found = process(report, pid);
    ASSERT_FALSE(found.is_null());
    EXPECT_EQ(found.at("complete"), pid == after_pid);
    EXPECT_TRUE(found.at("ns_pid").is_null());
    for (const auto& [tid, count] : logged_acquires(directory_.path(name))) {
      const Json& thread = Recorded::thread(found, tid);
      ASSERT_FALSE(thread.is_null()) << tid;
      EXPECT_EQ(thread.at("acquires"), count) << tid;
    }
  }
}

// With a PID namespace, a mount namespace and a root of its own: all of its files are new to
// giltop, and its first run is looked at while it runs. The second is not missed in the least.
TEST_F(Host, AContainer) {
  const std::string root = directory_.path("root");
  make_root(root);
  Recorder recorder(directory_, {});
  const std::vector<std::string> container = {"unshare", "--pid", "--fork", "--mount",
                                              "chroot",  root,    "/double"};
  for (const std::string name : {"first", "second"}) {
    std::vector<std::string> command = container;
    command.insert(command.end(), {"2", "1", "7", "/" + name});
    EXPECT_EQ(run(command).status, 0);
  }
  const Json report = recorder.finish();
  std::vector<Json> found;
  for (const Json& p : report.at("processes"))
    if (p.at("cmdline").get<std::string>().rfind("/double", 0) == 0) found.push_back(p);
  ASSERT_EQ(found.size(), 2u);
  for (const Json& p : found) {
    EXPECT_EQ(p.at("ns_pid"), 1) << "the first of its namespace";
    EXPECT_GT(p.at("pid"), 1);
  }
  EXPECT_GT(acquires(found[0]), 0u);
  EXPECT_TRUE(found[1].at("complete"));
  const auto logged = logged_acquires(root + "/second");
  ASSERT_FALSE(logged.empty());
  for (const auto& [ns_tid, count] : logged) {
    const auto& threads = found[1].at("threads");
    const auto thread = std::find_if(threads.begin(), threads.end(),
                                     [id = ns_tid](const Json& t) { return t.at("ns_tid") == id; });
    ASSERT_NE(thread, threads.end()) << ns_tid;
    EXPECT_EQ(thread->at("acquires"), count);
    EXPECT_NE(thread->at("tid"), ns_tid);
  }
}

// Probes that are set one by one in a program that is busy with its GIL: half a set would see
// acquires without their releases.
TEST_F(Host, ProbesComeIntoForceTogether) {
  setenv("GILTOP_UPROBES", "perf", 1);
  Recorder recorder(directory_, {});
  unsetenv("GILTOP_UPROBES");
  uint64_t seen = 0;
  std::vector<int> pids;
  for (const std::string name : {"a", "b", "c"}) {
    std::filesystem::copy_file(GILTOP_DOUBLE, directory_.path(name));
    Program busy({directory_.path(name), "4", "1.5", "7", "/dev/null"});
    pids.push_back(busy.pid());
    EXPECT_EQ(busy.finish().status, 0);
  }
  const Json report = recorder.finish();
  for (const int pid : pids) {
    const Json& found = process(report, pid);
    if (!found.is_null()) seen += acquires(found);
  }
  EXPECT_GT(seen, 0u);
}

// One process id, given again and again to a Python and to what is none, while giltop looks around.
TEST_F(Host, AnIdThatIsUsedAgain) {
  const std::string script = directory_.path("reuse.py");
  write_file(
      script,
      "import ctypes, os, signal, struct, sys, time\n"
      "libc = ctypes.CDLL(None, use_errno=True)\n"
      "ids = (ctypes.c_int * 1)(int(sys.argv[1]))\n"
      "def clone_into_id():\n"
      "    words = [0] * 11\n"
      "    words[4] = signal.SIGCHLD\n"
      "    words[8], words[9] = ctypes.addressof(ids), 1\n"  // set_tid
      "    args = ctypes.create_string_buffer(struct.pack('11Q', *words))\n"
      "    pid = libc.syscall(435, args, 88)\n"  // clone3
      "    if pid < 0: raise OSError(ctypes.get_errno(), 'clone3')\n"
      "    return pid\n"
      "print('ready', flush=True)\n"
      "end = time.monotonic() + 60\n"
      "rounds = 0\n"
      "while time.monotonic() < end and not os.path.exists(sys.argv[2]):\n"
      "    for command in ([sys.argv[3], '1', '0.002', '7', '/dev/null'], ['sleep', '0.002'],\n"
      "                    ['true']):\n"
      "        if clone_into_id() == 0: os.execvp(command[0], command)\n"
      "        os.wait()\n"
      "        rounds += 1\n"
      "print(rounds)\n");
  // High up, where the counter does not come by meanwhile.
  const int limit = std::stoi(read_file("/proc/sys/kernel/pid_max"));
  const std::string id = std::to_string(limit - 7), stop = directory_.path("stop");
  Program reuser({python(), script, id, stop, GILTOP_DOUBLE});
  ASSERT_TRUE(reuser.wait_for("ready")) << reuser.err();
  std::string python_comm = read_file("/proc/" + std::to_string(reuser.pid()) + "/comm");
  python_comm.pop_back();
  for (int i = 0; i < 8; i++) {
    Recorder recorder(directory_, {"-d", "0.5"});
    const Ran ran = recorder.program.finish();
    ASSERT_EQ(ran.status, 0) << ran.err;
    const Json report = Json::parse(read_file(recorder.json));
    EXPECT_EQ(report.at("violations"), 0);
    for (const Json& p : report.at("processes")) {
      if (std::to_string(p.at("pid").get<int>()) != id) continue;
      // The child is a Python itself until it executes.
      EXPECT_THAT(p.at("comm").get<std::string>(), AnyOf("gil_double", python_comm));
    }
  }
  write_file(stop, "");
  const Ran ran = reuser.finish();
  EXPECT_EQ(ran.status, 0) << ran.err;
}

// Runs so many Pythons one after another, some 10 ms each.
std::set<int> live_shortly(int count) {
  const std::string script =
      "for i in $(seq \"$1\"); do \"$0\" -S -E -c 'import os; print(os.getpid())'; done";
  const Ran ran = run({"sh", "-c", script, python(), std::to_string(count)}, seconds(100));
  EXPECT_EQ(ran.status, 0);
  std::istringstream lines(ran.out);
  std::set<int> pids;
  for (int pid; lines >> pid;) pids.insert(pid);
  EXPECT_EQ(pids.size(), static_cast<size_t>(count));
  return pids;
}

// Nobody can tell any more what ran there, but for its name.
TEST_F(Host, ABriefRunOfANewPythonIsSaidToBeMissed) {
  const std::string program = directory_.path("python3");
  std::filesystem::copy_file(GILTOP_DOUBLE, program);
  Recorder recorder(directory_, {});
  recorder.program.signal(SIGSTOP);
  EXPECT_EQ(run({program, "1", "0.001", "7", "/dev/null"}).status, 0);
  recorder.program.signal(SIGCONT);
  recorder.finish();
  EXPECT_THAT(recorder.ran.err, HasSubstr("some programs ran before giltop could look at them"));
}

TEST_F(Host, TwoHundredShortLives) {
  ASSERT_FALSE(python().empty());
  Recorder recorder(directory_, {});
  const auto open_files = [&] {
    std::error_code ignored;
    const std::filesystem::directory_iterator files(
        "/proc/" + std::to_string(recorder.program.pid()) + "/fd", ignored);
    return std::distance(begin(files), end(files));
  };
  const auto memory_kb = [&] {
    std::istringstream status(
        read_file("/proc/" + std::to_string(recorder.program.pid()) + "/status"));
    for (std::string word; status >> word;)
      if (word == "VmRSS:") {
        long kb = 0;
        status >> kb;
        return kb;
      }
    return 0L;
  };
  get_known(python());
  std::set<int> pids = live_shortly(20);
  const auto files = open_files();
  const long kb = memory_kb();
  pids.merge(live_shortly(180));
  // It may not have had a CPU yet to let go of the last ones.
  for (int i = 0; i < 500 && open_files() > files; i++) usleep(20'000);
  EXPECT_LE(open_files(), files);
  // What is kept of each is its figures.
  EXPECT_LT(memory_kb() - kb, 180 * 64) << "KB";
  const Json report = recorder.finish();
  size_t complete = 0;
  for (const int pid : pids) {
    const Json& found = process(report, pid);
    ASSERT_FALSE(found.is_null()) << pid;
    EXPECT_GT(acquires(found), 0u) << pid;
    complete += found.at("complete").get<bool>();
  }
  EXPECT_EQ(complete, 200u);
}

// A host that leaves giltop without a CPU at any moment: some end just while it looks at them.
TEST_F(Host, ShortLivesThatEndWhileTheyAreLookedAt) {
  ASSERT_FALSE(python().empty());
  Recorder recorder(directory_, {});
  get_known(python());
  std::set<int> pids;
  {
    const std::jthread stopper([pid = recorder.program.pid()](const std::stop_token& done) {
      while (!done.stop_requested()) {
        kill(pid, SIGSTOP);
        usleep(15'000);
        kill(pid, SIGCONT);
        usleep(1'000);
      }
    });
    pids = live_shortly(150);
  }
  const Json report = recorder.finish();
  for (const int pid : pids) {
    const Json& found = process(report, pid);
    ASSERT_FALSE(found.is_null()) << pid;
    EXPECT_GT(acquires(found), 0u) << pid;
    EXPECT_TRUE(found.at("complete")) << pid;
  }
}

TEST_F(Host, WhatCannotBeTracedIsToldAndTheRestGoesOn) {
  write_file(directory_.path("pypy.c"),
             "int pypy_main_startup(int a, char **b) { return a && b; }\n"
             "int rpython_startup_code(void) { return 0; }\n"
             "#include <unistd.h>\nint main(void) { write(1, \"ready\", 5); char c; "
             "return read(0, &c, 1) < 0; }\n");
  const Ran built =
      run({"cc", "-rdynamic", "-o", directory_.path("pypy3"), directory_.path("pypy.c")});
  ASSERT_EQ(built.status, 0) << built.err;
  Program before({directory_.path("pypy3")});
  ASSERT_TRUE(before.wait_for("ready"));
  Recorder recorder(directory_, {});
  Program after({directory_.path("pypy3")});
  ASSERT_TRUE(after.wait_for("ready"));
  const Ran double_ran = run({GILTOP_DOUBLE, "2", "1", "7", "/dev/null"});
  EXPECT_EQ(double_ran.status, 0);
  const Json report = recorder.finish();
  EXPECT_THAT(recorder.ran.err, HasSubstr("PyPy"));
  EXPECT_THAT(recorder.ran.err, HasSubstr(std::to_string(before.pid())));
  EXPECT_EQ(before.finish().status, 0);
  EXPECT_EQ(after.finish().status, 0);
  EXPECT_FALSE(report.at("processes").empty());
}

// A process that executes other programs is a Python only while it is one; and it may execute
// itself.
TEST_F(Host, ThroughOtherProgramsAndBack) {
  ASSERT_FALSE(python().empty());
  const std::string script = directory_.path("hop.py");
  write_file(script,
             "import os, sys\n"
             "n = int(sys.argv[1])\n"
             "again = [sys.executable, sys.argv[0], str(n - 1)]\n"
             "if n % 2: os.execv(sys.executable, again)\n"
             "if n: os.execvp('sh', ['sh', '-c', 'exec \"$@\"', 'sh'] + again)\n"
             "print(os.getpid())\n");
  std::set<std::string> pythons = {python()};
  if (std::filesystem::exists("/usr/bin/python3")) pythons.insert("/usr/bin/python3");
  Recorder recorder(directory_, {});
  std::vector<int> pids;
  for (const std::string& program : pythons) {
    get_known(program);
    const Ran hops = run({program, script, "4"});
    EXPECT_EQ(hops.status, 0) << hops.err;
    pids.push_back(std::stoi(hops.out));
  }
  const Json report = recorder.finish();
  for (const int pid : pids) {
    int images = 0;
    for (const Json& p : report.at("processes")) {
      if (p.at("pid") != pid) continue;
      images++;
      EXPECT_TRUE(p.at("complete"));
      EXPECT_GT(acquires(p), 0u);
    }
    EXPECT_EQ(images, 5) << pid;
  }
}

TEST_F(Host, AProcessWhoseMainThreadHasEnded) {
  ASSERT_FALSE(python().empty());
  const std::string script = directory_.path("headless.py");
  write_file(script,
             "import ctypes, os, threading, time\n"
             "def work():\n"
             "    while os.path.exists('/proc/self/exe'): time.sleep(0.01)\n"
             "    os.write(1, b'headless %d\\n' % os.getpid())\n"
             "    while True: sum(range(1000)); time.sleep(0.001)\n"
             "threading.Thread(target=work, daemon=True).start()\n"
             "ctypes.CDLL(None).pthread_exit(None)\n");
  Program headless({python(), script});
  ASSERT_TRUE(headless.wait_for("headless")) << headless.err();
  Recorder recorder(directory_, {});
  Json report = recorder.finish();
  EXPECT_FALSE(process(report, headless.pid()).is_null());
  const std::string json = directory_.path("p.json");
  const Ran ran = run({GILTOP_BINARY, "record", "-o", directory_.path("p.pftrace"), "-d", "0.3",
                       "--json=" + json, "-p", std::to_string(headless.pid())});
  ASSERT_EQ(ran.status, 0) << ran.err;
  report = Json::parse(read_file(json));
  EXPECT_GT(acquires(process(report, headless.pid())), 10u);
  headless.signal(SIGKILL);
}

}  // namespace
}  // namespace giltop::testing
