#include "synthetic.h"

#include <array>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

namespace giltop::bench {
namespace {

constexpr uint32_t kTgid = 4000;
constexpr uint64_t kGil = 0x7f3c5a8d2e40;
constexpr uint64_t kStart_ns = 3'600'000'000'000;  // an hour after boot

// Threads of one process that share a GIL and two CPUs; each step is one record.
class Process {
 public:
  Process(uint64_t records, uint64_t part, const RecordSink& sink)
      : wanted_(records), part_(part), sink_(sink) {}
  ~Process() {
    flush();
    sink_(std::move(records_));
  }

  bool full() const { return passed_ + records_.count() >= wanted_; }

  // A time around `typical_ns`, as measured: mostly a hundredth off, now and then a cache miss or
  // an interrupt more.
  void pass(uint64_t typical_ns) {
    const uint64_t dice = random_();
    uint64_t ns = typical_ns + dice % (typical_ns / 50 + 2);
    if (dice >> 32 & 0xf) {
      // as usual
    } else if (dice >> 36 & 0xf) {
      ns += dice >> 40 & 0xff;
    } else {
      ns += dice >> 40 & 0x3fff;
    }
    now_ns_ += ns;
  }
  bool one_in(uint32_t n) { return random_() % n == 0; }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

  void gil(uint32_t thread, gt_kind kind) {
    gt_gil record{};
    record.h = header(kind, thread, cpu_of_[thread]);
    record.gil = kGil;
    put(record);
  }
  void wakeup(uint32_t thread, uint32_t waker) {
    gt_wakeup record{};
    record.h = header(GT_WAKEUP, thread, cpu_of_[waker]);
    put(record);
  }
  // `out` or `in` is kIdle: the idle task, which is not traced.
  void context_switch(uint16_t cpu, uint32_t out, uint32_t in, gt_task_state state) {
    gt_switch record{};
    record.h = header(GT_SWITCH, out, cpu);
    record.h.state = static_cast<uint8_t>(state);
    record.h.extra = tid(in);
    record.next_tgid = in == kIdle ? 0 : kTgid;
    if (out != kIdle) record.prev_ran_ns = static_cast<uint32_t>(now_ns_ - on_cpu_ns_[cpu]);
    on_cpu_ns_[cpu] = now_ns_;
    if (one_in(2048)) uncharged_ns_[cpu] += below(100'000);
    record.uncharged_ns = uncharged_ns_[cpu];
    if (in != kIdle) cpu_of_[in] = cpu;
    put(record);
  }
  uint16_t cpu(uint32_t thread) const { return cpu_of_[thread]; }

  static constexpr uint32_t kThreads = 4;
  static constexpr uint32_t kIdle = kThreads;

 private:
  // One record back: it may change places with the next.
  struct Pending {
    uint64_t ts_ns;
    uint16_t cpu;
    size_t size;
    std::array<std::byte, sizeof(gt_switch)> bytes;
  };

  static uint32_t tid(uint32_t thread) { return thread == kIdle ? 0 : kTgid + 1 + thread; }

  gt_header header(gt_kind kind, uint32_t thread, uint16_t cpu) const {
    gt_header h{};
    h.ts_ns = now_ns_;
    h.tgid = thread == kIdle ? 0 : kTgid;
    h.tid = tid(thread);
    h.cpu = cpu;
    h.kind = static_cast<uint8_t>(kind);
    return h;
  }

  // The CPUs race for places in the ring.
  template <typename Record>
  void put(const Record& record) {
    const gt_header& h = record.h;
    if (last_ && last_->cpu != h.cpu && h.ts_ns - last_->ts_ns < kDisorder_ns && one_in(4)) {
      records_.add(record);
      return;
    }
    flush();
    last_.emplace(Pending{h.ts_ns, h.cpu, sizeof(record), {}});
    std::memcpy(last_->bytes.data(), &record, sizeof(record));
  }
  void flush() {
    if (!last_) return;
    records_.add(std::span<const std::byte>(last_->bytes.data(), last_->size));
    last_.reset();
    if (records_.count() < part_) return;
    passed_ += records_.count();
    sink_(std::exchange(records_, {}));
  }

  const uint64_t wanted_, part_;
  const RecordSink& sink_;
  uint64_t passed_ = 0;
  Records records_;
  std::mt19937_64 random_{20240601};
  uint64_t now_ns_ = kStart_ns;
  std::array<uint16_t, kThreads> cpu_of_{};
  std::array<uint64_t, 2> on_cpu_ns_{};  // when its present task came
  std::array<uint64_t, 2> uncharged_ns_{};
  std::optional<Pending> last_;
};

// `from` let the GIL go; `to`, asleep in take_gil, gets it on the other CPU; `from` wants it back.
void hand_over(Process& p, uint32_t from, uint32_t to, bool forced) {
  const auto other_cpu = static_cast<uint16_t>(1 - p.cpu(from));
  p.gil(from, GT_GIL_RELEASE);
  if (forced) {
    p.pass(500);
    p.gil(from, GT_GIL_FORCED);
  }
  p.pass(900);
  p.wakeup(to, from);
  p.pass(1300);
  p.context_switch(other_cpu, Process::kIdle, to, GT_TASK_RUNNABLE);
  p.pass(700);
  p.gil(to, GT_GIL_ACQUIRE);
  p.pass(200);
  p.gil(from, GT_GIL_WAIT);
  p.pass(1400);
  p.context_switch(p.cpu(from), from, Process::kIdle, GT_TASK_INTERRUPTIBLE);
}

// All but thread 0 wait.
void begin(Process& p, uint32_t threads) {
  p.context_switch(0, Process::kIdle, 0, GT_TASK_RUNNABLE);
  p.pass(1000);
  p.gil(0, GT_GIL_ACQUIRE);
  for (uint32_t thread = 1; thread < threads; thread++) {
    p.pass(1000);
    p.context_switch(1, Process::kIdle, thread, GT_TASK_RUNNABLE);
    p.pass(1000);
    p.gil(thread, GT_GIL_WAIT);
    p.pass(1000);
    p.context_switch(1, thread, Process::kIdle, GT_TASK_INTERRUPTIBLE);
  }
}

}  // namespace

void uncontended_writer(uint64_t count, uint64_t part, const RecordSink& sink) {
  Process p(count, part, sink);
  begin(p, 1);
  while (!p.full()) {
    p.pass(790);
    p.gil(0, GT_GIL_RELEASE);
    p.pass(690);
    if (p.one_in(4096)) {
      p.context_switch(0, 0, Process::kIdle, GT_TASK_RUNNABLE);
      p.pass(30'000);
      p.context_switch(0, Process::kIdle, 0, GT_TASK_RUNNABLE);
      p.pass(690);
    }
    p.gil(0, GT_GIL_ACQUIRE);
  }
}

void four_writers(uint64_t count, uint64_t part, const RecordSink& sink) {
  Process p(count, part, sink);
  begin(p, 4);
  uint32_t holder = 0;
  while (!p.full()) {
    p.pass(790);
    if (p.one_in(4)) {
      const uint32_t next = (holder + 1 + p.below(3)) % 4;
      hand_over(p, holder, next, p.one_in(8));
      holder = next;
      continue;
    }
    p.gil(holder, GT_GIL_RELEASE);
    p.pass(690);
    p.gil(holder, GT_GIL_ACQUIRE);
  }
}

void two_computers(uint64_t count, uint64_t part, const RecordSink& sink) {
  Process p(count, part, sink);
  begin(p, 2);
  uint32_t holder = 0;
  while (!p.full()) {
    const uint32_t waiter = 1 - holder;
    const auto waiter_cpu = static_cast<uint16_t>(1 - p.cpu(holder));
    // The switch interval is over: the waiter asks the holder to let go, and waits on.
    p.pass(5'000'000);
    p.context_switch(waiter_cpu, Process::kIdle, waiter, GT_TASK_RUNNABLE);
    p.pass(2500);
    p.gil(waiter, GT_GIL_WAIT);
    p.pass(1500);
    p.context_switch(waiter_cpu, waiter, Process::kIdle, GT_TASK_INTERRUPTIBLE);
    p.pass(20'000);
    hand_over(p, holder, waiter, true);
    holder = waiter;
  }
}

}  // namespace giltop::bench
