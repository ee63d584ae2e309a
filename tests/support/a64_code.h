// AArch64 code for ElfBuilder.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "support/elf_builder.h"

namespace giltop::testing {

inline constexpr uint8_t sp = 31, wzr = 31;

// The code of one function (or .cold part). Every call returns *this, to be chained. Registers are
// numbers. What a fixup fills in is left zero in the words.
class A64Code : public Code {
 public:
  A64Code& words(std::initializer_list<uint32_t> all);
  A64Code& add(uint8_t to, uint8_t from, uint32_t value);      // add xt, xf, #value
  A64Code& mov(uint8_t to, uint8_t from);                      // mov xt, xf
  A64Code& one(uint8_t to);                                    // mov wt, #1
  A64Code& store(uint8_t what, uint8_t base, uint32_t disp);   // str ww, [xb, #disp]
  A64Code& load(uint8_t to, uint8_t base, uint32_t disp);      // ldr xt, [xb, #disp]
  A64Code& spill(uint8_t what, uint32_t disp);                 // str xw, [sp, #disp]
  A64Code& data(uint8_t to, uint64_t offset);                  // adrp, add: the data's address
  A64Code& text(uint8_t to, const std::string& text);          // adrp, add: a string's
  A64Code& load_slot(uint8_t to, const std::string& import);   // adrp, ldr: out of the GOT
  A64Code& call(const std::string& import);                    // nop, nop, bl; or adrp, ldr, blr
  A64Code& call_function(const std::string& name);             // bl
  A64Code& call_register(uint8_t reg);                         // blr
  A64Code& jump_ahead(uint32_t instructions);                  // b: leaves out so many
  A64Code& jump_ahead_if(uint8_t reg, uint32_t instructions);  // cbz wr
  A64Code& check();                                            // cbnz w0, .+8; nop
  A64Code& check_etimedout();                                  // cmp w0, #110; b.eq .+8; nop
  A64Code& ret();
  A64Code& expect(SiteKind kind);       // of the next call()
  A64Code& expect_here(SiteKind kind);  // of the next word
};

}  // namespace giltop::testing
