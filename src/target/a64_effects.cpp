// What an AArch64 instruction does to the flow and to the general registers. The classes are those
// of the Arm ARM's "A64 Instruction Set Encoding" (DDI 0487, C4.1), by bits 28:25.
#include "target/a64_insn.h"

namespace giltop::a64 {
namespace {

// AAPCS64: a call keeps x19 to x29 and sp.
constexpr uint32_t kCallWrites = 0x4007ffff;
constexpr uint32_t kAll = 0xffffffff;

constexpr uint32_t bit(uint32_t reg) { return uint32_t{1} << reg; }
// Register 31 is the zero register: nothing is written.
constexpr uint32_t value_bit(uint32_t reg) { return reg == kZero ? 0 : bit(reg); }

uint32_t immediate_writes(uint32_t word, uint32_t rd) {
  // add, sub and tag arithmetic without flags, and, orr, eor: register 31 is sp.
  const uint32_t operation = field(word, 25, 23);
  const bool sets_flags = operation == 4 ? field(word, 30, 29) == 3 : field(word, 29, 29) != 0;
  const bool to_sp = (operation == 2 || operation == 3 || operation == 4) && !sets_flags;
  // autiasppc and its like (in the class of extr) name no register, and write x30.
  const uint32_t link = operation == 7 && rd == kZero ? bit(30) : 0;
  return (to_sp ? bit(rd) : value_bit(rd)) | link;
}

// Hints are nops on processors that do not know them; those of pointer authentication write x30 or
// x17, chkfeat x16.
uint32_t hint_writes(uint32_t word) {
  const uint32_t hint = field(word, 11, 5);
  const bool plain = hint <= 5 || (hint >= 32 && hint <= 38 && (hint & 1) == 0);  // nop ..., bti
  return plain ? 0 : bit(16) | bit(17) | bit(30);
}

uint32_t branch_writes(uint32_t word, uint32_t rd) {
  const Insn insn{word};
  if (insn.is_call()) return kCallWrites;
  if ((word & 0xff000000) == 0xd4000000) return kCallWrites;  // svc and other exceptions
  if ((word & 0xff000000) != 0xd5000000) return 0;            // branches
  if ((word & 0xfffff01f) == 0xd503201f) return hint_writes(word);
  if ((word & 0xfffff01f) == 0xd503301f) return 0;  // barriers
  // mrs, sysl and what else returns something; mrrs gives two. msr is taken along.
  const bool pair = field(word, 22, 22) != 0;
  return value_bit(rd) | (pair ? value_bit((rd + 1) & 31) : 0);
}

// ldxr, stxr, ldar, stlr, cas and their kin: 001000.
uint32_t exclusive_writes(uint32_t word, uint32_t rd) {
  const uint32_t rs = field(word, 20, 16), rt2 = field(word, 14, 10);
  uint32_t set = rs == kZero ? 0 : value_bit(rs) | value_bit((rs + 1) & 31);  // status; cas, casp
  if (field(word, 22, 22) != 0) set |= value_bit(rd) | value_bit(rt2);
  return set;
}

// One register and an address: 111, without SIMD.
uint32_t load_store_writes(uint32_t word, uint32_t rd, uint32_t rn) {
  const bool store = field(word, 23, 22) == 0;
  if ((word & 0xffc00000) == 0xf9800000) return 0;                 // prfm
  if (field(word, 24, 24) != 0) return store ? 0 : value_bit(rd);  // unsigned offset
  const uint32_t form = field(word, 11, 10);
  if (field(word, 21, 21) == 0) {  // unscaled, post-indexed, unprivileged, pre-indexed
    return (store ? 0 : value_bit(rd)) | ((form & 1) != 0 ? bit(rn) : 0);
  }
  if (form == 2) return store ? 0 : value_bit(rd);  // register offset
  if (form != 0) return value_bit(rd) | bit(rn);    // ldraa, ldrab
  const uint32_t operation = field(word, 15, 12);
  if (operation <= 8 || operation == 12) return value_bit(rd);  // ldadd ... ldumin, swp, ldapr
  uint32_t set = value_bit(field(word, 20, 16));                // ld64b, st64bv and the reserved
  for (uint32_t i = 0; i < 8; ++i) set |= bit((rd + i) & 31);
  return set;
}

uint32_t memory_writes(uint32_t word, uint32_t rd, uint32_t rn) {
  const bool simd = field(word, 26, 26) != 0;
  switch (field(word, 29, 27)) {
    case 1:  // 001: exclusives; with SIMD ld1 to ld4, st1 to st4
      if (simd) return field(word, 23, 23) != 0 ? bit(rn) : 0;
      return exclusive_writes(word, rd);
    case 3:  // 011: literals
      if (field(word, 24, 24) == 0) return simd ? 0 : value_bit(rd);
      if ((word & 0x3fe00c00) == 0x19000000) return 0;  // stlur
      // ldapur, memory copies and tags, 128-bit atomics: all they name.
      return bit(rd) | bit(rn) | bit(field(word, 20, 16)) | bit(field(word, 14, 10));
    case 5: {  // 101: pairs
      uint32_t set = field(word, 23, 23) != 0 ? bit(rn) : 0;
      if (!simd && field(word, 22, 22) != 0) set |= value_bit(rd) | value_bit(field(word, 14, 10));
      return set;
    }
    case 7:  // 111
      if (!simd) return load_store_writes(word, rd, rn);
      // Pre- and post-indexed; what is reserved (bit 21) counts too.
      return field(word, 24, 24) == 0 && (word & 0x400) != 0 ? bit(rn) : 0;
    default:
      return kAll;
  }
}

uint32_t register_writes(uint32_t word, uint32_t rd) {
  if ((word & 0x1fe00000) == 0x1a400000) return 0;  // ccmp, ccmn: rd is flags
  // add, sub of an extended register without flags: 31 is sp.
  if ((word & 0x3fe00000) == 0x0b200000) return bit(rd);
  return value_bit(rd);
}

uint32_t simd_writes(uint32_t word, uint32_t rd) {
  if ((word & 0x5f000000) == 0x1e000000) {  // conversions between a general register and SIMD
    const uint32_t operation = field(word, 18, 16);
    const bool to_simd = operation == 2 || operation == 3 || operation == 7;
    const bool integer = field(word, 21, 21) != 0 && field(word, 15, 10) == 0;
    const bool fixed_point = field(word, 21, 21) == 0;
    return (integer || fixed_point) && !to_simd ? value_bit(rd) : 0;
  }
  // smov, umov.
  if ((word & 0xbfe08400) == 0x0e000400 && (field(word, 14, 11) == 5 || field(word, 14, 11) == 7)) {
    return value_bit(rd);
  }
  return 0;
}

}  // namespace

bool Insn::is_known() const {
  const uint32_t group = field(word, 28, 25);
  if (group == 1 || group == 3) return false;       // unallocated
  if (group == 0) return (word & 0xffff0000) == 0;  // udf; else reserved or SME
  if (group != 10 && group != 11) return true;
  if ((word & 0x7c000000) == 0x14000000) return true;  // b, bl
  if ((word & 0x7c000000) == 0x34000000) return true;  // cbz, cbnz, tbz, tbnz
  if ((word & 0xff000000) == 0x54000000) return true;  // b.cond, bc.cond
  if ((word & 0xfe000000) == 0xd6000000) return true;  // br, blr, ret and the like
  return (word & 0xfe000000) == 0xd4000000;            // exceptions, system
}

bool Insn::is_call() const { return is_branch_link() || called_register().has_value(); }

bool Insn::ends_flow() const {
  if ((word & 0xfc000000) == 0x14000000) return true;  // b
  if (is_indirect_jump()) return true;
  if ((word & 0xffff0000) == 0) return true;  // udf
  const uint32_t exception = word & 0xffe0001f;
  return exception == 0xd4200000 || exception == 0xd4400000;  // brk, hlt
}

bool Insn::is_indirect_jump() const {  // br, ret, eret, drps
  return (word & 0xfe000000) == 0xd6000000 && !called_register();
}

std::optional<int64_t> Insn::branch() const {
  if ((word & 0xfc000000) == 0x14000000) return signed_field(word, 25, 0) * 4;  // b
  if ((word & 0x7e000000) == 0x34000000) return signed_field(word, 23, 5) * 4;  // cbz, cbnz
  if ((word & 0x7e000000) == 0x36000000) return signed_field(word, 18, 5) * 4;  // tbz, tbnz
  if ((word & 0xff000000) == 0x54000000) return signed_field(word, 23, 5) * 4;  // b.cond, bc.cond
  return std::nullopt;
}

bool Insn::is_indirect_target() const { return word == 0xd503249f || word == 0xd50324df; }

uint32_t Insn::written() const {
  switch (field(word, 28, 25)) {
    case 2:  // SVE: a scalar result is always in the lowest field
      return bit(rd());
    case 8:
    case 9:
      return immediate_writes(word, rd());
    case 10:
    case 11:
      return branch_writes(word, rd());
    case 4:
    case 6:
    case 12:
    case 14:
      return memory_writes(word, rd(), rn());
    case 5:
    case 13:
      return register_writes(word, rd());
    case 7:
    case 15:
      return simd_writes(word, rd());
    default:
      return kAll;
  }
}

}  // namespace giltop::a64
