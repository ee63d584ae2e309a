#include "view/format.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

namespace giltop {
namespace {

struct Glyph {
  const char* text;
  const char* meaning;
};
constexpr std::array<Glyph, 7> kGlyphs = {{{"█", "holding, on CPU"},
                                           {"▓", "holding, off CPU"},
                                           {"░", "waiting"},
                                           {"▒", "running without the GIL"},
                                           {"-", "wants a CPU"},
                                           {"·", "asleep"},
                                           {"?", "unknown"}}};

std::array<uint64_t, 7> shares_of(const ThreadSnapshot& t) {
  using G = GilState;
  using C = CpuState;
  return {
      t.in(G::holding, C::running),
      t.in(G::holding, C::runnable) + t.in(G::holding, C::blocked),
      t.in(G::waiting, C::running) + t.in(G::waiting, C::runnable) + t.in(G::waiting, C::blocked),
      t.in(G::released, C::running),
      t.in(G::released, C::runnable),
      t.in(G::released, C::blocked),
      t.in(G::unknown) + t.in(C::unknown)-t.in(G::unknown, C::unknown)};
}

// Columns of UTF-8 text, each code point one column.
size_t columns(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

std::string pad_left(const std::string& text, size_t width) {
  const size_t used = columns(text);
  return used >= width ? text : std::string(width - used, ' ') + text;
}

std::string pad_right(const std::string& text, size_t width) {
  const size_t used = columns(text);
  if (used <= width) return text + std::string(width - used, ' ');
  std::string out;
  size_t taken = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80 && taken++ == width - 1) break;
    out += c;
  }
  return out + "…";
}

std::string printable(const std::string& text) {
  // Control characters are the bytes below 0x20, 0x7f, and U+0080 to U+009F: terminals take the
  // latter as well, encoded as UTF-8 or as bare bytes.
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) {
      return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
    };
    const unsigned first = byte(i);
    const size_t length = first < 0x80                    ? 1
                          : first >= 0xc2 && first < 0xe0 ? 2
                          : first >= 0xe0 && first < 0xf0 ? 3
                          : first >= 0xf0 && first < 0xf5 ? 4
                                                          : 0;
    bool good = length == 1 ? first >= 0x20 && first != 0x7f
                            : length != 0 && !(first == 0xc2 && byte(i + 1) < 0xa0);
    for (size_t k = 1; k < length; k++) good = good && (byte(i + k) & 0xc0) == 0x80;
    if (good) {
      out.append(text, i, length);
      i += length;
    } else {
      out += '?';
      i++;
      while ((byte(i) & 0xc0) == 0x80) i++;  // the rest of the same character
    }
  }
  return out;
}

std::vector<size_t> apportion(const std::vector<uint64_t>& parts, size_t width) {
  std::vector<size_t> out(parts.size());
  const uint64_t whole = std::accumulate(parts.begin(), parts.end(), uint64_t{0});
  if (whole == 0) return out;
  std::vector<std::pair<double, size_t>> rest;
  size_t used = 0;
  for (size_t i = 0; i < parts.size(); i++) {
    const double exact =
        static_cast<double>(parts[i]) * static_cast<double>(width) / static_cast<double>(whole);
    out[i] = static_cast<size_t>(exact);
    used += out[i];
    rest.emplace_back(exact - static_cast<double>(out[i]), i);
  }
  std::stable_sort(rest.begin(), rest.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = 0; used < width; i++, used++) out[rest[i % rest.size()].second]++;
  return out;
}

std::string state_bar(const ThreadSnapshot& thread, size_t width) {
  const auto shares = shares_of(thread);
  const std::vector<size_t> glyphs = apportion({shares.begin(), shares.end()}, width);
  std::string out;
  for (size_t i = 0; i < glyphs.size(); i++)
    for (size_t n = 0; n < glyphs[i]; n++) out += kGlyphs[i].text;
  return out;
}

std::string bar_legend(const std::string& bars) {
  std::string out;
  for (const Glyph& glyph : kGlyphs) {
    if (bars.find(glyph.text) == std::string::npos) continue;
    if (!out.empty()) out += "   ";
    out += std::string(glyph.text) + " " + glyph.meaning;
  }
  return out;
}

}  // namespace giltop
