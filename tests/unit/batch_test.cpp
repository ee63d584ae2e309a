// Batch text: blocks of rows whose columns stay where they are.
#include "view/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "model/interval.h"
#include "support/event_builder.h"
#include "view/live_columns.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr uint64_t kMs = 1'000'000;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// One process whose threads take turns, one that does nothing, and one without a GIL.
LiveFrame a_second() {
  testing::Story story;
  story.process("web", 100).thread("a", "web", 101).thread("b", "web", 102);
  story.process("idle", 200).process("nogil", 300);
  story.on_cpu("a", 1).on_cpu("b", 2).on_cpu("idle", 3).on_cpu("nogil", 4);
  story.at(0).execs("web", "web").sleeps("web");
  story.is_python("web", {"web", "a web\x1b[2J", "3.11.2", "", false, false});
  story.forks("web", "a", "worker").forks("web", "b", "worker").runs("a").runs("b");
  story.execs("idle", "idle").sleeps("idle");
  story.is_python("idle", {"idle", "idle", "3.11.2", "", false, false});
  story.execs("nogil", "nogil");
  story.is_python("nogil", {"nogil", "nogil", "3.14.0", "", true, false});
  story.acquires("a").at(1).waits("b").sleeps("b");
  for (uint64_t i = 1; i < 10; i++) {
    const auto [from, to] = i % 2 ? std::pair("a", "b") : std::pair("b", "a");
    story.at(i * 100 * kMs).releases(from).runs(to).acquires(to).waits(from).sleeps(from);
  }
  story.at(1000 * kMs).ends();
  const testing::Played played(story);
  LiveFrame frame;
  frame.interval = Intervals().next(snapshot_of(played.model, {}));
  frame.interval.run.mode = "exact";
  frame.clock = "12:04:31";
  return frame;
}

TEST(Batch, ARowAProcessTheMostFirst) {
  const auto lines = lines_of(batch_text(a_second(), {}));
  ASSERT_THAT(lines, SizeIs(5));
  EXPECT_THAT(lines[0], HasSubstr("12:04:31, 3 Pythons, 5 threads"));
  EXPECT_EQ(lines[1],
            "     PID     TID     PY   CPU%  HELD% OFFCPU%  WAIT%   WQ    ACQ/s  WAITp99  LONGEST"
            "  BLOCKER  NAME");
  EXPECT_EQ(lines[2],
            "     100       -   3.11  100.0  100.0     0.0  100.0    1       10    100ms    100ms"
            "      102  a web?[2J");
  EXPECT_EQ(lines[3],
            "     300       -  3.14t  100.0      -       -      -    0        -        -        -"
            "        -  nogil");
  EXPECT_EQ(lines[4], "");
}

TEST(Batch, ThreadsIdleOnesAndTimes) {
  const auto lines =
      lines_of(batch_text(a_second(), {.threads = true, .idle = true, .timestamp = true}));
  ASSERT_THAT(lines, SizeIs(2 + 3 + 5 + 1));
  EXPECT_EQ(lines[3],
            "12:04:31      100     101      -   50.0   50.0     0.0   50.0    -        5    100ms"
            "    100ms      102  worker");
  for (size_t i = 2; i + 1 < lines.size(); i++) {
    EXPECT_EQ(lines[i].substr(0, 9), "12:04:31 ");
    std::istringstream in(lines[i]);
    std::vector<std::string> fields;
    for (std::string field; in >> field;) fields.push_back(field);
    EXPECT_GE(fields.size(), 14u) << lines[i];
  }
}

TEST(Batch, SortsByEachKey) {
  for (const char* key : {"wait", "cpu", "held", "off", "waiters", "acquires", "p99", "longest"}) {
    ASSERT_TRUE(column_of_key(key)) << key;
    const auto lines =
        lines_of(batch_text(a_second(), {.sort = *column_of_key(key), .idle = true}));
    EXPECT_THAT(lines.at(2), HasSubstr(" 100 ")) << key;
    EXPECT_THAT(sort_keys_help(), HasSubstr(key));
  }
  EXPECT_THAT(lines_of(batch_text(a_second(), {.sort = LiveColumn::name, .idle = true})).at(3),
              HasSubstr("idle"));
  EXPECT_FALSE(column_of_key("colour"));
}

TEST(Batch, SampledFiguresAreMarked) {
  LiveFrame frame = a_second();
  frame.interval.processes[0].exact = false;
  const auto lines = lines_of(batch_text(frame, {}));
  EXPECT_EQ(lines[2],
            "     100       -   3.11  100.0 ~100.0    ~0.0  100.0    1        -    100ms    100ms"
            "      102  a web?[2J");
  EXPECT_THAT(batch_text(frame, {}), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace giltop
