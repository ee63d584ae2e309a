// Host-wide: what runs already, what starts later, containers, deleted files, and bad company.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "support/live.h"

namespace giltop::testing {
namespace {

using std::chrono::seconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;

class Host : public Live {
 protected:
  // giltop record -a, from the moment that it traces.
  struct Recorder {
    Program program;
    std::string json;
    Recorder(const TemporaryDirectory& directory, const std::vector<std::string>& more)
        : program(words(directory, more)), json(directory.path("a.json")) {
      EXPECT_TRUE(program.wait_for("tracing every Python")) << program.err();
    }
    static std::vector<std::string> words(const TemporaryDirectory& directory,
                                          const std::vector<std::string>& more) {
      std::vector<std::string> all = {GILTOP_BINARY,
                                      "record",
                                      "-a",
                                      "-o",
                                      directory.path("a.pftrace"),
                                      "--json=" + directory.path("a.json")};
      all.insert(all.end(), more.begin(), more.end());
      return all;
    }
    Json finish() {
      program.signal(SIGINT);
      ran = program.finish();
      EXPECT_EQ(ran.status, 0) << ran.err;
      const std::string text = read_file(json);
      if (!Json::accept(text)) {
        ADD_FAILURE() << "no report: " << ran.err;
        return {{"processes", Json::array()}};
      }
      const Json report = Json::parse(text);
      EXPECT_EQ(report.at("violations"), 0);
      EXPECT_EQ(report.at("lost_events"), 0);
      return report;
    }
    Ran ran;
  };

  static const Json& process(const Json& report, int pid) {
    static const Json none;
    for (const Json& p : report.at("processes"))
      if (p.at("pid") == pid) return p;
    return none;
  }

  // Lives long enough to be found while it runs: its next processes are traced from their exec on.
  static void get_known(const std::string& program) {
    EXPECT_EQ(run({program, "-c", "import time; time.sleep(0.4)"}).status, 0);
  }

  static uint64_t acquires(const Json& process) {
    uint64_t sum = 0;
    for (const Json& gil : process.at("gils")) sum += gil.at("acquires").get<uint64_t>();
    return sum;
  }

  // Acquires of each thread, as the double counted them itself.
  static std::map<uint32_t, uint64_t> logged_acquires(const std::string& path) {
    std::map<uint32_t, uint64_t> counts;
    std::ifstream in(path);
    uint32_t tid;
    std::string kind;
    uint64_t ns;
    while (in >> tid >> kind >> ns)
      if (kind == "acquire") counts[tid]++;
    return counts;
  }

  // Copies the double and its libraries below `root`.
  static void make_root(const std::string& root) {
    std::filesystem::create_directories(root);
    std::filesystem::copy_file(GILTOP_DOUBLE, root + "/double");
    std::istringstream libraries(run({"ldd", GILTOP_DOUBLE}).out);
    for (std::string word; libraries >> word;) {
      if (word[0] != '/') continue;
      const std::filesystem::path copy = root + word;
      std::filesystem::create_directories(copy.parent_path());
      std::filesystem::copy_file(word, copy, std::filesystem::copy_options::skip_existing);
    }
  }
};

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

TEST_F(Host, AFileThatIsDeletedOrReplaced) {
  const std::string copy = directory_.path("double");
  std::filesystem::copy_file(GILTOP_DOUBLE, copy);
  Program gone({copy, "2", "1", "7", directory_.path("gone"), "--ready"});
  ASSERT_TRUE(gone.wait_for("ready"));
  std::filesystem::remove(copy);
  write_file(copy, "something else\n");
  Recorder recorder(directory_, {});
  gone.write_line("go");
  const int pid = gone.pid();
  EXPECT_EQ(gone.finish().status, 0);
  const Json report = recorder.finish();
  const Json& found = process(report, pid);
  ASSERT_FALSE(found.is_null());
  for (const auto& [tid, count] : logged_acquires(directory_.path("gone")))
    EXPECT_EQ(Recorded::thread(found, tid).at("acquires"), count) << tid;
}

// Containers of one image: the same file below, under an inode of its own in each.
TEST_F(Host, OneFileBelowTwoOverlays) {
  const std::string layer = directory_.path("layer");
  std::filesystem::create_directories(layer);
  std::filesystem::copy_file(GILTOP_DOUBLE, layer + "/double");
  const std::string script =
      "cd \"$0\" && mkdir -p \"$1/up\" \"$1/work\" \"$1/root\" && mount -t overlay overlay -o "
      "\"lowerdir=layer,upperdir=$1/up,workdir=$1/work\" \"$1/root\" || exit 77\n"
      "exec \"$1/root/double\" 2 1 7 \"$0/log$1\"\n";
  Recorder recorder(directory_, {});
  for (const std::string name : {"1", "2", "1"}) {
    const Ran ran = run({"unshare", "-m", "sh", "-c", script, directory_.path(), name});
    if (ran.status == 77) {
      (void)recorder.finish();
      GTEST_SKIP() << "no overlay file system here: " << ran.err;
    }
    EXPECT_EQ(ran.status, 0) << ran.err;
  }
  const Json report = recorder.finish();
  std::vector<const Json*> found;
  for (const Json& p : report.at("processes"))
    if (p.at("comm") == "double") found.push_back(&p);
  ASSERT_EQ(found.size(), 3u);
  // Not twice what it did. (The first run of the three was found while it ran; its log is the
  // third's by now.)
  for (const size_t i : {size_t{1}, size_t{2}})
    for (const auto& [tid, count] : logged_acquires(directory_.path(i == 1 ? "log2" : "log1")))
      EXPECT_EQ(Recorded::thread(*found[i], tid).at("acquires"), count) << tid;
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
  const std::string script =
      "for i in $(seq \"$1\"); do \"$0\" -c 'import os; print(os.getpid())'; done";
  std::set<int> pids;
  const auto start = [&](int count) {
    const Ran ran = run({"sh", "-c", script, python(), std::to_string(count)}, seconds(100));
    EXPECT_EQ(ran.status, 0);
    std::istringstream lines(ran.out);
    for (int pid; lines >> pid;) pids.insert(pid);
  };
  get_known(python());
  start(20);
  const auto files = open_files();
  const long kb = memory_kb();
  start(180);
  EXPECT_EQ(open_files(), files);
  // What is kept of each is its figures.
  EXPECT_LT(memory_kb() - kb, 180 * 64) << "KB";
  EXPECT_EQ(pids.size(), 200u);
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

// Libraries of all sorts of names and contents.
TEST_F(Host, GarbageWithAPythonsName) {
  ASSERT_FALSE(python().empty());
  const std::string whole = read_file(GILTOP_DOUBLE);
  const std::string folder = directory_.path("lib");
  std::filesystem::create_directories(folder);
  std::vector<std::string> names;
  const auto add = [&](const std::string& text) {
    names.push_back(folder + "/libpython3." + std::to_string(names.size()) + ".so.1.0");
    write_file(names.back(), text);
  };
  add(std::string(100'000, '\xcc'));
  add("\x7f"
      "ELF" +
      std::string(5000, '\xff'));
  add(whole.substr(0, 64));
  add(whole.substr(0, whole.size() / 2));
  std::string broken = whole;
  for (size_t i = 64; i < broken.size(); i += 97) broken[i] = static_cast<char>(i * 31);
  add(broken);
  const std::string script = directory_.path("map.py");
  write_file(script,
             "import mmap, sys, time\n"
             "maps = []\n"
             "for name in sys.argv[1:]:\n"
             "    with open(name, 'rb') as f:\n"
             "        maps.append(mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE,"
             " mmap.PROT_READ | mmap.PROT_EXEC))\n"
             "print('mapped', flush=True)\n"
             "sys.stdin.read()\n");
  std::vector<std::string> command = {python(), script};
  command.insert(command.end(), names.begin(), names.end());
  Program before(command);
  ASSERT_TRUE(before.wait_for("mapped"));
  Recorder recorder(directory_, {});
  Program after(command);
  ASSERT_TRUE(after.wait_for("mapped"));
  const int pids[] = {before.pid(), after.pid()};
  EXPECT_EQ(before.finish().status, 0);
  EXPECT_EQ(after.finish().status, 0);
  const Json report = recorder.finish();
  for (const int pid : pids) {
    const Json& found = process(report, pid);
    ASSERT_FALSE(found.is_null()) << pid;
    EXPECT_THAT(found.at("python").get<std::string>(), ::testing::Not(HasSubstr("and")));
  }
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

TEST_F(Host, AFileThatIsTouched) {
  const std::string copy = directory_.path("double");
  std::filesystem::copy_file(GILTOP_DOUBLE, copy);
  Program first({copy, "2", "1.5", "7", directory_.path("first"), "--ready"});
  ASSERT_TRUE(first.wait_for("ready"));
  Recorder recorder(directory_, {});
  first.write_line("go");
  ASSERT_EQ(utimensat(AT_FDCWD, copy.c_str(), nullptr, 0), 0);
  const Ran second = run({copy, "2", "1", "7", directory_.path("second")});
  EXPECT_EQ(second.status, 0);
  const int pid = first.pid();
  EXPECT_EQ(first.finish().status, 0);
  const Json report = recorder.finish();
  size_t seen = 0;
  for (const Json& p : report.at("processes")) {
    if (p.at("comm") != "double") continue;
    seen++;
    const std::string log = directory_.path(p.at("pid") == pid ? "first" : "second");
    for (const auto& [tid, count] : logged_acquires(log))
      EXPECT_EQ(Recorded::thread(p, tid).at("acquires"), count) << log;
  }
  EXPECT_EQ(seen, 2u);
}

// A breakpoint of the old content must not get into the new.
TEST_F(Host, AFileThatIsOverwrittenInPlace) {
  const std::string source = std::string(GILTOP_TEST_DIR) + "/support/gil_double.c";
  for (const std::string level : {"-O1", "-O3"}) {
    const Ran built = run({"cc", "-std=gnu11", level, "-rdynamic", "-pthread", "-o",
                           directory_.path("variant" + level), source});
    ASSERT_EQ(built.status, 0) << built.err;
  }
  const std::string victim = directory_.path("victim");
  Recorder recorder(directory_, {});
  const auto probes = [&] {
    size_t count = 0;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(
             "/proc/" + std::to_string(recorder.program.pid()) + "/fd", ignored)) {
      const auto target = std::filesystem::read_symlink(entry.path(), ignored).string();
      count += target.find("bpf_link") != std::string::npos ||
               target.find("bpf-link") != std::string::npos;
    }
    return count;
  };
  const size_t before = probes();
  int round = 0;
  for (const std::string level : {"-O1", "-O3", "-O1", "-O3"}) {
    write_file(victim, read_file(directory_.path("variant" + level)), true);
    // In the kernel until the last of them is out, and asleep in its poll again then.
    const auto asleep = [&] {
      const std::string stat =
          read_file("/proc/" + std::to_string(recorder.program.pid()) + "/stat");
      return stat.find(") S ") != std::string::npos;
    };
    for (int i = 0; i < 500 && (probes() > before || !asleep()); i++) usleep(10'000);
    ASSERT_EQ(probes(), before);
    for (int i = 0; i < 2; i++) {
      const std::string log = directory_.path("log" + std::to_string(round++));
      EXPECT_EQ(run({victim, "2", "0.3", "7", log}).status, 0) << level;
    }
  }
  const Json report = recorder.finish();
  EXPECT_GE(std::count_if(report.at("processes").begin(), report.at("processes").end(),
                          [](const Json& p) { return p.at("comm") == "victim"; }),
            4)
      << "of each content the second run at least";
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
