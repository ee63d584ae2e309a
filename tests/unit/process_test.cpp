// What giltop reads of /proc/PID: the parsers on text, and the readers on this test's own process.
#include "target/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "target/proc_text.h"

namespace giltop {
namespace {

TEST(ParseMaps, TakesExecutableFilesOnce) {
  const auto files = parse_maps(
      "55d0c0000000-55d0c0001000 r--p 00000000 fe:01 131 /usr/bin/python3\n"
      "55d0c0001000-55d0c0002000 r-xp 00001000 fe:01 131 /usr/bin/python3\n"
      "55d0c0004000-55d0c0005000 r-xp 00003000 fe:01 131 /usr/bin/python3\n"
      "7f1000000000-7f1000001000 r-xp 00000000 103:0a 132                        /usr/lib/a b.so\n"
      "7f1000002000-7f1000003000 rwxp 00000000 00:00 0 \n"
      "7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].path, "/usr/bin/python3");
  EXPECT_EQ(files[0].start, 0x55d0c0001000u);
  EXPECT_EQ(files[0].end, 0x55d0c0002000u);
  EXPECT_EQ(files[0].offset, 0x1000u);
  EXPECT_EQ(files[0].inode, 131u);
  EXPECT_EQ(files[0].device_major, 0xfeu);
  EXPECT_EQ(files[0].device_minor, 1u);
  EXPECT_EQ(files[1].path, "/usr/lib/a b.so");
  EXPECT_EQ(files[1].device_major, 0x103u);
  EXPECT_EQ(files[1].device_minor, 0xau);
}

TEST(ParseMaps, OddPaths) {
  const auto files = parse_maps(
      "1000-2000 r-xp 00000000 08:01 1 /tmp/two\\012lines\n"
      "3000-4000 r-xp 00000000 08:01 2 /tmp/gone.so (deleted)\n"
      "5000-6000 r-xp 00000000 08:01 3 /tmp/ends with blank \n"
      "7000-8000 r-xp 00000000 00:01 4 /memfd:code (deleted)\n");
  ASSERT_EQ(files.size(), 4u);
  EXPECT_EQ(files[0].path, "/tmp/two\\012lines");
  EXPECT_EQ(unescape_maps_path(files[0].path), "/tmp/two\nlines");
  EXPECT_EQ(files[1].path, "/tmp/gone.so (deleted)");
  EXPECT_EQ(files[2].path, "/tmp/ends with blank ");
  EXPECT_EQ(files[3].path, "/memfd:code (deleted)");
}

TEST(ParseMaps, SameInodeOnTwoDevices) {
  EXPECT_EQ(
      parse_maps("1000-2000 r-xp 00000000 08:01 7 /a\n3000-4000 r-xp 00000000 08:02 7 /b\n").size(),
      2u);
}

TEST(ParseMaps, BrokenLinesAreSkipped) {
  const std::string good = "1000-2000 r-xp 00000000 08:01 7 /a";
  for (size_t size = 0; size <= good.size(); ++size) {
    EXPECT_LE(parse_maps(good.substr(0, size)).size(), 1u);
    EXPECT_EQ(parse_maps(good.substr(0, size) + "\n" + good + "\n").size(), 1u);
  }
  EXPECT_TRUE(
      parse_maps("zz\n\n1000-2000 r-xp\n1000-2000 r-xp 0 08:01 99999999999999999999999 /a\n")
          .empty());
}

TEST(ParseStat, CommMayHoldAnything) {
  const auto stat =
      parse_stat("42 (a) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876543 10 11 12\n");
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->comm, "a) R (b");
  EXPECT_EQ(stat->start_time_ticks, 9876543u);
  EXPECT_EQ(stat->state, 'S');
  EXPECT_FALSE(parse_stat("").has_value());
  EXPECT_FALSE(parse_stat("42 (a").has_value());
  EXPECT_FALSE(parse_stat(")(").has_value());
  EXPECT_FALSE(parse_stat("42 (a) S 1 2 3").has_value());
}

TEST(ParseStat, StateAndProcessor) {
  std::string text = "42 (a) t 1";
  for (int field = 5; field <= 52; field++) text += " " + std::to_string(field);
  const auto stat = parse_stat(text + "\n");
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->state, 't');
  EXPECT_EQ(stat->start_time_ticks, 22u);
  EXPECT_EQ(stat->processor, 39u);
}

TEST(ParseSyscall, AsTheKernelWritesIt) {
  EXPECT_TRUE(parse_syscall("running\n")->running);
  const auto call = parse_syscall("202 0x7f0000001020 0x189 0x0 0x0 0x0 0xffffffff 0x7f1 0x7f2\n");
  ASSERT_TRUE(call.has_value());
  EXPECT_FALSE(call->running);
  EXPECT_EQ(call->number, 202);
  EXPECT_EQ(call->argument0, 0x7f0000001020u);
  const auto none = parse_syscall("-1 0x7ffd0 0x7f1\n");
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(none->number, -1);
  for (const char* broken : {"", "202", "202 ", "202 0x", "202 7f 0x1", "x 0x1 0x2"})
    EXPECT_FALSE(parse_syscall(broken).has_value()) << broken;
}

TEST(ParseNsIds, FromTheOutsideInwards) {
  EXPECT_EQ(parse_ns_ids("Name:\tx\nNStgid:\t9\nNSpid:\t4242\t17\t1\nNSpgid:\t5\n"),
            (std::vector<pid_t>{4242, 17, 1}));
  EXPECT_EQ(parse_ns_ids("Name:\tx\nNSpid:\t4242"), std::vector<pid_t>{4242});
  EXPECT_TRUE(parse_ns_ids("Name:\tNSpid:\t5\n").empty());
  EXPECT_TRUE(parse_ns_ids("Name:\tx\nNSpid:\tx\n").empty());
  EXPECT_TRUE(parse_ns_ids("Name:\tx\nNSpid:\t-3\n").empty());
  for (const char* const bad : {"", "Name:\tx\nNSpid:\t77\tx\n", "Name:\tx\nNSpid: 77\n",
                                "Name:\tx\nNSpid:\t77 5\n", "Name:\tx\nNSpid:\t99999999999\n"})
    EXPECT_TRUE(parse_ns_ids(bad).empty()) << bad;
}

TEST(ParseCmdline, JoinsAndEscapes) {
  using namespace std::string_literals;
  EXPECT_EQ(parse_cmdline("python3\0-c\0print(1)\n\0"s), "python3 -c print(1)\\n");
  EXPECT_EQ(parse_cmdline("a\x1b[31m\0\0\0"s), "a\\x1b[31m");
  EXPECT_EQ(parse_cmdline(""), "");
  EXPECT_EQ(escape_controls("\xc2\x9b"
                            "31m"),
            "\\xc2\\x9b31m");
  EXPECT_EQ(escape_controls("\xc3\xa4"), "\xc3\xa4");  // a letter stays
}

TEST(ParseTgid, FromStatus) {
  EXPECT_EQ(parse_tgid("Name:\tx\nUmask:\t0022\nTgid:\t77\nPid:\t78\n"), std::optional<pid_t>(77));
  EXPECT_FALSE(parse_tgid("Name:\tTgid:\t5\n").has_value());
}

TEST(ProcessPlace, OfItselfIsHere) {
  const auto place = process_place(::getpid());
  ASSERT_TRUE(place.ok()) << place.error().message();
  EXPECT_FALSE(place->own_mounts);
  EXPECT_EQ(process_place(-1).error().message(), "no process -1");
}

TEST(Process, ReadsItself) {
  const auto info = process_info(::getpid());
  ASSERT_TRUE(info.ok()) << info.error().message();
  EXPECT_EQ(info->tgid, ::getpid());
  EXPECT_FALSE(info->comm.empty());
  EXPECT_FALSE(info->cmdline.empty());
  struct timespec now;
  ASSERT_EQ(::clock_gettime(CLOCK_BOOTTIME, &now), 0);
  const auto now_ns = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000;
  EXPECT_LE(info->start_time_ns, now_ns + 1'000'000'000);

  const auto threads = process_threads(::getpid());
  ASSERT_TRUE(threads.ok());
  EXPECT_TRUE(std::any_of(threads->begin(), threads->end(),
                          [](const ThreadInfo& thread) { return thread.tid == ::gettid(); }));

  const auto activities = thread_activities(::getpid());
  ASSERT_TRUE(activities.ok());
  const auto self = std::find_if(activities->begin(), activities->end(),
                                 [](const ThreadActivity& a) { return a.tid == ::gettid(); });
  ASSERT_NE(self, activities->end());
  EXPECT_FALSE(self->blocked);
  const auto ids = namespace_ids(::getpid(), ::gettid());
  ASSERT_TRUE(ids.ok());
  ASSERT_FALSE(ids->empty());
  EXPECT_EQ(ids->back(), ::gettid());
  EXPECT_EQ(self->own_id, ::gettid());

  const auto executable = open_executable(::getpid());
  ASSERT_TRUE(executable.ok()) << executable.error().message();
  const auto files = executable_mappings(::getpid());
  ASSERT_TRUE(files.ok());
  ASSERT_FALSE(files->empty());
  size_t opened = 0;
  for (const MappedFile& file : *files) {
    const auto fd = open_mapping(::getpid(), file);
    if (!fd) continue;
    ++opened;
    const auto id = file_id(*fd);
    ASSERT_TRUE(id.ok());
    EXPECT_EQ(id->inode, file.inode);
  }
  EXPECT_GT(opened, 0u);
}

TEST(Process, OneLineForWhatIsNotThere) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);  // reaped: the id is free
  const std::string expected = "no process " + std::to_string(child);
  EXPECT_EQ(process_info(child).error().message(), expected);
  EXPECT_EQ(process_threads(child).error().message(), expected);
  EXPECT_EQ(executable_mappings(child).error().message(), expected);
  EXPECT_EQ(open_executable(child).error().message(), expected);
  EXPECT_EQ(open_mapping(child, {"/x", 0x1000, 0x2000, 0, 0, 1}).error().message(), expected);
  EXPECT_EQ(process_info(-1).error().message(), "no process -1");
}

TEST(Process, ThreadIsNamedAsOne) {
  pid_t tid = 0;
  std::thread([&] {
    tid = ::gettid();
    const auto info = process_info(tid);
    ASSERT_FALSE(info.ok());
    EXPECT_EQ(info.error().message(),
              std::to_string(tid) + " is a thread of process " + std::to_string(::getpid()));
  }).join();
}

// Maps a file executable, deletes it, and opens it all the same (needs the rights for map_files).
TEST(Process, OpensDeletedFile) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("giltop process test " + std::to_string(::getpid()));
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700));
  ASSERT_TRUE(static_cast<bool>(fd));
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  void* const mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0);
  ::unlink(path.c_str());
  if (mapped == MAP_FAILED) GTEST_SKIP() << "the temporary directory is mounted noexec";
  const auto files = executable_mappings(::getpid());
  ASSERT_TRUE(files.ok());
  const auto file = std::find_if(files->begin(), files->end(), [&](const MappedFile& candidate) {
    return candidate.path == path.string() + " (deleted)";
  });
  ASSERT_NE(file, files->end());
  const auto opened = open_mapping(::getpid(), *file);
  if (::geteuid() == 0) {
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    EXPECT_EQ(*file_id(*opened), *file_id(fd));
  }
  ::munmap(mapped, 4096);
}

// A path that leads to something else by now: never opened for reading, whatever it is.
TEST(Process, RefusesAnotherFileAndDoesNotHangOnFifo) {
  const auto path =
      std::filesystem::temp_directory_path() / ("giltop-fifo-" + std::to_string(::getpid()));
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const MappedFile fifo{path.string(), 0x1000, 0x2000, 0, 0, 1};
  EXPECT_FALSE(open_mapping(::getpid(), fifo).ok());
  ::unlink(path.c_str());
  const MappedFile other{"/proc/self/exe", 0x1000, 0x2000, 0, 0, 1};
  EXPECT_FALSE(open_mapping(::getpid(), other).ok());
}

}  // namespace
}  // namespace giltop
