// Each key of the live view, prompts and the mouse; that the help tells of every key, and the
// truth.
#include "view/live_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "support/live_frames.h"
#include "support/screen_checks.h"
#include "view/live_layout.h"
#include "view/live_rows.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using testing::text_of;
using testing::web_host;
using Kind = Input::Kind;
using View = LiveState::View;
using Prompt = LiveState::Prompt;

class LiveKeys : public ::testing::Test {
 protected:
  Action key(Kind kind) { return press_and_show({kind}); }
  Action key(char c) { return press_and_show({Kind::character, static_cast<unsigned char>(c)}); }
  Action function(unsigned n) { return press_and_show({Kind::function, n}); }
  void type(const std::string& text) {
    for (const char c : text) key(c);
  }
  Action click(unsigned column, unsigned row) {
    return press_and_show({Kind::click, 0, column, row});
  }
  Action press_and_show(const Input& input) {
    const Action action = press(state_, input, frame_);
    show();
    return action;
  }
  std::string show() {
    const Screen screen = live_screen(frame_, state_, 120, 24);
    testing::expect_sound(screen);
    return text_ = text_of(screen);
  }
  uint32_t selected_id() {
    const std::vector<LiveRow> rows = live_rows(frame_, state_);
    const LiveRow& row = rows[selected_index(rows, state_)];
    return row.thread ? row.thread->tid : row.gil ? 0 : row.process->pid;
  }
  void SetUp() override { show(); }

  LiveFrame frame_ = web_host();
  LiveState state_;
  std::string text_;
};

TEST_F(LiveKeys, MoveTheCursor) {
  EXPECT_EQ(selected_id(), 20313u);
  key(Kind::down);
  EXPECT_EQ(selected_id(), 20877u);
  key('j');
  EXPECT_EQ(selected_id(), 21990u);
  key('k');
  key(Kind::up);
  EXPECT_EQ(selected_id(), 20313u);
  key(Kind::up);
  EXPECT_EQ(selected_id(), 20313u) << "there is nothing above";
  key(Kind::end);
  EXPECT_EQ(selected_id(), 30001u);
  key(Kind::down);
  EXPECT_EQ(selected_id(), 30001u);
  key(Kind::home);
  EXPECT_EQ(selected_id(), 20313u);
  EXPECT_FALSE(state_.selected) << "whoever is first";
  key(Kind::page_down);
  EXPECT_EQ(selected_id(), 30001u);
  key(Kind::page_up);
  EXPECT_EQ(selected_id(), 20313u);
}

TEST_F(LiveKeys, Sort) {
  key('P');
  EXPECT_EQ(state_.sort, LiveColumn::cpu);
  EXPECT_EQ(selected_id(), 21990u);
  key('G');
  EXPECT_EQ(state_.sort, LiveColumn::held);
  key('N');
  EXPECT_EQ(state_.sort, LiveColumn::pid);
  EXPECT_EQ(selected_id(), 20313u);
  key('I');
  EXPECT_TRUE(state_.inverted);
  EXPECT_EQ(selected_id(), 30001u);
  key('W');
  EXPECT_EQ(state_.sort, LiveColumn::wait);
  EXPECT_FALSE(state_.inverted);
  EXPECT_EQ(selected_id(), 20313u);
  key('<');
  EXPECT_EQ(state_.sort, LiveColumn::off_cpu);
  key('>');
  key('>');
  EXPECT_EQ(state_.sort, LiveColumn::waiters);
  state_.sort = LiveColumn::blocker;
  key('>');
  EXPECT_EQ(state_.sort, LiveColumn::pid) << "the bar is not to sort by; then around";
  key('<');
  EXPECT_EQ(state_.sort, LiveColumn::blocker);
}

TEST_F(LiveKeys, ChooseTheColumnToSortBy) {
  function(6);
  EXPECT_EQ(state_.prompt, Prompt::sort);
  EXPECT_THAT(text_, HasSubstr("Sort by"));
  key(Kind::up);
  key('k');
  key('j');
  key(Kind::enter);
  EXPECT_EQ(state_.sort, LiveColumn::off_cpu);
  EXPECT_EQ(state_.prompt, Prompt::none);
  function(6);
  key(Kind::home);
  key(Kind::escape);
  EXPECT_EQ(state_.sort, LiveColumn::off_cpu);
  function(6);
  key(Kind::end);
  key(Kind::enter);
  EXPECT_EQ(state_.sort, LiveColumn::history);
  function(6);
  click(3, 4);
  EXPECT_EQ(state_.sort, LiveColumn::pid);
  EXPECT_EQ(state_.prompt, Prompt::none);
}

TEST_F(LiveKeys, FoldAndUnfold) {
  const size_t folded = state_.rows.size();
  key('+');
  EXPECT_EQ(state_.rows.size(), folded + 4);
  EXPECT_THAT(text_, HasSubstr("▾ gunicorn"));
  key('-');
  EXPECT_EQ(state_.rows.size(), folded);
  key(Kind::right);
  key(Kind::down);
  EXPECT_EQ(selected_id(), 20319u);
  key(Kind::left);
  EXPECT_EQ(state_.rows.size(), folded);
  EXPECT_EQ(selected_id(), 20313u) << "a thread's process";
  key('H');
  EXPECT_EQ(state_.rows.size(), folded + 12);
  key('H');
  EXPECT_EQ(state_.rows.size(), folded);
}

TEST_F(LiveKeys, TreeOrList) {
  key('t');
  EXPECT_FALSE(state_.tree);
  key('H');
  EXPECT_EQ(state_.rows.size(), 10u);
  EXPECT_THAT(text_, HasSubstr("TID"));
  key('+');
  EXPECT_THAT(text_, HasSubstr("t makes it a tree"));
  function(5);
  EXPECT_TRUE(state_.tree);
}

TEST_F(LiveKeys, IdleOnes) {
  key('H');
  EXPECT_THAT(text_, HasSubstr("asyncio_0"));
  key('i');
  EXPECT_THAT(text_, ::testing::Not(HasSubstr("asyncio_0")));
  key('i');
  EXPECT_THAT(text_, HasSubstr("asyncio_0"));
}

TEST_F(LiveKeys, MessagesMakeRoomAgain) {
  key('i');
  EXPECT_THAT(text_, HasSubstr("Idle ones are hidden."));
  frame_.interval.last_ns += 2'000'000'000;
  EXPECT_THAT(show(), HasSubstr("Idle ones are hidden."));
  frame_.interval.last_ns += 2'000'000'000;
  EXPECT_THAT(show(), HasSubstr("has held the GIL"));
}

TEST_F(LiveKeys, Search) {
  key('/');
  EXPECT_EQ(state_.prompt, Prompt::search);
  type("celx");
  EXPECT_THAT(text_, HasSubstr("Search: celx"));
  EXPECT_THAT(text_, HasSubstr("Nothing matches."));
  key(Kind::backspace);
  EXPECT_EQ(selected_id(), 20877u);
  key(Kind::enter);
  EXPECT_EQ(state_.prompt, Prompt::none);
  EXPECT_EQ(selected_id(), 20877u);
  function(3);
  type("gun");
  EXPECT_EQ(selected_id(), 20313u);
  key(Kind::escape);
  EXPECT_EQ(selected_id(), 20877u) << "back to where it was";
  // A thread of a folded process; and the next.
  key('/');
  type("threadpool");
  EXPECT_EQ(selected_id(), 20319u);
  function(3);
  EXPECT_EQ(selected_id(), 21877u);
  function(3);
  EXPECT_EQ(selected_id(), 20319u);
  key('q');
  EXPECT_EQ(state_.typed, "threadpoolq") << "keys are letters here";
}

TEST_F(LiveKeys, Filter) {
  key('\\');
  type("cele");
  EXPECT_EQ(state_.rows.size(), 1u);
  key(Kind::enter);
  EXPECT_EQ(state_.rows.size(), 1u);
  function(4);
  type("zzz");
  EXPECT_THAT(text_, HasSubstr("nothing matches \"celezzz\""));
  key(Kind::escape);
  EXPECT_EQ(state_.filter, "cele") << "as it was";
  key(Kind::escape);
  EXPECT_EQ(state_.rows.size(), 4u);
}

TEST_F(LiveKeys, LineEditing) {
  key('\\');
  type("one two");
  press_and_show({Kind::character, 'w' - 'a' + 1});
  EXPECT_EQ(state_.typed, "one ");
  press_and_show({Kind::character, 0x65e5});
  EXPECT_EQ(state_.typed, "one 日");
  key(Kind::backspace);
  key(Kind::del);
  EXPECT_EQ(state_.typed, "one");
  press_and_show({Kind::character, 'u' - 'a' + 1});
  EXPECT_EQ(state_.typed, "");
  key(Kind::backspace);
  press_and_show({Kind::character, 27});
  EXPECT_EQ(state_.typed, "") << "no control characters";
  for (int i = 0; i < 500; i++) key('x');
  EXPECT_LE(state_.typed.size(), 203u);
}

TEST_F(LiveKeys, Delay) {
  key('d');
  EXPECT_THAT(text_, HasSubstr("Seconds a refresh: 1"));
  key(Kind::backspace);
  type("2,5");
  key(Kind::enter);
  EXPECT_EQ(state_.delay_s, 2.5);
  for (const char* bad : {"0", "x", "", "1e9", "nan", "-1", "3 "}) {
    key('d');
    press_and_show({Kind::character, 'u' - 'a' + 1});
    type(bad);
    key(Kind::enter);
    EXPECT_EQ(state_.delay_s, 2.5) << bad;
    EXPECT_THAT(text_, HasSubstr("A delay is 0.1 to 3600 seconds")) << bad;
  }
  key('d');
  type("7");
  key(Kind::escape);
  EXPECT_EQ(state_.delay_s, 2.5);
}

TEST_F(LiveKeys, Tag) {
  key(' ');
  EXPECT_EQ(state_.tagged.size(), 1u);
  EXPECT_EQ(selected_id(), 20877u) << "on to the next";
  EXPECT_THAT(text_, HasSubstr("tagged "));
  EXPECT_THAT(text_, HasSubstr("20313*"));
  key(' ');
  EXPECT_EQ(state_.tagged.size(), 2u);
  key(Kind::up);
  key(' ');
  EXPECT_EQ(state_.tagged.size(), 1u) << "again: no more";
  key('U');
  EXPECT_TRUE(state_.tagged.empty());
  EXPECT_THAT(text_, HasSubstr("GIL time"));
}

TEST_F(LiveKeys, WhatTheLoopDoes) {
  key('Z');
  EXPECT_TRUE(state_.paused);
  EXPECT_THAT(text_, HasSubstr("PAUSED"));
  key('Z');
  EXPECT_FALSE(state_.paused);
  key('a');
  EXPECT_TRUE(state_.accumulated);
  key('a');
  EXPECT_FALSE(state_.accumulated);
  EXPECT_EQ(key('r'), Action::reset);
  EXPECT_EQ(key(Kind::redraw), Action::redraw);
  EXPECT_EQ(key('q'), Action::quit);
  EXPECT_EQ(function(10), Action::quit);
  EXPECT_EQ(key(Kind::hangup), Action::quit);
  EXPECT_EQ(key(Kind::resize), Action::none);
  key('/');
  EXPECT_EQ(function(10), Action::quit) << "also out of a prompt";
}

TEST_F(LiveKeys, Detail) {
  key(Kind::enter);
  EXPECT_EQ(state_.view, View::detail);
  EXPECT_EQ(state_.watched, frame_.interval.processes[0].number);
  EXPECT_THAT(text_, HasSubstr("20313 gunicorn: worker [api] · Python 3.12.7"));
  EXPECT_THAT(text_, HasSubstr("20 ms a column"));
  key('+');
  EXPECT_THAT(text_, HasSubstr("10 ms a column"));
  key('+');
  key(Kind::right);
  EXPECT_THAT(text_, HasSubstr("5 ms a column"));
  for (int i = 0; i < 6; i++) key('-');
  EXPECT_THAT(text_, HasSubstr("100 ms a column"));
  key(Kind::left);
  EXPECT_EQ(state_.column_ns, 100'000'000u);
  key(Kind::down);
  EXPECT_EQ(state_.page_scroll, 1u);
  key('k');
  EXPECT_EQ(state_.page_scroll, 0u);
  key(Kind::end);
  EXPECT_EQ(state_.page_scroll, state_.page_rows - state_.page);
  EXPECT_THAT(text_, HasSubstr("LONGEST WAITS"));
  key(Kind::home);
  EXPECT_EQ(state_.page_scroll, 0u);
  key(Kind::page_down);
  EXPECT_GT(state_.page_scroll, 1u);
  key(Kind::page_up);
  key('n');
  EXPECT_EQ(state_.view, View::notes);
  key(Kind::escape);
  EXPECT_EQ(state_.view, View::detail);
  for (const Input& back : {Input{Kind::escape}, Input{Kind::character, 'q'}, Input{Kind::enter}}) {
    press_and_show(back);
    EXPECT_EQ(state_.view, View::table);
    EXPECT_EQ(state_.watched, 0u);
    key(Kind::enter);
  }
}

TEST_F(LiveKeys, DetailOfAThread) {
  key(Kind::right);
  key(Kind::down);
  key(Kind::down);
  key(Kind::enter);
  EXPECT_THAT(text_, HasSubstr("20320 日本語のスレッド名前 · of 20313 gunicorn"));
  EXPECT_EQ(state_.watched, frame_.interval.processes[0].number);
}

TEST_F(LiveKeys, HelpAndNotes) {
  for (const Input& help :
       {Input{Kind::function, 1}, Input{Kind::character, '?'}, Input{Kind::character, 'h'}}) {
    press_and_show(help);
    EXPECT_EQ(state_.view, View::help);
    EXPECT_THAT(text_, HasSubstr("Keys of the table"));
    press_and_show(help);
    EXPECT_EQ(state_.view, View::table);
  }
  function(2);
  EXPECT_THAT(text_, HasSubstr("4242 (pypy3): this is PyPy"));
  key('?');
  EXPECT_EQ(state_.view, View::help);
  key('q');
  EXPECT_EQ(state_.view, View::table) << "the one before both";
}

TEST_F(LiveKeys, Mouse) {
  const unsigned first = state_.first_row;
  click(30, first + 2);
  EXPECT_EQ(selected_id(), 21990u);
  click(30, first + 15);
  EXPECT_EQ(selected_id(), 21990u) << "no row there";
  // Heads sort; again inverts.
  ASSERT_FALSE(state_.heads.empty());
  for (const LiveState::Span& head : std::vector(state_.heads)) {
    if (head.column == state_.sort) continue;
    click(head.from, head.row);
    EXPECT_EQ(state_.sort, head.column);
    EXPECT_FALSE(state_.inverted);
    click(head.to - 1, head.row);
    EXPECT_EQ(state_.sort, head.column);
    EXPECT_TRUE(state_.inverted);
  }
  key('W');
  key(Kind::home);
  // The mark of a process unfolds it.
  click(state_.fold_column, first);
  EXPECT_EQ(state_.rows.size(), 8u);
  click(state_.fold_column, first);
  EXPECT_EQ(state_.rows.size(), 4u);
  press_and_show({Kind::wheel_down});
  EXPECT_EQ(selected_id(), 30001u);
  press_and_show({Kind::wheel_up});
  EXPECT_EQ(selected_id(), 20313u);
  // The bottom line's keys.
  const auto press_label = [&](const std::string& label) {
    const std::string line = live_screen(frame_, state_, 120, 24).row_text(23);
    return click(static_cast<unsigned>(line.find(label)), 23);
  };
  press_label("Help");
  EXPECT_EQ(state_.view, View::help);
  press_label("Esc");
  EXPECT_EQ(state_.view, View::table);
  press_label("Filter");
  EXPECT_EQ(state_.prompt, Prompt::filter);
  key(Kind::escape);
  press_label("Detail");
  EXPECT_EQ(state_.view, View::detail);
  press_and_show({Kind::wheel_down});
  EXPECT_EQ(state_.page_scroll, 3u);
  press_and_show({Kind::wheel_up});
  EXPECT_EQ(state_.page_scroll, 0u);
  EXPECT_EQ(press_label("Quit"), Action::quit);
}

Input input_of(const std::string& name) {
  static const std::map<std::string, Kind> kNames = {
      {"Enter", Kind::enter},    {"Esc", Kind::escape},   {"↑", Kind::up},
      {"↓", Kind::down},         {"←", Kind::left},       {"→", Kind::right},
      {"Home", Kind::home},      {"End", Kind::end},      {"PgUp", Kind::page_up},
      {"PgDn", Kind::page_down}, {"Ctrl-L", Kind::redraw}};
  if (const auto found = kNames.find(name); found != kNames.end()) return {found->second};
  if (name == "Space") return {Kind::character, ' '};
  if (name.size() > 1 && name[0] == 'F')
    return {Kind::function, static_cast<uint32_t>(std::stoul(name.substr(1)))};
  EXPECT_EQ(name.size(), 1u) << name;
  return {Kind::character, static_cast<unsigned char>(name[0])};
}

// A digest of what a key can change.
std::string state_text(const LiveState& s, Action action) {
  std::ostringstream out;
  out << static_cast<int>(action) << s.paused << s.accumulated << s.delay_s << s.watched << s.tree
      << s.threads << s.idle << static_cast<int>(s.sort) << s.inverted << s.filter
      << s.unfolded.size() << s.tagged.size() << s.selected.has_value()
      << (s.selected ? s.selected->number : 0) << static_cast<int>(s.view) << s.page_scroll
      << s.column_ns << static_cast<int>(s.prompt) << s.message;
  return out.str();
}

TEST_F(LiveKeys, EveryKeyOfTheHelpDoesSomething) {
  for (const View view : {View::table, View::detail}) {
    ASSERT_FALSE(help_of(view).empty());
    for (const KeyHelp& help : help_of(view)) {
      EXPECT_FALSE(help.does.empty());
      std::istringstream names(help.keys);
      for (std::string name; names >> name;) {
        state_ = LiveState();
        show();
        // A state in which each has something to do.
        key('\\');
        type("n");
        key(Kind::enter);
        state_.sort = LiveColumn::name;
        key(Kind::down);
        key(' ');
        if (view == View::detail) {
          state_.selected = id_of(frame_.interval.processes[0]);  // has much to tell
          key(Kind::enter);
          live_screen(frame_, state_, 60, 15);
          press(state_, {Kind::down}, frame_);
          live_screen(frame_, state_, 60, 15);
        }
        const std::string before = state_text(state_, Action::none);
        const Action action = press(state_, input_of(name), frame_);
        EXPECT_NE(state_text(state_, action), before) << name << ": " << help.does;
      }
    }
  }
}

TEST_F(LiveKeys, TheHelpTellsOfEveryKeyThatUsersKnow) {
  std::string all;
  for (const KeyHelp& help : help_of(View::table)) all += " " + help.keys + " ";
  for (const char* name :
       {"↑", "↓", "j", "k", "PgUp",  "PgDn", "Home", "End", "<",  ">",   "F6",    "I", "P",
        "W", "G", "N", "/", "F3",    "\\",   "F4",   "t",   "F5", "H",   "i",     "a", "Space",
        "U", "d", "r", "Z", "Enter", "?",    "h",    "F1",  "q",  "F10", "Ctrl-L"})
    EXPECT_THAT(all, HasSubstr(" " + std::string(name) + " "));
  // No key means two things.
  for (const View view : {View::table, View::detail, View::help}) {
    std::set<std::string> seen;
    for (const KeyHelp& help : help_of(view)) {
      std::istringstream names(help.keys);
      for (std::string name; names >> name;) EXPECT_TRUE(seen.insert(name).second) << name;
    }
  }
}

TEST_F(LiveKeys, NothingToBeOnIsNoHarm) {
  frame_ = LiveFrame();
  for (const View view : {View::table, View::detail, View::help})
    for (const KeyHelp& help : help_of(view)) {
      std::istringstream names(help.keys);
      for (std::string name; names >> name;) press_and_show(input_of(name));
    }
}

}  // namespace
}  // namespace giltop
