// Figures as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace giltop {

std::string format_seconds(uint64_t ns);   // "4.21s", "123.4s"
std::string format_duration(uint64_t ns);  // "0", "640ns", "28µs", "5.1ms", "1.25s"
std::string format_count(uint64_t count);  // "18 412"
std::string format_bytes(uint64_t bytes);  // "92 KB"
std::string format_percent(uint64_t part, uint64_t whole, int decimals = 1);  // "49.5 %"
std::string format_rate(double per_second);  // "0.3", "140", "2.1k", "1.2M"

}  // namespace giltop
