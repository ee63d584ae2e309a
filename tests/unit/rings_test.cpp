// Rings: what the kernel side's emit.bpf.h (compiled for this machine) puts in comes out, by time.
#include "probe/rings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/native_emit.h"

namespace giltop {
namespace {

using ::testing::ElementsAre;

bool sleeps(pid_t tid) {
  std::ifstream stat("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  const size_t name_end = text.rfind(')');
  return name_end + 2 < text.size() && text[name_end + 2] == 'S';
}

// Both sides of the rings of a machine.
class RingsTest : public ::testing::Test {
 protected:
  void begin(size_t bytes, unsigned cpus) { begin(RingSizes::of(bytes, cpus)); }

  void begin(const RingSizes& sizes) {
    running_ = this;
    sizes_ = sizes;
    rings_.assign(sizes.count(), gt_ring{});
    chunks_.assign(size_t{sizes.chunks()} * sizes.chunk_value_bytes(), std::byte{0xa5});
    reader_.emplace(sizes, rings_.data(), chunks_.data());
    native_begin(sizes.count_shift, sizes.ring_shift, sizes.chunk_shift, rings_.data(),
                 chunks_.data());
  }

  static gt_gil* reserve(uint32_t tid) {
    auto* const record = static_cast<gt_gil*>(native_reserve(GT_GIL_ACQUIRE, sizeof(gt_gil)));
    if (record == nullptr) return nullptr;
    record->gil = tid * 1000;
    native_stamp(record, GT_GIL_ACQUIRE, 1, tid);
    return record;
  }

  static bool emit(uint32_t tid) {
    gt_gil* const record = reserve(tid);
    if (record) native_submit(record);
    return record != nullptr;
  }

  template <typename Sink>
  uint64_t drain(Sink&& sink) {
    return reader_->drain(std::atomic_ref(*native_reader_woken()),
                          [&](std::span<const std::byte> record) {
                            ASSERT_EQ(record.size(), sizeof(gt_gil));
                            gt_gil copy;
                            std::memcpy(&copy, record.data(), sizeof(copy));
                            ASSERT_EQ(copy.gil, copy.h.tid * 1000ULL);
                            sink(copy);
                          });
  }

  std::vector<uint32_t> drained() {
    std::vector<uint32_t> tids;
    drain([&](const gt_gil& record) { tids.push_back(record.h.tid); });
    return tids;
  }

  static void emit_each_time() {
    native_interrupt(nullptr);
    ASSERT_TRUE(emit(2));
    native_interrupt(emit_each_time);
  }

  static void emit_and_read() {
    native_interrupt_look(nullptr);
    ASSERT_TRUE(emit(2));
    running_->meanwhile_ = running_->drained();
  }

  static inline RingsTest* running_ = nullptr;
  std::vector<uint32_t> meanwhile_;
  RingSizes sizes_;
  std::vector<gt_ring> rings_;
  std::vector<std::byte> chunks_;
  std::optional<Rings> reader_;
};

TEST(RingSizes, OneByCpuAsLongAsTheyAreLarge) {
  const auto sizes = [](size_t bytes, unsigned cpus) {
    const RingSizes s = RingSizes::of(bytes, cpus);
    EXPECT_EQ(size_t{s.count()} * s.ring_bytes(), bytes);
    EXPECT_EQ(size_t{s.chunks()} << s.chunk_shift, bytes);
    return std::pair(s.count(), s.ring_bytes());
  };
  EXPECT_EQ(sizes(16 << 20, 1), std::pair(1u, 16u << 20));
  EXPECT_EQ(sizes(16 << 20, 2), std::pair(2u, 8u << 20));
  EXPECT_EQ(sizes(16 << 20, 3), std::pair(4u, 4u << 20));
  EXPECT_EQ(sizes(16 << 20, 64), std::pair(4u, 4u << 20));
  EXPECT_EQ(sizes(1 << 30, 12), std::pair(16u, 64u << 20));
  EXPECT_EQ(sizes(1 << 30, 1024), std::pair(16u, 64u << 20));
  EXPECT_EQ(sizes(64 << 10, 2), std::pair(1u, 64u << 10));
  EXPECT_EQ(sizes(4096, 64), std::pair(1u, 4096u));
}

TEST(RingSizes, GrowWithTheCpus) {
  EXPECT_EQ(RingSizes::wanted_bytes(1), 16u << 20);
  EXPECT_EQ(RingSizes::wanted_bytes(4), 16u << 20);
  EXPECT_EQ(RingSizes::wanted_bytes(6), 32u << 20);
  EXPECT_EQ(RingSizes::wanted_bytes(16), 64u << 20);
  EXPECT_EQ(RingSizes::wanted_bytes(512), 64u << 20);
}

TEST_F(RingsTest, GivesWhatItGotInOrder) {
  begin(16 << 20, 2);
  EXPECT_TRUE(drained().empty());
  for (const uint32_t tid : {1, 2, 3}) ASSERT_TRUE(emit(tid));
  EXPECT_THAT(drained(), ElementsAre(1, 2, 3));
  EXPECT_TRUE(drained().empty());
}

TEST_F(RingsTest, PutsWhatSeveralCpusSayInOrder) {
  begin(16 << 20, 4);
  for (const uint32_t tid : {1, 2, 3, 4, 5, 6, 7, 8}) {
    native_on_cpu(tid * 5 % 7);  // ids beyond the number of rings, too
    ASSERT_TRUE(emit(tid));
  }
  EXPECT_THAT(drained(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

// Many times around: records that end behind their chunk's end, and the ring's.
TEST_F(RingsTest, LosesNothingAroundItsEnd) {
  begin(RingSizes{.count_shift = 0, .ring_shift = 12, .chunk_shift = 10});
  uint32_t next = 1, expected = 1;
  for (uint32_t round = 0; round < 1000; round++) {
    for (uint32_t i = 0; i < 1 + round % 90; i++) ASSERT_TRUE(emit(next++));
    drain([&](const gt_gil& record) { ASSERT_EQ(record.h.tid, expected++); });
    ASSERT_EQ(next, expected);
  }
}

TEST_F(RingsTest, CountsWhatFindsItFullAndGoesOn) {
  begin(4096, 1);
  uint32_t took = 0;
  while (emit(took + 1)) took++;
  EXPECT_EQ(took, 4096 / (sizeof(gt_gil) + 8));
  EXPECT_FALSE(emit(999));
  EXPECT_EQ(native_lost(GT_GIL_ACQUIRE), 2u);
  EXPECT_EQ(drained().size(), took);
  EXPECT_TRUE(emit(1000));
  EXPECT_THAT(drained(), ElementsAre(1000));
}

// Preempted in the middle of it.
TEST_F(RingsTest, WaitsForWhatIsBeingWritten) {
  begin(64 << 10, 1);
  gt_gil* const first = reserve(1);
  ASSERT_TRUE(emit(2));
  std::atomic<pid_t> reader_tid = 0;
  std::atomic<bool> done = false;
  std::vector<uint32_t> tids;
  std::thread reader([&] {
    reader_tid = gettid();
    tids = drained();
    done = true;
  });
  while (!done && (reader_tid == 0 || !sleeps(reader_tid))) std::this_thread::yield();
  EXPECT_FALSE(done);
  native_submit(first);
  reader.join();
  EXPECT_THAT(tids, ElementsAre(1, 2));
}

// By what emits, too.
TEST_F(RingsTest, TriesAgainWhenInterrupted) {
  begin(64 << 10, 1);
  native_interrupt([] {
    native_interrupt(nullptr);
    ASSERT_TRUE(emit(2));
  });
  ASSERT_TRUE(emit(1));
  EXPECT_THAT(drained(), ElementsAre(2, 1));
}

// What others emitted meanwhile was read, too: the reader is past the position that was looked at.
TEST_F(RingsTest, TakesAnOldLookForNoFullRing) {
  begin(64 << 10, 1);
  native_interrupt_look(emit_and_read);
  EXPECT_TRUE(emit(1));
  EXPECT_EQ(native_lost(GT_GIL_ACQUIRE), 0u);
  EXPECT_THAT(meanwhile_, ElementsAre(2));
  EXPECT_THAT(drained(), ElementsAre(1));
}

// Held up between its place and the clock, behind it what came meanwhile: that goes by its own
// time.
TEST_F(RingsTest, LetsALateOneKeepNobodyBack) {
  begin(16 << 20, 2);
  native_on_cpu(0);
  auto* const late = static_cast<gt_gil*>(native_reserve(GT_GIL_ACQUIRE, sizeof(gt_gil)));
  for (const uint32_t tid : {1, 2, 3, 4}) {
    native_on_cpu(tid % 2);
    ASSERT_TRUE(emit(tid));
  }
  late->gil = 9000;
  native_stamp(late, GT_GIL_ACQUIRE, 1, 9);
  native_submit(late);
  EXPECT_THAT(drained(), ElementsAre(1, 9, 2, 3, 4));
}

TEST_F(RingsTest, GivesUpWhenItIsInterruptedAgainAndAgain) {
  begin(64 << 10, 1);
  native_interrupt(emit_each_time);
  EXPECT_FALSE(emit(1));
  native_interrupt(nullptr);
  EXPECT_EQ(native_lost(GT_GIL_ACQUIRE), 1u);
  EXPECT_EQ(drained(), std::vector<uint32_t>(GT_RESERVE_TRIES, 2));
}

TEST_F(RingsTest, WakesTheReaderOnceWhenAnEighthIsFull) {
  begin(64 << 10, 1);
  const uint32_t eighth = (8 << 10) / (sizeof(gt_gil) + 8);
  for (uint32_t i = 1; i <= eighth; i++) ASSERT_TRUE(emit(i));
  EXPECT_EQ(native_bells(), 0u);
  for (uint32_t i = 1; i <= 100; i++) ASSERT_TRUE(emit(i));
  EXPECT_EQ(native_bells(), 1u);
  (void)drained();
  for (uint32_t i = 1; i <= eighth; i++) ASSERT_TRUE(emit(i));
  EXPECT_EQ(native_bells(), 1u);
  ASSERT_TRUE(emit(1));
  EXPECT_EQ(native_bells(), 2u);
  gt_gil* const urgent = reserve(1);
  native_submit_now(urgent);
  EXPECT_EQ(native_bells(), 3u);
}

// CPUs that write at once, two to a ring, while it is read: nothing is lost but what is counted,
// each CPU's come in their order, and what comes late is later than the watermark said.
class AllAtOnce : public RingsTest, public ::testing::WithParamInterface<RingSizes> {};

TEST_P(AllAtOnce, NothingIsLostButWhatIsCounted) {
  begin(GetParam());
  constexpr uint32_t kCpus = 4, kEach = 30'000;
  std::atomic<uint32_t> running = kCpus;
  std::array<uint32_t, kCpus> emitted{};
  std::vector<std::thread> producers;
  for (uint32_t cpu = 0; cpu < kCpus; cpu++) {
    producers.emplace_back([&, cpu] {
      native_on_cpu(cpu);
      for (uint32_t i = 0; i < kEach; i++) {
        if (emit(cpu * kEach + i + 1)) {
          emitted[cpu]++;
        } else {
          std::this_thread::yield();
        }
      }
      running--;
    });
  }
  std::array<uint32_t, kCpus> got{};
  std::array<uint32_t, kCpus> last{};
  uint64_t watermark = 0;
  const auto take = [&] {
    uint64_t earliest = ~uint64_t{0};
    const uint64_t next = drain([&](const gt_gil& record) {
      const uint32_t cpu = (record.h.tid - 1) / kEach;
      ASSERT_LT(cpu, kCpus);
      ASSERT_GT(record.h.tid, last[cpu]);
      ASSERT_EQ(record.h.cpu, cpu);
      last[cpu] = record.h.tid;
      got[cpu]++;
      earliest = std::min<uint64_t>(earliest, record.h.ts_ns);
    });
    EXPECT_GT(earliest, watermark);
    watermark = next;
  };
  while (running != 0) take();
  for (std::thread& producer : producers) producer.join();
  take();
  EXPECT_EQ(got, emitted);
  uint64_t sum = 0;
  for (const uint32_t count : emitted) sum += count;
  EXPECT_EQ(native_lost(GT_GIL_ACQUIRE), uint64_t{kCpus} * kEach - sum);
  const bool has_room = sizes_.ring_bytes() > kCpus * kEach * (sizeof(gt_gil) + 8);
  EXPECT_GE(sum, has_room ? kCpus * kEach : 1);
}

INSTANTIATE_TEST_SUITE_P(
    Rings, AllAtOnce,
    ::testing::Values(RingSizes{.count_shift = 1, .ring_shift = 15, .chunk_shift = 12},
                      RingSizes{.count_shift = 0, .ring_shift = 23, .chunk_shift = 16}),
    [](const auto& tested) { return tested.param.count_shift == 0 ? "WithRoom" : "WithLittle"; });

}  // namespace
}  // namespace giltop
