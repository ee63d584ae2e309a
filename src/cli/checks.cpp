#include "cli/checks.h"

#include <pwd.h>
#include <regex.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace giltop {

std::string check_size(std::string& text) {
  char* end = nullptr;
  const unsigned long long number = std::strtoull(text.c_str(), &end, 10);
  const std::string unit = end;
  unsigned shift = 0;
  if (unit == "K" || unit == "k") {
    shift = 10;
  } else if (unit == "M" || unit == "m") {
    shift = 20;
  } else if (unit == "G" || unit == "g") {
    shift = 30;
  } else if (!unit.empty() || text.empty()) {
    return "not a size: " + text + " (like 16M)";
  }
  const unsigned long long bytes = number << shift;
  if (number > 1u << 30 || bytes < 65536 || bytes > 1ull << 30 || (bytes & (bytes - 1)) != 0)
    return "must be a power of two from 64K to 1G";
  text = std::to_string(bytes);
  return {};
}

std::string check_percent(std::string& text) {
  char* end = nullptr;
  const double percent = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  if (end == text.c_str() || (!unit.empty() && unit != "%") || !(percent > 0 && percent <= 100))
    return "must be a percentage above 0: " + text;
  text = std::to_string(percent);
  return {};
}

std::string check_user(std::string& text) {
  const passwd* entry = getpwnam(text.c_str());
  const bool number =
      !text.empty() && text.size() < 10 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!entry && !number) return "there is no user " + text;
  if (entry) text = std::to_string(entry->pw_uid);
  return {};
}

std::string check_regex(std::string& text) {
  regex_t tried;
  if (regcomp(&tried, text.c_str(), REG_EXTENDED | REG_NOSUB) != 0)
    return "not a regular expression: " + text;
  regfree(&tried);
  return {};
}

std::string check_delay(std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != 0 || !(seconds >= 0.05) || seconds > 86400)
    return "not a delay in seconds, from 0.05 on: " + text;
  return {};
}

std::string check_seconds(std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != 0 || !(seconds > 0) || seconds > 366 * 86400.0)
    return "not a duration in seconds: " + text;
  return {};
}

bool is_same_output(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  if (a == "-" || b == "-") return a == b;
  namespace fs = std::filesystem;
  std::error_code failed;
  if (fs::equivalent(a, b, failed)) return true;
  // Of a relative path that is not there nothing would be resolved.
  const fs::path one = fs::weakly_canonical(fs::absolute(a, failed), failed);
  if (failed) return a == b;
  const fs::path other = fs::weakly_canonical(fs::absolute(b, failed), failed);
  return failed ? a == b : one == other;
}

}  // namespace giltop
