// DecodedFunction: the instructions of one function, and what can be told of a call from them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "target/eh_frame.h"
#include "target/x86_insn.h"

namespace giltop {

// An executable segment.
struct CodeSegment {
  uint64_t address = 0, file_offset = 0;
  std::vector<std::byte> bytes;

  uint64_t end() const { return address + bytes.size(); }
};

// An address as an instruction states it, before the program runs.
struct CodeAddress {
  enum class Kind : uint8_t {
    unknown,   // could not be followed
    foreign,   // loaded through a pointer in memory: not the address of a struct's member
    absolute,  // `value` is a linked address
    relative,  // register `base` + `value`
  };
  Kind kind = Kind::unknown;
  uint8_t base = 0;
  int64_t value = 0;

  bool known() const { return kind == Kind::absolute || kind == Kind::relative; }
  // Whether both are counted from the same thing, so that values can be compared.
  bool same_base(const CodeAddress& other) const {
    return known() && kind == other.kind && (kind == Kind::absolute || base == other.base);
  }
};

// A 32-bit store to memory: `movl $0|1, mem` is how CPython sets gil->locked; a register's value
// (`mov %ecx, mem`, `xchg %ecx, mem`) is not followed.
struct FlagStore {
  enum class Value : uint8_t { zero, one, other };
  CodeAddress where;
  Value value = Value::other;
};

// Decoded from the function's start, as .eh_frame has it, up to its end or to the first bytes that
// are no instruction. `code` must outlive it.
class DecodedFunction {
 public:
  // `budget`: instructions that may still be looked at in searches that go back and forth, shared
  // by all functions of a file: a hostile one must not keep us.
  DecodedFunction(const CodeSegment& code, const FunctionBounds& bounds, size_t& budget);

  uint64_t decoded_to() const { return decoded_to_; }
  const std::vector<FlagStore>& flag_stores() const { return flag_stores_; }
  uint64_t start(size_t index) const { return starts_[index]; }
  std::optional<x86::Insn> decode_at(uint64_t address) const;
  // Index of the instruction that covers `address`.
  std::optional<size_t> instruction_over(uint64_t address) const;

  // Whether one of the few instructions behind the call compares what it returned:
  // test %eax,%eax, or cmp $ETIMEDOUT,%eax after pthread_cond_timedwait; unoptimized code stores it
  // and compares it in memory.
  bool result_is_checked(size_t call) const;

  // Follows the first argument (%rdi) back from the call. Proves it: no jump comes in between the
  // instruction that sets the register and the call, as far as direct jumps tell, and nothing in
  // between may write the register.
  CodeAddress first_argument(size_t call) const { return register_value(x86::kRdi, call, 4); }

  // The calls through the register that instruction `load` puts a function's address into (-fno-plt
  // code of clang, and of gcc where one function calls it twice). Nothing when a call may also be
  // of something else.
  std::optional<std::vector<size_t>> calls_through(size_t load) const;

 private:
  struct Branch {  // a direct one
    uint64_t target;
    size_t source;  // index of the instruction
    auto operator<=>(const Branch&) const = default;
  };
  // Whether a register holds what was loaded from a slot: on every way that leads to its use, on
  // none, or on some.
  enum class Origin : uint8_t { slot, other, mixed };

  Origin origin_of(size_t use, uint8_t reg, uint64_t slot) const;
  uint64_t slot_of(const x86::Insn& load, size_t index) const;
  bool is_nop(size_t index) const;
  // The first branch that leads to `address`, or the end.
  std::vector<Branch>::const_iterator branch_to(uint64_t address) const;
  // What `reg` holds when instruction `before` begins; `depth` registers may be followed.
  CodeAddress register_value(uint8_t reg, size_t before, int depth) const;
  // What `insn` assigns to `reg`.
  CodeAddress assigned_value(const x86::Insn& insn, uint8_t reg, size_t index, int depth) const;
  void note_store(const x86::Insn& insn, uint64_t at);

  const CodeSegment& code_;
  size_t& budget_;
  std::vector<uint64_t> starts_;  // of its instructions
  std::vector<Branch> branches_;  // sorted
  std::vector<FlagStore> flag_stores_;
  uint64_t decoded_to_ = 0;
};

}  // namespace giltop
