// Finds every call of the pthread_cond_* functions that CPython's GIL uses, in machine code alone.
//
//   relocation (JUMP_SLOT, GLOB_DAT) -> GOT slot -> PLT stub (jmp *slot) -> call stub
//                                                -> call *slot | mov slot,%reg; call *%reg
//
// A candidate byte pattern counts only where decoding its function from the start, as .eh_frame has
// it, arrives at it as an instruction: a uprobe inside another instruction would break the target.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "target/decoded_function.h"
#include "target/eh_frame.h"

namespace giltop {

class ElfFile;
class DynamicSection;

enum class CondCall : uint8_t { timedwait, signal, wait };
inline constexpr int kCondCalls = 3;
inline constexpr const char* kCondNames[kCondCalls] = {"pthread_cond_timedwait",
                                                       "pthread_cond_signal", "pthread_cond_wait"};

struct CallSite {
  CondCall callee = CondCall::signal;
  uint64_t address = 0;  // linked, of the first byte of the instruction, prefixes included
  uint64_t file_offset = 0;
  uint8_t length = 0;
  bool checked = false;  // the result is compared right behind the call, as CPython does
  CodeAddress argument;  // the first one: which condition variable
  size_t function = 0;   // index into CallSites::functions
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
Result<CallSites> find_call_sites(const ElfFile& file, const DynamicSection& dynamic);

}  // namespace giltop
