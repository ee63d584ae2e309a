#include "target/a64_function.h"

#include <string>

namespace giltop {
namespace {

using Value = A64Values::Value;

constexpr size_t kMaxStores = 1 << 16;  // of a function, against hostile files

CodeAddress code_address(const Value& value) {
  switch (value.kind) {
    case Value::Kind::constant:
      return {CodeAddress::Kind::absolute, 0, value.offset};
    case Value::Kind::rooted:
      return {CodeAddress::Kind::relative, value.root, value.offset};
    case Value::Kind::unknown:
      break;
  }
  return {};
}

}  // namespace

A64Function::A64Function(const CodeSegment& code, const FunctionBounds& bounds,
                         CodeContext& context)
    : values_(code, bounds, context) {
  for (size_t i = 0; i < values_.size(); ++i) note_store(i);
}

std::unique_ptr<FunctionCode> A64Function::make(const CodeSegment& code,
                                                const FunctionBounds& bounds,
                                                CodeContext& context) {
  return std::make_unique<A64Function>(code, bounds, context);
}

void A64Function::note_store(size_t index) {
  const a64::Insn insn = values_.insn(index);
  const auto to = insn.stored32_to();
  if (!to || flag_stores_.size() == kMaxStores) return;
  FlagStore store;
  store.value = FlagStore::Value::zero;
  if (insn.rd() != a64::kZero) {
    const Value value = values_.value(insn.rd(), index);
    if (value.is_constant(1)) {
      store.value = FlagStore::Value::one;
    } else if (!value.is_constant(0)) {
      return;
    }
  }
  store.where = code_address(values_.value_of(*to, index));
  if (store.where.known()) flag_stores_.push_back(store);
}

Result<std::vector<FoundCall>> A64Function::calls_of(const CallCandidate& candidate) const {
  std::vector<FoundCall> found;
  if (candidate.address < values_.address(0)) return found;
  const size_t index = (candidate.address - values_.address(0)) / 4;
  if (index >= values_.size()) {
    return Error("cannot decode the code at address " +
                 std::to_string(values_.address(values_.size())));
  }
  std::vector<size_t> calls = {index};
  if (!values_.insn(index).is_call()) {
    auto through = calls_through(candidate);
    if (!through) return std::move(through).error();
    calls = *std::move(through);
  }
  for (const size_t call : calls) {
    FoundCall each{values_.address(call), 4, result_is_checked(call), first_argument(call),
                   values_.address(call) + 4};
    each.emulated = values_.insn(call).is_branch_link();
    found.push_back(each);
  }
  return found;
}

Result<std::vector<size_t>> A64Function::calls_through(const CallCandidate& candidate) const {
  std::vector<size_t> calls;
  const size_t load = (candidate.address - values_.address(0)) / 4;
  const auto from = values_.insn(load).loaded_from(values_.insn(load).rd());
  if (!from || !values_.value_of(*from, load).is_constant(candidate.slot)) return calls;
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto reg = values_.insn(i).called_register();
    if (!reg) continue;
    switch (values_.origin(*reg, i, candidate.slot)) {
      case A64Values::Origin::there:
        calls.push_back(i);
        break;
      case A64Values::Origin::elsewhere:
        break;
      case A64Values::Origin::mixed:
        return Error(std::string("cannot follow the calls of ") +
                     kCondNames[static_cast<size_t>(candidate.callee)] + " through a register");
    }
  }
  return calls;
}

CodeAddress A64Function::first_argument(size_t call) const {
  const Value value = values_.value(0, call);
  if (value.kind == Value::Kind::rooted && value.offset == 0) {
    // No member of anything: a pointer as it was found. A member's address may be spilled, or come
    // from the caller, but is never loaded off the heap.
    if (value.source != Value::Source::pointer) return {};
    return {CodeAddress::Kind::foreign, 0, 0};
  }
  return code_address(value);
}

bool A64Function::result_is_checked(size_t call) const {
  constexpr uint32_t kEtimedout = 110;
  constexpr size_t kWindow = 4;  // instructions
  uint32_t holds = 1;  // bit n: xn holds the result; unoptimized code keeps it on the stack
  std::optional<a64::Address> stored;
  for (size_t i = call + 1; i < values_.size() && i <= call + kWindow; ++i) {
    const a64::Insn insn = values_.insn(i);
    const auto compared = insn.compared(kEtimedout);
    if (compared && (holds >> *compared & 1) != 0) return true;
    if (insn.ends_flow() || insn.is_call()) return false;
    const auto to = insn.stored32_to();
    if (to && (holds >> insn.rd() & 1) != 0) stored = to;
    const auto from = insn.moved();
    const bool again = from ? (holds >> *from & 1) != 0 : stored && insn.loads32_from(*stored);
    holds &= ~insn.written();
    if (again) holds |= uint32_t{1} << insn.rd();
  }
  return false;
}

}  // namespace giltop
