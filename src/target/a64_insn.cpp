#include "target/a64_insn.h"

namespace giltop::a64 {

std::optional<uint8_t> Insn::called_register() const {
  // blr; with pointer authentication blraaz, blrabz, blraa, blrab.
  const bool plain = (word & 0xfffffc1f) == 0xd63f0000;
  const bool authenticated = (word & 0xfefff800) == 0xd63f0800;
  if (!plain && !authenticated) return std::nullopt;
  return rn();
}

std::optional<uint64_t> Insn::page_address(uint64_t at) const {
  const bool page = (word & 0x9f000000) == 0x90000000;
  if (!page && (word & 0x9f000000) != 0x10000000) return std::nullopt;
  const int64_t immediate = signed_field(word, 23, 5) * 4 + field(word, 30, 29);
  if (!page) return at + static_cast<uint64_t>(immediate);
  return (at & ~uint64_t{0xfff}) + static_cast<uint64_t>(immediate * 0x1000);
}

std::optional<Address> Insn::added() const {
  const bool subtracts = (word & 0xff800000) == 0xd1000000;
  if (!subtracts && (word & 0xff800000) != 0x91000000) return std::nullopt;
  int64_t immediate = field(word, 21, 10);
  if (field(word, 22, 22) != 0) immediate <<= 12;
  return Address{rn(), subtracts ? -immediate : immediate};
}

std::optional<uint8_t> Insn::moved() const {
  // orr rd, zr, rm without a shift; of 32 bits it clears the upper half.
  if ((word & 0x7fe0ffe0) != 0x2a0003e0) return std::nullopt;
  return static_cast<uint8_t>(field(word, 20, 16));
}

std::optional<uint64_t> Insn::constant() const {
  const bool wide = field(word, 31, 31) != 0;
  const uint32_t operation = word & 0x7f800000;
  const uint32_t shift = field(word, 22, 21) * 16;
  if (operation != 0x52800000 && operation != 0x12800000) return std::nullopt;  // movz, movn
  if (!wide && shift > 16) return std::nullopt;
  uint64_t value = uint64_t{field(word, 20, 5)} << shift;
  if (operation == 0x12800000) value = ~value;
  return wide ? value : value & 0xffffffff;
}

std::optional<uint64_t> Insn::inserted(uint64_t value) const {
  if ((word & 0x7f800000) != 0x72800000) return std::nullopt;
  const bool wide = field(word, 31, 31) != 0;
  const uint32_t shift = field(word, 22, 21) * 16;
  if (!wide && shift > 16) return std::nullopt;
  value = (value & ~(uint64_t{0xffff} << shift)) | uint64_t{field(word, 20, 5)} << shift;
  return wide ? value : value & 0xffffffff;
}

std::optional<Address> Insn::loaded_from(uint8_t reg) const {
  if (rd() == reg && (word & 0xffc00000) == 0xf9400000) {  // ldr xt, [xn, #imm]
    return Address{rn(), int64_t{field(word, 21, 10)} * 8};
  }
  if (rd() == reg && (word & 0xffe00c00) == 0xf8400000) {  // ldur
    return Address{rn(), signed_field(word, 20, 12)};
  }
  if ((word & 0xffc00000) == 0xa9400000) {  // ldp xt, xt2, [xn, #imm]
    const int64_t offset = signed_field(word, 21, 15) * 8;
    if (rd() == reg) return Address{rn(), offset};
    if (field(word, 14, 10) == reg) return Address{rn(), offset + 8};
  }
  return std::nullopt;
}

std::optional<Address> Insn::stored32_to() const {
  if ((word & 0xffc00000) == 0xb9000000) return Address{rn(), int64_t{field(word, 21, 10)} * 4};
  if ((word & 0xffe00000) == 0xb8000000) {
    switch (field(word, 11, 10)) {
      case 1:  // post-indexed: the base is not yet changed
        return Address{rn(), 0};
      case 0:  // stur
      case 3:  // pre-indexed
        return Address{rn(), signed_field(word, 20, 12)};
      default:
        return std::nullopt;  // sttr: not for programs
    }
  }
  if ((word & 0xfffffc00) == 0x889ffc00) return Address{rn(), 0};                           // stlr
  if ((word & 0xffe00c00) == 0x99000000) return Address{rn(), signed_field(word, 20, 12)};  // stlur
  return std::nullopt;
}

bool Insn::loads32_from(const Address& address) const {
  if ((word & 0xffc00000) == 0xb9400000) {  // ldr wt, [xn, #imm]
    return Address{rn(), int64_t{field(word, 21, 10)} * 4} == address;
  }
  return (word & 0xffe00c00) == 0xb8400000 && Address{rn(), signed_field(word, 20, 12)} == address;
}

std::optional<uint8_t> Insn::compared(uint32_t value) const {
  if ((word & 0x7e000000) == 0x34000000) return rd();  // cbz, cbnz
  if ((word & 0x7fc00000) == 0x71000000) {             // subs rd, rn, #imm; cmp discards rd
    const uint32_t immediate = field(word, 21, 10);
    if (immediate == 0 || immediate == value) return rn();
  }
  if ((word & 0x7fe0fc1f) == 0x6a00001f && rn() == field(word, 20, 16)) return rn();  // tst rn, rn
  return std::nullopt;
}

}  // namespace giltop::a64
