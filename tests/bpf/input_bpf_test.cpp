// Bad input: one clear line, the right exit code, nothing left that looks whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class Input : public Live {
 protected:
  // Runs giltop and expects one line on stderr that holds `what`.
  void refuses(std::vector<std::string> words, int status, const std::string& what) {
    words.insert(words.begin(), GILTOP_BINARY);
    const Ran ran = run(words);
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_THAT(ran.err, StartsWith("giltop: "));
    EXPECT_THAT(ran.err, HasSubstr(what));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_EQ(ran.out, "");
  }
  std::string file() { return directory_.path("t.pftrace"); }
  void expect_no_file() { EXPECT_FALSE(std::filesystem::exists(file())); }
};

TEST_F(Input, Usage) {
  refuses({"record", "--no-such-flag"}, 2, "--no-such-flag");
  refuses({"record"}, 2, "nothing to record");
  refuses({"record", "--"}, 2, "no command");
  refuses({"record", "-p", "0"}, 2, "0");
  refuses({"record", "-p", "abc"}, 2, "abc");
  refuses({"record", "-p", "1", "--", "true"}, 2, "not both");
  refuses({"record", "--buffer-size", "3M", "--", "true"}, 2, "power of two");
  refuses({"record", "--mode", "heavy", "--", "true"}, 2, "--mode");
  refuses({"record", "--mode", "auto", "--overhead", "0", "--", "true"}, 2, "percentage");
  refuses({"record", "--overhead", "3%", "--", "true"}, 2, "--mode auto");
  refuses({"report"}, 2, "FILE");
  refuses({"frobnicate"}, 2, "frobnicate");
  refuses({"report", "x", "--", "true"}, 2, "only top, record and hist run a command");
  refuses({"record", "python3", "x.py"}, 2, "--");
  for (const char* bad : {"nan", "inf", "-1", "0", "1e30", "soon"})
    refuses({"record", "-d", bad, "--", "true"}, 2, bad);
}

TEST_F(Input, NoSuchProcess) {
  refuses({"record", "-o", file(), "-p", "4194304"}, 1, "4194304");
  expect_no_file();
}

TEST_F(Input, NotAPython) {
  Program cat({"cat"});
  refuses({"record", "-o", file(), "-p", std::to_string(cat.pid())}, 1, "not a Python process");
  expect_no_file();
  cat.signal(SIGTERM);
}

TEST_F(Input, PythonTwoAndPyPy) {
  // Two programs that export what tells them from CPython 3.
  const auto build = [&](const std::string& name, const std::string& symbols) {
    write_file(directory_.path(name + ".c"),
               symbols +
                   "\n#include <unistd.h>\nint main(void) { write(1, \"ready\", 5); char c; "
                   "return read(0, &c, 1) < 0; }\n");
    const Ran built =
        run({"cc", "-rdynamic", "-o", directory_.path(name), directory_.path(name + ".c")});
    EXPECT_EQ(built.status, 0) << built.err;
    return directory_.path(name);
  };
  {
    Program pypy({build("pypy3",
                        "int pypy_main_startup(int a, char **b) { return a && b; }\n"
                        "int rpython_startup_code(void) { return 0; }")});
    ASSERT_TRUE(pypy.wait_for("ready"));
    refuses({"record", "-o", file(), "-p", std::to_string(pypy.pid())}, 1, "PyPy");
    EXPECT_EQ(pypy.finish().status, 0);
  }
  {
    Program two({build("python2.7",
                       "void *PyString_FromString(const char *s) { return (void*)s; }\n"
                       "int Py_Main(int a, char **b) { return a && b; }\n"
                       "void *PyEval_SaveThread(void) { return 0; }\n"
                       "void Py_InitializeEx(int a) { (void)a; }")});
    ASSERT_TRUE(two.wait_for("ready"));
    refuses({"record", "-o", file(), "-p", std::to_string(two.pid())}, 1, "Python 2");
    EXPECT_EQ(two.finish().status, 0);
  }
  expect_no_file();
}

TEST_F(Input, AProcessThatEndsDuringAttach) {
  // Many short lives, attached to at every age: an error line or a recording, never anything else.
  for (int i = 0; i < 12; i++) {
    Program target({python(), "-c", "pass"});
    usleep(static_cast<useconds_t>(i) * 4000);
    const Ran ran = run({GILTOP_BINARY, "record", "-o", file(), "-p", std::to_string(target.pid())},
                        std::chrono::seconds(20));
    EXPECT_TRUE(ran.status == 0 || ran.status == 1) << ran.status;
    if (ran.status == 1) {
      EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
      expect_no_file();
    } else {
      EXPECT_EQ(run({GILTOP_BINARY, "report", file()}).status, 0);
      std::filesystem::remove(file());
    }
    EXPECT_EQ(target.finish().status, 0);
  }
}

TEST_F(Input, NoRoot) {
  std::filesystem::permissions(directory_.path(""), std::filesystem::perms(0777));
  // A copy that others may read, wherever the build is.
  const std::string copy = directory_.path("giltop");
  std::filesystem::copy_file(GILTOP_BINARY, copy);
  Program ran({"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", copy, "record",
               "-o", file(), "--", "true"});
  const Ran result = ran.finish();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("sudo"));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  expect_no_file();
}

TEST_F(Input, RootWithoutCapabilities) {
  const Ran ran = run({"setpriv", "--bounding-set=-all", "--inh-caps=-all", GILTOP_BINARY, "record",
                       "-o", file(), "--", "true"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("CAP_BPF"));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  expect_no_file();
}

TEST_F(Input, NoBtf) {
  const Ran ran =
      run({"unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh",
           GILTOP_BINARY, "record", "-o", file(), "--", "true"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("/sys/kernel/btf/vmlinux"));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  expect_no_file();
}

TEST_F(Input, Output) {
  const std::string marker = directory_.path("ran");
  refuses({"record", "-o", "/no/such/folder/x", "--", "touch", marker}, 1, "/no/such/folder/x");
  EXPECT_FALSE(std::filesystem::exists(marker)) << "the command must not have run";
  refuses({"record", "-o", directory_.path(""), "--", "touch", marker}, 1, "directory");
  // A full disk: the target goes on, the loss of the file is told.
  const Ran full = run({GILTOP_BINARY, "record", "-q", "-o", "/dev/full", "--", python(),
                        workload(), "cpu2", "--scale", "0.1"});
  EXPECT_NE(full.status, 0);
  EXPECT_THAT(full.err, HasSubstr("No space left"));
}

TEST_F(Input, Command) {
  refuses({"record", "-o", file(), "--", "/no/such/program"}, 127, "/no/such/program");
  expect_no_file();
  write_file(directory_.path("plain"), "text\n");
  refuses({"record", "-o", file(), "--", directory_.path("plain")}, 126, "plain");
  expect_no_file();
}

TEST_F(Input, ACommandThatCannotRunCostsNothing) {
  const std::string link = directory_.path("null");
  std::filesystem::create_symlink("/dev/null", link);
  refuses({"record", "-o", link, "--", "/no/such/program"}, 127, "/no/such/program");
  EXPECT_TRUE(std::filesystem::is_symlink(link)) << "what giltop did not make it must not remove";
  EXPECT_TRUE(std::filesystem::exists("/dev/null"));

  EXPECT_EQ(run({GILTOP_BINARY, "record", "-q", "-o", file(), "--", "true"}).status, 0);
  const std::string before = read_file(file());
  refuses({"record", "-o", file(), "--", "/no/such/program"}, 127, "/no/such/program");
  EXPECT_EQ(read_file(file()), before) << "the recording that was there is still there";
  EXPECT_FALSE(std::filesystem::exists(file() + ".old"));
}

TEST_F(Input, Recordings) {
  const auto report = [&](const std::string& name, const std::string& text,
                          const std::string& what) {
    write_file(directory_.path(name), text);
    refuses({"report", directory_.path(name)}, 1, what);
  };
  refuses({"report", directory_.path("none")}, 1, "No such file");
  refuses({"report", directory_.path("")}, 1, "directory");
  report("empty", "", "empty");
  report("text", "this is not a trace\n", "not a Perfetto trace");
  report("foreign", std::string("\x0a\x02\x40\x01", 4), "not a giltop recording");

  const Recorded recorded = record_workload({"cpu2", "--scale", "0.1"});
  const std::string whole = read_file(recorded.file);
  // Truncated: what is there is told, with a word on what is not.
  write_file(directory_.path("cut"), whole.substr(0, whole.size() - 10));
  const Ran cut = run({GILTOP_BINARY, "report", directory_.path("cut")});
  EXPECT_TRUE(cut.status == 0 || cut.status == 1);
  EXPECT_THAT(cut.err, HasSubstr("breaks off"));
  // Corrupt.
  std::string corrupt = whole;
  for (size_t i = corrupt.size() / 2; i < corrupt.size() / 2 + 64; i++) corrupt[i] ^= 0x5a;
  write_file(directory_.path("corrupt"), corrupt);
  const Ran bad = run({GILTOP_BINARY, "report", directory_.path("corrupt")});
  EXPECT_EQ(bad.status, 1);
  EXPECT_EQ(std::count(bad.err.begin(), bad.err.end(), '\n'), 1) << bad.err;
  EXPECT_EQ(bad.out, "");
}

}  // namespace
}  // namespace giltop::testing
