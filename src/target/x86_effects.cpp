// What an instruction does to the flow and to the general registers (Intel SDM vol. 2).
#include "target/x86_insn.h"

namespace giltop::x86 {

bool Insn::is_call() const {
  return is(Map::primary, 0xe8) || (is(Map::primary, 0xff) && (reg & 7) == 2);
}

bool Insn::ends_flow() const {
  if (map == Map::map_0f) return opcode == 0x0b || opcode == 0xb9 || opcode == 0xff;  // ud2/1/0
  if (map != Map::primary) return false;
  switch (opcode) {
    case 0xe9:
    case 0xeb:
    case 0xc2:
    case 0xc3:
    case 0xca:
    case 0xcb:
    case 0xcf:
    case 0xf4:
      return true;
    default:
      return opcode == 0xff && ((reg & 7) == 4 || (reg & 7) == 5);  // indirect jmp
  }
}

bool Insn::is_relative_branch() const {
  if (map == Map::map_0f) return opcode >= 0x80 && opcode <= 0x8f;
  if (map != Map::primary) return false;
  return opcode == 0xe9 || opcode == 0xeb || (opcode >= 0x70 && opcode <= 0x7f) ||
         (opcode >= 0xe0 && opcode <= 0xe3);
}

bool Insn::is_conditional_branch() const {
  return is_relative_branch() && (map == Map::map_0f || (opcode >= 0x70 && opcode <= 0x7f));
}

bool Insn::may_write(uint8_t reg64) const {
  const bool in_reg = has_modrm && reg == reg64;
  const bool in_rm = has_modrm && mod == 3 && rm == reg64;
  if (map == Map::primary) {
    if (opcode < 0x40) {
      // add, or, adc, sbb, and, sub, xor, cmp: to r/m, to r/m, to reg, to reg, to rax, to rax.
      if (opcode >= 0x38) return false;
      switch (opcode & 7) {
        case 0:
        case 1:
          return in_rm;
        case 2:
        case 3:
          return in_reg;
        default:
          return reg64 == kRax;
      }
    }
    const auto embedded = static_cast<uint8_t>((opcode & 7) | ((rex & 1) << 3));
    if (opcode >= 0x50 && opcode <= 0x57) return reg64 == kRsp;                       // push
    if (opcode >= 0x58 && opcode <= 0x5f) return embedded == reg64 || reg64 == kRsp;  // pop
    if (opcode >= 0x70 && opcode <= 0x7f) return false;                               // jcc
    if (opcode >= 0x90 && opcode <= 0x97) {  // xchg with rax; 90 is nop
      return embedded == reg64 || (opcode != 0x90 && reg64 == kRax);
    }
    if (opcode >= 0xb0 && opcode <= 0xbf) return embedded == reg64;  // mov imm
    if (opcode >= 0xd8 && opcode <= 0xdf) return reg64 == kRax;      // x87; fnstsw writes ax
    switch (opcode) {
      case 0x63:
      case 0x69:
      case 0x6b:
      case 0x8a:
      case 0x8b:
      case 0x8d:
        return in_reg;
      case 0x80:
      case 0x81:
      case 0x83:
        return in_rm && (reg & 7) != 7;  // cmp writes nothing; here reg is an opcode
      case 0x84:
      case 0x85:
      case 0xa8:
      case 0xa9:
      case 0x98:
      case 0x99:
        return (opcode == 0x98 && reg64 == kRax) || (opcode == 0x99 && reg64 == kRdx);
      case 0x86:
      case 0x87:
        return in_reg || in_rm;
      case 0x88:
      case 0x89:
      case 0xc0:
      case 0xc1:
      case 0xc6:
      case 0xc7:
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
      case 0xfe:
        return in_rm;
      case 0xf6:
      case 0xf7:
        return (reg & 7) >= 4 ? reg64 == kRax || reg64 == kRdx : in_rm && (reg & 7) >= 2;
      case 0xe3:
      case 0xe9:
      case 0xeb:
        return false;  // jrcxz, jmp
      case 0xff:
        if ((reg & 7) == 4) return false;               // indirect jmp
        return (reg & 7) == 6 ? reg64 == kRsp : in_rm;  // push; inc and dec write r/m
      default:
        return true;
    }
  }
  if (map == Map::map_0f) {
    if (opcode >= 0x80 && opcode <= 0x8f) return false;   // jcc
    if (opcode >= 0x90 && opcode <= 0x9f) return in_rm;   // setcc
    if (opcode >= 0x40 && opcode <= 0x4f) return in_reg;  // cmov
    if (opcode >= 0x18 && opcode <= 0x1f) return false;   // prefetch, nop
    if (opcode >= 0xc8 && opcode <= 0xcf) return true;    // bswap
    switch (opcode) {
      case 0x10:
      case 0x11:
      case 0x12:
      case 0x13:
      case 0x14:
      case 0x15:
      case 0x16:
      case 0x17:
      case 0x28:
      case 0x29:
      case 0x2e:
      case 0x2f:
      case 0x54:
      case 0x57:
      case 0x58:
      case 0x59:
      case 0x5c:
      case 0x5e:
      case 0x6e:
      case 0x6f:
      case 0x6c:
      case 0xd6:
      case 0x7f:
      case 0xef:
      case 0x77:
      case 0xae:
        return false;  // SSE moves and arithmetic between vector registers and memory, fences
      case 0x7e:
        return in_rm;
      case 0xa3:
        return false;  // bt
      case 0xab:
      case 0xb3:
      case 0xbb:
      case 0xa4:
      case 0xa5:
      case 0xac:
      case 0xad:
      case 0xba:
        return in_rm;  // bts, btr, btc, shld, shrd
      case 0xaf:
      case 0xb6:
      case 0xb7:
      case 0xbe:
      case 0xbf:
      case 0xbc:
      case 0xbd:
      case 0xb8:
        return in_reg;
      case 0xb0:
      case 0xb1:
        return in_rm || reg64 == kRax;  // cmpxchg
      case 0xc0:
      case 0xc1:
        return in_reg || in_rm;  // xadd
      default:
        return true;
    }
  }
  if (map == Map::vector) {
    switch (opcode) {  // moves and xor of vector registers, whatever their map
      case 0x10:
      case 0x11:
      case 0x28:
      case 0x29:
      case 0x57:
      case 0x6c:
      case 0x6e:
      case 0x6f:
      case 0x7f:
      case 0xef:
        return false;
      default:
        return true;
    }
  }
  return true;
}

}  // namespace giltop::x86
