// The verdict: what is wrong, in a sentence, from the ledger's figures.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

struct Verdict {
  std::string sentence;
  std::string advice = {};   // may be empty
  uint64_t lost_ns = 0;      // the part of all waits that it explains
  double bound = 0;          // without a GIL at most so many times faster; 0: not to speak of
  std::string finding = {};  // the rule: "taking-turns", ... (verdict.cpp)
  // What else explains a good part of the waits, the most first. Has nothing of this kind itself.
  std::vector<Verdict> also = {};
};

Verdict verdict_of(const ProcessSnapshot& process, const Snapshot& run);

// The rules' names, for tests: all that Verdict::finding can be.
std::vector<std::string> all_findings();

// The part of all waits that it and what is beside it explain.
uint64_t explained_ns(const Verdict& verdict);

// All processes of `run`, the worst first: that with the most waits explained.
std::vector<std::pair<const ProcessSnapshot*, Verdict>> verdicts_of(const Snapshot& run);

// A free-threaded build whose GIL was off all the time: what is said of a GIL does not apply.
bool gil_is_off(const ProcessSnapshot& process);

// CPU time of the process's threads, ns: inside and outside the GIL.
uint64_t cpu_ns(const ProcessSnapshot& process);
// The time the process was observed, ns.
uint64_t span_ns(const ProcessSnapshot& process);
// Threads that used the GIL, or waited for it, for a twentieth of their life or more, of those that
// lived for a twentieth of the process; the longest users first.
std::vector<const ThreadSnapshot*> gil_users(const ProcessSnapshot& process);

}  // namespace giltop
