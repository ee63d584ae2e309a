// X86Function: the x86-64 instructions of one function, and what can be told of a call from them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "target/machine.h"
#include "target/x86_insn.h"

namespace giltop {

class X86Function : public FunctionCode {
 public:
  X86Function(const CodeSegment& code, const FunctionBounds& bounds, CodeContext& context);
  static std::unique_ptr<FunctionCode> make(const CodeSegment& code, const FunctionBounds& bounds,
                                            CodeContext& context);

  // Flags are stored by `movl $0|1, mem`; a register's value (`mov %ecx, mem`, `xchg %ecx, mem`) is
  // not followed.
  const std::vector<FlagStore>& flag_stores() const override { return flag_stores_; }
  Result<std::vector<FoundCall>> calls_of(const CallCandidate& candidate) const override;

 private:
  struct Branch {  // a direct one
    uint64_t target;
    size_t source;  // index of the instruction
    auto operator<=>(const Branch&) const = default;
  };
  // Whether a register holds what was loaded from a slot: on every way that leads to its use, on
  // none, or on some.
  enum class Origin : uint8_t { slot, other, mixed };

  std::optional<x86::Insn> decode_at(uint64_t address) const;
  // Index of the instruction that covers `address`.
  std::optional<size_t> instruction_over(uint64_t address) const;

  // Whether one of the few instructions behind the call compares what it returned:
  // test %eax,%eax, or cmp $ETIMEDOUT,%eax after pthread_cond_timedwait; unoptimized code stores it
  // and compares it in memory.
  bool result_is_checked(size_t call) const;

  uint64_t resume_of(size_t call) const;

  // Follows the first argument (%rdi) back from the call. Proves it: no jump comes in between the
  // instruction that sets the register and the call, as far as direct jumps tell, and nothing in
  // between may write the register.
  CodeAddress first_argument(size_t call) const { return register_value(x86::kRdi, call, 4); }

  // Where the call can be told before it is made (x86_earlier.cpp).
  std::optional<EarlierPlace> earlier_place(size_t call, CondCall callee) const;
  bool all_ways_lead_on(size_t from, size_t to) const;
  bool checks_a_lock(size_t branch) const;
  bool keeps(uint8_t reg, size_t from, size_t to) const;
  uint64_t target_of(const x86::Insn& branch, size_t index) const;

  // The calls through the register that instruction `load` puts a function's address into (-fno-plt
  // code of clang, and of gcc where one function calls it twice). Nothing when a call may also be
  // of something else.
  std::optional<std::vector<size_t>> calls_through(size_t load) const;

  Origin origin_of(size_t use, uint8_t reg, uint64_t slot) const;
  uint64_t slot_of(const x86::Insn& load, size_t index) const;
  bool is_nop(size_t index) const;
  // The first branch that leads to `address`, or the end.
  std::vector<Branch>::const_iterator branch_to(uint64_t address) const;
  // What `reg` holds when instruction `before` begins; `depth` registers may be followed.
  // `read_at`: set to the instruction at whose begin the base of a relative address counts.
  CodeAddress register_value(uint8_t reg, size_t before, int depth,
                             size_t* read_at = nullptr) const;
  // What `insn` assigns to `reg`.
  CodeAddress assigned_value(const x86::Insn& insn, uint8_t reg, size_t index, int depth,
                             size_t* read_at) const;
  void note_store(const x86::Insn& insn, uint64_t at);

  const CodeSegment& code_;
  CodeContext& context_;
  std::vector<uint64_t> starts_;  // of its instructions
  std::vector<Branch> branches_;  // sorted
  std::vector<FlagStore> flag_stores_;
  uint64_t decoded_to_ = 0;
};

}  // namespace giltop
