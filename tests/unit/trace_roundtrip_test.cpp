// What is recorded is read back: the same model from the file as live, and nothing worse than an
// error from a file that is broken.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "sink/json.h"
#include "sink/trace_file.h"
#include "sink/trace_format.h"
#include "sink/trace_reader.h"
#include "sink/trace_writer.h"
#include "support/event_builder.h"
#include "support/light_history.h"
#include "support/trace_checker.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kStart_ns;
using testing::Message;
using testing::Simulation;
using testing::Story;

// A directory that goes away with the test.
class TempDir {
 public:
  TempDir() {
    std::string path = ::testing::TempDir() + "/giltop-test-XXXXXX";
    if (!mkdtemp(path.data())) std::abort();
    path_ = path;
  }
  ~TempDir() {
    for (const std::string& name : names_) unlink((path_ + "/" + name).c_str());
    rmdir(path_.c_str());
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string file(const std::string& name) {
    names_.push_back(name);
    return path_ + "/" + name;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::string> names_;
};

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// One block as TraceFile writes it.
std::string compressed(const std::string& block) {
  std::string packed(compressBound(block.size()), '\0');
  uLongf size = packed.size();
  compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
            reinterpret_cast<const Bytef*>(block.data()), block.size(), 1);
  Message inner;
  inner.bytes(trace::packet::kCompressedPackets, std::string_view(packed.data(), size));
  Message record;
  record.bytes(trace::kTracePacket, inner.data());
  return record.data();
}

const SystemFacts kSystem = {"Linux", "6.1.0", "#1 SMP", "x86_64", 2};

RunFacts run_facts() {
  RunFacts run;
  run.version = "0.1-test";
  run.kernel = "6.1.0";
  run.cpus = 2;
  return run;
}

struct Recorded {
  std::string bytes;
  std::string json;
};

// Plays events to a model and a writer, as `giltop record` does; a block every `flush_every`
// events.
Recorded record(const EventTables& tables, const std::vector<Event>& events, size_t flush_every,
                bool pack = true, const ModelLimits& limits = {}) {
  Recorded out;
  Model model(tables, limits);
  RunFacts run = run_facts();
  TraceWriter writer(tables,
                     [&](std::string block) { out.bytes += pack ? compressed(block) : block; });
  writer.start(kSystem, {kStart_ns - 10, kStart_ns - 20, 1'700'000'000'000'000'000}, run);
  size_t count = 0;
  for (const Event& event : events) {
    writer.write(event, model.apply(event));
    if (++count % flush_every == 0) {
      run.events = count;
      writer.run_facts(model.last_ns(), run);
      writer.clocks({model.last_ns() + 1000, model.last_ns(), 1'700'000'000'000'000'000 + count});
      writer.flush();
    }
  }
  run.events = events.size();
  run.probe_hits = 17;
  run.probe_cost_ns = 1234567;
  run.own_cpu_ns = 7654321;
  run.finished = true;
  writer.finish(model.last_ns(), run);
  out.json = to_json(snapshot_of(model, run));
  return out;
}

struct ReadBack {
  std::string json, error;
  bool truncated = false;
  uint64_t events = 0;
};

// Only what the reader says, without a model: that is a large object, and costs more than the rest.
ReadBack read_only(const std::string& path) {
  ReadBack out;
  EventTables tables;
  auto reader = TraceReader::open(path, tables);
  if (!reader) {
    out.error = reader.error().message();
    return out;
  }
  const auto outcome = reader->read([&](const Event&) { out.events++; });
  if (!outcome) {
    out.error = outcome.error().message();
  } else {
    out.truncated = outcome->truncated;
  }
  return out;
}

ReadBack read_back(const std::string& path, const ModelLimits& limits = {}) {
  ReadBack out;
  EventTables tables;
  Model model(tables, limits);
  auto reader = TraceReader::open(path, tables);
  if (!reader) {
    out.error = reader.error().message();
    return out;
  }
  const auto outcome = reader->read([&](const Event& event) {
    out.events++;
    model.apply(event);
  });
  if (!outcome) {
    out.error = outcome.error().message();
    return out;
  }
  out.truncated = outcome->truncated;
  out.json = to_json(snapshot_of(model, outcome->run));
  return out;
}

class TraceRoundtrip : public ::testing::Test {
 protected:
  void expect_same(const EventTables& tables, const std::vector<Event>& events, uint64_t seed,
                   const ModelLimits& limits = {}) {
    const Recorded live = record(tables, events, 20 + seed % 300, true, limits);
    write_bytes(path_, live.bytes);
    const ReadBack read = read_back(path_, limits);
    ASSERT_EQ(read.error, "") << "seed " << seed;
    ASSERT_EQ(read.json, live.json) << "seed " << seed;
    ASSERT_FALSE(read.truncated);
  }
  TempDir dir_;
  std::string path_ = dir_.file("a.pftrace");
};

TEST_F(TraceRoundtrip, LegalHistories) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 400, .gils = 1 + unsigned(seed % 2)});
    expect_same(simulation.tables(), simulation.events(), seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesSeenFromTheMiddle) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 300, .unseen_steps = 20 + seed % 300});
    expect_same(simulation.tables(), simulation.events(), seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesWithReadings) {
  for (uint64_t seed = 1; seed <= 200 && !HasFatalFailure(); seed++) {
    const Simulation simulation(
        seed, {.steps = 300,
               .unseen_steps = 20 + seed % 300,
               .gils = 1 + unsigned(seed % 2),
               .readings = seed % 3 ? testing::Readings::wrong : testing::Readings::right});
    auto events = simulation.events();
    if (seed % 4 == 0) events = testing::with_losses(events, seed, 1 + seed % 4);
    if (seed % 4 == 1) events = testing::with_hidden_switch_ins(events, seed, 20);
    expect_same(simulation.tables(), events, seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesWithLosses) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 400});
    expect_same(simulation.tables(), testing::with_losses(simulation.events(), seed, 1 + seed % 8),
                seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesWithHiddenSwitches) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 400});
    expect_same(simulation.tables(), testing::with_hidden_switch_ins(simulation.events(), seed, 20),
                seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesWhoseRunsAreChargedOtherwise) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 400});
    auto events = testing::with_other_charges(simulation.events(), seed);
    if (seed % 2) events = testing::with_losses(events, seed, 1 + seed % 8);
    expect_same(simulation.tables(), events, seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesInLightMode) {
  for (uint64_t seed = 1; seed <= 200 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 300, .gils = 1 + unsigned(seed % 2)});
    auto events =
        testing::as_light(simulation.tables(), simulation.events(), seed, 300'000, seed % 2 != 0);
    if (seed % 5 == 0) events = testing::with_losses(events, seed, 1 + seed % 8);
    if (seed % 5 == 1) events = testing::with_hidden_switch_ins(events, seed, 20);
    if (seed % 5 == 2) events = testing::with_garbage(events, seed, 1 + seed % 100);
    if (seed % 5 == 3) events = testing::with_other_charges(events, seed);
    expect_same(simulation.tables(), events, seed);
  }
}

TEST_F(TraceRoundtrip, HistoriesOfEqualTimes) {
  for (uint64_t seed = 1; seed <= 300 && !HasFatalFailure(); seed++) {
    const Simulation simulation(
        seed, {.steps = 300,
               .unseen_steps = seed % 4 ? 0 : 20 + seed % 200,
               .gils = 1 + unsigned(seed % 2),
               .readings = seed % 8 ? testing::Readings::none : testing::Readings::wrong});
    auto events = simulation.events();
    if (seed % 3 == 0)
      events = testing::as_light(simulation.tables(), events, seed, 300'000, seed % 2 != 0);
    if (seed % 5 == 1) events = testing::with_hidden_switch_ins(events, seed, 20);
    if (seed % 5 == 2) events = testing::with_garbage(events, seed, 1 + seed % 100);
    if (seed % 5 == 3) events = testing::with_other_charges(events, seed);
    if (seed % 5 == 4) events = testing::with_losses(events, seed, 1 + seed % 8);
    expect_same(simulation.tables(), testing::with_equal_times(events, seed, 10 + seed % 80), seed);
    if (HasFatalFailure()) return;
    ASSERT_THAT(testing::check_trace(path_), IsEmpty()) << "seed " << seed;
  }
}

// What is told in numbers does not hide what else is of its moment.
TEST_F(TraceRoundtrip, ASwitchInTheMomentOfAChangeOfMode) {
  Story story;
  story.process("main", 100).at(0).execs("main").is_python("main");
  story.at(10).acquires("main").at(20).releases("main").at(1000).sleeps("main");
  story.at(5000).wakes("main").at(6000).runs("main").at(20'000).ends();
  std::vector<Event> events = story.events();
  for (const EventKind kind : {EventKind::switch_out, EventKind::wakeup, EventKind::switch_in}) {
    std::vector<Event> changed;
    for (const Event& event : events) {
      if (event.kind == kind && event.ts_ns > kStart_ns) {
        Event mode;
        mode.kind = EventKind::mode;
        mode.ts_ns = event.ts_ns;
        mode.tgid = mode.tid = 100;
        mode.state = 1;
        changed.push_back(mode);
      }
      changed.push_back(event);
    }
    expect_same(story.tables(), changed, 0);
    EXPECT_THAT(testing::check_trace(path_), IsEmpty());
  }
}

// Where a thread's way onto the CPU was hidden, a later wakeup of it tells of its hand-off. It is
// no state of its: on its CPU it runs, and one that was preempted wants one already.
TEST_F(TraceRoundtrip, AWakeupOfOneThatDoesNotSleep) {
  for (const bool preempted : {false, true}) {
    uint64_t states = 0;
    std::string without;
    for (const bool woken : {false, true}) {
      Story story;
      story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
      story.at(0).seen("main").seen("worker").is_python("main").goes_light("main");
      story.at(10).acquires("main").at(20).waits("worker").at(30).sleeps("worker");
      story.at(100).runs("worker");
      if (preempted) story.at(110).preempted("worker");
      if (woken) story.at(120).wakes("worker");
      if (preempted) story.at(130).runs("worker");
      story.at(200).acquires("worker").at(300).ends();
      expect_same(story.tables(), story.events(), 0);
      testing::TraceCounts counts;
      EXPECT_THAT(testing::check_trace(path_, &counts), IsEmpty());
      const std::string json = read_back(path_).json;
      if (woken) {
        EXPECT_EQ(counts.states, states);
        EXPECT_NE(json, without) << "the hand-off";
      }
      states = counts.states;
      without = json;
    }
  }
}

// A wait of light mode whose beginning was not told.
TEST_F(TraceRoundtrip, AWaitThatBeganEarlier) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main").goes_light("main").forks("main", "worker");
  story.at(10).runs("worker").at(20).waits("worker").sleeps("worker");
  story.at(90).wakes("worker").at(95).runs("worker").at(100).acquires("worker").at(200).ends();
  std::string whole, cut;
  for (std::string* json : {&whole, &cut}) {
    std::vector<Event> events = story.events();
    for (Event& event : events)
      if (event.kind == EventKind::gil_wait) event.state = json == &cut;
    expect_same(story.tables(), events, 0);
    EXPECT_THAT(testing::check_trace(path_), IsEmpty());
    *json = read_back(path_).json;
  }
  EXPECT_NE(whole, cut);
}

// The last release of a GIL that is switched off is handed to nobody, whoever takes it then.
TEST_F(TraceRoundtrip, AGilThatIsSwitchedOffWhileOneWaits) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101);
  story.at(0).seen("main").seen("worker").is_python("main");
  story.at(10).acquires("main").at(20).waits("worker").at(30).switches_off("main");
  story.at(40).acquires("worker").at(50).ends();
  expect_same(story.tables(), story.events(), 0);
  EXPECT_THAT(testing::check_trace(path_), IsEmpty());
}

// A reading that tells nothing new is not drawn, and hides nothing of its moment either.
TEST_F(TraceRoundtrip, AReadingInTheMomentOfASwitch) {
  for (const bool lost : {false, true}) {
    for (const uint8_t bits : {0, 1, 2, 4, 5, 6}) {
      Story story;
      story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
      story.at(0).seen("main").seen("worker").is_python("main");
      if (lost) story.at(2).loses(0, 1, 4);  // and so no reading of it is believed
      story.at(10).sleeps("worker").at(20).reads_thread("worker", bits).wakes("worker");
      story.at(5000).reads_thread("worker", bits).runs("worker");
      story.at(9000).reads_thread("worker", bits).sleeps("worker");
      story.at(20'000).wakes("worker").reads_thread("worker", bits).at(30'000).runs("worker");
      story.at(40'000).acquires("worker").at(50'000).ends();
      expect_same(story.tables(), story.events(), bits);
      EXPECT_THAT(testing::check_trace(path_), IsEmpty());
    }
  }
}

TEST_F(TraceRoundtrip, AnExecInTheMomentOfASwitch) {
  for (const EventKind kind : {EventKind::wakeup, EventKind::switch_in, EventKind::switch_out}) {
    for (const bool lost : {false, true}) {
      for (const bool before : {false, true}) {
        Story story;
        story.process("main", 100).at(0).execs("main").is_python("main");
        if (lost) story.at(4000).loses(0, 1, 5000);
        story.at(5000);
        const auto at_once = [&] {
          if (kind == EventKind::wakeup) story.wakes("main");
          if (kind == EventKind::switch_in) story.runs("main");
          if (kind == EventKind::switch_out) story.sleeps("main");
        };
        if (before) at_once();
        story.execs("main").is_python("main");
        if (!before) at_once();
        story.at(9000).sleeps("main").at(10'000).wakes("main").at(20'000).runs("main");
        story.at(30'000).acquires("main").at(40'000).ends();
        expect_same(story.tables(), story.events(), 0);
        EXPECT_THAT(testing::check_trace(path_), IsEmpty());
      }
    }
  }
}

TEST_F(TraceRoundtrip, ALossInTheMomentOfASwitch) {
  for (const uint64_t until : {5000, 6000}) {
    Story story;
    story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
    story.at(0).execs("main").is_python("main").at(1).forks("main", "worker");
    story.at(5000).runs("worker").loses(0, 1, until).runs("worker");
    story.at(7000).sleeps("worker").at(9000).wakes("worker").at(20'000).runs("worker");
    story.at(30'000).acquires("worker").at(40'000).ends();
    expect_same(story.tables(), story.events(), 0);
    EXPECT_THAT(testing::check_trace(path_), IsEmpty());
  }
}

TEST_F(TraceRoundtrip, HistoriesThatCannotBe) {
  for (uint64_t seed = 1; seed <= 200 && !HasFatalFailure(); seed++) {
    const Simulation simulation(seed, {.steps = 200, .unseen_steps = seed % 100});
    auto events = testing::with_garbage(simulation.events(), seed, 1 + seed % 100);
    if (seed % 2) events = testing::with_losses(events, seed, 3);
    if (seed % 3) events = testing::with_other_charges(events, seed);
    expect_same(simulation.tables(), events, seed);
  }
}

TEST_F(TraceRoundtrip, AnExecGoesOnWithARunThatIsChargedLessThanItLasted) {
  Story story;
  story.process("main", 100);
  story.at(0).seen("main").at(10'000).runs("main").at(15'000).execs("main").is_python("main");
  story.at(20'000).acquires("main").after(100'000, 70'000).preempted("main").at(200'000).ends();
  expect_same(story.tables(), story.events(), 0);
}

TEST_F(TraceRoundtrip, ALastSwitchsChargeIsNotTheNextThreads) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).seen("main").seen("worker").is_python("main").at(1).releases("main");
  story.at(10'000).runs("worker").at(10'001).runs("main").at(10'002).acquires("worker");
  story.at(10'003).releases("worker");
  story.after(100'000, 50'000).dies("worker");  // its exit was lost
  story.after(120'000, 109'999).sleeps("main").at(200'000).ends();
  expect_same(story.tables(), story.events(), 0);
}

TEST_F(TraceRoundtrip, AGilThatIsSwitchedOff) {
  ProcessFacts facts;
  facts.python = "3.13.5";
  facts.free_threaded = true;
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main", facts).at(1).forks("main", "worker");
  story.at(2).runs("worker").at(10).acquires("main").at(20).waits("worker");
  story.at(30).switches_off("main").at(35).releases("worker");  // which gives up
  story.at(50).acquires("main").at(60).releases("main").at(70).exits("worker").at(100).ends();
  expect_same(story.tables(), story.events(), 0);
}

TEST_F(TraceRoundtrip, TheFirstEventMayConcernNobody) {
  // Time begins with it in the live model; so it must in the one that is read back.
  Story story;
  story.process("main", 100);
  story.at(0).exits("main").at(50).seen("main").is_python("main").at(60).acquires("main");
  story.at(100).ends();
  expect_same(story.tables(), story.events(), 0);
}

TEST_F(TraceRoundtrip, HostileNamesSurvive) {
  Story story;
  story.process("main", 100);
  story.at(0)
      .execs("main", "a\"b\\\x1b[31m\xff")
      .is_python("main", {"c\n", std::string("x\0y", 3) + "\xc3\x28", "3.11", "", true});
  story.at(5).renamed("main", "\xe2\x82").at(10).acquires("main").at(20).ends();
  expect_same(story.tables(), story.events(), 0);
}

TEST_F(TraceRoundtrip, WhatIsSummedUpIsSummedUpAgain) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); seed++) {
    Simulation simulation(
        seed, {.steps = 3000,
               .unseen_steps = seed % 3 ? 0 : seed,
               .gils = 1 + unsigned(seed % 2),
               .readings = seed % 6 ? testing::Readings::none : testing::Readings::wrong});
    auto events = testing::with_programs(simulation.tables(), simulation.events());
    if (seed % 4 == 0) events = testing::with_losses(events, seed, 1 + seed % 4);
    if (seed % 4 == 1) events = testing::with_hidden_switch_ins(events, seed, 20);
    if (seed % 4 == 2) events = testing::with_other_charges(events, seed);
    const ModelLimits limits{seed % 5, seed % 7, 1 + seed % 9, seed % 3};
    expect_same(simulation.tables(), events, seed, limits);
    if (HasFatalFailure()) return;
    testing::TraceCounts counts;
    ASSERT_THAT(testing::check_trace(path_, &counts), IsEmpty()) << "seed " << seed;
  }
}

// Through TraceFile, as in real life.
TEST_F(TraceRoundtrip, TraceFileWritesWhatTheReaderReads) {
  const Simulation simulation(7, {.steps = 20'000, .max_threads = 24});
  Model model(simulation.tables());
  RunFacts run = run_facts();
  {
    auto file = TraceFile::make(path_, std::nullopt);
    ASSERT_TRUE(file);
    TraceWriter writer(simulation.tables(),
                       [&](std::string block) { (*file)->write(std::move(block)); });
    writer.start(kSystem, {kStart_ns - 10, kStart_ns - 20, 1}, run);
    for (const Event& event : simulation.events()) writer.write(event, model.apply(event));
    run.finished = true;
    writer.finish(model.last_ns(), run);
    ASSERT_TRUE((*file)->close());
    struct stat info {};
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    EXPECT_EQ((*file)->bytes_written(), static_cast<uint64_t>(info.st_size));
  }
  EXPECT_EQ(read_back(path_).json, to_json(snapshot_of(model, run)));
  testing::TraceCounts counts;
  EXPECT_THAT(testing::check_trace(path_, &counts), IsEmpty());
  EXPECT_GE(counts.bundles, 1u);
  EXPECT_TRUE(counts.finished);
}

TEST_F(TraceRoundtrip, TraceFileKeepsWhatWasThere) {
  write_bytes(path_, "precious");
  auto file = TraceFile::make(path_, std::nullopt);
  ASSERT_TRUE(file);
  ASSERT_TRUE((*file)->close());
  std::ifstream old(dir_.file("a.pftrace.old"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(old), {}), "precious");
  EXPECT_FALSE(TraceFile::make(dir_.path(), std::nullopt));
  EXPECT_FALSE(TraceFile::make(dir_.path() + "/no/such/place", std::nullopt));
}

TEST_F(TraceRoundtrip, AFullDiskIsAnErrorOnce) {
  auto file = TraceFile::make("/dev/full", std::nullopt);
  ASSERT_TRUE(file);
  for (int i = 0; i < 50; i++) (*file)->write(std::string(1000, 'x'));
  const Status closed = (*file)->close();
  ASSERT_FALSE(closed);
  EXPECT_THAT(closed.error().message(), HasSubstr("cannot write /dev/full"));
  EXPECT_TRUE((*file)->failed());
}

// --- broken files --------------------------------------------------------------------------------

Recorded small_recording(bool pack) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main").at(1).forks("main", "worker").at(2).runs("worker");
  story.at(10).acquires("main").at(20).waits("worker").at(22).sleeps("worker", 5);
  story.at(30).releases("main").at(35).wakes("worker").at(36).runs("worker");
  story.at(37).acquires("worker").at(40).loses(3, 1, 45).at(50).releases("worker");
  story.at(60).exits("worker").at(70).exits_last("main").at(80).ends();
  return record(story.tables(), story.events(), 8, pack);
}

void expect_one_line(const ReadBack& read) {
  EXPECT_EQ(read.error.find('\n'), std::string::npos) << read.error;
}

TEST_F(TraceRoundtrip, CutAtEveryByte) {
  for (const bool pack : {true, false}) {
    const std::string whole = small_recording(pack).bytes;
    for (size_t size = 0; size < whole.size(); size++) {
      write_bytes(path_, whole.substr(0, size));
      const ReadBack read = size % 8 ? read_only(path_) : read_back(path_);
      expect_one_line(read);
      // Where a packet ends, the file is whole as far as it goes; the run was not finished then.
      if (read.error.empty()) {
        EXPECT_TRUE(read.truncated || testing::check_trace(path_).empty()) << "at " << size;
      }
    }
  }
}

TEST_F(TraceRoundtrip, FlippedBits) {
  std::mt19937_64 rng(1);
  for (const bool pack : {true, false}) {
    const std::string whole = small_recording(pack).bytes;
    for (int i = 0; i < 1000; i++) {
      std::string bytes = whole;
      for (uint64_t flips = 1 + rng() % 4; flips > 0; flips--)
        bytes[rng() % bytes.size()] ^= static_cast<char>(1 + rng() % 255);
      write_bytes(path_, bytes);
      expect_one_line(i % 8 ? read_only(path_) : read_back(path_));
    }
  }
}

// Flips within the packets, so that zlib's checksum does not catch them.
TEST_F(TraceRoundtrip, FlippedBitsWithinABlock) {
  std::mt19937_64 rng(2);
  const std::string whole = small_recording(false).bytes;
  for (int i = 0; i < 1500; i++) {
    std::string bytes = whole;
    for (uint64_t flips = 1 + rng() % 4; flips > 0; flips--)
      bytes[rng() % bytes.size()] ^= static_cast<char>(1 + rng() % 255);
    write_bytes(path_, compressed(bytes));
    expect_one_line(i % 8 ? read_only(path_) : read_back(path_));
  }
}

// A few bytes must not cost gigabytes.
TEST_F(TraceRoundtrip, AHugeTrackNumberIsRefused) {
  std::string bytes = small_recording(false).bytes;
  for (const bool described : {true, false}) {
    Message message;
    if (described) {
      Message thread;
      thread.field(trace::track::kPid, 1);
      thread.field(trace::track::kTid, 1);
      message.field(trace::track::kUuid, 60'000'000);
      message.bytes(trace::track::kThread, thread.data());
    } else {
      message.field(trace::event::kType, trace::event::kInstant);
      message.field(trace::event::kTrack, 60'000'000);
    }
    Message packet;
    packet.field(trace::packet::kTimestamp, 1);
    packet.field(trace::packet::kSequenceId, trace::kSequence);
    packet.bytes(described ? trace::packet::kTrackDescriptor : trace::packet::kTrackEvent,
                 message.data());
    Message record;
    record.bytes(trace::kTracePacket, packet.data());
    write_bytes(path_, bytes + record.data());
    EXPECT_THAT(read_back(path_).error, HasSubstr("damaged at byte"));
  }
}

// What is added to it must not overflow.
TEST_F(TraceRoundtrip, ARunOfImpossibleLengthIsRefused) {
  const std::string bytes = small_recording(false).bytes;
  for (const uint64_t zigzag : {~uint64_t{0}, ~uint64_t{0} - 1}) {
    Message state, packet, record;
    state.field(trace::task::kTid, 100);
    state.field(trace::task::kState, trace::task::kInterruptible);
    state.field(trace::task::kLead, zigzag);
    packet.field(trace::packet::kTimestamp, 1);
    packet.field(trace::packet::kSequenceId, trace::kSequence);
    packet.bytes(trace::packet::kTaskState, state.data());
    record.bytes(trace::kTracePacket, packet.data());
    write_bytes(path_, bytes + record.data());
    EXPECT_THAT(read_back(path_).error, HasSubstr("a run of impossible length"));
  }
}

// A span of the page could not hold a life of that length.
TEST_F(TraceRoundtrip, ATimeOutOfRangeIsRefused) {
  const std::string bytes = small_recording(false).bytes;
  const auto packet_after = [](uint64_t ns) {
    Message packet, record;
    packet.field(trace::packet::kTimestamp, ns);
    packet.field(trace::packet::kSequenceId, trace::kSequence);
    record.bytes(trace::kTracePacket, packet.data());
    return std::string(record.data());
  };
  for (const uint64_t ns : {~uint64_t{0}, uint64_t{1} << 62, (uint64_t{1} << 57) + 1}) {
    write_bytes(path_, bytes + packet_after(ns));
    EXPECT_THAT(read_back(path_).error, HasSubstr("a time out of range"));
  }
  write_bytes(path_, bytes + packet_after(uint64_t{1} << 56));
  EXPECT_EQ(read_back(path_).error, "");
  write_bytes(path_, bytes + packet_after(uint64_t{1} << 56) + packet_after(uint64_t{1} << 56));
  EXPECT_THAT(read_back(path_).error, HasSubstr("a time out of range"));
}

TEST_F(TraceRoundtrip, AZipBombIsRefused) {
  write_bytes(path_, small_recording(true).bytes + compressed(std::string(20'000'000, '\0')));
  EXPECT_THAT(read_back(path_).error, HasSubstr("impossible size"));
}

TEST_F(TraceRoundtrip, ABlockWithinABlockIsRefused) {
  const Recorded small = small_recording(true);
  write_bytes(path_, small.bytes + compressed(small.bytes));
  EXPECT_THAT(read_back(path_).error, HasSubstr("block inside a block"));
}

TEST_F(TraceRoundtrip, ForeignFiles) {
  EXPECT_THAT(read_back(dir_.path() + "/none").error, HasSubstr("No such file"));
  write_bytes(path_, "");
  EXPECT_THAT(read_back(path_).error, HasSubstr("empty"));
  write_bytes(path_, "#!/usr/bin/env python3\nprint(1)\n");
  EXPECT_THAT(read_back(path_).error, HasSubstr("not a Perfetto trace"));
  // What looks like a packet at its first byte: text that begins with a newline.
  write_bytes(path_, "\n\x05hello, this is text that goes on for a while\n");
  EXPECT_THAT(read_back(path_).error,
              ::testing::AnyOf(HasSubstr("not a"), HasSubstr("breaks off")));
  EXPECT_THAT(read_back(dir_.path()).error, HasSubstr("directory"));
  EXPECT_THAT(read_back("/dev/null").error, HasSubstr("not a regular file"));

  // Perfetto, but not ours: a process, a thread and a slice (facts/perfetto.md).
  Message thread, track, packet, record;
  thread.field(1, 100);
  thread.field(2, 101);
  track.field(1, 514);
  track.bytes(4, thread.data());
  packet.field(8, 1'000'000'000'000);
  packet.field(10, 1);
  packet.bytes(60, track.data());
  record.bytes(1, packet.data());
  write_bytes(path_, record.data());
  EXPECT_THAT(read_back(path_).error, HasSubstr("not a giltop recording"));
  Message other;
  other.bytes(1, std::string("\x48\x05", 2));
  write_bytes(path_, other.data() + record.data() + compressed(record.data()));
  EXPECT_THAT(read_back(path_).error, HasSubstr("not a giltop recording"));
}

TEST_F(TraceRoundtrip, APipeWithoutAWriterDoesNotHang) {
  const std::string pipe = dir_.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(read_back(pipe).error, HasSubstr("not a regular file"));
}

TEST_F(TraceRoundtrip, AnotherFormatIsNamed) {
  std::string bytes = small_recording(false).bytes;
  const size_t at = bytes.find(trace::kFormat);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 13] = '9';
  write_bytes(path_, bytes);
  const std::string error = read_back(path_).error;
  EXPECT_THAT(error, HasSubstr("format"));
}

}  // namespace
}  // namespace giltop
