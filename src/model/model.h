// The model: events in, the 3x3 matrix of each thread and the ledger of each GIL out.
//
//   events ──► CPU tracker (running / runnable / blocked) ─┐
//          └─► GIL tracker (holding / waiting / released) ─┴─► matrix, ledger, blame, hand-offs
//
// Pure: no clock, no file. Live tracing and `report` run the same code on the same events.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "event/event.h"
#include "model/histogram.h"

namespace giltop {

enum class GilState : uint8_t { holding, waiting, released, unknown };
enum class CpuState : uint8_t { running, runnable, blocked, unknown };

// Columns of a GIL's ledger, and of a wait's blame.
// `off`: switched off, in a free-threaded build.
enum class LedgerColumn : uint8_t { running, runnable, blocked, handoff, idle, off, unknown };
inline constexpr size_t kLedgerColumns = 7;
using Ledger = std::array<uint64_t, kLedgerColumns>;  // ns

class Gil;
struct Process;

// One wait for the GIL.
struct WaitSnapshot {
  uint64_t start_ns = 0, end_ns = 0;  // end_ns is the snapshot's where it goes on
  bool ongoing = false;
  uint32_t waiter_tid = 0;
  std::optional<uint32_t> holder_tid;  // behind whom most of it was; nothing: not known
  Ledger parts{};                      // ns, of all of it: what the holders did meanwhile
  uint64_t waiter = 0, holder = 0;     // the threads' numbers, which a tid may have had before

  uint64_t total_ns() const { return end_ns - start_ns; }
};
inline constexpr size_t kLongestWaits = 16;
// Puts `wait` into `longest`, the longest first, where it is one of the kLongestWaits longest.
void keep_longest(std::vector<WaitSnapshot>& longest, const WaitSnapshot& wait);

// The number of a process's `rest`: behind all that it is not.
constexpr uint64_t rest_number(uint64_t process) { return ~uint64_t{0} - process; }

inline constexpr size_t kMostGils = 4096;  // of a process: sub-interpreters are made by the hundred

// One thread of one program image, from the first to the last moment it was observed. Or, as its
// process's `rest`, the sum of those that are not kept one by one any more (fold.cpp).
struct Thread {
  uint32_t tid = 0;
  uint32_t ns_tid = 0;  // its id in its own PID namespace; 0: that is the initial one, or not known
  uint32_t index = 0;   // dense: one that is gone leaves its to another
  uint64_t number = 0;  // in order of appearance, from 1, never given again
  Process* process = nullptr;
  uint32_t comm = 0;  // EventTables text
  bool ended = false;
  bool gone = false;    // folded: a place for another
  uint64_t folded = 0;  // of a `rest`: how many threads it is
  uint64_t folded_life_ns =
      0;  // and the sum of their lives; first_ns and last_ns are the outermost

  GilState gil_state = GilState::unknown;
  CpuState cpu_state = CpuState::unknown;
  Gil* gil = nullptr;  // held or waited for; else the last one, or none
  // Index + 1 in process->assumed while `gil_state` rests on a reading alone; else 0.
  uint32_t assumed = 0;

  uint64_t first_ns = 0;
  uint64_t last_ns = 0;                             // all before it is in `matrix`
  std::array<std::array<uint64_t, 4>, 4> matrix{};  // ns, [GilState][CpuState]
  uint64_t stolen_ns = 0;  // of `running`: time its CPU charged to no task (hypervisor, interrupts)

  uint64_t acquires = 0;
  uint64_t contended = 0;
  uint64_t forced_releases = 0;
  uint64_t voluntary_releases = 0;
  bool last_release_forced = false;
  Histogram wait;                  // ns; contended acquires whose wait was seen from its beginning
  Histogram hold;                  // ns; holds seen from their beginning to their end
  uint64_t held_sleeps = 0;        // times it slept with the GIL in its hands
  uint64_t held_sleep_max_ns = 0;  // the longest of them
  uint64_t recent_held_sleep_max_ns = 0;  // and since Model::begin_interval()

  uint64_t state_since_ns = 0;  // beginning of the present GIL state, where it was seen
  bool state_since_known = false;
  uint64_t cpu_since_ns = 0;  // beginning of the present scheduler state
  uint64_t blocked_ns = 0;    // last time it went to sleep
  uint64_t wakeup_ns = 0;     // last wakeup from `blocked`
  uint64_t switch_in_ns = 0;  // last time it got a CPU
  uint64_t switch_in_uncharged_ns = 0;
  bool switch_in_seen = false;                 // the present run began with an event
  GilState run_gil_state = GilState::unknown;  // when the present run began
  uint64_t runnable_before_ns = 0;             // just before the present run
  uint16_t cpu = 0;                            // of the last switch
  // It was found running without a switch-in: between these times it was `before`, then running,
  // and its cells say unknown until its next switch-out tells when it got the CPU.
  struct Inferred {
    uint64_t from_ns = 0, to_ns = 0;
    GilState gil_state = GilState::unknown;
    CpuState before = CpuState::unknown;
  } inferred;
  uint64_t wait_step_ns = 0;  // when it last went to sleep in take_gil
  Ledger wait_mark{};         // the GIL's ledger up to which this thread's wait is blamed
  // The wait that goes on, or the last one: what the holders did, and behind whom most of it was.
  // The sums of up to kMostBehind holders are exact; beyond, whoever had more than a part of so
  // many is among them (the "space saving" sketch of Metwally, Agrawal and El Abbadi, 2005).
  struct Wait {
    static constexpr unsigned kMostBehind = 4;
    struct Behind {
      uint64_t thread;  // number; 0: not known
      uint64_t ns;
      uint32_t tid;
    };
    Ledger mark;       // exact mode: the GIL's ledger when it began
    Ledger parts;      // and what is not in the difference, if it `has_parts`
    uint64_t told_ns;  // up to where `behind` is
    std::array<Behind, kMostBehind> behind;
    unsigned holders = 0;
    bool has_parts = false;

    void begin(const Ledger& ledger, uint64_t ts_ns) {
      mark = ledger;
      told_ns = ts_ns;
      holders = 0;
      has_parts = false;
    }
    void add(const Thread* holder, uint64_t ns);
    void add(const Ledger& more);
    void pass(const Thread* holder, uint64_t ts_ns) {
      add(holder, ts_ns - told_ns);
      told_ns = ts_ns;
    }
    // What they did up to now is not known, after all.
    void forget(const Ledger& ledger, uint64_t from_ns, uint64_t ts_ns);
    const Behind* most() const;  // null: nobody yet
    std::optional<uint32_t> holder_tid() const;
  } wait_so_far;
  // Of a wait that is over, right after the event that ended it: what the holders did.
  Ledger wait_parts() const;

  // Of light mode (light_tracker.cpp).
  struct Light {
    bool sure = false;               // an event told its GIL state since tracing began, or a loss
    uint64_t undecided_from = 0;     // what it ran before in an unknown state stays unknown, ns
    std::array<uint64_t, 4> held{};  // of its row `holding`: is in its GIL's share
    uint64_t unknown = 0;            // of its row `unknown`, likewise
    // A wait: behind whom since when, and what that one had run, waited for a CPU, slept by then.
    Thread* behind = nullptr;  // null: not known
    uint64_t since_ns = 0;
    std::array<uint64_t, 3> behind_had{};
    uint64_t woken_ns = 0;  // first since it fell asleep for the GIL last; 0: not yet
    // That it waits was read at attach. Its end may go unseen unless the kernel side knew by then
    // of one GIL, the only one.
    bool by_reading = false, knew_gil = false;
  } light;

  uint64_t life_ns() const { return folded != 0 ? folded_life_ns : last_ns - first_ns; }
};

// The ledger and the waiters of one GIL. Two states, each with what it knows:
//
//     unknown ──acquire──► held by a thread ──release──► free ──acquire──► held …
//        ▲                       │ holder ends, loss        │ loss
//        └───────────────────────┴─────────────────────────┘
class Gil {
 public:
  struct Blame {
    const Thread* waiter;
    const Thread* holder;  // null: not known
    uint64_t running_ns, runnable_ns, blocked_ns, handoff_ns, unknown_ns;
  };

  uint64_t address = 0;
  Process* process = nullptr;
  uint32_t index = 0;   // dense over all processes, given again
  uint64_t number = 0;  // never given again, from 1
  uint64_t folded = 0;  // of a folded process: how many GILs it is
  uint64_t folded_life_ns = 0;

  int64_t interpreter = -1;  // least id of those that use it; -1: not known

  bool off = false;          // switched off, in a free-threaded build
  bool known = false;        // whether `holder` says the truth
  Thread* holder = nullptr;  // null: free
  Thread* last_holder = nullptr;
  std::vector<Thread*> waiters;  // in order of arrival

  uint64_t first_ns = 0;
  uint64_t last_ns = 0;
  Ledger ledger{};
  uint64_t acquires = 0, contended = 0, forced_releases = 0, voluntary_releases = 0;
  uint64_t max_waiters = 0;
  uint64_t recent_max_waiters = 0;  // since Model::begin_interval()
  bool drop_requested = false;      // a waiter has asked the present holder to let go
  uint64_t release_ns = 0;          // of the last release; its hand-off is still open
  bool handoff_open = false;
  uint64_t handoffs = 0;  // numbers the hand-offs, for flows
  Histogram handoff;      // ns, release to acquired by a thread that waited
  uint64_t handoff_wakeup_ns = 0, handoff_runqueue_ns = 0, handoff_lock_ns = 0;

  // Light mode: the ledger is not kept from moment to moment but follows from what the threads'
  // times were found to be.
  bool light = false;  // its process is in light mode
  struct Share {
    uint64_t life_ns = 0;            // time in light mode
    std::array<uint64_t, 4> held{};  // ns, by CpuState: what threads held it
    uint64_t handoff_ns = 0;
    uint64_t unknown_ns = 0;  // what threads did of which it is not known whether they held it
  } share;
  Ledger whole_ledger() const;  // with the share

  void advance(uint64_t ts_ns);
  // Whom the waits of this moment are blamed on; null: not known. While somebody waits, the GIL is
  // never idle, and the hand-off that follows a hold counts as its holder's.
  const Thread* blamed() const { return !known ? nullptr : holder ? holder : last_holder; }
  // Books what `waiter` waited since its mark on blamed(), so all are booked before that one
  // changes.
  void book(Thread& waiter);
  void book_all_waiters();
  void book_handoff(Thread& waiter);  // light: all of that time was a hand-off
  void add_waiter(Thread& waiter, uint64_t ts_ns);
  void remove_waiter(Thread& waiter);
  // Of a waiter: its wait up to where the GIL was advanced to.
  WaitSnapshot wait_of(const Thread& waiter) const;
  // The time since `from_ns`, all within the present hold, belongs to another column after all.
  void rebook(uint64_t from_ns, CpuState booked, CpuState right);
  std::vector<Blame> blame() const;

  struct Row {
    uint64_t key;  // waiter index << 32 | holder index + 1
    const Thread* waiter;
    const Thread* holder;
    Ledger parts{};
  };
  // While `holder` rests on a reading alone: what was booked before it. All advanced and booked.
  struct Assumed {
    Ledger ledger{};
    std::vector<Row> rows;
    uint64_t max_waiters = 0;
  };
  std::unique_ptr<Assumed> assumed;
  void assume(Thread* by);  // null: free
  // The reading was wrong: who held it since is not known. The waiters' waits are true.
  void disprove(uint64_t ts_ns);
  std::vector<Row> rows_of(const Thread& waiter) const;
  // This one did not wait: its rows are as they were.
  void unbook(const Thread& waiter, const std::vector<Row>& before);
  // Threads that are gone are `rest`. False: there were none.
  static bool fold_rows(std::vector<Row>& rows, const Thread& rest);
  void fold_gone(Thread& rest);
  // Adds what a GIL of an ended process was; all of that one's threads are `rest`.
  void absorb(const Gil& ended, Thread& rest);
  uint64_t life_ns() const { return folded != 0 ? folded_life_ns : last_ns - first_ns; }

 private:
  static constexpr size_t kMostRows = 32768;  // beyond it, others than these are booked on `rest`
  static uint64_t key_of(const Thread& waiter, const Thread* holder);
  Row& row(const Thread& waiter, const Thread* behind);
  size_t find_row(uint64_t key) const;
  void drop_empty_rows();
  Ledger light_parts(const Thread& waiter) const;
  void book_light(Thread& waiter);
  void rehash(size_t slots);
  std::vector<Row> rows_;
  std::vector<uint32_t> slots_;  // open addressing into rows_, index + 1; power of two
};

// A thread whose GIL state rests on a reading alone, and what was booked before.
struct AssumedThread {
  Thread* thread = nullptr;  // null: no longer
  uint64_t since_ns = 0;
  std::array<uint64_t, 4> cells{};  // of the row of its state
  uint64_t held_sleeps = 0, held_sleep_max_ns = 0;
  std::vector<Gil::Row> rows;  // of a waiter
};

// One program image: from exec (or fork, or attach) to the next exec or the end.
struct Process {
  uint32_t tgid = 0;
  uint32_t index = 0;   // as Thread's
  uint64_t number = 0;  // as Thread's
  uint64_t folded = 0;  // how many ended processes of one program it is; 0: one
  bool gone = false;    // as Thread's
  uint32_t facts = 0;   // EventTables facts; 0: nothing known, so not a CPython
  uint32_t comm = 0;
  std::optional<uint32_t> user;  // effective, the last that was told
  bool ended = false;
  bool forked = false;      // from a traced process: shares nothing yet, re-creates its GIL
  bool from_start = false;  // every event since its first instruction was seen
  bool lost = false;        // events were lost during its life
  uint64_t gil_events = 0;
  bool left = false;                          // it executed another program
  bool light = false;                         // in light mode
  uint64_t light_since_ns = 0, light_ns = 0;  // and how long before
  bool was_light = false;                     // at any time: not everything is exact
  std::array<Gil*, kLightGils> light_gils{};  // by GilSight::slot
  uint64_t violations = 0;
  std::optional<bool> gil_enabled;  // as read, or as its events tell
  std::vector<AssumedThread> assumed;
  std::vector<std::pair<uint64_t, uint32_t>> interpreters;  // GIL address → least id, as read
  std::vector<Thread*> threads;                             // ended ones included
  std::vector<Thread*> alive;
  Thread* rest = nullptr;                     // ended threads that are not among them any more
  std::vector<WaitSnapshot> longest_waits;    // that are over
  std::vector<WaitSnapshot> recent_waits;     // the longest since Model::begin_interval()
  uint64_t brief_wait_ns = 0;                 // a wait up to it is none of these
  std::vector<std::unique_ptr<Gil>> gils;     // in order of appearance
  std::unordered_map<uint64_t, Gil*> gil_at;  // by address, where they are many
};

// What one event did, for those who draw it.
struct Change {
  Thread* thread = nullptr;  // null: the event changed nothing
  GilState gil_before = GilState::unknown, gil_after = GilState::unknown;
  CpuState cpu_before = CpuState::unknown, cpu_after = CpuState::unknown;
  Gil* gil = nullptr;         // of a GIL event; null: one too many
  Thread* evicted = nullptr;  // a violation: another thread that was thought to hold it
  bool handoff = false;       // this acquire ends the hand-off that gil->handoffs numbers
  bool began = false;         // the thread is new
  // This switch-out told that the kernel charged the thread with so much more of the CPU than lay
  // between its switches (less, where negative).
  int64_t lead_ns = 0;
  // This switch-out's own figures were needed: a run that was not seen to begin, or time stolen in
  // the middle of a switch.
  bool told_apart = false;
  // This wakeup changed something, be it that a hand-off begins with it in light mode.
  bool woke = false;
  // This event proved a reading wrong: threads of its process that rested on it are in no known
  // state any more; `self_disproved`: this thread, too.
  bool disproved = false, self_disproved = false;
  Process* ended = nullptr;  // the whole process image is over
  Thread* behind = nullptr;  // light: who holds the GIL that this thread waits for
};

// What is kept one by one of what has ended, so that memory does not grow with the length of the
// run (fold.cpp).
struct ModelLimits {
  size_t ended_threads = 2048;
  size_t ended_processes = 512;
  size_t ended_gils = 4096;  // of these processes
  size_t programs = 256;     // that folded processes are told apart by
  bool by_user = false;      // those of each user by themselves
};

class Model {
 public:
  explicit Model(const EventTables& tables, const ModelLimits& limits = {});
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Events in order (see Reorder). An event with an id out of range is ignored and counted.
  Change apply(const Event& event);

  // Brings every living thread and GIL up to `ts_ns`; may be called again later.
  void advance_to(uint64_t ts_ns);
  // The same for the living of one process. False: it is not there any more.
  bool advance_process_to(uint64_t number, uint64_t ts_ns);
  const Process* find_process(uint64_t number) const;

  // From here on `recent…` counts anew, and folded_processes().
  void begin_interval();
  // Processes that were summed up since then: number, and number of the sum.
  const std::vector<std::pair<uint64_t, uint64_t>>& folded_processes() const { return folds_; }

  // Those that are `gone` are of no account.
  const std::deque<Thread>& threads() const { return threads_; }
  const std::deque<Process>& processes() const { return processes_; }
  // Whether it is known to be a CPython and, if it was forked from a traced one, showed a GIL event
  // before it executed another program or ended.
  bool is_reported(const Process& process) const;
  // Lets `tables` forget the texts and facts that nothing here has.
  void forget_unused(EventTables& tables) const;
  uint64_t violations() const { return violations_; }
  // Readings of a process's memory that an event proved wrong.
  uint64_t memory_disagreements() const { return memory_disagreements_; }
  // Times a thread was found on a CPU that no event had put it on.
  uint64_t inferred_switches() const { return inferred_switches_; }
  // What of the threads' time was taken for another state's until then.
  uint64_t inferred_ns() const { return inferred_ns_; }
  uint64_t lost() const;
  const std::array<uint64_t, kRecordKinds.size()>& lost_by_kind() const { return lost_; }
  uint64_t first_ns() const { return first_ns_; }
  uint64_t last_ns() const { return last_ns_; }
  const EventTables& tables() const { return *tables_; }

 private:
  // tid → thread, as flat as it gets. Untouched pages cost nothing.
  class TidMap {
   public:
    explicit TidMap(size_t size);
    ~TidMap();
    TidMap(const TidMap&) = delete;
    TidMap& operator=(const TidMap&) = delete;
    Thread*& operator[](uint32_t tid) { return slots_[tid]; }

   private:
    Thread** slots_;
  };

  void advance(Process& process, uint64_t ts_ns);
  Process& process_of(uint32_t tgid);
  Process& new_process(uint32_t tgid);
  Process& add_process();
  Thread& add_thread(Process& process);
  Gil& add_gil(Process& process);
  Thread& new_thread(Process& process, uint32_t tid, uint64_t ts_ns);
  // The living thread an event speaks of; a new one, all unknown, where none is known yet.
  Thread* find(const Event& event, Change& change);
  // Null: it has more of them than any Python has.
  Gil* gil_of(Process& process, uint64_t address, uint64_t ts_ns);

  void advance(Thread& thread, uint64_t ts_ns);
  void set_gil_state(Thread& thread, GilState state, uint64_t ts_ns);
  void set_cpu_state(Thread& thread, CpuState state, uint64_t ts_ns);
  void leave_gil(Thread& thread, uint64_t ts_ns);
  void end_thread(Thread& thread, uint64_t ts_ns);
  void end_process(Process& process, uint64_t ts_ns, Change& change);

  void note_ended(Thread& thread);
  void note_ended(Process& process);
  void note_idle(Process& process);
  void fold();
  void fold_threads();
  void fold_processes();
  void end_idle_processes();
  Thread& rest_of(Process& process);
  Process& program_of(const Process& process);
  void fold(Process& process, Process& into);
  void let_go(Thread& thread);
  void let_go(Process& process);

  void note_wait(const Thread& thread, uint64_t ts_ns) {
    if (ts_ns - thread.state_since_ns > thread.process->brief_wait_ns) keep_wait(thread, ts_ns);
  }
  void keep_wait(const Thread& thread, uint64_t ts_ns);
  void on_gil_wait(Thread& thread, Gil& gil, uint64_t ts_ns);
  void on_gil_acquire(Thread& thread, Gil& gil, uint64_t ts_ns, Change& change);
  void on_gil_release(Thread& thread, Gil& gil, uint64_t ts_ns, bool off, Change& change);
  void contradiction(Process& process) {
    violations_++;
    process.violations++;
  }
  void on_gil_forced(Thread& thread, Gil& gil);

  void on_mode(const Event& event);
  void on_light_gil(const Event& event);
  void begin_light(Process& process, uint64_t ts_ns);
  void end_light(Process& process, uint64_t ts_ns);
  void light_gil_event(Thread& thread, Gil& gil, const Event& event, Change& change);
  void light_wait(Thread& thread, Gil& gil, const Event& event, Change& change);
  void end_light_wait(Thread& thread, uint64_t ts_ns);
  void light_switch_out(Thread& thread, const Event& event);
  void light_switch_in(Thread& thread, uint64_t ts_ns);
  bool light_wakeup(Thread& thread, uint64_t ts_ns);
  void light_sample(Thread& thread, const Event& event);
  void light_leave(Thread& thread);
  void light_forget(Thread& thread);
  bool waits_still(Thread& thread, GilSight sight, uint64_t ts_ns);
  void note_sight(Thread& thread, GilSight sight);
  void settle(Thread& thread);
  void wait_behind(Thread& thread, Thread* holder, uint64_t ts_ns);
  void wait_behind(Gil& gil, Thread& holder, const Thread& by, uint64_t ts_ns);
  Thread* by_own_id(const Process& process, uint32_t own_id);

  void on_gil_read(const Event& event, Change& change);
  void on_thread_read(const Event& event, Change& change);
  bool may_read(const Event& event);
  void assume(Thread& thread, GilState state, Gil* gil, uint64_t ts_ns);
  void check_reading(Thread& thread, Gil& gil, const Event& event, Change& change);
  void confirm(Thread& thread);
  void disprove(Thread& thread, uint64_t ts_ns);
  void disprove(Gil& gil, uint64_t ts_ns);

  void prove_running(Thread& thread, uint64_t ts_ns);
  void mend_run(Thread& thread, const Event& event);
  bool count_stolen(Thread& thread, const Event& event, int64_t lead_ns);
  int64_t charge_run(Thread& thread, const Event& event, CpuState after);
  void on_switch_out(Thread& thread, const Event& event, Change& change);
  void on_switch_in(Thread& thread, const Event& event);
  bool on_wakeup(Thread& thread, uint64_t ts_ns);
  void on_fork(const Event& event, Change& change);
  void on_exec(const Event& event, Change& change);
  void on_loss(const Event& event);

  const EventTables* tables_;
  TidMap by_tid_;
  std::unordered_map<uint32_t, Process*> by_tgid_;
  std::deque<Thread> threads_;
  std::deque<Process> processes_;
  uint32_t gil_count_ = 0;
  ModelLimits limits_;
  bool crowded_ = false;                // there is something to fold, before the next event
  std::vector<Thread*> ended_threads_;  // that may be folded
  std::vector<Process*> ended_processes_;
  size_t ended_gils_ = 0;
  std::vector<std::pair<Process*, uint64_t>> idle_processes_;  // and their numbers
  std::map<std::array<std::string, 4>, Process*> programs_;    // comm, version, build-id, user
  std::vector<Thread*> free_threads_;
  std::vector<Process*> free_processes_;
  std::vector<uint32_t> free_gils_;
  uint64_t threads_made_ = 0, processes_made_ = 0, gils_made_ = 0;
  bool has_intervals_ = false;
  uint64_t interval_ns_ = 0;  // when the present one began
  std::vector<std::pair<uint64_t, uint64_t>> folds_;
  Process nowhere_;
  Thread gone_;  // stands for any that was folded, in by_tid_
  uint64_t violations_ = 0;
  uint64_t inferred_switches_ = 0;
  uint64_t inferred_ns_ = 0;
  uint64_t memory_disagreements_ = 0;
  std::array<uint64_t, kRecordKinds.size()> lost_{};
  uint64_t loss_until_ns_ = 0;  // before it no state event can be trusted
  bool any_ = false;
  uint64_t first_ns_ = 0;
  uint64_t last_ns_ = 0;
};

const char* to_string(GilState state);
const char* to_string(CpuState state);

}  // namespace giltop
