// What giltop must know of a processor architecture to find the GIL's call sites in its code.
//
// Everything else in src/target is the same for all. A Machine is a table of functions, entered
// once for a file's code and once for each function that holds a call: the scan inside is plain
// code of that architecture (x86_*.cpp, a64_*.cpp).
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "target/eh_frame.h"
#include "target/gil_sites.h"

namespace giltop {

enum class CondCall : uint8_t { timedwait, signal, wait };
inline constexpr int kCondCalls = 3;
inline constexpr const char* kCondNames[kCondCalls] = {"pthread_cond_timedwait",
                                                       "pthread_cond_signal", "pthread_cond_wait"};

// An executable segment.
struct CodeSegment {
  uint64_t address = 0, file_offset = 0;
  std::vector<std::byte> bytes;

  uint64_t end() const { return address + bytes.size(); }
};

// An address as code states it, before the program runs.
struct CodeAddress {
  enum class Kind : uint8_t {
    unknown,   // could not be followed
    foreign,   // loaded through a pointer in memory: not the address of a struct's member
    absolute,  // `value` is a linked address
    relative,  // what `base` stands for + `value`
  };
  Kind kind = Kind::unknown;
  uint64_t base = 0;  // x86-64: a register; AArch64: what set it. Means something in one function.
  int64_t value = 0;

  bool known() const { return kind == Kind::absolute || kind == Kind::relative; }
  // Whether both are counted from the same thing, so that values can be compared.
  bool same_base(const CodeAddress& other) const {
    return known() && kind == other.kind && (kind == Kind::absolute || base == other.base);
  }
};

// A 32-bit store to memory, as CPython sets gil->locked; `other` is a register's value that was not
// followed.
struct FlagStore {
  enum class Value : uint8_t { zero, one, other };
  CodeAddress where;
  Value value = Value::other;
};

// A handful of addresses, looked up for every call of a file: a range check drops nearly all.
class CallTargets {
 public:
  struct Target {
    uint64_t address = 0;
    CondCall callee = CondCall::signal;
  };

  void add(uint64_t address, CondCall callee);
  std::optional<CondCall> find(uint64_t address) const {
    if (address < low_ || address > high_) return std::nullopt;
    for (const Target& target : all_) {
      if (target.address == address) return target.callee;
    }
    return std::nullopt;
  }
  bool empty() const { return all_.empty(); }
  const std::vector<Target>& all() const { return all_; }

 private:
  std::vector<Target> all_;
  uint64_t low_ = UINT64_MAX, high_ = 0;
};

inline constexpr size_t kMaxCandidates = 4096;  // against hostile files; CPython: about 30

// Bytes that look like a call of `callee`, or like a load of its address.
struct CallCandidate {
  uint64_t address = 0;  // x86-64: of the E8, FF or 8B byte: a prefix may stand before it
  CondCall callee = CondCall::signal;
  uint64_t slot = 0;  // AArch64: the GOT slot that a load seems to read
};

// An instruction before a call that is run whenever the call is, and never without it, so far as
// direct jumps tell.
struct EarlierPlace {
  uint64_t address = 0;
  GilBase base = GilBase::code;
  int64_t argument = 0;  // the call's first argument, from the base
};

struct FoundCall {
  uint64_t address = 0;  // linked, of the first byte of the instruction, prefixes included
  uint8_t length = 0;
  bool checked = false;  // the result is compared right behind the call, as CPython does
  CodeAddress argument;  // the first one: which condition variable
  // Where it can be told that the call has returned: the first conditional branch in straight line
  // behind it, which the kernel emulates under a uprobe, or else the next instruction.
  uint64_t resume = 0;
  // The kernel does itself what a probed instruction does, or else has the processor single-step a
  // copy of it, which costs another exception.
  bool emulated = true;
  std::optional<EarlierPlace> earlier = {};  // emulated; looked for where the call is not
};

// One function, decoded from its start, as .eh_frame has it, up to its end or to the first bytes
// that are no instruction.
class FunctionCode {
 public:
  virtual ~FunctionCode() = default;
  virtual const std::vector<FlagStore>& flag_stores() const = 0;
  // The calls that a candidate in this function stands for; none where its bytes turn out to be
  // something else. Errors: code that cannot be decoded, a call that cannot be followed.
  virtual Result<std::vector<FoundCall>> calls_of(const CallCandidate& candidate) const = 0;
};

// What the code of one function is read with.
struct CodeContext {
  // Instructions that may still be looked at in searches that go back and forth, in all functions
  // of a file together: a hostile one must not keep us.
  size_t budget = size_t{4} << 20;
  std::unordered_set<uint64_t> never_return;  // functions, by address; see Machine::never_returns
  std::unordered_set<uint64_t> lock_slots;    // GOT slots of pthread_mutex_lock
};

struct Machine {
  uint16_t elf_machine;             // EM_*
  uint32_t jump_slot, global_data;  // R_*_JUMP_SLOT, R_*_GLOB_DAT
  uint32_t cond_size, mutex_size;   // bytes of glibc's pthread_cond_t and pthread_mutex_t
  // Sorted by address; at most kMaxCandidates. `slots`: of the GOT.
  std::vector<CallCandidate> (*find_candidates)(const std::vector<CodeSegment>& code,
                                                const CallTargets& slots);
  // `code` and `context` must outlive it.
  std::unique_ptr<FunctionCode> (*decode_function)(const CodeSegment& code,
                                                   const FunctionBounds& bounds,
                                                   CodeContext& context);
  // Where registers are followed across calls, it counts that code behind a call of, say,
  // _Py_FatalErrorFunc is not reached from it. Both null where they are not. What a function calls:
  void (*add_callees)(const CodeSegment& code, const FunctionBounds& bounds,
                      std::vector<uint64_t>& callees);
  // Whether a function has no instruction that could return or lead out of it.
  bool (*never_returns)(const CodeSegment& code, const FunctionBounds& bounds);
  // The constant addresses that straight code at `address` takes, in order.
  std::vector<uint64_t> (*taken_addresses)(std::span<const std::byte> code, uint64_t address);
};

extern const Machine kX86Machine;  // x86_calls.cpp
extern const Machine kA64Machine;  // a64_calls.cpp

// Null for one whose code giltop does not read.
const Machine* find_machine(uint16_t elf_machine);

}  // namespace giltop
