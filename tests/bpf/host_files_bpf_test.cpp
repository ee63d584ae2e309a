// Host-wide: the files that Pythons run from, which are new, copied, touched or replaced.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/host.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

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

// A Python that is installed and that nobody runs: not even its first run is missed.
TEST_F(Host, TheFirstRunOfWhatIsInstalled) {
  const std::string bin = directory_.path("bin"), installed = bin + "/python3.99";
  std::filesystem::create_directory(bin);
  std::filesystem::copy_file(GILTOP_DOUBLE, installed);
  std::filesystem::create_symlink(installed, bin + "/python3");
  Recorder recorder(directory_, {}, {{"PATH", bin + ":" + std::getenv("PATH")}});
  Program first({bin + "/python3", "2", "1", "7", directory_.path("log")});
  const int pid = first.pid();
  EXPECT_EQ(first.finish().status, 0);
  const Json report = recorder.finish();
  const Json& found = process(report, pid);
  ASSERT_FALSE(found.is_null());
  for (const auto& [tid, count] : logged_acquires(directory_.path("log"))) {
    const Json& thread = Recorded::thread(found, tid);
    ASSERT_FALSE(thread.is_null()) << tid;
    EXPECT_EQ(thread.at("acquires"), count) << tid;
  }
  struct statfs system;
  ASSERT_EQ(statfs(installed.c_str(), &system), 0);
  // Those show a file's other numbers than the kernel has: it is known from its first GIL event on.
  if (system.f_type == OVERLAYFS_SUPER_MAGIC || system.f_type == BTRFS_SUPER_MAGIC) return;
  EXPECT_EQ(found.at("complete"), true);
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

}  // namespace
}  // namespace giltop::testing
