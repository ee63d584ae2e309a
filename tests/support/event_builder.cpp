#include "support/event_builder.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>

namespace giltop::testing {
namespace {

constexpr size_t kUnseen = ~size_t{0};  // no truth of this thread yet

std::string name_of(const Thread& thread) {
  return "thread " + std::to_string(thread.tid) + " #" + std::to_string(thread.index);
}

}  // namespace

// --- Story ---------------------------------------------------------------------------------------

Story& Story::process(const std::string& name, uint32_t tgid) {
  cast_[name] = Actor{tgid, tgid};
  return *this;
}

Story& Story::thread(const std::string& name, const std::string& process, uint32_t tid) {
  cast_[name] = Actor{actor(process).tgid, tid};
  return *this;
}

Story& Story::on_cpu(const std::string& name, uint16_t cpu) {
  cast_.at(name).cpu = cpu;
  return *this;
}

Story& Story::with_gil(const std::string& name, uint64_t gil) {
  cast_.at(name).gil = gil;
  return *this;
}

Story& Story::at(uint64_t ns) {
  now_ns_ = kStart_ns + ns;
  return *this;
}

Story& Story::after(uint64_t ns, uint64_t ran_ns) {
  ran_ns_ = static_cast<uint32_t>(ran_ns);
  return at(ns);
}

const Story::Actor& Story::actor(const std::string& name) const {
  const auto found = cast_.find(name);
  if (found == cast_.end()) {
    std::cerr << "a story without " << name << "\n";
    std::abort();
  }
  return found->second;
}

Story& Story::add(EventKind kind, const std::string& name, uint64_t value, uint8_t state,
                  uint32_t other) {
  const Actor& who = actor(name);
  Event event;
  event.ts_ns = now_ns_;
  event.kind = kind;
  event.tgid = who.tgid;
  event.tid = who.tid;
  event.cpu = who.cpu;
  event.value = value;
  event.state = state;
  event.other = other;
  events_.push_back(event);
  return *this;
}

Story& Story::leave(const std::string& name, TaskState how, uint64_t uncharged_ns) {
  return add(EventKind::switch_out, name, uncharged_ns, static_cast<uint8_t>(how),
             std::exchange(ran_ns_, 0));
}

Story& Story::seen(const std::string& name, std::string_view comm) {
  return add(EventKind::thread_seen, name, 0, 0, tables_->intern(comm));
}
Story& Story::execs(const std::string& name, std::string_view comm) {
  return add(EventKind::exec, name, 0, 0, tables_->intern(comm));
}
Story& Story::forks(const std::string& parent, const std::string& child, std::string_view comm) {
  const Actor& from = actor(parent);
  return add(EventKind::fork, child, uint64_t{from.tgid} << 32 | from.tid, 0,
             tables_->intern(comm));
}
Story& Story::exits(const std::string& name) { return add(EventKind::exit, name); }
Story& Story::exits_last(const std::string& name) { return add(EventKind::exit, name, 0, 1); }
Story& Story::renamed(const std::string& name, std::string_view comm) {
  return add(EventKind::thread_name, name, 0, 0, tables_->intern(comm));
}
Story& Story::is_python(const std::string& name, ProcessFacts facts) {
  return add(EventKind::process, name, 0, 0, tables_->add(std::move(facts)));
}
Story& Story::is_python(const std::string& name) {
  return is_python(name, {"python3", "python3 app.py", "3.11.2", "abcd", false});
}
Story& Story::waits(const std::string& n) { return add(EventKind::gil_wait, n, actor(n).gil); }
Story& Story::acquires(const std::string& n) {
  return add(EventKind::gil_acquire, n, actor(n).gil);
}
Story& Story::releases(const std::string& n) {
  return add(EventKind::gil_release, n, actor(n).gil);
}
Story& Story::switches_off(const std::string& n) {
  return add(EventKind::gil_release, n, actor(n).gil, 1);
}
Story& Story::forced(const std::string& n) { return add(EventKind::gil_forced, n, actor(n).gil); }
Story& Story::runs(const std::string& name, uint64_t uncharged_ns) {
  return add(EventKind::switch_in, name, uncharged_ns);
}
Story& Story::preempted(const std::string& name, uint64_t uncharged_ns) {
  return leave(name, TaskState::runnable, uncharged_ns);
}
Story& Story::sleeps(const std::string& name, uint64_t uncharged_ns) {
  return leave(name, TaskState::interruptible, uncharged_ns);
}
Story& Story::disk_sleeps(const std::string& name) {
  return leave(name, TaskState::uninterruptible, 0);
}
Story& Story::stops(const std::string& name) { return leave(name, TaskState::stopped, 0); }
Story& Story::dies(const std::string& name) { return leave(name, TaskState::dead, 0); }
Story& Story::wakes(const std::string& name) { return add(EventKind::wakeup, name); }

Story& Story::reads_gil(const std::string& name, GilReading state, uint32_t interpreter) {
  add(EventKind::gil_read, name, actor(name).gil, static_cast<uint8_t>(state), interpreter + 1);
  if (state != GilReading::held) events_.back().tid = 0;
  return *this;
}
Story& Story::reads_thread(const std::string& name, uint8_t bits) {
  const bool waits = (bits & kReadWaiting) != 0;
  return add(EventKind::thread_read, name, waits ? actor(name).gil : 0, bits);
}

Story& Story::goes_light(const std::string& name) { return add(EventKind::mode, name, 0, 1); }

Story& Story::loses(uint8_t kind, uint32_t count, uint64_t until_ns) {
  Event event;
  event.ts_ns = now_ns_;
  event.kind = EventKind::loss;
  event.state = kind;
  event.other = count;
  event.value = kStart_ns + until_ns;
  events_.push_back(event);
  return *this;
}

Story& Story::ends() {
  Event event;
  event.ts_ns = now_ns_;
  event.kind = EventKind::end;
  events_.push_back(event);
  return *this;
}

// --- Played --------------------------------------------------------------------------------------

Played::Played(const EventTables& tables, const std::vector<Event>& events,
               const ModelLimits& limits)
    : model(tables, limits) {
  for (const Event& event : events) model.apply(event);
}

const Thread& Played::thread(uint32_t tid, size_t nth) const {
  for (const Thread& t : model.threads())
    if (t.tid == tid && nth-- == 0) return t;
  std::cerr << "no thread " << tid << "\n";
  std::abort();
}

const Gil& Played::gil(size_t nth) const {
  for (const Process& p : model.processes())
    for (const auto& g : p.gils)
      if (g->index == nth) return *g;
  std::cerr << "no GIL " << nth << "\n";
  std::abort();
}

uint64_t Played::cell(uint32_t tid, GilState g, CpuState c, size_t nth) const {
  return thread(tid, nth).matrix[static_cast<size_t>(g)][static_cast<size_t>(c)];
}

uint64_t cells_of(const Thread& thread) {
  uint64_t sum = 0;
  for (const auto& row : thread.matrix)
    for (const uint64_t cell : row) sum += cell;
  return sum;
}

uint64_t row_of(const Thread& thread, GilState state) {
  uint64_t sum = 0;
  for (const uint64_t cell : thread.matrix[static_cast<size_t>(state)]) sum += cell;
  return sum;
}

uint64_t sum_of(const Ledger& ledger) {
  uint64_t sum = 0;
  for (const uint64_t part : ledger) sum += part;
  return sum;
}

std::vector<std::string> broken_tilings(const Model& model) {
  std::vector<std::string> broken;
  std::map<const Thread*, uint64_t> blamed;
  for (const Process& p : model.processes()) {
    for (const auto& g : p.gils) {
      if (sum_of(g->whole_ledger()) != g->life_ns())
        broken.push_back("the ledger of GIL " + std::to_string(g->index) + " sums to " +
                         std::to_string(sum_of(g->whole_ledger())) + ", its life is " +
                         std::to_string(g->life_ns()));
      for (const Gil::Blame& b : g->blame())
        blamed[b.waiter] +=
            b.running_ns + b.runnable_ns + b.blocked_ns + b.handoff_ns + b.unknown_ns;
      for (const Thread* w : g->waiters)
        if (w->ended || w->gil != g.get() || w->gil_state != GilState::waiting)
          broken.push_back(name_of(*w) + " is in a queue that it does not wait in");
    }
  }
  for (const Thread& t : model.threads()) {
    if (cells_of(t) != t.life_ns())
      broken.push_back("the cells of " + name_of(t) + " sum to " + std::to_string(cells_of(t)) +
                       ", its life is " + std::to_string(t.life_ns()));
    if (row_of(t, GilState::waiting) != blamed[&t])
      broken.push_back(name_of(t) + " waited " + std::to_string(row_of(t, GilState::waiting)) +
                       ", of which " + std::to_string(blamed[&t]) + " is blamed");
    if (t.gil_state == GilState::holding && !t.process->light &&
        (!t.gil || !t.gil->known || t.gil->holder != &t))
      broken.push_back(name_of(t) + " holds a GIL that does not know it");
  }
  for (const Process& p : model.processes())
    for (const auto& g : p.gils)
      if (g->known && g->holder &&
          (g->holder->gil_state != GilState::holding || g->holder->gil != g.get()))
        broken.push_back("GIL " + std::to_string(g->index) + " is held by " + name_of(*g->holder) +
                         ", which does not know");
  return broken;
}

std::vector<std::string> broken_invariants(const Model& model) {
  std::vector<std::string> broken = broken_tilings(model);
  if (model.violations() != 0) broken.push_back(std::to_string(model.violations()) + " violations");
  // Held time is the same seen from the GILs and from the threads, state by state.
  for (const Process& p : model.processes()) {
    std::array<uint64_t, 3> by_threads{}, by_gils{};
    uint64_t acquires = 0, contended = 0, releases = 0;
    std::vector<const Thread*> threads(p.threads.begin(), p.threads.end());
    if (p.rest) threads.push_back(p.rest);
    for (const Thread* t : threads) {
      for (size_t c = 0; c < 3; c++) by_threads[c] += t->matrix[0][c];
      acquires += t->acquires;
      contended += t->contended;
      releases += t->forced_releases + t->voluntary_releases;
      if (t->wait.count() > t->contended) broken.push_back(name_of(*t) + " waited too often");
    }
    for (const auto& g : p.gils) {
      for (size_t c = 0; c < 3; c++) by_gils[c] += g->ledger[c];
      acquires -= g->acquires;
      contended -= g->contended;
      releases -= g->forced_releases + g->voluntary_releases;
      if (g->handoff.count() > g->contended) broken.push_back("more hand-offs than waits");
      if (g->handoff_wakeup_ns + g->handoff_runqueue_ns + g->handoff_lock_ns != g->handoff.sum_ns())
        broken.push_back("the parts of the hand-offs of GIL " + std::to_string(g->index) +
                         " do not sum up");
    }
    if (by_threads != by_gils)
      broken.push_back("held time of process " + std::to_string(p.tgid) +
                       " differs between its threads and its GILs");
    if (acquires != 0 || contended != 0 || releases != 0)
      broken.push_back("counts of process " + std::to_string(p.tgid) +
                       " differ between its threads and its GILs");
  }
  return broken;
}

// --- Simulation ----------------------------------------------------------------------------------

Simulation::Simulation(uint64_t seed, const Options& options)
    : options_(options), rng_(seed), on_cpu_(options.cpus, -1), uncharged_(options.cpus, 0) {
  python_ = tables_->intern("python3");
  // Two processes begin by exec, each on a CPU of its own.
  for (int i = 0; i < 2; i++) {
    SimProcess& p = processes_.emplace_back();
    p.tgid = free_tid();
    for (unsigned g = 0; g < options_.gils; g++) p.gils.emplace_back().address = kGil + g * 0x10000;
    const int t = add_thread(i, p.tgid);
    threads_[static_cast<size_t>(t)].cpu_state = CpuState::running;
    threads_[static_cast<size_t>(t)].switch_in_ns = now_ns_;
    threads_[static_cast<size_t>(t)].cpu = i % static_cast<int>(options_.cpus);
    if (on_cpu_[static_cast<size_t>(threads_[static_cast<size_t>(t)].cpu)] != -1) std::abort();
    on_cpu_[static_cast<size_t>(threads_[static_cast<size_t>(t)].cpu)] = t;
  }
  for (size_t i = 0; i < options_.unseen_steps && alive() > 0; i++) step();
  observe();
  for (size_t i = 0; i < options_.steps && alive() > 0; i++) step();
  pass_time();
  Event end;
  end.kind = EventKind::end;
  end.ts_ns = now_ns_;
  events_.push_back(end);
}

// The recorder starts: what is there is reported, by exec where it began just now.
void Simulation::observe() {
  truth_.clear();
  for (SimThread& t : threads_) t.truth = kUnseen;
  observed_ = true;
  for (SimProcess& p : processes_) {
    for (const int id : p.threads) {
      SimThread& t = threads_[static_cast<size_t>(id)];
      if (options_.unseen_steps == 0) pass_time();
      begin_truth(t);
      emit(options_.unseen_steps == 0 ? EventKind::exec : EventKind::thread_seen, t, 0, 0, python_);
      truth_[t.truth].execed = true;
      t.may_be_forced = false;
      t.uncharged_in = t.cpu >= 0 ? uncharged_[static_cast<size_t>(t.cpu)] : 0;
    }
    if (p.threads.empty()) continue;
    if (options_.unseen_steps == 0) pass_time();
    emit(EventKind::process, threads_[static_cast<size_t>(p.threads[0])], 0, 0,
         tables_->add({"python3", "python3 app.py", "3.11.2", "abcd", false}));
    if (options_.readings != Readings::none) read(p);
  }
}

void Simulation::read(const SimProcess& p) {
  const bool right = options_.readings == Readings::right;
  const auto made_up = [&] { return !right && chance(50); };
  for (const int id : p.threads) {
    SimThread& t = threads_[static_cast<size_t>(id)];
    // Only those that sleep are looked into.
    uint8_t bits = 0;
    int gil = t.gil;
    if (t.cpu_state == CpuState::blocked) {
      bits = kReadBlocked;
      if (t.gil_state == GilState::waiting) bits |= kReadWaiting;
      if (t.gil_state == GilState::released) bits |= kReadReleased;
    }
    if (made_up()) {
      bits = static_cast<uint8_t>(pick(8));
      gil = static_cast<int>(pick(p.gils.size()));
    }
    truth_[t.truth].read = right && (bits & (kReadWaiting | kReadReleased)) != 0;
    const bool waits = (bits & kReadWaiting) != 0;
    emit(EventKind::thread_read, t, waits ? p.gils[static_cast<size_t>(gil)].address : 0, bits);
  }
  for (size_t g = 0; g < p.gils.size(); g++) {
    int holder = p.gils[g].holder;
    // A forked child re-creates the GIL that its memory says it holds.
    const bool stale = holder >= 0 && threads_[static_cast<size_t>(holder)].must_retake;
    auto state = stale ? GilReading::unknown : holder >= 0 ? GilReading::held : GilReading::free;
    if (made_up()) {
      state = static_cast<GilReading>(pick(5));
      holder = p.threads[pick(p.threads.size())];
    }
    const bool held = state == GilReading::held;
    if (held && right) truth_[threads_[static_cast<size_t>(holder)].truth].read = true;
    emit(EventKind::gil_read, threads_[static_cast<size_t>(holder >= 0 ? holder : p.threads[0])],
         p.gils[g].address, static_cast<uint8_t>(state), static_cast<uint32_t>(g) + 1);
    if (!held && !events_.empty()) events_.back().tid = 0;
  }
}

size_t Simulation::alive() const {
  size_t count = 0;
  for (const SimThread& t : threads_) count += !t.ended;
  return count;
}

uint32_t Simulation::free_tid() {
  // A small range, so that ids come back soon.
  for (;;) {
    last_tid_ = last_tid_ >= 130 ? 100 : last_tid_ + 1;
    const bool used = std::any_of(threads_.begin(), threads_.end(), [&](const SimThread& t) {
      return !t.gone &&
             (t.tid == last_tid_ || processes_[static_cast<size_t>(t.process)].tgid == last_tid_);
    });
    if (!used) return last_tid_;
  }
}

void Simulation::begin_truth(SimThread& t) {
  t.truth = truth_.size();
  Truth& truth = truth_.emplace_back();
  truth.tgid = processes_[static_cast<size_t>(t.process)].tgid;
  truth.tid = t.tid;
  truth.first_ns = truth.last_ns = now_ns_;
}

int Simulation::add_thread(int process, uint32_t tid) {
  const int id = static_cast<int>(threads_.size());
  SimThread& t = threads_.emplace_back();
  t.process = process;
  t.tid = tid;
  begin_truth(t);
  processes_[static_cast<size_t>(process)].threads.push_back(id);
  return id;
}

void Simulation::pass_time() {
  const uint64_t most = chance(80) ? 5000 : options_.max_step_ns;
  const uint64_t elapsed = 1 + pick(most);
  now_ns_ += elapsed;
  for (uint64_t& u : uncharged_)
    if (chance(10)) u += pick(elapsed);
  for (const SimThread& t : threads_) {
    if (t.ended || t.truth == kUnseen) continue;
    Truth& truth = truth_[t.truth];
    truth.matrix[static_cast<size_t>(t.gil_state)][static_cast<size_t>(t.cpu_state)] += elapsed;
    truth.last_ns = now_ns_;
  }
}

void Simulation::emit(EventKind kind, const SimThread& t, uint64_t value, uint8_t state,
                      uint32_t other) {
  if (!observed_) return;
  Event event;
  event.ts_ns = now_ns_;
  event.kind = kind;
  event.tgid = processes_[static_cast<size_t>(t.process)].tgid;
  event.tid = t.tid;
  event.cpu = static_cast<uint16_t>(std::max(t.cpu, 0));
  event.value = value;
  event.state = state;
  event.other = other;
  events_.push_back(event);
}

int Simulation::runnable_thread() {
  std::vector<int> able;
  for (size_t i = 0; i < threads_.size(); i++)
    if (!threads_[i].ended && threads_[i].cpu_state == CpuState::runnable)
      able.push_back(static_cast<int>(i));
  return able.empty() ? -1 : able[pick(able.size())];
}

void Simulation::step() {
  pass_time();
  if (chance(40)) {  // a wakeup, now and then of somebody who is awake
    std::vector<int> all;
    for (size_t i = 0; i < threads_.size(); i++)
      if (!threads_[i].ended &&
          (threads_[i].cpu_state == CpuState::blocked || (observed_ && chance(5))))
        all.push_back(static_cast<int>(i));
    if (!all.empty()) {
      SimThread& t = threads_[static_cast<size_t>(all[pick(all.size())])];
      emit(EventKind::wakeup, t);
      if (t.cpu_state == CpuState::blocked) t.cpu_state = CpuState::runnable;
      return;
    }
  }
  const int cpu = static_cast<int>(pick(on_cpu_.size()));
  const int current = on_cpu_[static_cast<size_t>(cpu)];
  if (current < 0) {
    if (const int next = runnable_thread(); next >= 0) enter_cpu(next, cpu);
    return;
  }
  act(current);
}

void Simulation::enter_cpu(int thread, int cpu) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  t.cpu = cpu;
  t.cpu_state = CpuState::running;
  t.switch_in_ns = now_ns_;
  t.uncharged_in = uncharged_[static_cast<size_t>(cpu)];
  on_cpu_[static_cast<size_t>(cpu)] = thread;
  emit(EventKind::switch_in, t, t.uncharged_in);
}

void Simulation::leave_cpu(int thread, TaskState how) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  const int cpu = t.cpu;
  emit(EventKind::switch_out, t, uncharged_[static_cast<size_t>(cpu)], static_cast<uint8_t>(how),
       static_cast<uint32_t>(now_ns_ - t.switch_in_ns));
  if (!t.ended) truth_[t.truth].stolen_ns += uncharged_[static_cast<size_t>(cpu)] - t.uncharged_in;
  t.cpu_state = how == TaskState::runnable ? CpuState::runnable : CpuState::blocked;
  if (how == TaskState::dead) t.gone = true;
  on_cpu_[static_cast<size_t>(cpu)] = -1;
  const int next = runnable_thread();
  if (next >= 0 && next != thread && chance(80)) enter_cpu(next, cpu);  // at the same instant
}

void Simulation::acquire(int thread, int gil) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimGil& g = processes_[static_cast<size_t>(t.process)].gils[static_cast<size_t>(gil)];
  if (t.gil_state == GilState::waiting) {
    g.waiters.erase(std::find(g.waiters.begin(), g.waiters.end(), thread));
    truth_[t.truth].contended++;
  }
  emit(EventKind::gil_acquire, t, g.address);
  truth_[t.truth].acquires++;
  g.holder = thread;
  g.last_holder = thread;
  g.drop_requested = false;
  t.gil = gil;
  t.gil_state = GilState::holding;
  t.must_retake = false;
}

void Simulation::release(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimGil& g = processes_[static_cast<size_t>(t.process)].gils[static_cast<size_t>(t.gil)];
  emit(EventKind::gil_release, t, g.address);
  truth_[t.truth].releases++;
  g.holder = -1;
  g.releases++;
  t.gil_state = GilState::released;
  t.may_be_forced = g.drop_requested;
  truth_[t.truth].forced += g.drop_requested;
  g.drop_requested = false;
}

void Simulation::act(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimProcess& p = processes_[static_cast<size_t>(t.process)];
  if (t.ended) return leave_cpu(thread, TaskState::dead);
  if (t.must_retake) return acquire(thread, t.gil);
  if (chance(15)) return leave_cpu(thread, TaskState::runnable);
  switch (t.gil_state) {
    case GilState::holding:
      return act_holding(thread);
    case GilState::waiting: {
      SimGil& g = p.gils[static_cast<size_t>(t.gil)];
      if (g.holder < 0) return acquire(thread, t.gil);
      if (chance(3) && thread != p.threads[0]) return exit(thread);
      if (chance(20)) {
        // Nobody signalled it, so its switch interval is over: it asks for the GIL, and waits on.
        if (g.releases == t.saved_releases) g.drop_requested = true;
        t.saved_releases = g.releases;
        return emit(EventKind::gil_wait, t, g.address);
      }
      return leave_cpu(thread, TaskState::interruptible);
    }
    default:
      return act_released(thread);
  }
}

void Simulation::act_holding(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  if (chance(10))
    return leave_cpu(thread, chance(50) ? TaskState::interruptible : TaskState::uninterruptible);
  if (chance(10) && alive() < options_.max_threads) return fork_thread(thread);
  if (chance(4) && alive() < options_.max_threads) return fork_process(thread);
  if (chance(2) && processes_[static_cast<size_t>(t.process)].threads.size() == 1)
    return exit(thread);  // up to 3.11 the main thread's last hold never ends
  release(thread);
}

void Simulation::act_released(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimProcess& p = processes_[static_cast<size_t>(t.process)];
  if (t.may_be_forced) {
    t.may_be_forced = false;
    const SimGil& g = p.gils[static_cast<size_t>(t.gil)];
    if (g.last_holder == thread) return emit(EventKind::gil_forced, t, g.address);
  }
  if (chance(20))
    return leave_cpu(thread, chance(80) ? TaskState::interruptible : TaskState::stopped);
  if (p.threads.size() == 1 && (p.exec_only || chance(3))) return exec(thread);
  if (chance(4) && (p.threads.size() == 1 || thread != p.threads[0])) return exit(thread);
  if (chance(3) && alive() < options_.max_threads) return fork_process(thread);
  const int gil = static_cast<int>(chance(85) ? 0 : pick(p.gils.size()));
  SimGil& g = p.gils[static_cast<size_t>(gil)];
  if (g.holder < 0) return acquire(thread, gil);
  emit(EventKind::gil_wait, t, g.address);
  t.saved_releases = g.releases;
  g.waiters.push_back(thread);
  t.gil = gil;
  t.gil_state = GilState::waiting;
}

void Simulation::fork_thread(int thread) {
  const SimThread parent = threads_[static_cast<size_t>(thread)];
  const int id = add_thread(parent.process, free_tid());
  SimThread& child = threads_[static_cast<size_t>(id)];
  child.cpu_state = CpuState::runnable;
  emit(EventKind::fork, child,
       uint64_t{processes_[static_cast<size_t>(parent.process)].tgid} << 32 | parent.tid, 0,
       python_);
}

void Simulation::fork_process(int thread) {
  const SimThread parent = threads_[static_cast<size_t>(thread)];
  const uint32_t parent_tgid = processes_[static_cast<size_t>(parent.process)].tgid;
  const int process = static_cast<int>(processes_.size());
  SimProcess& p = processes_.emplace_back();
  p.tgid = free_tid();
  for (unsigned g = 0; g < options_.gils; g++) p.gils.emplace_back().address = kGil + g * 0x10000;
  p.exec_only = parent.gil_state != GilState::holding;
  const int id = add_thread(process, p.tgid);
  SimThread& child = threads_[static_cast<size_t>(id)];
  child.cpu_state = CpuState::runnable;
  if (!p.exec_only) {
    child.gil_state = GilState::holding;
    child.gil = parent.gil;
    child.must_retake = true;
    p.gils[static_cast<size_t>(parent.gil)].holder = id;
    p.gils[static_cast<size_t>(parent.gil)].last_holder = id;
  }
  emit(EventKind::fork, child, uint64_t{parent_tgid} << 32 | parent.tid, 0, python_);
}

void Simulation::exec(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimProcess& p = processes_[static_cast<size_t>(t.process)];
  p.exec_only = false;
  for (SimGil& g : p.gils) {
    const uint64_t address = g.address;
    g = SimGil();
    g.address = address;
  }
  begin_truth(t);
  truth_[t.truth].execed = true;
  t.uncharged_in = uncharged_[static_cast<size_t>(t.cpu)];
  t.gil_state = GilState::released;
  t.gil = -1;
  emit(EventKind::exec, t, 0, 0, python_);
  pass_time();
  emit(EventKind::process, t, 0, 0,
       tables_->add({"python3", "python3 other.py", "3.12.1", "", false}));
}

void Simulation::exit(int thread) {
  SimThread& t = threads_[static_cast<size_t>(thread)];
  SimProcess& p = processes_[static_cast<size_t>(t.process)];
  p.threads.erase(std::find(p.threads.begin(), p.threads.end(), thread));
  if (t.gil_state == GilState::waiting) {
    auto& waiters = p.gils[static_cast<size_t>(t.gil)].waiters;
    waiters.erase(std::find(waiters.begin(), waiters.end(), thread));
  }
  // What its CPU stole from it is told only by the next switch, which is past its end.
  emit(EventKind::exit, t, 0, p.threads.empty(), python_);
  t.ended = true;
}

std::vector<Event> with_programs(EventTables& tables, const std::vector<Event>& events) {
  std::vector<uint32_t> programs;
  for (const char* version : {"3.9.2", "3.11.2", "3.14.0"})
    programs.push_back(tables.add({"python3", "python3 app.py", version, "abcd", false}));
  std::vector<Event> out;
  for (const Event& event : events) {
    out.push_back(event);
    if (event.kind != EventKind::exec) continue;
    Event& process = out.emplace_back();
    process.kind = EventKind::process;
    process.ts_ns = event.ts_ns;
    process.tgid = event.tgid;
    process.other = programs[event.ts_ns % programs.size()];
  }
  return out;
}

std::vector<Event> with_losses(const std::vector<Event>& events, uint64_t seed, size_t windows) {
  std::mt19937_64 rng(seed);
  std::vector<Event> out = events;
  for (size_t w = 0; w < windows && out.size() > 20; w++) {
    const size_t from = 2 + rng() % (out.size() - 10);
    const size_t to = std::min(out.size() - 2, from + 1 + rng() % 30);
    // In time order, with room for the loss between two events.
    if (out[from].ts_ns <= out[from - 1].ts_ns + 1) continue;
    if (out[to].ts_ns == out[to - 1].ts_ns) continue;  // between the halves of a switch
    Event loss;
    loss.kind = EventKind::loss;
    loss.ts_ns = out[from].ts_ns - 1;
    loss.value = out[to].ts_ns - rng() % 2;
    loss.other = 1 + static_cast<uint32_t>(rng() % 1000);
    loss.state = static_cast<uint8_t>(rng() % kRecordKinds.size());
    std::vector<Event> changed(out.begin(), out.begin() + static_cast<ptrdiff_t>(from));
    changed.push_back(loss);
    for (size_t i = from; i < to; i++) {
      const bool of_programs = out[i].kind <= EventKind::exit;  // what the kernel side can lose
      if (!of_programs || rng() % 4 == 0) changed.push_back(out[i]);
    }
    changed.insert(changed.end(), out.begin() + static_cast<ptrdiff_t>(to), out.end());
    out = std::move(changed);
  }
  return out;
}

std::vector<Event> with_hidden_switch_ins(const std::vector<Event>& events, uint64_t seed,
                                          unsigned percent) {
  std::mt19937_64 rng(seed);
  std::vector<Event> out;
  for (const Event& event : events)
    if (event.kind != EventKind::switch_in || rng() % 100 >= percent) out.push_back(event);
  return out;
}

std::vector<Event> with_other_charges(const std::vector<Event>& events, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<Event> out = events;
  for (Event& event : out) {
    if (event.kind != EventKind::switch_out || rng() % 2) continue;
    const int64_t ran = int64_t{event.other} + static_cast<int64_t>(rng() % 60'000) - 30'000;
    event.other = static_cast<uint32_t>(std::max<int64_t>(ran, 0));
  }
  return out;
}

std::vector<Event> with_equal_times(const std::vector<Event>& events, uint64_t seed,
                                    unsigned percent) {
  std::mt19937_64 rng(seed);
  std::vector<Event> out = events;
  for (size_t i = 1; i < out.size(); i++)
    if (rng() % 100 < percent) out[i].ts_ns = out[i - 1].ts_ns;
  return out;
}

std::vector<Event> with_garbage(const std::vector<Event>& events, uint64_t seed, size_t count) {
  std::mt19937_64 rng(seed);
  std::vector<Event> out = events;
  if (out.size() < 3) return out;
  for (size_t i = 0; i < count; i++) {
    const size_t at = 1 + rng() % (out.size() - 1);
    if (out[at].ts_ns <= out[at - 1].ts_ns + 1) continue;
    Event event;
    event.ts_ns = out[at - 1].ts_ns + 1 + rng() % (out[at].ts_ns - out[at - 1].ts_ns - 1);
    // All but the loss and the end, which stand for the readings.
    event.kind = static_cast<EventKind>(rng() % (static_cast<unsigned>(EventKind::end) + 1));
    if (event.kind >= EventKind::loss)
      event.kind = event.kind == EventKind::loss ? EventKind::gil_read : EventKind::thread_read;
    event.tid = 1 + static_cast<uint32_t>(rng() % 3 == 0 ? rng() % kMaxTid : 100 + rng() % 30);
    event.tgid = rng() % 3 == 0 ? event.tid : 101 + static_cast<uint32_t>(rng() % 30);
    event.cpu = static_cast<uint16_t>(rng() % 4);
    event.state = static_cast<uint8_t>(event.kind == EventKind::exit ? rng() % 2 : rng() % 5);
    switch (event.kind) {
      case EventKind::gil_wait:
      case EventKind::gil_acquire:
      case EventKind::gil_release:
      case EventKind::gil_forced:
      case EventKind::gil_read:
      case EventKind::thread_read:
        event.value = kGil + rng() % 3 * 0x10000;
        break;
      case EventKind::fork:
        event.value = (101 + rng() % 30) << 32 | (101 + rng() % 30);
        break;
      case EventKind::process:
        event.other = static_cast<uint32_t>(rng() % 3);
        break;
      default:
        event.value = rng() % 1000;
        break;
    }
    if (event.kind != EventKind::process) event.other = static_cast<uint32_t>(rng() % 2);
    out.insert(out.begin() + static_cast<ptrdiff_t>(at), event);
  }
  return out;
}

}  // namespace giltop::testing
