// A64Values: what a register of an AArch64 function holds, followed back through its code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "target/a64_insn.h"
#include "target/machine.h"

namespace giltop {

// Compilers set up an address far from its use here: `add x22, x20, #0x10`, calls, branches, then
// `str wzr, [x22]`. So registers are followed along all direct branches (a switch's table and the
// return of an exception are not seen): a value is known where everything that may have set the
// register last agrees. `code` and `context` must outlive it.
class A64Values {
 public:
  // What a value is counted from: a constant from 0, else from what one instruction left in a
  // register (or several did), from the function's entry, or from a place in memory.
  struct Value {
    enum class Kind : uint8_t { unknown, constant, rooted };
    // Of the root: how it came into the register.
    enum class Source : uint8_t { computed, pointer, stack };
    Kind kind = Kind::unknown;
    Source source = Source::computed;
    uint64_t root = 0;
    int64_t offset = 0;  // or the constant

    bool is_constant(uint64_t value) const {
      return kind == Kind::constant && static_cast<uint64_t>(offset) == value;
    }
    bool operator==(const Value&) const = default;
  };
  // Whether a register holds what was loaded from an address: on every way that leads to its use,
  // on none, or on some.
  enum class Origin : uint8_t { there, elsewhere, mixed };

  A64Values(const CodeSegment& code, const FunctionBounds& bounds, CodeContext& context);

  size_t size() const { return words_.size(); }  // instructions, up to the first unknown one
  uint64_t address(size_t index) const { return begin_ + index * 4; }
  a64::Insn insn(size_t index) const { return {words_[index]}; }

  // Before instruction `index` runs.
  Value value(uint8_t reg, size_t index) const { return value(reg, index, kDepth); }
  Value value_of(const a64::Address& address, size_t index) const;
  Origin origin(uint8_t reg, size_t index, uint64_t loaded_from) const {
    return origin(reg, index, loaded_from, kDepth);
  }

 private:
  static constexpr int kDepth = 8;  // registers followed one after the other
  struct Branch {                   // a direct one
    uint32_t target, source;        // indices
    auto operator<=>(const Branch&) const = default;
  };
  // What may have set a register last: an instruction, or (`outside`) what came before it.
  struct Definition {
    uint32_t index;
    bool outside;
    auto operator<=>(const Definition&) const = default;
  };

  std::optional<std::vector<Definition>> definitions(uint8_t reg, size_t index) const;
  Value value(uint8_t reg, size_t index, int depth) const;
  Value defined_value(uint8_t reg, const Definition& definition, int depth) const;
  Value loaded_value(uint8_t reg, size_t index, const a64::Address& from, int depth) const;
  Origin origin(uint8_t reg, size_t index, uint64_t loaded_from, int depth) const;

  uint64_t begin_;
  size_t& budget_;
  std::vector<uint32_t> words_;
  std::vector<uint32_t> written_;       // by each instruction
  std::vector<bool> is_target_;         // of a branch
  std::vector<bool> ends_flow_;         // what follows is not reached from it
  std::vector<Branch> branches_;        // sorted
  mutable std::vector<uint32_t> seen_;  // the search that saw an instruction last
  mutable uint32_t search_ = 0;
};

}  // namespace giltop
