// The pages of the live view that are read: help and notes.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "view/live_columns.h"
#include "view/live_keys.h"
#include "view/live_parts.h"

namespace giltop {
namespace {

// Words in lines, from a column on.
void add_wrapped(Page& page, unsigned from, const std::string& text) {
  const unsigned room = page.columns() - from;
  std::string line;
  size_t at = 0;
  const auto flush = [&] {
    page.add().put(from, 0, line);
    line.clear();
  };
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    std::string word = text.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && columns_of(line) + 1 + columns_of(word) > room) flush();
    // One that fills lines of its own.
    while (columns_of(word) > room) {
      std::vector<Cell> cells = cells_of(word);
      size_t fits = room;
      if (cells[fits].width == 0) fits--;
      size_t bytes = 0;
      for (size_t i = 0; i < fits; i++) bytes += cells[i].text.size();
      std::string clean;
      for (const Cell& cell : cells) clean += cell.text;
      line = clean.substr(0, bytes);
      word = clean.substr(bytes);
      flush();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  if (!line.empty() || text.empty()) flush();
}

void add_pair(Page& page, unsigned width, const std::string& what, Style style,
              const std::string& text) {
  Page wrapped(page.columns());
  add_wrapped(wrapped, width, text);
  bool first = true;
  for (const Screen& line : wrapped.lines()) {
    Screen& out = page.add();
    out.copy_row(line, 0, 0);
    if (first) out.put(1, 0, what, style, width - 2);
    first = false;
  }
}

void add_keys(Page& page, LiveState::View view) {
  for (const KeyHelp& help : help_of(view)) add_pair(page, 16, help.keys, Style::key, help.does);
}

}  // namespace

TitledPage help_page(const LiveState& state, unsigned columns) {
  TitledPage out{"Help: who holds the GIL, who waits for it, and what the holder does meanwhile",
                 "", Page(columns)};
  Page& page = out.page;
  page.add("");
  page.add("Keys of the table", Style::bold);
  add_keys(page, LiveState::View::table);
  add_pair(page, 16, "mouse", Style::key,
           "a click selects a row, unfolds it at its mark, sorts by a column's head (again: "
           "inverts), presses a key of the bottom line");
  page.add("");
  page.add("Keys of the detail", Style::bold);
  add_keys(page, LiveState::View::detail);
  page.add("");
  page.add("States, in bars and timelines", Style::bold);
  for (size_t i = 0; i < kBarStates; i++) {
    const StateGlyph& glyph = glyph_of(static_cast<BarState>(i));
    add_pair(page, 16, state.letters ? glyph.letter : glyph.block, glyph.style, glyph.meaning);
  }
  add_wrapped(page, 1,
              "A thread's bar is its time in the interval. A process's is its threads' together; "
              "their sleep only fills up what they leave of the interval.");
  page.add("");
  page.add("Columns", Style::bold);
  for (size_t i = 0; i < kLiveColumns; i++) {
    const ColumnFacts& facts = facts_of(static_cast<LiveColumn>(i));
    add_pair(page, 16, facts.head, Style::normal, facts.meaning);
  }
  page.add("");
  add_wrapped(page, 1,
              "What lasts counts while it lasts: a wait with +, and \"holding 9.8s asleep\" where "
              "the blocker stands. ~ marks what was sampled (light mode). Percents are of the "
              "interval; a process's are the sums over its threads. Red is only what is wrong: "
              "asleep or preempted with the GIL, and events lost.");
  return out;
}

TitledPage notes_page(const LiveFrame& frame, const LiveState& state, unsigned columns) {
  TitledPage out{"Notes", "", Page(columns)};
  Page& page = out.page;
  page.add("");
  if (frame.notes.empty()) {
    page.add(" Nothing was left out.", Style::dim);
  } else {
    page.add(" Not traced, or not all of it", Style::bold);
    for (const std::string& note : frame.notes) add_wrapped(page, 1, note);
  }
  page.add("");
  page.add(" This run", Style::bold);
  const Snapshot& s = frame.interval;
  const auto add = [&](const char* what, const std::string& text, Style style = Style::normal) {
    Screen& line = page.add();
    line.put(1, 0, what, Style::dim);
    line.put(16, 0, text, style);
  };
  add("host", frame.host);
  add("kernel", "Linux " + s.run.kernel);
  add("mode", mode_text(s));
  add("refresh", fmt::format("{:g} s", state.delay_s));
  add("overhead",
      fmt::format("about {} ({} probe hits{})", overhead_text(s), format_count(s.run.probe_hits),
                  s.run.other_probe_hits == 0
                      ? std::string()
                      : fmt::format(", and {} in other processes of the same Python",
                                    format_count(s.run.other_probe_hits))));
  add("giltop's CPU", fmt::format("{:.1f} %", frame.giltop_cpu * 100));
  add("events", format_rate(frame.events_per_s) + " a second");
  std::string kinds;
  for (size_t i = 0; i < kRecordKinds.size(); i++)
    if (s.lost_by_kind[i] != 0)
      kinds += fmt::format("{}{} {}", kinds.empty() ? ": " : ", ", format_count(s.lost_by_kind[i]),
                           kRecordKinds[i]);
  add("lost events", format_count(frame.lost_events) + kinds,
      frame.lost_events == 0 ? Style::normal : Style::bad);
  if (s.violations != 0)
    add("contradictions",
        format_count(s.violations) + ": do not trust these figures, and please report it",
        Style::bad);
  if (s.memory_disagreements != 0)
    add("readings", fmt::format("{} of a process's memory proved wrong: what rested on them is "
                                "unknown",
                                format_count(s.memory_disagreements)));
  return out;
}

}  // namespace giltop
