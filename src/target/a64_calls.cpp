// AArch64: where a file's code calls through the PLT or the GOT.
#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>

#include "target/a64_function.h"
#include "target/a64_insn.h"
#include "target/machine.h"

namespace giltop {
namespace {

constexpr uint64_t kPage = 4096;

// Calls visit(index, word) for every aligned word, in order.
template <typename Visit>
void for_each_word(const CodeSegment& code, Visit visit) {
  const size_t skip = (4 - code.address % 4) % 4;
  for (size_t at = skip; at + 4 <= code.bytes.size(); at += 4) {
    uint32_t word;
    std::memcpy(&word, code.bytes.data() + at, sizeof word);
    visit(at, a64::Insn{word});
  }
}

a64::Insn insn_at(const CodeSegment& code, size_t at) {
  uint32_t word = 0;
  if (at + 4 <= code.bytes.size()) std::memcpy(&word, code.bytes.data() + at, sizeof word);
  return {word};
}

// A PLT stub, whose load of the slot stands at `load`:
//   [bti c]; adrp x16, slot; ldr x17, [x16, #slot]; add x16, x16, #slot; [autia1716]; br x17
bool add_stub(const CodeSegment& code, size_t load, CondCall callee, CallTargets& stubs) {
  constexpr uint32_t kBranch = 0xd61f0220, kAutia1716 = 0xd503219f, kBtiC = 0xd503245f;
  if (load < 4 || insn_at(code, load).rd() != 17) return false;
  size_t end = load + 4;
  const auto sum = insn_at(code, end).added();
  if (sum && sum->base == 16) end += 4;
  if (insn_at(code, end).word == kAutia1716) end += 4;
  const a64::Insn page = insn_at(code, load - 4);
  if (insn_at(code, end).word != kBranch || page.rd() != 16 || !page.page_address(0)) return false;
  stubs.add(code.address + load - 4, callee);
  if (load >= 8 && insn_at(code, load - 8).word == kBtiC) {
    stubs.add(code.address + load - 8, callee);
  }
  return true;
}

// Finds `ldr xt, [xn, #slot]` where an adrp of the slot's page into xn stands somewhere before it.
// Which value xn has there is for A64Function to prove.
class SlotLoads {
 public:
  explicit SlotLoads(const CallTargets& slots) : slots_(slots) {
    for (const CallTargets::Target& slot : slots.all()) in_page_.set(slot.address % kPage / 8);
  }

  // The slot that the instruction seems to load.
  std::optional<uint64_t> slot(a64::Insn insn, uint64_t address) {
    if ((insn.word & 0x9f000000) == 0x90000000) {  // adrp
      const uint64_t page = *insn.page_address(address);
      for (const CallTargets::Target& slot : slots_.all()) {
        if (slot.address / kPage == page / kPage) pages_[insn.rd()] = {page, address};
      }
      return std::nullopt;
    }
    if ((insn.word & 0xffc00000) != 0xf9400000) return std::nullopt;  // ldr xt, [xn, #imm]
    const uint32_t offset = a64::field(insn.word, 21, 10);
    if (offset >= kPage / 8 || !in_page_[offset]) return std::nullopt;
    const Page& page = pages_[insn.rn()];
    constexpr uint64_t kReach = 1 << 16;  // bytes; a larger function would not keep it so long
    if (page.set_at == 0 || address - page.set_at > kReach) return std::nullopt;
    return page.address + offset * uint64_t{8};
  }

 private:
  struct Page {
    uint64_t address = 0, set_at = 0;
  };
  const CallTargets& slots_;
  std::bitset<kPage / 8> in_page_;
  std::array<Page, 32> pages_ = {};
};

std::vector<CallCandidate> find_candidates(const std::vector<CodeSegment>& code,
                                           const CallTargets& slots) {
  CallTargets stubs;
  std::vector<CallCandidate> found;
  const auto keep = [&](const CallCandidate& candidate) {
    if (found.size() < kMaxCandidates) found.push_back(candidate);
  };
  for (const CodeSegment& part : code) {
    SlotLoads loads(slots);
    for_each_word(part, [&](size_t at, a64::Insn insn) {
      const auto slot = loads.slot(insn, part.address + at);
      const auto callee = slot ? slots.find(*slot) : std::nullopt;
      if (!callee || add_stub(part, at, *callee, stubs)) return;
      keep({part.address + at, *callee, *slot});
    });
  }
  if (!stubs.empty()) {
    for (const CodeSegment& part : code) {
      for_each_word(part, [&](size_t at, a64::Insn insn) {
        if (!insn.is_branch_link()) return;
        const uint64_t target =
            part.address + at + static_cast<uint64_t>(insn.branch_link_offset());
        if (const auto callee = stubs.find(target)) keep({part.address + at, *callee, 0});
      });
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.address < b.address; });
  return found;
}

// Calls visit(address, instruction) for every instruction of a function.
template <typename Visit>
void for_each_insn(const CodeSegment& code, const FunctionBounds& bounds, Visit visit) {
  if (bounds.begin < code.address || bounds.begin % 4 != 0) return;
  const uint64_t end = std::min(bounds.end, code.end());
  for (uint64_t address = bounds.begin; address < end; address += 4) {
    visit(address, insn_at(code, address - code.address));
  }
}

void add_callees(const CodeSegment& code, const FunctionBounds& bounds,
                 std::vector<uint64_t>& callees) {
  for_each_insn(code, bounds, [&](uint64_t address, a64::Insn insn) {
    if (!insn.is_branch_link()) return;
    callees.push_back(address + static_cast<uint64_t>(insn.branch_link_offset()));
  });
}

bool never_returns(const CodeSegment& code, const FunctionBounds& bounds) {
  if (bounds.begin < code.address || bounds.end > code.end() || bounds.begin % 4 != 0) return false;
  bool leaves = false;
  for_each_insn(code, bounds, [&](uint64_t address, a64::Insn insn) {
    const auto branch = insn.branch();
    const uint64_t target = address + static_cast<uint64_t>(branch.value_or(0));
    const bool inside = target >= bounds.begin && target < bounds.end;
    leaves |= !insn.is_known() || (branch ? !inside : insn.is_indirect_jump());
  });
  return !leaves;
}

// adrp and add, straight on: calls and branches are not minded.
std::vector<uint64_t> taken_addresses(std::span<const std::byte> code, uint64_t address) {
  std::vector<uint64_t> taken;
  std::array<std::optional<uint64_t>, 32> known;
  for (size_t at = 0; at + 4 <= code.size(); at += 4) {
    a64::Insn insn;
    std::memcpy(&insn.word, code.data() + at, sizeof insn.word);
    std::optional<uint64_t> value = insn.page_address(address + at);
    const auto sum = insn.added();
    if (sum && known[sum->base]) value = *known[sum->base] + static_cast<uint64_t>(sum->offset);
    for (uint8_t reg = 0; reg < 32; ++reg) {
      if (insn.writes(reg)) known[reg].reset();
    }
    if (!value) continue;
    known[insn.rd()] = value;
    taken.push_back(*value);
  }
  return taken;
}

}  // namespace

const Machine kA64Machine = {
    .elf_machine = EM_AARCH64,
    .jump_slot = R_AARCH64_JUMP_SLOT,
    .global_data = R_AARCH64_GLOB_DAT,
    .cond_size = 48,
    .mutex_size = 48,
    .find_candidates = find_candidates,
    .decode_function = A64Function::make,
    .add_callees = add_callees,
    .never_returns = never_returns,
    .taken_addresses = taken_addresses,
};

}  // namespace giltop
