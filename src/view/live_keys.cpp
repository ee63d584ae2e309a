#include "view/live_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "view/live_columns.h"
#include "view/live_prompts.h"
#include "view/live_rows.h"

namespace giltop {
namespace {

using Kind = Input::Kind;
using View = LiveState::View;

enum class Command {
  up,
  down,
  page_up,
  page_down,
  home,
  end,
  detail,
  back,
  unfold,
  fold,
  finer,
  coarser,
  sort_left,
  sort_right,
  sort_choice,
  invert,
  sort_cpu,
  sort_wait,
  sort_held,
  sort_pid,
  search,
  filter,
  clear_filter,
  tree,
  threads,
  idle,
  accumulate,
  tag,
  untag,
  delay,
  reset,
  pause,
  notes,
  help,
  redraw,
  quit,
};

constexpr unsigned kTable = 1, kDetail = 2, kPage = 4;  // views

struct Binding {
  Command command;
  unsigned views;
  std::vector<Input> inputs;
  const char* does;
};

Input character(char c) { return {Kind::character, static_cast<unsigned char>(c)}; }
Input function(unsigned number) { return {Kind::function, number}; }
Input key(Kind kind) { return {kind}; }

const std::vector<Binding>& bindings() {
  static const std::vector<Binding> kBindings = {
      {Command::up, kTable | kDetail | kPage, {key(Kind::up), character('k')}, "up"},
      {Command::down, kTable | kDetail | kPage, {key(Kind::down), character('j')}, "down"},
      {Command::page_up, kTable | kDetail | kPage, {key(Kind::page_up)}, "a page up"},
      {Command::page_down, kTable | kDetail | kPage, {key(Kind::page_down)}, "a page down"},
      {Command::home,
       kTable,
       {key(Kind::home)},
       "to the top; the cursor stays there, whichever row that is"},
      {Command::home, kDetail | kPage, {key(Kind::home)}, "to the top"},
      {Command::end, kTable | kDetail | kPage, {key(Kind::end)}, "to the end"},
      {Command::detail,
       kTable,
       {key(Kind::enter)},
       "detail: timeline, histograms, who waited behind whom"},
      {Command::back,
       kDetail | kPage,
       {key(Kind::escape), character('q'), key(Kind::enter)},
       "back"},
      {Command::unfold,
       kTable,
       {key(Kind::right), character('+'), character('=')},
       "unfold a process: its GILs and threads"},
      {Command::fold, kTable, {key(Kind::left), character('-')}, "fold it"},
      {Command::finer,
       kDetail,
       {character('+'), character('='), key(Kind::right)},
       "finer columns of the timeline"},
      {Command::coarser, kDetail, {character('-'), key(Kind::left)}, "coarser ones"},
      {Command::sort_left, kTable, {character('<')}, "sort by the column to the left"},
      {Command::sort_right, kTable, {character('>')}, "sort by the column to the right"},
      {Command::sort_choice, kTable, {function(6)}, "choose the column to sort by"},
      {Command::invert, kTable, {character('I')}, "invert the order"},
      {Command::sort_cpu, kTable, {character('P')}, "sort by time on a CPU"},
      {Command::sort_wait, kTable, {character('W')}, "sort by waiting"},
      {Command::sort_held, kTable, {character('G')}, "sort by holding the GIL"},
      {Command::sort_pid, kTable, {character('N')}, "sort by PID"},
      {Command::search, kTable, {character('/'), function(3)}, "search a name, command or id"},
      {Command::filter, kTable, {character('\\'), function(4)}, "show only what matches"},
      {Command::clear_filter, kTable, {key(Kind::escape)}, "show all again"},
      {Command::tree, kTable, {character('t'), function(5)}, "tree, or one list"},
      {Command::threads,
       kTable,
       {character('H')},
       "threads: unfold all in the tree, or list them one by one"},
      {Command::idle, kTable, {character('i')}, "show or hide what does nothing"},
      {Command::accumulate,
       kTable | kDetail,
       {character('a')},
       "sums since the start or the last reset, or the last interval"},
      {Command::tag,
       kTable,
       {character(' ')},
       "tag; with processes tagged, the bar at the top is theirs alone"},
      {Command::untag, kTable, {character('U')}, "untag all"},
      {Command::delay, kTable, {character('d')}, "seconds from refresh to refresh"},
      {Command::reset, kTable | kDetail, {character('r')}, "reset: sums start anew"},
      {Command::pause,
       kTable | kDetail,
       {character('Z')},
       "pause: the world stands still, tracing goes on"},
      {Command::notes,
       kTable | kDetail,
       {character('n'), function(2)},
       "notes: what cannot be traced and why; about this run"},
      {Command::help, kTable | kDetail, {function(1), character('?'), character('h')}, "this help"},
      {Command::help, kPage, {function(1), character('?'), character('h')}, "help, and back"},
      {Command::redraw,
       kTable | kDetail | kPage,
       {key(Kind::redraw)},
       "paint the whole screen again"},
      {Command::quit, kTable, {character('q'), function(10)}, "quit"},
      {Command::quit, kDetail | kPage, {function(10)}, "quit"},
  };
  return kBindings;
}

unsigned view_bit(View view) {
  return view == View::table ? kTable : view == View::detail ? kDetail : kPage;
}

std::string name_of(const Input& input) {
  switch (input.kind) {
    case Kind::character:
      return input.number == ' ' ? "Space" : std::string(1, static_cast<char>(input.number));
    case Kind::function:
      return fmt::format("F{}", input.number);
    case Kind::enter:
      return "Enter";
    case Kind::escape:
      return "Esc";
    case Kind::up:
      return "↑";
    case Kind::down:
      return "↓";
    case Kind::left:
      return "←";
    case Kind::right:
      return "→";
    case Kind::page_up:
      return "PgUp";
    case Kind::page_down:
      return "PgDn";
    case Kind::home:
      return "Home";
    case Kind::end:
      return "End";
    case Kind::redraw:
      return "Ctrl-L";
    default:
      return "";
  }
}

void move_to(LiveState& state, const std::vector<LiveRow>& rows, long index) {
  if (rows.empty()) return;
  const long last = static_cast<long>(rows.size()) - 1;
  state.selected = rows[static_cast<size_t>(std::clamp(index, 0L, last))].id;
}

void move_by(LiveState& state, const LiveFrame& frame, long step) {
  if (state.view != View::table) {
    const long most = static_cast<long>(state.page_rows - std::min(state.page_rows, state.page));
    state.page_scroll =
        static_cast<size_t>(std::clamp(static_cast<long>(state.page_scroll) + step, 0L, most));
    return;
  }
  const std::vector<LiveRow> rows = live_rows(frame, state);
  move_to(state, rows, static_cast<long>(selected_index(rows, state)) + step);
}

void sort_by(LiveState& state, LiveColumn column) {
  state.sort = column;
  state.inverted = false;
}

void sort_beside(LiveState& state, bool right) {
  // Of those on the screen.
  std::vector<LiveColumn> columns;
  for (const LiveState::Span& head : state.heads) columns.push_back(head.column);
  if (columns.empty()) return;
  const auto at = std::find(columns.begin(), columns.end(), state.sort);
  const size_t n = columns.size();
  const auto index = static_cast<size_t>(at - columns.begin()) % n;
  sort_by(state, columns[(index + (right ? 1 : n - 1)) % n]);
}

void fold(LiveState& state, const LiveFrame& frame, bool unfolded) {
  if (!state.tree) {
    state.message = "This is a list: t makes it a tree.";
    return;
  }
  const std::vector<LiveRow> rows = live_rows(frame, state);
  if (rows.empty()) return;
  const LiveRow& row = rows[selected_index(rows, state)];
  if (row.id.kind != RowId::Kind::process) {
    if (unfolded) return;
    state.selected = RowId{RowId::Kind::process, row.id.process, row.id.process};
  }
  state.unfolded[row.id.process] = unfolded;
  if (!state.selected) state.selected = row.id;
}

void show_detail(LiveState& state, const LiveFrame& frame) {
  const std::vector<LiveRow> rows = live_rows(frame, state);
  if (rows.empty()) return;
  const RowId id = rows[selected_index(rows, state)].id;
  state.detail =
      id.kind == RowId::Kind::gil ? RowId{RowId::Kind::process, id.process, id.process} : id;
  state.watched = id.process;
  state.view = View::detail;
  state.page_scroll = 0;
}

void show_page(LiveState& state, View view) {
  if (state.view != View::help && state.view != View::notes) state.before = state.view;
  state.view = view;
  state.page_scroll = 0;
}

void back(LiveState& state) {
  if (state.view == View::detail) {
    state.view = View::table;
    state.watched = 0;
  } else {
    state.view = state.before;
  }
  state.page_scroll = 0;
}

void zoom(LiveState& state, bool finer) {
  static constexpr std::array<uint64_t, 5> kSteps = {5'000'000, 10'000'000, 20'000'000, 50'000'000,
                                                     100'000'000};
  const auto at = std::find(kSteps.begin(), kSteps.end(), state.column_ns);
  size_t index = at == kSteps.end() ? 2 : static_cast<size_t>(at - kSteps.begin());
  if (finer && index > 0) index--;
  if (!finer && index + 1 < kSteps.size()) index++;
  state.column_ns = kSteps[index];
}

void tag(LiveState& state, const LiveFrame& frame) {
  const std::vector<LiveRow> rows = live_rows(frame, state);
  if (rows.empty()) return;
  const size_t index = selected_index(rows, state);
  if (state.tagged.erase(rows[index].id) == 0) state.tagged.insert(rows[index].id);
  move_to(state, rows, static_cast<long>(index) + 1);
}

Action run(Command command, LiveState& state, const LiveFrame& frame) {
  const long page = static_cast<long>(std::max<size_t>(state.page, 2)) - 1;
  switch (command) {
    case Command::up:
      move_by(state, frame, -1);
      break;
    case Command::down:
      move_by(state, frame, 1);
      break;
    case Command::page_up:
      move_by(state, frame, -page);
      break;
    case Command::page_down:
      move_by(state, frame, page);
      break;
    case Command::home:
      if (state.view == View::table) {
        state.selected.reset();
      } else {
        state.page_scroll = 0;
      }
      break;
    case Command::end:
      move_by(state, frame, 1L << 40);
      break;
    case Command::detail:
      show_detail(state, frame);
      break;
    case Command::back:
      back(state);
      break;
    case Command::unfold:
      fold(state, frame, true);
      break;
    case Command::fold:
      fold(state, frame, false);
      break;
    case Command::finer:
      zoom(state, true);
      break;
    case Command::coarser:
      zoom(state, false);
      break;
    case Command::sort_left:
      sort_beside(state, false);
      break;
    case Command::sort_right:
      sort_beside(state, true);
      break;
    case Command::sort_choice:
      ask_sort(state);
      break;
    case Command::invert:
      state.inverted = !state.inverted;
      break;
    case Command::sort_cpu:
      sort_by(state, LiveColumn::cpu);
      break;
    case Command::sort_wait:
      sort_by(state, LiveColumn::wait);
      break;
    case Command::sort_held:
      sort_by(state, LiveColumn::held);
      break;
    case Command::sort_pid:
      sort_by(state, LiveColumn::pid);
      break;
    case Command::search:
      ask(state, LiveState::Prompt::search);
      break;
    case Command::filter:
      ask(state, LiveState::Prompt::filter);
      break;
    case Command::clear_filter:
      state.filter.clear();
      break;
    case Command::tree:
      state.tree = !state.tree;
      state.message = state.tree      ? "Tree."
                      : state.threads ? "List of threads: H makes it one of processes."
                                      : "List of processes: H makes it one of threads.";
      break;
    case Command::threads:
      state.threads = !state.threads;
      state.unfolded.clear();
      break;
    case Command::idle:
      state.idle = !state.idle;
      state.message = state.idle ? "Idle ones are shown." : "Idle ones are hidden.";
      break;
    case Command::accumulate:
      state.accumulated = !state.accumulated;
      break;
    case Command::tag:
      tag(state, frame);
      break;
    case Command::untag:
      state.tagged.clear();
      break;
    case Command::delay:
      ask(state, LiveState::Prompt::delay);
      break;
    case Command::reset:
      state.message = "Sums start anew.";
      return Action::reset;
    case Command::pause:
      state.paused = !state.paused;
      break;
    case Command::notes:
      show_page(state, View::notes);
      break;
    case Command::help:
      if (state.view == View::help) {
        back(state);
      } else {
        show_page(state, View::help);
      }
      break;
    case Command::redraw:
      return Action::redraw;
    case Command::quit:
      return Action::quit;
  }
  return Action::none;
}

const LiveState::Span* span_at(const std::vector<LiveState::Span>& spans, const Input& click) {
  for (const LiveState::Span& span : spans)
    if (span.row == click.row && span.from <= click.column && click.column < span.to) return &span;
  return nullptr;
}

Action click(LiveState& state, const Input& where, const LiveFrame& frame) {
  if (const auto* span = span_at(state.keys, where)) {
    const Input input = span->input;  // the next layout makes other spans
    return press(state, input, frame);
  }
  if (state.view != View::table) return Action::none;
  if (state.prompt == LiveState::Prompt::sort) {
    state.prompt = LiveState::Prompt::none;
    if (const auto* span = span_at(state.choices, where)) sort_by(state, span->column);
    return Action::none;
  }
  if (const auto* span = span_at(state.heads, where)) {
    if (state.sort == span->column) {
      state.inverted = !state.inverted;
    } else {
      sort_by(state, span->column);
    }
    return Action::none;
  }
  const size_t index = state.scroll + where.row - state.first_row;
  if (where.row < state.first_row || where.row >= state.first_row + state.page ||
      index >= state.rows.size())
    return Action::none;
  state.selected = state.rows[index];
  if (state.tree && where.column >= state.fold_column && where.column < state.fold_column + 2 &&
      state.selected->kind == RowId::Kind::process) {
    const std::vector<LiveRow> rows = live_rows(frame, state);
    if (!rows.empty()) {
      const LiveRow& row = rows[selected_index(rows, state)];
      if (row.foldable) state.unfolded[row.id.process] = !row.unfolded;
    }
  }
  return Action::none;
}

}  // namespace

Action press(LiveState& state, const Input& input, const LiveFrame& frame) {
  if (input.kind == Kind::hangup) return Action::quit;
  if (input.kind == Kind::resize) return Action::none;
  state.message.clear();
  state.message_ns = 0;
  if (input.kind == Kind::click) return click(state, input, frame);
  if (state.prompt != LiveState::Prompt::none && input.kind != Kind::redraw) {
    if (input == function(10)) return Action::quit;
    answer(state, input, frame);
    return Action::none;
  }
  if (input.kind == Kind::wheel_up || input.kind == Kind::wheel_down) {
    move_by(state, frame, input.kind == Kind::wheel_up ? -3 : 3);
    return Action::none;
  }
  const unsigned view = view_bit(state.view);
  for (const Binding& binding : bindings()) {
    if ((binding.views & view) == 0) continue;
    if (std::find(binding.inputs.begin(), binding.inputs.end(), input) != binding.inputs.end())
      return run(binding.command, state, frame);
  }
  return Action::none;
}

std::vector<KeyHelp> help_of(View view) {
  std::vector<KeyHelp> help;
  for (const Binding& binding : bindings()) {
    if ((binding.views & view_bit(view)) == 0) continue;
    std::string keys;
    for (const Input& input : binding.inputs) {
      if (!keys.empty()) keys += ' ';
      keys += name_of(input);
    }
    help.push_back({keys, binding.does});
  }
  return help;
}

std::vector<KeyLabel> labels_of(const LiveState& state) {
  const KeyLabel pause = {"Z", state.paused ? "Go on" : "Pause", character('Z'), 3};
  const KeyLabel quit = {"F10", "Quit", function(10), 10};
  if (state.prompt == LiveState::Prompt::sort)
    return {{"Enter", "Sort", key(Kind::enter), 9}, {"Esc", "Back", key(Kind::escape), 8}};
  switch (state.view) {
    case View::table:
      return {{"F1", "Help", function(1), 9},
              {"F3", "Search", function(3), 5},
              {"F4", "Filter", function(4), 6},
              {"F5", "Tree", function(5), 2},
              {"F6", "Sort", function(6), 7},
              {"Enter", "Detail", key(Kind::enter), 8},
              pause,
              quit};
    case View::detail:
      return {{"Esc", "Back", key(Kind::escape), 9}, {"+", "Finer", character('+'), 5},
              {"-", "Coarser", character('-'), 4},   pause,
              {"F1", "Help", function(1), 6},        quit};
    default:
      return {{"Esc", "Back", key(Kind::escape), 9}, quit};
  }
}

}  // namespace giltop
