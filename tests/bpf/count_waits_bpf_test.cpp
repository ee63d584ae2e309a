// Waits and hand-offs that the kernel side counts in light mode, against the events of the same
// run.
#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>
#include <set>

#include "giltop/abi.h"
#include "model/model.h"
#include "probe/session.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

using ThreadId = std::pair<uint32_t, uint32_t>;  // tgid, tid; tid 0: its hand-offs
struct Waits {
  std::map<uint32_t, uint64_t> buckets;
  uint64_t contended = 0, sum_ns = 0, min_ns = ~uint64_t{0}, max_ns = 0;
};
struct BothSides {
  std::map<ThreadId, Waits> events, counted;
  uint64_t moved = 0, lost = 0, not_counted = 0;
  size_t left = 0;  // in the kernel, after all that ended was read
};

void add_counted(const CountedWaits& read, std::map<ThreadId, std::map<WaiterId, Waits>>& last) {
  for (const Waiter& waiter : read.waiters) last[{waiter.id.tgid, waiter.id.tid}][waiter.id] = {};
  for (const WaitCount& count : read.counts) {
    EXPECT_EQ(count.handoffs, count.waiter.tid == 0);
    Waits& waits = last[{count.waiter.tgid, count.waiter.tid}][count.waiter];
    waits.contended += count.count;
    if (count.bucket == GT_NO_BUCKET) continue;
    waits.buckets[count.bucket] += count.count;
    waits.sum_ns += count.sum_ns;
    waits.min_ns = std::min(waits.min_ns, count.min_ns);
    waits.max_ns = std::max(waits.max_ns, count.max_ns);
  }
}

void merge(Waits& into, const Waits& more) {
  for (const auto& [bucket, count] : more.buckets) into.buckets[bucket] += count;
  into.contended += more.contended;
  into.sum_ns += more.sum_ns;
  into.min_ns = std::min(into.min_ns, more.min_ns);
  into.max_ns = std::max(into.max_ns, more.max_ns);
}

Waits waits_of(const Histogram& histogram, uint64_t contended) {
  Waits waits;
  histogram.for_each([&](uint64_t lower, uint64_t, uint64_t count) {
    waits.buckets[gt_bucket_of(lower)] += count;
  });
  waits.contended = contended;
  waits.sum_ns = histogram.sum_ns();
  if (histogram.count() != 0) waits.min_ns = histogram.min_ns();
  waits.max_ns = histogram.max_ns();
  return waits;
}

// One session that has both sides: from begin(), with a process that is ready, to end().
class Watch {
 public:
  Watch(uint32_t room, bool handoffs) : room_(room), handoffs_(handoffs) {}

  void begin(uint32_t pid) {
    pid_ = pid;
    SessionOptions options;
    options.mode = Mode::light;
    options.ring_bytes = 64 << 20;
    options.counting = WaitCounting{
        .by_thread = true, .handoffs = handoffs_, .instead_of_events = false, .room = room_};
    auto made = Session::make(options, tables_);
    ASSERT_TRUE(made) << made.error().message();
    session_ = std::move(*made);
    ASSERT_TRUE(session_->attach_process(pid));
    ASSERT_TRUE(session_->track(pid));
    ASSERT_TRUE(session_->arm());
    // What is read at attach has one time; from then on it takes two CPUs to give it twice.
    for (int i = 0; i < 3; i++) poll(0);
    moved_ = session_->moved();
  }

  void poll(int timeout_ms) {
    session_->poll(timeout_ms, [this](const Event& event) { apply(event); });
  }
  void read() {
    const auto counted = session_->counted();
    ASSERT_TRUE(counted) << counted.error().message();
    both_.not_counted = counted->not_counted;
    add_counted(*counted, last_);
  }
  bool ended() const { return ended_; }

  BothSides end() {
    session_->stop([this](const Event& event) { apply(event); });
    read();
    const auto left = session_->counted();
    both_.left = left ? left->waiters.size() + left->counts.size() : ~size_t{0};
    both_.moved = session_->moved() - moved_;
    both_.lost = model_.lost();
    for (const auto& [thread, waiters] : last_)
      for (const auto& [id, waits] : waiters) merge(both_.counted[thread], waits);
    for (const Thread& thread : model_.threads())
      if (!thread.gone && thread.contended != 0)
        merge(both_.events[{thread.process->tgid, thread.tid}],
              waits_of(thread.wait, thread.contended));
    for (const auto& process : model_.processes())
      for (const auto& gil : process.gils)
        if (handoffs_ && gil->handoff.count() != 0)
          merge(both_.events[{process.tgid, 0}], waits_of(gil->handoff, gil->handoff.count()));
    std::erase_if(both_.counted, [](const auto& each) { return each.second.contended == 0; });
    return both_;
  }

 private:
  void apply(const Event& event) {
    model_.apply(event);
    ended_ |= event.kind == EventKind::exit && event.tgid == pid_ && event.state == 1;
  }

  uint32_t room_;
  bool handoffs_;
  uint32_t pid_ = 0;
  EventTables tables_;
  Model model_{tables_, {.ended_threads = 1 << 20}};
  std::unique_ptr<Session> session_;
  uint64_t moved_ = 0;
  bool ended_ = false;
  std::map<ThreadId, std::map<WaiterId, Waits>> last_;
  BothSides both_;
};

class CountWaits : public Live {
 protected:
  uint32_t room_ = WaitCounting().room;

  // Watches `command`, which waits for a line on stdin after it said "ready", to its end.
  void watch(const std::vector<std::string>& command, BothSides& both) {
    Watch watch(room_, true);
    Program target(command);
    ASSERT_TRUE(target.wait_for("ready"));
    watch.begin(static_cast<uint32_t>(target.pid()));
    if (HasFatalFailure()) return;
    target.write_line("go");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!watch.ended() && std::chrono::steady_clock::now() < deadline) {
      watch.poll(50);
      watch.read();
    }
    ASSERT_TRUE(watch.ended());
    both = watch.end();
    EXPECT_EQ(target.finish().status, 0);
  }

  // Bucket by bucket, thread by thread, and of hand-offs process by process. Times that were those
  // of other events were moved by a ns for the model: so many waits may be one bucket off there,
  // and not one of a hundred.
  static void expect_equal(const BothSides& both) {
    EXPECT_EQ(both.lost, 0u);
    EXPECT_EQ(both.not_counted, 0u);
    ASSERT_EQ(both.counted.size(), both.events.size());
    uint64_t different = 0;
    for (const auto& [thread, events] : both.events) {
      ASSERT_TRUE(both.counted.contains(thread)) << thread.second;
      const Waits& counted = both.counted.at(thread);
      EXPECT_EQ(counted.contended, events.contended) << thread.second;
      uint64_t counted_sum = 0, events_sum = 0;
      for (const auto& [bucket, count] : counted.buckets) {
        const auto there = events.buckets.find(bucket);
        const uint64_t others = there == events.buckets.end() ? 0 : there->second;
        different += count > others ? count - others : 0;
        counted_sum += count;
      }
      for (const auto& [bucket, count] : events.buckets) events_sum += count;
      EXPECT_EQ(counted_sum, events_sum) << thread.second;
      const auto off = [&](uint64_t a, uint64_t b) { return a > b ? a - b : b - a; };
      EXPECT_LE(off(counted.sum_ns, events.sum_ns), both.moved) << thread.second;
      EXPECT_LE(off(counted.min_ns, events.min_ns), std::min<uint64_t>(both.moved, 100));
      EXPECT_LE(off(counted.max_ns, events.max_ns), std::min<uint64_t>(both.moved, 100));
    }
    EXPECT_LE(different, std::min(both.moved, waits_of(both.events) / 100 + 1));
  }

  static uint64_t sum_of(const std::map<ThreadId, Waits>& side, bool handoffs) {
    uint64_t sum = 0;
    for (const auto& [thread, waits] : side)
      if ((thread.second == 0) == handoffs) sum += waits.contended;
    return sum;
  }
  static uint64_t waits_of(const std::map<ThreadId, Waits>& side) { return sum_of(side, false); }
  static uint64_t handoffs_of(const std::map<ThreadId, Waits>& side) { return sum_of(side, true); }
};

TEST_F(CountWaits, TheKernelCountsWhatTheEventsTell) {
  const std::vector<std::vector<std::string>> workloads = {
      {"turns"},
      {"convoy"},
      {"writers", "2", "1"},
      {"writers", "4", "1"},
      {"pingpong"},
      {"iomix"},
      {"asleep"},
      {"shortthreads"},
      {"forks"},
  };
  for (const auto& arguments : workloads) {
    SCOPED_TRACE(arguments[0]);
    std::vector<std::string> command = {python(), workload()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"--scale", "0.5", "--ready"});
    BothSides both;
    watch(command, both);
    if (HasFatalFailure()) return;
    EXPECT_GT(waits_of(both.events), 5u);
    EXPECT_GT(handoffs_of(both.events), 3u);
    std::cout << arguments[0] << ": " << waits_of(both.events) << " waits, "
              << handoffs_of(both.events) << " hand-offs, " << both.moved << " events moved\n";
    expect_equal(both);
  }
}

// This process's descriptor of the map of that name; -1: it has none.
int map_of(const std::string& name) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    bpf_map_info info{};
    uint32_t size = sizeof(info);
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) == "anon_inode:bpf-map" &&
        bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.name == name)
      return fd;
  }
  return -1;
}

// Programs that a Python of the whole host starts are none of its images.
TEST_F(CountWaits, ImagesAreOfThoseThatAreTraced) {
  EventTables tables;
  SessionOptions options;
  options.mode = Mode::light;
  options.host_wide = true;
  options.counting = WaitCounting();
  auto made = Session::make(options, tables);
  ASSERT_TRUE(made) << made.error().message();
  Session& session = **made;
  session.attach_all();
  ASSERT_TRUE(session.arm());
  const auto poll = [&] {
    for (int i = 0; i < 5; i++) session.poll(10, [](const Event&) {});
  };
  Program target({python(), "-c",
                  "import os\n"
                  "print('started', flush=True)\n"
                  "input()\n"
                  "for _ in range(400):\n"
                  "    os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)\n"
                  "print('ready', flush=True)\n"
                  "input()\n"});
  ASSERT_TRUE(target.wait_for("started"));
  poll();  // a Python that is new to it is looked at
  target.write_line("go");
  ASSERT_TRUE(target.wait_for("ready"));
  poll();
  const int images = map_of("images");
  ASSERT_GE(images, 0);
  std::set<uint32_t> noted;
  for (uint32_t tgid = 0, *last = nullptr; bpf_map_get_next_key(images, last, &tgid) == 0;
       last = &tgid)
    noted.insert(tgid);
  EXPECT_TRUE(noted.contains(static_cast<uint32_t>(target.pid())));
  EXPECT_LT(noted.size(), 200u) << "the other Pythons of this host are among them";
  target.write_line("");
  EXPECT_EQ(target.finish().status, 0);
}

TEST_F(CountWaits, WhatFindsNoRoomIsCounted) {
  // Also where room comes and goes while threads wait.
  for (const auto& [name, room] : {std::pair("convoy", 8), {"shortthreads", 1}}) {
    SCOPED_TRACE(name);
    BothSides both;
    room_ = static_cast<uint32_t>(room);
    watch({python(), workload(), name, "--ready"}, both);
    if (HasFatalFailure()) return;
    EXPECT_EQ(both.lost, 0u);
    EXPECT_GT(both.not_counted, 10u);
    EXPECT_EQ(waits_of(both.counted) + both.not_counted, waits_of(both.events));
    EXPECT_LE(handoffs_of(both.counted), waits_of(both.counted));
    EXPECT_LE(handoffs_of(both.counted), handoffs_of(both.events));
    EXPECT_LE(handoffs_of(both.events) - handoffs_of(both.counted), both.not_counted);
  }
}

// Threads that do what they are told, step by step (tests/support/gil_double.c), and were there
// before they were watched.
class CountWaitsTold : public CountWaits {
 protected:
  void begin(int threads, int interval_us) {
    start(threads, interval_us);
    if (!HasFatalFailure()) watch_begin();
  }
  void start(int threads, int interval_us) {
    takes_.clear();
    target_.emplace(std::vector<std::string>{GILTOP_DOUBLE, "--told", std::to_string(threads),
                                             std::to_string(interval_us)});
    ASSERT_TRUE(target_->wait_for("ready"));
  }
  void watch_begin(bool handoffs = false) {
    watch_.emplace(room_, handoffs);
    watch_->begin(static_cast<uint32_t>(target_->pid()));
  }
  // `to` waits for `from`, and then for nobody any more.
  void hand_over(int from, int to) {
    tell(from, "take", "took");
    tell(to, "take", "waits");
    tell(from, "drop", "dropped");
    hear(to, "took");
    tell(to, "drop", "dropped");
  }
  // Tells thread `t`, and waits until it says that.
  void tell(int t, const std::string& verb, const std::string& says) {
    if (verb == "take") takes_[t]++;
    target_->write_line(std::to_string(t) + " " + verb);
    hear(t, says);
  }
  void hear(int t, const std::string& says) {
    std::string line = std::to_string(t) + " " + says;
    if (says != "ended") line += " " + std::to_string(takes_[t]);
    ASSERT_TRUE(target_->wait_for("\n" + line + "\n")) << line;
    if (watch_) watch_->poll(0);
  }
  void end(BothSides& both) {
    target_->close_stdin();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!watch_->ended() && std::chrono::steady_clock::now() < deadline) watch_->poll(50);
    ASSERT_TRUE(watch_->ended());
    both = watch_->end();
    EXPECT_EQ(target_->finish().status, 0);
    EXPECT_EQ(both.lost, 0u);
    EXPECT_EQ(waits_of(both.counted) + both.not_counted, waits_of(both.events));
  }

  static constexpr int kLong_us = 100'000'000;  // nobody asks for the GIL
  std::optional<Program> target_;
  std::optional<Watch> watch_;
  std::map<int, int> takes_;
};

// What ended is removed when it was read, and makes room.
TEST_F(CountWaitsTold, WhatEndedMakesRoom) {
  constexpr int kThreads = 25;
  room_ = 2;
  begin(1 + kThreads, kLong_us);
  for (int t = 1; t <= kThreads && !HasFatalFailure(); t++) {
    tell(t, "nap", "napped");  // of who was never seen, the model takes no length
    hand_over(0, t);
    tell(t, "end", "ended");
    watch_->read();
  }
  BothSides both;
  end(both);
  if (HasFatalFailure()) return;
  EXPECT_EQ(both.events.size(), size_t{kThreads});
  EXPECT_EQ(both.left, 0u);
  expect_equal(both);
}

// Who waits already when the watching begins, behind one another: each takes the GIL from the one
// before, however often it has to sleep for the mutex until then.
TEST_F(CountWaitsTold, WaitsThatBeganBeforeAreWaits) {
  constexpr int kWaiters = 24;
  start(1 + kWaiters, kLong_us);
  if (HasFatalFailure()) return;
  tell(0, "take", "took");
  for (int t = 1; t <= kWaiters && !HasFatalFailure(); t++) tell(t, "take", "waits");
  if (HasFatalFailure()) return;
  watch_begin(true);
  for (int t = 1; t <= kWaiters; t++) target_->write_line(std::to_string(t) + " drop");
  tell(0, "drop", "dropped");
  for (int t = 1; t <= kWaiters && !HasFatalFailure(); t++) hear(t, "dropped");
  if (HasFatalFailure()) return;
  BothSides both;
  end(both);
  if (HasFatalFailure()) return;
  EXPECT_EQ(both.not_counted, 0u);
  for (const auto& side : {both.events, both.counted}) {
    EXPECT_EQ(waits_of(side), uint64_t{kWaiters});
    EXPECT_EQ(handoffs_of(side), uint64_t{kWaiters});
    for (const auto& [thread, waits] : side) {
      EXPECT_EQ(waits.buckets.empty(), thread.second != 0) << "no beginning is known";
    }
  }
}

// There is room for another thread by the time that the first wait of this one is over.
TEST_F(CountWaitsTold, AFirstWaitThatFoundNoRoomIsCountedAsThat) {
  for (const bool steps : {false, true}) {
    SCOPED_TRACE(steps ? "and room for the rest of it" : "it sleeps once");
    room_ = 1;
    begin(3, steps ? 1000 : kLong_us);
    hand_over(0, 1);  // has the room
    tell(0, "take", "took");
    tell(2, "take", "waits");
    if (steps) tell(2, "step", "stepped");
    tell(1, "end", "ended");
    watch_->read();
    if (steps) tell(2, "step", "stepped");
    tell(0, "drop", "dropped");
    hear(2, "took");
    if (HasFatalFailure()) return;
    BothSides both;
    end(both);
    watch_.reset();
    if (HasFatalFailure()) return;
    EXPECT_EQ(both.events.size(), 2u);
    EXPECT_EQ(both.not_counted, steps ? 0u : 1u);
  }
}

}  // namespace
}  // namespace giltop::testing
