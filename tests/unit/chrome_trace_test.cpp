// A recording as Chrome's JSON trace events: the same totals as the report, and valid JSON whatever
// names a target has.
#include "sink/chrome_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "model/snapshot.h"
#include "sink/trace_writer.h"
#include "support/event_builder.h"
#include "support/light_history.h"

namespace giltop {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using testing::kStart_ns;
using testing::Simulation;
using testing::Story;

constexpr uint64_t kMonotonicLess_ns = 400;  // than BOOTTIME: the machine was asleep for so long

struct Drawn {
  Json json;
  Snapshot snapshot;
  std::string text;
};

Drawn draw(const EventTables& tables, const std::vector<Event>& events, size_t flush_every = 7) {
  Drawn drawn;
  Model model(tables);
  ChromeTrace chrome([&](std::string_view text) { drawn.text += text; });
  TraceWriter writer(tables, [&](const std::string& block) { chrome.take(block); });
  RunFacts run;
  run.version = "test";
  run.mode = "exact";
  run.events = events.size();
  writer.start({}, {kStart_ns - 10, kStart_ns - 10 - kMonotonicLess_ns, 1}, run);
  size_t count = 0;
  for (const Event& event : events) {
    writer.write(event, model.apply(event));
    if (++count % flush_every == 0) writer.flush();
  }
  writer.finish(model.last_ns(), run);
  chrome.finish(run, model.lost());
  drawn.json = Json::parse(drawn.text);
  drawn.snapshot = snapshot_of(model, run);
  return drawn;
}

// Sums of slices in ns, by process, row and name. `dur` is in µs, of three decimals.
std::map<std::tuple<uint32_t, uint64_t, std::string>, uint64_t> sums(const Json& json) {
  std::map<std::tuple<uint32_t, uint64_t, std::string>, uint64_t> out;
  for (const Json& e : json["traceEvents"])
    if (e["ph"] == "X")
      out[{e["pid"], e["tid"], e["name"]}] +=
          static_cast<uint64_t>(std::llround(e["dur"].get<double>() * 1000));
  return out;
}

std::vector<Json> events_of(const Json& json, const std::string& phase) {
  std::vector<Json> out;
  for (const Json& e : json["traceEvents"])
    if (e["ph"] == phase) out.push_back(e);
  return out;
}

Story two_threads(std::string_view name = "worker") {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main");
  story.at(1).forks("main", "worker", name).at(2).runs("worker");
  story.at(10).acquires("main").at(20).waits("worker").at(22).sleeps("worker");
  story.at(30).releases("main").at(35).wakes("worker").at(36).runs("worker");
  story.at(37).acquires("worker").at(50).releases("worker").at(80).ends();
  return story;
}

TEST(ChromeTrace, SlicesRowsAndTheClock) {
  Story story = two_threads();
  const Drawn drawn = draw(story.tables(), story.events());
  const auto slices = events_of(drawn.json, "X");
  const auto held = std::find_if(slices.begin(), slices.end(), [](const Json& e) {
    return e["name"] == "GIL held" && e["tid"] == 10'000'101;
  });
  ASSERT_NE(held, slices.end());
  EXPECT_EQ((*held)["pid"], 100);
  EXPECT_DOUBLE_EQ((*held)["ts"].get<double>(),
                   static_cast<double>(kStart_ns + 37 - kMonotonicLess_ns) / 1000);
  EXPECT_EQ((*held)["args"]["contended"], true);
  EXPECT_EQ((*held)["args"]["release_forced"], false);
  const auto wait = std::find_if(slices.begin(), slices.end(),
                                 [](const Json& e) { return e["name"] == "GIL wait"; });
  ASSERT_NE(wait, slices.end());
  EXPECT_EQ((*wait)["args"]["holder_tid"], 100);
  EXPECT_EQ((*wait)["args"]["holder_running_ns"], 10);
  EXPECT_EQ((*wait)["args"]["handoff_ns"], 7);
  const auto owner = std::find_if(slices.begin(), slices.end(),
                                  [](const Json& e) { return e["name"] == "101 worker"; });
  EXPECT_NE(owner, slices.end()) << "the GIL's own row is by its owners";
  auto totals = sums(drawn.json);
  for (const ThreadSnapshot& t : drawn.snapshot.processes[0].threads) {
    const auto of = [&](const char* name) { return totals[{100, 20'000'000 + t.tid, name}]; };
    EXPECT_EQ(of("running"), t.in(CpuState::running));
    EXPECT_EQ(of("wants a CPU"), t.in(CpuState::runnable));
    EXPECT_EQ(of("asleep"), t.in(CpuState::blocked));
  }
  EXPECT_EQ(events_of(drawn.json, "s").size(), 1u);
  EXPECT_EQ(events_of(drawn.json, "f").size(), 1u);
  EXPECT_EQ(drawn.json["otherData"]["giltop"], "test");
  EXPECT_TRUE(drawn.json["viztracer_metadata"].is_object());
  std::vector<std::string> names;
  for (const Json& e : events_of(drawn.json, "M"))
    if (e["name"] == "thread_name") names.push_back(e["args"]["name"]);
  EXPECT_THAT(names, ::testing::IsSupersetOf({"101 worker: GIL", "101 worker: CPU", "GIL owner"}));
}

TEST(ChromeTrace, WhoIsRenamedHasTheNewNameFromThenOn) {
  Story story = two_threads();
  story.renamed("worker", "loader").renamed("main", "gunicorn");
  story.at(90).acquires("worker").at(95).releases("worker");
  story.at(96).acquires("main").at(98).releases("main").at(100).ends();
  const Drawn drawn = draw(story.tables(), story.events());
  std::vector<std::string> owners, threads, processes;
  for (const Json& e : events_of(drawn.json, "X"))
    if (e["tid"] >= 30'000'000) owners.push_back(e["name"]);
  EXPECT_THAT(owners,
              ::testing::ElementsAre("100 python3", "101 worker", "101 loader", "100 gunicorn"));
  for (const Json& e : events_of(drawn.json, "M")) {
    if (e["name"] == "thread_name" && e["tid"] == 10'000'101) threads.push_back(e["args"]["name"]);
    if (e["name"] == "process_name") processes.push_back(e["args"]["name"]);
  }
  EXPECT_THAT(threads, ::testing::ElementsAre("101 worker: GIL", "101 loader: GIL"));
  EXPECT_EQ(processes.front(), "python3");
  EXPECT_EQ(processes.back(), "gunicorn");
}

TEST(ChromeTrace, ALossLastsOnTheFilesOwnClock) {
  Story story = two_threads();
  story.at(90).loses(0, 3, 95).at(100).ends();
  const Drawn drawn = draw(story.tables(), story.events());
  const auto instants = events_of(drawn.json, "i");
  const auto lost = std::find_if(instants.begin(), instants.end(),
                                 [](const Json& e) { return e["name"] == "lost events"; });
  ASSERT_NE(lost, instants.end());
  EXPECT_EQ((*lost)["args"]["count"], 3);
  EXPECT_NEAR((*lost)["args"]["until"].get<double>() - (*lost)["ts"].get<double>(), 0.005, 1e-6);
}

TEST(ChromeTrace, TotalsAreTheReports) {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    const Simulation simulation(seed, {.steps = 300, .gils = 1 + unsigned(seed % 2)});
    const Drawn drawn = draw(simulation.tables(), simulation.events());
    std::map<std::pair<uint32_t, uint32_t>, std::array<uint64_t, 2>> expected;
    for (const ProcessSnapshot& p : drawn.snapshot.processes) {
      for (const ThreadSnapshot& t : p.threads) {
        auto& sum = expected[{p.pid, t.tid}];
        sum[0] += t.in(GilState::holding);
        sum[1] += t.in(GilState::waiting);
      }
    }
    ASSERT_FALSE(expected.empty());
    auto found = sums(drawn.json);
    for (const auto& [ids, sum] : expected) {
      const auto& [pid, tid] = ids;
      const auto of = [&, pid = pid, tid = tid](uint64_t row, const char* name) {
        return found[{pid, row + tid, name}];
      };
      ASSERT_EQ(of(10'000'000, "GIL held"), sum[0]) << seed << " " << tid;
      ASSERT_EQ(of(10'000'000, "GIL wait"), sum[1]) << seed << " " << tid;
    }
  }
}

TEST(ChromeTrace, HostileNamesAreText) {
  const std::string hostile = std::string("\"},{\"ph\":\"X\"\n</script>\\\x01\xff\0", 25);
  Story story = two_threads(hostile);
  const Drawn drawn = draw(story.tables(), story.events());
  EXPECT_EQ(events_of(drawn.json, "X").size(),
            events_of(draw(two_threads().tables(), two_threads().events()).json, "X").size());
  std::string found;
  for (const Json& e : events_of(drawn.json, "M"))
    if (e["name"] == "thread_name" && e["tid"] == 10'000'101) found = e["args"]["name"];
  EXPECT_THAT(found, HasSubstr("\"},{\"ph\":\"X\"\n</script>\\\x01\xef\xbf\xbd"));
}

TEST(ChromeTrace, AnyHistoryIsValid) {
  for (uint64_t seed = 1; seed <= 200; seed++) {
    const Simulation simulation(seed, {.steps = 200, .unseen_steps = seed % 100});
    auto events = simulation.events();
    if (seed % 3 == 0)
      events = testing::as_light(simulation.tables(), events, seed, 300'000, seed % 2 != 0);
    if (seed % 2 == 0) events = testing::with_losses(events, seed, 1 + seed % 4);
    if (seed % 5 == 0) events = testing::with_garbage(events, seed, 1 + seed % 50);
    const Drawn drawn = draw(simulation.tables(), events);
    for (const Json& e : drawn.json["traceEvents"]) ASSERT_TRUE(e.contains("ph")) << seed;
    EXPECT_EQ(drawn.json["otherData"]["lost_events"], drawn.snapshot.lost_events);
  }
}

TEST(ChromeTrace, NothingAtAll) {
  std::string text;
  ChromeTrace chrome([&](std::string_view more) { text += more; });
  chrome.finish({}, 0);
  EXPECT_EQ(Json::parse(text)["traceEvents"], Json::array());
}

}  // namespace
}  // namespace giltop
