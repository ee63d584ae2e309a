#include "target/x86_insn.h"

#include "target/bytes.h"

namespace giltop::x86 {
namespace {

constexpr uint64_t kMaxLength = 15;  // Intel SDM vol. 2, 2.3.11

// Reads on, and remembers when the bytes ended too early.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> code)
      : code_(code.size() > kMaxLength ? code.first(kMaxLength) : code) {}

  uint8_t peek() const { return at_ < code_.size() ? std::to_integer<uint8_t>(code_[at_]) : 0; }
  template <typename T>
  T take() {
    const auto value = load<T>(code_, at_);
    if (!value) failed_ = true;
    at_ += sizeof(T);
    return value.value_or(T{});
  }
  bool failed() const { return failed_; }
  uint8_t position() const { return static_cast<uint8_t>(at_); }

 private:
  std::span<const std::byte> code_;
  uint64_t at_ = 0;
  bool failed_ = false;
};

// Intel SDM vol. 2, appendix A: one-byte opcodes of 64-bit mode.
bool primary_is_invalid(uint8_t op) {
  switch (op) {
    case 0x06:
    case 0x07:
    case 0x0e:
    case 0x16:
    case 0x17:
    case 0x1e:
    case 0x1f:
    case 0x27:
    case 0x2f:
    case 0x37:
    case 0x3f:
    case 0x60:
    case 0x61:
    case 0x82:
    case 0x9a:
    case 0xce:
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xea:
      return true;
    default:
      return false;
  }
}

bool primary_has_modrm(uint8_t op) {
  if (op < 0x40) return (op & 7) < 4;
  if (op >= 0x80 && op <= 0x8f) return true;
  switch (op) {
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xc7:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff:
      return true;
    default:
      return op >= 0xd8 && op <= 0xdf;
  }
}

// Bytes of immediate behind a one-byte opcode; `z` is 4, or 2 with a 66 prefix.
int primary_immediate(const Insn& insn) {
  const uint8_t op = insn.opcode;
  const int z = insn.operand16 ? 2 : 4;
  if (op < 0x40) return (op & 7) == 4 ? 1 : (op & 7) == 5 ? z : 0;
  if (op >= 0x70 && op <= 0x7f) return 1;
  if (op >= 0xb0 && op <= 0xb7) return 1;
  if (op >= 0xb8 && op <= 0xbf) return (insn.rex & 8) != 0 ? 8 : z;
  if (op >= 0xa0 && op <= 0xa3) return insn.address32 ? 4 : 8;
  if (op >= 0xe0 && op <= 0xe7) return 1;
  switch (op) {
    case 0x68:
    case 0x69:
    case 0x81:
    case 0xa9:
    case 0xc7:
      return z;
    case 0x6a:
    case 0x6b:
    case 0x80:
    case 0x83:
    case 0xa8:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xcd:
    case 0xeb:
      return 1;
    case 0xc2:
    case 0xca:
      return 2;
    case 0xc8:
      return 3;
    case 0xe8:
    case 0xe9:
      return 4;
    case 0xf6:
      return (insn.reg & 6) == 0 ? 1 : 0;  // /0 and /1: test
    case 0xf7:
      return (insn.reg & 6) == 0 ? z : 0;
    default:
      return 0;
  }
}

bool map_0f_is_invalid(uint8_t op) {
  return op == 0x04 || op == 0x0a || op == 0x0c || (op >= 0x24 && op <= 0x27) || op == 0x36 ||
         op == 0x39 || (op >= 0x3b && op <= 0x3f);
}

bool map_0f_has_modrm(uint8_t op) {
  if ((op >= 0x05 && op <= 0x09) || op == 0x0b || op == 0x0e) return false;
  if (op >= 0x30 && op <= 0x37) return false;
  if (op >= 0x80 && op <= 0x8f) return false;
  if (op >= 0xc8 && op <= 0xcf) return false;
  return op != 0x77 && op != 0xa0 && op != 0xa1 && op != 0xa2 && op != 0xa8 && op != 0xa9 &&
         op != 0xaa;
}

int map_0f_immediate(uint8_t op) {
  if (op >= 0x80 && op <= 0x8f) return 4;
  if (op >= 0x70 && op <= 0x73) return 1;
  switch (op) {
    case 0x0f:
    case 0xa4:
    case 0xac:
    case 0xba:
    case 0xc2:
    case 0xc4:
    case 0xc5:
    case 0xc6:
      return 1;
    default:
      return 0;
  }
}

void take_modrm(Cursor& cursor, Insn& insn) {
  const auto modrm = cursor.take<uint8_t>();
  insn.has_modrm = true;
  insn.mod = modrm >> 6;
  insn.reg = static_cast<uint8_t>(((modrm >> 3) & 7) | ((insn.rex & 4) << 1));
  const uint8_t rm = modrm & 7;
  const auto rex_b = static_cast<uint8_t>((insn.rex & 1) << 3);
  insn.rm = rm | rex_b;
  if (insn.mod == 3) return;
  bool disp32 = insn.mod == 2;
  if (rm == 4) {
    const auto sib = cursor.take<uint8_t>();
    insn.has_index = (((sib >> 3) & 7) | ((insn.rex & 2) << 2)) != 4;
    insn.base = (sib & 7) | rex_b;
    insn.has_base = !(insn.mod == 0 && (sib & 7) == 5);
    if (!insn.has_base) disp32 = true;
  } else if (rm == 5 && insn.mod == 0) {
    insn.rip_relative = disp32 = true;
  } else {
    insn.base = rm | rex_b;
    insn.has_base = true;
  }
  if (insn.mod == 1) insn.disp = cursor.take<int8_t>();
  if (disp32) insn.disp = cursor.take<int32_t>();
}

void take_immediate(Cursor& cursor, Insn& insn, int size) {
  switch (size) {
    case 0:
      break;
    case 1:
      insn.immediate = cursor.take<int8_t>();
      break;
    case 2:
      insn.immediate = cursor.take<int16_t>();
      break;
    case 3:
      cursor.take<uint16_t>(), cursor.take<uint8_t>();
      break;
    case 4:
      insn.immediate = cursor.take<int32_t>();
      break;
    default:
      insn.immediate = cursor.take<int64_t>();
      break;
  }
}

// VEX (C5, C4) and EVEX (62). Only the length is wanted: the registers are left unread but for the
// few instructions with a general one, which may_write() answers with "yes" anyway.
bool take_vector(Cursor& cursor, Insn& insn, uint8_t escape) {
  uint8_t map = 1;
  if (escape == 0xc5) {
    const auto payload = cursor.take<uint8_t>();
    insn.rex = (payload & 0x80) == 0 ? 4 : 0;
  } else {
    const auto payload = cursor.take<uint8_t>();
    insn.rex = static_cast<uint8_t>(((~payload) >> 5) & 7);  // R X B, inverted
    map = payload & (escape == 0xc4 ? 0x1f : 0x07);
    cursor.take<uint8_t>();
    if (escape == 0x62) cursor.take<uint8_t>();
  }
  if (map < 1 || map > 6 || map == 4) return false;
  insn.map = Map::vector;
  insn.opcode = cursor.take<uint8_t>();
  if (escape != 0x62 && map == 1 && insn.opcode == 0x77) return true;  // vzeroupper, vzeroall
  take_modrm(cursor, insn);
  take_immediate(cursor, insn, map == 3 ? 1 : map == 1 ? map_0f_immediate(insn.opcode) : 0);
  return true;
}

}  // namespace

std::optional<Insn> decode(std::span<const std::byte> code) {
  Cursor cursor(code);
  Insn insn;
  for (bool prefix = true; prefix && !cursor.failed();) {
    switch (cursor.peek()) {
      case 0x66:
        insn.operand16 = true;
        break;
      case 0x67:
        insn.address32 = true;
        break;
      case 0x64:
      case 0x65:
        insn.has_segment = true;
        break;
      case 0xf0:
      case 0xf2:
      case 0xf3:
      case 0x2e:
      case 0x36:
      case 0x3e:
      case 0x26:
        break;
      default:
        prefix = false;
        continue;
    }
    cursor.take<uint8_t>();
  }
  if ((cursor.peek() & 0xf0) == 0x40) insn.rex = cursor.take<uint8_t>();
  if ((insn.rex & 8) != 0) insn.operand16 = false;  // REX.W overrides the 66 prefix
  const auto first = cursor.take<uint8_t>();
  if (first == 0xc4 || first == 0xc5 || first == 0x62) {
    if (!take_vector(cursor, insn, first)) return std::nullopt;
  } else if (first != 0x0f) {
    insn.opcode = first;
    if (primary_is_invalid(first)) return std::nullopt;
    if (primary_has_modrm(first)) take_modrm(cursor, insn);
    take_immediate(cursor, insn, primary_immediate(insn));
  } else {
    insn.opcode = cursor.take<uint8_t>();
    if (insn.opcode == 0x38 || insn.opcode == 0x3a) {
      insn.map = insn.opcode == 0x38 ? Map::map_0f38 : Map::map_0f3a;
      insn.opcode = cursor.take<uint8_t>();
      take_modrm(cursor, insn);
      take_immediate(cursor, insn, insn.map == Map::map_0f3a ? 1 : 0);
    } else {
      insn.map = Map::map_0f;
      if (map_0f_is_invalid(insn.opcode)) return std::nullopt;
      if (map_0f_has_modrm(insn.opcode)) take_modrm(cursor, insn);
      take_immediate(cursor, insn, map_0f_immediate(insn.opcode));
    }
  }
  if (cursor.failed()) return std::nullopt;
  insn.length = cursor.position();
  return insn;
}

}  // namespace giltop::x86
