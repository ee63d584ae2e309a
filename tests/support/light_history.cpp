#include "support/light_history.h"

#include <algorithm>
#include <map>
#include <random>

#include "model/model.h"

namespace giltop::testing {
namespace {

class Translation {
 public:
  Translation(const EventTables& tables, uint64_t seed, uint64_t sample_ns, bool changes)
      : model_(tables), rng_(seed), sample_ns_(sample_ns), changes_(changes) {}

  void take(const Event& event) {
    sample_until(event.ts_ns);
    const Thread* const before = thread_of(event);
    const bool waited = before && before->gil_state == GilState::waiting;
    Event out = event;
    const bool light = !before || is_light(*before->process);
    if (event.kind == EventKind::gil_wait && light)
      if (const Thread* holder = before ? holder_of(*before->process, event.value) : nullptr)
        out.other = holder->tid;
    model_.apply(event);
    const Thread* const thread = thread_of(event);
    if (event.kind == EventKind::switch_out && thread && light)
      out.state = static_cast<uint8_t>(out.state | sight_of(*thread));
    if (thread) begin(*thread->process, event, thread);
    const bool only_exact =
        ((event.kind == EventKind::gil_acquire || event.kind == EventKind::gil_release) &&
         !waited) ||
        event.kind == EventKind::gil_forced;
    if (!only_exact || !light) events_.push_back(out);
    if (thread && event.kind == EventKind::exec) begin(*thread->process, event, thread);
    if (!thread) return;
    number_gils(*thread->process, event.ts_ns);
    if (!changes_ || rng_() % 30 != 0 || !begun_.contains(thread->process)) return;
    const bool now = !is_light(*thread->process);
    light_[thread->process] = now;
    add(EventKind::mode, thread->process->tgid, 0, event.ts_ns, now);
  }

  std::vector<Event> events() && { return std::move(events_); }

 private:
  bool is_light(const Process& process) const {
    const auto found = light_.find(&process);
    return found == light_.end() || found->second;
  }

  const Thread* thread_of(const Event& event) const {
    for (auto t = model_.threads().rbegin(); t != model_.threads().rend(); ++t)
      if (t->tid == event.tid && !t->ended && t->process->tgid == event.tgid) return &*t;
    return nullptr;
  }

  static const Thread* holder_of(const Process& process, uint64_t address) {
    for (const auto& gil : process.gils)
      if (gil->address == address && gil->known) return gil->holder;
    return nullptr;
  }

  uint8_t sight_of(const Thread& thread) {
    if (thread.gil_state == GilState::unknown) return 0;
    if (thread.gil_state != GilState::holding) return 0x08;
    return static_cast<uint8_t>(0x18 | slot_of(*thread.gil) << 5);
  }

  size_t slot_of(const Gil& gil) {
    auto& known = slots_[gil.process];
    const auto found = std::find(known.begin(), known.end(), gil.address);
    if (found != known.end()) return static_cast<size_t>(found - known.begin());
    known.push_back(gil.address);
    add(EventKind::light_gil, gil.process->tgid, 0, now_ns_, static_cast<uint8_t>(known.size() - 1))
        .value = gil.address;
    return known.size() - 1;
  }

  void number_gils(const Process& process, uint64_t ts_ns) {
    now_ns_ = ts_ns;
    for (const auto& gil : process.gils) (void)slot_of(*gil);
  }

  // A process that was not heard of. A forked one is what its parent was.
  void begin(const Process& process, const Event& event, const Thread* thread) {
    if (begun_.contains(&process)) return;
    // Of an exec the mode is told behind it, as the process begins with it.
    if (event.kind == EventKind::exec &&
        (events_.empty() || events_.back().kind != event.kind ||
         events_.back().tid != thread->tid || events_.back().ts_ns != event.ts_ns))
      return;
    begun_[&process] = true;
    if (process.forked && event.kind == EventKind::fork)
      for (const Process& parent : model_.processes())
        if (!parent.ended && parent.tgid == event.value >> 32) light_[&process] = is_light(parent);
    if (!process.forked) add(EventKind::mode, process.tgid, thread->tid, event.ts_ns, 1);
  }

  void sample_until(uint64_t ts_ns) {
    std::vector<Event> samples;
    for (const Process& process : model_.processes()) {
      for (const Thread* thread : process.alive) {
        if (!is_light(process)) continue;
        if (thread->cpu_state != CpuState::running || ts_ns <= last_ns_ + 1) continue;
        std::poisson_distribution<uint64_t> count(static_cast<double>(ts_ns - last_ns_) /
                                                  static_cast<double>(sample_ns_));
        for (uint64_t i = count(rng_); i > 0; i--) {
          Event& sample = samples.emplace_back();
          sample.kind = EventKind::sample;
          sample.ts_ns = last_ns_ + rng_() % (ts_ns - last_ns_);
          sample.tgid = process.tgid;
          sample.tid = thread->tid;
          sample.state = sight_of(*thread);
        }
      }
    }
    std::sort(samples.begin(), samples.end(),
              [](const Event& a, const Event& b) { return a.ts_ns < b.ts_ns; });
    events_.insert(events_.end(), samples.begin(), samples.end());
    last_ns_ = ts_ns;
  }

  Event& add(EventKind kind, uint32_t tgid, uint32_t tid, uint64_t ts_ns, uint8_t state) {
    Event& event = events_.emplace_back();
    event.kind = kind;
    event.ts_ns = ts_ns;
    event.tgid = tgid;
    event.tid = tid;
    event.state = state;
    return event;
  }

  Model model_;
  std::mt19937_64 rng_;
  uint64_t sample_ns_;
  std::vector<Event> events_;
  bool changes_;
  std::map<const Process*, bool> begun_, light_;
  std::map<const Process*, std::vector<uint64_t>> slots_;
  uint64_t last_ns_ = 0, now_ns_ = 0;
};

}  // namespace

std::vector<Event> as_light(const EventTables& tables, const std::vector<Event>& exact,
                            uint64_t seed, uint64_t sample_ns, bool changes) {
  Translation translation(tables, seed, sample_ns, changes);
  for (const Event& event : exact) translation.take(event);
  return std::move(translation).events();
}

}  // namespace giltop::testing
