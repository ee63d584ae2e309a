// LiveState: what the user has set in the live view, and what the view remembers of what it showed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace giltop {

// Columns of the table, from the left.
enum class LiveColumn : uint8_t {
  pid,
  name,
  python,
  cpu,
  held,
  off_cpu,  // of the time held: asleep or preempted
  wait,
  waiters,
  acquires,
  wait_p99,
  longest,  // wait
  blocker,
  states,   // the matrix as a bar
  history,  // of waiting, the last minute
};
inline constexpr size_t kLiveColumns = 14;

// A row of the table, whatever its place.
struct RowId {
  enum class Kind : uint8_t { process, gil, thread };
  Kind kind = Kind::process;
  uint64_t process = 0;  // number
  uint64_t number = 0;   // of the GIL or the thread; of a process: its own
  bool operator==(const RowId&) const = default;
};
struct RowIdHash {
  size_t operator()(const RowId& id) const {
    return std::hash<uint64_t>()(id.number * 4 + static_cast<uint64_t>(id.kind));
  }
};

// A key, or a click.
struct Input {
  enum class Kind : uint8_t {
    character,
    enter,
    escape,
    backspace,
    del,
    up,
    down,
    left,
    right,
    page_up,
    page_down,
    home,
    end,
    function,  // F1 is number 1
    redraw,    // Ctrl-L
    click,
    wheel_up,
    wheel_down,
    resize,  // to be laid out anew
    hangup,  // the terminal is gone
  };
  Kind kind = Kind::character;
  uint32_t number = 0;           // the code point of a character, or which function key
  unsigned column = 0, row = 0;  // of a click
  bool operator==(const Input&) const = default;
};

struct LiveState {
  // What the loop that shows frames reads.
  bool paused = false;       // go on showing the same frame
  bool accumulated = false;  // frames of all since the start
  double delay_s = 1;
  uint64_t watched = 0;  // number of the process whose timeline is wanted; 0: none

  // The table.
  bool tree = true;      // else one list
  bool threads = false;  // tree: processes are unfolded; else threads are in the list
  bool idle = true;      // those that did nothing are shown
  LiveColumn sort = LiveColumn::wait;
  bool inverted = false;
  std::string filter;
  std::unordered_map<uint64_t, bool> unfolded;  // processes that the user has (un)folded
  std::unordered_set<RowId, RowIdHash> tagged;
  // The cursor's row; nothing: the first, whichever that is.
  std::optional<RowId> selected;
  size_t scroll = 0;  // rows

  enum class View : uint8_t { table, detail, help, notes };
  View view = View::table, before = View::table;  // `before` help or notes
  size_t page_scroll = 0;                         // of the detail, help, notes
  RowId detail;
  uint64_t column_ns = 20'000'000;  // of the timeline

  enum class Prompt : uint8_t { none, search, filter, delay, sort };
  Prompt prompt = Prompt::none;
  std::string typed;                   // into it
  std::string typed_before;            // what Esc brings back
  std::optional<RowId> search_origin;  // likewise
  size_t choice = 0;                   // of the columns to sort by
  std::string message;                 // until the next key, or for some seconds
  uint64_t message_ns = 0;             // of the frame that showed it first

  // What the terminal shows.
  bool letters = false;  // for states, else blocks

  // Of the last layout: what clicks hit, and how far a page goes.
  struct Span {
    unsigned row, from, to;  // columns from <= x < to
    Input input;             // of a key
    LiveColumn column = LiveColumn::pid;
  };
  std::vector<Span> keys, heads, choices;
  unsigned fold_column = 0;  // of the tree's marks
  unsigned first_row = 0;    // of the table's rows on the screen
  std::vector<RowId> rows;   // of the table, on the screen or not
  size_t page = 1;           // rows on the screen
  size_t page_rows = 0;      // of the detail, help, notes in all

  // What rows are sorted by moves only when the figure clearly has (live_rows.cpp).
  struct Sticky {
    double mean = 0, shown = 0;
    uint64_t frame_ns = 0;   // that it was last brought up to; 0: none
    uint64_t active_ns = 0;  // when it last did something
  };
  std::unordered_map<RowId, Sticky, RowIdHash> sticky;
  std::optional<std::pair<LiveColumn, bool>> sticky_for;  // and whether accumulated
};

// What the loop is to do after a key; what it shows is told by LiveState.
enum class Action : uint8_t { none, redraw, reset, quit };

}  // namespace giltop
