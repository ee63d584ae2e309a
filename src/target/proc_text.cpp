#include "target/proc_text.h"

#include <charconv>
#include <set>
#include <utility>

namespace giltop {
namespace {

// Takes a number off the front of `text`, and the one character `after` behind it.
template <typename T>
bool take_number(std::string_view& text, int base, char after, T& value) {
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value, base);
  if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != after) return false;
  text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()) + 1);
  return true;
}

// "7f0000-7f1000 r-xp 00001000 fe:01 1234    /usr/lib/libc.so.6"; the path may hold anything but a
// newline.
std::optional<MappedFile> parse_maps_line(std::string_view line) {
  MappedFile file;
  if (!take_number(line, 16, '-', file.start) || !take_number(line, 16, ' ', file.end)) {
    return std::nullopt;
  }
  if (line.size() < 5 || line[2] != 'x' || line[4] != ' ') return std::nullopt;
  line.remove_prefix(5);
  if (!take_number(line, 16, ' ', file.offset)) return std::nullopt;
  if (!take_number(line, 16, ':', file.device_major)) return std::nullopt;
  if (!take_number(line, 16, ' ', file.device_minor)) return std::nullopt;
  if (!take_number(line, 10, ' ', file.inode)) return std::nullopt;  // a blank follows even alone
  const size_t path = line.find_first_not_of(' ');
  if (path == std::string_view::npos || line[path] != '/' || file.inode == 0) return std::nullopt;
  file.path = line.substr(path);
  return file;
}

}  // namespace

std::vector<MappedFile> parse_maps(std::string_view text) {
  std::vector<MappedFile> files;
  std::set<std::pair<std::pair<uint32_t, uint32_t>, uint64_t>> seen;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    auto file = parse_maps_line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!file) continue;
    if (!seen.insert({{file->device_major, file->device_minor}, file->inode}).second) continue;
    files.push_back(*std::move(file));
  }
  return files;
}

std::string unescape_maps_path(std::string_view path) {
  constexpr std::string_view kNewline = "\\012";
  std::string plain;
  while (!path.empty()) {
    if (path.starts_with(kNewline)) {
      plain += '\n';
      path.remove_prefix(kNewline.size());
    } else {
      plain += path[0];
      path.remove_prefix(1);
    }
  }
  return plain;
}

std::optional<ProcStat> parse_stat(std::string_view text) {
  // "1 (comm) S 0 …": comm may hold ") S", so its end is the last parenthesis.
  const size_t open = text.find('('), close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  ProcStat stat;
  stat.comm = text.substr(open + 1, close - open - 1);
  text.remove_prefix(close + 1);
  constexpr int kBlanksBeforeState = 1;       // field 3 follows the parenthesis
  constexpr int kBlanksBeforeParent = 2;      // field 4
  constexpr int kBlanksBeforeStartTime = 20;  // field 22
  constexpr int kBlanksBeforeProcessor = 37;  // field 39
  for (int i = 1; i <= kBlanksBeforeProcessor; ++i) {
    const size_t blank = text.find(' ');
    if (blank == std::string_view::npos) {
      if (i <= kBlanksBeforeStartTime) return std::nullopt;
      return stat;
    }
    text.remove_prefix(blank + 1);
    std::string_view field = text;
    if (i == kBlanksBeforeState && !text.empty()) stat.state = text[0];
    if (i == kBlanksBeforeParent && !take_number(field, 10, ' ', stat.parent)) return std::nullopt;
    if (i == kBlanksBeforeStartTime && !take_number(field, 10, ' ', stat.start_time_ticks))
      return std::nullopt;
  }
  take_number(text, 10, ' ', stat.processor);
  return stat;
}

std::optional<ProcSyscall> parse_syscall(std::string_view text) {
  // "running", "-1 0x7ffd… 0x7f…" or "202 0x7f… 0x189 …" (proc_pid_syscall(), fs/proc/base.c).
  ProcSyscall call;
  if (text.starts_with("running")) {
    call.running = true;
    return call;
  }
  if (!take_number(text, 10, ' ', call.number)) return std::nullopt;
  if (call.number < 0) return call;
  if (!text.starts_with("0x")) return std::nullopt;
  text.remove_prefix(2);
  if (!take_number(text, 16, ' ', call.argument0)) return std::nullopt;
  return call;
}

std::vector<pid_t> parse_ns_ids(std::string_view text) {
  constexpr std::string_view kIds = "\nNSpid:";
  constexpr size_t kMaxDepth = 32;  // MAX_PID_NS_LEVEL, include/linux/pid_namespace.h
  std::vector<pid_t> ids;
  const size_t at = text.find(kIds);
  if (at == std::string_view::npos) return ids;
  text.remove_prefix(at + kIds.size());
  text = text.substr(0, text.find('\n'));
  while (text.starts_with('\t') && ids.size() <= kMaxDepth) {
    text.remove_prefix(1);
    pid_t id = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
    if (parsed.ec != std::errc() || id <= 0) return {};
    text.remove_prefix(static_cast<size_t>(parsed.ptr - text.data()));
    ids.push_back(id);
  }
  if (!text.empty()) return {};
  return ids;
}

std::optional<pid_t> parse_tgid(std::string_view text) {
  // "Name:" comes first and escapes its newlines, so no comm can forge a line.
  constexpr std::string_view kTgid = "\nTgid:\t";
  const size_t at = text.find(kTgid);
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + kTgid.size());
  pid_t tgid;
  if (!take_number(text, 10, '\n', tgid)) return std::nullopt;
  return tgid;
}

std::string parse_cmdline(std::string_view text) {
  while (!text.empty() && text.back() == '\0') text.remove_suffix(1);
  std::string joined(text);
  for (char& c : joined) {
    if (c == '\0') c = ' ';
  }
  return escape_controls(joined);
}

std::string escape_controls(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string safe;
  const auto escape = [&](unsigned char c) { safe += {'\\', 'x', kHex[c >> 4], kHex[c & 15]}; };
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\n') {
      safe += "\\n";
    } else if (c == '\t') {
      safe += "\\t";
    } else if (c == '\r') {
      safe += "\\r";
    } else if (c < 0x20 || c == 0x7f) {
      escape(c);
    } else if (c == 0xc2 && i + 1 < text.size() && (text[i + 1] & 0xe0) == 0x80) {
      escape(c);  // U+0080 to U+009F in UTF-8: C1 controls, which some terminals obey
      escape(static_cast<unsigned char>(text[++i]));
    } else {
      safe += static_cast<char>(c);
    }
  }
  return safe;
}

}  // namespace giltop
