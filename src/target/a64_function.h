// A64Function: the AArch64 instructions of one function, and what can be told of a call from them.
#pragma once

#include <memory>
#include <vector>

#include "target/a64_values.h"
#include "target/machine.h"

namespace giltop {

class A64Function : public FunctionCode {
 public:
  A64Function(const CodeSegment& code, const FunctionBounds& bounds, CodeContext& context);
  static std::unique_ptr<FunctionCode> make(const CodeSegment& code, const FunctionBounds& bounds,
                                            CodeContext& context);

  // Flags are stored by str or stlr of a register; only those of a proved 0 or 1 are kept.
  const std::vector<FlagStore>& flag_stores() const override { return flag_stores_; }
  Result<std::vector<FoundCall>> calls_of(const CallCandidate& candidate) const override;

 private:
  void note_store(size_t index);
  // The calls through a register that holds what is in the GOT slot.
  Result<std::vector<size_t>> calls_through(const CallCandidate& candidate) const;
  CodeAddress first_argument(size_t call) const;
  // Whether one of the few instructions behind the call compares what it returned.
  bool result_is_checked(size_t call) const;

  A64Values values_;
  std::vector<FlagStore> flag_stores_;
};

}  // namespace giltop
