#include "view/tui_text.h"

#include <cstdint>

namespace giltop {

char ascii_of(wchar_t c) {
  switch (c) {
    case L'·':
      return '.';
    case L'–':
      return '-';
    case L'…':
      return '~';
    case L'▾':
    case L'↓':
      return 'v';
    case L'▴':
    case L'↑':
      return '^';
    case L'←':
      return '<';
    case L'→':
    case L'▸':
      return '>';
    case L'×':
      return 'x';
    case L'µ':
      return 'u';
    case L'▁':
      return '_';
    case L'▂':
      return '.';
    case L'▃':
      return ':';
    case L'▄':
      return '-';
    case L'▅':
      return '=';
    case L'▆':
      return '+';
    case L'▇':
      return '*';
    case L'█':
      return '#';
    default:
      return c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?';
  }
}

std::wstring wide_of(const std::string& text) {
  std::wstring out;
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    auto c = static_cast<uint32_t>(length == 1 ? first : first & (0xff >> (length + 1)));
    for (size_t k = 1; k < length && i + k < text.size(); k++)
      c = c << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3f);
    out += static_cast<wchar_t>(c);
    i += length;
  }
  return out;
}

}  // namespace giltop
