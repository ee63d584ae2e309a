// The CPythons of this machine, found by convention, and how each runs a script.
//
// Looked at: PATH, /usr/bin and the usual library folders, PYENV_ROOT or ~/.pyenv, what
// tools/interpreters has put into build/interpreters, and a folder of the same layout that the
// environment's GILTOP_INTERPRETERS names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <set>
#include <string>
#include <vector>

#include "target/gil_sites.h"

namespace giltop::testing {

// Regular ELF files of this machine's architecture with a Python's name, each once, whatever links
// lead to it. Python 2 and others that giltop refuses are among them.
std::set<std::filesystem::path> python_files();

// A CPython 3.6 or newer.
struct Interpreter {
  std::string name;  // "sid_python3_14": unique; letters, digits and _ as gtest wants them
  int minor = 0;     // of 3.X, from the file's name
  bool free_threaded = false;
  bool debug = false;    // --with-pydebug: several times slower
  std::string program;   // what is executed: a python, or a libpython (by tests/support/embedder.c)
  std::string gil_file;  // the ELF file that has the GIL: the program or its libpython
  std::string root;      // the folder to chroot to, empty for none

  bool embedded() const;  // a libpython

  // When a libpython comes into the process: by the loader, before main(), or by dlopen().
  enum class Load : uint8_t { early, late };

  // The command that runs SCRIPT with ARGUMENTS. SCRIPT lies in the folder `shared`, which is there
  // for writing too: see inside(). Nothing that this mounts outlives the command.
  std::vector<std::string> command(const std::string& shared, const std::string& script,
                                   const std::vector<std::string>& arguments,
                                   Load load = Load::early) const;
  // What the interpreter has to call `file` of the folder `shared`.
  std::string inside(const std::string& shared, const std::string& file) const;

 private:
  bool entered() const;  // runs in a chroot
};
void PrintTo(const Interpreter& interpreter, std::ostream* out);

// By name. Looks at names and the files' headers only: cheap enough to be asked by every test
// program at its start.
std::vector<Interpreter> installed_interpreters();

struct KnownSite {
  SiteKind kind;
  uint64_t address;
  bool operator==(const KnownSite&) const = default;
};

struct KnownBuild {
  const char* name;
  const char* build_id;
  std::vector<KnownSite> sites;  // sorted by address
};

// Read off the disassembly of each build. A build-id names one linker output: builds from the same
// source elsewhere have others. Null: not known.
const KnownBuild* known_build(const std::string& build_id);

}  // namespace giltop::testing
