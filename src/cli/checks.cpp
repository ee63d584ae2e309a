#include "cli/checks.h"

#include <pwd.h>
#include <regex.h>
#include <sys/stat.h>
#include <unistd.h>

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

namespace {

namespace fs = std::filesystem;

bool find(const std::string& output, struct stat& found) {
  return (output == "-" ? fstat(STDOUT_FILENO, &found) : stat(output.c_str(), &found)) == 0;
}

// Where a file would be made that is not there yet: a link may lead there.
fs::path place_of(const std::string& output) {
  constexpr int kMostLinks = 40;  // the kernel's limit
  std::error_code failed;
  fs::path place = fs::absolute(output, failed);
  for (int i = 0; i < kMostLinks && fs::is_symlink(fs::symlink_status(place, failed)); i++)
    place = place.parent_path() / fs::read_symlink(place, failed);
  fs::path whole = fs::weakly_canonical(place, failed);
  return failed ? place : whole;
}

}  // namespace

bool is_same_output(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  if (a == "-" && b == "-") return true;
  struct stat one, other;
  const bool has_one = find(a, one), has_other = find(b, other);
  if (has_one && has_other)
    return one.st_dev == other.st_dev && one.st_ino == other.st_ino && !S_ISCHR(one.st_mode);
  return !has_one && !has_other && a != "-" && b != "-" && place_of(a) == place_of(b);
}

std::string wrong_if_same(const std::string& one, const std::string& path, const std::string& other,
                          const std::string& other_path) {
  if (!is_same_output(path, other_path)) return {};
  return one + " and " + other + " cannot both go to " + (path == "-" ? "stdout" : path) +
         ": give each its own file";
}

std::string wrong_pair(const std::string& kept, const std::string& path, const std::string& other,
                       const std::string& other_path) {
  if (std::string wrong = wrong_if_same(kept, path, other, other_path); !wrong.empty())
    return wrong;
  if (!path.empty() && path != "-" && is_same_output(path + ".old", other_path))
    return other + " cannot go to " + path + ".old: an old " + path + " becomes that";
  return {};
}

std::string wrong_if_printed(const std::string& option, const std::string& path, bool to_stdout) {
  if (path == "-") return {};
  std::string wrong;
  if (to_stdout) wrong = wrong_if_same(option, path, "what is printed", "-");
  if (wrong.empty())
    wrong = wrong_if_same(option, path, "what is said on stderr", "/proc/self/fd/2");
  return wrong;
}

Status spare_recording(const std::string& recording, const std::vector<std::string>& outputs) {
  const std::string file = recording == "-" ? "./-" : recording;
  for (const std::string& output : outputs)
    if (is_same_output(file, output))
      return Error("cannot write " + (output == "-" ? "to stdout" : output) +
                   ": it is the recording");
  return ok();
}

}  // namespace giltop
