// The table of the live view: processes, their GILs and threads.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "model/verdict.h"
#include "view/live_columns.h"
#include "view/live_parts.h"
#include "view/live_rows.h"

namespace giltop {
namespace {

constexpr double kMuchWait = 10, kSomeOff = 1;  // percent

struct Text {
  std::string text;
  Style style = Style::normal;
};

Text percent_text(double percent, bool sampled = false, double strong = 1e9,
                  Style strong_style = Style::bold) {
  if (percent < 0.05) return {"0.0", Style::dim};
  const std::string figure = fmt::format("{:.{}f}", percent, percent < 999.95 ? 1 : 0);
  return {(sampled ? "~" : "") + figure, percent >= strong ? strong_style : Style::normal};
}

Text duration_text(uint64_t ns) {
  return ns == 0 ? Text{"–", Style::dim} : Text{format_duration(ns), Style::normal};
}

Text figure_text(LiveColumn column, const LiveRow& row) {
  const Figures& f = row.figures;
  const bool sampled = !row.process->exact;
  switch (column) {
    case LiveColumn::pid:
      if (row.gil) return {"", Style::dim};
      if (row.thread)
        return {row.thread->folded != 0 ? "" : std::to_string(row.thread->tid), Style::normal};
      return {row.process->folded != 0 ? "" : std::to_string(row.process->pid), Style::normal};
    case LiveColumn::python: {
      if (row.gil || (row.thread && row.depth != 0)) return {};
      // The patch level tells nothing here; the detail has it.
      const std::string& version = row.process->python;
      const size_t minor = version.find('.');
      const size_t end = minor == std::string::npos ? version.size() : version.find('.', minor + 1);
      return {version.substr(0, end) + (row.process->free_threaded ? "t" : ""), Style::dim};
    }
    case LiveColumn::cpu:
      return row.gil ? Text{} : percent_text(f.cpu);
    case LiveColumn::held:
      return percent_text(f.held, sampled);
    case LiveColumn::off_cpu:
      return percent_text(f.off_cpu, sampled, kSomeOff, Style::bad);
    case LiveColumn::wait:
      return percent_text(f.wait, false, kMuchWait);
    case LiveColumn::waiters:
      if (row.thread) return {};
      if (f.most_waiters == 0) return {"–", Style::dim};
      return {fmt::format("{}/{}", f.waiters, f.most_waiters), Style::normal};
    case LiveColumn::acquires:
      if (sampled) return {"–", Style::dim};  // not counted
      if (f.acquires_per_s == 0) return {"0", Style::dim};
      return {format_rate(f.acquires_per_s), Style::normal};
    case LiveColumn::wait_p99:
      return row.gil ? Text{} : duration_text(f.wait_p99_ns);
    case LiveColumn::longest: {
      if (row.gil && !f.longest_lasts) return {};
      Text text = duration_text(f.longest_ns);
      if (f.longest_lasts) {
        text.text += '+';
        if (f.longest_ns >= kLong_ns) text.style = Style::bold;
      }
      return text;
    }
    default:
      return {};
  }
}

// Who is in the way, or that this one is: the longest text that fits.
Text blocker_text(const LiveRow& row, unsigned width) {
  const Figures& f = row.figures;
  const std::string about = row.process->exact ? "" : "~";
  if (f.hold && (row.thread || f.hold->waiters != 0 || f.hold->off_cpu())) {
    const Style style = f.hold->off_cpu() ? Style::bad : Style::bold;
    const std::string text = about + f.hold->text(), length = about + f.hold->length();
    if (row.thread) {
      for (const std::string& each : {"holding " + text, "holding " + length, "held " + length})
        if (columns_of(each) <= width) return {each, style};
      return {length, style};
    }
    const std::string who = std::to_string(f.hold->tid);
    for (const std::string& each : {who + " " + text, who + " " + length})
      if (columns_of(each) <= width) return {each, style};
    return {who, style};
  }
  if (!f.blocker) return {};
  const std::string who = f.blocker->tid ? std::to_string(*f.blocker->tid) : "unknown";
  const std::string what = f.blocker->what();
  const Style style = f.blocker->off_cpu() ? Style::bad : Style::normal;
  const std::string both = who + (what.empty() ? "" : " " + what);
  return {columns_of(both) <= width ? both : who, style};
}

std::vector<Cell> sparkline(const std::vector<float>& values, uint64_t now_ns, unsigned width) {
  static const char* const kLevels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<Cell> cells(width, Cell{" ", 1, Style::waiting});
  const uint64_t per = (60 + width - 1) / width;  // seconds a column
  const uint64_t now = now_ns / 1'000'000'000;
  float full = 1;
  for (const float value : values) full = std::max(full, std::isfinite(value) ? value : 0);
  std::vector<float> most(width, -1);
  for (size_t i = 0; i < values.size(); i++) {
    // Columns are of fixed times, so that what they show moves but does not change.
    const uint64_t age = values.size() - 1 - i;
    if (age > now) continue;
    const uint64_t back = now / per - (now - age) / per;
    if (back < width) most[width - 1 - back] = std::max(most[width - 1 - back], values[i]);
  }
  for (unsigned i = 0; i < width; i++) {
    if (most[i] < 0) continue;
    const auto level = std::clamp<long>(std::lround(std::ceil(most[i] / full * 8)) - 1, 0, 7);
    cells[i] = {kLevels[level], 1, most[i] < 0.005f ? Style::asleep : Style::waiting};
  }
  return cells;
}

void draw_name(Screen& screen, const LiveRow& row, const LiveState& state, unsigned at,
               unsigned width, unsigned line) {
  unsigned from = at;
  if (state.tree) {
    if (row.depth == 0) {
      if (row.foldable) screen.put(at, line, row.unfolded ? "▾" : "▸", Style::dim);
      from += 2;
    } else {
      from += 3;
    }
  }
  const unsigned room = at + width - from;
  Text name;
  if (row.gil) {
    name.text = fmt::format("GIL 0x{:x}", row.gil->address);
    if (row.gil->interpreter) name.text = fmt::format("GIL interp. {}", *row.gil->interpreter);
    if (row.gil->folded != 0) name.text = format_count(row.gil->folded) + " GILs";
    name.style = Style::dim;
  } else if (row.thread) {
    name.text = title_of(*row.thread);
    if (row.thread->ended || row.thread->folded != 0) name.style = Style::dim;
  } else {
    name.text = title_of(*row.process);
    if (row.process->ended || row.process->folded != 0) name.style = Style::dim;
  }
  const unsigned used = screen.put(from, line, name.text, name.style, room);
  // In a list of threads, whose it is.
  if (row.thread && row.depth == 0 && used + 4 < room)
    screen.put(from + used + 1, line, "· " + title_of(*row.process), Style::dim, room - used - 1);
}

void draw_row(Screen& screen, const LiveFrame& frame, const LiveState& state, const LiveRow& row,
              const std::vector<PlacedColumn>& columns, unsigned line) {
  const bool off = gil_is_off(*row.process);
  unsigned no_gil_from = 0, no_gil_to = 0;  // columns that say nothing without a GIL
  for (const PlacedColumn& p : columns) {
    const bool of_gil = p.column >= LiveColumn::held && p.column <= LiveColumn::blocker;
    if (off && of_gil) {
      if (no_gil_to == 0) no_gil_from = p.from;
      no_gil_to = p.from + p.width;
      continue;
    }
    switch (p.column) {
      case LiveColumn::name:
        draw_name(screen, row, state, p.from, p.width, line);
        break;
      case LiveColumn::states:
        screen.put(p.from, line, bar_of(row.figures.states, p.width, state.letters), p.width);
        break;
      case LiveColumn::history:
        if (const auto found = frame.wait_history.find(row.id.process);
            !row.thread && !row.gil && !off && found != frame.wait_history.end())
          screen.put(p.from, line, sparkline(found->second, frame.interval.last_ns, p.width),
                     p.width);
        break;
      case LiveColumn::blocker: {
        const Text text = blocker_text(row, p.width);
        screen.put(p.from, line, text.text, text.style, p.width);
        break;
      }
      default: {
        const Text text = figure_text(p.column, row);
        if (facts_of(p.column).right) {
          screen.put_right(p.from, line, text.text, text.style, p.width);
        } else {
          screen.put(p.from, line, text.text, text.style, p.width);
        }
        break;
      }
    }
  }
  if (no_gil_to != 0 && !row.thread)
    screen.put(no_gil_from, line, "GIL off: free-threaded build", Style::dim,
               no_gil_to - no_gil_from);
}

void draw_heads(Screen& screen, LiveState& state, const std::vector<PlacedColumn>& columns,
                unsigned line) {
  screen.restyle(0, line, screen.columns(), Style::header);
  for (const PlacedColumn& p : columns) {
    const ColumnFacts& facts = facts_of(p.column);
    const bool sorted = p.column == state.sort;
    const Style style = sorted ? Style::selected : Style::header;
    const std::string head =
        p.column == LiveColumn::pid && !state.tree && state.threads ? "TID" : facts.head;
    if (facts.right) {
      screen.put_right(p.from, line, head, style, p.width);
    } else {
      screen.put(p.from, line, head, style, p.width);
    }
    const bool up = facts.ascending != state.inverted;  // the least first
    const auto used = static_cast<unsigned>(head.size());
    if (sorted && used < p.width)
      screen.put(facts.right ? p.from + p.width - used - 1 : p.from + used, line, up ? "▴" : "▾",
                 style);
    if (facts.key) state.heads.push_back({line, p.from, p.from + p.width + 1, {}, p.column});
  }
}

std::string nothing_text(const LiveFrame& frame, const LiveState& state) {
  if (frame.interval.processes.empty()) return "no Python processes yet";
  if (!state.filter.empty())
    return "nothing matches \"" + state.filter + "\": \\ changes the filter";
  return "all are idle: i shows them";
}

}  // namespace

void draw_table(Screen& screen, const LiveFrame& frame, LiveState& state, unsigned top,
                unsigned bottom) {
  const std::vector<LiveRow> rows = live_rows(frame, state);
  const std::vector<PlacedColumn> columns = place_columns(screen.columns());
  draw_heads(screen, state, columns, top);
  state.first_row = top + 1;
  state.page = bottom - state.first_row;
  state.fold_column = columns[1].from;
  const size_t selected = selected_index(rows, state);
  state.rows.clear();
  for (const LiveRow& row : rows) state.rows.push_back(row.id);

  if (rows.empty()) {
    screen.put(2, top + 2, nothing_text(frame, state), Style::dim);
    state.scroll = 0;
    return;
  }
  // The cursor's row is on the screen, and no more of it empty than must be.
  if (!state.selected) state.scroll = 0;
  state.scroll = std::min(state.scroll, rows.size() - std::min(rows.size(), state.page));
  state.scroll = std::min(state.scroll, selected);
  if (selected >= state.scroll + state.page) state.scroll = selected - state.page + 1;
  for (size_t i = state.scroll; i < rows.size() && i < state.scroll + state.page; i++) {
    const auto line = static_cast<unsigned>(state.first_row + i - state.scroll);
    draw_row(screen, frame, state, rows[i], columns, line);
    if (state.tagged.contains(rows[i].id)) {
      const PlacedColumn& name = columns[1];
      screen.restyle(0, line, name.from + name.width, Style::tagged);
      screen.put(name.from - 1, line, "*", Style::tagged);
    }
    if (i == selected) screen.restyle(0, line, screen.columns(), Style::selected, true);
  }
}

void draw_sort_choice(Screen& screen, LiveState& state, unsigned top, unsigned bottom) {
  std::vector<LiveColumn> columns;
  for (size_t i = 0; i < kLiveColumns; i++)
    if (facts_of(static_cast<LiveColumn>(i)).key) columns.push_back(static_cast<LiveColumn>(i));
  const unsigned width = 11;
  state.choice = std::min(state.choice, columns.size() - 1);
  const unsigned page = bottom - top - 1;
  const size_t first = state.choice < page ? 0 : state.choice - page + 1;
  for (unsigned row = top; row < bottom; row++) screen.put(0, row, std::string(width + 1, ' '));
  screen.put(0, top, "Sort by    ", Style::key);
  for (size_t i = first; i < columns.size() && i < first + page; i++) {
    const auto line = static_cast<unsigned>(top + 1 + i - first);
    screen.put(0, line, facts_of(columns[i]).head);
    state.choices.push_back({line, 0, width, {}, columns[i]});
    if (i == state.choice) screen.restyle(0, line, width, Style::selected);
  }
}

}  // namespace giltop
