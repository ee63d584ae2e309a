// Events without what their target called itself: no name is left, no figure changes.
#include "event/anonymize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sink/json.h"
#include "support/event_builder.h"
#include "view/text_report.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Simulation;
using testing::Story;

Snapshot play(EventTables& tables, const std::vector<Event>& events, bool anonymize) {
  Model model(tables);
  Anonymizer anonymizer(tables);
  for (Event event : events) {
    if (anonymize) anonymizer.apply(event);
    model.apply(event);
  }
  return snapshot_of(model, {});
}

TEST(Anonymizer, NamesThreadsAndProgramsAnew) {
  Story story;
  story.process("a", 100).thread("a1", "a", 101).thread("a2", "a", 102).process("b", 200);
  story.process("c", 300);
  const ProcessFacts secret = {"secretd", "/opt/secret/bin/secretd --key hush", "3.11.2", "c0ffee"};
  story.at(0).execs("a", "secretd").is_python("a", secret);
  story.forks("a", "a1", "secret-pool-0").forks("a", "a2", "secret-pool-1");
  story.at(5).execs("b", "other").is_python("b", {"other", "other.py", "3.12.1", ""});
  story.at(6).execs("c", "secretd").is_python("c", secret);
  story.at(10).acquires("a1").releases("a1").acquires("b").releases("b").acquires("c");
  story.at(20).renamed("a2", "secret-idle").at(90).ends();
  const Snapshot s = play(story.tables(), story.events(), true);
  ASSERT_EQ(s.processes.size(), 3u);
  EXPECT_EQ(s.processes[0].comm, "program-1");
  EXPECT_EQ(s.processes[0].cmdline, "program-1");
  EXPECT_EQ(s.processes[0].python, "3.11.2");
  EXPECT_EQ(s.processes[0].build_id, "c0ffee");
  EXPECT_EQ(s.processes[0].threads[0].comm, "program-1");
  EXPECT_EQ(s.processes[0].threads[1].comm, "thread-1");
  EXPECT_EQ(s.processes[0].threads[2].comm, "thread-2") << "also under another name";
  EXPECT_EQ(s.processes[1].comm, "program-2");
  EXPECT_EQ(s.processes[2].comm, "program-1");
  EXPECT_THAT(to_json(s) + text_report(s),
              AllOf(Not(HasSubstr("secret")), Not(HasSubstr("hush")), Not(HasSubstr("other.py"))));
}

TEST(Anonymizer, ATidThatIsUsedAgainIsAnotherThread) {
  Story story;
  story.process("a", 100).thread("a1", "a", 101).at(0).execs("a").is_python("a");
  story.at(1).forks("a", "a1", "x").at(2).acquires("a1").releases("a1").exits("a1").dies("a1");
  story.at(3).forks("a", "a1", "x").at(4).acquires("a1").releases("a1").at(9).ends();
  const Snapshot s = play(story.tables(), story.events(), true);
  ASSERT_EQ(s.processes[0].threads.size(), 3u);
  EXPECT_EQ(s.processes[0].threads[1].comm, "thread-1");
  EXPECT_EQ(s.processes[0].threads[2].comm, "thread-2");
}

TEST(Anonymizer, ChangesNoFigure) {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    Simulation plain(seed, {.steps = 300}), neutral(seed, {.steps = 300});
    EventTables tables = plain.tables(), others = neutral.tables();
    Snapshot before = play(tables, plain.events(), false);
    Snapshot after = play(others, neutral.events(), true);
    for (Snapshot* s : {&before, &after}) {
      for (ProcessSnapshot& p : s->processes) {
        p.comm = p.cmdline = "";
        for (ThreadSnapshot& t : p.threads) t.comm = "";
      }
    }
    ASSERT_EQ(to_json(before), to_json(after)) << seed;
  }
}

TEST(Anonymizer, KernelReleasesAreCut) {
  EXPECT_EQ(Anonymizer::release("5.15.0-acme-7"), "5.15.0");
  EXPECT_EQ(Anonymizer::release("6.18.44"), "6.18.44");
  EXPECT_EQ(Anonymizer::release("5.10.0.1234.acme"), "5.10.0");
  EXPECT_EQ(Anonymizer::release("6.1.acme"), "6.1");
  EXPECT_EQ(Anonymizer::release("6."), "6");
  EXPECT_EQ(Anonymizer::release("acme"), "");
  EXPECT_EQ(Anonymizer::release(""), "");
}

}  // namespace
}  // namespace giltop
