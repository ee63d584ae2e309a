// The doctor command, run as it is installed, without root: files, own processes, and each error's
// one line and exit code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Doctor : public ::testing::Test {
 protected:
  static Ran doctor(std::vector<std::string> words) {
    words.insert(words.begin(), {GILTOP_BINARY, "doctor"});
    return run(words);
  }
  static void refuses(const std::vector<std::string>& words, int status, const std::string& what) {
    const Ran ran = doctor(words);
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_THAT(ran.err, StartsWith("giltop: "));
    EXPECT_THAT(ran.err, HasSubstr(what));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_EQ(ran.out, "");
  }
  std::string build(const std::string& name, const std::string& source,
                    std::vector<std::string> more = {}) {
    write_file(directory_.path(name + ".c"), source);
    std::vector<std::string> words = {"cc", "-o", directory_.path(name),
                                      directory_.path(name + ".c")};
    words.insert(words.end(), more.begin(), more.end());
    const Ran built = run(words);
    EXPECT_EQ(built.status, 0) << built.err;
    return directory_.path(name);
  }
  TemporaryDirectory directory_;
};

TEST_F(Doctor, Usage) {
  refuses({"-p", "0"}, 2, "0");
  refuses({"-p", "abc"}, 2, "abc");
  refuses({"--binary"}, 2, "--binary");
  refuses({"4242"}, 2, "4242");
}

TEST_F(Doctor, File) {
  const Ran ran = doctor({"--binary", GILTOP_DOUBLE});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(ran.out, StartsWith("CPython 3.11.2, linked into the program\n"));
  for (const char* kind : {"wait", "acquire", "release", "forced"})
    EXPECT_THAT(ran.out, HasSubstr(kind));
  EXPECT_THAT(ran.out, HasSubstr("beside the argument of 0x"));
  EXPECT_THAT(ran.out, HasSubstr("name agrees"));
}

TEST_F(Doctor, NamesThatContradict) {
  const std::string liar = directory_.path("liar");
  ASSERT_EQ(
      run({"objcopy", "--redefine-sym", "take_gil=drop_gil.cold", GILTOP_DOUBLE, liar}).status, 0);
  const Ran ran = doctor({"--binary", liar});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("; name contradicts\n"));
  EXPECT_THAT(ran.out, HasSubstr("  WARNING: acquire site 0x"));
  const Json json = Json::parse(doctor({"--binary", liar, "--json"}).out);
  for (const Json& site : json["files"][0]["sites"]) {
    const bool takes = site["kind"] == "acquire" || site["kind"] == "wait";
    EXPECT_EQ(site["name_agrees"], !takes) << site;
  }
}

TEST_F(Doctor, FilesAsJson) {
  const std::string file = directory_.path("doctor.json");
  const Ran ran =
      doctor({"--json=" + file, "--binary", GILTOP_DOUBLE, "--binary", "/no/such/file"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.out, "");
  const Json json = Json::parse(read_file(file));
  EXPECT_EQ(json["schema"], "giltop.doctor/1");
  EXPECT_TRUE(json["host"].is_null());
  ASSERT_EQ(json["files"].size(), 1u);
  EXPECT_EQ(json["files"][0]["python"], "3.11.2");
  EXPECT_EQ(json["files"][0]["library"], false);
  std::set<std::string> kinds;
  for (const Json& site : json["files"][0]["sites"]) {
    kinds.insert(site["kind"].get<std::string>());
    EXPECT_TRUE(site["function"].is_string());
    EXPECT_NE(site["name_agrees"], false);
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"wait", "acquire", "release", "forced"}));
  ASSERT_EQ(json["refused"].size(), 1u);
  EXPECT_EQ(json["refused"][0]["subject"], "/no/such/file");
}

TEST_F(Doctor, BadFiles) {
  const std::string fifo = directory_.path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  refuses({"--binary", directory_.path("none")}, 1, "No such file");
  refuses({"--binary", directory_.path()}, 1, "is a directory");
  refuses({"--binary", fifo}, 1, "not a regular file");
  refuses({"--binary", "/dev/null"}, 1, "not a regular file");
  write_file(directory_.path("script"), "#!/usr/bin/env python3\nprint()\n");
  refuses({"--binary", directory_.path("script")}, 3, "is a script: #!/usr/bin/env python3");
  write_file(directory_.path("text"), "hello\n");
  refuses({"--binary", directory_.path("text")}, 3, "not an ELF file");
  write_file(directory_.path("empty"), "");
  refuses({"--binary", directory_.path("empty")}, 3, "not an ELF file");
  write_file(directory_.path("cut"), read_file(GILTOP_DOUBLE).substr(0, 100));
  refuses({"--binary", directory_.path("cut")}, 3, "ELF");
  refuses({"--binary", build("plain", "int main(void) { return 0; }")}, 3, "not a CPython");
}

TEST_F(Doctor, RefusedInterpreters) {
  const std::string main = "int main(void) { return 0; }\n";
  refuses({"--binary", build("pypy3",
                             "int pypy_main_startup(int a, char **b) { return a && b; }\n"
                             "int rpython_startup_code(void) { return 0; }\n" +
                                 main,
                             {"-rdynamic"})},
          3, "PyPy");
  refuses({"--binary", build("python2.7",
                             "void *PyString_FromString(const char *s) { return (void*)s; }\n"
                             "void *PyEval_SaveThread(void) { return 0; }\n"
                             "void Py_InitializeEx(int a) { (void)a; }\n" +
                                 main,
                             {"-rdynamic"})},
          3, "Python 2");
}

TEST_F(Doctor, Launcher) {
  const std::string library = build("libpython3.99.so.1.0", "int answer(void) { return 42; }",
                                    {"-shared", "-fPIC", "-Wl,-soname,libpython3.99.so.1.0"});
  const std::string launcher =
      build("python3.99", "int answer(void);\nint main(void) { return answer(); }", {library});
  const Ran ran = doctor({"--binary", launcher});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("linked to libpython3.99.so.1.0\n"));
  refuses({"--binary", library}, 3, "not a CPython");
}

TEST_F(Doctor, Process) {
  Program target({GILTOP_DOUBLE, "1", "0", "1", directory_.path("log"), "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const std::string pid = std::to_string(target.pid());
  const Ran ran = doctor({"-p", pid});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith(pid + " gil_double: "));
  EXPECT_THAT(ran.out, HasSubstr("CPython 3.11.2, linked into the program"));
  EXPECT_THAT(ran.out, HasSubstr("name agrees"));
  const Ran as_json = doctor({"-p", pid, "--json"});
  const Json json = Json::parse(as_json.out);
  ASSERT_EQ(json["processes"].size(), 1u);
  EXPECT_EQ(json["processes"][0]["pid"], target.pid());
  EXPECT_EQ(json["processes"][0]["pythons"].size(), 1u);
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
}

TEST_F(Doctor, NoPythonProcess) {
  refuses({"-p", "4194304"}, 1, "no process 4194304");
  Program cat({"cat"});
  // Its program may not have replaced the test's yet.
  cat.write_line("ready");
  ASSERT_TRUE(cat.wait_for("ready"));
  refuses({"-p", std::to_string(cat.pid())}, 3, "it is not a Python process");
  cat.close_stdin();
  EXPECT_EQ(cat.finish().status, 0);
}

TEST_F(Doctor, Host) {
  Program target({GILTOP_DOUBLE, "1", "0", "1", directory_.path("log"), "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const Ran text = doctor({});
  const Ran ran = doctor({"--json"});
  const Json json = Json::parse(ran.out);
  bool blocked = false;
  for (const Json& check : json["host"]["checks"]) {
    blocked = blocked || (!check["ok"].get<bool>() && check["blocks"].get<bool>());
    EXPECT_EQ(check["ok"].get<bool>(), check["cure"].is_null()) << check;
    // What was measured comes after a semicolon.
    const std::string what = check["what"];
    EXPECT_THAT(text.out, HasSubstr((check["ok"].get<bool>() ? "\nok       " : "\nMISSING  ") +
                                    what.substr(0, what.find(';'))));
  }
  EXPECT_EQ(ran.status, blocked ? 3 : 0);
  EXPECT_EQ(text.status, ran.status);
  EXPECT_EQ(json["host"]["hit_cost_s"].is_null(), blocked);
  const auto& found = json["scan"]["pythons"];
  const auto ours = std::find_if(found.begin(), found.end(),
                                 [&](const Json& python) { return python["pid"] == target.pid(); });
  ASSERT_NE(ours, found.end()) << ran.out;
  EXPECT_EQ((*ours)["python"], "3.11.2");
  EXPECT_TRUE((*ours)["refusal"].is_null());
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
}

}  // namespace
}  // namespace giltop::testing
