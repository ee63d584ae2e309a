#include "target/machine.h"

#include <algorithm>

namespace giltop {

void CallTargets::add(uint64_t address, CondCall callee) {
  constexpr size_t kMaxTargets = 64;  // against hostile files; CPython: 3 slots, 3 stubs
  if (all_.size() == kMaxTargets) return;
  all_.push_back({address, callee});
  low_ = std::min(low_, address);
  high_ = std::max(high_, address);
}

const Machine* find_machine(uint16_t elf_machine) {
  for (const Machine* const machine : {&kX86Machine, &kA64Machine}) {
    if (machine->elf_machine == elf_machine) return machine;
  }
  return nullptr;
}

}  // namespace giltop
