#include "view/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
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

std::string format_seconds(uint64_t ns) {
  const double s = static_cast<double>(ns) / 1e9;
  return s < 100 ? fmt::format("{:.2f}s", s) : fmt::format("{:.1f}s", s);
}

std::string format_duration(uint64_t ns) {
  const double v = static_cast<double>(ns);
  const auto scaled = [](double value, const char* unit) {
    return value < 9.95 ? fmt::format("{:.1f}{}", value, unit)
                        : fmt::format("{:.0f}{}", value, unit);
  };
  if (ns == 0) return "0";
  if (v < 999.5) return fmt::format("{}ns", ns);
  if (v < 999.5e3) return scaled(v / 1e3, "µs");
  if (v < 999.5e6) return scaled(v / 1e6, "ms");
  return fmt::format("{:.2f}s", v / 1e9);
}

std::string format_count(uint64_t count) {
  const std::string digits = std::to_string(count);
  if (digits.size() <= 4) return digits;
  std::string out;
  for (size_t i = 0; i < digits.size(); i++) {
    if (i != 0 && (digits.size() - i) % 3 == 0) out += ' ';
    out += digits[i];
  }
  return out;
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  if (bytes < 1'000'000) return fmt::format("{} KB", (bytes + 500) / 1000);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string format_percent(uint64_t part, uint64_t whole, int decimals) {
  const double percent =
      whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.{}f}", percent, decimals);
}

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

std::string format_rate(double per_second) {
  const auto scaled = [](double value, const char* unit) {
    return value < 9.95 ? fmt::format("{:.1f}{}", value, unit)
                        : fmt::format("{:.0f}{}", value, unit);
  };
  if (per_second < 9.95) return fmt::format("{:.{}f}", per_second, per_second < 0.05 ? 0 : 1);
  if (per_second < 999.5) return fmt::format("{:.0f}", per_second);
  if (per_second < 999.5e3) return scaled(per_second / 1e3, "k");
  return scaled(per_second / 1e6, "M");
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
