// Every key of the live view's help, and the mouse, in a terminal over programs that run: whether
// each does on the screen what the help says. A key that is not pressed here is a failure.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

#include "base/fd.h"
#include "support/live_view.h"
#include "view/live_keys.h"

namespace giltop::testing {
namespace {

using View = LiveState::View;

constexpr unsigned kColumns = 140, kRows = 15;
constexpr unsigned kPage = kRows - 5;       // of the table's rows
constexpr unsigned kPageLines = kRows - 3;  // of the detail and the help

std::string view_name(View view) {
  return view == View::table ? "table" : view == View::detail ? "detail" : "pages";
}

std::string without_colours(const std::string& text) {
  static const std::regex escapes("\x1b\\[[0-9;]*m");
  return std::regex_replace(text, escapes, "");
}

class LiveKeysView : public LiveView {
 protected:
  struct Cursor {
    unsigned line;  // of the table's rows on the screen
    int id;
    bool operator==(const Cursor&) const = default;
  };

  void SetUp() override;
  void TearDown() override;
  void begin();
  void expect_over() { expect_given_back(*terminal_, modes_); }

  // Presses what the help of this view calls `name`.
  void key(View view, const std::string& name);
  void type(const std::string& text) { terminal_->press({text, "Enter"}); }
  void click(unsigned column, unsigned row) { mouse(0, column, row); }
  void click_on(const std::string& text, size_t from_row = 0);
  void wheel_down() { mouse(65, 20, 8); }
  void wheel_up() { mouse(64, 20, 8); }

  void until(const std::string& what, const std::function<bool()>& is);
  void shows(const std::string& text);
  void shows_no_more(const std::string& text);
  void cursor_is_at(unsigned line);
  void sorted_by(const std::string& head);
  void begins_with_line(size_t line);

  std::vector<int> ids() const { return Picture(terminal_->screen()).ids(); }
  std::optional<Cursor> cursor() const;
  std::string sorted() const;
  double sum_s() const;
  // Of a page that scrolls: its first and last line on the screen, and how many there are.
  std::optional<std::array<size_t, 3>> place() const;

  void scrolls(View view);
  void sums_up(View view);
  void stands_still(View view);
  void redraws(View view);
  void opens_pages(View view);

  void moves_in_the_table();
  void sorts();
  void folds();
  void searches_and_filters();
  void chooses_what_is_shown();
  void tags();
  void sets_the_delay();
  void zooms();
  void obeys_the_mouse();

  std::unique_ptr<Program> crowd_, asleep_;
  std::vector<int> all_;  // the table's rows, by PID
  std::unique_ptr<Terminal> terminal_;
  std::string modes_;
  std::map<std::string, std::set<std::string>> pressed_;  // by view

 private:
  void mouse(int button, unsigned column, unsigned row);
};

void LiveKeysView::SetUp() {
  LiveView::SetUp();
  if (IsSkipped() || HasFatalFailure()) return;
  // More threads than the screen has rows.
  crowd_ = std::make_unique<Program>(
      std::vector<std::string>{python(), "-c",
                               "import threading\n"
                               "never = threading.Event()\n"
                               "def compute():\n"
                               "    while True: sum(range(1000))\n"
                               "for work in [never.wait] * 12 + [compute] * 2:\n"
                               "    threading.Thread(target=work, daemon=True).start()\n"
                               "print('started', flush=True)\n"
                               "never.wait()\n"});
  ASSERT_TRUE(crowd_->wait_for("started"));
  asleep_ = sleeper();
  std::vector<int> pids = {crowd_->pid(), asleep_->pid()};
  std::sort(pids.begin(), pids.end());
  for (const int pid : pids) {
    all_.push_back(pid);
    for (const int tid : threads_of(pid)) all_.push_back(tid);
  }
  terminal_ = std::make_unique<Terminal>(kColumns, kRows);
}

void LiveKeysView::TearDown() {
  terminal_.reset();
  LiveView::TearDown();
}

// Sorted by PID, with the threads unfolded, as they are of whoever is named.
void LiveKeysView::begin() {
  modes_ = start(*terminal_, "-p " + std::to_string(crowd_->pid()) + "," +
                                 std::to_string(asleep_->pid()) + " -d 0.2 -s pid");
  until("the first rows are there",
        [&] { return ids() == std::vector<int>(all_.begin(), all_.begin() + kPage); });
}

// --- what is done --------------------------------------------------------------------------------

void LiveKeysView::key(View view, const std::string& name) {
  static const std::map<std::string, std::string> kNames = {
      {"↑", "Up"},       {"↓", "Down"},     {"←", "Left"},     {"→", "Right"},
      {"PgUp", "PPage"}, {"PgDn", "NPage"}, {"Esc", "Escape"}, {"Ctrl-L", "C-l"}};
  pressed_[view_name(view)].insert(name);
  const auto found = kNames.find(name);
  terminal_->press({found == kNames.end() ? name : found->second});
}

void LiveKeysView::mouse(int button, unsigned column, unsigned row) {
  // The terminal type's reports: ESC [ M and three bytes. A button is let go, too.
  const auto report = [&](int what) {
    terminal_->send_bytes({'\x1b', '[', 'M', static_cast<char>(32 + what),
                           static_cast<char>(33 + column), static_cast<char>(33 + row)});
  };
  report(button);
  if (button == 0) report(3);
}

void LiveKeysView::click_on(const std::string& text, size_t from_row) {
  const auto at = Picture(terminal_->screen()).find(text, from_row);
  ASSERT_TRUE(at) << text << " is not on the screen\n" << terminal_->screen();
  click(at->first, at->second);
}

// --- what is seen --------------------------------------------------------------------------------

void LiveKeysView::until(const std::string& what, const std::function<bool()>& is) {
  if (terminal_->wait_until(is)) return;
  // What comes next would fail, too, and take its time.
  throw std::runtime_error("not so: " + what + "\n" + terminal_->screen());
}

void LiveKeysView::shows(const std::string& text) {
  until("there is " + text, [&] { return terminal_->screen().find(text) != std::string::npos; });
}

void LiveKeysView::shows_no_more(const std::string& text) {
  until("there is no " + text, [&] { return terminal_->screen().find(text) == std::string::npos; });
}

void LiveKeysView::cursor_is_at(unsigned line) {
  until("the cursor is at row " + std::to_string(line), [&] {
    const auto now = cursor();
    return now && now->line == line;
  });
}

void LiveKeysView::sorted_by(const std::string& head) {
  until("it is sorted by " + head, [&] { return sorted() == head; });
}

void LiveKeysView::begins_with_line(size_t line) {
  until("the page begins with line " + std::to_string(line), [&] {
    const auto now = place();
    return now && (*now)[0] == line;
  });
}

// The row that is painted in the cursor's colours.
std::optional<LiveKeysView::Cursor> LiveKeysView::cursor() const {
  std::istringstream in(terminal_->screen(true));
  bool table = false;
  unsigned line_number = 0;
  for (std::string line; std::getline(in, line);) {
    const std::string text = without_colours(line);
    if (table && line.find("48;5;110") != std::string::npos)
      return Cursor{line_number, std::atoi(text.c_str())};
    if (table) line_number++;
    table = table ||
            (text.find("NAME") != std::string::npos && text.find("WAIT%") != std::string::npos);
  }
  return std::nullopt;
}

// The head that has the mark, and the mark.
std::string LiveKeysView::sorted() const {
  std::istringstream words(terminal_->screen());
  for (std::string word; words >> word;) {
    for (const std::string mark : {"▾", "▴"}) {
      const size_t at = word.find(mark);
      if (at == std::string::npos || word.size() == mark.size()) continue;
      return word.erase(at, mark.size()) + (mark == "▴" ? " ascending" : "");
    }
  }
  return {};
}

double LiveKeysView::sum_s() const {
  const std::string screen = terminal_->screen();
  const size_t at = screen.find("SUM of ");
  if (at == std::string::npos) return -1;
  char* unit = nullptr;
  const double number = std::strtod(screen.c_str() + at + 7, &unit);
  return *unit == 's' ? number : std::string(unit, 2) == "ms" ? number / 1000 : 0;
}

std::optional<std::array<size_t, 3>> LiveKeysView::place() const {
  static const std::regex text("([0-9]+)–([0-9]+) of ([0-9]+)");
  const std::string screen = terminal_->screen();
  std::smatch found;
  if (!std::regex_search(screen, found, text)) return std::nullopt;
  return std::array{std::stoul(found[1]), std::stoul(found[2]), std::stoul(found[3])};
}

// --- keys of more than one view ------------------------------------------------------------------

void LiveKeysView::scrolls(View view) {
  key(view, "↓");
  begins_with_line(2);
  key(view, "j");
  begins_with_line(3);
  key(view, "k");
  begins_with_line(2);
  key(view, "↑");
  begins_with_line(1);
  key(view, "PgDn");
  begins_with_line(kPageLines);
  key(view, "PgUp");
  begins_with_line(1);
  key(view, "End");
  until("the last line is there", [&] {
    const auto now = place();
    return now && (*now)[0] > 1 && (*now)[1] == (*now)[2];
  });
  key(view, "Home");
  begins_with_line(1);
}

void LiveKeysView::sums_up(View view) {
  key(view, "a");
  until("there are sums of a second", [&] { return sum_s() >= 1; });
  // However late that is shown: of what was before it is a second less.
  const auto pressed = std::chrono::steady_clock::now();
  key(view, "r");
  until("the sums are new", [&] {
    const double sum = sum_s();
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - pressed;
    return sum >= 0 && sum < since.count() + 0.5;
  });
  key(view, "a");
  shows_no_more("SUM of");
}

void LiveKeysView::stands_still(View view) {
  key(view, "Z");
  shows("PAUSED");
  const std::string frozen = terminal_->screen();
  redraws(view);
  EXPECT_TRUE(terminal_->wait_until([&] { return terminal_->screen() == frozen; }))
      << "it was\n"
      << frozen << "and is\n"
      << terminal_->screen();
  key(view, "Z");
  shows_no_more("PAUSED");
}

// Of what somebody else wrote nothing is left.
void LiveKeysView::redraws(View view) {
  {
    const Fd tty(open(terminal_->format("#{pane_tty}").c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC));
    const std::string scribble = "\x1b[9;100Hscribble";
    ASSERT_EQ(write(tty.get(), scribble.data(), scribble.size()),
              static_cast<ssize_t>(scribble.size()));
  }
  shows("scribble");
  key(view, "Ctrl-L");
  shows_no_more("scribble");
}

// The help and the notes, from the table or the detail.
void LiveKeysView::opens_pages(View view) {
  const std::string here = view == View::table ? "F5 Tree" : "Coarser";
  for (const auto& [open, close] : {std::pair("F1", "h"), {"?", "F1"}, {"h", "?"}}) {
    key(view, open);
    shows("Keys of the table");
    key(View::help, close);
    shows(here);
  }
  for (const auto& [open, close] : {std::pair("n", "Esc"), {"F2", "q"}, {"n", "Enter"}}) {
    key(view, open);
    shows("giltop's CPU");
    key(View::help, close);
    shows(here);
  }
}

// --- keys of the table ---------------------------------------------------------------------------

void LiveKeysView::moves_in_the_table() {
  const View view = View::table;
  key(view, "↓");
  cursor_is_at(1);
  key(view, "j");
  cursor_is_at(2);
  key(view, "k");
  cursor_is_at(1);
  key(view, "↑");
  cursor_is_at(0);
  const auto cursor_is_on = [&](int id) {
    until("the cursor is on " + std::to_string(id), [&] {
      const auto now = cursor();
      return now && now->id == id;
    });
  };
  key(view, "PgDn");
  cursor_is_on(all_[kPage - 1]);
  key(view, "PgUp");
  cursor_is_at(0);
  key(view, "End");
  cursor_is_on(all_.back());
  key(view, "Home");
  cursor_is_at(0);
  cursor_is_on(all_.front());
}

void LiveKeysView::sorts() {
  const View view = View::table;
  const std::pair<const char*, const char*> keys[] = {
      {"P", "CPU%"}, {"W", "WAIT%"}, {"G", "HELD%"}, {"N", "PID ascending"}};
  for (const auto& [name, head] : keys) {
    key(view, name);
    sorted_by(head);
  }
  key(view, "I");
  sorted_by("PID");
  const int highest = std::max(crowd_->pid(), asleep_->pid());
  until("the order is inverted", [&] { return Picture(terminal_->screen()).first() == highest; });
  cursor_is_at(0);
  key(view, "I");
  sorted_by("PID ascending");
  key(view, ">");
  sorted_by("NAME ascending");
  key(view, "<");
  sorted_by("PID ascending");
  key(view, "F6");
  shows("Sort by");
  terminal_->press({"Down", "Enter"});
  shows_no_more("Sort by");
  sorted_by("NAME ascending");
  key(view, "N");
  sorted_by("PID ascending");
}

void LiveKeysView::folds() {
  const View view = View::table;
  const std::vector<int> processes = {crowd_->pid(), asleep_->pid()};
  const int second = std::max(processes[0], processes[1]);
  for (const auto& [fold, unfold] : {std::pair("←", "→"), {"-", "+"}, {"-", "="}}) {
    key(view, fold);
    until("the first process is folded", [&] { return ids().size() > 1 && ids()[1] == second; });
    key(view, unfold);
    until("and not any more", [&] { return ids().size() > 1 && ids()[1] == all_[1]; });
  }
}

void LiveKeysView::searches_and_filters() {
  const View view = View::table;
  const int thread = all_.back();
  for (const auto& [name, text, id] : {std::tuple("/", std::string("sleeper"), asleep_->pid()),
                                       {"F3", std::to_string(thread), thread}}) {
    key(view, name);
    shows("Search:");
    type(text);
    until("it is found", [&] {
      const auto now = cursor();
      return now && now->id == id;
    });
    shows_no_more("Search:");
    key(view, "Home");
    cursor_is_at(0);
  }
  for (const std::string name : {"\\", "F4"}) {
    key(view, name);
    shows("Filter:");
    type("sleeper");
    shows("filter: sleeper");
    until("nothing else is shown",
          [&] { return ids().size() < kPage && ids()[0] == asleep_->pid(); });
    key(view, "Esc");
    shows_no_more("filter: sleeper");
    until("all is shown", [&] { return ids().size() == kPage; });
  }
}

void LiveKeysView::chooses_what_is_shown() {
  const View view = View::table;
  key(view, "H");
  until("threads are folded", [&] { return ids().size() == 2; });
  key(view, "t");
  shows("List of processes");
  key(view, "H");
  shows("TID");
  until("threads are in a list", [&] { return ids().size() == kPage; });
  key(view, "F5");
  shows("Tree.");
  until("the first process is back", [&] { return ids()[0] == all_[0] && ids()[1] == all_[1]; });
  key(view, "i");
  shows("no idle ones");
  // The threads that compute, and who sleeps with the GIL or waits for it.
  until("sleepers are hidden", [&] { return ids().size() < kPage; });
  key(view, "i");
  until("sleepers are shown", [&] { return ids().size() == kPage; });
  shows_no_more("no idle ones");
}

void LiveKeysView::tags() {
  const View view = View::table;
  key(view, "Home");
  cursor_is_at(0);
  key(view, "Space");
  shows("tagged ");
  cursor_is_at(1);
  key(view, "U");
  shows("GIL time");
  key(view, "Home");
}

void LiveKeysView::sets_the_delay() {
  key(View::table, "d");
  shows("Seconds a refresh: 0.2");
  terminal_->press({"C-u"});
  type("0.3");
  shows_no_more("Seconds a refresh");
  key(View::table, "n");
  until("the notes have it",
        [&] { return std::regex_search(terminal_->screen(), std::regex("refresh +0\\.3 s")); });
  key(View::help, "q");
  shows("F5 Tree");
}

// --- the detail and the mouse --------------------------------------------------------------------

void LiveKeysView::zooms() {
  const View view = View::detail;
  shows("20 ms a column");
  const std::pair<const char*, const char*> keys[] = {{"+", "10"}, {"=", "5"},  {"-", "10"},
                                                      {"←", "20"}, {"→", "10"}, {"-", "20"}};
  for (const auto& [name, ms] : keys) {
    key(view, name);
    shows(std::string(" ") + ms + " ms a column");
  }
}

void LiveKeysView::obeys_the_mouse() {
  click_on("CPU%");
  sorted_by("CPU%");
  click_on("CPU%");
  sorted_by("CPU% ascending");
  click_on("PID");
  sorted_by("PID ascending");
  const auto heads = Picture(terminal_->screen()).heads();
  ASSERT_TRUE(heads);
  const auto top = static_cast<unsigned>(*heads) + 1;
  click(30, top + 3);
  cursor_is_at(3);
  wheel_down();
  cursor_is_at(6);
  wheel_up();
  cursor_is_at(3);
  const auto name = Picture(terminal_->screen()).find("NAME");
  click(name->first, top);  // the mark
  const int second = std::max(crowd_->pid(), asleep_->pid());
  until("the first process is folded", [&] { return ids().size() > 1 && ids()[1] == second; });
  click(name->first, top);
  until("and not any more", [&] { return ids().size() > 1 && ids()[1] == all_[1]; });
  click_on("F6 Sort");
  shows("Sort by");
  click_on("WQ", top);  // of the choice
  shows_no_more("Sort by");
  sorted_by("WQ");
  click_on("F1 Help");
  shows("Keys of the table");
  begins_with_line(1);
  wheel_down();
  begins_with_line(4);
  wheel_up();
  begins_with_line(1);
  click_on("Esc Back");
  shows("F5 Tree");
}

TEST_F(LiveKeysView, EveryKeyDoesWhatTheHelpSays) {
  begin();
  moves_in_the_table();
  sorts();
  folds();
  searches_and_filters();
  chooses_what_is_shown();
  tags();
  sets_the_delay();
  sums_up(View::table);
  stands_still(View::table);
  opens_pages(View::table);
  key(View::table, "Home");
  key(View::table, "Enter");
  zooms();
  scrolls(View::detail);
  sums_up(View::detail);
  stands_still(View::detail);
  opens_pages(View::detail);
  for (const std::string name : {"Esc", "q", "Enter"}) {
    key(View::detail, name);
    shows("F5 Tree");
    key(View::table, "Enter");
    shows("a column");
  }
  key(View::detail, "F1");
  shows("Keys of the table");
  scrolls(View::help);
  redraws(View::help);
  key(View::help, "F10");
  expect_over();
  begin();
  obeys_the_mouse();
  key(View::table, "Home");
  key(View::table, "Enter");
  shows("a column");
  key(View::detail, "F10");
  expect_over();
  for (const std::string name : {"q", "F10"}) {
    begin();
    key(View::table, name);
    expect_over();
  }

  for (const View view : {View::table, View::detail, View::help}) {
    std::set<std::string> told;
    for (const KeyHelp& help : help_of(view)) {
      std::istringstream words(help.keys);
      for (std::string word; words >> word;) told.insert(word);
    }
    EXPECT_EQ(pressed_[view_name(view)], told) << "keys of the " << view_name(view);
  }
}

}  // namespace
}  // namespace giltop::testing
