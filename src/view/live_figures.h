// The figures of a row of the live view, and the states' glyphs.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "view/live.h"
#include "view/screen.h"

namespace giltop {

// The matrix as a bar has it, in its order.
enum class BarState : uint8_t {
  held_running,
  held_preempted,
  held_asleep,
  waiting,
  native,
  runnable,
  asleep,
  unknown,
};
inline constexpr size_t kBarStates = 8;
using StateTimes = std::array<uint64_t, kBarStates>;  // ns

struct StateGlyph {
  const char* block;
  const char* letter;  // for terminals of few colours
  Style style;
  const char* meaning;
};
const StateGlyph& glyph_of(BarState state);
BarState bar_state(GilState gil, CpuState cpu);

// What `columns` columns show of parts, in proportion, by largest remainder; all 0: nothing.
std::vector<Cell> bar_of(const StateTimes& times, size_t columns, bool letters);

// Whom waits were behind, and what that one did for most of them.
struct Blocker {
  std::optional<uint32_t> tid;  // nothing: not known, or folded threads
  BlameSnapshot parts;          // of all waits behind it
  std::string what() const;     // "running", "asleep", …; empty: not known
  bool off_cpu() const;
};

// A hold that lasts.
struct Hold {
  uint32_t tid = 0;
  uint64_t length_ns = 0;
  CpuState cpu = CpuState::unknown;
  uint64_t waiters = 0;
  bool at_least = false;  // it began before it was seen
  bool off_cpu() const { return cpu == CpuState::blocked || cpu == CpuState::runnable; }
  std::string length() const;  // "9.8s"
  std::string text() const;    // "9.8s asleep"
};

bool worse(const Hold& a, const Hold& b);
// The worst of the process; of at least kLong_ns.
std::optional<Hold> hold_of(const ProcessSnapshot& process, const Snapshot& interval);
inline constexpr uint64_t kLong_ns = 1'000'000'000;

// Of a process, a GIL or a thread, in the frame's interval. Percents are of the interval; a
// process's are the sums over its threads.
struct Figures {
  double cpu = 0, held = 0, off_cpu = 0, wait = 0;
  uint64_t waiters = 0, most_waiters = 0;
  double acquires_per_s = 0;
  uint64_t wait_p99_ns = 0, longest_ns = 0;
  bool longest_lasts = false;
  std::optional<Blocker> blocker;
  std::optional<Hold> hold;  // that lasts, as hold_of() has it
  StateTimes states{};
  bool idle = true;  // did nothing
};

// Without the blocker: see blockers_of().
Figures figures_of(const ThreadSnapshot& thread, const ProcessSnapshot& process,
                   const Snapshot& interval);
Figures figures_of(const GilSnapshot& gil, const ProcessSnapshot& process,
                   const Snapshot& interval);
Figures figures_of(const ProcessSnapshot& process, const Snapshot& interval);

// Each thread's worst, by its number.
std::unordered_map<uint64_t, Blocker> blockers_of(const ProcessSnapshot& process);

// What a process is called: its command line without the interpreter's path.
std::string title_of(const ProcessSnapshot& process);
std::string title_of(const ThreadSnapshot& thread);

}  // namespace giltop
