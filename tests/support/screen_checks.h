// What holds for every screen.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "view/screen.h"

namespace giltop::testing {

inline std::string text_of(const Screen& screen) {
  std::string out;
  for (unsigned row = 0; row < screen.rows(); row++) {
    std::string line = screen.row_text(row);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

// Every row is exactly as wide as the screen, wide characters are whole, and nothing in it drives a
// terminal.
inline void expect_sound(const Screen& screen) {
  for (unsigned row = 0; row < screen.rows(); row++) {
    unsigned width = 0;
    for (unsigned column = 0; column < screen.columns(); column++) {
      const Cell& cell = screen.at(column, row);
      width += cell.width;
      ASSERT_LE(cell.width, 2u);
      const bool half = column > 0 && screen.at(column - 1, row).width == 2;
      ASSERT_EQ(cell.width == 0, half) << "row " << row << " column " << column;
      ASSERT_EQ(cell.text.empty(), cell.width == 0);
      const std::vector<Cell> again = cells_of(cell.text, cell.style);
      ASSERT_TRUE(cell.width == 0 || (again.size() == cell.width && again[0] == cell))
          << "row " << row << " column " << column << ": '" << cell.text << "'";
    }
    ASSERT_EQ(width, screen.columns()) << "row " << row;
  }
  if (screen.cursor) {
    ASSERT_LT(screen.cursor->first, screen.columns());
    ASSERT_LT(screen.cursor->second, screen.rows());
  }
}

}  // namespace giltop::testing
