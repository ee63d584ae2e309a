#include "view/live_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "model/verdict.h"
#include "view/format.h"
#include "view/live_keys.h"
#include "view/live_parts.h"

namespace giltop {
namespace {

constexpr uint64_t kMessage_ns = 3'000'000'000;  // for so long a message hides a finding

struct Item {
  std::string text;
  Style style = Style::normal;
  bool right = false;
  unsigned keep = 99;  // the least goes first where there is no room
};

// Items in a line, left ones from the left and right ones to the right.
void put_items(Screen& screen, unsigned row, std::vector<Item> items) {
  const auto used = [&] {
    size_t sum = 0;
    for (const Item& item : items) sum += columns_of(item.text) + 2;
    return sum;
  };
  while (items.size() > 1 && used() > screen.columns() + 2)
    items.erase(std::min_element(items.begin(), items.end(),
                                 [](const Item& a, const Item& b) { return a.keep < b.keep; }));
  unsigned left = 0, right = screen.columns();
  for (const Item& item : items)
    if (!item.right) left += screen.put(left, row, item.text, item.style) + 2;
  for (auto item = items.rbegin(); item != items.rend(); ++item) {
    if (!item->right) continue;
    right -= static_cast<unsigned>(std::min<size_t>(columns_of(item->text), right));
    screen.put(right, row, item->text, item->style);
    right -= std::min(right, 2u);
  }
}

void draw_header(Screen& screen, const LiveFrame& frame, const LiveState& state) {
  const Snapshot& s = frame.interval;
  size_t processes = 0, threads = 0, gils = 0;
  for (const ProcessSnapshot& p : s.processes) {
    if (p.ended || p.folded != 0) continue;
    processes++;
    if (!gil_is_off(p)) gils += p.gils.size();
    for (const ThreadSnapshot& t : p.threads) threads += !t.ended && t.folded == 0;
  }
  const auto counted = [](size_t count, const char* what) {
    return fmt::format("{} {}{}", format_count(count), what, count == 1 ? "" : "s");
  };
  std::string host = frame.host;
  if (columns_of(host) > 24) host = host.substr(0, host.find('.'));
  std::vector<Item> items;
  items.push_back({"giltop", Style::bold, false, 90});
  items.push_back({host, Style::normal, false, 30});
  if (!s.run.kernel.empty()) items.push_back({"Linux " + s.run.kernel, Style::dim, false, 1});
  items.push_back({counted(processes, "Python"), Style::normal, false, 80});
  items.push_back({counted(threads, "thread"), Style::normal, false, 50});
  items.push_back({counted(gils, "GIL"), Style::normal, false, 40});
  if (state.paused) items.push_back({"PAUSED", Style::selected, true, 100});
  if (!state.filter.empty() && state.view == LiveState::View::table)
    items.push_back({"filter: " + shortened(state.filter, 16), Style::bold, true, 96});
  if (!state.idle && state.view == LiveState::View::table)
    items.push_back({"no idle ones", Style::bold, true, 46});
  if (frame.accumulated)
    items.push_back(
        {fmt::format("SUM of {}", format_duration(s.duration_ns())), Style::bold, true, 97});
  if (!frame.notes.empty())
    items.push_back({counted(frame.notes.size(), "note") + " (n)", Style::bold, true, 45});
  if (s.violations != 0)
    items.push_back({counted(s.violations, "contradiction"), Style::bad, true, 98});
  items.push_back({mode_text(s), Style::normal, true, 60});
  items.push_back({"overhead " + overhead_text(s), Style::normal, true, 70});
  items.push_back({format_rate(frame.events_per_s) + " events/s", Style::dim, true, 10});
  items.push_back(
      {fmt::format("giltop {:.1f} % CPU", frame.giltop_cpu * 100), Style::dim, true, 5});
  items.push_back({fmt::format("lost {}", format_count(frame.lost_events)),
                   frame.lost_events == 0 ? Style::normal : Style::bad, true, 99});
  items.push_back({frame.clock, Style::normal, true, 55});
  std::erase_if(items, [](const Item& item) { return item.text.empty(); });
  put_items(screen, 0, items);
}

// Where GIL time went, over all processes or the tagged ones.
void draw_gil_time(Screen& screen, const LiveFrame& frame, const LiveState& state) {
  Ledger sum{};
  bool tagged = false;
  for (const ProcessSnapshot& p : frame.interval.processes)
    tagged = tagged || state.tagged.contains({RowId::Kind::process, p.number, p.number});
  for (const ProcessSnapshot& p : frame.interval.processes) {
    if (tagged && !state.tagged.contains({RowId::Kind::process, p.number, p.number})) continue;
    for (const GilSnapshot& g : p.gils)
      for (size_t i = 0; i < kLedgerColumns; i++) sum[i] += g.ledger[i];
  }
  struct Part {
    LedgerColumn column;
    const char *block, *letter;
    Style style;
    std::array<const char*, 3> names;  // the shorter the less room there is
  };
  static constexpr Part kParts[] = {
      {LedgerColumn::running, "█", "H", Style::held_running, {"running", "running", "run"}},
      {LedgerColumn::runnable, "▚", "p", Style::held_off_cpu, {"preempted", "preempted", "pre"}},
      {LedgerColumn::blocked, "▓", "h", Style::held_off_cpu, {"asleep", "asleep", "slp"}},
      {LedgerColumn::handoff, "░", "W", Style::waiting, {"hand-off", "hand-off", "h-o"}},
      {LedgerColumn::idle, "·", "S", Style::asleep, {"idle", "idle", "idle"}},
      {LedgerColumn::unknown, "?", "?", Style::dim, {"unknown", "unknown", "?"}},
  };
  std::vector<uint64_t> times;
  uint64_t whole = 0;
  for (const Part& part : kParts) {
    times.push_back(sum[static_cast<size_t>(part.column)]);
    whole += times.back();
  }
  std::string label = tagged ? "tagged" : "GIL time";
  if (whole == 0) {
    screen.put(0, 1, label, Style::normal);
    screen.put(static_cast<unsigned>(label.size()) + 1, 1, "none held or wanted", Style::dim);
    return;
  }
  const auto name_of = [&](size_t i, size_t tier) {
    return fmt::format("{:3.0f} {}",
                       100 * static_cast<double>(times[i]) / static_cast<double>(whole),
                       kParts[i].names[tier]);
  };
  const auto shown = [&](size_t i) {
    return kParts[i].column != LedgerColumn::unknown || times[i] * 200 >= whole;
  };
  size_t tier = 0, names = 0;
  for (;; tier++) {
    names = 0;
    for (size_t i = 0; i < std::size(kParts); i++)
      if (shown(i)) names += name_of(i, tier).size() + (tier == 0 ? 3 : 2);
    if (tier > 0 && !tagged) label = "GIL";
    if (tier == 2 || label.size() + 1 + names + (tier == 0 ? 16 : 10) <= screen.columns()) break;
  }
  unsigned at = screen.put(0, 1, label) + 1;
  const unsigned room = screen.columns() - std::min(screen.columns(), at);
  const size_t bar = std::min<size_t>(room - std::min<size_t>(room, names), 60);
  const std::vector<size_t> shares = apportion(times, bar);
  for (size_t i = 0; i < shares.size(); i++)
    for (size_t k = 0; k < shares[i]; k++)
      at += screen.put(at, 1, state.letters ? kParts[i].letter : kParts[i].block, kParts[i].style);
  for (size_t i = 0; i < std::size(kParts); i++) {
    if (!shown(i)) continue;
    at += tier == 0 ? 2 : 1;
    at += screen.put(at, 1, state.letters ? kParts[i].letter : kParts[i].block, kParts[i].style);
    const bool bad =
        (kParts[i].column == LedgerColumn::runnable || kParts[i].column == LedgerColumn::blocked) &&
        times[i] * 100 >= whole;
    at += screen.put(at, 1, name_of(i, tier), bad ? Style::bad : Style::normal);
  }
}

void draw_keys(Screen& screen, LiveState& state) {
  const unsigned row = screen.rows() - 1;
  std::vector<KeyLabel> labels = labels_of(state);
  const auto used = [&](size_t gap) {
    size_t sum = 0;
    for (const KeyLabel& l : labels) sum += l.key.size() + 1 + l.label.size() + gap;
    return sum - std::min(sum, gap);
  };
  while (labels.size() > 1 && used(1) > screen.columns())
    labels.erase(std::min_element(labels.begin(), labels.end(),
                                  [](const auto& a, const auto& b) { return a.keep < b.keep; }));
  const unsigned gap = used(2) <= screen.columns() ? 2 : 1;
  unsigned at = 0;
  for (const KeyLabel& l : labels) {
    const unsigned from = at;
    at += screen.put(at, row, l.key, Style::key) + 1;
    at += screen.put(at, row, l.label);
    state.keys.push_back({row, from, at, l.input});
    at += gap;
  }
}

void draw_prompt(Screen& screen, const LiveState& state) {
  const unsigned row = screen.rows() - 1;
  const char* const question = state.prompt == LiveState::Prompt::search   ? "Search: "
                               : state.prompt == LiveState::Prompt::filter ? "Filter: "
                                                                           : "Seconds a refresh: ";
  const unsigned at = screen.put(0, row, question, Style::key);
  const std::vector<Cell> cells = cells_of(state.typed);
  const unsigned room = screen.columns() - at - 1;
  // The end is what is being typed.
  std::vector<Cell> end = cells;
  while (end.size() > room || (!end.empty() && end.front().width == 0)) end.erase(end.begin());
  screen.put(at, row, end);
  const unsigned cursor = at + static_cast<unsigned>(end.size());
  screen.cursor = std::pair(cursor, row);
  const std::string hint = state.prompt == LiveState::Prompt::search
                               ? "F3 next  Enter done  Esc back"
                               : "Enter done  Esc cancel";
  if (cursor + 2 + hint.size() <= screen.columns())
    screen.put_right(0, row, hint, Style::dim, screen.columns());
}

void draw_page(Screen& screen, LiveState& state, const TitledPage& titled) {
  const auto right =
      static_cast<unsigned>(std::min<size_t>(columns_of(titled.right), screen.columns()));
  screen.put_right(0, 1, titled.right, Style::dim, screen.columns());
  screen.put(0, 1, titled.title, Style::bold,
             screen.columns() - std::min(screen.columns(), right + 2));
  const std::vector<Screen>& lines = titled.page.lines();
  const unsigned top = 2, bottom = screen.rows() - 1;
  state.page = bottom - top;
  state.page_rows = lines.size();
  state.page_scroll =
      std::min(state.page_scroll, lines.size() - std::min(lines.size(), state.page));
  for (unsigned row = top; row < bottom; row++) {
    const size_t line = state.page_scroll + row - top;
    if (line < lines.size()) screen.copy_row(lines[line], 0, row);
  }
  if (lines.size() > state.page) {
    const std::string place =
        fmt::format("{}–{} of {}", state.page_scroll + 1,
                    std::min(state.page_scroll + state.page, lines.size()), lines.size());
    const auto width = static_cast<unsigned>(columns_of(place));
    // Only where the keys leave room.
    const unsigned used = state.keys.empty() ? 0 : state.keys.back().to;
    if (used + 2 + width <= screen.columns())
      screen.put(screen.columns() - width, bottom, place, Style::dim);
  }
}

Screen too_small(unsigned columns, unsigned rows) {
  Screen screen(columns, rows);
  if (rows == 0) return screen;
  screen.put(
      0, rows / 2,
      fmt::format("giltop needs {}×{}, here are {}×{}", kLeastColumns, kLeastRows, columns, rows));
  return screen;
}

}  // namespace

std::string overhead_text(const Snapshot& interval) {
  const uint64_t taken = interval.run.probe_cost_ns, whole = interval.duration_ns();
  if (taken == 0) return "0 %";
  return format_percent(taken, whole, taken < whole / 10 ? 1 : 0) + " %";
}

std::string mode_text(const Snapshot& interval) {
  size_t light = 0;
  for (const ProcessSnapshot& p : interval.processes) light += p.light && !p.ended;
  if (interval.run.mode == "auto" && light != 0) return fmt::format("auto: {} light", light);
  return interval.run.mode;
}

Finding finding_of(const Snapshot& interval, uint64_t process) {
  const ProcessSnapshot* whose = nullptr;
  std::optional<Hold> worst;
  for (const ProcessSnapshot& p : interval.processes) {
    if (process != 0 && p.number != process) continue;
    const std::optional<Hold> hold = hold_of(p, interval);
    // A lone thread that computes may hold it for ever, to nobody's harm.
    if (!hold || (hold->waiters == 0 && !hold->off_cpu())) continue;
    if (worst && !worse(*hold, *worst)) continue;
    worst = hold;
    whose = &p;
  }
  if (!worst) return {};
  const char* const doing = worst->cpu == CpuState::blocked    ? ", asleep"
                            : worst->cpu == CpuState::runnable ? ", preempted"
                                                               : "";
  const std::string waiting = worst->waiters == 0 ? "nobody waits"
                              : worst->waiters == 1
                                  ? "1 thread waits"
                                  : fmt::format("{} threads wait", worst->waiters);
  return {fmt::format("{} has held the GIL for {}{}{}{}: {}{}", worst->tid,
                      worst->at_least ? "over " : "", whose->exact ? "" : "~", worst->length(),
                      doing, waiting, process != 0 ? "" : " (" + title_of(*whose) + ")"),
          worst->off_cpu() ? Style::bad : Style::bold};
}

Screen live_screen(const LiveFrame& frame, LiveState& state, unsigned columns, unsigned rows) {
  state.keys.clear();
  state.heads.clear();
  state.choices.clear();
  if (columns < kLeastColumns || rows < kLeastRows) return too_small(columns, rows);
  Screen screen(columns, rows);
  draw_header(screen, frame, state);
  const bool asks =
      state.prompt != LiveState::Prompt::none && state.prompt != LiveState::Prompt::sort;
  if (asks) {
    draw_prompt(screen, state);
  } else {
    draw_keys(screen, state);
  }
  switch (state.view) {
    case LiveState::View::detail:
      draw_page(screen, state, detail_page(frame, state, columns));
      break;
    case LiveState::View::help:
      draw_page(screen, state, help_page(state, columns));
      break;
    case LiveState::View::notes:
      draw_page(screen, state, notes_page(frame, state, columns));
      break;
    case LiveState::View::table: {
      draw_gil_time(screen, frame, state);
      const Finding finding = finding_of(frame.interval);
      const uint64_t now = frame.interval.last_ns;
      if (state.message_ns == 0) state.message_ns = now;
      if (now >= state.message_ns + kMessage_ns) state.message.clear();
      if (!state.message.empty()) {
        screen.put(0, 2, state.message, Style::bold);
      } else {
        screen.put(0, 2, finding.text, finding.style);
      }
      draw_table(screen, frame, state, 3, rows - 1);
      if (state.prompt == LiveState::Prompt::sort) draw_sort_choice(screen, state, 3, rows - 1);
      break;
    }
  }
  return screen;
}

}  // namespace giltop
