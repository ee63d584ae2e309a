#include "view/live_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "view/live_columns.h"
#include "view/live_rows.h"

namespace giltop {
namespace {

using Kind = Input::Kind;
using Prompt = LiveState::Prompt;

constexpr size_t kMostTyped = 200;                                      // bytes
constexpr uint32_t kClear = 'u' - 'a' + 1, kClearWord = 'w' - 'a' + 1;  // with Ctrl

std::vector<LiveColumn> sortable() {
  std::vector<LiveColumn> columns;
  for (size_t i = 0; i < kLiveColumns; i++)
    if (facts_of(static_cast<LiveColumn>(i)).key) columns.push_back(static_cast<LiveColumn>(i));
  return columns;
}

void append(std::string& text, uint32_t c) {
  const auto byte = [&](uint32_t b) { text += static_cast<char>(b); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xc0 | c >> 6);
    byte(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    byte(0xe0 | c >> 12);
    byte(0x80 | (c >> 6 & 0x3f));
    byte(0x80 | (c & 0x3f));
  } else if (c < 0x110000) {
    byte(0xf0 | c >> 18);
    byte(0x80 | (c >> 12 & 0x3f));
    byte(0x80 | (c >> 6 & 0x3f));
    byte(0x80 | (c & 0x3f));
  }
}

void erase_last(std::string& text) {
  while (!text.empty() && (static_cast<unsigned char>(text.back()) & 0xc0) == 0x80) text.pop_back();
  if (!text.empty()) text.pop_back();
}

// Whether it changed what is typed.
bool edit(LiveState& state, const Input& input) {
  std::string& text = state.typed;
  if (input.kind == Kind::backspace || input.kind == Kind::del) {
    erase_last(text);
  } else if (input.kind == Kind::character && input.number == kClear) {
    text.clear();
  } else if (input.kind == Kind::character && input.number == kClearWord) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    while (!text.empty() && text.back() != ' ') erase_last(text);
  } else if (input.kind == Kind::character && input.number >= ' ' && input.number != 0x7f &&
             !(input.number >= 0xd800 && input.number < 0xe000) && text.size() < kMostTyped) {
    append(text, input.number);
  } else {
    return false;
  }
  return true;
}

// The first match from the place where the search began, or behind the present one; around the end.
void search(LiveState& state, const LiveFrame& frame, bool next) {
  if (state.typed.empty()) {
    state.selected = state.search_origin;
    return;
  }
  std::vector<LiveRow> rows = live_rows(frame, state);
  if (rows.empty()) return;
  if (!next) state.selected = state.search_origin;
  const size_t from = selected_index(rows, state) + (next ? 1 : 0);
  for (size_t i = 0; i < rows.size(); i++) {
    const LiveRow& row = rows[(from + i) % rows.size()];
    if (!matches(row, state.typed)) continue;
    state.selected = row.id;
    return;
  }
  // Folded threads are found, too.
  for (const LiveRow& row : rows) {
    if (row.id.kind != RowId::Kind::process || !row.foldable) continue;
    for (const ThreadSnapshot& t : row.process->threads) {
      LiveRow inside;
      inside.process = row.process;
      inside.thread = &t;
      if (!matches(inside, state.typed)) continue;
      state.unfolded[row.id.process] = true;
      state.selected = id_of(*row.process, t);
      return;
    }
  }
  state.message = "Nothing matches.";
}

void set_delay(LiveState& state) {
  std::string text = state.typed;
  std::replace(text.begin(), text.end(), ',', '.');
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(seconds >= kLeastDelay_s && seconds <= kMostDelay_s)) {
    state.message = fmt::format("A delay is {} to {} seconds.", kLeastDelay_s, kMostDelay_s);
    return;
  }
  state.delay_s = seconds;
}

void choose_sort(LiveState& state, const Input& input) {
  const std::vector<LiveColumn> columns = sortable();
  const bool up = input.kind == Kind::up || input.kind == Kind::wheel_up ||
                  (input.kind == Kind::character && input.number == 'k');
  const bool down = input.kind == Kind::down || input.kind == Kind::wheel_down ||
                    (input.kind == Kind::character && input.number == 'j');
  if (up && state.choice > 0) state.choice--;
  if (down && state.choice + 1 < columns.size()) state.choice++;
  if (input.kind == Kind::home || input.kind == Kind::page_up) state.choice = 0;
  if (input.kind == Kind::end || input.kind == Kind::page_down) state.choice = columns.size() - 1;
  if (input.kind == Kind::enter) {
    state.sort = columns[std::min(state.choice, columns.size() - 1)];
    state.inverted = false;
  }
  const bool quits = input.kind == Kind::character && input.number == 'q';
  if (input.kind == Kind::enter || input.kind == Kind::escape || quits ||
      input.kind == Kind::function)
    state.prompt = Prompt::none;
}

}  // namespace

void ask(LiveState& state, Prompt prompt) {
  state.prompt = prompt;
  state.typed = prompt == Prompt::filter ? state.filter : std::string();
  state.typed_before = state.filter;
  state.search_origin = state.selected;
  if (prompt == Prompt::delay) state.typed = fmt::format("{:g}", state.delay_s);
}

void ask_sort(LiveState& state) {
  const std::vector<LiveColumn> columns = sortable();
  state.prompt = Prompt::sort;
  const auto at = std::find(columns.begin(), columns.end(), state.sort);
  state.choice = at == columns.end() ? 0 : static_cast<size_t>(at - columns.begin());
}

void answer(LiveState& state, const Input& input, const LiveFrame& frame) {
  if (state.prompt == Prompt::sort) {
    choose_sort(state, input);
    return;
  }
  if (input.kind == Kind::escape) {
    if (state.prompt == Prompt::search) state.selected = state.search_origin;
    if (state.prompt == Prompt::filter) state.filter = state.typed_before;
    state.prompt = Prompt::none;
    return;
  }
  if (input.kind == Kind::enter) {
    if (state.prompt == Prompt::delay) set_delay(state);
    state.prompt = Prompt::none;
    return;
  }
  const bool again =
      input.kind == Kind::down || (input.kind == Kind::function && input.number == 3);
  if (state.prompt == Prompt::search && again) {
    search(state, frame, true);
    return;
  }
  if (!edit(state, input)) return;
  if (state.prompt == Prompt::search) search(state, frame, false);
  if (state.prompt == Prompt::filter) state.filter = state.typed;
}

}  // namespace giltop
