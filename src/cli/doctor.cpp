// giltop doctor: what works on this host and with this Python, what is missing, and the cure.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/output.h"
#include "probe/host_checks.h"
#include "target/elf_dynamic.h"
#include "target/elf_file.h"
#include "target/proc_text.h"
#include "target/process.h"
#include "target/python_processes.h"
#include "target/symbols.h"
#include "view/doctor_report.h"
#include "view/format.h"

namespace giltop {
namespace {

using Json = nlohmann::ordered_json;

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// --- how a site was proved -----------------------------------------------------------------------

std::string proof_of(const GilSite& site) {
  switch (site.proof) {
    case SiteProof::flag_constant:
      return site.kind == SiteKind::acquire ? "its function stores locked = 1"
                                            : "its function stores locked = 0";
    case SiteProof::flag_written:
      return "its function stores to locked";
    case SiteProof::same_argument:
      return "same argument as " + hex(site.witness);
    case SiteProof::beside:
      return "beside the argument of " + hex(site.witness) + " in the struct";
    case SiteProof::same_offset:
      return "same offset as the argument of " + hex(site.witness);
    case SiteProof::offset_beside:
      return "offset beside that of the argument of " + hex(site.witness);
    case SiteProof::variable:
      return site.kind == SiteKind::wait || site.kind == SiteKind::release
                 ? "uses the one variable that releases signal"
                 : "uses the one variable that forced switches wait for";
    case SiteProof::function:
      if (site.kind == SiteKind::wait) return "in the function that acquires";
      return site.kind == SiteKind::acquire
                 ? "in the function that calls pthread_cond_timedwait"
                 : "outside the function that calls pthread_cond_timedwait";
    case SiteProof::callee:
      return site.kind == SiteKind::wait ? "the only call of pthread_cond_timedwait"
                                         : "CPython's only use of pthread_cond_wait";
  }
  return "?";
}

// take_gil may hold copies of drop_gil (its must-exit path), never the other way round.
DoctorReport::Agreement agreement_of(SiteKind kind, const std::string& function) {
  const bool takes = kind != SiteKind::release && kind != SiteKind::forced;
  switch (gil_function(function)) {
    case GilFunction::take_gil:
      return takes ? DoctorReport::Agreement::agrees : DoctorReport::Agreement::neutral;
    case GilFunction::drop_gil:
      return takes ? DoctorReport::Agreement::contradicts : DoctorReport::Agreement::agrees;
    case GilFunction::other:
      break;
  }
  return DoctorReport::Agreement::neutral;
}

DoctorReport::Python python_report(const ElfFile& elf, const CPythonFile& cpython,
                                   const std::string& path, const DebugPlaces& places) {
  DoctorReport::Python python;
  python.path = path;
  python.version = cpython.version;
  python.build_id = cpython.build_id;
  python.free_threaded = cpython.free_threaded;
  python.is_program = elf.is_dynamic();
  std::vector<uint64_t> addresses;
  for (const GilSite& site : cpython.sites) addresses.push_back(site.address);
  FunctionNames names = function_names(elf, places, addresses);
  python.names_from = std::move(names.sources);
  python.notes = std::move(names.refused);
  for (size_t i = 0; i < cpython.sites.size(); i++) {
    const GilSite& from = cpython.sites[i];
    DoctorReport::Site site;
    site.kind = to_string(from.kind);
    site.address = from.address;
    site.file_offset = from.file_offset;
    site.proof = proof_of(from);
    if (from.probe.address != from.address) site.proof += "; probed at " + hex(from.probe.address);
    if (!from.probe.emulated) site.proof += "; single-stepped";
    if (names.names[i]) {
      site.function = names.names[i]->name;
      site.function_offset = names.names[i]->offset;
      site.name = agreement_of(from.kind, site.function);
    }
    python.sites.push_back(std::move(site));
  }
  return python;
}

// --- a process -----------------------------------------------------------------------------------

// Errors: with the exit code.
Result<DoctorReport::Process> look_at_process(PythonProcesses& pythons, uint32_t pid) {
  const auto tgid = static_cast<pid_t>(pid);
  auto found = pythons.look_at(tgid);
  if (!found) {
    // "no process 4242" says it all.
    const std::string& why = found.error().message();
    return why.find(std::to_string(pid)) == std::string::npos
               ? found.error().in("cannot look at " + std::to_string(pid))
               : found.error();
  }
  const std::string who =
      "cannot trace " + std::to_string(pid) + " (" + printable(found->info.comm) + ")";
  DoctorReport::Process process;
  process.pid = pid;
  process.comm = found->info.comm;
  process.cmdline = found->info.cmdline;
  process.notes = found->unread;
  std::array<char, 4096> exe;
  const ssize_t length =
      readlink(("/proc/" + std::to_string(pid) + "/exe").c_str(), exe.data(), exe.size());
  if (length > 0)
    process.program = escape_controls(std::string_view(exe.data(), static_cast<size_t>(length)));
  std::string root;
  if (const auto place = process_place(tgid)) {
    process.namespace_pid = static_cast<uint32_t>(place->namespace_id);
    process.own_mounts = place->own_mounts;
    process.root = escape_controls(place->root);
    root = place->root;
  } else {
    process.notes.push_back(place.error().message());
  }
  std::string refusal;
  for (const PythonProcesses::Mapped& mapped : found->files) {
    const std::string path = escape_controls(mapped.mapping.path);
    if (mapped.is_refused()) {
      if (refusal.empty()) refusal = mapped.file->inspection.reason;
      process.notes.push_back(path + ": " + mapped.file->inspection.reason);
      continue;
    }
    auto fd = open_mapping(tgid, mapped.mapping);
    auto elf = fd ? ElfFile::make(std::move(*fd)) : Result<ElfFile>(fd.error());
    if (!elf) return elf.error().in("cannot look at " + std::to_string(pid));
    DebugPlaces places;
    places.root = "/proc/" + std::to_string(pid) + "/root";
    places.path = unescape_maps_path(mapped.mapping.path);
    // The kernel prints it from our root, not from that of a process under chroot.
    if (!root.empty() && places.path.starts_with(root + "/")) places.path.erase(0, root.size());
    process.pythons.push_back(python_report(*elf, mapped.file->inspection.cpython, path, places));
  }
  if (!process.pythons.empty()) return process;
  if (refusal.empty()) {
    refusal = "it is not a Python process";
    if (!found->unread.empty())
      refusal += ", as far as its files can be read (" + printable(found->unread.front()) + ")";
  }
  return Error(who + ": " + refusal, Exit::blocker);
}

// --- a file --------------------------------------------------------------------------------------

// The libpython that a program is linked to; empty: none.
std::string needed_libpython(const ElfFile& elf) {
  const auto dynamic = DynamicSection::make(elf);
  if (!dynamic || !*dynamic) return {};
  for (const std::string_view name : (*dynamic)->needed())
    if (name.starts_with("libpython")) return std::string(name);
  return {};
}

// A CPython, or a line about a program that is linked to one.
struct FileFinding {
  std::optional<DoctorReport::Python> python;
  std::string libpython;
};

Result<FileFinding> look_at_file(const std::string& path) {
  const std::string name = printable(path);
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return system_error(name, errno);
  if (S_ISDIR(status.st_mode)) return Error(name + ": is a directory");
  if (!S_ISREG(status.st_mode)) return Error(name + ": not a regular file");
  const auto refuse = [&](const std::string& why) {
    return Error(name + ": " + why, Exit::blocker);
  };
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return system_error(name, errno);
  std::array<char, 128> start;
  const ssize_t got = pread(fd.get(), start.data(), start.size(), 0);
  const std::string_view head(start.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (head.starts_with("#!"))
    return refuse("is a script: " + printable(std::string(head.substr(0, head.find('\n')))));
  const auto elf = ElfFile::make(std::move(fd));
  if (!elf) return refuse(elf.error().message());
  const auto inspection = inspect_elf(*elf);
  if (!inspection) return refuse(inspection.error().message());
  FileFinding finding;
  switch (inspection->kind) {
    case Inspection::Kind::cpython: {
      std::error_code error;
      const auto real = std::filesystem::canonical(path, error);
      DebugPlaces places;
      places.path = error ? path : real.string();
      finding.python = python_report(*elf, inspection->cpython, path, places);
      return finding;
    }
    case Inspection::Kind::refused:
      return refuse(inspection->reason);
    case Inspection::Kind::launcher:
    case Inspection::Kind::unrelated:
      break;
  }
  finding.libpython = needed_libpython(*elf);
  if (finding.libpython.empty()) return refuse("not a CPython");
  return finding;
}

// --- the host ------------------------------------------------------------------------------------

DoctorReport::Host host_report(const HostChecks& checked) {
  DoctorReport::Host host;
  host.version = GILTOP_VERSION;
  host.kernel = checked.kernel;
  host.machine = checked.machine;
  host.cpus = checked.cpus;
  host.hit_cost_ns = checked.hit_cost_ns;
  for (const HostCheck& check : checked.checks)
    host.checks.push_back({check.ok, check.blocks, check.what, check.cure});
  return host;
}

Result<DoctorReport::Scan> scan_report(PythonProcesses& pythons) {
  DoctorReport::Scan report;
  const auto scan = pythons.for_each([&](const PythonProcesses::Process& process) {
    DoctorReport::Found found;
    found.pid = static_cast<uint32_t>(process.info.tgid);
    found.comm = process.info.comm;
    // One that can be traced tells most; a process may map several.
    const auto python = std::find_if(process.files.begin(), process.files.end(),
                                     [](const auto& mapped) { return mapped.is_python(); });
    const auto& shown = python != process.files.end() ? *python : process.files.front();
    found.path = escape_controls(shown.mapping.path);
    const auto all = std::count_if(process.files.begin(), process.files.end(),
                                   [](const auto& mapped) { return mapped.is_python(); });
    if (all > 1) found.path += " and " + std::to_string(all - 1) + " more";
    if (shown.is_python()) {
      found.python = shown.file->inspection.cpython.version;
      found.free_threaded = shown.file->inspection.cpython.free_threaded;
    } else {
      found.refusal = shown.file->inspection.reason;
    }
    report.found.push_back(std::move(found));
  });
  if (!scan) return scan.error();
  report.processes = scan->processes;
  report.unreadable = scan->unreadable;
  report.as_root = geteuid() == 0;
  return report;
}

// --- JSON: schema giltop.doctor/1 ----------------------------------------------------------------

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json to_json(const DoctorReport::Python& python) {
  Json sites = Json::array();
  for (const DoctorReport::Site& site : python.sites) {
    Json agrees = nullptr;
    if (site.name == DoctorReport::Agreement::agrees) agrees = true;
    if (site.name == DoctorReport::Agreement::contradicts) agrees = false;
    sites.push_back(
        {{"kind", site.kind},
         {"address", hex(site.address)},
         {"file_offset", hex(site.file_offset)},
         {"function", text_or_null(site.function)},
         {"function_offset", site.function.empty() ? Json(nullptr) : Json(site.function_offset)},
         {"confirmed_by", site.proof},
         {"name_agrees", agrees}});
  }
  return {{"file", python.path},
          {"python", python.version},
          {"build_id", text_or_null(python.build_id)},
          {"free_threaded", python.free_threaded},
          {"library", !python.is_program},
          {"names_from", python.names_from},
          {"notes", python.notes},
          {"sites", std::move(sites)}};
}

Json to_json(const DoctorReport::Process& process) {
  Json pythons = Json::array();
  for (const auto& python : process.pythons) pythons.push_back(to_json(python));
  return {
      {"pid", process.pid},
      {"comm", process.comm},
      {"cmdline", process.cmdline},
      {"program", text_or_null(process.program)},
      {"namespace_pid", process.namespace_pid == 0 ? Json(nullptr) : Json(process.namespace_pid)},
      {"own_mount_namespace", process.own_mounts},
      {"root", process.root.empty() ? "/" : process.root},
      {"notes", process.notes},
      {"pythons", std::move(pythons)}};
}

Json to_json(const DoctorReport::Host& host) {
  Json checks = Json::array();
  for (const DoctorReport::Check& check : host.checks)
    checks.push_back({{"ok", check.ok},
                      {"blocks", check.blocks},
                      {"what", check.what},
                      {"cure", text_or_null(check.cure)}});
  return {{"kernel", host.kernel},
          {"machine", host.machine},
          {"cpus", host.cpus},
          {"hit_cost_s", host.hit_cost_ns ? Json(*host.hit_cost_ns / 1e9) : Json(nullptr)},
          {"checks", std::move(checks)}};
}

Json to_json(const DoctorReport::Scan& scan) {
  Json found = Json::array();
  for (const DoctorReport::Found& f : scan.found)
    found.push_back({{"pid", f.pid},
                     {"comm", f.comm},
                     {"python", text_or_null(f.python)},
                     {"free_threaded", f.python.empty() ? Json(nullptr) : Json(f.free_threaded)},
                     {"file", f.path},
                     {"refusal", text_or_null(f.refusal)}});
  return {{"processes", scan.processes},
          {"unreadable", scan.unreadable},
          {"pythons", std::move(found)}};
}

}  // namespace

int run_doctor(const DoctorArguments& arguments) {
  DoctorReport report;
  Json refused = Json::array(), launchers = Json::array();
  std::string lines;
  int exit = 0;
  // A blocker is what doctor was asked for: it outweighs a file that is not there.
  const auto fail = [&](const std::string& subject, const Error& error) {
    say(error);
    refused.push_back({{"subject", subject}, {"reason", error.message()}});
    exit = std::max(exit, static_cast<int>(error.exit()));
  };
  PythonProcesses pythons;
  for (const uint32_t pid : arguments.pids) {
    auto process = look_at_process(pythons, pid);
    if (!process) {
      fail(std::to_string(pid), process.error());
    } else {
      report.processes.push_back(*std::move(process));
    }
  }
  for (const std::string& path : arguments.binaries) {
    auto file = look_at_file(path);
    if (!file) {
      fail(path, file.error());
    } else if (file->python) {
      report.files.push_back(*std::move(file->python));
    } else {
      lines += printable(path) + ": a program without a CPython of its own; it is linked to " +
               printable(file->libpython) + '\n';
      launchers.push_back({{"file", path}, {"libpython", file->libpython}});
    }
  }
  if (arguments.pids.empty() && arguments.binaries.empty()) {
    report.host = host_report(check_host());
    for (const DoctorReport::Check& check : report.host->checks)
      if (!check.ok && check.blocks) exit = static_cast<int>(Exit::blocker);
    auto scan = scan_report(pythons);
    if (!scan) {
      fail("/proc", scan.error());
    } else {
      report.scan = *std::move(scan);
    }
  }

  std::string text;
  if (arguments.json.empty()) {
    text = doctor_text(report);
    if (!lines.empty()) text += (text.empty() ? "" : "\n") + lines;
  } else {
    Json document = {{"schema", "giltop.doctor/1"}, {"giltop", GILTOP_VERSION}};
    document["host"] = report.host ? to_json(*report.host) : Json(nullptr);
    document["scan"] = report.scan ? to_json(*report.scan) : Json(nullptr);
    document["processes"] = Json::array();
    for (const auto& process : report.processes) document["processes"].push_back(to_json(process));
    document["files"] = Json::array();
    for (const auto& file : report.files) document["files"].push_back(to_json(file));
    document["launchers"] = std::move(launchers);
    document["refused"] = std::move(refused);
    // Names come from the target and need not be UTF-8.
    text = document.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  if (!text.empty()) {
    const std::string where = arguments.json.empty() ? "-" : arguments.json;
    if (const Status written = write_text(where, text); !written) {
      say(written.error());
      if (exit == 0) exit = static_cast<int>(Exit::failure);
    }
  }
  return exit;
}

}  // namespace giltop
