// X86Function::earlier_place: another place for the probe of a call that would be single-stepped.
//
// take_gil and drop_gil lead to the call in straight code, often past a small `if`:
//
//     call  *pthread_mutex_lock     the mutex is ours ...
//     test  %eax,%eax
//     jne   fatal                   <- here (a lock that failed ends in Py_FatalError)
//     movl  $0,0x10(%rbp)           locked = 0
//     test  %rbx,%rbx
//     je    1f                      <- or rather here: both ways lead on
//     andb  $0xdf,0x20(%rbx)
//  1: lea   0x20(%rbp),%rdi
//     call  *pthread_cond_signal    ... until behind this call
//
// The event is then told some nanoseconds before the call, under the same mutex: its order among
// the events of all threads on that GIL is the same. An instruction behind the call would come when
// the waiter has been woken already.
#include <algorithm>

#include "target/x86_function.h"

namespace giltop {
namespace {

using x86::Insn;
using x86::Map;

// arch/x86/kernel/uprobes.c, branch_setup_insn() and push_setup_insn(): jcc, call, nop and push
// (jmp, too, but no straight code leads past it).
bool is_conditional(const Insn& insn) {
  if (insn.operand16) return false;
  if (insn.map == Map::map_0f) return insn.opcode >= 0x80 && insn.opcode <= 0x8f;
  return insn.map == Map::primary && insn.opcode >= 0x70 && insn.opcode <= 0x7f;
}

bool is_direct_call(const Insn& insn) { return insn.is(Map::primary, 0xe8) && !insn.operand16; }

bool is_plain(const Insn& insn) {
  if (insn.map != Map::primary) return false;
  if (insn.opcode == 0x90) return insn.length == 1;
  return insn.opcode >= 0x50 && insn.opcode <= 0x57 && insn.length == (insn.rex == 0 ? 1 : 2);
}

// The registers that a call leaves as they are (System V ABI).
std::optional<GilBase> base_of(uint64_t reg) {
  switch (reg) {
    case x86::kRbx:
      return GilBase::rbx;
    case x86::kRbp:
      return GilBase::rbp;
    case 12:
      return GilBase::r12;
    case 13:
      return GilBase::r13;
    case 14:
      return GilBase::r14;
    case 15:
      return GilBase::r15;
    default:
      return std::nullopt;
  }
}

int64_t wrapping_minus(int64_t a, uint64_t b) {  // addresses of a hostile file may be anything
  return static_cast<int64_t>(static_cast<uint64_t>(a) - b);
}

}  // namespace

std::optional<EarlierPlace> X86Function::earlier_place(size_t call, CondCall callee) const {
  constexpr size_t kWindow = 24;  // instructions
  size_t read_at = 0;
  const CodeAddress argument = register_value(x86::kRdi, call, 4, &read_at);
  if (!argument.known()) return std::nullopt;
  const bool constant = argument.kind == CodeAddress::Kind::absolute;
  const auto base = constant ? GilBase::code : base_of(argument.base);
  if (!base) return std::nullopt;
  for (size_t i = call; i-- > 0 && call - i <= kWindow;) {
    const auto insn = decode_at(starts_[i]);
    if (!insn || insn->ends_flow()) return std::nullopt;
    const bool leads_on = !insn->is_relative_branch() || (target_of(*insn, i) > starts_[i] &&
                                                          target_of(*insn, i) <= starts_[call]);
    // A call may take its time, or wait for the mutex: only the wait may be told before it.
    const bool emulated = is_plain(*insn) ||
                          (is_direct_call(*insn) && callee == CondCall::timedwait) ||
                          (is_conditional(*insn) && (leads_on || checks_a_lock(i)));
    if (emulated && all_ways_lead_on(i, call) &&
        (constant ||
         keeps(static_cast<uint8_t>(argument.base), std::min(i, read_at), std::max(i, read_at))))
      return EarlierPlace{starts_[i], *base,
                          wrapping_minus(argument.value, constant ? starts_[i] : 0)};
    if (insn->is_call() || !leads_on) return std::nullopt;
  }
  return std::nullopt;
}

// Whether nothing behind `from`, up to `to`, is branched to from elsewhere. (What the branches in
// between lead to was looked at on the way back.)
bool X86Function::all_ways_lead_on(size_t from, size_t to) const {
  for (auto branch = std::upper_bound(branches_.begin(), branches_.end(),
                                      Branch{starts_[from], starts_.size()});
       branch != branches_.end() && branch->target <= starts_[to]; ++branch) {
    if (branch->source < from || branch->source >= to) return false;
  }
  return true;
}

// Whether it is the jne of `if (pthread_mutex_lock(...)) Py_FatalError(...)`.
bool X86Function::checks_a_lock(size_t branch) const {
  constexpr size_t kWindow = 4;  // instructions
  const auto insn = decode_at(starts_[branch]);
  if (!insn || (insn->opcode & 0x0f) != 5 || branch == 0) return false;
  const auto test = decode_at(starts_[branch - 1]);
  if (!test || !test->is(Map::primary, 0x85) || test->mod != 3 || test->reg != x86::kRax ||
      test->rm != x86::kRax)
    return false;
  for (size_t i = branch; i-- > 0 && branch - i <= kWindow;) {
    if (branch_to(starts_[i + 1]) != branches_.end()) return false;
    const auto before = decode_at(starts_[i]);
    if (!before || before->ends_flow() || before->is_relative_branch()) return false;
    if (before->is_call())
      return before->is(Map::primary, 0xff) && before->rip_relative &&
             context_.lock_slots.contains(slot_of(*before, i));
    if (before->may_write(x86::kRax)) return false;
  }
  return false;
}

// Whether a callee-saved register is the same when `to` begins as when `from` does.
bool X86Function::keeps(uint8_t reg, size_t from, size_t to) const {
  for (size_t i = from; i < to; ++i) {
    const auto insn = decode_at(starts_[i]);
    if (!insn || (!insn->is_call() && insn->may_write(reg))) return false;
  }
  return true;
}

uint64_t X86Function::target_of(const Insn& branch, size_t index) const {
  return starts_[index] + branch.length + static_cast<uint64_t>(branch.immediate);
}

}  // namespace giltop
