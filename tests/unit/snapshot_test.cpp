// The snapshot and the JSON made of it: schema giltop.report/1 (design §7).
#include "model/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sink/json.h"
#include "support/event_builder.h"
#include "view/text_report.h"

namespace giltop {
namespace {

using Json = nlohmann::json;
using testing::kGil;
using testing::Played;
using testing::Simulation;
using testing::Story;

RunFacts facts() {
  RunFacts run;
  run.version = "0.1";
  run.kernel = "6.18.44";
  run.cpus = 2;
  run.events = 123;
  run.probe_hits = 456;
  run.probe_cost_ns = 300'000;
  run.own_cpu_ns = 20'000'000;
  return run;
}

Json json_of(const Model& model) { return Json::parse(to_json(snapshot_of(model, facts()))); }

Story two_threads() {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main");
  story.at(1).forks("main", "worker", "worker").at(2).runs("worker");
  story.at(1000).acquires("main").at(2000).waits("worker").at(2500).sleeps("worker");
  story.at(9000).releases("main").at(9100).wakes("worker").at(9300).runs("worker");
  story.at(9600).acquires("worker").at(20'000).releases("worker").at(30'000).ends();
  return story;
}

// Every key there, and of the type told by its value here.
void expect_shape(const Json& found, const Json& like, const std::string& at) {
  for (const auto& [key, value] : like.items()) {
    ASSERT_TRUE(found.contains(key)) << at << "." << key;
    const Json& field = found[key];
    const std::string where = at + "." + key;
    if (value.is_null()) continue;  // null, or of any type
    if (value.is_number_float()) {
      EXPECT_TRUE(field.is_number_float()) << where;
    } else if (value.is_number()) {
      EXPECT_TRUE(field.is_number_unsigned()) << where;
    } else {
      EXPECT_STREQ(field.type_name(), value.type_name()) << where;
    }
    if (value.is_object()) expect_shape(field, value, where);
    if (value.is_array() && !value.empty()) {
      ASSERT_FALSE(field.empty()) << where;
      for (const Json& element : field) {
        if (value[0].is_object()) expect_shape(element, value[0], where + "[]");
      }
    }
  }
}

TEST(Json, HasEveryFieldOfTheSchema) {
  Story story = two_threads();
  const Played played(story);
  const Json document = json_of(played.model);
  const Json histogram = {{"count", 0},   {"sum_s", 0.0},  {"min_s", 0.0},
                          {"max_s", 0.0}, {"p50_s", 0.0},  {"p90_s", 0.0},
                          {"p99_s", 0.0}, {"p999_s", 0.0}, {"buckets", Json::array()}};
  Json handoff = histogram;
  handoff["wakeup_s"] = handoff["runqueue_s"] = handoff["lock_s"] = 0.0;
  const Json cells = {
      {"running_s", 0.0}, {"runnable_s", 0.0}, {"blocked_s", 0.0}, {"unknown_s", 0.0}};
  const Json like = {
      {"schema", ""},
      {"giltop", ""},
      {"kernel", ""},
      {"mode", ""},
      {"duration_s", 0.0},
      {"events", 0},
      {"lost_events", 0},
      {"violations", 0},
      {"memory_disagreements", 0},
      {"overhead",
       {{"probe_hits", 0}, {"estimated_s", 0.0}, {"estimated_share", 0.0}, {"giltop_cpu_s", 0.0}}},
      {"processes",
       {{{"pid", 0},
         {"comm", ""},
         {"cmdline", ""},
         {"python", ""},
         {"build_id", ""},
         {"free_threaded", false},
         {"gil_enabled", true},
         {"complete", true},
         {"gils",
          {{{"address", ""},
            {"folded", 0},
            {"life_s", 0.0},
            {"interpreter", nullptr},
            {"ledger",
             {{"held_running_s", 0.0},
              {"held_runnable_s", 0.0},
              {"held_blocked_s", 0.0},
              {"handoff_s", 0.0},
              {"idle_s", 0.0},
              {"unknown_s", 0.0}}},
            {"acquires", 0},
            {"contended", 0},
            {"forced_releases", 0},
            {"voluntary_releases", 0},
            {"max_waiters", 0},
            {"handoff", handoff},
            {"blame",
             {{{"waiter_tid", 0},
               {"holder_tid", 0},
               {"holder_folded", false},
               {"running_s", 0.0},
               {"runnable_s", 0.0},
               {"blocked_s", 0.0},
               {"handoff_s", 0.0}}}}}}},
         {"threads",
          {{{"tid", 0},
            {"folded", 0},
            {"life_s", 0.0},
            {"comm", ""},
            {"name", nullptr},
            {"first_s", 0.0},
            {"last_s", 0.0},
            {"matrix",
             {{"holding", cells}, {"waiting", cells}, {"released", cells}, {"unknown", cells}}},
            {"acquires", 0},
            {"contended", 0},
            {"wait", histogram},
            {"hold", histogram}}}}}}}};
  // A lone object in braces is taken for the array's element: see to it that it is one.
  ASSERT_TRUE(like["processes"].is_array() && like["processes"][0].is_object());
  ASSERT_TRUE(like["processes"][0]["threads"][0].is_object());
  expect_shape(document, like, "");
  EXPECT_EQ(document["schema"], "giltop.report/1");
  EXPECT_EQ(document["processes"][0]["gils"][0]["address"], "0x7f0000001000");
  EXPECT_TRUE(document["processes"][0]["gils"][0]["interpreter"].is_null());
  EXPECT_TRUE(document["processes"][0]["threads"][0]["name"].is_null());
  EXPECT_EQ(document["events"], 123);
  EXPECT_DOUBLE_EQ(document["overhead"]["estimated_s"].get<double>(), 0.0003);
  EXPECT_DOUBLE_EQ(document["overhead"]["giltop_cpu_s"].get<double>(), 0.02);
}

TEST(Json, TheVerdictInTheWordsOfTheText) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101).on_cpu("worker", 1);
  story.at(0).execs("main").is_python("main").forks("main", "worker").runs("worker");
  story.at(1000).acquires("main");
  for (int turn = 0; turn < 40; turn++) {
    const char* const holder = turn % 2 == 0 ? "main" : "worker";
    const char* const next = turn % 2 == 0 ? "worker" : "main";
    const uint64_t at = 1000 + 1'000'000 * static_cast<uint64_t>(turn);
    story.at(at + 500).waits(next).at(at + 600).sleeps(next).at(at + 999'000).wakes(next);
    story.at(at + 999'500).runs(next).at(at + 1'000'000).releases(holder).acquires(next);
  }
  story.at(42'000'000).ends();
  const Played played(story);
  const Snapshot snapshot = snapshot_of(played.model, facts());
  const Json found = Json::parse(to_json(snapshot))["processes"][0]["verdict"];
  EXPECT_EQ(found["finding"], "taking-turns");
  const std::string text = text_report(snapshot);
  EXPECT_EQ(
      text.rfind(
          found["text"].get<std::string>() + "\n" + found["advice"].get<std::string>() + "\n", 0),
      0u)
      << text;
  EXPECT_GT(found["bound"].get<double>(), 1.5);
  EXPECT_NEAR(found["lost_s"].get<double>(), 0.040, 0.002);
}

TEST(Json, AVerdictWithoutAdviceOrBound) {
  Story story;
  story.process("main", 100).at(0).execs("main").is_python("main").at(9).ends();
  const Json found = json_of(Played(story).model)["processes"][0]["verdict"];
  EXPECT_EQ(found["finding"], "unused");
  EXPECT_TRUE(found["advice"].is_null() && found["bound"].is_null());
  EXPECT_EQ(found["lost_s"], 0.0);
}

TEST(Json, WhatWasReadOfTheGil) {
  Story story;
  story.process("main", 100).process("other", 200).with_gil("other", 0x7f0000002000);
  story.process("off", 300);
  story.at(0).seen("main").is_python("main").seen("other").is_python("other");
  story.seen("off").is_python("off", {"python3t", "python3t", "3.14.2", "", true});
  story.at(1).reads_gil("main", GilReading::held, 2).reads_gil("other", GilReading::free, 0);
  story.reads_gil("off", GilReading::disabled);
  story.at(10).acquires("main").at(20).ends();
  const Json document = json_of(Played(story).model);
  EXPECT_EQ(document["memory_disagreements"], 1);
  const Json& processes = document["processes"];
  EXPECT_EQ(processes[0]["gil_enabled"], true);
  EXPECT_EQ(processes[0]["gils"][0]["interpreter"], 2);
  EXPECT_EQ(processes[1]["gils"][0]["interpreter"], 0);
  EXPECT_EQ(processes[2]["gil_enabled"], false);
  EXPECT_EQ(processes[2]["gils"], Json::array());
  story.at(30).loses(1, 1, 40);  // what was off may have been switched on meanwhile
  EXPECT_TRUE(json_of(Played(story).model)["processes"][2]["gil_enabled"].is_null());
  Story nothing;
  nothing.process("main", 100).at(0).seen("main");
  nothing.is_python("main", {"python3t", "python3t", "3.14.2", "", true}).at(9).ends();
  EXPECT_TRUE(json_of(Played(nothing).model)["processes"][0]["gil_enabled"].is_null());
}

TEST(Json, FiguresOfTwoThreads) {
  Story story = two_threads();
  const Json document = json_of(Played(story).model);
  EXPECT_DOUBLE_EQ(document["duration_s"].get<double>(), 30e-6);
  const Json& process = document["processes"][0];
  EXPECT_EQ(process["pid"], 100);
  EXPECT_EQ(process["python"], "3.11.2");
  EXPECT_EQ(process["complete"], true);
  const Json& worker = process["threads"][1];
  EXPECT_EQ(worker["tid"], 101);
  EXPECT_EQ(worker["comm"], "worker");
  EXPECT_DOUBLE_EQ(worker["first_s"].get<double>(), 1e-9);
  EXPECT_DOUBLE_EQ(worker["last_s"].get<double>(), 30e-6);
  EXPECT_DOUBLE_EQ(worker["matrix"]["waiting"]["blocked_s"].get<double>(), 6600e-9);
  EXPECT_EQ(worker["wait"]["count"], 1);
  EXPECT_DOUBLE_EQ(worker["wait"]["sum_s"].get<double>(), 7600e-9);
  EXPECT_NEAR(worker["wait"]["p50_s"].get<double>(), 7600e-9, 7600e-9 * 0.03);
  ASSERT_EQ(worker["wait"]["buckets"].size(), 1u);
  EXPECT_GE(worker["wait"]["buckets"][0][0].get<double>(), 7600e-9);
  EXPECT_EQ(worker["wait"]["buckets"][0][1], 1);
  const Json& gil = process["gils"][0];
  EXPECT_DOUBLE_EQ(gil["handoff"]["wakeup_s"].get<double>(), 100e-9);
  EXPECT_DOUBLE_EQ(gil["handoff"]["runqueue_s"].get<double>(), 200e-9);
  EXPECT_DOUBLE_EQ(gil["handoff"]["lock_s"].get<double>(), 300e-9);
  ASSERT_EQ(gil["blame"].size(), 1u);
  EXPECT_EQ(gil["blame"][0]["waiter_tid"], 101);
  EXPECT_EQ(gil["blame"][0]["holder_tid"], 100);
  EXPECT_DOUBLE_EQ(gil["blame"][0]["running_s"].get<double>(), 7000e-9);
}

TEST(Json, CellsSumToLives) {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    const Simulation simulation(seed);
    const Json document = json_of(Played(simulation.tables(), simulation.events()).model);
    for (const Json& process : document["processes"]) {
      for (const Json& t : process["threads"]) {
        double sum = 0;
        for (const Json& row : t["matrix"])
          for (const Json& cell : row) sum += cell.get<double>();
        EXPECT_NEAR(sum, t["last_s"].get<double>() - t["first_s"].get<double>(), 1e-9);
      }
    }
  }
}

TEST(Json, WhatIsNotKnownIsNull) {
  Story story;
  story.process("main", 100).thread("worker", "main", 101);
  story.at(0).seen("main").seen("worker").is_python("main", {"", "", "3.9.2", "", false});
  story.at(10).waits("worker").at(40).ends();
  const Json document = json_of(Played(story).model);
  EXPECT_TRUE(document["processes"][0]["build_id"].is_null());
  EXPECT_EQ(document["processes"][0]["complete"], false);
  EXPECT_TRUE(document["processes"][0]["gils"][0]["blame"][0]["holder_tid"].is_null());
}

TEST(Json, HostileNamesGiveValidJson) {
  const std::string names[] = {
      "\"quoted\\",   "\x01\x1b[2J\n\t\x7f",  "\xff\xfe",         "\xc3\x28", "\xe2\x82",
      "\xed\xa0\x80", std::string("a\0b", 3), "\xf4\x90\x80\x80", "ünïcödé ✓"};
  for (const std::string& name : names) {
    Story story;
    story.process("main", 100);
    story.at(0).execs("main", name).is_python("main", {name, name, "3.11" + name, name, false});
    story.at(10).acquires("main").at(20).ends();
    const std::string text = to_json(snapshot_of(Played(story).model, facts()));
    const Json document = Json::parse(text, nullptr, false);
    ASSERT_FALSE(document.is_discarded()) << text;
    for (const char c : text) ASSERT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
  }
}

TEST(Json, EndsWithANewlineAndIsEmptyWhereNothingWas) {
  EventTables tables;
  const Model model(tables);
  const std::string text = to_json(snapshot_of(model, {}));
  EXPECT_EQ(text.back(), '\n');
  EXPECT_EQ(Json::parse(text)["processes"].size(), 0u);
}

TEST(Snapshot, LossesAreCountedByKind) {
  Story story = two_threads();
  Story more;
  more.at(40'000).loses(0, 7, 40'010).at(40'001).loses(4, 5, 40'010).at(50'000).ends();
  auto events = story.events();
  events.insert(events.end(), more.events().begin(), more.events().end());
  const Played played(story.tables(), events);
  const Json document = json_of(played.model);
  EXPECT_EQ(document["lost_events"], 12);
  EXPECT_EQ(document["lost_by_kind"]["gil_wait"], 7);
  EXPECT_EQ(document["lost_by_kind"]["switch"], 5);
  EXPECT_EQ(document["processes"][0]["complete"], false);
}

TEST(Snapshot, OnlyPythonsAreReported) {
  Story story = two_threads();
  Story more;
  more.process("shell", 200).process("child", 300);
  more.at(40'000).execs("shell").at(40'010).ends();
  auto events = story.events();
  events.insert(events.end(), more.events().begin(), more.events().end());
  const Snapshot snapshot = snapshot_of(Played(story.tables(), events).model, facts());
  ASSERT_EQ(snapshot.processes.size(), 1u);
  EXPECT_EQ(snapshot.processes[0].pid, 100u);
}

TEST(Snapshot, AForkedChildIsReportedOnceItUsesItsGil) {
  for (const bool uses_it : {false, true}) {
    Story story;
    story.process("main", 100).process("child", 200).on_cpu("child", 1);
    story.at(0).execs("main").is_python("main").at(5).acquires("main").at(10).forks("main",
                                                                                    "child");
    story.at(20).runs("child");
    if (uses_it) story.at(30).acquires("child");
    story.at(40).execs("child", "ls").at(50).ends();
    const Snapshot snapshot = snapshot_of(Played(story).model, facts());
    ASSERT_EQ(snapshot.processes.size(), uses_it ? 2u : 1u);
  }
}

}  // namespace
}  // namespace giltop
