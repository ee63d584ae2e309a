// A program that starts a process for some hundred short threads, again and again.
#include <cstdio>
#include <utility>

#include "synthetic.h"

namespace giltop::bench {
namespace {

constexpr uint32_t kParent = 3000;
constexpr uint32_t kFirstTid = 4000, kTids = 30'000;  // then the ids are given again
constexpr uint64_t kGil = 0x7f3c5a8d2e40;
constexpr uint64_t kStart_ns = 3'600'000'000'000;
constexpr unsigned kThreads = 64;  // of a process, its first aside
constexpr unsigned kCycles = 16;   // release and acquire, of a thread

class BriefThreads {
 public:
  BriefThreads(uint64_t wanted, uint64_t part, const RecordSink& sink)
      : wanted_(wanted), part_(part), sink_(sink) {}

  void run() {
    execs(kParent);
    while (count_ < wanted_) process();
    sink_(std::move(records_));
  }

 private:
  uint32_t next_tid() { return kFirstTid + given_++ % kTids; }

  template <typename Record>
  Record record(gt_kind kind, uint32_t tgid, uint32_t tid) {
    Record r{};
    r.h.ts_ns = now_ns_ += 5000;
    r.h.tgid = tgid;
    r.h.tid = tid;
    r.h.kind = static_cast<uint8_t>(kind);
    return r;
  }
  template <typename Record>
  void put(const Record& r) {
    records_.add(r);
    count_++;
    if (records_.count() < part_) return;
    sink_(std::exchange(records_, {}));
  }

  void execs(uint32_t tgid) {
    auto exec = record<gt_exec>(GT_EXEC, tgid, tgid);
    exec.h.extra = tgid;
    std::snprintf(exec.comm, sizeof(exec.comm), "python3");
    put(exec);
  }
  void forks(uint32_t parent, uint32_t tgid, uint32_t tid) {
    auto fork = record<gt_fork>(GT_FORK, tgid, tid);
    fork.h.extra = parent;
    fork.parent_tgid = parent;
    std::snprintf(fork.comm, sizeof(fork.comm), "Thread-%u", given_);
    put(fork);
  }
  void gil(gt_kind kind, uint32_t tgid, uint32_t tid) {
    auto event = record<gt_gil>(kind, tgid, tid);
    event.gil = kGil;
    put(event);
  }
  void switches(uint32_t tgid, uint32_t out, uint32_t in, gt_task_state state) {
    auto change = record<gt_switch>(GT_SWITCH, out == 0 ? 0 : tgid, out);
    change.h.state = static_cast<uint8_t>(state);
    change.h.extra = in;
    change.next_tgid = in == 0 ? 0 : tgid;
    put(change);
  }
  void exits(uint32_t tgid, uint32_t tid) {
    auto exit = record<gt_exit>(GT_EXIT, tgid, tid);
    exit.h.state = tgid == tid ? GT_LAST : 0;
    std::snprintf(exit.comm, sizeof(exit.comm), "Thread-%u", given_);
    put(exit);
    switches(tgid, tid, 0, GT_TASK_DEAD);
  }

  void process() {
    const uint32_t tgid = next_tid();
    forks(kParent, tgid, tgid);
    switches(tgid, 0, tgid, GT_TASK_RUNNABLE);
    execs(tgid);
    gil(GT_GIL_ACQUIRE, tgid, tgid);
    for (unsigned i = 0; i < kThreads; i++) thread(tgid);
    gil(GT_GIL_RELEASE, tgid, tgid);
    exits(tgid, tgid);
  }
  void thread(uint32_t tgid) {
    const uint32_t tid = next_tid();
    forks(tgid, tgid, tid);
    switches(tgid, 0, tid, GT_TASK_RUNNABLE);
    gil(GT_GIL_WAIT, tgid, tid);
    switches(tgid, tid, 0, GT_TASK_INTERRUPTIBLE);
    gil(GT_GIL_RELEASE, tgid, tgid);
    put(record<gt_wakeup>(GT_WAKEUP, tgid, tid));
    switches(tgid, 0, tid, GT_TASK_RUNNABLE);
    for (unsigned i = 0; i < kCycles; i++) {
      gil(GT_GIL_ACQUIRE, tgid, tid);
      gil(GT_GIL_RELEASE, tgid, tid);
    }
    exits(tgid, tid);
    gil(GT_GIL_ACQUIRE, tgid, tgid);
  }

  const uint64_t wanted_, part_;
  const RecordSink& sink_;
  Records records_;
  uint64_t count_ = 0;
  uint64_t now_ns_ = kStart_ns;
  uint32_t given_ = 0;
};

}  // namespace

void brief_threads(uint64_t count, uint64_t part, const RecordSink& sink) {
  BriefThreads(count, part, sink).run();
}

}  // namespace giltop::bench
