// ModeChooser: who is traced in exact mode, and who in light mode, within a budget.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>

namespace giltop {

// Each process for itself; or, where a process cannot have probes of its own (before Linux 6.10),
// all of a file's together, as the busiest one decides:
//
//            over the budget two periods in a row, or far over it in one
//     exact ─────────────────────────────────────────► light
//       ▲                                                │
//       └──────────── a trial, when its time has come ───┘
//
// In light mode nobody knows what exact mode would cost: an uncontended hand-over traps nowhere. So
// it is tried again, first after some seconds; each trial that ends over the budget doubles the
// time to the next, up to some minutes. One that stays within for long enough starts afresh.
class ModeChooser {
 public:
  static constexpr uint64_t kFirstTrial_ns = 10'000'000'000, kLastTrial_ns = 320'000'000'000;
  static constexpr uint64_t kSettled_ns = 30'000'000'000;  // in exact mode, within the budget
  static constexpr double kFar = 4;                        // times the budget

  // `budget`: what tracing may take from a process, as a part of one CPU's time, 0 to 1.
  explicit ModeChooser(double budget) : budget_(budget) {}

  // Once a period of about half a second. `who`: a process's id, or a file's number. `share`: what
  // exact mode's traps cost it in that period (CostMeter), of one CPU's time; of no meaning in
  // light mode. Returns whether it is to be in light mode from here on.
  bool choose(uint32_t who, double share, uint64_t now_ns);
  void forget(uint32_t who) { states_.erase(who); }

 private:
  struct State {
    bool light = false;
    unsigned over = 0;  // periods in a row
    uint64_t since_ns = 0;
    uint64_t trial_after_ns = kFirstTrial_ns;
  };
  double budget_;
  std::unordered_map<uint32_t, State> states_;
};

inline bool ModeChooser::choose(uint32_t who, double share, uint64_t now_ns) {
  const auto [found, first] = states_.try_emplace(who);
  State& state = found->second;
  if (first) state.since_ns = now_ns;
  if (state.light) {
    if (now_ns - state.since_ns < state.trial_after_ns) return true;
    state.light = false;
    state.over = 0;
    state.since_ns = now_ns;
    state.trial_after_ns = std::min(state.trial_after_ns * 2, kLastTrial_ns);
    return false;
  }
  if (share <= budget_) {
    state.over = 0;
    if (now_ns - state.since_ns >= kSettled_ns) state.trial_after_ns = kFirstTrial_ns;
    return false;
  }
  if (++state.over < 2 && share <= kFar * budget_) return false;
  state.light = true;
  state.since_ns = now_ns;
  return true;
}

}  // namespace giltop
