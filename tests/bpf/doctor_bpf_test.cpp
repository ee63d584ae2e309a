// doctor with root: a host where all works, hosts where something is missing, and a process with a
// root folder of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class DoctorLive : public Live {
 protected:
  static Json json_of(const Ran& ran) {
    const Json json = Json::parse(ran.out, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << ran.out << ran.err;
    return json;
  }
  static bool blocked(const Json& json) {
    bool blocked = false;
    for (const Json& check : json["host"]["checks"])
      blocked = blocked || (!check["ok"].get<bool>() && check["blocks"].get<bool>());
    return blocked;
  }
};

TEST_F(DoctorLive, AllWorks) {
  const Ran ran = run({GILTOP_BINARY, "doctor", "--json"});
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  const Json json = json_of(ran);
  EXPECT_FALSE(blocked(json)) << ran.out;
  const double cost = json["host"]["hit_cost_s"];
  EXPECT_GT(cost, 20e-9);
  EXPECT_LT(cost, 1e-3);
}

TEST_F(DoctorLive, PerfUprobes) {
  Program program({GILTOP_BINARY, "doctor"}, {{"GILTOP_UPROBES", "perf"}});
  const Ran ran = program.finish();
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("ok       uprobes, one by one"));
}

TEST_F(DoctorLive, NoCapabilities) {
  const Ran ran =
      run({"setpriv", "--bounding-set=-all", "--inh-caps=-all", GILTOP_BINARY, "doctor"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_EQ(ran.err, "");
  EXPECT_THAT(ran.out,
              HasSubstr("MISSING  permission for BPF and probes (CAP_BPF and CAP_PERFMON)"));
  EXPECT_THAT(ran.out, HasSubstr("MISSING  memory of other processes"));
  EXPECT_THAT(ran.out, HasSubstr("MISSING  files that processes map"));
  EXPECT_THAT(ran.out, Not(HasSubstr("BPF programs load")));
}

TEST_F(DoctorLive, NoBtf) {
  const Ran ran =
      run({"unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh",
           GILTOP_BINARY, "doctor"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_THAT(ran.out, HasSubstr("MISSING  kernel types (/sys/kernel/btf/vmlinux): a kernel with"));
}

TEST_F(DoctorLive, PidNamespace) {
  const Ran ran = run({"unshare", "--fork", "--pid", "--mount-proc", GILTOP_BINARY, "doctor"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_THAT(ran.out, HasSubstr("MISSING  PID namespace of the host: run giltop on the host"));
}

// A container in small: its own PID and mount namespace and root folder, a stripped program, and
// the debug file in its own /usr/lib/debug.
TEST_F(DoctorLive, DebugFileOfAContainer) {
  const std::string root = directory_.path("root");
  std::filesystem::create_directories(root + "/opt/.debug");
  std::filesystem::create_directories(root + "/proc");
  std::filesystem::copy_file(GILTOP_DOUBLE, root + "/opt/python");
  std::istringstream libraries(run({"ldd", GILTOP_DOUBLE}).out);
  for (std::string word; libraries >> word;) {
    if (word[0] != '/') continue;
    std::filesystem::create_directories(root + std::filesystem::path(word).parent_path().string());
    std::filesystem::copy_file(word, root + word);
  }
  const std::string program = root + "/opt/python", debug = root + "/opt/.debug/python.debug";
  ASSERT_EQ(run({"objcopy", "--only-keep-debug", program, debug}).status, 0);
  ASSERT_EQ(run({"objcopy", "--strip-all", "--add-gnu-debuglink=" + debug, program}).status, 0);
  Program container({"unshare", "--fork", "--pid", "--kill-child", "chroot", root, "/opt/python",
                     "1", "0", "1", "/log", "--ready"});
  ASSERT_TRUE(container.wait_for("ready")) << container.err();
  std::string pid;
  const Json json = json_of(run({GILTOP_BINARY, "doctor", "--json"}));
  for (const Json& python : json["scan"]["pythons"])
    if (python["file"] == "/opt/python" || python["file"] == program)
      pid = std::to_string(python["pid"].get<int>());
  ASSERT_NE(pid, "");
  const Ran ran = run({GILTOP_BINARY, "doctor", "-p", pid});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("PID 1 in its own PID namespace"));
  EXPECT_THAT(ran.out, HasSubstr("/opt/.debug/python.debug"));
  EXPECT_THAT(ran.out, HasSubstr("take_gil+0x"));
  EXPECT_THAT(ran.out, Not(HasSubstr("not used")));
  container.write_line("go");
  EXPECT_EQ(container.finish().status, 0);
}

}  // namespace
}  // namespace giltop::testing
