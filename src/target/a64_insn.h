// AArch64 instructions, as far as the GIL finder reads them: every one has 4 bytes; which registers
// it may write, whether it branches, and the operands of those few that carry an address or a flag.
// Encodings: Arm Architecture Reference Manual (DDI 0487), C4 "A64 Instruction Set Encoding".
#pragma once

#include <cstdint>
#include <optional>

namespace giltop::a64 {

inline constexpr uint8_t kSp = 31;    // in a set of registers, and as the base of an address
inline constexpr uint8_t kZero = 31;  // as a value: wzr, xzr
inline constexpr uint8_t kFrame = 29;

constexpr uint32_t field(uint32_t word, int high, int low) {
  return (word >> low) & ((uint32_t{1} << (high - low + 1)) - 1);
}
constexpr int64_t signed_field(uint32_t word, int high, int low) {
  const int width = high - low + 1;
  return int64_t{static_cast<int32_t>(field(word, high, low) << (32 - width)) >> (32 - width)};
}

struct Address {
  uint8_t base = 0;
  int64_t offset = 0;
  bool operator==(const Address&) const = default;
};

struct Insn {
  uint32_t word = 0;

  // False for reserved and unallocated classes, and for branches that are not known: where they
  // lead nobody can tell. What other unallocated words there are counts as writing what it names.
  bool is_known() const;
  bool is_call() const;    // bl, blr*
  bool ends_flow() const;  // never reaches the next instruction
  // A branch, conditional or not, but no call: bytes from this instruction to where it leads.
  std::optional<int64_t> branch() const;
  bool is_indirect_jump() const;    // br, ret and the like
  bool is_indirect_target() const;  // bti j, bti jc
  // Bit n: xn (31: sp) may be written. Conservative. A call writes what AAPCS64 lets it.
  uint32_t written() const;
  bool writes(uint8_t reg) const { return (written() >> reg & 1) != 0; }

  bool is_branch_link() const { return (word & 0xfc000000) == 0x94000000; }  // bl
  std::optional<uint8_t> called_register() const;                            // blr
  int64_t branch_link_offset() const { return signed_field(word, 25, 0) * 4; }

  uint8_t rd() const { return static_cast<uint8_t>(field(word, 4, 0)); }  // also Rt
  uint8_t rn() const { return static_cast<uint8_t>(field(word, 9, 5)); }

  std::optional<uint64_t> page_address(uint64_t at) const;  // adrp, adr: what rd becomes
  std::optional<Address> added() const;  // add, sub of an immediate, 64 bits: rd = base + offset
  std::optional<uint8_t> moved() const;  // mov rd, register
  std::optional<uint64_t> constant() const;  // movz, movn: what rd becomes
  // movk: `value` with 16 bits of it replaced.
  std::optional<uint64_t> inserted(uint64_t value) const;
  // Where `reg` is loaded from: ldr (offset), ldur, ldp, 64 bits, base not written.
  std::optional<Address> loaded_from(uint8_t reg) const;
  // Where rd's low 32 bits are stored: str, stur, stlr, pre- and post-indexed too.
  std::optional<Address> stored32_to() const;
  // ldr wt, ldur wt.
  bool loads32_from(const Address& address) const;
  // The register that is compared with 0, or with `value`: cbz, cbnz, cmp, tst.
  std::optional<uint8_t> compared(uint32_t value) const;
};

}  // namespace giltop::a64
