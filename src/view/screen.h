// Screen: a grid of cells that the live view is laid out into, whatever paints it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace giltop {

// What a cell means; how that looks is the painter's.
enum class Style : uint8_t {
  normal,
  dim,
  bold,
  header,    // of a table
  selected,  // the cursor's row
  tagged,
  key,  // a key's name on the bottom line
  bad,  // asleep or preempted with the GIL, and events lost: nothing else
  // States of the matrix.
  held_running,
  held_off_cpu,
  waiting,
  runnable,  // without the GIL
  native,    // running without it
  asleep,
};
inline constexpr size_t kStyles = 14;

struct Cell {
  std::string text = " ";  // one character, UTF-8, with its combining ones
  uint8_t width = 1;       // columns; 0: the right half of a wide character
  Style style = Style::normal;
  bool operator==(const Cell&) const = default;
};

// The cells of a text of unknown origin. A terminal is sent nothing that would drive it, or that
// terminals do not agree about: control and format characters, private use, and joined emoji, which
// become single ones. `limit`: no more columns than that are wanted.
std::vector<Cell> cells_of(std::string_view text, Style style = Style::normal,
                           size_t limit = ~size_t{0});
size_t columns_of(std::string_view text);
// The text of these cells, cut with an ellipsis.
std::string shortened(std::string_view text, size_t columns);

class Screen {
 public:
  Screen(unsigned columns, unsigned rows)
      : columns_(columns), rows_(rows), cells_(columns * rows) {}

  unsigned columns() const { return columns_; }
  unsigned rows() const { return rows_; }
  const Cell& at(unsigned column, unsigned row) const { return cells_[row * columns_ + column]; }

  // Puts `text` at a place, in at most `width` columns and within the screen; what is longer is cut
  // with an ellipsis. Returns the columns used.
  unsigned put(unsigned column, unsigned row, std::string_view text, Style style = Style::normal,
               unsigned width = ~0u);
  // The same, ending at column + width.
  void put_right(unsigned column, unsigned row, std::string_view text, Style style, unsigned width);
  void put(unsigned column, unsigned row, const std::vector<Cell>& cells, unsigned width = ~0u);
  // Gives cells of a row another style; `keep_states`: not those that show a state.
  void restyle(unsigned column, unsigned row, unsigned width, Style style,
               bool keep_states = false);
  void copy_row(const Screen& from, unsigned from_row, unsigned to_row);

  // Where the terminal's cursor is shown: column, row.
  std::optional<std::pair<unsigned, unsigned>> cursor;

  std::string row_text(unsigned row) const;
  bool operator==(const Screen&) const = default;

 private:
  Cell& cell(unsigned column, unsigned row) { return cells_[row * columns_ + column]; }
  void set(unsigned column, unsigned row, const Cell& cell);

  unsigned columns_, rows_;
  std::vector<Cell> cells_;
};

}  // namespace giltop
