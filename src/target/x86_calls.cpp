// x86-64: where a file's code calls through the PLT or the GOT.
#include <algorithm>
#include <cstring>

#include "target/machine.h"
#include "target/x86_function.h"
#include "target/x86_insn.h"

namespace giltop {
namespace {

// Calls visit(offset) for every place in `bytes` where `first` is found with `tail` bytes behind
// it.
template <typename Visit>
void for_each_byte(std::span<const std::byte> bytes, uint8_t first, size_t tail, Visit visit) {
  if (bytes.size() <= tail) return;
  const std::byte* at = bytes.data();
  const std::byte* const end = bytes.data() + (bytes.size() - tail);
  while (at < end) {
    at = static_cast<const std::byte*>(std::memchr(at, first, static_cast<size_t>(end - at)));
    if (at == nullptr) return;
    visit(static_cast<size_t>(at - bytes.data()));
    ++at;
  }
}

uint64_t relative_target(const CodeSegment& code, size_t displacement_at) {
  int32_t displacement;
  std::memcpy(&displacement, code.bytes.data() + displacement_at, sizeof displacement);
  return code.address + displacement_at + sizeof displacement +
         static_cast<uint64_t>(int64_t{displacement});
}

uint8_t byte_at(const CodeSegment& code, size_t at) {
  return std::to_integer<uint8_t>(code.bytes[at]);
}

// Entry points of a PLT stub whose jmp stands at `at`: itself, before a bnd prefix, before endbr64.
void add_stub(const CodeSegment& code, size_t at, CondCall callee, CallTargets& stubs) {
  stubs.add(code.address + at, callee);
  if (at >= 1 && byte_at(code, at - 1) == 0xf2) stubs.add(code.address + --at, callee);
  constexpr uint8_t kEndbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  if (at >= 4 && std::memcmp(code.bytes.data() + at - 4, kEndbr64, 4) == 0) {
    stubs.add(code.address + at - 4, callee);
  }
}

std::vector<CallCandidate> find_candidates(const std::vector<CodeSegment>& code,
                                           const CallTargets& slots) {
  CallTargets stubs;
  std::vector<CallCandidate> found;
  const auto keep = [&](uint64_t address, CondCall callee) {
    if (found.size() < kMaxCandidates) found.push_back({address, callee, 0});
  };
  for (const CodeSegment& part : code) {
    for_each_byte(part.bytes, 0xff, 5, [&](size_t at) {
      const uint8_t modrm = byte_at(part, at + 1);
      if (modrm != 0x25 && modrm != 0x15) return;  // jmp *disp(%rip), call *disp(%rip)
      const auto callee = slots.find(relative_target(part, at + 2));
      if (!callee) return;
      if (modrm == 0x25) {
        add_stub(part, at, *callee, stubs);
      } else {
        keep(part.address + at, *callee);
      }
    });
  }
  for (const CodeSegment& part : code) {
    for_each_byte(part.bytes, 0x8b, 5, [&](size_t at) {
      if ((byte_at(part, at + 1) & 0xc7) != 0x05) return;  // mov disp(%rip), %reg
      if (const auto callee = slots.find(relative_target(part, at + 2))) {
        keep(part.address + at, *callee);
      }
    });
  }
  if (!stubs.empty()) {
    for (const CodeSegment& part : code) {
      for_each_byte(part.bytes, 0xe8, 4, [&](size_t at) {
        if (const auto callee = stubs.find(relative_target(part, at + 1))) {
          keep(part.address + at, *callee);
        }
      });
    }
  }
  std::sort(found.begin(), found.end(),
            [](const CallCandidate& a, const CallCandidate& b) { return a.address < b.address; });
  return found;
}

std::vector<uint64_t> taken_addresses(std::span<const std::byte> code, uint64_t address) {
  std::vector<uint64_t> taken;
  for (uint64_t at = 0; at < code.size();) {
    const auto insn = x86::decode(code.subspan(at));
    if (!insn) break;
    at += insn->length;
    if (insn->is(x86::Map::primary, 0x8d) && insn->rip_relative) {  // lea disp(%rip)
      taken.push_back(address + at + static_cast<uint64_t>(int64_t{insn->disp}));
    } else if (insn->map == x86::Map::primary && (insn->opcode & 0xf8) == 0xb8) {  // mov $imm32
      taken.push_back(static_cast<uint32_t>(insn->immediate));
    }
  }
  return taken;
}

}  // namespace

const Machine kX86Machine = {
    .elf_machine = EM_X86_64,
    .jump_slot = R_X86_64_JUMP_SLOT,
    .global_data = R_X86_64_GLOB_DAT,
    .cond_size = 48,
    .mutex_size = 40,
    .find_candidates = find_candidates,
    .decode_function = X86Function::make,
    .add_callees = nullptr,
    .never_returns = nullptr,
    .taken_addresses = taken_addresses,
};

}  // namespace giltop
