// Waits that the kernel side counts in light mode, against the events of the same run.
#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>

#include "giltop/abi.h"
#include "model/model.h"
#include "probe/session.h"
#include "support/live.h"

namespace giltop::testing {
namespace {

using ThreadId = std::pair<uint32_t, uint32_t>;  // tgid, tid
struct Waits {
  std::map<uint32_t, uint64_t> buckets;
  uint64_t contended = 0, sum_ns = 0, min_ns = ~uint64_t{0}, max_ns = 0;
};
struct BothSides {
  std::map<ThreadId, Waits> events, counted;
  uint64_t moved = 0, lost = 0, not_counted = 0;
};

void add_counted(const CountedWaits& read, std::map<ThreadId, std::map<WaiterId, Waits>>& last) {
  for (const Waiter& waiter : read.waiters) last[{waiter.id.tgid, waiter.id.tid}][waiter.id] = {};
  for (const WaitCount& count : read.counts) {
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

class CountWaits : public Live {
 protected:
  uint32_t room_ = WaitCounting().room;

  // Watches `command`, which waits for a line on stdin after it said "ready", to its end.
  void watch(const std::vector<std::string>& command, BothSides& both) {
    EventTables tables;
    SessionOptions options;
    options.mode = Mode::light;
    options.ring_bytes = 64 << 20;
    options.counting = WaitCounting{.by_thread = true, .instead_of_events = false, .room = room_};
    ModelLimits limits;
    limits.ended_threads = 1 << 20;
    Model model(tables, limits);
    auto made = Session::make(options, tables);
    ASSERT_TRUE(made) << made.error().message();
    Session& session = **made;
    Program target(command);
    ASSERT_TRUE(target.wait_for("ready"));
    const auto pid = static_cast<uint32_t>(target.pid());
    ASSERT_TRUE(session.attach_process(pid));
    ASSERT_TRUE(session.track(pid));
    ASSERT_TRUE(session.arm());
    bool ended = false;
    const auto apply = [&](const Event& event) {
      model.apply(event);
      ended |= event.kind == EventKind::exit && event.tgid == pid && event.state == 1;
    };
    // What is read at attach has one time; from then on it takes two CPUs to give it twice.
    for (int i = 0; i < 3; i++) session.poll(0, apply);
    const uint64_t moved = session.moved();
    target.write_line("go");
    std::map<ThreadId, std::map<WaiterId, Waits>> last;
    const auto read = [&] {
      const auto counted = session.counted();
      ASSERT_TRUE(counted) << counted.error().message();
      both.not_counted = counted->not_counted;
      add_counted(*counted, last);
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!ended && std::chrono::steady_clock::now() < deadline) {
      session.poll(50, apply);
      read();
    }
    ASSERT_TRUE(ended);
    session.stop(apply);
    read();
    EXPECT_EQ(target.finish().status, 0);
    both.moved = session.moved() - moved;
    both.lost = model.lost();
    for (const auto& [thread, waiters] : last)
      for (const auto& [id, waits] : waiters) merge(both.counted[thread], waits);
    for (const Thread& thread : model.threads()) {
      if (thread.gone || thread.contended == 0) continue;
      Waits waits;
      thread.wait.for_each([&](uint64_t lower, uint64_t, uint64_t count) {
        waits.buckets[gt_bucket_of(lower)] += count;
      });
      waits.contended = thread.contended;
      waits.sum_ns = thread.wait.sum_ns();
      if (thread.wait.count() != 0) waits.min_ns = thread.wait.min_ns();
      waits.max_ns = thread.wait.max_ns();
      merge(both.events[{thread.process->tgid, thread.tid}], waits);
    }
    std::erase_if(both.counted, [](const auto& each) { return each.second.contended == 0; });
  }

  // Bucket by bucket, thread by thread. Times that were those of other events were moved by a ns
  // for the model: so many waits may be one bucket off there, and not one of a hundred.
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

  static uint64_t waits_of(const std::map<ThreadId, Waits>& side) {
    uint64_t sum = 0;
    for (const auto& [thread, waits] : side) sum += waits.contended;
    return sum;
  }
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
    command.push_back("--ready");
    BothSides both;
    watch(command, both);
    if (HasFatalFailure()) return;
    EXPECT_GT(waits_of(both.events), 5u);
    std::cout << arguments[0] << ": " << waits_of(both.events) << " waits, " << both.moved
              << " events moved\n";
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
  }
}

}  // namespace
}  // namespace giltop::testing
