// The GIL site finder against AArch64 files: small ones made for the purpose, and the Pythons of
// Debian's arm64 packages where `tools/interpreters` has fetched them. Nothing of it is ever run.
#include <elf.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>

#include "support/a64_code.h"
#include "support/elf_builder.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"

namespace giltop {
namespace {

namespace fs = std::filesystem;

using testing::A64Code;
using testing::ElfBuilder;
using testing::Plt;
using testing::sp;
using testing::wzr;

constexpr const char* kTimedwait = "pthread_cond_timedwait";
constexpr const char* kSignal = "pthread_cond_signal";
constexpr const char* kWait = "pthread_cond_wait";
// Bytes into the GIL's struct: glibc's mutex has 48 here.
constexpr uint32_t kLocked = 0x10, kCond = 0x20, kMutex = 0x50, kSwitchCond = 0x80;

// As gcc writes it: the flag's address is set up early, in a register of its own.
A64Code take_gil(uint32_t shift = 0) {
  A64Code code;
  code.mov(19, 0)
      .add(20, 19, kLocked + shift)
      .add(0, 19, kMutex + shift)
      .call("pthread_mutex_lock")
      .check()
      .add(0, 19, kCond + shift)
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .check_etimedout()
      .one(0)
      .store(0, 20, 0)
      .add(0, 19, kSwitchCond + shift)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .check()
      .ret();
  return code;
}

void add_release(A64Code& code, uint32_t shift = 0) {
  code.mov(21, 0)
      .add(22, 21, kLocked + shift)
      .add(0, 21, kMutex + shift)
      .call("pthread_mutex_lock")
      .check()
      .store(wzr, 22, 0)
      .add(0, 21, kCond + shift)
      .expect(SiteKind::release)
      .call(kSignal)
      .check();
}

A64Code drop_gil(uint32_t shift = 0) {
  A64Code code;
  add_release(code, shift);
  code.add(0, 21, kSwitchCond + shift).expect(SiteKind::forced).call(kWait).check().ret();
  return code;
}

constexpr uint64_t kVersionAt = 400;  // offset in the data

ElfBuilder::Options options_for(uint32_t version_hex) {
  ElfBuilder::Options options;
  options.machine = EM_AARCH64;
  std::memcpy(options.data.data() + kVersionAt, &version_hex, sizeof version_hex);
  return options;
}

constexpr uint32_t k3_12_1 = 0x030c01f0;

// The exports that make a file a CPython, and its version as Py_Version has it.
ElfBuilder python(ElfBuilder::Options options = options_for(k3_12_1)) {
  ElfBuilder builder(std::move(options));
  builder.function("PyEval_SaveThread", A64Code().ret(), true)
      .export_data("_PyRuntime", 0, 256)
      .export_data("Py_Version", kVersionAt, 8);
  return builder;
}

ElfBuilder plain_python(ElfBuilder::Options options = options_for(k3_12_1)) {
  ElfBuilder builder = python(std::move(options));
  builder.function("take_gil", take_gil()).function("drop_gil", drop_gil());
  return builder;
}

Result<Inspection> inspect(const std::vector<std::byte>& bytes) {
  auto file = ElfFile::make(Fd(testing::memory_file(bytes)));
  if (!file) return std::move(file).error();
  return inspect_elf(*file);
}

std::vector<ElfBuilder::Expected> found(const Inspection& inspection) {
  std::vector<ElfBuilder::Expected> sites;
  for (const GilSite& site : inspection.cpython.sites) {
    sites.push_back({site.kind, site.address, site.file_offset, site.length});
  }
  return sites;
}

std::string describe(const std::vector<ElfBuilder::Expected>& sites) {
  std::string text;
  for (const auto& site : sites) {
    text += std::string(to_string(site.kind)) + "@" + std::to_string(site.address) + " ";
  }
  return text;
}

Inspection expect_proved(ElfBuilder& builder) {
  const auto result = inspect(builder.build());
  EXPECT_TRUE(result.ok()) << result.error().message();
  const Inspection inspection = result.ok() ? *result : Inspection{};
  EXPECT_EQ(inspection.kind, Inspection::Kind::cpython) << inspection.reason;
  EXPECT_EQ(describe(found(inspection)), describe(builder.expected()));
  EXPECT_EQ(found(inspection), builder.expected());
  return inspection;
}

void expect_refused(ElfBuilder& builder, const std::string& part_of_reason) {
  const auto result = inspect(builder.build());
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->kind, Inspection::Kind::refused);
  EXPECT_NE(result->reason.find(part_of_reason), std::string::npos) << result->reason;
}

TEST(GilSitesArm64, EveryKindOfPlt) {
  for (const Plt plt : {Plt::lazy, Plt::secure, Plt::got, Plt::none, Plt::bnd_call}) {
    SCOPED_TRACE(static_cast<int>(plt));
    auto options = options_for(k3_12_1);
    options.plt = plt;
    ElfBuilder builder = plain_python(options);
    const Inspection inspection = expect_proved(builder);
    EXPECT_EQ(inspection.machine, EM_AARCH64);
    EXPECT_EQ(inspection.is_foreign(), kHostMachine != EM_AARCH64);
    EXPECT_EQ(inspection.cpython.version, "3.12.1");
    EXPECT_EQ(inspection.cpython.cond_offset, 0x20u);
    EXPECT_EQ(inspection.cpython.switch_cond_offset, 0x80u);
  }
}

TEST(GilSitesArm64, WithoutSectionHeaders) {
  auto options = options_for(k3_12_1);
  options.sections = false;
  ElfBuilder builder = plain_python(options);
  expect_proved(builder);
}

TEST(GilSitesArm64, InlinedCopiesOfAGilAtAFixedAddress) {
  ElfBuilder builder = python();
  builder.function("take_gil", take_gil(0x168)).function("drop_gil", drop_gil(8));
  A64Code save;
  save.data(20, kLocked + 0x40)
      .data(23, 0x40)
      .store(wzr, 20, 0)
      .data(0, kCond + 0x40)
      .expect(SiteKind::release)
      .call(kSignal)
      .check()
      .add(0, 23, kSwitchCond)
      .expect(SiteKind::forced)
      .call(kWait)
      .check()
      .ret();
  builder.function("os_stat", save);
  A64Code read;  // no store near: the address alone proves it
  read.data(0, kCond + 0x40).expect(SiteKind::release).call(kSignal).check().ret();
  builder.function("os_read", read);
  expect_proved(builder);
}

TEST(GilSitesArm64, ColdPart) {
  ElfBuilder builder = python();
  builder.function("take_gil", take_gil());
  A64Code hot;
  add_release(hot);
  builder.function("drop_gil", hot.ret());
  A64Code cold;
  cold.add(0, 21, kSwitchCond).expect(SiteKind::forced).call(kWait).check();
  builder.function("drop_gil.cold", cold);
  expect_proved(builder);
}

// stlr, stur, pre-indexed; a 1 that was put into a register long before.
TEST(GilSitesArm64, FormsOfFlagStores) {
  constexpr uint32_t kStlr = 0x889ffeff, kStur = 0xb8010278, kPre = 0xb8010eff;
  ElfBuilder builder = python();
  A64Code take;
  take.mov(19, 0)
      .one(24)
      .add(0, 19, kCond)
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .check_etimedout()
      .words({kStur})  // stur w24, [x19, #0x10]
      .add(0, 19, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .check()
      .ret();
  builder.function("take_gil", take);
  A64Code with_stlr;
  with_stlr.mov(21, 0)
      .add(23, 21, kLocked)
      .words({kStlr})  // stlr wzr, [x23]
      .add(0, 21, kCond)
      .expect(SiteKind::release)
      .call(kSignal)
      .check()
      .ret();
  builder.function("drop_gil", with_stlr);
  A64Code pre_indexed;
  pre_indexed.mov(23, 0)
      .add(0, 23, kCond)
      .words({kPre})  // str wzr, [x23, #0x10]!
      .expect(SiteKind::release)
      .call(kSignal)
      .check()
      .ret();
  builder.function("drop_gil.2", pre_indexed);
  expect_proved(builder);
}

// Fatal errors lead nowhere: without that, x21 would have two origins behind the call.
TEST(GilSitesArm64, CodeBehindACallThatNeverReturns) {
  for (const bool returns : {false, true}) {
    ElfBuilder builder = python();
    A64Code fatal;
    builder.function("fatal", returns ? fatal.ret() : fatal.words({0x14000000}));  // b .
    builder.function("take_gil", take_gil());
    A64Code drop;
    drop.jump_ahead_if(0, 1)
        .call_function("fatal")  // falls through to the next line, if it returns
        .mov(21, 0)
        .add(22, 21, kLocked)
        .jump_ahead_if(1, 2)
        .add(21, 21, 8)
        .call_function("fatal")
        .store(wzr, 22, 0)
        .add(0, 21, kCond);
    // With a way on which x21 is 8 more, the flag and the argument need not be of one struct.
    if (!returns) drop.expect(SiteKind::release);
    drop.call(kSignal).check().ret();
    builder.function("drop_gil.1", drop);
    if (!returns) {
      expect_proved(builder);
    } else {
      expect_refused(builder, "no release site found");
    }
  }
}

TEST(GilSitesArm64, SpilledArgumentAndTwoAcquires) {
  ElfBuilder builder = python();
  A64Code take;
  take.mov(19, 0)
      .add(1, 19, kCond)
      .spill(1, 24)
      .load(0, sp, 24)  // only the function tells
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .check_etimedout()
      .one(2)
      .store(2, 19, kLocked)
      .jump_ahead_if(2, 6)
      .add(0, 19, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .check()
      .add(0, 19, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .check()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);
}

TEST(GilSitesArm64, UnoptimizedCodeKeepsTheResultOnTheStack) {
  ElfBuilder builder = python();
  A64Code take;
  take.mov(19, 0)
      .add(0, 19, kCond)
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .words({0xb9000be0, 0xb9400be8, 0x7101b908})  // str w0, [sp, #8]; ldr w8; subs w8, w8, #110
      .one(0)
      .store(0, 19, kLocked)
      .add(0, 19, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .check()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);
}

TEST(GilSitesArm64, DecoysAreLeftOut) {
  ElfBuilder builder = plain_python();
  A64Code unchecked;  // most programs ignore the result
  unchecked.mov(19, 0).add(0, 19, kCond).call(kSignal).mov(0, 19).ret();
  builder.function("unchecked", unchecked);
  A64Code member;  // another struct
  member.mov(19, 0).store(wzr, 19, 0x30).add(0, 19, 0x48).call(kSignal).check().ret();
  builder.function("member", member);
  A64Code pointer;  // a condition variable behind a pointer
  pointer.mov(19, 0).load(0, 19, kCond).call(kSignal).check().ret();
  builder.function("pointer", pointer);
  A64Code global;
  global.data(0, 0x100).call(kSignal).check().ret();
  builder.function("global", global);
  A64Code tcl;  // Tcl_ConditionWait: has its own timedwait, and even looks at the result
  tcl.mov(19, 0).mov(0, 19).call(kTimedwait).check_etimedout().ret();
  builder.function("Tcl_ConditionWait", tcl);
  A64Code overwritten;  // the flag's base is another one by then
  overwritten.mov(19, 0).store(wzr, 19, 0x10).load(19, 19, 8).add(0, 19, 0x28);
  overwritten.call(kSignal).check().ret();
  builder.function("overwritten", overwritten);
  A64Code x86_layout;  // what would be switch_cond with the smaller mutex
  x86_layout.mov(19, 0).one(1).store(1, 19, kLocked).add(0, 19, 0x78).call(kSignal).check().ret();
  builder.function("x86_layout", x86_layout);
  A64Code words;  // a call of other code, and bytes that are no instruction behind the end
  words.call_function("member").ret().words({0x94000000, 0});
  builder.function("words", words);
  expect_proved(builder);
}

TEST(GilSitesArm64, CallThroughRegister) {
  auto options = options_for(k3_12_1);
  options.plt = Plt::none;
  ElfBuilder builder = python(options);
  A64Code take;
  take.mov(19, 0)
      .load_slot(20, kTimedwait)
      .add(0, 19, kCond)
      .expect_here(SiteKind::wait)
      .call_register(20)
      .check_etimedout()
      .load_slot(23, kSignal)
      .one(1)
      .store(1, 19, kLocked)
      .jump_ahead_if(1, 5)
      .add(0, 19, kSwitchCond)
      .expect_here(SiteKind::acquire)
      .call_register(23)
      .check()
      .ret()
      .add(0, 19, kSwitchCond)
      .mov(2, 23)
      .expect_here(SiteKind::acquire)
      .call_register(2)
      .check()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);

  // The same register holds something else on one of the ways to the call: refused.
  A64Code mixed;
  mixed.load_slot(20, kSignal).jump_ahead_if(1, 1).mov(20, 1).call_register(20).ret();
  builder.function("mixed", mixed);
  expect_refused(builder, "through a register");
}

TEST(GilSitesArm64, FreeThreaded) {
  auto options = options_for(0x030e00f0);
  std::memcpy(options.data.data(), "xdebugpy", 8);
  options.data[16] = 1;  // _Py_DebugOffsets.free_threaded
  ElfBuilder builder = python(options);
  builder.function("take_gil", take_gil(8)).function("drop_gil", drop_gil(8));
  const Inspection inspection = expect_proved(builder);
  EXPECT_TRUE(inspection.cpython.free_threaded);
  EXPECT_EQ(inspection.cpython.cond_offset, 0x28u);
  EXPECT_EQ(inspection.cpython.switch_cond_offset, 0x88u);
}

TEST(GilSitesArm64, VersionByCode) {
  ElfBuilder::Options options;
  options.machine = EM_AARCH64;
  ElfBuilder builder(options);
  builder.rodata("/opt/python-3.7.1")
      .function("PyEval_SaveThread", A64Code().ret(), true)
      .function("Py_InitializeEx", A64Code().ret(), true)
      .function("Py_GetVersion", A64Code().text(3, "%.80s (%s)").text(2, "3.9.18+").ret(), true)
      .function("take_gil", take_gil())
      .function("drop_gil", drop_gil());
  EXPECT_EQ(expect_proved(builder).cpython.version, "3.9.18+");
}

TEST(GilSitesArm64, RefusesWhatCannotBeProved) {
  auto no_frames = options_for(k3_12_1);
  no_frames.eh_frame = false;
  ElfBuilder frameless = plain_python(no_frames);
  expect_refused(frameless, "no .eh_frame");

  auto no_relocations = options_for(k3_12_1);
  no_relocations.relocations = false;
  ElfBuilder statically = plain_python(no_relocations);
  expect_refused(statically, "not called through the PLT or GOT");

  ElfBuilder undecodable = python();  // a word of the unallocated class before the call
  undecodable.function("take_gil", take_gil());
  A64Code drop;
  drop.words({0x02000000});
  add_release(drop);
  undecodable.function("drop_gil", drop.ret());
  expect_refused(undecodable, "cannot decode the code");
}

TEST(GilSitesArm64, HostileFiles) {
  for (const Plt plt : {Plt::secure, Plt::none}) {
    auto options = options_for(k3_12_1);
    options.plt = plt;
    ElfBuilder builder = plain_python(options);
    const auto whole = builder.build();
    for (size_t size = 0; size < whole.size(); ++size) {
      const auto result = inspect({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)});
      if (result.ok() && result->kind == Inspection::Kind::cpython) {
        EXPECT_EQ(found(*result), builder.expected()) << "cut to " << size << " bytes";
      }
    }
    std::mt19937 random(20240229);  // NOLINT: a fixed seed, so that a failure can be repeated
    std::uniform_int_distribution<size_t> place(0, whole.size() - 1);
    std::uniform_int_distribution<int> value(0, 255), count(1, 8);
    for (int round = 0; round < 4000; ++round) {
      auto bytes = whole;
      for (int i = count(random); i > 0; --i) {
        bytes[place(random)] = static_cast<std::byte>(value(random));
      }
      const auto result = inspect(bytes);
      if (!result.ok()) {
        EXPECT_FALSE(result.error().message().empty());
      }
    }
  }
}

// A function of branches alone: what is followed back through it must come to an end.
TEST(GilSitesArm64, AMazeOfBranches) {
  A64Code maze;
  for (uint32_t i = 0; i < 20000; ++i) {
    maze.add(static_cast<uint8_t>(19 + i % 8), static_cast<uint8_t>(19 + (i + 1) % 8), 8);
    maze.jump_ahead_if(1, 1 + i % 13).store(wzr, static_cast<uint8_t>(19 + i % 8), 0);
  }
  for (int i = 0; i < 20; ++i) maze.words({0xd503201f});
  ElfBuilder builder = plain_python();
  builder.function("maze", maze.add(0, 19, 0x100).call(kSignal).check().ret());
  const auto result = inspect(builder.build());
  ASSERT_TRUE(result.ok());
}

struct Site {
  SiteKind kind;
  uint64_t address;
  bool operator==(const Site&) const = default;
};

struct KnownBuild {
  const char* name;
  const char* build_id;
  std::vector<Site> sites;  // sorted by address
};

constexpr SiteKind kW = SiteKind::wait, kA = SiteKind::acquire, kR = SiteKind::release,
                   kF = SiteKind::forced;

// Compared with a list of every `bl` to the three functions in objdump's output, where the store or
// the offset right before each call says what it is.
const std::vector<KnownBuild>& known_builds() {
  static const std::vector<KnownBuild> builds = {
      {"bookworm static 3.11.2",
       "7137f6a41036431000fccbd8b4005f5c2f83b182",
       {{kA, 0x472c70},
        {kA, 0x472d18},
        {kW, 0x472ddc},
        {kR, 0x4a5384},
        {kF, 0x4a53ec},
        {kR, 0x533ce4},
        {kF, 0x533f8c},
        {kR, 0x543e18},
        {kF, 0x543edc},
        {kR, 0x5521a4},
        {kF, 0x55240c},
        {kR, 0x5e0e80},
        {kF, 0x5e0eec},
        {kR, 0x5fc7d0},
        {kF, 0x5fca80}}},
      {"bookworm libpython 3.11.2",
       "8b163e0100af833d76616e8f1a75ab78d2a1ba79",
       {{kR, 0x25c620}, {kF, 0x25c6fc}, {kW, 0x25ca24}, {kW, 0x25ca98}, {kA, 0x25cb38}}},
      {"bullseye static 3.9.2",
       "59b8434d5325093840b2cb4ddf970fb303afeffc",
       {{kA, 0x474c70},
        {kA, 0x474d40},
        {kW, 0x474e64},
        {kW, 0x474f00},
        {kR, 0x4bbcb4},
        {kF, 0x4bbd1c},
        {kR, 0x4e054c},
        {kF, 0x4e0690},
        {kR, 0x4e084c},
        {kR, 0x4f0d38},
        {kF, 0x4f0dfc},
        {kR, 0x5993e0},
        {kF, 0x59944c},
        {kR, 0x5a44c4},
        {kF, 0x5a473c}}},
      {"bullseye libpython 3.9.2",
       "8f4485c1c86960ef2474cb34785e6576ad967421",
       {{kR, 0x19a250}, {kF, 0x19a32c}, {kW, 0x19a654}, {kW, 0x19a6c8}, {kA, 0x19a770}}},
      {"sid static 3.13.18",
       "844309570bfad86bc0b82ed436dd91525861ada8",
       {{kA, 0x4964b4}, {kW, 0x496708}, {kA, 0x496770}, {kR, 0x4de3a4}, {kF, 0x4de408},
        {kR, 0x5b2558}, {kF, 0x5b2a80}, {kR, 0x5bc298}, {kF, 0x5bc96c}, {kR, 0x5c2b64},
        {kF, 0x5c2e14}, {kR, 0x5c321c}, {kF, 0x5c34d8}, {kR, 0x5c57ec}, {kR, 0x5c5970},
        {kF, 0x5c5a6c}, {kF, 0x5c5b18}, {kR, 0x5e18ac}, {kF, 0x5e1ad8}, {kF, 0x5e1c08},
        {kR, 0x5e1ce8}, {kR, 0x5f5ce4}, {kF, 0x5f60c4}, {kR, 0x659dac}, {kF, 0x65a0b0},
        {kR, 0x6a39c4}, {kF, 0x6a3a24}, {kR, 0x6a3b4c}, {kF, 0x6a3bcc}}},
      {"sid static 3.14.10",
       "b8bd16827deec84b902947d3cb5cdb53624b4be7",
       {{kA, 0x4b62e0}, {kW, 0x4b64a0}, {kA, 0x4b6564}, {kR, 0x4ff158}, {kF, 0x4ff1c0},
        {kR, 0x5e2160}, {kF, 0x5e26e8}, {kR, 0x5f43d4}, {kR, 0x5f4584}, {kF, 0x5f46d0},
        {kF, 0x5f48d0}, {kR, 0x604538}, {kF, 0x604828}, {kR, 0x604a50}, {kF, 0x604aa4},
        {kR, 0x65820c}, {kF, 0x658598}, {kR, 0x69a270}, {kF, 0x69a2d4}, {kR, 0x69a3b8},
        {kR, 0x6c7b78}, {kF, 0x6c7f94}}},
      {"sid static 3.15.2",
       "250c7c5cc4d4bb069e89c1546031a7ff7db0b609",
       {{kA, 0x4df21c}, {kW, 0x4df410}, {kA, 0x4df554}, {kR, 0x53319c}, {kF, 0x533204},
        {kR, 0x628524}, {kF, 0x628a58}, {kR, 0x636844}, {kR, 0x63697c}, {kF, 0x636ac0},
        {kF, 0x636bac}, {kR, 0x6466ec}, {kF, 0x646960}, {kR, 0x646b2c}, {kF, 0x646ba8},
        {kR, 0x697990}, {kF, 0x697d68}, {kR, 0x6d4490}, {kF, 0x6d44f4}, {kR, 0x6d45e0},
        {kR, 0x6d78c0}, {kF, 0x6d7a10}, {kR, 0x7074fc}, {kF, 0x70786c}, {kR, 0x7079a4},
        {kF, 0x707c28}}},
      {"sid libpython 3.13.18",
       "bf41cf041fae5bf79ebe5bf07f0174d3021e9d90",
       {{kR, 0x2b62fc}, {kF, 0x2b63a0}, {kW, 0x2bc79c}, {kW, 0x2bc804}, {kA, 0x2bc940}}},
      {"sid libpython 3.14.10",
       "cf5da827494af201a5c263e67f0b95d40cac30d9",
       {{kR, 0x2e6b58},
        {kF, 0x2e6bf4},
        {kR, 0x2e6d10},
        {kF, 0x2e6d98},
        {kW, 0x2ea7a8},
        {kW, 0x2ea810},
        {kA, 0x2ea930},
        {kR, 0x2eadf8},
        {kF, 0x2eae80},
        {kR, 0x2eaf98},
        {kF, 0x2eb024},
        {kR, 0x2ebc8c},
        {kF, 0x2ebf7c}}},
      {"sid libpython 3.15.2",
       "08c3856b5606e54a83cd6b6498e13c3ef1739b5e",
       {{kR, 0x3259ac},
        {kF, 0x325a48},
        {kR, 0x325b84},
        {kF, 0x325c0c},
        {kW, 0x3267c4},
        {kW, 0x32682c},
        {kA, 0x326950},
        {kR, 0x326e5c},
        {kF, 0x326ee4},
        {kR, 0x32700c},
        {kF, 0x327098},
        {kR, 0x3c2f30},
        {kF, 0x3c2fb4}}},
      {"trixie static 3.13.5",
       "9e7f76dabfdf1c3b469670d23239b2f4cb2743d1",
       {{kA, 0x4801f4}, {kA, 0x4802f8}, {kW, 0x4803b4}, {kR, 0x4b4680}, {kF, 0x4b46ec},
        {kR, 0x55d7e4}, {kF, 0x55dd60}, {kR, 0x5677b0}, {kF, 0x567a78}, {kR, 0x56c3b4},
        {kF, 0x56c6d8}, {kR, 0x56e36c}, {kR, 0x56e508}, {kF, 0x56e610}, {kF, 0x56e6d4},
        {kR, 0x56f2bc}, {kR, 0x56f5f4}, {kF, 0x56f6ac}, {kF, 0x56f8e8}, {kR, 0x594684},
        {kF, 0x594bc8}, {kR, 0x5e3be4}, {kF, 0x5e3e9c}, {kR, 0x630524}, {kF, 0x630594}}},
      {"trixie libpython 3.13.5",
       "e071463cd9c6d4d4a5c8839ee2788e2048667bd6",
       {{kR, 0x2758dc},
        {kF, 0x27597c},
        {kR, 0x275ab0},
        {kF, 0x275b3c},
        {kW, 0x275d64},
        {kA, 0x275f00},
        {kR, 0x276444},
        {kF, 0x2764d0},
        {kR, 0x2765ec},
        {kF, 0x27667c},
        {kR, 0x2a5464},
        {kF, 0x2a54ec}}},
  };
  return builds;
}

// Regular files with a Python's name below one root of Debian's arm64 packages.
std::vector<fs::path> pythons_of(const fs::path& root) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const char* const folder : {"usr/bin", "usr/lib/aarch64-linux-gnu"}) {
    for (const auto& entry : fs::directory_iterator(root / folder, error)) {
      const std::string name = entry.path().filename().string();
      const bool library = name.starts_with("libpython3.") && name.find(".so") != std::string::npos;
      if ((library || name.starts_with("python3.")) && !entry.is_symlink(error) &&
          entry.is_regular_file(error)) {
        files.push_back(entry.path());
      }
    }
  }
  return files;
}

TEST(InterpretersArm64, EachCPythonIsProved) {
  size_t proved = 0, known = 0;
  std::error_code error;
  const fs::path roots = fs::path(GILTOP_SOURCE_DIR) / "build" / "interpreters";
  for (const auto& root : fs::directory_iterator(roots, error)) {
    if (!root.path().filename().string().starts_with("arm64-")) continue;
    for (const fs::path& path : pythons_of(root.path())) {
      SCOPED_TRACE(path.string());
      auto file = ElfFile::open(path.string());
      if (!file) continue;  // a script
      const auto inspection = inspect_elf(*file);
      ASSERT_TRUE(inspection.ok()) << inspection.error().message();
      EXPECT_EQ(inspection->machine, EM_AARCH64);
      ASSERT_EQ(inspection->kind, Inspection::Kind::cpython) << inspection->reason;
      ++proved;
      const CPythonFile& cpython = inspection->cpython;
      const uint32_t shift = cpython.free_threaded ? 8 : 0;
      EXPECT_EQ(cpython.cond_offset, kCond + shift);
      EXPECT_EQ(cpython.switch_cond_offset, kSwitchCond + shift);
      std::vector<Site> sites;
      for (const GilSite& site : cpython.sites) {
        sites.push_back({site.kind, site.address});
        const auto code = file->read(site.file_offset, 4);
        ASSERT_TRUE(code.ok());
        uint32_t word;
        std::memcpy(&word, code->data(), sizeof word);
        EXPECT_TRUE((word & 0xfc000000) == 0x94000000 || (word & 0xfffffc1f) == 0xd63f0000) << word;
      }
      for (const KnownBuild& build : known_builds()) {
        if (cpython.build_id != build.build_id) continue;
        ++known;
        EXPECT_EQ(sites, build.sites) << build.name;
      }
    }
  }
  if (proved == 0 && std::getenv("GILTOP_REQUIRE_INTERPRETERS")) FAIL() << "none was fetched";
  if (proved == 0) GTEST_SKIP() << "no arm64 interpreters in build/interpreters";
  RecordProperty("proved", static_cast<int>(proved));
  RecordProperty("known", static_cast<int>(known));
}

}  // namespace
}  // namespace giltop
