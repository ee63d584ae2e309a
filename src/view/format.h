// Text in columns, and the matrix as a bar.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

// `text` in `width` columns; UTF-8 aware. Longer text is cut with an ellipsis by pad_right only.
std::string pad_left(const std::string& text, size_t width);
std::string pad_right(const std::string& text, size_t width);
// Without control characters or broken UTF-8: a target's names must not drive the terminal.
std::string printable(const std::string& text);

// `width` shared out in proportion to `parts`, by largest remainder, so that it is used up; where
// all parts are 0, none of it is.
std::vector<size_t> apportion(const std::vector<uint64_t>& parts, size_t width);
// One glyph is 1/width of the thread's life, in the order of the matrix; its shares are true to a
// glyph.
std::string state_bar(const ThreadSnapshot& thread, size_t width = 20);
// What the glyphs of these threads' bars mean, on one line.
std::string bar_legend(const std::string& bars);

}  // namespace giltop
