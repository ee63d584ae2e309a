// The GIL site finder against every interpreter that is installed here by convention: PATH,
// PYENV_ROOT or ~/.pyenv, /usr/bin, and the usual library folders.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "target/elf_file.h"
#include "target/gil_sites.h"
#include "target/symbols.h"

namespace giltop {
namespace {

namespace fs = std::filesystem;

struct Site {
  SiteKind kind;
  uint64_t address;
  bool operator==(const Site&) const = default;
};

struct KnownBuild {
  const char* name;
  const char* build_id;
  std::vector<Site> sites;  // sorted by address
};

constexpr SiteKind kW = SiteKind::wait, kA = SiteKind::acquire, kR = SiteKind::release,
                   kF = SiteKind::forced;

// Read off the disassembly of each build, and probed live (facts: CPython's GIL). A build-id names
// one linker output: builds from the same source elsewhere have others.
const std::vector<KnownBuild>& known_builds() {
  static const std::vector<KnownBuild> builds = {
      {"pyenv 3.6.15",
       "6d853d1016a951ac13d69174b9a33ac9639c3a22",
       {{kR, 0x1436eb}, {kF, 0x14378e}, {kW, 0x144493}, {kA, 0x144538}}},
      {"pyenv 3.7.16",
       "edcca1179f608e68bf531649c8046e6c3508c5f9",
       {{kR, 0x15c440}, {kF, 0x15c4ee}, {kW, 0x15d214}, {kA, 0x15d2b1}}},
      {"pyenv 3.8.18",
       "ff2a4988bea9e9bbbb8004eb6e74cc0792734c3b",
       {{kR, 0x172c7c},
        {kF, 0x172d17},
        {kW, 0x1741f6},
        {kA, 0x17427c},
        {kW, 0x174455},
        {kA, 0x1744e0}}},
      {"pyenv 3.9.18",
       "8a6cadea533dd782615a0f14a75b5aef248a10d4",
       {{kR, 0x19cdba}, {kF, 0x19ce81}, {kW, 0x19d702}, {kA, 0x19d7c4}}},
      {"pyenv 3.10.13",
       "ece57af647dd10ee274f46d757d62a5eab42c418",
       {{kR, 0x1b2d4a}, {kF, 0x1b2e11}, {kW, 0x1b38fa}, {kA, 0x1b39f8}}},
      {"pyenv 3.11.7",
       "49daf84ed369fe589b73ea876f2591cd4c3588bb",
       {{kR, 0x24f42a}, {kF, 0x24f4f1}, {kW, 0x24f86a}, {kA, 0x24f914}}},
      {"pyenv 3.12.1",
       "f9d5c82f5f2c22df68c1d49c944ef3dee5103dcc",
       {{kR, 0x2ae17b}, {kF, 0x2ae285}, {kW, 0x2aeaa0}, {kA, 0x2aeb49}}},
      {"pyenv 3.13.0",
       "d11d13fb0f82d32f3da1221ffd551ab179afb423",
       {{kR, 0x265b5b},
        {kF, 0x265bfd},
        {kW, 0x265fd0},
        {kA, 0x266065},
        {kR, 0x2664a1},
        {kF, 0x26651d}}},
      {"Debian static 3.11.2",
       "571d98e01096d5c1c32420d229a6731a0a50d2a0",
       {{kA, 0x4f9370},
        {kA, 0x4f9423},
        {kW, 0x4f94e9},
        {kR, 0x527a4b},
        {kF, 0x527aac},
        {kR, 0x5a1183},
        {kF, 0x5a1428},
        {kR, 0x5aed3d},
        {kF, 0x5aee0c},
        {kR, 0x5ba542},
        {kF, 0x5ba7b1},
        {kR, 0x634353},
        {kF, 0x6343b9},
        {kR, 0x647fcc},
        {kF, 0x64826b}}},
      {"Debian libpython 3.11.2",
       "9c43ffefa67ac31d2070c69c46db6d8ced25b942",
       {{kR, 0x265b9a}, {kF, 0x265c61}, {kW, 0x265f52}, {kA, 0x2660ce}}},
  };
  return builds;
}

std::vector<std::string> split_path(const char* value) {
  std::vector<std::string> parts;
  std::string rest = value != nullptr ? value : "";
  for (size_t at; !rest.empty(); rest.erase(0, std::min(at, rest.size() - 1) + 1)) {
    at = rest.find(':');
    if (at != 0) parts.push_back(rest.substr(0, at));
  }
  return parts;
}

bool is_python_name(const std::string& name) {
  const bool library = name.starts_with("libpython") && name.find(".so") != std::string::npos;
  return library || name.starts_with("python3") || name == "python" || name.starts_with("python2");
}

// Regular files with a Python's name, each once, whatever links lead to it.
std::set<fs::path> installed_pythons() {
  std::vector<fs::path> folders = {"/usr/bin", "/usr/local/bin", "/usr/lib", "/usr/lib64",
                                   "/usr/local/lib"};
#if defined(__x86_64__)
  folders.push_back("/usr/lib/x86_64-linux-gnu");
#endif
  for (const std::string& folder : split_path(std::getenv("PATH"))) folders.push_back(folder);
  const char* const root = std::getenv("PYENV_ROOT");
  const char* const home = std::getenv("HOME");
  std::vector<fs::path> roots;
  if (root != nullptr) roots.push_back(root);
  if (home != nullptr) roots.push_back(fs::path(home) / ".pyenv");
  std::error_code error;
  for (const fs::path& pyenv : roots) {
    for (const auto& version : fs::directory_iterator(pyenv / "versions", error)) {
      folders.push_back(version.path() / "bin");
      folders.push_back(version.path() / "lib");
    }
  }
  std::set<fs::path> files;
  for (const fs::path& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (!is_python_name(entry.path().filename().string())) continue;
      const fs::path real = fs::canonical(entry.path(), error);
      if (!error && fs::is_regular_file(real, error)) files.insert(real);
    }
  }
  return files;
}

TEST(InstalledInterpreters, EachCPythonIsProved) {
  size_t proved = 0;
  for (const fs::path& path : installed_pythons()) {
    auto file = ElfFile::open(path.string());
    if (!file) continue;  // a script
    SCOPED_TRACE(path.string());
    const auto inspection = inspect_elf(*file);
    ASSERT_TRUE(inspection.ok()) << inspection.error().message();
    if (inspection->kind == Inspection::Kind::refused) {
      // Only what giltop does not read at all: nothing that is installed may fail to be proved.
      EXPECT_EQ(inspection->reason.find("cannot be proved"), std::string::npos)
          << inspection->reason;
      EXPECT_EQ(inspection->reason.find("this is Python 3.1"), std::string::npos)
          << inspection->reason;
      continue;
    }
    if (inspection->kind != Inspection::Kind::cpython) continue;  // linked to its libpython
    ++proved;
    const CPythonFile& cpython = inspection->cpython;
    EXPECT_EQ(cpython.major, 3);
    EXPECT_GE(cpython.minor, 6);
    EXPECT_EQ(cpython.version.rfind(
                  std::to_string(cpython.major) + "." + std::to_string(cpython.minor), 0),
              0u);
    std::map<SiteKind, int> count;
    uint64_t last = 0;
    for (const GilSite& site : cpython.sites) {
      ++count[site.kind];
      EXPECT_GT(site.address, last) << "sorted, no duplicates";
      last = site.address;
      EXPECT_LE(site.function, site.address);
      EXPECT_EQ(file->file_offset(site.address), std::optional<uint64_t>(site.file_offset));
      const auto code = file->read(site.file_offset, site.length);
      ASSERT_TRUE(code.ok());
      const auto first = std::to_integer<int>((*code)[0]);
      EXPECT_TRUE(first == 0xe8 || first == 0xff || first == 0xf2 || first == 0x67 || first == 0x41)
          << "not a call: " << first;
    }
    // Seen: clones of take_gil (3.8), tail-merged acquires, up to 13 copies of drop_gil.
    EXPECT_GE(count[kW], 1);
    EXPECT_LE(count[kW], 4);
    EXPECT_GE(count[kA], 1);
    EXPECT_LE(count[kA], 8);
    EXPECT_GE(count[kR], 1);
    EXPECT_LE(count[kR], 32);
    EXPECT_GE(count[kF], 1);
    EXPECT_LE(count[kF], count[kR]) << "a forced switch follows a release";
    if (cpython.minor >= 7) {
      const uint32_t shift = cpython.free_threaded ? 8 : 0;
      EXPECT_EQ(cpython.cond_offset, 0x20 + shift);
      EXPECT_EQ(cpython.switch_cond_offset, 0x78 + shift);
    } else {
      EXPECT_EQ(std::min(cpython.cond_offset, cpython.switch_cond_offset), 0u);
      EXPECT_GE(std::max(cpython.cond_offset, cpython.switch_cond_offset), 48u);
    }
    for (const KnownBuild& known : known_builds()) {
      if (cpython.build_id != known.build_id) continue;
      std::vector<Site> found;
      for (const GilSite& site : cpython.sites) found.push_back({site.kind, site.address});
      EXPECT_EQ(found, known.sites) << known.name;
    }
  }
  if (proved == 0) GTEST_SKIP() << "no CPython 3.6 or newer is installed here";
}

// Where a file tells the names of its functions, they are another witness of what was proved
// without them. drop_gil is copied into its callers, take_gil into none.
TEST(InstalledInterpreters, NamesAgree) {
  size_t unstripped = 0;
  for (const fs::path& path : installed_pythons()) {
    auto file = ElfFile::open(path.string());
    if (!file || file->section(".symtab") == nullptr) continue;
    const auto inspection = inspect_elf(*file);
    if (!inspection || inspection->kind != Inspection::Kind::cpython) continue;
    SCOPED_TRACE(path.string());
    ++unstripped;
    std::vector<uint64_t> addresses;
    for (const GilSite& site : inspection->cpython.sites) addresses.push_back(site.address);
    const FunctionNames names = function_names(*file, {"/", path.string()}, addresses);
    EXPECT_EQ(names.sources, std::vector<std::string>{".symtab"});
    bool drops = false;
    for (size_t i = 0; i < addresses.size(); ++i) {
      const GilSite& site = inspection->cpython.sites[i];
      SCOPED_TRACE(to_string(site.kind));
      ASSERT_TRUE(names.names[i]);
      const std::string& name = names.names[i]->name;
      const GilFunction function = gil_function(name);
      if (site.kind == kW || site.kind == kA) {
        EXPECT_EQ(function, GilFunction::take_gil) << name;
      } else if (function == GilFunction::other) {
        const bool known = name.starts_with("PyEval_") || name.starts_with("_PyEval_") ||
                           name.starts_with("_PyThreadState_") || name.starts_with("_PyMutex_") ||
                           name.starts_with("PyThreadState_") || name.starts_with("PyGILState_");
        EXPECT_TRUE(known) << name;
      } else {
        drops |= function == GilFunction::drop_gil;
      }
    }
    EXPECT_TRUE(drops);
  }
  if (unstripped == 0) GTEST_SKIP() << "no unstripped CPython is installed here";
}

}  // namespace
}  // namespace giltop
