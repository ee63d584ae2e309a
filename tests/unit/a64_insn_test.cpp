// What each AArch64 instruction writes: words by GNU as 2.40, one of each class that names its
// registers in another way. (All 1.2 million different words of Debian's arm64 Pythons were
// compared with objdump's operands once.)
#include "target/a64_insn.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace giltop::a64 {
namespace {

uint32_t registers(std::initializer_list<int> all) {
  uint32_t set = 0;
  for (const int reg : all) set |= uint32_t{1} << reg;
  return set;
}

TEST(A64Insn, Writes) {
  const struct {
    const char* text;
    uint32_t word;
    std::initializer_list<int> written;
  } cases[] = {
      {"add x1, sp, #16", 0x910043e1, {1}},
      {"add sp, sp, x1", 0x8b2163ff, {31}},
      {"cmp x1, #4", 0xf100103f, {}},
      {"and sp, x1, #-16", 0x927cec3f, {31}},
      {"ccmp x0, x1, #4, ne", 0xfa411004, {}},
      {"csel x1, x2, x3, eq", 0x9a830041, {1}},
      {"madd x1, x2, x3, x4", 0x9b031041, {1}},
      {"bfi x1, x2, #3, #4", 0xb37d0c41, {1}},
      {"ldr x0, [sp], #16", 0xf84107e0, {0, 31}},
      {"ldp x1, x2, [x3], #16", 0xa8c10861, {1, 2, 3}},
      {"stp x1, x2, [x3, #-16]!", 0xa9bf0861, {3}},
      {"ldpsw x4, x5, [x6]", 0x694014c4, {4, 5}},
      {"ldp q0, q1, [x3], #32", 0xacc10460, {3}},
      {"str q0, [x7, #16]!", 0x3c810ce0, {7}},
      {"st1 {v0.16b}, [x5], #16", 0x4c9f70a0, {5}},
      {"ld1 {v0.16b}, [x5]", 0x4c4070a0, {}},
      {"ldraa x1, [x2, #8]!", 0xf8201c41, {1, 2}},
      {"prfm pldl1keep, [x1]", 0xf9800020, {}},
      {"ldadd w1, w2, [x3]", 0xb8210062, {2}},
      {"stadd w3, [x5]", 0xb82300bf, {}},
      {"swpal w1, w2, [x3]", 0xb8e18062, {2}},
      {"ldapr w5, [x6]", 0xb8bfc0c5, {5}},
      {"ldaxr w7, [x8]", 0x885ffd07, {7}},
      {"ldaxp x1, x2, [x3]", 0xc87f8861, {1, 2}},
      {"stlr wzr, [x4]", 0x889ffc9f, {}},
      {"stlur w5, [x6, #4]", 0x990040c5, {}},
      {"ldar w5, [x6]", 0x88dffcc5, {5}},
      {"fmov x1, d2", 0x9e660041, {1}},
      {"fmov d2, x1", 0x9e670022, {}},
      {"fcvtzs w3, d4", 0x1e780083, {3}},
      {"fcvtzs x3, d4, #4", 0x9e58f083, {3}},
      {"fjcvtzs w1, d2", 0x1e7e0041, {1}},
      {"scvtf d4, x3", 0x9e620064, {}},
      {"umov w5, v6.b[1]", 0x0e033cc5, {5}},
      {"smov x5, v6.h[1]", 0x4e062cc5, {5}},
      {"mov v6.b[1], w5", 0x4e031ca6, {}},
      {"cntb x7", 0x0420e3e7, {7}},
      {"addvl sp, sp, #1", 0x043f503f, {31}},
      {"lasta w4, p0, z1.s", 0x05a0a024, {4}},
      {"mrs x3, tpidr_el0", 0xd53bd043, {3}},
      {"paciasp", 0xd503233f, {16, 17, 30}},
      {"bti c", 0xd503245f, {}},
      {"cbz x3, .", 0xb4000003, {}},
      {"ret", 0xd65f03c0, {}},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Insn{c.word}.written(), registers(c.written)) << c.text;
    EXPECT_TRUE(Insn{c.word}.is_known()) << c.text;
  }
  // More than it says, never less.
  const struct {
    const char* text;
    uint32_t word;
    std::initializer_list<int> written;
  } at_least[] = {
      {"cas w1, w2, [x3]", 0x88a17c62, {1}},
      {"caspal x2, x3, x4, x5, [x6]", 0x4862fcc4, {2, 3}},
      {"stlxr w9, w10, [x11]", 0x8809fd6a, {9}},
      {"ldapur w5, [x6, #4]", 0x994040c5, {5}},
      {"ldg x1, [x2]", 0xd9600041, {1}},
      {"st2g x1, [x2], #32", 0xd9a02441, {2}},
      {"cpyfp [x1]!, [x2]!, x3!", 0x19020461, {1, 2, 3}},
      {"setp [x1]!, x2!, x3", 0x19c30441, {1, 2}},
      {"ld64b x8, [x1]", 0xf83fd028, {8, 9, 10, 11, 12, 13, 14, 15}},
      {"st64bv x3, x8, [x1]", 0xf823b028, {3}},
      {"bl .", 0x94000000, {0, 7, 8, 15, 16, 17, 18, 30}},
      {"svc #0", 0xd4000001, {0}},
  };
  for (const auto& c : at_least) {
    const uint32_t named = registers(c.written);
    EXPECT_EQ(Insn{c.word}.written() & named, named) << c.text;
  }
  EXPECT_EQ(Insn{0x94000000}.written() & registers({19, 20, 28, 29, 31}), 0u);  // AAPCS64
}

TEST(A64Insn, Flow) {
  EXPECT_EQ(Insn{0x17ffffff}.branch(), -4);  // b .-4
  EXPECT_EQ(Insn{0x54000040}.branch(), 8);   // b.eq .+8
  EXPECT_EQ(Insn{0x37180043}.branch(), 8);   // tbnz w3, #3, .+8
  EXPECT_EQ(Insn{0xb4ffffe3}.branch(), -4);  // cbz x3, .-4
  EXPECT_EQ(Insn{0x94000000}.branch(), std::nullopt);
  EXPECT_TRUE(Insn{0xd63f0060}.is_call());    // blr x3
  EXPECT_TRUE(Insn{0xd63f087f}.is_call());    // blraaz x3
  EXPECT_TRUE(Insn{0xd71f0864}.ends_flow());  // braa x3, x4
  EXPECT_TRUE(Insn{0xd65f0bff}.ends_flow());  // retaa
  EXPECT_TRUE(Insn{0xd4200020}.ends_flow());  // brk #1
  EXPECT_TRUE(Insn{0}.ends_flow());           // udf #0
  EXPECT_FALSE(Insn{0x54000040}.ends_flow());
  EXPECT_FALSE(Insn{0x74000000}.is_known());  // cb<cc> of Armv9.6: leads nobody knows where
  EXPECT_FALSE(Insn{0x02000000}.is_known());  // unallocated
  EXPECT_FALSE(Insn{0x80000000}.is_known());  // SME
}

TEST(A64Insn, Operands) {
  EXPECT_EQ(Insn{0xb0002890}.page_address(0x41f960), 0x930000u);     // adrp x16, 930000
  EXPECT_EQ(Insn{0x10ffffe0}.page_address(0x1000), 0xffcu);          // adr x0, .-4
  EXPECT_EQ(Insn{0x912b8210}.added(), (Address{16, 0xae0}));         // add x16, x16, #0xae0
  EXPECT_EQ(Insn{0xd1404000}.added(), (Address{0, -0x10000}));       // sub x0, x0, #16, lsl #12
  EXPECT_EQ(Insn{0x11000400}.added(), std::nullopt);                 // add w0, w0, #1
  EXPECT_EQ(Insn{0xaa1303e0}.moved(), 19);                           // mov x0, x19
  EXPECT_EQ(Insn{0x52800020}.constant(), 1u);                        // mov w0, #1
  EXPECT_EQ(Insn{0x12800004}.constant(), 0xffffffffu);               // mov w4, #-1
  EXPECT_EQ(Insn{0xf2a00020}.inserted(0x70002), 0x10002u);           // movk x0, #1, lsl #16
  EXPECT_EQ(Insn{0xf9457211}.loaded_from(17), (Address{16, 2784}));  // ldr x17, [x16, #2784]
  EXPECT_EQ(Insn{0xa9425bf5}.loaded_from(22), (Address{31, 40}));    // ldp x21, x22, [sp, #32]
  EXPECT_EQ(Insn{0xb900029f}.stored32_to(), (Address{20, 0}));       // str wzr, [x20]
  EXPECT_EQ(Insn{0xb81f0020}.stored32_to(), (Address{1, -16}));      // stur w0, [x1, #-16]
  EXPECT_EQ(Insn{0x889ffc9f}.stored32_to(), (Address{4, 0}));        // stlr wzr, [x4]
  EXPECT_EQ(Insn{0xf900029f}.stored32_to(), std::nullopt);           // str xzr, [x20]
  EXPECT_EQ(Insn{0x7101b81f}.compared(110), 0);                      // cmp w0, #110
  EXPECT_EQ(Insn{0x7101b81f}.compared(4), std::nullopt);
  EXPECT_EQ(Insn{0x35000040}.compared(110), 0);  // cbnz w0, .+8
  EXPECT_EQ(Insn{0x6a00001f}.compared(110), 0);  // tst w0, w0
}

}  // namespace
}  // namespace giltop::a64
