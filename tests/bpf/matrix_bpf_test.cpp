// Two threads that compute, and a mix of I/O, on every CPython of this machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>

#include "support/interpreters.h"
#include "support/live.h"
#include "support/replay.h"
#include "target/elf_file.h"

namespace giltop::testing {
namespace {

class Matrix : public Live, public ::testing::WithParamInterface<Interpreter> {
 protected:
  void SetUp() override {
    Live::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::filesystem::copy_file(workload(), directory_.path("workload.py"));
  }

  Recorded record_script(const std::vector<std::string>& arguments) {
    const Interpreter& python = GetParam();
    std::vector<std::string> words = arguments;
    words.insert(words.end(), {"--truth", python.inside(directory_.path(), "truth.json")});
    Recorded recorded = record(python.command(directory_.path(), "workload.py", words));
    const std::string truth = read_file(directory_.path("truth.json"));
    EXPECT_TRUE(Json::accept(truth)) << "no truth from the workload: " << recorded.ran.err;
    if (Json::accept(truth)) recorded.truth = Json::parse(truth);
    return recorded;
  }

  // The process as the workload knows it, whatever else was recorded.
  static const Json& process(const Recorded& recorded) {
    static const Json none;
    if (recorded.truth.is_null()) return none;
    for (const Json& process : recorded.report.at("processes"))
      if (process.at("pid") == recorded.truth.at("pid")) return process;
    return none;
  }

  static uint64_t sum(const Json& list, const char* field) {
    uint64_t sum = 0;
    for (const Json& item : list) sum += item.at(field).get<uint64_t>();
    return sum;
  }

  // What holds of every recording of a process that was seen from its start to os._exit().
  void check(const Recorded& recorded, const Json& process) {
    const Interpreter& python = GetParam();
    EXPECT_EQ(process.at("python"), recorded.truth.at("python"));
    EXPECT_EQ(process.at("free_threaded"), python.free_threaded);
    EXPECT_EQ(process.at("complete"), true);
    const uint64_t acquires = sum(process.at("gils"), "acquires");
    const uint64_t released =
        sum(process.at("gils"), "forced_releases") + sum(process.at("gils"), "voluntary_releases");
    // The main thread alone ends with the GIL. Where there is none, importing an extension module
    // switches it on for that long (CPython Python/import.c, 3.13: _PyEval_EnableGILTransient).
    EXPECT_EQ(acquires, released + (python.free_threaded ? 0 : 1));
    for (const Json& measured : recorded.truth.at("threads")) {
      const Json& thread = Recorded::thread(process, measured.at("tid"));
      ASSERT_FALSE(thread.is_null()) << measured.at("name");
      double cells = 0;
      for (const char* state : {"holding", "waiting", "released", "unknown"})
        cells += in_gil_state(thread, state);
      EXPECT_NEAR(cells, life(thread), 2e-9) << measured.at("name");
    }
  }
};

TEST_P(Matrix, TwoThreadsTakeTurns) {
  const Interpreter& python = GetParam();
  // A debug build computes at a fifth of the speed.
  const Recorded recorded = record_script({"cpu2", "--scale", python.debug ? "0.05" : "0.1"});
  const Json& found = process(recorded);
  ASSERT_FALSE(found.is_null()) << recorded.ran.err;
  check(recorded, found);
  ASSERT_EQ(recorded.truth.at("threads").size(), 3u);
  if (!python.free_threaded) expect_turns(recorded, found);
  for (const Json& measured : recorded.truth.at("threads")) {
    if (measured.at("tid") == recorded.truth.at("pid")) continue;
    const Json& thread = Recorded::thread(found, measured.at("tid"));
    if (python.free_threaded) {
      EXPECT_LT(in_gil_state(thread, "waiting") / life(thread), 0.05) << "but for imports";
      EXPECT_GT(in_gil_state(thread, "released") / life(thread), 0.9);
    } else {
      EXPECT_GT(thread.at("forced_releases").get<int>(), 3);
    }
  }
}

TEST_P(Matrix, LightModeKnowsWhoHoldsAndWhoWaits) {
  const Interpreter& python = GetParam();
  const Recorded recorded =
      record(python.command(directory_.path(), "workload.py",
                            {"cpu2", "--scale", python.debug ? "0.05" : "0.1", "--truth",
                             python.inside(directory_.path(), "truth.json")}),
             {"--mode", "light"});
  if (python.minor < 7) {
    EXPECT_THAT(recorded.ran.err, ::testing::HasSubstr("light mode needs CPython 3.7 or newer"));
    return;
  }
  ASSERT_EQ(recorded.report.at("processes").size(), 1u) << recorded.ran.err;
  const Json& process = recorded.process();
  EXPECT_EQ(process.at("exact"), false);
  if (python.free_threaded) return;
  ASSERT_EQ(process.at("gils").size(), 1u);
  const Json& gil = process.at("gils")[0];
  EXPECT_TRUE(gil.at("acquires").is_null());
  // Until giltop has had a CPU to look for the GIL, nobody is known to hold it.
  const auto known = gil_known_at(recorded.file, process.at("pid"));
  ASSERT_TRUE(known);
  const Json truth = Json::parse(read_file(directory_.path("truth.json")));
  // And while it may have had another CPU state than giltop could know.
  const double unsure = recorded.report.at("inferred_s");
  double waited = 0, unknown_before = unsure;
  for (const Json& measured : truth.at("threads")) {
    const Json& thread = Recorded::thread(process, measured.at("tid"));
    ASSERT_FALSE(thread.is_null());
    const double before = life_before(recorded.report, thread, *known);
    unknown_before += before;
    waited += in_gil_state(thread, "waiting");
    if (measured.at("tid") == truth.at("pid")) continue;
    EXPECT_LT(before, 1) << "it looks at once";
    EXPECT_GT(thread.at("contended").get<int>(), 3);
    // A switch interval: no step of a wait is taken for its end.
    EXPECT_GT(thread.at("wait").at("p50_s").get<double>(), 0.0045);
    // It holds the GIL when it runs.
    EXPECT_GT(thread.at("matrix").at("holding").at("running_s").get<double>(),
              0.7 * in_cpu_state(thread, "running") - before - unsure);
    EXPECT_LT(in_gil_state(thread, "unknown"), 0.15 * life(thread) + before + unsure);
  }
  double blamed = 0, unknown = 0;
  for (const Json& row : gil.at("blame")) {
    for (const char* part : {"running_s", "runnable_s", "blocked_s", "handoff_s", "unknown_s"})
      blamed += row.at(part).get<double>();
    unknown += row.at("unknown_s").get<double>();
  }
  EXPECT_LT(unknown, 0.05 * blamed + unknown_before) << gil.at("blame");
  EXPECT_NEAR(blamed, waited, 1e-6);
}

TEST_P(Matrix, EachCallThatLetsGoIsCounted) {
  const Recorded recorded = record_script({"iomix", "--scale", "0.4"});
  const Json& found = process(recorded);
  ASSERT_FALSE(found.is_null()) << recorded.ran.err;
  check(recorded, found);
  for (const Json& measured : recorded.truth.at("threads")) {
    if (measured.at("tid") == recorded.truth.at("pid")) continue;
    const Json& thread = Recorded::thread(found, measured.at("tid"));
    ASSERT_FALSE(thread.is_null());
    const uint64_t calls = measured.at("calls");
    if (GetParam().free_threaded) {
      EXPECT_EQ(thread.at("acquires"), 0);
      continue;
    }
    EXPECT_GE(thread.at("acquires").get<uint64_t>(), calls) << measured.at("name");
    EXPECT_GE(thread.at("voluntary_releases").get<uint64_t>(), calls) << measured.at("name");
    if (measured.at("name") == "sleeper") {
      EXPECT_GT(calls, 10u);
      // A sleep's end is set before it lets go of the GIL: a probe's trap comes off its
      // millisecond.
      EXPECT_GE(thread.at("matrix").at("released").at("blocked_s").get<double>(),
                0.8e-3 * static_cast<double>(calls));
    }
  }
}

TEST_P(Matrix, SitesAreThoseOfItsDisassembly) {
  const auto file = ElfFile::open(GetParam().gil_file);
  ASSERT_TRUE(file.ok()) << file.error().message();
  const auto inspection = inspect_elf(*file);
  ASSERT_TRUE(inspection.ok()) << inspection.error().message();
  ASSERT_EQ(inspection->kind, Inspection::Kind::cpython) << inspection->reason;
  const KnownBuild* const known = known_build(inspection->cpython.build_id);
  if (known == nullptr) GTEST_SKIP() << "not a build whose sites are known";
  std::vector<KnownSite> found;
  for (const GilSite& site : inspection->cpython.sites) found.push_back({site.kind, site.address});
  EXPECT_EQ(found, known->sites) << known->name;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Matrix);
INSTANTIATE_TEST_SUITE_P(On, Matrix, ::testing::ValuesIn(installed_interpreters()),
                         [](const auto& tested) { return tested.param.name; });

std::vector<Interpreter> interpreters_that(const std::function<bool(const Interpreter&)>& wanted) {
  std::vector<Interpreter> found;
  for (const Interpreter& python : installed_interpreters())
    if (wanted(python)) found.push_back(python);
  return found;
}

// --- more than one GIL ---------------------------------------------------------------------------

class SubInterpreters : public Matrix {};

TEST_P(SubInterpreters, EachHasAGilOfItsOwn) {
  const Recorded recorded = record_script({"interpreters", "--scale", "0.3"});
  const Json& found = process(recorded);
  ASSERT_FALSE(found.is_null()) << recorded.ran.err;
  const Json& gils = found.at("gils");
  ASSERT_EQ(gils.size(), 3u) << "the main interpreter's and two more";
  const auto held = [](const Json& gil) {
    double sum = 0;
    for (const char* column : {"held_running_s", "held_runnable_s", "held_blocked_s"})
      sum += gil.at("ledger").at(column).get<double>();
    return sum;
  };
  const auto held_running = [](const Json& thread) {
    return thread.at("matrix").at("holding").at("running_s").get<double>();
  };
  // Nobody holds two of them at once.
  double of_gils = 0, of_threads = 0;
  for (const Json& gil : gils) of_gils += held(gil);
  for (const Json& thread : found.at("threads")) of_threads += in_gil_state(thread, "holding");
  // What the kernel did not report of its switches is found out later, or not at all.
  const double inferred = recorded.report.at("inferred_s");
  EXPECT_NEAR(of_gils, of_threads, inferred + 1e-6) << gils;
  // The main thread makes and ends the interpreters, with their GILs in its hands.
  const double mains = held_running(Recorded::thread(found, recorded.truth.at("pid")));
  // The main one's is the first. Of the others the thread that computed more had the one that was
  // held more; if both are as much, it is the same which is whose.
  std::vector<Json> own = {gils[1], gils[2]}, computers;
  for (const Json& measured : recorded.truth.at("threads"))
    if (measured.at("tid") != recorded.truth.at("pid")) computers.push_back(measured);
  ASSERT_EQ(computers.size(), own.size());
  std::sort(own.begin(), own.end(), [](const Json& a, const Json& b) {
    return a.at("ledger").at("held_running_s") < b.at("ledger").at("held_running_s");
  });
  std::sort(computers.begin(), computers.end(), [](const Json& a, const Json& b) {
    return a.at("computed_cpu_s") < b.at("computed_cpu_s");
  });
  for (size_t i = 0; i < own.size(); i++) {
    const Json &measured = computers[i], &gil = own[i],
               &thread = Recorded::thread(found, measured.at("tid"));
    ASSERT_FALSE(thread.is_null());
    const double computed = measured.at("computed_s"), cpu = measured.at("computed_cpu_s"),
                 all_cpu = measured.at("interpreter_cpu_s"),
                 kernel = measured.at("oncpu_ns").get<double>() / 1e9,
                 running = in_cpu_state(thread, "running"), stolen = thread.at("stolen_s");
    EXPECT_NEAR(running - stolen, kernel, 0.005 * kernel + 0.001 + inferred);
    // A thread that computes holds its GIL, on a CPU or not.
    EXPECT_GE(in_gil_state(thread, "holding"), computed - inferred);
    EXPECT_GE(held(gil), computed - inferred);
    // It starts and ends in the main interpreter.
    EXPECT_GE(held_running(thread), 0.995 * cpu - 0.001 - inferred);
    EXPECT_GE(gil.at("ledger").at("held_running_s"), 0.995 * cpu - 0.001 - inferred);
    EXPECT_LE(gil.at("ledger").at("held_running_s"),
              1.005 * all_cpu + mains + stolen + 0.002 + inferred);
    // What it waits there it waits for the main one's GIL.
    EXPECT_EQ(gil.at("contended"), 0);
    EXPECT_EQ(gil.at("blame"), Json::array());
  }
}

TEST_P(SubInterpreters, OrOneForAll) {
  const Recorded recorded = record_script({"interpreters", "--shared", "--scale", "0.3"});
  const Json& found = process(recorded);
  ASSERT_FALSE(found.is_null()) << recorded.ran.err;
  EXPECT_EQ(found.at("gils").size(), 1u);
  EXPECT_GT(found.at("gils")[0].at("contended").get<int>(), 0);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SubInterpreters);
INSTANTIATE_TEST_SUITE_P(On, SubInterpreters,
                         ::testing::ValuesIn(interpreters_that([](const Interpreter& python) {
                           return python.minor >= 12 && !python.debug && !python.free_threaded &&
                                  !python.embedded();
                         })),
                         [](const auto& tested) { return tested.param.name; });

// --- a libpython that comes late -----------------------------------------------------------------

class Embedder : public Matrix {};

TEST_P(Embedder, LoadsItsPythonLate) {
  std::vector<std::string> words = {"iomix", "--scale", "0.2", "--truth",
                                    GetParam().inside(directory_.path(), "truth.json")};
  const auto command =
      GetParam().command(directory_.path(), "workload.py", words, Interpreter::Load::late);
  // Followed by itself: known from the moment of the mapping, so the first events may be missed.
  Recorded followed = record(command);
  followed.truth = Json::parse(read_file(directory_.path("truth.json")));
  const Json& first = process(followed);
  ASSERT_FALSE(first.is_null()) << followed.ran.err;
  EXPECT_EQ(first.at("python"), followed.truth.at("python"));
  EXPECT_EQ(first.at("complete"), false);
  for (const Json& measured : followed.truth.at("threads")) {
    if (measured.at("tid") == followed.truth.at("pid")) continue;
    const Json& thread = Recorded::thread(first, measured.at("tid"));
    ASSERT_FALSE(thread.is_null());
    EXPECT_GE(thread.at("acquires").get<uint64_t>(), measured.at("calls").get<uint64_t>());
  }

  // Host-wide, once more after giltop knows the file: nothing is missed.
  const std::string json = directory_.path("a.json");
  Program recorder(
      {GILTOP_BINARY, "record", "-a", "-o", directory_.path("a.pftrace"), "--json=" + json});
  ASSERT_TRUE(recorder.wait_for("tracing every Python")) << recorder.err();
  for (int i = 0; i < 2; i++) EXPECT_EQ(run(command).status, 0);
  recorder.signal(SIGINT);
  const Ran ran = recorder.finish();
  ASSERT_EQ(ran.status, 0) << ran.err;
  Recorded all;
  all.report = Json::parse(read_file(json));
  all.truth = Json::parse(read_file(directory_.path("truth.json")));
  EXPECT_EQ(all.report.at("violations"), 0);
  const Json& second = process(all);
  ASSERT_FALSE(second.is_null()) << ran.err;
  check(all, second);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Embedder);
INSTANTIATE_TEST_SUITE_P(On, Embedder,
                         ::testing::ValuesIn(interpreters_that([](const Interpreter& python) {
                           return python.embedded() && !python.debug;
                         })),
                         [](const auto& tested) { return tested.param.name; });

class TwoPythons : public Live {};

TEST_F(TwoPythons, HaveAGilEach) {
  // Libraries with a standard library in the usual place beside them.
  std::map<int, std::string> libraries;
  for (const Interpreter& python : installed_interpreters())
    if (python.root.empty() && !python.free_threaded && python.minor >= 7 &&
        python.gil_file.find("/lib/libpython") != std::string::npos)
      libraries.emplace(python.minor, python.gil_file);
  if (libraries.size() < 2) GTEST_SKIP() << "needs two libpythons of different versions";
  std::vector<std::string> command = {GILTOP_TWO_PYTHONS};
  for (const auto& [minor, path] : {*libraries.begin(), *libraries.rbegin()}) {
    command.push_back(path);
    command.push_back(std::filesystem::path(path).parent_path().parent_path());
  }
  const Recorded recorded = record(command);
  ASSERT_EQ(recorded.report.at("processes").size(), 1u) << recorded.ran.err;
  const Json& process = recorded.process();
  ASSERT_EQ(process.at("gils").size(), 2u);
  for (const Json& gil : process.at("gils")) {
    EXPECT_GT(gil.at("acquires").get<int>(), 10);
    EXPECT_GT(gil.at("contended").get<int>(), 5);
  }
  for (const int minor : {libraries.begin()->first, libraries.rbegin()->first})
    EXPECT_THAT(process.at("python").get<std::string>(),
                ::testing::HasSubstr("3." + std::to_string(minor) + "."));
}

// --- in mid-run ----------------------------------------------------------------------------------

class Attach : public Matrix {};

// The main thread sleeps with the GIL in its hands, one waits for it, one sleeps without: none of
// them does anything to the GIL while it is recorded but renew its wait.
TEST_P(Attach, KnowsTheHolderBeforeTheFirstEvent) {
  write_file(directory_.path("sleep.py"),
             "import ctypes, os, threading, time\n"
             "begun = threading.Event()\n"
             "def waits():\n"
             "    begun.set()\n"
             "    while True: sum(range(1000))\n"
             "for f, a in ((time.sleep, (60,)), (waits, ())):\n"
             "    threading.Thread(target=f, args=a, daemon=True).start()\n"
             "begun.wait()\n"
             "usleep = ctypes.PyDLL(None).usleep\n"
             "os.write(1, b'ready %d\\n' % os.getpid())\n"
             "usleep(30000000)\n"
             "os._exit(0)\n");
  Program target(GetParam().command(directory_.path(), "sleep.py", {}));
  if (!target.wait_for("ready ") && target.err().find("libffi") != std::string::npos)
    GTEST_SKIP() << "its ctypes needs a library that is not here: " << target.err();
  ASSERT_NE(target.out(), "") << target.err();
  const std::string pid = target.out().substr(6, target.out().find('\n') - 6);
  const std::string file = directory_.path("p.pftrace"), json = directory_.path("p.json");
  // It may still be on its way into the sleep.
  Json report;
  const Json* main = nullptr;
  for (int attempt = 0; attempt < 5; attempt++) {
    const Ran ran =
        run({GILTOP_BINARY, "record", "-d", "0.4", "-o", file, "--json=" + json, "-p", pid});
    ASSERT_EQ(ran.status, 0) << ran.err;
    report = Json::parse(read_file(json));
    ASSERT_EQ(report.at("processes").size(), 1u);
    main = &Recorded::thread(report.at("processes")[0], static_cast<uint32_t>(std::stoul(pid)));
    ASSERT_FALSE(main->is_null());
    if (main->at("acquires") == 0) break;
  }
  EXPECT_EQ(report.at("violations"), 0);
  EXPECT_EQ(report.at("memory_disagreements"), 0);
  const Json& process = report.at("processes")[0];
  EXPECT_GT(main->at("matrix").at("holding").at("blocked_s").get<double>() / life(*main), 0.95);
  ASSERT_EQ(process.at("threads").size(), 3u);
  double waiting = 0, released = 0;
  for (const Json& thread : process.at("threads")) {
    if (thread.at("tid") == main->at("tid")) continue;
    waiting = std::max(waiting, in_gil_state(thread, "waiting") / life(thread));
    released = std::max(
        released, thread.at("matrix").at("released").at("blocked_s").get<double>() / life(thread));
  }
  EXPECT_GT(waiting, 0.95);
  EXPECT_GT(released, 0.95);
  ASSERT_EQ(process.at("gils").size(), 1u);
  EXPECT_EQ(process.at("gils")[0].at("interpreter"), 0);
  for (const Json& row : process.at("gils")[0].at("blame")) {
    // From the arming of the probes to the reading nobody is known.
    if (row.at("holder_tid").is_null()) {
      EXPECT_LT(row.at("unknown_s").get<double>(), 0.05 * life(*main));
    } else {
      EXPECT_EQ(row.at("holder_tid"), main->at("tid"));
    }
  }
  // And from the file.
  const Ran again = run({GILTOP_BINARY, "report", "--json", file});
  ASSERT_EQ(again.status, 0) << again.err;
  Json read = Json::parse(again.out);
  read.erase("overhead");
  report.erase("overhead");
  EXPECT_EQ(read, report);
  target.signal(SIGKILL);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Attach);
INSTANTIATE_TEST_SUITE_P(On, Attach,
                         ::testing::ValuesIn(interpreters_that([](const Interpreter& python) {
                           return python.minor >= 7 && !python.free_threaded && !python.debug;
                         })),
                         [](const auto& tested) { return tested.param.name; });

// --- builds that can do without ------------------------------------------------------------------

class FreeThreaded : public Matrix {};

TEST_P(FreeThreaded, ItsGilIsSwitchedOnAndSeen) {
  write_file(directory_.path("flip.py"),
             "import json, os, sys, threading, time\n"
             "def work():\n"
             "    end = time.monotonic() + 0.3\n"
             "    while time.monotonic() < end: sum(range(1000))\n"
             "def two():\n"
             "    threads = [threading.Thread(target=work) for _ in range(2)]\n"
             "    for t in threads: t.start()\n"
             "    ids = [t.native_id for t in threads]\n"
             "    for t in threads: t.join()\n"
             "    return ids\n"
             "off = two()\n"
             "import needs_gil\n"
             "on = two()\n"
             "with open(sys.argv[1], 'w') as f:\n"
             "    json.dump({'pid': os.getpid(), 'off': off, 'on': on}, f)\n");
  const Recorded recorded = [&] {
    Recorded r = record(GetParam().command(directory_.path(), "flip.py",
                                           {GetParam().inside(directory_.path(), "truth.json")}));
    const std::string truth = read_file(directory_.path("truth.json"));
    EXPECT_TRUE(Json::accept(truth)) << r.ran.err;
    if (Json::accept(truth)) r.truth = Json::parse(truth);
    return r;
  }();
  const Json& found = process(recorded);
  ASSERT_FALSE(found.is_null()) << recorded.ran.err;
  EXPECT_EQ(found.at("free_threaded"), true);
  for (const Json& tid : recorded.truth.at("off")) {
    const Json& thread = Recorded::thread(found, tid);
    EXPECT_EQ(thread.at("contended"), 0);
    EXPECT_LT(in_gil_state(thread, "waiting") + in_gil_state(thread, "holding"), 0.01);
    EXPECT_GT(in_cpu_state(thread, "running"), 0.05);
  }
  for (const Json& tid : recorded.truth.at("on")) {
    const Json& thread = Recorded::thread(found, tid);
    EXPECT_GT(thread.at("acquires").get<int>(), 5);
    EXPECT_GT(in_gil_state(thread, "waiting") / life(thread), 0.2);
    EXPECT_GT(in_gil_state(thread, "holding") / life(thread), 0.2);
  }
}

TEST_P(FreeThreaded, IsOffAndItsChildrenAreSeen) {
  write_file(
      directory_.path("off.py"),
      "import os, sys\n"
      "children = []\n"
      "for _ in range(3):\n"
      "    pid = os.fork()\n"
      "    if pid == 0:\n"
      "        for _ in range(300): sum(range(10000))\n"
      "        os._exit(0)\n"
      "    children.append(pid)\n"
      "for pid in children: os.waitpid(pid, 0)\n"
      "with open(sys.argv[1], 'w') as f: f.write(' '.join(map(str, [os.getpid()] + children)))\n");
  const Recorded recorded = record(GetParam().command(
      directory_.path(), "off.py", {GetParam().inside(directory_.path(), "pids")}));
  std::istringstream pids(read_file(directory_.path("pids")));
  int count = 0;
  for (int pid; pids >> pid; count++) {
    const auto& all = recorded.report.at("processes");
    const auto found =
        std::find_if(all.begin(), all.end(), [pid](const Json& p) { return p.at("pid") == pid; });
    ASSERT_NE(found, all.end()) << pid;
    EXPECT_EQ(found->at("gil_enabled"), false);
    EXPECT_GT(in_cpu_state(found->at("threads")[0], "running"), 0.001);
  }
  EXPECT_EQ(count, 4);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FreeThreaded);
INSTANTIATE_TEST_SUITE_P(On, FreeThreaded,
                         ::testing::ValuesIn(interpreters_that([](const Interpreter& python) {
                           return python.free_threaded;
                         })),
                         [](const auto& tested) { return tested.param.name; });

// CI fetches them: none of these may go missing there without a word.
TEST(MatrixOf, DebiansPythonsAreThere) {
  if (!std::getenv("GILTOP_REQUIRE_INTERPRETERS")) GTEST_SKIP() << "they are required in CI only";
  std::set<std::pair<int, bool>> there;
  for (const Interpreter& python : installed_interpreters())
    if (!python.root.empty() && !python.debug) there.emplace(python.minor, python.embedded());
  for (const int minor : {9, 11, 13, 14, 15})
    for (const bool embedded : {false, true})
      EXPECT_TRUE(there.contains({minor, embedded}))
          << "no " << (embedded ? "libpython3." : "python3.") << minor << " in build/interpreters";
}

}  // namespace
}  // namespace giltop::testing
