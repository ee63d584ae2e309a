// Synthetic event sequences: a Story tells one by hand, a Simulation makes up legal ones and keeps
// the truth about them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "event/event.h"
#include "model/model.h"
#include "model/snapshot.h"

namespace giltop::testing {

inline constexpr uint64_t kStart_ns = 1'000'000'000;  // of every story: no time is zero
inline constexpr uint64_t kGil = 0x7f0000001000;

// Who does what at which time, by names:
//
//     Story story;
//     story.process("web", 100).thread("worker", "web", 101);
//     story.at(0).execs("web").at(10).acquires("web").at(30).releases("web");
//
// Times are nanoseconds since kStart_ns. A thread takes its GIL (kGil) on its CPU (0) unless told.
class Story {
 public:
  // The cast; no events. A process is its main thread.
  Story& process(const std::string& name, uint32_t tgid);
  Story& thread(const std::string& name, const std::string& process, uint32_t tid);
  Story& on_cpu(const std::string& name, uint16_t cpu);
  Story& with_gil(const std::string& name, uint64_t gil);

  Story& at(uint64_t ns);
  // The same; and the switch-out that follows says that its thread had run for `ran_ns`.
  Story& after(uint64_t ns, uint64_t ran_ns);

  Story& seen(const std::string& name, std::string_view comm = "python3");
  Story& execs(const std::string& name, std::string_view comm = "python3");
  Story& forks(const std::string& parent, const std::string& child,
               std::string_view comm = "python3");
  Story& exits(const std::string& name);
  Story& exits_last(const std::string& name);
  Story& renamed(const std::string& name, std::string_view comm);
  Story& is_python(const std::string& name, ProcessFacts facts);
  Story& is_python(const std::string& name);  // 3.11.2, "python3 app.py"

  Story& waits(const std::string& name);
  Story& acquires(const std::string& name);
  Story& releases(const std::string& name);
  Story& switches_off(const std::string& name);  // releases it, and it is off (free-threaded)
  Story& forced(const std::string& name);

  Story& runs(const std::string& name, uint64_t uncharged_ns = 0);
  Story& preempted(const std::string& name, uint64_t uncharged_ns = 0);
  Story& sleeps(const std::string& name, uint64_t uncharged_ns = 0);
  Story& disk_sleeps(const std::string& name);
  Story& stops(const std::string& name);
  Story& dies(const std::string& name);  // its last switch
  Story& wakes(const std::string& name);

  // What was read of the GIL that this one uses (and, if held, holds); of this thread.
  Story& reads_gil(const std::string& name, GilReading state, uint32_t interpreter = 0);
  Story& reads_thread(const std::string& name, uint8_t bits);

  Story& goes_light(const std::string& name);
  Story& loses(uint8_t kind, uint32_t count, uint64_t until_ns);
  Story& ends();

  const std::vector<Event>& events() const { return events_; }
  EventTables& tables() { return *tables_; }

 private:
  struct Actor {
    uint32_t tgid = 0, tid = 0;
    uint16_t cpu = 0;
    uint64_t gil = kGil;
  };
  const Actor& actor(const std::string& name) const;
  Story& add(EventKind kind, const std::string& name, uint64_t value = 0, uint8_t state = 0,
             uint32_t other = 0);
  Story& leave(const std::string& name, TaskState how, uint64_t uncharged_ns);

  std::map<std::string, Actor> cast_;
  std::vector<Event> events_;
  std::unique_ptr<EventTables> tables_ = std::make_unique<EventTables>();
  uint64_t now_ns_ = kStart_ns;
  uint32_t ran_ns_ = 0;
};

// A model that was told a sequence of events.
struct Played {
  Played(const EventTables& tables, const std::vector<Event>& events,
         const ModelLimits& limits = {});
  explicit Played(Story& story) : Played(story.tables(), story.events()) {}

  // The `nth` thread, or GIL, that appeared with this id.
  const Thread& thread(uint32_t tid, size_t nth = 0) const;
  const Gil& gil(size_t nth = 0) const;
  uint64_t cell(uint32_t tid, GilState gil, CpuState cpu, size_t nth = 0) const;

  Model model;
};

// Sum of a thread's cells, of one row of them, of a ledger.
uint64_t cells_of(const Thread& thread);
uint64_t row_of(const Thread& thread, GilState state);
uint64_t sum_of(const Ledger& ledger);

// What must hold after any sequence of ordered events, however wrong (design §2): one line each.
std::vector<std::string> broken_tilings(const Model& model);
// What must hold if the sequence was possible, too: nobody holds twice, held time agrees.
std::vector<std::string> broken_invariants(const Model& model);

// What is read of the processes when the observation begins.
enum class Readings : uint8_t { none, right, wrong };

struct SimulationOptions {
  size_t steps = 400;
  size_t unseen_steps = 0;  // before the observation begins: attach in mid-run
  unsigned cpus = 2;
  unsigned gils = 2;  // of each process
  size_t max_threads = 12;
  uint64_t max_step_ns = 1'000'000;
  Readings readings = Readings::none;
};

// A random machine of two CPUs with Python processes on it, and what it did. Threads act only while
// they run; a GIL is given only when free; forks, execs, exits and reused ids are as the kernel has
// them. The truth is kept apart from the model, second by second.
class Simulation {
 public:
  using Options = SimulationOptions;
  struct Truth {
    uint32_t tgid = 0, tid = 0;
    uint64_t first_ns = 0, last_ns = 0;
    std::array<std::array<uint64_t, 4>, 4> matrix{};
    uint64_t acquires = 0, contended = 0, forced = 0, releases = 0;
    uint64_t stolen_ns = 0;
    bool execed = false;  // began by exec: what was stolen before is not told apart
    bool read = false;    // its GIL state was read, and rightly
  };

  Simulation(uint64_t seed, const Options& options = {});

  const std::vector<Event>& events() const { return events_; }
  const std::vector<Truth>& truth() const { return truth_; }  // in order of appearance
  const EventTables& tables() const { return *tables_; }
  EventTables& tables() { return *tables_; }

 private:
  struct SimGil {
    uint64_t address = 0;
    int holder = -1, last_holder = -1;  // threads
    uint64_t releases = 0;
    bool drop_requested = false;
    std::vector<int> waiters;
  };
  struct SimProcess {
    uint32_t tgid = 0;
    std::vector<SimGil> gils;
    std::vector<int> threads;  // alive
    bool exec_only = false;    // forked without the GIL: may only exec or exit
  };
  struct SimThread {
    int process = -1;
    uint32_t tid = 0;
    GilState gil_state = GilState::released;
    CpuState cpu_state = CpuState::blocked;
    int gil = -1;
    int cpu = -1;
    bool must_retake = false;  // forked with the GIL
    bool may_be_forced = false;
    uint64_t saved_releases = 0;  // when it last began to sleep in take_gil
    bool ended = false;           // has exited; its last switch is to come
    bool gone = false;
    size_t truth = 0;
    uint64_t uncharged_in = 0, switch_in_ns = 0;
  };

  uint64_t pick(uint64_t below) { return rng_() % below; }
  bool chance(unsigned percent) { return pick(100) < percent; }
  void pass_time();
  void step();
  void act(int thread);
  void act_holding(int thread);
  void act_released(int thread);
  void leave_cpu(int thread, TaskState how);
  void enter_cpu(int thread, int cpu);
  int runnable_thread();
  void emit(EventKind kind, const SimThread& t, uint64_t value = 0, uint8_t state = 0,
            uint32_t other = 0);
  void acquire(int thread, int gil);
  void release(int thread);
  void fork_thread(int thread);
  void fork_process(int thread);
  void exec(int thread);
  void exit(int thread);
  int add_thread(int process, uint32_t tid);
  void begin_truth(SimThread& t);
  uint32_t free_tid();
  size_t alive() const;
  void observe();
  void read(const SimProcess& p);

  Options options_;
  std::mt19937_64 rng_;
  std::unique_ptr<EventTables> tables_ = std::make_unique<EventTables>();
  std::vector<Event> events_;
  std::vector<Truth> truth_;
  std::vector<SimProcess> processes_;
  std::vector<SimThread> threads_;
  std::vector<int> on_cpu_;  // thread, or -1
  std::vector<uint64_t> uncharged_;
  uint64_t now_ns_ = kStart_ns;
  bool observed_ = false;
  uint32_t python_ = 0;
  uint32_t last_tid_ = 100;
};

// Says after each exec of `events` what it is that runs now: one of a few Pythons.
std::vector<Event> with_programs(EventTables& tables, const std::vector<Event>& events);
// Takes out of `events` most of what happened in some windows, and says so by loss events.
std::vector<Event> with_losses(const std::vector<Event>& events, uint64_t seed, size_t windows);
// Takes out some of the switch-ins, in percent, as kernels do that hide those of privileged tasks.
std::vector<Event> with_hidden_switch_ins(const std::vector<Event>& events, uint64_t seed,
                                          unsigned percent);
// Lets the scheduler charge some runs with up to 30 µs more or less than lies between their
// switches.
std::vector<Event> with_other_charges(const std::vector<Event>& events, uint64_t seed);
// Lets some events, in percent, have the time of the one before.
std::vector<Event> with_equal_times(const std::vector<Event>& events, uint64_t seed,
                                    unsigned percent);
// Puts events in between that could not have happened; times stay in order.
std::vector<Event> with_garbage(const std::vector<Event>& events, uint64_t seed, size_t count);

}  // namespace giltop::testing
