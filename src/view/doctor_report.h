// What `giltop doctor` found, and how it reads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace giltop {

// Texts from a target (names, paths, command lines) may hold anything: the layout makes them fit
// for a terminal.
struct DoctorReport {
  struct Check {
    bool ok = false;
    bool blocks = true;  // without it nothing can be traced
    std::string what;    // what works, or what is missing
    std::string cure;    // for what is missing
  };
  struct Host {
    std::string version;  // giltop's
    std::string kernel, machine;
    unsigned cpus = 0;
    std::optional<double> hit_cost_ns;
    std::vector<Check> checks;
  };

  // One line of the list of all Pythons.
  struct Found {
    uint32_t pid = 0;
    std::string comm, python, path;
    bool free_threaded = false;
    std::string refusal;  // why it cannot be traced; empty: it can
  };
  struct Scan {
    size_t processes = 0, unreadable = 0;
    bool as_root = false;
    std::vector<Found> found;
  };

  enum class Agreement : uint8_t { unnamed, neutral, agrees, contradicts };
  struct Site {
    std::string kind;
    uint64_t address = 0, file_offset = 0;
    std::string function;  // empty: not known
    uint64_t function_offset = 0;
    std::string proof;  // "its function stores locked = 1"
    Agreement name = Agreement::unnamed;
  };
  struct Python {
    std::string path, version, build_id;
    bool free_threaded = false;
    bool is_program = false;              // else a library
    std::vector<std::string> names_from;  // ".symtab", a debug file's path
    std::vector<std::string> notes;       // debug files that were there but not used
    std::vector<Site> sites;
  };
  struct Process {
    uint32_t pid = 0;
    std::string comm, cmdline, program;
    uint32_t namespace_pid = 0;  // 0: it is in giltop's PID namespace
    bool own_mounts = false;
    std::string root;  // empty: "/"
    std::vector<Python> pythons;
    std::vector<std::string> notes;  // what could not be read
  };

  std::optional<Host> host;
  std::optional<Scan> scan;
  std::vector<Process> processes;
  std::vector<Python> files;
};

// Ends with a newline; empty where nothing was found.
std::string doctor_text(const DoctorReport& report);

}  // namespace giltop
