// A small x86-64 instruction decoder: the length of every instruction a compiler emits, and the
// operands of those few that carry an address. Not a disassembler: it names nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace giltop::x86 {

// Register numbers as the encoding has them.
enum : uint8_t { kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3, kRsp = 4, kRbp = 5, kRsi = 6, kRdi = 7 };

enum class Map : uint8_t { primary, map_0f, map_0f38, map_0f3a, vector };  // vector: VEX, EVEX

struct Insn {
  uint8_t length = 0;  // bytes, prefixes included
  Map map = Map::primary;
  uint8_t opcode = 0;
  uint8_t rex = 0;           // 0 when there is none
  bool operand16 = false;    // 66 prefix
  bool address32 = false;    // 67 prefix
  bool has_segment = false;  // FS or GS: the address is not a plain one
  bool has_modrm = false;
  uint8_t mod = 0, reg = 0, rm = 0;  // reg and rm (where mod is 3) with their REX bit
  bool rip_relative = false;         // memory operand: disp from the next instruction
  bool has_base = false, has_index = false;
  uint8_t base = 0;
  int32_t disp = 0;
  int64_t immediate = 0;  // sign-extended; the displacement of a relative branch or call

  bool is(Map in_map, uint8_t code) const { return map == in_map && opcode == code; }
  bool is_memory() const { return has_modrm && mod != 3; }
  bool is_call() const;                 // direct or indirect
  bool ends_flow() const;               // never reaches the next instruction
  bool is_relative_branch() const;      // jmp or jcc to next + immediate
  bool is_conditional_branch() const;   // jcc; not jrcxz or loop
  bool may_write(uint8_t reg64) const;  // conservative: true unless known not to
};

// Nothing where the bytes are no instruction of 64-bit mode, or end inside one.
std::optional<Insn> decode(std::span<const std::byte> code);

}  // namespace giltop::x86
