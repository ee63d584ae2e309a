// What has ended is kept one by one up to a bound, and summed up beyond it.
//
//     thread ──ends──► kept ──too many──► one of its process's `rest`
//     process ──ends──► kept ──too many──► one of its program's, with all its threads and GILs
//
// The first to go are those that used the GIL least, since what took the time is what one looks
// for; among equals the oldest. But where there are intervals, those of the present one, which is
// yet to be shown, go last. A process's first thread, which names it, goes only with it.
// All this happens before an event, and depends on the events before it alone, so that a recording
// gives the same sums again; and whoever draws has drawn all ends by then.
#include <algorithm>
#include <tuple>

#include "model/state_inl.h"

namespace giltop {
namespace {

constexpr size_t kCrowd = 128;  // threads at once, whose pairs may be too many for a GIL's rows
constexpr size_t kIdle = 256;   // processes that nobody is alive in
constexpr uint64_t kOrder_ns = 1'000'000'000;  // no event is passed on so late

// What is left when too many are as many as `bound`: the work of a round is for many.
size_t kept_of(size_t bound) { return bound - bound / 4; }

uint64_t used_ns(const Thread& thread) {
  uint64_t sum = 0;
  for (const GilState state : {GilState::holding, GilState::waiting})
    for (const uint64_t cell : thread.matrix[static_cast<size_t>(state)]) sum += cell;
  return sum;
}

uint64_t used_ns(const Process& process) {
  uint64_t sum = process.rest ? used_ns(*process.rest) : 0;
  for (const Thread* thread : process.threads) sum += used_ns(*thread);
  return sum;
}

uint64_t end_ns(const Thread& thread) { return thread.last_ns; }

uint64_t end_ns(const Process& process) {
  uint64_t last_ns = 0;
  for (const Thread* thread : process.threads) last_ns = std::max(last_ns, thread->last_ns);
  return last_ns;
}

// Puts the `count` first that used the GIL least, of those that ended before `since_ns` if they are
// as many.
template <typename T>
void least_first(std::vector<T*>& list, size_t count, uint64_t since_ns) {
  struct Rank {
    bool recent;
    uint64_t used, number;
    T* which;
  };
  std::vector<Rank> ranks;
  for (T* which : list)
    ranks.push_back({end_ns(*which) >= since_ns, used_ns(*which), which->number, which});
  std::nth_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(count), ranks.end(),
                   [](const Rank& a, const Rank& b) {
                     return std::tuple(a.recent, a.used, a.number) <
                            std::tuple(b.recent, b.used, b.number);
                   });
  for (size_t i = 0; i < list.size(); i++) list[i] = ranks[i].which;
}

template <typename T>
T& place_in(std::deque<T>& all, std::vector<T*>& free) {
  if (free.empty()) {
    T& added = all.emplace_back();
    added.index = static_cast<uint32_t>(all.size() - 1);
    return added;
  }
  T& found = *free.back();
  free.pop_back();
  found.gone = false;
  return found;
}

template <typename T>
void clear_place(T& place, std::vector<T*>& free) {
  const uint32_t index = place.index;
  place = T{};
  place.index = index;
  place.gone = place.ended = true;
  free.push_back(&place);
}

void add_to(Thread& rest, const Thread& thread) {
  if (rest.folded == 0) rest.first_ns = thread.first_ns;
  rest.first_ns = std::min(rest.first_ns, thread.first_ns);
  rest.last_ns = std::max(rest.last_ns, thread.last_ns);
  rest.folded_life_ns += thread.life_ns();
  rest.folded += std::max<uint64_t>(thread.folded, 1);
  for (size_t g = 0; g < rest.matrix.size(); g++)
    for (size_t c = 0; c < rest.matrix[g].size(); c++) rest.matrix[g][c] += thread.matrix[g][c];
  rest.stolen_ns += thread.stolen_ns;
  rest.acquires += thread.acquires;
  rest.contended += thread.contended;
  rest.forced_releases += thread.forced_releases;
  rest.voluntary_releases += thread.voluntary_releases;
  rest.wait.add(thread.wait);
  rest.hold.add(thread.hold);
  rest.held_sleeps += thread.held_sleeps;
  rest.held_sleep_max_ns = std::max(rest.held_sleep_max_ns, thread.held_sleep_max_ns);
  rest.recent_held_sleep_max_ns =
      std::max(rest.recent_held_sleep_max_ns, thread.recent_held_sleep_max_ns);
}

void add_to(Ledger& sum, const Ledger& parts) {
  for (size_t c = 0; c < kLedgerColumns; c++) sum[c] += parts[c];
}

}  // namespace

// --- places --------------------------------------------------------------------------------------

Model::Model(const EventTables& tables, const ModelLimits& limits)
    : tables_(&tables), by_tid_(kMaxTid + 1), limits_(limits) {
  nowhere_.tgid = ~uint32_t{0};
  gone_.process = &nowhere_;
  gone_.ended = true;
}

Process& Model::add_process() {
  Process& process = place_in(processes_, free_processes_);
  process.ended = false;
  process.number = ++processes_made_;
  return process;
}

Thread& Model::add_thread(Process& process) {
  Thread& thread = place_in(threads_, free_threads_);
  thread.ended = false;
  thread.number = ++threads_made_;
  thread.process = &process;
  if (process.alive.size() == kCrowd) rest_of(process);
  return thread;
}

Gil& Model::add_gil(Process& process) {
  Gil& gil = *process.gils.emplace_back(std::make_unique<Gil>());
  gil.process = &process;
  gil.number = ++gils_made_;
  if (free_gils_.empty()) {
    gil.index = gil_count_++;
  } else {
    gil.index = free_gils_.back();
    free_gils_.pop_back();
  }
  return gil;
}

// Nothing may point to it any more but by_tid_.
void Model::let_go(Thread& thread) {
  gone_.last_ns = std::max(gone_.last_ns, thread.last_ns);
  if (Thread*& last = by_tid_[thread.tid]; last == &thread) last = &gone_;
  clear_place(thread, free_threads_);
}

void Model::let_go(Process& process) {
  const auto found = by_tgid_.find(process.tgid);
  if (found != by_tgid_.end() && found->second == &process) by_tgid_.erase(found);
  for (const auto& gil : process.gils) free_gils_.push_back(gil->index);
  for (Thread* thread : process.threads) let_go(*thread);
  if (process.rest) let_go(*process.rest);
  clear_place(process, free_processes_);
}

// --- ends ----------------------------------------------------------------------------------------

void Model::note_ended(Thread& thread) {
  Process& process = *thread.process;
  const bool names_it = process.threads.front() == &thread || thread.tid == process.tgid;
  if (!names_it) ended_threads_.push_back(&thread);
  crowded_ = crowded_ || ended_threads_.size() > limits_.ended_threads;
  if (process.alive.empty()) note_idle(process);
}

void Model::note_ended(Process& process) {
  ended_processes_.push_back(&process);
  ended_gils_ += process.gils.size();
  crowded_ = crowded_ || ended_processes_.size() > limits_.ended_processes ||
             ended_gils_ > limits_.ended_gils;
}

// Nobody is alive in it: its end comes next, or was lost; or it was told of when it was gone.
void Model::note_idle(Process& process) {
  idle_processes_.emplace_back(&process, process.number);
  crowded_ = crowded_ || idle_processes_.size() > kIdle;
}

void Model::end_idle_processes() {
  std::erase_if(idle_processes_, [](const auto& idle) {
    const auto& [process, number] = idle;
    return process->gone || process->number != number || process->ended || !process->alive.empty();
  });
  if (idle_processes_.size() <= kIdle) return;
  const auto kept = idle_processes_.begin() + kIdle / 4;
  for (auto idle = idle_processes_.begin(); idle != kept; ++idle) {
    Process& process = *idle->first;
    if (process.ended) continue;  // it is there twice
    const uint64_t last_ns = end_ns(process);
    for (auto& gil : process.gils) gil->advance(std::max(last_ns, gil->last_ns));
    process.ended = true;
    note_ended(process);
  }
  idle_processes_.erase(idle_processes_.begin(), kept);
}

// --- folding -------------------------------------------------------------------------------------

void Model::fold() {
  end_idle_processes();
  fold_processes();
  fold_threads();
  crowded_ = false;
}

Thread& Model::rest_of(Process& process) {
  if (process.rest) return *process.rest;
  Thread& rest = place_in(threads_, free_threads_);
  rest.number = rest_number(process.number);
  rest.process = &process;
  rest.ended = true;
  process.rest = &rest;
  return rest;
}

void Model::fold_threads() {
  if (ended_threads_.size() <= limits_.ended_threads) return;
  const size_t count = ended_threads_.size() - kept_of(limits_.ended_threads);
  least_first(ended_threads_, count, interval_ns_);
  const auto end = ended_threads_.begin() + static_cast<ptrdiff_t>(count);
  const std::vector<Thread*> victims(ended_threads_.begin(), end);
  ended_threads_.erase(ended_threads_.begin(), end);
  std::vector<Process*> processes;
  for (Thread* thread : victims) {
    thread->gone = true;
    processes.push_back(thread->process);
    add_to(rest_of(*thread->process), *thread);
  }
  std::sort(processes.begin(), processes.end());
  processes.erase(std::unique(processes.begin(), processes.end()), processes.end());
  for (Process* process : processes) {
    for (auto& gil : process->gils) gil->fold_gone(*process->rest);
    for (AssumedThread& assumed : process->assumed) Gil::fold_rows(assumed.rows, *process->rest);
    std::erase_if(process->threads, [](const Thread* thread) { return thread->gone; });
  }
  for (Thread* thread : victims) let_go(*thread);
}

void Model::fold_processes() {
  const auto too_many = [this] {
    return ended_processes_.size() > limits_.ended_processes || ended_gils_ > limits_.ended_gils;
  };
  if (!too_many()) return;
  // Of what is not reported nothing is left.
  const auto fold_some = [this](auto begin, auto end) {
    for (auto at = begin; at != end; ++at) {
      Process& process = **at;
      ended_gils_ -= process.gils.size();
      for (Thread* thread : process.threads) thread->gone = true;
      if (is_reported(process)) fold(process, program_of(process));
    }
    std::erase_if(ended_threads_, [](const Thread* thread) { return thread->gone; });
    for (auto at = begin; at != end; ++at) let_go(**at);
    ended_processes_.erase(begin, end);
  };
  const auto unreported =
      std::stable_partition(ended_processes_.begin(), ended_processes_.end(),
                            [this](const Process* process) { return !is_reported(*process); });
  fold_some(ended_processes_.begin(), unreported);
  const size_t kept = kept_of(limits_.ended_processes);
  if (ended_processes_.size() > kept) {
    const size_t count = ended_processes_.size() - kept;
    least_first(ended_processes_, count, interval_ns_);
    fold_some(ended_processes_.begin(), ended_processes_.begin() + static_cast<ptrdiff_t>(count));
  }
  while (ended_gils_ > kept_of(limits_.ended_gils)) {
    const size_t count = (ended_processes_.size() + 1) / 2;
    least_first(ended_processes_, count, interval_ns_);
    fold_some(ended_processes_.begin(), ended_processes_.begin() + static_cast<ptrdiff_t>(count));
  }
}

// The sum that an ended process is to be part of.
Process& Model::program_of(const Process& process) {
  const ProcessFacts& facts = tables_->facts(process.facts);
  const Thread& first = *process.threads.front();
  const std::string_view comm = tables_->text(first.comm);
  std::array<std::string, 4> key = {std::string(comm.empty() ? facts.comm : comm), facts.python,
                                    facts.build_id};
  if (limits_.by_user && process.user) key[3] = std::to_string(*process.user);
  if (programs_.size() >= limits_.programs && !programs_.contains(key)) key = {};
  Process*& found = programs_[key];
  if (found) return *found;
  found = &add_process();
  found->ended = true;
  found->gil_enabled = process.gil_enabled;
  found->from_start = true;
  if (!key[1].empty()) {  // else it is several programs
    found->facts = process.facts;
    found->comm = first.comm;
    if (limits_.by_user) found->user = process.user;
  }
  return *found;
}

void Model::fold(Process& process, Process& into) {
  Thread& rest = rest_of(into);
  for (const Thread* thread : process.threads) add_to(rest, *thread);
  if (process.rest && process.rest->folded != 0) add_to(rest, *process.rest);
  for (const auto& gil : process.gils) {
    Gil& sum = into.gils.empty() ? add_gil(into) : *into.gils.front();
    sum.absorb(*gil, rest);
  }
  for (const WaitSnapshot& wait : process.longest_waits) keep_longest(into.longest_waits, wait);
  for (const WaitSnapshot& wait : process.recent_waits) keep_longest(into.recent_waits, wait);
  if (has_intervals_) folds_.emplace_back(process.number, into.number);
  into.folded++;
  into.gil_events += process.gil_events;
  into.violations += process.violations;
  into.from_start = into.from_start && process.from_start;
  into.lost = into.lost || process.lost;
  into.was_light = into.was_light || process.was_light;
  into.light_ns += process.light_ns;
  if (into.gil_enabled != process.gil_enabled) {
    const bool on = into.gil_enabled == true || process.gil_enabled == true;
    into.gil_enabled = on ? std::optional(true) : std::nullopt;
  }
}

bool Gil::fold_rows(std::vector<Row>& rows, const Thread& rest) {
  const auto is_gone = [](const Row& r) { return r.waiter->gone || (r.holder && r.holder->gone); };
  if (std::none_of(rows.begin(), rows.end(), is_gone)) return false;
  std::unordered_map<uint64_t, size_t> places;
  size_t kept = 0;
  for (Row row : rows) {
    if (row.waiter->gone) row.waiter = &rest;
    if (row.holder && row.holder->gone) row.holder = &rest;
    row.key = key_of(*row.waiter, row.holder);
    const auto [place, first] = places.try_emplace(row.key, kept);
    if (first) {
      rows[kept++] = row;
    } else {
      add_to(rows[place->second].parts, row.parts);
    }
  }
  rows.resize(kept);
  return true;
}

void Gil::fold_gone(Thread& rest) {
  if (last_holder && last_holder->gone) last_holder = &rest;
  if (fold_rows(rows_, rest)) rehash(slots_.size());
  if (assumed) fold_rows(assumed->rows, rest);
}

void Gil::absorb(const Gil& ended, Thread& rest) {
  if (folded == 0) first_ns = ended.first_ns;
  first_ns = std::min(first_ns, ended.first_ns);
  last_ns = std::max(last_ns, ended.last_ns);
  folded_life_ns += ended.life_ns();
  folded++;
  add_to(ledger, ended.whole_ledger());
  acquires += ended.acquires;
  contended += ended.contended;
  forced_releases += ended.forced_releases;
  voluntary_releases += ended.voluntary_releases;
  max_waiters = std::max(max_waiters, ended.max_waiters);
  recent_max_waiters = std::max(recent_max_waiters, ended.recent_max_waiters);
  handoff.add(ended.handoff);
  handoff_wakeup_ns += ended.handoff_wakeup_ns;
  handoff_runqueue_ns += ended.handoff_runqueue_ns;
  handoff_lock_ns += ended.handoff_lock_ns;
  for (const Row& r : ended.rows_) add_to(row(rest, r.holder ? &rest : nullptr).parts, r.parts);
}

// -------------------------------------------------------------------------------------------------

bool Model::is_reported(const Process& process) const {
  if (process.folded != 0) return true;
  if (process.gone || tables_->facts(process.facts).python.empty()) return false;
  if (process.threads.empty()) return false;  // told of when it was gone
  // A child that was forked to execute something: a moment of its parent's.
  return !(process.forked && process.gil_events == 0 && process.left);
}

void Model::forget_unused(EventTables& tables) const {
  EventTables::Used used = tables.none_used();
  const auto use = [](std::vector<bool>& list, uint32_t id) {
    if (id < list.size()) list[id] = true;
  };
  for (const Thread& thread : threads_) use(used.texts, thread.comm);
  for (const Process& process : processes_) {
    use(used.texts, process.comm);
    use(used.facts, process.facts);
  }
  tables.forget(used, last_ns_ - std::min(last_ns_, kOrder_ns));
}

}  // namespace giltop
