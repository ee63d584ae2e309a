#include "target/a64_values.h"

#include <algorithm>
#include <cstring>

namespace giltop {
namespace {

using Value = A64Values::Value;

int64_t wrapping_add(int64_t a, int64_t b) {  // addresses of a hostile file may be anything
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// Names for roots: distinct things get distinct ones (FNV-1a over what they are made of).
enum class Root : uint64_t { definition, outside, several, memory };
uint64_t root_name(Root kind, uint64_t a, uint64_t b) {
  uint64_t name = 0xcbf29ce484222325;
  for (const uint64_t part : {static_cast<uint64_t>(kind), a, b}) {
    for (int shift = 0; shift < 64; shift += 8) {
      name = (name ^ (part >> shift & 0xff)) * 0x100000001b3;
    }
  }
  return name;
}

Value constant(uint64_t value) {
  return {Value::Kind::constant, Value::Source::computed, 0, static_cast<int64_t>(value)};
}

Value rooted(uint64_t root, Value::Source source = Value::Source::computed) {
  return {Value::Kind::rooted, source, root, 0};
}

}  // namespace

A64Values::A64Values(const CodeSegment& code, const FunctionBounds& bounds, CodeContext& context)
    : begin_(bounds.begin), budget_(context.budget) {
  const uint64_t end = std::min(bounds.end, code.end());
  if (begin_ % 4 != 0 || begin_ < code.address || begin_ >= end) return;
  const size_t count = (end - begin_) / 4;
  for (size_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, code.bytes.data() + (begin_ - code.address) + i * 4, sizeof word);
    const a64::Insn in{word};
    if (!in.is_known()) break;
    words_.push_back(word);
    written_.push_back(in.written());
    const uint64_t callee = address(i) + static_cast<uint64_t>(in.branch_link_offset());
    ends_flow_.push_back(in.ends_flow() ||
                         (in.is_branch_link() && context.never_return.contains(callee)));
  }
  is_target_.resize(words_.size());
  seen_.resize(words_.size());
  for (size_t i = 0; i < words_.size(); ++i) {
    const auto offset = insn(i).branch();
    if (!offset) continue;
    const int64_t target = static_cast<int64_t>(i) + *offset / 4;
    if (target < 0 || target >= static_cast<int64_t>(words_.size())) continue;
    branches_.push_back({static_cast<uint32_t>(target), static_cast<uint32_t>(i)});
    is_target_[static_cast<size_t>(target)] = true;
  }
  std::sort(branches_.begin(), branches_.end());
}

std::optional<std::vector<A64Values::Definition>> A64Values::definitions(uint8_t reg,
                                                                         size_t index) const {
  constexpr size_t kMaxDefinitions = 8;
  std::vector<Definition> found;
  std::vector<size_t> open = {index};
  ++search_;
  const auto look_at = [&](size_t before) {  // an instruction that may run right before
    if (seen_[before] == search_) return;
    seen_[before] = search_;
    if ((written_[before] >> reg & 1) != 0) {
      found.push_back({static_cast<uint32_t>(before), false});
    } else {
      open.push_back(before);
    }
  };
  while (!open.empty()) {
    if (budget_ == 0 || found.size() > kMaxDefinitions) return std::nullopt;
    --budget_;
    const size_t i = open.back();
    open.pop_back();
    bool reached = false;
    if (i > 0 && !ends_flow_[i - 1]) look_at(i - 1), reached = true;
    if (is_target_[i]) {
      const Branch first{static_cast<uint32_t>(i), 0};
      for (auto branch = std::lower_bound(branches_.begin(), branches_.end(), first);
           branch != branches_.end() && branch->target == i; ++branch) {
        look_at(branch->source), reached = true;
      }
    }
    // The function's entry, or a place that only a computed jump leads to.
    if (i == 0 || !reached || insn(i).is_indirect_target()) {
      found.push_back({static_cast<uint32_t>(i), true});
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

Value A64Values::value(uint8_t reg, size_t index, int depth) const {
  if (depth == 0) return {};
  const auto all = definitions(reg, index);
  if (!all || all->empty()) return {};
  const Value first = defined_value(reg, all->front(), depth);
  uint64_t name = reg;
  bool agree = true;
  for (const Definition& definition : *all) {
    agree =
        agree && (&definition == &all->front() || defined_value(reg, definition, depth) == first);
    name = root_name(Root::several, name, definition.index * uint64_t{2} + definition.outside);
  }
  if (agree) return first;
  return rooted(name);
}

Value A64Values::defined_value(uint8_t reg, const Definition& definition, int depth) const {
  const size_t at = definition.index;
  if (definition.outside) return rooted(root_name(Root::outside, at, reg));
  const a64::Insn in = insn(at);
  const Value itself = rooted(root_name(Root::definition, at, reg));
  if (in.is_call()) return itself;
  if (const auto from = in.loaded_from(reg)) return loaded_value(reg, at, *from, depth);
  if (in.rd() != reg) return itself;  // a written-back base, for one
  if (const auto page = in.page_address(address(at))) return constant(*page);
  if (const auto number = in.constant()) return constant(*number);
  if (const auto sum = in.added()) {
    Value base = value(sum->base, at, depth - 1);
    if (base.kind == Value::Kind::unknown) return itself;
    base.offset = wrapping_add(base.offset, sum->offset);
    return base;
  }
  if (const auto source = in.moved()) {
    if (*source == a64::kZero) return constant(0);
    const Value copied = value(*source, at, depth - 1);
    const bool wide = a64::field(in.word, 31, 31) != 0;
    if (wide && copied.kind != Value::Kind::unknown) return copied;
    if (copied.kind == Value::Kind::constant) {
      return constant(static_cast<uint64_t>(copied.offset) & 0xffffffff);
    }
    return itself;
  }
  if (in.inserted(0)) {
    const Value before = value(reg, at, depth - 1);
    if (before.kind != Value::Kind::constant) return itself;
    return constant(*in.inserted(static_cast<uint64_t>(before.offset)));
  }
  return itself;
}

// A place is named by its address, so that what is loaded from it twice counts as the same: a GOT
// slot, or a local variable.
Value A64Values::loaded_value(uint8_t reg, size_t index, const a64::Address& from,
                              int depth) const {
  const bool on_stack = from.base == a64::kSp || from.base == a64::kFrame;
  const auto source = on_stack ? Value::Source::stack : Value::Source::pointer;
  const Value base = value(from.base, index, depth - 1);
  const auto place = static_cast<uint64_t>(wrapping_add(base.offset, from.offset));
  if (base.kind == Value::Kind::constant || (on_stack && base.kind == Value::Kind::rooted)) {
    return rooted(root_name(Root::memory, base.root, place), source);
  }
  return rooted(root_name(Root::definition, index, reg), source);
}

Value A64Values::value_of(const a64::Address& address, size_t index) const {
  Value sum = value(address.base, index);
  if (sum.kind != Value::Kind::unknown) sum.offset = wrapping_add(sum.offset, address.offset);
  return sum;
}

A64Values::Origin A64Values::origin(uint8_t reg, size_t index, uint64_t loaded_from,
                                    int depth) const {
  if (depth == 0) return Origin::mixed;
  const auto all = definitions(reg, index);
  if (!all) return Origin::mixed;
  bool there = false, elsewhere = false;
  for (const Definition& definition : *all) {
    Origin origin_here = Origin::elsewhere;
    const a64::Insn in = insn(definition.index);
    if (!definition.outside && !in.is_call()) {
      const auto from = in.loaded_from(reg);
      const auto source = in.moved();
      if (from && value_of(*from, definition.index).is_constant(loaded_from)) {
        origin_here = Origin::there;
      } else if (source && *source != a64::kZero && in.rd() == reg) {
        origin_here = origin(*source, definition.index, loaded_from, depth - 1);
      }
    }
    there |= origin_here != Origin::elsewhere;
    elsewhere |= origin_here != Origin::there;
  }
  return there && elsewhere ? Origin::mixed : there ? Origin::there : Origin::elsewhere;
}

}  // namespace giltop
