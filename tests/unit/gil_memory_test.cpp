// Where the GIL is in a process's memory: on made-up memory, hostile and not, and on every CPython
// that is found here.
#include "target/gil_memory.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "probe/gil_readings.h"
#include "support/live.h"
#include "target/elf_file.h"
#include "target/process_gils.h"

namespace giltop {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = GilInMemory::State;
using ThreadState = ProcessGils::Thread::State;

// --- made-up memory ------------------------------------------------------------------------------

constexpr uint64_t kBias = 0x7f0000000000, kRuntime = 0x1000, kPlace = kBias + kRuntime;
constexpr uint64_t kInterpreter = 0x600000010000, kThread = 0x600000020000;

class Memory {
 public:
  template <typename T>
  void put(uint64_t address, T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    for (size_t i = 0; i < sizeof(T); i++) bytes_[address + i] = bytes[i];
  }
  void words(uint64_t address, size_t count, uint64_t value = 0) {
    for (size_t i = 0; i < count; i++) put<uint64_t>(address + i * 8, value);
  }
  void forget(uint64_t address) { bytes_.erase(address); }
  std::map<uint64_t, std::byte>& bytes() { return bytes_; }
  MemoryReader reader() const {
    return [this](uint64_t address, std::span<std::byte> to) {
      for (size_t i = 0; i < to.size(); i++) {
        const auto found = bytes_.find(address + i);
        if (found == bytes_.end()) return false;
        to[i] = found->second;
      }
      return true;
    };
  }

 private:
  std::map<uint64_t, std::byte> bytes_;
};

CPythonFile python(int minor, bool free_threaded = false) {
  CPythonFile file;
  file.version = "3." + std::to_string(minor) + ".1";
  file.major = 3;
  file.minor = minor;
  file.free_threaded = free_threaded;
  file.cond_offset = free_threaded ? 0x28 : 0x20;
  file.switch_cond_offset = free_threaded ? 0x80 : 0x78;
  file.runtime_address = kRuntime;
  return file;
}

// struct _gil_runtime_state, at its cond - 0x20.
void put_gil(Memory& memory, uint64_t base, int32_t locked, uint64_t holder) {
  memory.put<uint64_t>(base, 5000);
  memory.put<uint64_t>(base + 8, holder);
  memory.put<int32_t>(base + 0x10, locked);
}

// A 3.12 with one interpreter, whose GIL is held by thread 77.
Memory memory_312() {
  Memory memory;
  memory.put<uint64_t>(kPlace + 0x28, kInterpreter);
  memory.put<uint64_t>(kInterpreter, 0);
  memory.put<int64_t>(kInterpreter + 8, 0);
  memory.put<uint64_t>(kInterpreter + 0x180, kInterpreter + 0x410);
  put_gil(memory, kInterpreter + 0x410, 1, kThread);
  memory.put<uint64_t>(kThread + 0x10, kInterpreter);
  memory.put<uint64_t>(kThread + 0x90, 77);
  return memory;
}

// A 3.14, by its debug offsets.
Memory memory_314(bool free_threaded, int32_t enabled = 1) {
  Memory memory;
  memory.words(kPlace, 0x2f8 / 8);
  const char cookie[] = "xdebugpy";
  for (size_t i = 0; i < 8; i++) memory.put<char>(kPlace + i, cookie[i]);
  memory.put<uint64_t>(kPlace + 0x08, 0x030e01f0);
  memory.put<uint64_t>(kPlace + 0x10, free_threaded);
  memory.put<uint64_t>(kPlace + 0x28, 0x328);   // interpreters_head
  memory.put<uint64_t>(kPlace + 0x38, 0x100);   // id
  memory.put<uint64_t>(kPlace + 0x40, 0x108);   // next
  memory.put<uint64_t>(kPlace + 0x78, 0x10);    // ceval_gil
  memory.put<uint64_t>(kPlace + 0x80, 0x1000);  // gil_runtime_state, then locked and holder
  memory.put<uint64_t>(kPlace + 0x90, free_threaded ? 0x1018 : 0x1010);
  memory.put<uint64_t>(kPlace + 0x98, free_threaded ? 0x1010 : 0x1008);
  memory.put<uint64_t>(kPlace + 0xc8, 0x10);  // thread: interp
  memory.put<uint64_t>(kPlace + 0xe0, 0xa0);  // native_thread_id
  memory.put<uint64_t>(kPlace + 0x328, kInterpreter);
  memory.put<int64_t>(kInterpreter + 0x100, 0);
  memory.put<uint64_t>(kInterpreter + 0x108, 0);
  memory.put<uint64_t>(kInterpreter + 0x10, kInterpreter + 0x1000);
  const uint64_t gil = kInterpreter + 0x1000;
  if (free_threaded) memory.put<int32_t>(gil, enabled);
  put_gil(memory, gil + (free_threaded ? 8 : 0), 1, kThread);
  memory.put<uint64_t>(kThread + 0x10, kInterpreter);
  memory.put<uint64_t>(kThread + 0xa0, 77);
  return memory;
}

TEST(GilMemory, ByTheTable) {
  const Memory memory = memory_312();
  const GilMemory found = gils_in_memory(python(12), kBias, memory.reader());
  EXPECT_EQ(found.missing, "");
  ASSERT_EQ(found.gils.size(), 1u);
  EXPECT_EQ(found.gils[0].address, kInterpreter + 0x410);
  EXPECT_EQ(found.gils[0].state, State::held);
  EXPECT_EQ(found.gils[0].holder_id, 77);
  EXPECT_THAT(found.gils[0].interpreters, ElementsAre(0));
}

TEST(GilMemory, ByTheDebugOffsets) {
  const Memory memory = memory_314(false);
  const GilMemory found = gils_in_memory(python(14), kBias, memory.reader());
  EXPECT_EQ(found.missing, "");
  ASSERT_EQ(found.gils.size(), 1u);
  EXPECT_EQ(found.gils[0].state, State::held);
  EXPECT_EQ(found.gils[0].holder_id, 77);
  EXPECT_FALSE(found.gils[0].enabled.has_value());
}

TEST(GilMemory, FreeThreaded) {
  Memory memory = memory_314(true);
  auto found = gils_in_memory(python(14, true), kBias, memory.reader());
  ASSERT_EQ(found.gils.size(), 1u);
  EXPECT_EQ(found.gils[0].state, State::held);
  EXPECT_EQ(found.gils[0].enabled, std::optional(true));
  memory = memory_314(true, 0);
  found = gils_in_memory(python(14, true), kBias, memory.reader());
  ASSERT_EQ(found.gils.size(), 1u);
  EXPECT_EQ(found.gils[0].state, State::disabled);
  EXPECT_EQ(found.gils[0].enabled, std::optional(false));
}

TEST(GilMemory, WhatDoesNotAgreeWithTheFileIsNotRead) {
  const Memory memory = memory_314(false);
  const auto why = [&](const CPythonFile& file) {
    const GilMemory found = gils_in_memory(file, kBias, memory.reader());
    EXPECT_THAT(found.gils, IsEmpty());
    return found.missing;
  };
  EXPECT_THAT(why(python(14, true)), HasSubstr("does not begin as Python 3.14.1's does"));
  EXPECT_THAT(why(python(13)), HasSubstr("does not begin"));
  EXPECT_THAT(why(python(16)), HasSubstr("newer than giltop"));
  EXPECT_THAT(why(python(6)), HasSubstr("does not say where its GIL is"));
  CPythonFile alpha = python(14);
  alpha.version = "3.14.0a3";
  EXPECT_THAT(why(alpha), HasSubstr("no release"));
  CPythonFile nameless = python(14);
  nameless.runtime_address = 0;
  EXPECT_THAT(why(nameless), HasSubstr("does not say"));
  Memory other = memory_314(false);
  other.put<uint64_t>(kPlace + 0x90, 0x1014);
  EXPECT_THAT(gils_in_memory(python(14), kBias, other.reader()).missing,
              HasSubstr("not laid out as its call sites"));
}

TEST(GilMemory, SubInterpretersShareOneOrHaveTheirOwn) {
  Memory memory = memory_312();
  const uint64_t second = kInterpreter + 0x100000, third = second + 0x100000;
  memory.put<uint64_t>(kPlace + 0x28, third);  // the newest comes first
  memory.put<uint64_t>(third, second);
  memory.put<int64_t>(third + 8, 2);
  memory.put<uint64_t>(third + 0x180, kInterpreter + 0x410);
  memory.put<uint64_t>(second, kInterpreter);
  memory.put<int64_t>(second + 8, 1);
  memory.put<uint64_t>(second + 0x180, second + 0x410);
  put_gil(memory, second + 0x410, 0, kThread);
  memory.put<uint64_t>(kThread + 0x10, third);  // the holder runs in the third interpreter
  const GilMemory found = gils_in_memory(python(12), kBias, memory.reader());
  EXPECT_EQ(found.missing, "");
  ASSERT_EQ(found.gils.size(), 2u);
  EXPECT_THAT(found.gils[0].interpreters, ElementsAre(0, 2));
  EXPECT_EQ(found.gils[0].state, State::held);
  EXPECT_THAT(found.gils[1].interpreters, ElementsAre(1));
  EXPECT_EQ(found.gils[1].state, State::free);
}

TEST(GilMemory, AListWithoutAnEnd) {
  Memory memory = memory_312();
  memory.put<uint64_t>(kInterpreter, kInterpreter);
  EXPECT_THAT(gils_in_memory(python(12), kBias, memory.reader()).missing, HasSubstr("no end"));
  // One that goes on and on.
  const MemoryReader endless = [](uint64_t address, std::span<std::byte> to) {
    std::fill(to.begin(), to.end(), std::byte{0});
    if (to.size() != 8) return true;
    const uint64_t value = address % 0x1000 == 0x180 ? kInterpreter : (address / 0x1000 + 1) << 12;
    std::memcpy(to.data(), &value, 8);
    if (address % 0x1000 == 8) std::fill(to.begin(), to.end(), std::byte{0});
    return true;
  };
  EXPECT_THAT(gils_in_memory(python(12), kBias, endless).missing, HasSubstr("no end"));
}

TEST(GilMemory, AHolderOfNoInterpreterIsNotKnown) {
  Memory memory = memory_312();
  memory.put<uint64_t>(kThread + 0x10, kInterpreter + 8);
  auto found = gils_in_memory(python(12), kBias, memory.reader());
  ASSERT_EQ(found.gils.size(), 1u);
  EXPECT_EQ(found.gils[0].state, State::unknown);
  memory = memory_312();
  memory.put<int32_t>(kInterpreter + 0x410 + 0x10, 7);
  found = gils_in_memory(python(12), kBias, memory.reader());
  EXPECT_EQ(found.gils[0].state, State::unknown);
  memory.put<int32_t>(kInterpreter + 0x410 + 0x10, -1);
  found = gils_in_memory(python(12), kBias, memory.reader());
  EXPECT_EQ(found.gils[0].state, State::not_created);
}

TEST(GilMemory, HostileMemoryIsUnknownAndNothingElse) {
  std::mt19937_64 rng(1);
  const std::vector<uint64_t> values = {0,
                                        1,
                                        7,
                                        ~uint64_t{0},
                                        ~uint64_t{7},
                                        uint64_t{1} << 63,
                                        kInterpreter,
                                        kThread,
                                        kPlace,
                                        0x8000000000000000u - 8};
  for (int i = 0; i < 20'000; i++) {
    const bool debug = rng() % 2;
    Memory memory = debug ? memory_314(rng() % 2) : memory_312();
    for (uint64_t changes = 1 + rng() % 4; changes > 0; changes--) {
      auto at = memory.bytes().begin();
      std::advance(at, static_cast<ptrdiff_t>(rng() % memory.bytes().size()));
      if (rng() % 3 == 0) {
        memory.forget(at->first);
      } else if (rng() % 2) {
        at->second = static_cast<std::byte>(rng());
      } else {
        memory.put<uint64_t>(at->first / 8 * 8, values[rng() % values.size()]);
      }
    }
    const GilMemory found =
        gils_in_memory(python(debug ? 14 : 12, rng() % 2), kBias, memory.reader());
    for (const GilInMemory& gil : found.gils) {
      EXPECT_FALSE(gil.interpreters.empty());
      if (gil.state == State::held) {
        EXPECT_GT(gil.holder_id, 0);
      }
    }
  }
}

TEST(LoadBias, FromWholePages) {
  CPythonFile file;
  file.code = {{0x401234, 0x1234, 0x5000}};
  MappedFile mapping;
  mapping.start = 0x401000;
  mapping.offset = 0x1000;
  EXPECT_EQ(load_bias(file, mapping), std::optional<uint64_t>(0));
  mapping.start = 0x7f0000401000;
  EXPECT_EQ(load_bias(file, mapping), std::optional<uint64_t>(0x7f0000000000));
  mapping.start += 0x2000;  // a later part of it, as mprotect splits them
  mapping.offset += 0x2000;
  EXPECT_EQ(load_bias(file, mapping), std::optional<uint64_t>(0x7f0000000000));
  mapping.offset = 0x20000;
  EXPECT_EQ(load_bias(file, mapping), std::nullopt);
  file.code.clear();
  mapping.offset = 0x1000;
  EXPECT_EQ(load_bias(file, mapping), std::nullopt);
}

// --- what follows from it ------------------------------------------------------------------------

constexpr uint64_t kGil = 0x7f0000001000;

GilMemory one_gil(State state, int64_t holder = 0) {
  GilMemory memory;
  GilInMemory& gil = memory.gils.emplace_back();
  gil.address = kGil;
  gil.interpreters = {0};
  gil.state = state;
  if (state == State::held) {
    gil.holder_state = kThread;
    gil.holder_id = holder;
  }
  return memory;
}

ThreadActivity blocked_in(pid_t tid, int64_t call, uint64_t argument0 = 0) {
  return {tid, tid - 1000, true, 1, call, argument0};
}

const ProcessGils::Thread* thread(const ProcessGils& gils, pid_t tid) {
  for (const ProcessGils::Thread& t : gils.threads)
    if (t.tid == tid) return &t;
  return nullptr;
}

TEST(JudgeGils, WaitersAreThoseInItsConditionVariable) {
  const CPythonFile file = python(12);
  const GilMemory memory = one_gil(State::held, 1);  // as the process itself calls it
  const ProcessGils gils = judge_gils(file, memory,
                                      {blocked_in(1001, SYS_nanosleep),
                                       blocked_in(1002, SYS_futex, kGil + 0x20 + 40),
                                       blocked_in(1003, SYS_futex, kGil + 0x50),
                                       blocked_in(1004, SYS_futex, kGil + 0x1000),
                                       blocked_in(1005, SYS_read),
                                       {1006, 6, false, 0, -1, 0},
                                       blocked_in(1007, -1),
                                       blocked_in(1008, SYS_futex, kGil + 0x78 + 4)},
                                      memory);
  ASSERT_EQ(gils.gils.size(), 1u);
  EXPECT_EQ(gils.gils[0].holder, 1001);
  EXPECT_EQ(thread(gils, 1001)->state, ThreadState::unknown) << "it holds, in whatever call";
  EXPECT_TRUE(thread(gils, 1001)->blocked);
  EXPECT_EQ(thread(gils, 1002)->state, ThreadState::waiting);
  EXPECT_EQ(thread(gils, 1002)->gil, kGil);
  EXPECT_EQ(thread(gils, 1003)->state, ThreadState::unknown) << "the GIL's mutex";
  EXPECT_EQ(thread(gils, 1004)->state, ThreadState::released);
  EXPECT_EQ(thread(gils, 1005)->state, ThreadState::released);
  EXPECT_EQ(thread(gils, 1006), nullptr) << "it runs";
  EXPECT_EQ(thread(gils, 1007)->state, ThreadState::unknown) << "a page fault, anywhere";
  EXPECT_EQ(thread(gils, 1008)->state, ThreadState::released) << "after a forced release";
}

TEST(JudgeGils, NobodyIsReleasedWhileAHolderIsNotKnown) {
  const CPythonFile file = python(12);
  const std::vector<ThreadActivity> threads = {blocked_in(1001, SYS_nanosleep),
                                               blocked_in(1002, SYS_futex, kGil + 0x20)};
  const GilMemory held = one_gil(State::held, 1), free = one_gil(State::free);
  const ProcessGils changed = judge_gils(file, held, threads, free);
  EXPECT_EQ(changed.gils[0].memory.state, State::unknown);
  EXPECT_EQ(thread(changed, 1001)->state, ThreadState::unknown);
  EXPECT_EQ(thread(changed, 1002)->state, ThreadState::waiting);
  const GilMemory stranger = one_gil(State::held, 99);
  const ProcessGils strange = judge_gils(file, stranger, threads, stranger);
  EXPECT_EQ(strange.gils[0].memory.state, State::unknown);
  EXPECT_EQ(thread(strange, 1001)->state, ThreadState::unknown);
  GilMemory partial = free;
  partial.missing = "the list of interpreters leads nowhere";
  EXPECT_EQ(thread(judge_gils(file, partial, threads, partial), 1001)->state, ThreadState::unknown);
  const ProcessGils none = judge_gils(file, {{}, "3.6"}, threads, {{}, "3.6"});
  EXPECT_EQ(none.missing, "3.6");
  EXPECT_TRUE(thread(none, 1001)->blocked) << "that much is known";
}

TEST(ReadingEvents, ThreadsFirstThenGils) {
  ProcessGils read;
  read.end_ns = 77;
  read.threads.push_back({1002, ThreadState::waiting, kGil, true, 3});
  read.threads.push_back({1003, ThreadState::released, 0, true, 0});
  read.threads.push_back({1001, ThreadState::unknown, 0, true, 0});
  read.gils.push_back({one_gil(State::held, 1).gils[0], 1001});
  read.gils.push_back({one_gil(State::free).gils[0], 0});
  read.gils[1].memory.interpreters = {4, 7};
  const auto events = reading_events(1001, read);
  ASSERT_EQ(events.size(), 5u);
  for (const Event& event : events) {
    EXPECT_EQ(event.ts_ns, 77u);
    EXPECT_EQ(event.tgid, 1001u);
  }
  EXPECT_EQ(events[0].kind, EventKind::thread_read);
  EXPECT_EQ(events[0].tid, 1002u);
  EXPECT_EQ(events[0].value, kGil);
  EXPECT_EQ(events[0].cpu, 3u);
  EXPECT_EQ(events[0].state, kReadWaiting | kReadBlocked);
  EXPECT_EQ(events[1].state, kReadReleased | kReadBlocked);
  EXPECT_EQ(events[2].state, kReadBlocked);
  EXPECT_EQ(events[3].kind, EventKind::gil_read);
  EXPECT_EQ(events[3].tid, 1001u);
  EXPECT_EQ(events[3].state, static_cast<uint8_t>(GilReading::held));
  EXPECT_EQ(events[3].other, 1u);
  EXPECT_EQ(events[4].state, static_cast<uint8_t>(GilReading::free));
  EXPECT_EQ(events[4].other, 5u);
}

// --- every CPython that is here ------------------------------------------------------------------

struct Interpreter {
  std::string name;
  std::string label;  // in the names of tests
  std::vector<std::string> command;
};

void PrintTo(const Interpreter& interpreter, std::ostream* out) { *out << interpreter.name; }

// What PYENV_ROOT, /usr/bin and build/interpreters (tools/interpreters) have, each minor version of
// a folder once. The roots of the latter need chroot.
std::vector<Interpreter> interpreters() {
  std::vector<Interpreter> found;
  std::set<fs::path> seen;
  std::error_code error;
  const auto entries = [&](const fs::path& folder) {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder, error)) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
  };
  const auto add = [&](const fs::path& folder, const fs::path& root) {
    for (const fs::path& path : entries(folder)) {
      const std::string name = path.filename().string();
      if (!name.starts_with("python3.") ||
          name.find_first_not_of("0123456789.td", 7) != std::string::npos)
        continue;
      const fs::path real = fs::canonical(path, error);
      if (error || !seen.insert(real).second) continue;
      const auto elf = ElfFile::open(real.string());
      if (!elf || elf->machine() != EM_X86_64) continue;
      Interpreter& one = found.emplace_back();
      one.name = path.string();
      if (root.empty()) {
        one.command = {path.string()};
      } else {
        one.command = {"chroot", root.string(), "/" + fs::relative(path, root).string()};
      }
    }
  };
  add("/usr/bin", {});
  const char* const pyenv = std::getenv("PYENV_ROOT");
  const char* const home = std::getenv("HOME");
  const fs::path versions =
      pyenv ? fs::path(pyenv) / "versions" : fs::path(home ? home : "/") / ".pyenv/versions";
  for (const fs::path& version : entries(versions)) add(version / "bin", {});
  const char* const store = std::getenv("GILTOP_INTERPRETERS");
  const fs::path ours =
      store ? fs::path(store) : fs::path(GILTOP_SOURCE_DIR) / "build/interpreters";
  for (const fs::path& path : entries(ours)) {
    if (path.filename().string().starts_with(".")) continue;
    if (!fs::exists(path / "usr", error)) {
      add(path / "bin", {});
    } else if (::geteuid() == 0) {
      add(path / "usr/bin", path);
    }
  }
  // By its file alone: a number would be another's when there is one more.
  std::set<std::string> labels;
  for (Interpreter& one : found) {
    one.label = one.name;
    for (char& c : one.label)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
    while (!labels.insert(one.label).second) one.label += '_';
  }
  return found;
}

constexpr const char* kScript = R"(
import os, sys, threading, time
mode = sys.argv[1]
def ready():
    os.write(1, b"ready\n")
if mode == "idle":
    ready()
    time.sleep(100000)
elif mode.startswith("sub"):
    try:
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        if sys.version_info >= (3, 13):
            kept = interpreters.create("isolated" if mode == "sub-own" else "legacy")
        elif sys.version_info >= (3, 12):
            kept = interpreters.create(isolated=mode == "sub-own")
        else:
            kept = interpreters.create()
    except ImportError:
        os.write(1, b"none\n")
    ready()
    time.sleep(100000)
else:
    try:
        import ctypes
    except ImportError:
        os.write(1, b"none\n")
    if mode == "behind":
        def spin():
            while True:
                pass
        threading.Thread(target=spin, daemon=True).start()
    held = ctypes.PyDLL(None).pause
    ready()
    held()
)";

// A CPython that runs the script until this goes away.
class Running {
 public:
  // `before`: a program that runs the rest of its command line as its only child.
  Running(const Interpreter& interpreter, const std::string& mode,
          const std::vector<std::string>& before = {})
      : program_(command(interpreter, mode, before)) {
    ready_ = program_.wait_for("ready\n");
    pid_ = program_.pid();
    if (before.empty()) return;
    const std::string id = std::to_string(pid_);
    pid_ = std::atoi(testing::read_file("/proc/" + id + "/task/" + id + "/children").c_str());
  }
  ~Running() { program_.signal(9); }

  bool ready() const { return ready_; }
  bool lacks_module() const { return program_.out().find("none") != std::string::npos; }
  std::string err() { return program_.err(); }
  pid_t pid() const { return pid_; }
  const CPythonFile& file() const { return file_; }

  Result<ProcessGils> read() {
    if (!bias_) {
      const auto mappings = executable_mappings(pid());
      if (!mappings) return mappings.error();
      for (const MappedFile& mapping : *mappings) {
        auto fd = open_mapping(pid(), mapping);
        if (!fd) continue;
        auto elf = ElfFile::make(std::move(*fd));
        if (!elf) continue;
        const auto inspection = inspect_elf(*elf);
        if (!inspection || inspection->kind != Inspection::Kind::cpython) continue;
        file_ = inspection->cpython;
        bias_ = load_bias(file_, mapping);
      }
      if (!bias_) return Error("no CPython is mapped");
    }
    return read_gils(pid(), file_, *bias_);
  }

  // Reads until `wanted`, for as long as the test may last.
  template <typename Wanted>
  std::optional<ProcessGils> read_until(Wanted&& wanted) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      auto gils = read();
      if (!gils) {
        ADD_FAILURE() << gils.error().message();
        return std::nullopt;
      }
      last_ = *gils;
      if (wanted(*gils)) return *gils;
      ::sched_yield();
    }
    ADD_FAILURE() << "missing: " << last_.missing << ", GILs: " << last_.gils.size() << ", state "
                  << (last_.gils.empty() ? -1 : static_cast<int>(last_.gils[0].memory.state));
    return std::nullopt;
  }

 private:
  static std::vector<std::string> command(const Interpreter& interpreter, const std::string& mode,
                                          const std::vector<std::string>& before) {
    auto words = before;
    words.insert(words.end(), interpreter.command.begin(), interpreter.command.end());
    words.insert(words.end(), {"-I", "-c", kScript, mode});
    return words;
  }
  testing::Program program_;
  pid_t pid_ = 0;
  bool ready_ = false;
  CPythonFile file_;
  std::optional<uint64_t> bias_;
  ProcessGils last_;
};

class EveryInterpreter : public ::testing::TestWithParam<Interpreter> {
 protected:
  static bool says(const Running& running) { return running.file().minor >= 7; }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EveryInterpreter);

bool is_blocked(const ProcessGils& gils, pid_t tid) {
  const ProcessGils::Thread* const t = thread(gils, tid);
  return t && t->blocked;
}

TEST_P(EveryInterpreter, Idle) {
  Running running(GetParam(), "idle");
  ASSERT_TRUE(running.ready()) << running.err();
  const auto gils = running.read_until([&](const ProcessGils& g) {
    const ProcessGils::Thread* const main = thread(g, running.pid());
    if (!says(running)) return main && main->blocked;
    return main && main->state == ThreadState::released;
  });
  ASSERT_TRUE(gils);
  if (!says(running)) {
    EXPECT_THAT(gils->missing, HasSubstr("does not say where its GIL is"));
    return;
  }
  EXPECT_EQ(gils->missing, "");
  ASSERT_EQ(gils->gils.size(), 1u);
  const GilInMemory& gil = gils->gils[0].memory;
  EXPECT_THAT(gil.interpreters, ElementsAre(0));
  if (running.file().free_threaded) {
    EXPECT_EQ(gil.state, State::disabled);
    EXPECT_EQ(gil.enabled, std::optional(false));
  } else {
    EXPECT_EQ(gil.state, State::free);
  }
  EXPECT_LE(gils->begin_ns, gils->end_ns);
}

TEST_P(EveryInterpreter, AsleepWithTheGil) {
  Running running(GetParam(), "held");
  ASSERT_TRUE(running.ready()) << running.err();
  if (running.lacks_module()) GTEST_SKIP() << "it has no ctypes";
  const auto gils = running.read_until([&](const ProcessGils& g) {
    if (!is_blocked(g, running.pid())) return false;
    if (!says(running) || running.file().free_threaded) return true;
    return g.gils.size() == 1 && g.gils[0].memory.state == State::held;
  });
  ASSERT_TRUE(gils);
  if (!says(running) || running.file().free_threaded) return;
  EXPECT_EQ(gils->gils[0].holder, running.pid());
  EXPECT_EQ(thread(*gils, running.pid())->state, ThreadState::unknown);
}

TEST_P(EveryInterpreter, OneWaitsBehindASleeper) {
  Running running(GetParam(), "behind");
  ASSERT_TRUE(running.ready()) << running.err();
  if (running.lacks_module()) GTEST_SKIP() << "it has no ctypes";
  ASSERT_TRUE(running.read());
  if (!says(running) || running.file().free_threaded) return;
  const auto waiter = [&](const ProcessGils& g) -> const ProcessGils::Thread* {
    for (const ProcessGils::Thread& t : g.threads)
      if (t.state == ThreadState::waiting) return &t;
    return nullptr;
  };
  const auto gils = running.read_until([&](const ProcessGils& g) {
    return is_blocked(g, running.pid()) && g.gils.size() == 1 &&
           g.gils[0].memory.state == State::held && g.gils[0].holder == running.pid() && waiter(g);
  });
  ASSERT_TRUE(gils);
  EXPECT_NE(waiter(*gils)->tid, running.pid());
  EXPECT_EQ(waiter(*gils)->gil, gils->gils[0].memory.address);
  EXPECT_TRUE(waiter(*gils)->blocked);
}

TEST_P(EveryInterpreter, SubInterpreters) {
  for (const bool own : {false, true}) {
    Running running(GetParam(), own ? "sub-own" : "sub-shared");
    ASSERT_TRUE(running.ready()) << running.err();
    if (running.lacks_module()) GTEST_SKIP() << "it has no interpreters";
    ASSERT_TRUE(running.read());
    if (!says(running) || (own && running.file().minor < 12)) continue;
    const auto gils = running.read_until([&](const ProcessGils& g) {
      const ProcessGils::Thread* const main = thread(g, running.pid());
      return main && main->state == ThreadState::released;
    });
    ASSERT_TRUE(gils);
    EXPECT_EQ(gils->missing, "");
    ASSERT_EQ(gils->gils.size(), own ? 2u : 1u);
    std::set<int64_t> ids;
    for (const auto& gil : gils->gils)
      ids.insert(gil.memory.interpreters.begin(), gil.memory.interpreters.end());
    EXPECT_THAT(ids, ElementsAre(0, 1));
    if (!own) {
      EXPECT_THAT(gils->gils[0].memory.interpreters, ElementsAre(0, 1));
    }
  }
}

// Thread ids in the memory are those of the process's own namespace.
TEST_P(EveryInterpreter, InAPidNamespaceOfItsOwn) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  Running running(GetParam(), "behind", {"unshare", "--pid", "--fork", "--kill-child"});
  ASSERT_TRUE(running.ready()) << running.err();
  if (running.lacks_module()) GTEST_SKIP() << "it has no ctypes";
  ASSERT_GT(running.pid(), 1);
  ASSERT_TRUE(running.read());
  const auto ids = namespace_ids(running.pid(), running.pid());
  ASSERT_TRUE(ids);
  ASSERT_GE(ids->size(), 2u);
  EXPECT_EQ(ids->back(), 1);
  if (!says(running) || running.file().free_threaded) return;
  const auto gils = running.read_until([&](const ProcessGils& g) {
    return is_blocked(g, running.pid()) && g.gils.size() == 1 &&
           g.gils[0].memory.state == State::held && g.gils[0].holder == running.pid();
  });
  ASSERT_TRUE(gils);
  EXPECT_EQ(gils->gils[0].memory.holder_id, 1);
}

INSTANTIATE_TEST_SUITE_P(Here, EveryInterpreter, ::testing::ValuesIn(interpreters()),
                         [](const auto& tested) { return tested.param.label; });

TEST(ReadGils, OneLineForWhatIsNotThere) {
  const auto gils = read_gils(-1, python(12), 0);
  ASSERT_FALSE(gils);
  EXPECT_EQ(gils.error().message(), "no process -1");
}

}  // namespace
}  // namespace giltop
