// Typed events: what the kernel side, or a recording, tells the model. Pure data.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace giltop {

enum class EventKind : uint8_t {
  gil_wait,     // `value` = GIL address; light: `other` = the holder's id as its process calls it,
                // `state` = 1: the wait began earlier
  gil_acquire,  // `value` = GIL address
  gil_release,  // `value` = GIL address; `state` = 1: and it was switched off (free-threaded)
  gil_forced,   // `value` = GIL address; the release before was a forced switch
  switch_out,  // `state` = TaskState, and GilSight; `value` = the CPU's uncharged time, ns, `other`
               // = how long it had been on the CPU, ns; 0: not known
  switch_in,   // `value` = the CPU's uncharged time, ns
  wakeup,
  fork,         // `value` = parent tgid << 32 | parent tid, `other` = comm (string id)
  exec,         // `other` = comm
  exit,         // `other` = comm; `state` = 1: the last thread of its process, 2: no exit, but an
                // exec of what is not traced; `value` = its user, plus 1; 0: not known
  thread_seen,  // a thread that was there when tracing began; `other` = comm
  thread_name,  // `other` = comm
  process,      // `other` = index of ProcessFacts
  ns_id,        // `other` = the thread's id in its own PID namespace
  loss,  // `other` records of kind `state` (enum gt_kind) were lost between ts_ns and `value`
  end,   // the observation ends
  // What the process's memory and /proc said at attach, at a moment from which on every event is
  // seen (src/target/process_gils.h).
  gil_read,     // `value` = GIL address, `state` = GilReading, `tid` = holder or 0,
                // `other` = least id of the interpreters that use it, plus 1; 0: not known
  thread_read,  // `state` = kRead… bits, `value` = address of the GIL waited for, `cpu` = its last
  sample,       // light mode: a running thread, `state` = GilSight
  mode,         // the process is in light mode (`state` = 1) from here on, or in exact mode (0)
  light_gil,    // light mode: `value` = address of the GIL that GilSight calls number `state`
};

// Whether an event is one of the states of threads and GILs, which losses make worthless.
constexpr bool is_state_event(EventKind kind) {
  return kind <= EventKind::wakeup || kind == EventKind::sample;
}

// What was read of its process's GILs when a thread in light mode was sampled or left its CPU.
struct GilSight {
  bool read = false;   // else nothing is known
  bool holds = false;  // it holds the GIL of number `slot`
  uint8_t slot = 0;
};
inline constexpr size_t kLightGils = 4;

enum class GilReading : uint8_t { unknown, not_created, disabled, free, held };

inline constexpr uint8_t kReadWaiting = 1;   // in take_gil, for the GIL at `value`
inline constexpr uint8_t kReadReleased = 2;  // it neither holds a GIL nor waits for one
inline constexpr uint8_t kReadBlocked = 4;   // off its CPU, and not runnable

// How a task left its CPU (the order of enum gt_task_state).
enum class TaskState : uint8_t { runnable, interruptible, uninterruptible, stopped, dead };

inline constexpr uint32_t kMaxTid = 4194304;  // PID_MAX_LIMIT, Linux include/linux/threads.h

// Times are CLOCK_BOOTTIME in nanoseconds; ids are those of the initial PID namespace. In memory it
// is what most records are (struct gt_gil, include/giltop/abi.h): to decode one is to copy it.
struct Event {
  uint64_t ts_ns = 0;
  uint32_t tgid = 0;
  uint32_t tid = 0;
  uint16_t cpu = 0;
  EventKind kind = EventKind::end;
  uint8_t state = 0;
  uint32_t other = 0;
  uint64_t value = 0;
};
static_assert(sizeof(Event) == 32);

// The bits of GT_TASK_STATE_MASK, GT_GIL_READ … (include/giltop/abi.h).
constexpr GilSight gil_sight(const Event& event) {
  return {(event.state & 0x08) != 0, (event.state & 0x10) != 0,
          static_cast<uint8_t>(event.state >> 5 & 3)};
}
constexpr TaskState task_state(const Event& event) {
  return static_cast<TaskState>(event.state & 0x07);
}

// What is counted when the ring is full: the order of enum gt_kind.
inline constexpr std::array<std::string_view, 13> kRecordKinds = {
    "gil_wait", "gil_acquire", "gil_release", "gil_forced", "switch", "wakeup", "fork",
    "exec",     "exit",        "entry",       "found",      "sample", "rename"};

// One program image of one process.
struct ProcessFacts {
  std::string comm;
  std::string cmdline;
  std::string python;    // "3.11.2"; empty: not a CPython that giltop can trace
  std::string build_id;  // hex, may be empty
  bool free_threaded = false;
  bool late = false;  // probed after it had begun to run: its first events are missed
  std::optional<uint32_t> user = std::nullopt;  // effective; not in recordings
  bool operator==(const ProcessFacts&) const = default;
};

// Texts and facts that events name by number. Whoever makes an event says when it will be; once it
// has been, the number is good for as long as the model keeps it (Model::forget_unused).
class EventTables {
 public:
  static constexpr uint64_t kAlways = ~uint64_t{0};

  // `until_ns`: time of the event that names it.
  uint32_t intern(std::string_view text, uint64_t until_ns = kAlways);
  std::string_view text(uint32_t id) const;  // empty for an id that was never given
  uint32_t add(ProcessFacts facts, uint64_t until_ns = kAlways);
  const ProcessFacts& facts(uint32_t index) const;  // empty facts for an unknown index

  // What is still named; by number.
  struct Used {
    std::vector<bool> texts, facts;
  };
  Used none_used() const {
    return {std::vector<bool>(texts_.size()), std::vector<bool>(facts_.size())};
  }
  // There is twice as much as the last forget() left, and more than a little.
  bool crowded() const {
    return texts_.size() - free_texts_.size() >= texts_limit_ ||
           facts_.size() - free_facts_.size() >= facts_limit_;
  }
  // Forgets what is not used and was for events before `before_ns`; its numbers are given again.
  void forget(const Used& used, uint64_t before_ns);

 private:
  static constexpr size_t kFewTexts = 8192, kFewFacts = 256;
  struct Text {
    std::string text;
    uint64_t until_ns = kAlways;
  };
  struct Facts {
    ProcessFacts facts;
    uint64_t until_ns = kAlways;
  };
  std::deque<Text> texts_{Text()};
  std::unordered_map<std::string_view, uint32_t> ids_{{std::string_view(), 0}};
  std::deque<Facts> facts_{Facts()};
  std::vector<uint32_t> free_texts_, free_facts_;
  size_t texts_limit_ = kFewTexts, facts_limit_ = kFewFacts;
};

}  // namespace giltop
