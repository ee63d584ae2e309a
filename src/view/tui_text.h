// Characters as a terminal's library takes them.
#pragma once

#include <string>

namespace giltop {

// Of a Cell's text: good UTF-8.
std::wstring wide_of(const std::string& text);
// What stands for a character where there is no UTF-8: of those that the view draws with, one that
// looks like it.
char ascii_of(wchar_t c);

}  // namespace giltop
