// Decides which of a file's pthread_cond_* calls are the GIL's, and what each means.
//
// What is proved, and how (CPython Python/ceval_gil.h, ceval_gil.c: take_gil and drop_gil):
//  1. Only calls whose result is compared right behind them are looked at: CPython checks each.
//  2. An acquire signals switch_cond right after `locked = 1`, a release signals cond right after
//     `locked = 0`. Since 3.7 all three are members of one struct, so the argument of an acquire is
//     0x68 bytes (x86-64; 0x70 on AArch64, where a mutex is larger) behind an int that the same
//     function sets to 1, that of a release 0x10 bytes behind one it clears: the compiler's `movl
//     $1, -0x68+X` with the same base proves the kind of a call, also of a release inlined into
//     take_gil (its must-exit path) and of tail-merged copies.
//  3. Calls without such a store (spilled, in a .cold part) are compared with those proved: the
//     same function and base, the same address, or the same offset from whatever points at the GIL.
//  4. Only where the argument cannot be followed does the function decide: a signal in a function
//     that calls pthread_cond_timedwait (take_gil alone does) is an acquire, elsewhere a release.
//  5. A call whose argument is known but fits no proved one belongs to somebody else.
// In 3.6 cond, switch_cond and locked are separate variables: forced switches wait for switch_cond,
// acquires signal it from take_gil, and every other signal must name one and the same variable.
// Each site carries what proved it, for doctor to tell.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "target/call_sites.h"
#include "target/gil_sites.h"

namespace giltop {

struct GilLayout {
  uint32_t cond_offset = 0, switch_cond_offset = 0;  // as in CPythonFile
};

struct ClassifiedSites {
  std::vector<GilSite> sites;  // sorted by address
  GilLayout layout;
};

// `separate_statics`: 3.6. Errors: why the sites cannot be proved.
Result<ClassifiedSites> classify_gil_sites(const CallSites& calls, const Machine& machine,
                                           bool separate_statics, bool free_threaded);

}  // namespace giltop
