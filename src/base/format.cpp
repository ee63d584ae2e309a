#include "base/format.h"

#include <fmt/format.h>

namespace giltop {

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

}  // namespace giltop
