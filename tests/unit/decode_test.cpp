// The decoder, from bytes as they lie in the ring.
#include "event/decode.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "giltop/abi.h"

namespace giltop {
namespace {

class Decode : public ::testing::Test {
 protected:
  template <typename Record>
  std::vector<Event> decode(const Record& record, size_t bytes = sizeof(Record)) {
    std::vector<std::byte> copy(sizeof(Record) + 64);
    std::memcpy(copy.data(), &record, sizeof(Record));
    return decode_bytes({copy.data(), bytes});
  }
  std::vector<Event> decode_bytes(std::span<const std::byte> bytes) {
    std::vector<Event> events;
    decoder_.decode(bytes, [&](const Event& event) { events.push_back(event); });
    return events;
  }
  // Nothing came out, and it was counted.
  template <typename Record>
  void expect_malformed(const Record& record, size_t bytes = sizeof(Record)) {
    const uint64_t before = decoder_.counts().malformed;
    EXPECT_TRUE(decode(record, bytes).empty());
    EXPECT_EQ(decoder_.counts().malformed, before + 1);
  }
  // Only its own size will do.
  template <typename Record>
  void expect_size_matters(const Record& record) {
    for (size_t bytes = 0; bytes <= sizeof(Record) + 32; bytes++)
      if (bytes != sizeof(Record)) expect_malformed(record, bytes);
  }

  EventTables tables_;
  Decoder decoder_{tables_};
};

gt_header header(gt_kind kind) {
  gt_header h{};
  h.ts_ns = 123'456'789'012;
  h.tgid = 100;
  h.tid = 101;
  h.cpu = 3;
  h.kind = kind;
  return h;
}

gt_switch switch_of(uint32_t prev, uint32_t next) {
  gt_switch s{};
  s.h = header(GT_SWITCH);
  s.h.tgid = prev ? 100 : 0;
  s.h.tid = prev;
  s.h.state = GT_TASK_UNINTERRUPTIBLE;
  s.h.extra = next;
  s.next_tgid = next ? 200 : 0;
  s.uncharged_ns = 777;
  return s;
}

void set_comm(char (&comm)[GT_COMM], std::string_view text) {
  std::memcpy(comm, text.data(), std::min<size_t>(text.size(), GT_COMM));
}

TEST_F(Decode, GilKinds) {
  const std::pair<gt_kind, EventKind> kinds[] = {{GT_GIL_WAIT, EventKind::gil_wait},
                                                 {GT_GIL_ACQUIRE, EventKind::gil_acquire},
                                                 {GT_GIL_RELEASE, EventKind::gil_release},
                                                 {GT_GIL_FORCED, EventKind::gil_forced}};
  for (const auto& [kind, expected] : kinds) {
    gt_gil record{};
    record.h = header(kind);
    record.gil = 0x7f0012345678;
    const auto events = decode(record);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].kind, expected);
    EXPECT_EQ(events[0].ts_ns, 123'456'789'012u);
    EXPECT_EQ(events[0].tgid, 100u);
    EXPECT_EQ(events[0].tid, 101u);
    EXPECT_EQ(events[0].cpu, 3u);
    EXPECT_EQ(events[0].value, 0x7f0012345678u);
    expect_size_matters(record);
  }
}

TEST_F(Decode, ASwitchIsTwoEvents) {
  const auto events = decode(switch_of(101, 201));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kind, EventKind::switch_out);
  EXPECT_EQ(events[0].tid, 101u);
  EXPECT_EQ(events[0].tgid, 100u);
  EXPECT_EQ(events[0].state, static_cast<uint8_t>(TaskState::uninterruptible));
  EXPECT_EQ(events[0].value, 777u);
  EXPECT_EQ(events[1].kind, EventKind::switch_in);
  EXPECT_EQ(events[1].tid, 201u);
  EXPECT_EQ(events[1].tgid, 200u);
  EXPECT_EQ(events[1].state, 0u);
  EXPECT_EQ(events[1].ts_ns, events[0].ts_ns);
  expect_size_matters(switch_of(101, 201));
}

TEST_F(Decode, ASwitchOfOneTrackedSideIsOneEvent) {
  const auto out = decode(switch_of(101, 0));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, EventKind::switch_out);
  const auto in = decode(switch_of(0, 201));
  ASSERT_EQ(in.size(), 1u);
  EXPECT_EQ(in[0].kind, EventKind::switch_in);
  EXPECT_EQ(in[0].tid, 201u);
  EXPECT_TRUE(decode(switch_of(0, 0)).empty());
  EXPECT_EQ(decoder_.counts().malformed, 0u);
}

TEST_F(Decode, EveryWayToLeaveACpu) {
  for (uint8_t state = GT_TASK_RUNNABLE; state <= GT_TASK_DEAD; state++) {
    gt_switch record = switch_of(101, 0);
    record.h.state = state;
    ASSERT_EQ(decode(record).size(), 1u);
    EXPECT_EQ(decode(record)[0].state, state);
  }
  gt_switch record = switch_of(101, 0);
  record.h.state = GT_TASK_DEAD + 1;
  expect_malformed(record);
}

TEST_F(Decode, Wakeup) {
  gt_wakeup record{};
  record.h = header(GT_WAKEUP);
  const auto events = decode(record);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::wakeup);
  expect_size_matters(record);
}

TEST_F(Decode, Fork) {
  gt_fork record{};
  record.h = header(GT_FORK);
  record.h.extra = 99;
  record.parent_tgid = 98;
  set_comm(record.comm, "python3");
  const auto events = decode(record);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::fork);
  EXPECT_EQ(events[0].value, uint64_t{98} << 32 | 99);
  EXPECT_EQ(tables_.text(events[0].other), "python3");
  expect_size_matters(record);
}

TEST_F(Decode, AForkByAParentOutOfRangeIsMalformed) {
  // A recording of it could not be read back.
  gt_fork record{};
  record.h = header(GT_FORK);
  record.h.extra = kMaxTid + 1;
  record.parent_tgid = 98;
  expect_malformed(record);
  record.h.extra = 99;
  record.parent_tgid = kMaxTid + 1;
  expect_malformed(record);
}

TEST_F(Decode, ExecAndExit) {
  gt_exec exec{};
  exec.h = header(GT_EXEC);
  set_comm(exec.comm, "sixteen-letters!");  // no terminating zero
  const auto execs = decode(exec);
  ASSERT_EQ(execs.size(), 1u);
  EXPECT_EQ(execs[0].kind, EventKind::exec);
  EXPECT_EQ(tables_.text(execs[0].other), "sixteen-letters!");
  expect_size_matters(exec);

  gt_exit exit{};
  exit.h = header(GT_EXIT);
  exit.h.state = GT_LAST;
  exit.h.extra = 1000;
  set_comm(exit.comm, "worker");
  const auto exits = decode(exit);
  ASSERT_EQ(exits.size(), 1u);
  EXPECT_EQ(exits[0].kind, EventKind::exit);
  EXPECT_EQ(exits[0].state, 1u);
  EXPECT_EQ(tables_.text(exits[0].other), "worker");
  EXPECT_EQ(exits[0].value, 1001u) << "its user, plus 1";
  expect_size_matters(exit);
}

TEST_F(Decode, Rename) {
  gt_rename record{};
  record.h = header(GT_RENAME);
  set_comm(record.comm, "loader");
  const auto events = decode(record);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::thread_name);
  EXPECT_EQ(tables_.text(events[0].other), "loader");
  expect_size_matters(record);
}

TEST_F(Decode, AnEntryIsForTheSessionOnly) {
  gt_entry record{};
  record.h = header(GT_ENTRY);
  EXPECT_TRUE(decode(record).empty());
  EXPECT_EQ(decoder_.counts().malformed, 0u);
  expect_size_matters(record);
}

TEST_F(Decode, IdsInANamespaceAreAnEventOfTheirOwn) {
  const auto expect_id = [&](const std::vector<Event>& events, uint32_t id) {
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back().kind, EventKind::ns_id);
    EXPECT_EQ(events.back().tgid, 100u);
    EXPECT_EQ(events.back().tid, 101u);
    EXPECT_EQ(events.back().other, id);
    EXPECT_EQ(events.back().value, 0u);
    EXPECT_EQ(events.back().state, 0u);
  };
  gt_fork fork{};
  fork.h = header(GT_FORK);
  fork.ns_tid = 7;
  EXPECT_EQ(decode(fork).size(), 2u);
  expect_id(decode(fork), 7);
  fork.ns_tid = kMaxTid + 1;
  expect_malformed(fork);
  gt_exec exec{};
  exec.h = header(GT_EXEC);
  exec.ns_tid = 8;
  EXPECT_EQ(decode(exec).size(), 2u);
  expect_id(decode(exec), 8);
  gt_found found{};
  found.h = header(GT_FOUND);
  EXPECT_TRUE(decode(found).empty()) << "for the session only";
  found.ns_tid = 9;
  EXPECT_EQ(decode(found).size(), 1u);
  expect_id(decode(found), 9);
  expect_size_matters(found);
}

TEST_F(Decode, AnExecThatIsNotFollowed) {
  gt_exec exec{};
  exec.h = header(GT_EXEC);
  exec.h.state = GT_UNSEEN;
  exec.ns_tid = 8;
  EXPECT_TRUE(decode(exec).empty()) << "not traced: for the session only";
  for (const uint8_t state : {GT_LEFT, GT_LEFT | GT_UNSEEN}) {
    exec.h.state = state;
    const auto events = decode(exec);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].kind, EventKind::exit) << "it ends here for us";
    EXPECT_EQ(events[0].state, 2u);
  }
  exec.h.state = GT_NEW;
  ASSERT_EQ(decode(exec).size(), 2u);
  EXPECT_EQ(decode(exec)[0].kind, EventKind::exec);
}

TEST_F(Decode, UnknownKindsAreCounted) {
  for (unsigned kind = GT_KINDS; kind < 256; kind++) {
    gt_gil record{};
    record.h = header(GT_GIL_WAIT);
    record.h.kind = static_cast<uint8_t>(kind);
    expect_malformed(record);
  }
}

TEST_F(Decode, IdsOutOfRangeAreCounted) {
  gt_gil gil{};
  gil.h = header(GT_GIL_ACQUIRE);
  gil.h.tid = kMaxTid + 1;
  expect_malformed(gil);
  gil.h = header(GT_GIL_ACQUIRE);
  gil.h.tgid = ~0u;
  expect_malformed(gil);
  gt_wakeup wakeup{};
  wakeup.h = header(GT_WAKEUP);
  wakeup.h.tid = kMaxTid + 1;
  expect_malformed(wakeup);
  expect_malformed(switch_of(kMaxTid + 1, 0));
  expect_malformed(switch_of(0, kMaxTid + 1));
  gt_switch next = switch_of(0, 201);
  next.next_tgid = kMaxTid + 1;
  expect_malformed(next);
}

TEST_F(Decode, ThreadZeroIsNobody) {
  gt_gil gil{};
  gil.h = header(GT_GIL_ACQUIRE);
  gil.h.tid = 0;
  expect_malformed(gil);
  gt_wakeup wakeup{};
  wakeup.h = header(GT_WAKEUP);
  wakeup.h.tid = 0;
  expect_malformed(wakeup);
}

TEST_F(Decode, WhatLightModeSawOfTheGil) {
  gt_sample sample{};
  sample.h = {77, 100, 101, 1, GT_SAMPLE, GT_GIL_READ | GT_GIL_MINE | 2 << GT_GIL_SLOT_SHIFT, 0};
  gt_switch left{};
  left.h = {78, 100, 101, 1, GT_SWITCH, GT_GIL_READ | GT_TASK_UNINTERRUPTIBLE, 0};
  std::vector<Event> events;
  const auto keep = [&](const Event& event) { events.push_back(event); };
  decoder_.decode(std::as_bytes(std::span(&sample, 1)), keep);
  decoder_.decode(std::as_bytes(std::span(&left, 1)), keep);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kind, EventKind::sample);
  EXPECT_TRUE(gil_sight(events[0]).read && gil_sight(events[0]).holds);
  EXPECT_EQ(gil_sight(events[0]).slot, 2);
  EXPECT_EQ(task_state(events[1]), TaskState::uninterruptible);
  EXPECT_TRUE(gil_sight(events[1]).read);
  EXPECT_FALSE(gil_sight(events[1]).holds);
}

TEST_F(Decode, RandomBytesNeverCrash) {
  std::mt19937_64 rng(5);
  uint64_t events = 0;
  for (int i = 0; i < 100'000; i++) {
    constexpr size_t kSizes[] = {sizeof(gt_gil),  sizeof(gt_switch), sizeof(gt_wakeup),
                                 sizeof(gt_fork), sizeof(gt_exec),   sizeof(gt_exit),
                                 sizeof(gt_found)};
    std::vector<std::byte> bytes(rng() % 2 ? kSizes[rng() % std::size(kSizes)] : rng() % 72);
    for (std::byte& b : bytes) b = static_cast<std::byte>(rng());
    if (bytes.size() > offsetof(gt_header, kind) && rng() % 4)
      bytes[offsetof(gt_header, kind)] = static_cast<std::byte>(rng() % (GT_KINDS + 1));
    if (bytes.size() >= sizeof(gt_header) && rng() % 2) {  // ids that could be
      const uint32_t ids[] = {static_cast<uint32_t>(1 + rng() % kMaxTid),
                              static_cast<uint32_t>(1 + rng() % kMaxTid)};
      std::memcpy(bytes.data() + offsetof(gt_header, tgid), ids, sizeof(ids));
    }
    decoder_.decode(bytes, [&](const Event& event) {
      events++;
      EXPECT_LE(event.tid, kMaxTid);
      EXPECT_LE(event.tgid, kMaxTid);
      EXPECT_TRUE(event.kind <= EventKind::exit || event.kind == EventKind::ns_id ||
                  event.kind == EventKind::sample || event.kind == EventKind::thread_name);
    });
  }
  EXPECT_EQ(decoder_.counts().records, 100'000u);
  EXPECT_GT(events, 500u);
  EXPECT_GT(decoder_.counts().malformed, 50'000u);
}

TEST(EventTables, TextsHaveOneNumberEach) {
  EventTables tables;
  EXPECT_EQ(tables.intern(""), 0u);
  const uint32_t a = tables.intern("a");
  for (int i = 0; i < 1000; i++) tables.intern("text " + std::to_string(i));
  EXPECT_EQ(tables.intern("a"), a);
  EXPECT_EQ(tables.text(a), "a");
  EXPECT_EQ(tables.text(tables.intern("text 999")), "text 999");
  EXPECT_EQ(tables.text(1'000'000), "");
  EXPECT_EQ(tables.facts(55), ProcessFacts());
}

}  // namespace
}  // namespace giltop
