// CostMeter: what tracing costs the traced programs, estimated from giltop's own records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "giltop/abi.h"

namespace giltop {

// ns, medians.
struct HitCosts {
  double warm = 0;             // of a hit that comes soon after another
  double cold = 0;             // of one whose kernel code has left the CPU's own caches
  double crowded = 0;          // of a warm one while another CPU takes hits in the same program
  double stepped = 0;          // of a warm one on an instruction that the kernel does not emulate
  uint64_t cold_after_ns = 0;  // without a hit on that CPU
};

// ns, as measured at start.
struct Costs {
  HitCosts hit;
  double hook = 0;       // of a record of the scheduler's hooks that comes soon after another
  double cold_hook = 0;  // of one that does not (HitCosts::cold_after_ns)
  double sleep = 0;      // CPU time of a thread's going to sleep and being woken from another CPU
};

// The claim: CPU time that the traced programs used and would not have used without giltop, but for
// what tracing changes in who meets whom. That is
//
// - what each trap takes: more where the kernel's code has left the caches, and where the program's
//   other threads trap on other CPUs, as all write the same lines;
// - what each record of the scheduler's hooks takes, more where their code has left the caches, and
//   what a sample takes (an interrupt: a cold trap);
// - at each trap, what the kernel takes to look at the probes that processes have there of their
//   own (auto mode; as if all had those of one file);
// - in exact mode what the traps do to those who wait meanwhile. A trap is taken with gil->mutex in
//   hand, which else is held for a tenth of the time: a thread that goes to sleep for that mutex
//   just when another CPU took a trap does so because of it. Two writers have as many of these
//   sleeps (some 115 in 1000 calls) as exact mode adds to all their sleeps (108).
//
// In light mode no count tells how many of them are additional: two writers that met the mutex some
// 20 times in 1000 calls slept 9 times more than without giltop, four that met it 9 times slept 12
// times less (Linux 6.18, Python 3.11). There they are left out.
class CostMeter {
 public:
  CostMeter() = default;
  explicit CostMeter(const Costs& costs) : costs_(costs) {}

  // In the order of the ring. Returns what it adds, in ns, to the cost of the record's process.
  double add(const gt_header& header);
  // What of the last one's came of traps.
  double last_of_traps_ns() const { return last_of_traps_ns_; }

  // From here on so many processes have probes of their own.
  void set_other_sets(size_t sets) { other_sets_ns_ = static_cast<double>(sets) * kSet_ns; }

  double total_ns() const { return total_ns_; }
  uint64_t hits() const { return hits_; }  // records of a trap
  const Costs& costs() const { return costs_; }

 private:
  static constexpr uint64_t kCrowd_ns = 20'000;  // a hit elsewhere is so recent: its CPU is at it
  // Of 50 sets at a place one took 4 ns of each trap there, of 200 one took 6 (Linux 6.18).
  static constexpr double kSet_ns = 4;
  static constexpr uint64_t kMutex_ns = 5'000;  // from a trap to the sleep of who met it

  struct Hit {
    uint64_t ts_ns = 0;
    uint32_t tgid = 0;
    uint16_t cpu = 0;
  };

  double of_hit(const gt_header& header);
  double of_hook(const gt_header& header);
  bool met_a_trap(const gt_header& header) const;
  bool is_cold(const gt_header& header, std::vector<uint64_t>& last_ns) const;
  bool elsewhere_within(const gt_header& header, uint64_t ns) const;

  Costs costs_;
  double total_ns_ = 0, last_of_traps_ns_ = 0;
  double other_sets_ns_ = 0;
  uint64_t hits_ = 0;
  std::vector<uint64_t> last_hit_ns_, last_hook_ns_;  // by CPU
  Hit last_, last_elsewhere_;                         // and the last one on another CPU than that
};

inline double CostMeter::add(const gt_header& header) {
  double other = 0;
  last_of_traps_ns_ = 0;
  if (header.kind == GT_GIL_WAIT && header.state & GT_NO_TRAP) {
    other = costs_.hook;
  } else if (header.kind <= GT_GIL_FORCED) {
    last_of_traps_ns_ = of_hit(header);
  } else if (header.kind == GT_SWITCH) {
    other = of_hook(header);
    if (met_a_trap(header)) last_of_traps_ns_ = costs_.sleep;
  } else if (header.kind == GT_WAKEUP) {
    other = of_hook(header);
  } else if (header.kind == GT_SAMPLE) {
    other = costs_.hit.cold;
  }
  total_ns_ += last_of_traps_ns_ + other;
  return last_of_traps_ns_ + other;
}

// Whether it comes long after the last one on its CPU; it is the last one now.
inline bool CostMeter::is_cold(const gt_header& header, std::vector<uint64_t>& last_ns) const {
  if (header.cpu >= last_ns.size()) last_ns.resize(header.cpu + std::size_t{1});
  const uint64_t before_ns = std::exchange(last_ns[header.cpu], header.ts_ns);
  return header.ts_ns > before_ns + costs_.hit.cold_after_ns;
}

inline double CostMeter::of_hit(const gt_header& header) {
  hits_++;
  const bool cold = is_cold(header, last_hit_ns_);
  if (last_.cpu != header.cpu) last_elsewhere_ = last_;
  last_ = {header.ts_ns, header.tgid, header.cpu};
  if (cold) return other_sets_ns_ + costs_.hit.cold;
  return other_sets_ns_ +
         (elsewhere_within(header, kCrowd_ns) ? costs_.hit.crowded : costs_.hit.warm);
}

inline double CostMeter::of_hook(const gt_header& header) {
  return is_cold(header, last_hook_ns_) ? costs_.cold_hook : costs_.hook;
}

inline bool CostMeter::met_a_trap(const gt_header& header) const {
  return header.state & GT_GIL_MUTEX && elsewhere_within(header, kMutex_ns);
}

// Whether another CPU took a hit in the same program, at most `ns` before. Records of different
// CPUs are a little out of order.
inline bool CostMeter::elsewhere_within(const gt_header& header, uint64_t ns) const {
  const Hit& hit = last_.cpu == header.cpu ? last_elsewhere_ : last_;
  return hit.ts_ns != 0 && hit.tgid == header.tgid && header.ts_ns < hit.ts_ns + ns;
}

}  // namespace giltop
