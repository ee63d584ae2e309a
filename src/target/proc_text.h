// Parsers for the text files of /proc/PID: pure functions of their bytes (Linux
// Documentation/filesystems/proc.rst). Names in them are chosen by the traced process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "target/process.h"

namespace giltop {

// /proc/PID/maps: each distinct file (by device and inode) with an executable mapping, in order of
// address. Lines that do not parse are skipped; mappings without a file ("[vdso]") are no files.
std::vector<MappedFile> parse_maps(std::string_view text);

// The path behind one of maps: the kernel writes a newline in it as "\012" and nothing else so.
std::string unescape_maps_path(std::string_view path);

struct ProcStat {
  std::string comm;               // raw, may hold blanks and parentheses
  uint64_t parent = 0;            // process id
  uint64_t start_time_ticks = 0;  // since boot, in clock ticks of USER_HZ
};
// /proc/PID/stat.
std::optional<ProcStat> parse_stat(std::string_view text);

// The value of "Tgid:" in /proc/PID/status.
std::optional<pid_t> parse_tgid(std::string_view text);

// The values of "NSpid:" there: the process's id in each PID namespace it is in, from that of
// /proc's mount inwards. Empty where the line is missing or malformed.
std::vector<pid_t> parse_namespace_ids(std::string_view text);

// /proc/PID/cmdline: arguments joined by one blank, control characters escaped.
std::string parse_cmdline(std::string_view text);

// Control characters as "\n", "\t", "\x1b": what a process calls itself must not steer a terminal.
std::string escape_controls(std::string_view text);

}  // namespace giltop
