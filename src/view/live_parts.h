// The parts of the live view's screen, one file each.
#pragma once

#include <string>
#include <vector>

#include "view/live.h"
#include "view/live_figures.h"
#include "view/live_state.h"
#include "view/screen.h"

namespace giltop {

// Lines of a page that scrolls.
class Page {
 public:
  explicit Page(unsigned columns) : columns_(columns) {}
  unsigned columns() const { return columns_; }
  Screen& add() { return lines_.emplace_back(columns_, 1); }  // until the next add()
  void add(std::string_view text, Style style = Style::normal) { add().put(0, 0, text, style); }
  const std::vector<Screen>& lines() const { return lines_; }

 private:
  unsigned columns_;
  std::vector<Screen> lines_;
};

// Rows `top` to `bottom` (not with it) of the screen, the heads included.
void draw_table(Screen& screen, const LiveFrame& frame, LiveState& state, unsigned top,
                unsigned bottom);
void draw_sort_choice(Screen& screen, LiveState& state, unsigned top, unsigned bottom);

// `title` is what it is of, `right` stands at the end of that line.
struct TitledPage {
  std::string title, right;
  Page page;
};
TitledPage detail_page(const LiveFrame& frame, const LiveState& state, unsigned columns);
TitledPage help_page(const LiveState& state, unsigned columns);
TitledPage notes_page(const LiveFrame& frame, const LiveState& state, unsigned columns);

// Overhead of the interval as "0.3 %".
std::string overhead_text(const Snapshot& interval);
std::string mode_text(const Snapshot& interval);
// The worst hold that lasts, of one process or of all: "21877 has held the GIL for 9.8s, asleep: 7
// threads wait (gunicorn)". Empty: none.
struct Finding {
  std::string text;
  Style style = Style::bold;
};
Finding finding_of(const Snapshot& interval, uint64_t process = 0);

}  // namespace giltop
