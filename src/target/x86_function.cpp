#include "target/x86_function.h"

#include <algorithm>
#include <span>
#include <string>

namespace giltop {
namespace {

constexpr size_t kMaxStores = 1 << 16;  // of a function; the eval loop has some thousands

// Addresses of a hostile file may be anything.
int64_t wrapping_add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

bool is_callee_saved(uint8_t reg) {  // System V ABI
  return reg == x86::kRbx || reg == x86::kRbp || (reg >= 12 && reg <= 15);
}

bool is_string_operation(const x86::Insn& insn) {
  return insn.map == x86::Map::primary &&
         ((insn.opcode >= 0xa4 && insn.opcode <= 0xa7) ||
          (insn.opcode >= 0xaa && insn.opcode <= 0xaf) || insn.opcode == 0x6c);
}

CodeAddress memory_operand(const x86::Insn& insn, uint64_t next) {
  if (insn.has_index || insn.has_segment || insn.address32) return {};
  if (insn.rip_relative) {
    return {CodeAddress::Kind::absolute, 0, wrapping_add(static_cast<int64_t>(next), insn.disp)};
  }
  if (!insn.has_base) return {CodeAddress::Kind::absolute, 0, insn.disp};
  return {CodeAddress::Kind::relative, insn.base, insn.disp};
}

}  // namespace

X86Function::X86Function(const CodeSegment& code, const FunctionBounds& bounds,
                         CodeContext& context)
    : code_(code), context_(context) {
  const uint64_t end = std::min(bounds.end, code.end());
  for (uint64_t at = bounds.begin; at < end;) {
    const auto insn = decode_at(at);
    if (!insn || insn->length > end - at) break;
    starts_.push_back(at);
    if (insn->is_relative_branch()) {
      const uint64_t target = at + insn->length + static_cast<uint64_t>(insn->immediate);
      branches_.push_back({target, starts_.size() - 1});
    }
    note_store(*insn, at);
    at += insn->length;
    decoded_to_ = at;
  }
  std::sort(branches_.begin(), branches_.end());
}

std::unique_ptr<FunctionCode> X86Function::make(const CodeSegment& code,
                                                const FunctionBounds& bounds,
                                                CodeContext& context) {
  return std::make_unique<X86Function>(code, bounds, context);
}

Result<std::vector<FoundCall>> X86Function::calls_of(const CallCandidate& candidate) const {
  if (candidate.address >= decoded_to_) {
    return Error("cannot decode the code at address " + std::to_string(decoded_to_));
  }
  const auto index = instruction_over(candidate.address);
  const auto insn = index ? decode_at(starts_[*index]) : std::nullopt;
  std::vector<FoundCall> found;
  if (!insn) return found;
  std::vector<size_t> calls;
  if (insn->is_call()) {
    // Only prefixes may stand before the opcode, so its operand ends the instruction. Else the
    // bytes are part of another instruction.
    const uint64_t tail = insn->is(x86::Map::primary, 0xe8) ? 5 : 6;
    if (starts_[*index] + insn->length != candidate.address + tail) return found;
    calls.push_back(*index);
  } else if (insn->is(x86::Map::primary, 0x8b) && insn->rip_relative) {
    auto through = calls_through(*index);
    if (!through) {
      return Error(std::string("cannot follow the calls of ") +
                   kCondNames[static_cast<size_t>(candidate.callee)] + " through a register");
    }
    calls = *std::move(through);
  }
  for (const size_t call : calls) {
    const uint64_t address = starts_[call];
    const auto called = decode_at(address);
    FoundCall each{address, called->length, result_is_checked(call), first_argument(call),
                   resume_of(call)};
    each.emulated = called->is(x86::Map::primary, 0xe8);
    if (!each.emulated) each.earlier = earlier_place(call, candidate.callee);
    found.push_back(each);
  }
  return found;
}

std::optional<x86::Insn> X86Function::decode_at(uint64_t address) const {
  if (address < code_.address || address >= code_.end()) return std::nullopt;
  return x86::decode(std::span(code_.bytes).subspan(address - code_.address));
}

std::optional<size_t> X86Function::instruction_over(uint64_t address) const {
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), address);
  if (next == starts_.begin() || address >= decoded_to_) return std::nullopt;
  return static_cast<size_t>(next - starts_.begin()) - 1;
}

bool X86Function::result_is_checked(size_t call) const {
  constexpr int64_t kEtimedout = 110;
  constexpr size_t kWindow = 4;  // instructions; gcc -Os sets up the message of the failure first
  bool stored = false;
  for (size_t i = call + 1; i < starts_.size() && i <= call + kWindow; ++i) {
    const auto insn = decode_at(starts_[i]);
    if (!insn) return false;
    if (insn->is(x86::Map::primary, 0x89) && insn->is_memory() && insn->reg == x86::kRax) {
      stored = true;
    }
    if (stored && insn->is(x86::Map::primary, 0x83) && insn->is_memory() && (insn->reg & 7) == 7 &&
        (insn->immediate == kEtimedout || insn->immediate == 0)) {
      return true;
    }
    if (insn->is(x86::Map::primary, 0x85) && insn->mod == 3 && insn->reg == x86::kRax &&
        insn->rm == x86::kRax) {
      return true;
    }
    if (insn->is(x86::Map::primary, 0x83) && insn->mod == 3 && (insn->reg & 7) == 7 &&
        insn->rm == x86::kRax && (insn->immediate == kEtimedout || insn->immediate == 0)) {
      return true;
    }
    if (insn->ends_flow() || insn->is_call() || insn->may_write(x86::kRax)) return false;
  }
  return false;
}

uint64_t X86Function::resume_of(size_t call) const {
  constexpr size_t kWindow = 6;  // instructions
  const uint64_t next = starts_[call] + decode_at(starts_[call])->length;
  for (size_t i = call + 1; i < starts_.size() && i <= call + kWindow; ++i) {
    const auto insn = decode_at(starts_[i]);
    if (!insn) break;
    if (insn->is_conditional_branch()) return starts_[i];
    if (insn->ends_flow() || insn->is_call()) break;
  }
  return next;
}

std::optional<std::vector<size_t>> X86Function::calls_through(size_t load) const {
  const auto loaded = decode_at(starts_[load]);
  if (!loaded) return std::nullopt;
  std::vector<size_t> calls;
  for (size_t i = 0; i < starts_.size(); ++i) {
    if (context_.budget == 0) return std::nullopt;
    --context_.budget;
    const auto insn = decode_at(starts_[i]);
    if (!insn) return std::nullopt;
    const bool through = insn->is(x86::Map::primary, 0xff) && (insn->reg & 7) == 2 &&
                         insn->mod == 3 && insn->rm == loaded->reg;
    if (!through) continue;
    const Origin origin = origin_of(i, loaded->reg, slot_of(*loaded, load));
    if (origin == Origin::mixed) return std::nullopt;
    if (origin == Origin::slot) calls.push_back(i);
  }
  return calls;
}

uint64_t X86Function::slot_of(const x86::Insn& load, size_t index) const {
  return starts_[index] + load.length + static_cast<uint64_t>(int64_t{load.disp});
}

X86Function::Origin X86Function::origin_of(size_t use, uint8_t reg, uint64_t slot) const {
  bool from_slot = false, from_other = false;
  std::vector<bool> seen(starts_.size());
  std::vector<size_t> open = {use};
  const auto look_at = [&](size_t i) {  // an instruction that may run right before
    if (seen[i]) return;
    seen[i] = true;
    const auto insn = decode_at(starts_[i]);
    if (insn && insn->is(x86::Map::primary, 0x8b) && insn->rip_relative && insn->reg == reg &&
        slot_of(*insn, i) == slot) {
      from_slot = true;
    } else if (!insn || (insn->is_call() ? !is_callee_saved(reg) : insn->may_write(reg))) {
      from_other = true;
    } else {
      open.push_back(i);
    }
  };
  while (!open.empty()) {
    if (context_.budget == 0) return Origin::mixed;
    --context_.budget;
    const size_t i = open.back();
    open.pop_back();
    bool reached = false;
    if (i > 0) {
      const auto before = decode_at(starts_[i - 1]);
      if (!before || !before->ends_flow()) look_at(i - 1), reached = true;
    }
    for (auto branch = branch_to(starts_[i]);
         branch != branches_.end() && branch->target == starts_[i]; ++branch) {
      look_at(branch->source), reached = true;
    }
    // Nothing leads here: the function's entry or a jump table's target, unless it is padding.
    if (!reached && !is_nop(i)) from_other = true;
  }
  return from_slot && from_other ? Origin::mixed : from_slot ? Origin::slot : Origin::other;
}

bool X86Function::is_nop(size_t index) const {
  const auto insn = decode_at(starts_[index]);
  return insn && (insn->is(x86::Map::primary, 0x90) || insn->is(x86::Map::map_0f, 0x1f));
}

std::vector<X86Function::Branch>::const_iterator X86Function::branch_to(uint64_t address) const {
  const auto branch = std::lower_bound(branches_.begin(), branches_.end(), Branch{address, 0});
  return branch != branches_.end() && branch->target == address ? branch : branches_.end();
}

CodeAddress X86Function::register_value(uint8_t reg, size_t before, int depth,
                                        size_t* read_at) const {
  constexpr size_t kWindow = 48;  // instructions
  for (size_t i = before; i-- > 0 && before - i <= kWindow;) {
    if (branch_to(starts_[i + 1]) != branches_.end()) return {};
    const auto insn = decode_at(starts_[i]);
    if (!insn || insn->ends_flow()) return {};
    if (insn->is_call()) {
      if (!is_callee_saved(reg)) return {};
      continue;
    }
    if (is_string_operation(*insn) && (reg == x86::kRdi || reg == x86::kRsi)) return {};
    if (insn->may_write(reg)) return assigned_value(*insn, reg, i, depth, read_at);
  }
  return {};
}

CodeAddress X86Function::assigned_value(const x86::Insn& insn, uint8_t reg, size_t index, int depth,
                                        size_t* read_at) const {
  using x86::Map;
  const uint64_t next = starts_[index] + insn.length;
  if (insn.operand16 || insn.map != Map::primary) return {};
  if (insn.opcode == 0x8d && insn.reg == reg) {  // lea
    if (insn.has_index || insn.address32 || (insn.rex & 8) == 0) return {};
    if (read_at) *read_at = index;
    return memory_operand(insn, next);
  }
  if ((insn.opcode & 0xf8) == 0xb8) {  // mov $imm: non-PIC code, 32-bit and zero-extended
    const bool wide = (insn.rex & 8) != 0;
    return {CodeAddress::Kind::absolute, 0,
            wide ? insn.immediate : static_cast<int64_t>(static_cast<uint32_t>(insn.immediate))};
  }
  if (insn.opcode == 0xc7 && insn.mod == 3 && (insn.rex & 8) != 0) {  // mov $simm32
    return {CodeAddress::Kind::absolute, 0, insn.immediate};
  }
  if ((insn.opcode == 0x83 || insn.opcode == 0x81) && insn.mod == 3 && (insn.rex & 8) != 0) {
    const uint8_t operation = insn.reg & 7;
    if (operation != 0 && operation != 5) return {};  // add, sub
    CodeAddress from = depth > 0 ? register_value(reg, index, depth - 1, read_at) : CodeAddress{};
    if (!from.known()) {  // whatever it held before: a member of what it points at
      from = {CodeAddress::Kind::relative, reg, 0};
      if (read_at) *read_at = index;
    }
    from.value = wrapping_add(from.value, operation == 0 ? insn.immediate : -insn.immediate);
    return from;
  }
  if (insn.opcode == 0x8b && insn.mod != 3) {  // mov from memory
    // A spilled address is loaded off the stack; a member's address is never loaded off the heap.
    if (insn.has_base && (insn.base == x86::kRsp || insn.base == x86::kRbp)) return {};
    return {CodeAddress::Kind::foreign, 0, 0};
  }
  if ((insn.opcode == 0x8b || insn.opcode == 0x89) && insn.mod == 3 && (insn.rex & 8) != 0) {
    const uint8_t source = insn.opcode == 0x8b ? insn.rm : insn.reg;
    if (depth > 0) {
      const CodeAddress from = register_value(source, index, depth - 1, read_at);
      if (from.kind != CodeAddress::Kind::unknown) return from;
    }
    return {};
  }
  return {};
}

void X86Function::note_store(const x86::Insn& insn, uint64_t at) {
  if (insn.map != x86::Map::primary || !insn.is_memory()) return;
  if (insn.operand16 || (insn.rex & 8) != 0) return;  // gil->locked is an int
  FlagStore store;
  if (insn.opcode == 0xc7 && (insn.reg & 7) == 0) {
    if (insn.immediate != 0 && insn.immediate != 1) return;
    store.value = insn.immediate == 0 ? FlagStore::Value::zero : FlagStore::Value::one;
  } else if (insn.opcode != 0x89 && insn.opcode != 0x87) {  // mov, xchg
    return;
  }
  store.where = memory_operand(insn, at + insn.length);
  if (store.where.known() && flag_stores_.size() < kMaxStores) flag_stores_.push_back(store);
}

}  // namespace giltop
