#include "view/screen.h"

#include <utf8proc.h>

#include <algorithm>

namespace giltop {
namespace {

constexpr size_t kMostCombining = 3;  // of one character: ncurses takes five in all

enum class Kind { base, combining, nothing, replaced };

Kind kind_of(utf8proc_int32_t c) {
  if (c >= 0x1f3fb && c <= 0x1f3ff) return Kind::nothing;  // skin tones: some join them, some not
  if (c >= 0x1f1e6 && c <= 0x1f1ff) return Kind::base;     // see letter_of
  // Hangul vowels and final consonants join what is before them.
  if ((c >= 0x1160 && c <= 0x11ff) || (c >= 0xd7b0 && c <= 0xd7fb)) return Kind::combining;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
      // Variation selectors ask for another width.
      return (c >= 0xfe00 && c <= 0xfe0f) || c >= 0xe0100 ? Kind::nothing : Kind::combining;
    case UTF8PROC_CATEGORY_CF:
      return Kind::nothing;  // also turns the direction of what follows
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return Kind::replaced;
    case UTF8PROC_CATEGORY_MC:
      return Kind::base;  // takes a column, glibc and so terminals say; utf8proc's width is 0
    default:
      return utf8proc_charwidth(c) > 0 ? Kind::base : Kind::combining;
  }
}

// Regional indicators, pairs of which some terminals draw as a flag, are plain letters here.
utf8proc_int32_t letter_of(utf8proc_int32_t c) {
  return c >= 0x1f1e6 && c <= 0x1f1ff ? 'A' + (c - 0x1f1e6) : c;
}

std::string utf8_of(utf8proc_int32_t c) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length = utf8proc_encode_char(c, bytes);
  return std::string(bytes, bytes + std::max<utf8proc_ssize_t>(length, 0));
}

std::vector<Cell> cut(std::vector<Cell> cells, size_t columns) {
  if (cells.size() <= columns || columns == 0) return cells;
  const Style style = cells.front().style;
  cells.resize(columns - 1);
  if (!cells.empty() && cells.back().width == 2) cells.back() = {" ", 1, style};
  cells.push_back({"…", 1, style});
  return cells;
}

}  // namespace

std::vector<Cell> cells_of(std::string_view text, Style style, size_t limit) {
  std::vector<Cell> out;
  size_t combining = 0;
  // What is cut off needs no look: no character takes more than some bytes, but for combining ones.
  for (size_t i = 0; i < text.size() && out.size() <= limit;) {
    utf8proc_int32_t c = -1;
    const utf8proc_ssize_t length =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + i,
                         static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - i, 4)), &c);
    if (length <= 0) {
      // As printable() has it: one for a broken character and the rest of it.
      i++;
      while (i < text.size() && (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) i++;
      out.push_back({"?", 1, style});
      combining = kMostCombining;
      continue;
    }
    i += static_cast<size_t>(length);
    switch (kind_of(c)) {
      case Kind::nothing:
        break;
      case Kind::combining:
        if (out.empty() || combining >= kMostCombining) break;
        combining++;
        (out.back().width == 0 ? out[out.size() - 2] : out.back()).text += utf8_of(c);
        break;
      case Kind::replaced:
        out.push_back({"?", 1, style});
        combining = kMostCombining;
        break;
      case Kind::base: {
        c = letter_of(c);
        combining = 0;
        const bool wide = utf8proc_charwidth(c) == 2;
        // Spaces of other widths than a column's are spaces.
        const bool space = utf8proc_category(c) == UTF8PROC_CATEGORY_ZS;
        if (space) {
          for (int k = 0; k < (wide ? 2 : 1); k++) out.push_back({" ", 1, style});
          break;
        }
        out.push_back({utf8_of(c), static_cast<uint8_t>(wide ? 2 : 1), style});
        if (wide) out.push_back({"", 0, style});
        break;
      }
    }
  }
  return out;
}

size_t columns_of(std::string_view text) { return cells_of(text).size(); }

std::string shortened(std::string_view text, size_t columns) {
  const std::vector<Cell> cells = cut(cells_of(text, Style::normal, columns), columns);
  std::string out;
  for (const Cell& cell : cells) out += cell.text;
  return out;
}

void Screen::set(unsigned column, unsigned row, const Cell& cell) {
  // A half of a wide character cannot stay alone.
  Cell& old = this->cell(column, row);
  if (old.width == 0 && column > 0 && cell.width != 0)
    this->cell(column - 1, row) = {" ", 1, this->cell(column - 1, row).style};
  if (old.width == 2 && cell.width != 2 && column + 1 < columns_)
    this->cell(column + 1, row) = {" ", 1, old.style};
  if (cell.width == 2 && column + 1 < columns_ && this->cell(column + 1, row).width == 2 &&
      column + 2 < columns_)
    this->cell(column + 2, row) = {" ", 1, this->cell(column + 2, row).style};
  old = cell;
  if (cell.width == 2) this->cell(column + 1, row) = {"", 0, cell.style};
}

void Screen::put(unsigned column, unsigned row, const std::vector<Cell>& cells, unsigned width) {
  if (row >= rows_ || column >= columns_) return;
  width = std::min(width, columns_ - column);
  for (unsigned i = 0; i < width && i < cells.size(); i++) {
    if (cells[i].width == 0) continue;
    if (cells[i].width == 2 && i + 1 >= width) {
      set(column + i, row, {" ", 1, cells[i].style});
      break;
    }
    set(column + i, row, cells[i]);
  }
}

unsigned Screen::put(unsigned column, unsigned row, std::string_view text, Style style,
                     unsigned width) {
  if (row >= rows_ || column >= columns_) return 0;
  width = std::min(width, columns_ - column);
  if (width == 0) return 0;
  const std::vector<Cell> cells = cut(cells_of(text, style, width), width);
  put(column, row, cells, width);
  return static_cast<unsigned>(cells.size());
}

void Screen::put_right(unsigned column, unsigned row, std::string_view text, Style style,
                       unsigned width) {
  const auto used = static_cast<unsigned>(std::min<size_t>(columns_of(text), width));
  put(column + width - used, row, text, style, used);
}

void Screen::restyle(unsigned column, unsigned row, unsigned width, Style style, bool keep_states) {
  if (row >= rows_) return;
  for (unsigned i = column; i < columns_ && i - column < width; i++)
    if (!keep_states || cell(i, row).style < Style::held_running) cell(i, row).style = style;
}

void Screen::copy_row(const Screen& from, unsigned from_row, unsigned to_row) {
  if (from_row >= from.rows_ || to_row >= rows_) return;
  for (unsigned i = 0; i < columns_ && i < from.columns_; i++)
    cell(i, to_row) = from.at(i, from_row);
}

std::string Screen::row_text(unsigned row) const {
  std::string out;
  for (unsigned i = 0; i < columns_; i++) out += at(i, row).text;
  return out;
}

}  // namespace giltop
