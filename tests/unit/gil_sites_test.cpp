// The GIL site finder against ELF files made for the purpose: each has one trait that a real build
// has somewhere (facts: CPython 3.6 to 3.15, Debian, pyenv, clang), or is broken on purpose.
#include "target/gil_sites.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "support/elf_builder.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

using testing::Code;
using testing::ElfBuilder;
using testing::Plt;
using enum testing::Reg;

constexpr const char* kTimedwait = "pthread_cond_timedwait";
constexpr const char* kSignal = "pthread_cond_signal";
constexpr const char* kWait = "pthread_cond_wait";
constexpr int kLocked = 0x10, kCond = 0x20, kSwitchCond = 0x78;  // bytes into the GIL's struct

// `shift`: where the register points relative to the GIL's start (a GIL inside _PyRuntime).
Code take_gil(int shift = 0) {
  Code code;
  code.raw({0x55})  // push %rbp
      .lea_rdi(r15, kCond + shift)
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .cmp_etimedout()
      .store(r15, kLocked + shift, 1)
      .raw({0x49, 0x83, 0x47, 0x18, 0x01})  // addq $1, 0x18(%r15)
      .lea_rdi(r15, kSwitchCond + shift)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret();
  return code;
}

void add_release(Code& code, testing::Reg base, int shift = 0) {
  code.store(base, kLocked + shift, 0)
      .lea_rdi(base, kCond + shift)
      .expect(SiteKind::release)
      .call(kSignal)
      .test_eax();
}

void add_forced(Code& code, testing::Reg base, int shift = 0) {
  code.lea_rdi(base, kSwitchCond + shift).expect(SiteKind::forced).call(kWait).test_eax();
}

Code drop_gil(testing::Reg base = rbx, int shift = 0) {
  Code code;
  add_release(code, base, shift);
  add_forced(code, base, shift);
  code.ret();
  return code;
}

// The exports that make a file a CPython, and its version as Py_Version has it.
constexpr uint64_t kVersionAt = 400;  // offset in the data
void export_python(ElfBuilder& builder) {
  builder.function("PyEval_SaveThread", Code().ret(), true)
      .export_data("_PyRuntime", 0, 256)
      .export_data("Py_Version", kVersionAt, 8);
}

ElfBuilder::Options options_for(uint32_t version_hex) {
  ElfBuilder::Options options;
  std::memcpy(options.data.data() + kVersionAt, &version_hex, sizeof version_hex);
  return options;
}

constexpr uint32_t k3_12_1 = 0x030c01f0;

ElfBuilder plain_python(ElfBuilder::Options options = options_for(k3_12_1)) {
  ElfBuilder builder(std::move(options));
  export_python(builder);
  builder.function("take_gil", take_gil()).function("drop_gil", drop_gil());
  return builder;
}

Result<Inspection> inspect(const std::vector<std::byte>& bytes) {
  auto file = ElfFile::make(Fd(testing::memory_file(bytes)));
  if (!file) return std::move(file).error();
  return inspect_elf(*file);
}

Inspection inspect_ok(ElfBuilder& builder) {
  auto result = inspect(builder.build());
  EXPECT_TRUE(result.ok()) << result.error().message();
  return result.ok() ? *result : Inspection{};
}

// What was found, in the form the builder expects it.
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
    text += std::string(to_string(site.kind)) + "@" + std::to_string(site.address) + "/" +
            std::to_string(site.length) + " ";
  }
  return text;
}

void expect_proved(ElfBuilder& builder, const Inspection& inspection) {
  EXPECT_EQ(inspection.kind, Inspection::Kind::cpython) << inspection.reason;
  EXPECT_EQ(describe(found(inspection)), describe(builder.expected()));
  EXPECT_EQ(found(inspection), builder.expected());
}

void expect_proved(ElfBuilder& builder) { expect_proved(builder, inspect_ok(builder)); }

void expect_refused(ElfBuilder& builder, const std::string& part_of_reason) {
  const Inspection inspection = inspect_ok(builder);
  EXPECT_EQ(inspection.kind, Inspection::Kind::refused);
  EXPECT_NE(inspection.reason.find(part_of_reason), std::string::npos) << inspection.reason;
  EXPECT_EQ(inspection.reason.find('\n'), std::string::npos);
}

TEST(GilSites, EveryKindOfPlt) {
  for (const Plt plt : {Plt::lazy, Plt::secure, Plt::got, Plt::none, Plt::bnd_call}) {
    SCOPED_TRACE(static_cast<int>(plt));
    auto options = options_for(k3_12_1);
    options.plt = plt;
    ElfBuilder builder = plain_python(options);
    const Inspection inspection = inspect_ok(builder);
    expect_proved(builder, inspection);
    EXPECT_EQ(inspection.cpython.version, "3.12.1");
    EXPECT_EQ(inspection.cpython.major, 3);
    EXPECT_EQ(inspection.cpython.minor, 12);
    EXPECT_EQ(inspection.cpython.build_id, "abcdef01");
    EXPECT_FALSE(inspection.cpython.free_threaded);
    EXPECT_EQ(inspection.cpython.cond_offset, 0x20u);
    EXPECT_EQ(inspection.cpython.switch_cond_offset, 0x78u);
  }
}

TEST(GilSites, WithoutSectionHeaders) {
  auto options = options_for(k3_12_1);
  options.sections = false;
  ElfBuilder builder = plain_python(options);
  expect_proved(builder);
}

TEST(GilSites, SitesKnowTheirFunction) {
  ElfBuilder builder = plain_python();
  const Inspection inspection = inspect_ok(builder);
  ASSERT_EQ(inspection.cpython.sites.size(), 4u);
  const auto& sites = inspection.cpython.sites;
  EXPECT_EQ(sites[0].function, sites[1].function);
  EXPECT_EQ(sites[2].function, sites[3].function);
  EXPECT_LT(sites[1].function, sites[2].function);
}

// What proves each site, in order of address, and the number of the site it was compared with.
using Proofs = std::vector<std::pair<SiteProof, std::optional<size_t>>>;
Proofs proofs_of(ElfBuilder& builder) {
  const Inspection inspection = inspect_ok(builder);
  const auto& sites = inspection.cpython.sites;
  Proofs proofs;
  for (const GilSite& site : sites) {
    std::optional<size_t> witness;
    for (size_t i = 0; i < sites.size(); ++i) {
      if (sites[i].address == site.witness) witness = i;
    }
    EXPECT_EQ(site.witness != 0, witness.has_value()) << "the witness is a site itself";
    proofs.emplace_back(site.proof, witness);
  }
  return proofs;
}

TEST(GilSites, SitesKnowTheirProof) {
  using enum SiteProof;
  ElfBuilder plain = plain_python();
  EXPECT_EQ(proofs_of(plain),
            (Proofs{{beside, 1}, {flag_constant, {}}, {flag_constant, {}}, {beside, 2}}));

  // As below: a spilled wait, a spilled second acquire; a release and a forced switch elsewhere,
  // whose GIL is in another register; one of each whose argument cannot be followed.
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  Code take;
  take.load_rdi(rsp, 0x18).call(kTimedwait).cmp_etimedout();
  take.store(r15, kLocked, 1).lea_rdi(r15, kSwitchCond).call(kSignal).test_eax().ret();
  take.lea_rdi(r15, kSwitchCond).call(kSignal).test_eax().ret();
  take.load_rdi(rsp, 0x20).call(kSignal).test_eax().ret();
  builder.function("take_gil", take);
  Code drop;
  add_release(drop, r12);
  drop.ret();
  builder.function("drop_gil", drop);
  Code cold;
  cold.lea_rdi(rbp, kCond).call(kSignal).test_eax().ret();
  cold.lea_rdi(rbp, kSwitchCond).call(kWait).test_eax().ret();
  builder.function("drop_gil.cold", cold);
  Code spilled;
  spilled.load_rdi(rsp, 0x28).call(kSignal).test_eax();
  spilled.load_rdi(rsp, 0x30).call(kWait).test_eax().ret();
  builder.function("spilled", spilled);
  EXPECT_EQ(proofs_of(builder), (Proofs{{function, {}},
                                        {flag_constant, {}},
                                        {flag_constant, {}},
                                        {function, {}},
                                        {flag_constant, {}},
                                        {same_offset, 4},
                                        {beside, 5},
                                        {function, {}},
                                        {callee, {}}}));
}

TEST(GilSites, GilInsideRuntimeAndInlinedCopies) {
  ElfBuilder builder(options_for(0x030b02f0));
  export_python(builder);
  builder.function("take_gil", take_gil(0x168)).function("drop_gil", drop_gil(rbx, 8));
  // Copies with the GIL at a fixed address, as static builds have them: both ways to name it.
  Code save;
  save.store_data(kLocked + 0x40, 0)
      .mov_edi_data(kCond + 0x40)
      .expect(SiteKind::release)
      .call(kSignal)
      .test_eax()
      .mov_edi_data(kSwitchCond + 0x40)
      .expect(SiteKind::forced)
      .call(kWait)
      .test_eax()
      .ret();
  builder.function("os_stat", save);
  Code read;
  read.lea_rdi_data(kCond + 0x40)  // no store near: the address alone proves it
      .expect(SiteKind::release)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("os_read", read);
  expect_proved(builder);
  const Proofs proofs = proofs_of(builder);
  ASSERT_EQ(proofs.size(), 7u);
  EXPECT_EQ(proofs[4], Proofs::value_type(SiteProof::flag_constant, std::nullopt));
  EXPECT_EQ(proofs[5], Proofs::value_type(SiteProof::beside, 4));
  EXPECT_EQ(proofs[6], Proofs::value_type(SiteProof::same_argument, 4));
}

TEST(GilSites, ColdPart) {
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  builder.function("take_gil", take_gil());
  Code hot;
  add_release(hot, rbx);
  hot.raw({0xe9, 0, 0, 0, 0});  // jmp to the cold part
  builder.function("drop_gil", hot);
  Code cold;
  add_forced(cold, rbx);
  builder.function("drop_gil.cold", cold);
  expect_proved(builder);
}

TEST(GilSites, TwoAcquiresAndSpilledArguments) {
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  Code take;
  take.load_rdi(rsp, 0x18)  // the address of cond, spilled: only the function tells
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .cmp_etimedout()
      .store(r15, kLocked, 1)
      .lea_rdi(r15, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret()
      .load_rdi(rsp, 0x20)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("take_gil", take);
  builder.function("drop_gil", drop_gil(r12));
  expect_proved(builder);
}

TEST(GilSites, ArgumentThroughAnotherRegister) {
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  builder.function("take_gil", take_gil());
  Code drop;
  drop.store(rbx, kLocked, 0)
      .raw({0x48, 0x8d, 0x6b, kCond})  // lea 0x20(%rbx), %rbp
      .mov_reg(rdi, rbp)
      .expect(SiteKind::release)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("drop_gil", drop);
  expect_proved(builder);
}

// CPython 3.9 to 3.13: take_gil of a thread that must exit drops the GIL again.
TEST(GilSites, ReleaseInsideTakeGil) {
  ElfBuilder builder(options_for(0x030d00f0));
  export_python(builder);
  Code take = take_gil();
  add_release(take, r15);
  take.ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);
}

TEST(GilSites, JumpBetweenArgumentAndCallMakesItUnknown) {
  // Two ways lead to one call: the instruction before it does not tell the argument. In take_gil it
  // counts as an acquire by the function rule, and its address is still right.
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  Code take = take_gil();
  take.raw({0x74, 0x07})  // je over the lea of 7 bytes
      .lea_rdi(r15, kCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);
}

TEST(GilSites, UnoptimizedTimedwaitHasItsOwnFunction) {
  ElfBuilder builder(options_for(0x030b02f0));
  export_python(builder);
  Code wrapper;
  wrapper.mov_reg(rdi, rbx).expect(SiteKind::wait).call(kTimedwait).cmp_etimedout().ret();
  builder.function("PyCOND_TIMEDWAIT", wrapper);
  Code take;
  take.store(rbx, kLocked, 1)
      .lea_rdi(rbx, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);
}

TEST(GilSites, DecoysAreLeftOut) {
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  builder.function("take_gil", take_gil()).function("drop_gil", drop_gil());
  Code unchecked;  // most programs ignore the result
  unchecked.lea_rdi(rbx, kCond).call(kSignal).raw({0x31, 0xc0}).ret();
  builder.function("unchecked", unchecked);
  Code member;  // another struct
  member.store(rbx, 0x30, 0).lea_rdi(rbx, 0x48).call(kSignal).test_eax().ret();
  builder.function("member", member);
  Code pointer;  // a condition variable behind a pointer
  pointer.load_rdi(rbx, kCond).call(kSignal).test_eax().ret();
  builder.function("pointer", pointer);
  Code global;
  global.lea_rdi_data(0x100).call(kSignal).test_eax().ret();
  builder.function("global", global);
  Code tcl;  // Tcl_ConditionWait: has its own timedwait, and even looks at the result
  tcl.mov_reg(rdi, rbx).call(kTimedwait).cmp_etimedout().mov_reg(rdi, rbx).ret();
  builder.function("Tcl_ConditionWait", tcl);
  Code waits;
  waits.lea_rdi(rbx, 0x48).call(kWait).test_eax().ret();
  builder.function("waits", waits);
  expect_proved(builder);
}

TEST(GilSites, CallBytesInsideAnotherInstruction) {
  // Build once to learn where the first stub is, then plant an E8 that leads there in an immediate.
  ElfBuilder probe = plain_python();
  probe.build();
  const auto call_at = probe.expected()[1].address;  // the acquire: a call of pthread_cond_signal
  ElfBuilder builder = plain_python();
  const auto bytes = builder.build();
  int32_t displacement;
  std::memcpy(&displacement, bytes.data() + probe.expected()[1].file_offset + 1, 4);
  const uint64_t stub = call_at + 5 + static_cast<uint64_t>(int64_t{displacement});
  for (int round = 0; round < 2; ++round) {
    static uint64_t decoy_at = 0;
    ElfBuilder planted = plain_python();
    // movabs $imm64, %rax whose immediate is "e8 rel32 85 c0 90".
    const auto rel = static_cast<uint32_t>(stub - (decoy_at + 2 + 5));
    planted.function(
        "decoy", Code()
                     .raw({0x48, 0xb8, 0xe8, static_cast<int>(rel & 0xff),
                           static_cast<int>(rel >> 8 & 0xff), static_cast<int>(rel >> 16 & 0xff),
                           static_cast<int>(rel >> 24), 0x85, 0xc0, 0x90})
                     .ret());
    const auto image = planted.build();
    const std::byte kMovabs[] = {std::byte{0x48}, std::byte{0xb8}, std::byte{0xe8}};
    const auto at = std::search(image.begin(), image.end(), std::begin(kMovabs), std::end(kMovabs));
    ASSERT_NE(at, image.end());
    decoy_at = 0x400000 + static_cast<uint64_t>(at - image.begin());
    if (round == 0) continue;
    const auto result = inspect(image);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(found(*result), planted.expected());
  }
}

// clang's -fno-plt: the function's address is loaded once and called through a register.
TEST(GilSites, CallThroughRegister) {
  auto options = options_for(k3_12_1);
  options.plt = Plt::none;
  ElfBuilder builder(options);
  export_python(builder);
  Code take;
  take.load_slot(rbx, kTimedwait)
      .expect_here(SiteKind::wait, 2)
      .raw({0xff, 0xd3})  // call *%rbx
      .cmp_etimedout()
      .load_slot(rbx, kSignal)
      .store(r15, kLocked, 1)
      .raw({0x74, 0x12})  // je to the second copy: lea 7, call 2, test and jne 6, jmp 2, 1
      .lea_rdi(r15, kSwitchCond)
      .expect_here(SiteKind::acquire, 2)
      .raw({0xff, 0xd3})
      .test_eax()
      .raw({0xeb, 0x0f, 0x90})
      .lea_rdi(r15, kSwitchCond)
      .expect_here(SiteKind::acquire, 2)
      .raw({0xff, 0xd3})
      .test_eax()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  expect_proved(builder);

  // The same register holds something else on one of the ways to the call: refused.
  Code mixed;
  mixed.load_slot(rbx, kSignal)
      .raw({0x74, 0x03, 0x48, 0x31, 0xdb})  // je over: xor %rbx,%rbx
      .raw({0xff, 0xd3})
      .ret();
  builder.function("mixed", mixed);
  expect_refused(builder, "through a register");
}

// Where the kernel would single-step a call, an instruction before it is probed.
class EarlierPlaces : public ::testing::Test {
 protected:
  // A take_gil up to where its tests go on, the GIL in `base`.
  static Code begun(testing::Reg base = r15) {
    Code code;
    code.lea_rdi(base, kCond).expect(SiteKind::wait).call(kTimedwait).cmp_etimedout();
    code.store(base, kLocked, 1).ret();
    return code;
  }
  // The acquire of it.
  static GilSite acquire(Code take, testing::Reg base = r15, Plt plt = Plt::none) {
    auto options = options_for(k3_12_1);
    options.plt = plt;
    ElfBuilder builder(options);
    export_python(builder);
    take.lea_rdi(base, kSwitchCond).expect(SiteKind::acquire).call(kSignal).test_eax().ret();
    builder.function("take_gil", take).function("drop_gil", drop_gil());
    const Inspection inspection = inspect_ok(builder);
    expect_proved(builder, inspection);
    for (const GilSite& site : inspection.cpython.sites) {
      if (site.kind == SiteKind::acquire) return site;
    }
    return {};
  }
  // Bytes from the probe to the call; 0: the call itself is probed, single-stepped.
  static uint64_t distance(const GilSite& site) {
    EXPECT_EQ(site.address - site.probe.address, site.file_offset - site.probe.file_offset);
    EXPECT_EQ(site.probe.emulated, site.probe.address != site.address);
    EXPECT_EQ(site.probe.emulated, site.probe.base != GilBase::argument);
    return site.address - site.probe.address;
  }
  static constexpr int kLea = 7;  // bytes of lea disp32(base),%rdi
};

TEST_F(EarlierPlaces, ADirectCallIsProbedItself) {
  const GilSite site = acquire(begun().raw({0x90}), r15, Plt::lazy);
  EXPECT_EQ(site.probe.address, site.address);
  EXPECT_TRUE(site.probe.emulated);
  EXPECT_EQ(site.probe.base, GilBase::argument);
  EXPECT_EQ(site.probe.below, kSwitchCond);
}

TEST_F(EarlierPlaces, BeforeAnIf) {
  // je over addq $1,0x18(%r15)
  const GilSite site = acquire(begun().raw({0x74, 0x05, 0x49, 0x83, 0x47, 0x18, 0x01}));
  EXPECT_EQ(distance(site), 7u + kLea);
  EXPECT_EQ(site.probe.base, GilBase::r15);
  EXPECT_EQ(site.probe.below, 0);
  // In another register, which points elsewhere.
  EXPECT_EQ(acquire(begun(rbx).raw({0x74, 0x01, 0x50}), rbx).probe.base, GilBase::rbx);
}

TEST_F(EarlierPlaces, TheRegisterMustLast) {
  // mov %r14,%r15 behind the nop
  EXPECT_EQ(distance(acquire(begun().raw({0x90, 0x4d, 0x89, 0xf7}))), 0u);
  EXPECT_EQ(distance(acquire(begun().raw({0x90, 0x4d, 0x89, 0xfe}))), 4u + kLea);  // the other way
  EXPECT_EQ(distance(acquire(begun(rsi).raw({0x90}), rsi)), 0u);  // a call may change it
}

TEST_F(EarlierPlaces, NothingThatMayLeadElsewhere) {
  // nop; je past the call: what is before it may not lead there.
  EXPECT_EQ(distance(acquire(begun().raw({0x90, 0x74, 0x20}))), 0u);
  // nop; test: the call behind is reached by a branch of somebody else.
  EXPECT_EQ(distance(acquire(begun().raw({0xeb, 0x01, 0x90, 0x85, 0xc0}))), 0u);
  // Backwards: a loop of unknown length.
  EXPECT_EQ(distance(acquire(begun().raw({0x90, 0x85, 0xc0, 0x75, 0xfc}))), 0u);
  // A call may wait for a mutex: not what is before it, nor itself.
  EXPECT_EQ(distance(acquire(begun().raw({0x90, 0xe8, 0, 0, 0, 0}))), 0u);
}

TEST_F(EarlierPlaces, BehindTheLock) {
  const auto locked = [](const char* callee, int jcc) {
    return begun().raw({0x90}).call(callee).raw({0x85, 0xc0, jcc, 0x30}).store(r15, kLocked, 1);
  };
  constexpr int kJne = 0x75, kJe = 0x74, kStore = 11;
  EXPECT_EQ(distance(acquire(locked("pthread_mutex_lock", kJne))), 2u + kStore + kLea);
  EXPECT_EQ(distance(acquire(locked("pthread_mutex_lock", kJe))), 0u);
  EXPECT_EQ(distance(acquire(locked("pthread_mutex_trylock", kJne))), 0u);
}

TEST_F(EarlierPlaces, AWaitIsToldBeforeTheCallThatMakesItsTime) {
  auto options = options_for(k3_12_1);
  options.plt = Plt::none;
  ElfBuilder builder(options);
  export_python(builder);
  Code take;
  take.raw({0x31, 0xc0, 0x67, 0xe8, 0, 0, 0, 0})  // xor %eax,%eax; addr32 call, as linkers relax to
      .lea_rdi(r15, kCond)
      .expect(SiteKind::wait)
      .call(kTimedwait)
      .cmp_etimedout()
      .store(r15, kLocked, 1)
      .lea_rdi(r15, kSwitchCond)
      .expect(SiteKind::acquire)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil());
  const Inspection inspection = inspect_ok(builder);
  expect_proved(builder, inspection);
  EXPECT_EQ(distance(inspection.cpython.sites.front()), 6u + kLea);
}

TEST_F(EarlierPlaces, AGilInStaticDataIsCountedFromTheCode) {
  auto options = options_for(k3_12_1);
  options.plt = Plt::none;
  ElfBuilder builder(options);
  export_python(builder);
  Code take, drop;
  take.lea_rdi_data(kCond).expect(SiteKind::wait).call(kTimedwait).cmp_etimedout();
  take.store_data(kLocked, 1).lea_rdi_data(kSwitchCond).expect(SiteKind::acquire).call(kSignal);
  take.test_eax().ret();
  drop.store_data(kLocked, 0).lea_rdi_data(kCond).expect(SiteKind::release).call(kSignal);
  drop.test_eax().raw({0x90}).lea_rdi_data(kSwitchCond).expect(SiteKind::forced).call(kWait);
  drop.test_eax().ret();
  builder.function("take_gil", take).function("drop_gil", drop);
  const Inspection inspection = inspect_ok(builder);
  expect_proved(builder, inspection);
  std::optional<uint64_t> gil;
  for (const GilSite& site : inspection.cpython.sites) {
    if (!site.probe.emulated) continue;
    EXPECT_EQ(site.probe.base, GilBase::code);
    const uint64_t named = site.probe.address - static_cast<uint64_t>(int64_t{site.probe.below});
    EXPECT_EQ(gil.value_or(named), named) << "each names the same GIL";
    gil = named;
  }
  EXPECT_EQ(gil, inspection.cpython.runtime_address);  // at the start of the data
}

// clang adds to the pointer in place: add $0x78,%rbx; mov %rbx,%rdi.
TEST(GilSites, ArgumentByAddition) {
  ElfBuilder builder(options_for(k3_12_1));
  export_python(builder);
  builder.function("take_gil", take_gil());
  Code drop;
  drop.store(rbx, kLocked, 0)
      .raw({0x48, 0x83, 0xc3, kCond})  // add $0x20,%rbx
      .mov_reg(rdi, rbx)
      .expect(SiteKind::release)
      .call(kSignal)
      .test_eax()
      .ret();
  builder.function("drop_gil", drop);
  expect_proved(builder);
}

TEST(GilSites, FunctionsWithoutUnwindEntries) {
  ElfBuilder::Options options = options_for(k3_12_1);
  options.empty_eh_frame = true;
  ElfBuilder builder = plain_python(options);
  expect_refused(builder, ".eh_frame has no function that holds the calls");
}

// 3.6: gil_cond, switch_cond and gil_locked are variables of their own.
TEST(GilSites, Python36Statics) {
  for (const bool cond_first : {true, false}) {
    const uint64_t cond = cond_first ? 0x10 : 0x90, switch_cond = cond_first ? 0x90 : 0x10;
    ElfBuilder::Options options;
    options.soname = "libpython3.6m.so.1.0";
    ElfBuilder builder(options);
    builder.function("PyEval_SaveThread", Code().ret(), true)
        .function("Py_InitializeEx", Code().ret(), true)
        .function("Py_GetVersion", Code().lea_rdi_text("3.6.15").ret(), true);
    Code drop;
    drop.lea_rdi_data(cond)
        .expect(SiteKind::release)
        .call(kSignal)
        .test_eax()
        .lea_rdi_data(switch_cond)
        .expect(SiteKind::forced)
        .call(kWait)
        .test_eax()
        .ret();
    builder.function("drop_gil", drop);
    Code take;
    take.mov_reg(rdi, rbp)
        .expect(SiteKind::wait)
        .call(kTimedwait)
        .cmp_etimedout()
        .lea_rdi_data(switch_cond)
        .expect(SiteKind::acquire)
        .call(kSignal)
        .test_eax()
        .ret();
    builder.function("take_gil", take);
    const Inspection inspection = inspect_ok(builder);
    expect_proved(builder, inspection);
    EXPECT_EQ(proofs_of(builder), (Proofs{{SiteProof::variable, {}},
                                          {SiteProof::variable, {}},
                                          {SiteProof::function, {}},
                                          {SiteProof::variable, {}}}));
    EXPECT_EQ(inspection.cpython.version, "3.6.15");
    EXPECT_EQ(inspection.cpython.cond_offset, cond_first ? 0u : 0x80u);
    EXPECT_EQ(inspection.cpython.switch_cond_offset, cond_first ? 0x80u : 0u);
  }
}

TEST(GilSites, FreeThreaded) {
  auto options = options_for(0x030e00f0);
  std::memcpy(options.data.data(), "xdebugpy", 8);
  options.data[16] = 1;  // _Py_DebugOffsets.free_threaded
  ElfBuilder builder(options);
  export_python(builder);
  constexpr int kEnabled = 8;  // `int enabled` comes first and moves the rest
  Code take = take_gil(kEnabled);
  // The GIL was switched off meanwhile: take_gil passes the signal on, and releases nothing.
  take.lea_rdi(r15, kCond + kEnabled).expect(SiteKind::gave_up).call(kSignal).test_eax().ret();
  builder.function("take_gil", take).function("drop_gil", drop_gil(rbx, kEnabled));
  const Inspection inspection = inspect_ok(builder);
  expect_proved(builder, inspection);
  EXPECT_TRUE(inspection.cpython.free_threaded);
  EXPECT_EQ(inspection.cpython.cond_offset, 0x28u);
  EXPECT_EQ(inspection.cpython.switch_cond_offset, 0x80u);
}

TEST(GilSites, FreeThreadedByItsExports) {
  ElfBuilder builder = plain_python(options_for(0x030e00f0));
  builder.function("_Py_MergeZeroLocalRefcount", Code().ret(), true);
  EXPECT_TRUE(inspect_ok(builder).cpython.free_threaded);
}

TEST(GilSites, PreReleaseVersion) {
  ElfBuilder builder = plain_python(options_for(0x030f00c2));
  EXPECT_EQ(inspect_ok(builder).cpython.version, "3.15.0rc2");
}

TEST(GilSites, VersionWithoutPyVersion) {
  const auto python = [](ElfBuilder::Options options) {
    ElfBuilder builder(std::move(options));
    builder.function("PyEval_SaveThread", Code().ret(), true)
        .function("Py_InitializeEx", Code().ret(), true)
        .function("take_gil", take_gil())
        .function("drop_gil", drop_gil());
    return builder;
  };
  ElfBuilder by_code = python({});
  by_code.rodata("/opt/python-3.7.1")
      .function("Py_GetVersion", Code().lea_rdi_text("%.80s (%s)").lea_rdi_text("3.9.18+").ret(),
                true);
  EXPECT_EQ(inspect_ok(by_code).cpython.version, "3.9.18+");

  ElfBuilder::Options named;
  named.soname = "libpython3.10.so.1.0";
  ElfBuilder by_soname = python(named);
  EXPECT_EQ(inspect_ok(by_soname).cpython.version, "3.10");

  ElfBuilder by_tag = python({});
  by_tag.rodata("cpython-38");
  EXPECT_EQ(inspect_ok(by_tag).cpython.version, "3.8");
  EXPECT_EQ(inspect_ok(by_tag).cpython.minor, 8);

  ElfBuilder unknown = python({});
  expect_refused(unknown, "unknown version");
}

TEST(GilSites, RefusesWhatIsNoCPython3) {
  ElfBuilder python2({});
  python2.function("PyEval_SaveThread", Code().ret(), true)
      .function("Py_InitializeEx", Code().ret(), true)
      .function("PyString_FromString", Code().ret(), true)
      .function("Py_GetVersion", Code().lea_rdi_text("2.7.18").ret(), true);
  expect_refused(python2, "this is Python 2.7.18; giltop reads CPython 3.6 and newer");

  ElfBuilder python35({});
  python35.function("PyEval_SaveThread", Code().ret(), true)
      .function("Py_InitializeEx", Code().ret(), true)
      .function("Py_GetVersion", Code().lea_rdi_text("3.5.10").ret(), true);
  expect_refused(python35, "this is Python 3.5.10; giltop reads CPython 3.6 and newer");

  ElfBuilder pypy({});
  pypy.function("pypy_main_startup", Code().ret(), true);
  expect_refused(pypy, "PyPy");
  ElfBuilder::Options named;
  named.soname = "libpypy3.11-c.so";
  ElfBuilder libpypy(named);
  expect_refused(libpypy, "PyPy");
}

TEST(GilSites, RefusesWhatCannotBeProved) {
  const auto without = [](const char* kind) {
    ElfBuilder builder(options_for(k3_12_1));
    export_python(builder);
    builder.import(kTimedwait).import(kSignal).import(kWait);
    Code take, drop;
    const std::string missing = kind;
    if (missing != "wait") take.lea_rdi(r15, kCond).call(kTimedwait).cmp_etimedout();
    take.store(r15, kLocked, 1).lea_rdi(r15, kSwitchCond);
    if (missing != "acquire") take.call(kSignal).test_eax();
    if (missing != "release") add_release(drop, rbx);
    builder.function("take_gil", take.ret()).function("drop_gil", drop.ret());
    return builder;
  };
  for (const char* kind : {"wait", "acquire", "release"}) {
    ElfBuilder builder = without(kind);
    SCOPED_TRACE(kind);
    // Without its acquire, nothing tells a timedwait from somebody else's.
    expect_refused(builder, std::string(kind) == "acquire"
                                ? "no acquire site found"
                                : "no " + std::string(kind) + " site found");
  }
  auto no_frames = options_for(k3_12_1);
  no_frames.eh_frame = false;
  ElfBuilder frameless = plain_python(no_frames);
  expect_refused(frameless, "no .eh_frame");

  auto no_relocations = options_for(k3_12_1);
  no_relocations.relocations = false;
  ElfBuilder statically = plain_python(no_relocations);
  expect_refused(statically, "not called through the PLT or GOT");

  // A layout of which nothing shows where the condition variables lie.
  ElfBuilder opaque(options_for(k3_12_1));
  export_python(opaque);
  opaque.function("take_gil", Code()
                                  .load_rdi(rsp, 8)
                                  .call(kTimedwait)
                                  .cmp_etimedout()
                                  .load_rdi(rsp, 16)
                                  .call(kSignal)
                                  .test_eax()
                                  .ret());
  opaque.function(
      "drop_gil",
      Code().load_rdi(rsp, 8).call(kSignal).test_eax().load_rdi(rsp, 8).call(kWait).ret());
  expect_refused(opaque, "no call shows where");
}

TEST(GilSites, OtherPrograms) {
  const auto threaded = [](bool interpreter) {
    ElfBuilder::Options options;
    options.interpreter = interpreter;
    ElfBuilder builder(options);
    builder.function("take", take_gil()).function("drop", drop_gil());
    return builder;
  };
  ElfBuilder program = threaded(true);
  EXPECT_EQ(inspect_ok(program).kind, Inspection::Kind::launcher);
  ElfBuilder library = threaded(false);
  EXPECT_EQ(inspect_ok(library).kind, Inspection::Kind::unrelated);

  // An extension module imports the API, and does not define it.
  ElfBuilder extension = threaded(false);
  extension.import("PyEval_SaveThread").import("_PyRuntime").import("Py_InitializeEx");
  EXPECT_EQ(inspect_ok(extension).kind, Inspection::Kind::unrelated);

  // A CPython whose exports are gone is not passed over.
  ElfBuilder hidden = threaded(true);
  hidden.rodata("cpython-312");
  expect_refused(hidden, "exports none of its symbols");
}

TEST(GilSites, ThirtyTwoBit) {
  // The least that says "CPython": PT_LOAD and PT_DYNAMIC, two symbols, a DT_SONAME.
  std::vector<std::byte> bytes(0x400);
  const auto put = [&](size_t at, const auto& value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
  };
  const std::string strings("\0PyEval_SaveThread\0Py_InitializeEx\0libpython3.9.so.1.0\0", 55);
  std::memcpy(bytes.data() + 0x180, strings.data(), strings.size());
  Elf32_Sym symbols[3] = {};
  symbols[1].st_name = 1, symbols[1].st_shndx = 1;
  symbols[2].st_name = 19, symbols[2].st_shndx = 1;
  put(0x150, symbols);
  const Elf32_Dyn dynamic[] = {{DT_SYMTAB, {0x150}},
                               {DT_STRTAB, {0x180}},
                               {DT_STRSZ, {static_cast<Elf32_Word>(strings.size())}},
                               {DT_SONAME, {35}},
                               {DT_NULL, {0}}};
  put(0x200, dynamic);
  const Elf32_Phdr segments[] = {{PT_LOAD, 0, 0, 0, 0x400, 0x400, PF_R, 4096},
                                 {PT_DYNAMIC, 0x200, 0x200, 0, sizeof dynamic, 0, PF_R, 8}};
  put(0x40, segments);
  Elf32_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS32;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_machine = EM_386;
  header.e_phoff = 0x40, header.e_phnum = 2, header.e_phentsize = sizeof(Elf32_Phdr);
  put(0, header);
  const auto result = inspect(bytes);
  ASSERT_TRUE(result.ok()) << result.error().message();
  EXPECT_EQ(result->kind, Inspection::Kind::refused);
  EXPECT_NE(result->reason.find("32-bit"), std::string::npos) << result->reason;
}

TEST(GilSites, NotElfOrOfAnotherMachine) {
  EXPECT_FALSE(inspect({}).ok());
  EXPECT_FALSE(inspect(std::vector<std::byte>(4096)).ok());
  ElfBuilder builder = plain_python();
  auto bytes = builder.build();
  const uint16_t riscv = EM_RISCV;
  std::memcpy(bytes.data() + offsetof(Elf64_Ehdr, e_machine), &riscv, sizeof riscv);
  const auto result = inspect(bytes);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.error().message().find("another machine"), std::string::npos);
}

TEST(ElfFile, EntryPointAndSegments) {
  ElfBuilder builder = plain_python();
  auto file = ElfFile::make(Fd(testing::memory_file(builder.build())));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->is_64bit());
  EXPECT_TRUE(file->is_dynamic());
  ASSERT_TRUE(file->entry_file_offset().has_value());
  EXPECT_LT(*file->entry_file_offset(), file->size());
  EXPECT_FALSE(file->file_offset(0).has_value());
  EXPECT_EQ(file->file_offset(0x400010), std::optional<uint64_t>(0x10));
  EXPECT_FALSE(file->read(file->size(), 1).ok());
  EXPECT_FALSE(file->read(UINT64_MAX, 2).ok());
  EXPECT_FALSE(file->read(1, UINT64_MAX).ok());
  EXPECT_FALSE(file->read_address(0x400000, file->size() + 1).ok());
}

TEST(ElfFile, RefusesDirectoriesAndMissingFiles) {
  EXPECT_FALSE(ElfFile::open("/").ok());
  EXPECT_FALSE(ElfFile::open("/nonexistent/python").ok());
}

// Hostile files: whatever comes out, nothing crashes, hangs or allocates without bounds.
TEST(HostileElf, EveryPrefix) {
  for (const bool sections : {true, false}) {
    auto options = options_for(k3_12_1);
    options.sections = sections;
    ElfBuilder builder = plain_python(options);
    const auto whole = builder.build();
    for (size_t size = 0; size < whole.size(); ++size) {
      const auto result = inspect({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)});
      if (result.ok() && result->kind == Inspection::Kind::cpython) {
        EXPECT_EQ(found(*result), builder.expected()) << "cut to " << size << " bytes";
      }
    }
  }
}

TEST(HostileElf, RandomBytes) {
  ElfBuilder builder = plain_python();
  const auto whole = builder.build();
  std::mt19937 random(20240229);  // NOLINT: a fixed seed, so that a failure can be repeated
  std::uniform_int_distribution<size_t> place(0, whole.size() - 1);
  std::uniform_int_distribution<size_t> header(0, 0x200);
  std::uniform_int_distribution<int> value(0, 255), count(1, 8);
  for (int round = 0; round < 6000; ++round) {
    auto bytes = whole;
    for (int i = count(random); i > 0; --i) {
      // Every other round breaks the headers only: that is where most of the sizes are.
      const size_t at = round % 2 == 0 ? header(random) : place(random);
      bytes[at] = static_cast<std::byte>(value(random));
    }
    const auto result = inspect(bytes);
    if (!result.ok()) {
      EXPECT_FALSE(result.error().message().empty());
    }
  }
}

TEST(HostileElf, HugeNumbersInEveryField) {
  ElfBuilder builder = plain_python();
  const auto whole = builder.build();
  for (const uint64_t huge : {UINT64_MAX, UINT64_MAX - 15, uint64_t{1} << 63, uint64_t{1} << 32,
                              uint64_t{0x7fffffffffffffff}, uint64_t{1} << 28}) {
    for (size_t at = 0; at + 8 <= whole.size(); at += 4) {
      auto bytes = whole;
      std::memcpy(bytes.data() + at, &huge, sizeof huge);
      (void)inspect(bytes).ok();
    }
  }
}

}  // namespace
}  // namespace giltop
