// Finds, in an ELF file alone, the call instructions at which CPython's GIL changes hands.
//
// Every transition of the GIL passes a `call` to pthread_cond_timedwait, _signal or _wait whose
// first argument is a condition variable inside the GIL's struct (CPython Python/ceval_gil.h, 3.2
// to 3.11, and Python/ceval_gil.c, 3.12+). The calls are found through the relocations, the PLT or
// GOT slots and the function bounds of .eh_frame, all of which survive `strip`. Symbols are never
// needed.
#pragma once

#include <elf.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace giltop {

class ElfFile;

// What giltop was built for: only files of this machine, or its 32-bit sibling, run beside it.
#if defined(__x86_64__)
inline constexpr uint16_t kHostMachine = EM_X86_64, kHostMachine32 = EM_386;
#elif defined(__aarch64__)
inline constexpr uint16_t kHostMachine = EM_AARCH64, kHostMachine32 = EM_ARM;
#else
#error "giltop runs on x86-64 and AArch64"
#endif

enum class SiteKind : uint8_t {
  wait,     // pthread_cond_timedwait(&gil->cond): the GIL was found taken
  acquire,  // pthread_cond_signal(&gil->switch_cond): locked = 1 just stored
  release,  // pthread_cond_signal(&gil->cond): locked = 0 just stored
  forced,   // pthread_cond_wait(&gil->switch_cond): after a release that a waiter asked for
  gave_up,  // pthread_cond_signal(&gil->cond) in take_gil of a free-threaded build: the GIL was
            // switched off while it waited
};

const char* to_string(SiteKind kind);

// How a site was proved (the rules of gil_classify.h).
enum class SiteProof : uint8_t {
  flag_constant,  // rule 2: its function stores locked = 1 (acquire) or 0 (release)
  flag_written,   // rule 2: its function stores a register to `locked`
  same_argument,  // rule 3: the argument of `witness`
  beside,  // rule 3: the argument lies as far from that of `witness` as cond and switch_cond do
  same_offset,    // rule 3: the offset that `witness` has, from another register
  offset_beside,  // rule 3: the offset of the struct's other variable, from another register
  variable,       // 3.6: names the same variable as the others of its kind
  function,       // rule 4: the function decides, as the argument cannot be followed
  callee,         // the only use that CPython makes of the called function
};

// What the address of the GIL is counted from at a probe.
enum class GilBase : uint8_t {
  argument,  // the first argument of the probed call
  code,      // the linked address of the probed instruction
  rbx,       // a register, from here on
  rbp,
  r12,
  r13,
  r14,
  r15,
};

// Where a site's probe goes: on the call, or on an instruction before it where the kernel would
// have to single-step the call (x86-64, -fno-plt: `call *slot(%rip)`).
struct SiteProbe {
  uint64_t address = 0;
  uint64_t file_offset = 0;
  GilBase base = GilBase::argument;
  int32_t below = 0;     // bytes from the GIL up to the base
  bool emulated = true;  // else each hit costs several times as much

  bool operator==(const SiteProbe&) const = default;
};

struct GilSite {
  SiteKind kind;
  uint64_t address;      // virtual address of the call instruction, as linked
  uint64_t file_offset;  // bytes from the start of the file: what a uprobe attaches to
  uint8_t length;     // bytes of the call; x86-64: 5, through the GOT 6, by register 2, + a prefix
  uint64_t function;  // virtual address of the function (or .cold part) that holds it
  SiteProof proof = SiteProof::callee;
  uint64_t witness = 0;  // address of the call it was compared with; 0: none
  // Of a wait: file offset of an instruction that runs when the call has returned, and hardly ever
  // else. 0: of no wait.
  uint64_t resume_offset = 0;
  SiteProbe probe = {};

  bool operator==(const GilSite&) const = default;
};

// struct _gil_runtime_state (3.7 to 3.15): last_holder, locked, switch_number, cond; bytes.
inline constexpr uint32_t kLockedBeforeCond = 0x10, kHolderBeforeCond = 0x18;

struct CPythonFile {
  std::string version;  // "3.11.2", or "3.9" where only that much can be proved; never empty
  int major = 0;
  int minor = 0;
  std::string build_id;  // lower-case hex, empty where the file has none
  bool free_threaded = false;
  bool glibc = false;          // linked to GNU's C library
  std::vector<GilSite> sites;  // sorted by address; at least one of each of wait, acquire, release
  // Offsets of the two condition variables from the GIL's address, in bytes: a wait or release
  // whose argument is A is of the GIL at A - cond_offset, an acquire or forced switch of the one at
  // A - switch_cond_offset. 3.7+: from the start of struct _gil_runtime_state.
  // 3.6 has no struct but two variables: the GIL's address is the lower one's.
  uint32_t cond_offset = 0;
  uint32_t switch_cond_offset = 0;
  // To find the GIL in a process's memory (src/target/gil_memory.h):
  uint64_t runtime_address = 0;  // of _PyRuntime, as linked; 0: not exported (3.6)
  struct Segment {
    uint64_t address = 0, offset = 0, size = 0;  // size: bytes in the file
  };
  std::vector<Segment> code;  // executable PT_LOADs
};

// What an ELF file is to giltop.
struct Inspection {
  enum class Kind : uint8_t {
    cpython,    // `cpython` is set: sites proved
    launcher,   // not CPython itself, dynamically linked: a CPython may be mapped into it later
    unrelated,  // cannot hold a CPython (static and not Python)
    refused,    // an interpreter that cannot be traced, or one whose sites cannot be proved
  };
  Kind kind = Kind::unrelated;
  uint16_t machine = 0;  // EM_* of the file
  CPythonFile cpython;
  std::string
      reason;  // for `refused`: "this is PyPy, not CPython; giltop reads CPython's GIL only"

  // No process on this host can run the file natively, and its sites must not be attached to.
  bool is_foreign() const { return machine != kHostMachine && machine != kHostMachine32; }
};

// Looks at one file, of this machine or of the other one that giltop reads (x86-64, AArch64).
// Errors: the file is not readable or not a well-formed ELF file of these (the message says which
// bytes). A 32-bit CPython is `refused`.
Result<Inspection> inspect_elf(const ElfFile& file);

// The same of a file that a process of this host maps. Errors: also a file of another machine.
Result<Inspection> inspect_native_elf(const ElfFile& file);

}  // namespace giltop
