// Figures as people read them, and the matrix as a bar.
#pragma once

#include <cstdint>
#include <string>

#include "model/snapshot.h"

namespace giltop {

std::string format_seconds(uint64_t ns);   // "4.21s", "123.4s"
std::string format_duration(uint64_t ns);  // "0", "640ns", "28µs", "5.1ms", "1.25s"
std::string format_count(uint64_t count);  // "18 412"
std::string format_bytes(uint64_t bytes);  // "92 KB"
std::string format_percent(uint64_t part, uint64_t whole, int decimals = 1);  // "49.5 %"

// `text` in `width` columns; UTF-8 aware. Longer text is cut with an ellipsis by pad_right only.
std::string pad_left(const std::string& text, size_t width);
std::string pad_right(const std::string& text, size_t width);
// Without control characters or broken UTF-8: a target's names must not drive the terminal.
std::string printable(const std::string& text);

// One glyph is 1/width of the thread's life, in the order of the matrix; rounded by largest
// remainder, so that the bar is full and its shares are true to a glyph.
std::string state_bar(const ThreadSnapshot& thread, size_t width = 20);
// What the glyphs of these threads' bars mean, on one line.
std::string bar_legend(const std::string& bars);

}  // namespace giltop
