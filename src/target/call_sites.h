// Finds every call of the pthread_cond_* functions that CPython's GIL uses, in machine code alone.
//
//   relocation (JUMP_SLOT, GLOB_DAT) -> GOT slot -> PLT stub (jmp *slot) -> call of the stub
//                                                -> call *slot | load of slot; call *register
//
// A candidate byte pattern counts only where decoding its function from the start, as .eh_frame has
// it, arrives at it as an instruction: a uprobe inside another instruction would break the target.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "target/eh_frame.h"
#include "target/machine.h"

namespace giltop {

class ElfFile;
class DynamicSection;

struct CallSite : FoundCall {
  CondCall callee = CondCall::signal;
  uint64_t file_offset = 0;
  size_t function = 0;  // index into CallSites::functions
};

struct CallSites {
  struct Function {
    FunctionBounds bounds;
    std::vector<FlagStore> flag_stores;
  };
  std::vector<CallSite> calls;  // sorted by address
  std::vector<Function> functions;
  bool imports[kCondCalls] = {};  // there is a GOT slot for it
};

// Errors: no function bounds, code that cannot be decoded around a candidate, or a call through a
// register that cannot be followed.
Result<CallSites> find_call_sites(const ElfFile& file, const DynamicSection& dynamic,
                                  const Machine& machine);

}  // namespace giltop
