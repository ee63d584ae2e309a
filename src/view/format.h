// Figures as people read them, and the matrix as a bar.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

std::string format_seconds(uint64_t ns);   // "4.21s", "123.4s"
std::string format_duration(uint64_t ns);  // "0", "640ns", "28µs", "5.1ms", "1.25s"
std::string format_count(uint64_t count);  // "18 412"
std::string format_bytes(uint64_t bytes);  // "92 KB"
std::string format_percent(uint64_t part, uint64_t whole, int decimals = 1);  // "49.5 %"

std::string format_rate(double per_second);  // "0.3", "140", "2.1k", "1.2M"

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
