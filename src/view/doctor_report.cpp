#include "view/doctor_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "view/format.h"

namespace giltop {
namespace {

constexpr size_t kMaxCommandLine = 100;  // columns

std::string cut(const std::string& text, size_t width) {
  std::string fit = pad_right(text, width);
  while (!fit.empty() && fit.back() == ' ') fit.pop_back();
  return fit;
}

// A table as wide as its cells ask for; the last column is not padded.
std::string table(const std::vector<std::vector<std::string>>& rows, const std::string& indent) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i + 1 < row.size(); i++)
      while (pad_left(row[i], widths[i] + 1) == row[i]) widths[i]++;
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line = indent;
    for (size_t i = 0; i < row.size(); i++)
      line += i + 1 == row.size() ? row[i] : pad_right(row[i], widths[i]) + "  ";
    while (line.ends_with(' ')) line.pop_back();
    out += line + '\n';
  }
  return out;
}

std::string version_of(const std::string& version, bool free_threaded) {
  return version + (free_threaded ? "t" : "");
}

std::string host_text(const DoctorReport::Host& host) {
  std::string out =
      fmt::format("giltop {}, Linux {} {}, {} CPU{}\n\n", host.version, printable(host.kernel),
                  host.machine, host.cpus, host.cpus == 1 ? "" : "s");
  for (const DoctorReport::Check& check : host.checks) {
    out += check.ok ? "ok       " + check.what
                    : "MISSING  " + check.what + (check.cure.empty() ? "" : ": " + check.cure);
    out += '\n';
  }
  return out;
}

std::string scan_text(const DoctorReport::Scan& scan) {
  std::string out;
  size_t traceable = 0;
  if (!scan.found.empty()) {
    std::vector<std::vector<std::string>> rows = {{"PID", "NAME", "PYTHON", "TRACEABLE", "FILE"}};
    for (const DoctorReport::Found& f : scan.found) {
      traceable += f.refusal.empty();
      rows.push_back({std::to_string(f.pid), printable(f.comm),
                      f.python.empty() ? "-" : version_of(f.python, f.free_threaded),
                      f.refusal.empty() ? "yes" : "no",
                      printable(f.path) + (f.refusal.empty() ? "" : ": " + printable(f.refusal))});
    }
    size_t pid_width = 0;
    for (const auto& row : rows) pid_width = std::max(pid_width, row[0].size());
    for (auto& row : rows) row[0] = pad_left(row[0], pid_width);
    out += table(rows, "  ");
  }
  out += fmt::format("{} Python process{} of {}", traceable, traceable == 1 ? "" : "es",
                     scan.processes);
  if (traceable != scan.found.size())
    out += fmt::format(", {} more cannot be traced", scan.found.size() - traceable);
  if (scan.unreadable != 0)
    out += fmt::format("; {} could not be looked at{}", scan.unreadable,
                       scan.as_root ? "" : ": run giltop with sudo");
  return out + '\n';
}

std::string python_text(const DoctorReport::Python& python) {
  std::string out = fmt::format("CPython {}{}, {}\n", python.version,
                                python.free_threaded ? ", free-threaded" : "",
                                python.is_program ? "linked into the program" : "in a library");
  const auto field = [&](const char* name, const std::string& value) {
    out += fmt::format("  {:<9} {}\n", name, printable(value));
  };
  field("file", python.path);
  field("build-id", python.build_id.empty() ? "none" : python.build_id);
  std::string names;
  for (const std::string& from : python.names_from) names += (names.empty() ? "" : ", ") + from;
  field("names", names.empty() ? "none: it is stripped, and no debug file of it is here" : names);
  for (const std::string& note : python.notes) field("", note);

  std::vector<std::vector<std::string>> rows = {
      {"SITE", "ADDRESS", "FILE OFFSET", "FUNCTION", "CONFIRMED BY"}};
  std::string warnings;
  for (const DoctorReport::Site& site : python.sites) {
    const std::string function =
        site.function.empty()
            ? "?"
            : fmt::format("{}+{:#x}", cut(printable(site.function), 40), site.function_offset);
    std::string proof = site.proof;
    if (site.name == DoctorReport::Agreement::agrees) proof += "; name agrees";
    if (site.name == DoctorReport::Agreement::contradicts) {
      proof += "; name contradicts";
      warnings +=
          fmt::format("  WARNING: {} site {:#x} is in {}: the sites or the names are wrong\n",
                      site.kind, site.address, printable(site.function));
    }
    rows.push_back({site.kind, fmt::format("{:#x}", site.address),
                    fmt::format("{:#x}", site.file_offset), function, proof});
  }
  return out + table(rows, "    ") + warnings;
}

std::string process_text(const DoctorReport::Process& process) {
  std::string out = fmt::format("{} {}: {}\n", process.pid, printable(process.comm),
                                cut(printable(process.cmdline), kMaxCommandLine));
  if (!process.program.empty())
    out += fmt::format("  {:<9} {}\n", "program", printable(process.program));
  std::string place;
  const auto add = [&](const std::string& part) { place += (place.empty() ? "" : "; ") + part; };
  if (process.namespace_pid != 0)
    add(fmt::format("PID {} in its own PID namespace", process.namespace_pid));
  if (process.own_mounts) add("its own mount namespace");
  if (!process.root.empty()) add("its root is " + printable(process.root));
  if (!place.empty()) out += fmt::format("  {:<9} {}\n", "container", place);
  for (const std::string& note : process.notes) out += "  " + printable(note) + '\n';
  for (const DoctorReport::Python& python : process.pythons) out += python_text(python);
  return out;
}

}  // namespace

std::string doctor_text(const DoctorReport& report) {
  std::vector<std::string> parts;
  if (report.host) parts.push_back(host_text(*report.host));
  if (report.scan) parts.push_back(scan_text(*report.scan));
  for (const auto& process : report.processes) parts.push_back(process_text(process));
  for (const auto& file : report.files) parts.push_back(python_text(file));
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : "\n") + part;
  return out;
}

}  // namespace giltop
