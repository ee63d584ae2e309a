// The GIL site finder against every interpreter of this machine: see support/interpreters.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/interpreters.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"
#include "target/symbols.h"

namespace giltop {
namespace {

namespace fs = std::filesystem;

using testing::KnownSite;

constexpr SiteKind kW = SiteKind::wait, kA = SiteKind::acquire, kR = SiteKind::release,
                   kF = SiteKind::forced;

TEST(InstalledInterpreters, EachCPythonIsProved) {
  size_t proved = 0;
  for (const fs::path& path : testing::python_files()) {
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
    const bool no_plt = path.string().find("/noplt/") != std::string::npos;
    for (const GilSite& site : cpython.sites) {
      SCOPED_TRACE(to_string(site.kind));
      EXPECT_GE(site.probe.address, site.function);
      EXPECT_LE(site.probe.address, site.address);
      const auto code = file->read(site.probe.file_offset, 2);
      ASSERT_TRUE(code.ok());
      const auto first = std::to_integer<int>((*code)[0]),
                 second = std::to_integer<int>((*code)[1]);
      const bool conditional = first >> 4 == 7 || (first == 0x0f && second >> 4 == 8);
      const bool push_or_nop =
          first >> 3 == 10 || first == 0x90 || (first == 0x41 && second >> 3 == 10);
      const bool call = first == 0xe8 || ((first == 0xf2 || first == 0x67) && second == 0xe8);
      EXPECT_EQ(site.probe.emulated, conditional || push_or_nop || call);
      // A forced switch comes once in a switch interval: it may cost.
      if (no_plt) {
        EXPECT_EQ(site.probe.emulated, site.kind != kF);
      }
    }
    if (const testing::KnownBuild* known = testing::known_build(cpython.build_id)) {
      std::vector<KnownSite> found;
      for (const GilSite& site : cpython.sites) found.push_back({site.kind, site.address});
      EXPECT_EQ(found, known->sites) << known->name;
    }
  }
  if (proved == 0) GTEST_SKIP() << "no CPython 3.6 or newer is installed here";
}

// Where a file tells the names of its functions, they are another witness of what was proved
// without them. drop_gil is copied into its callers, take_gil into none.
TEST(InstalledInterpreters, NamesAgree) {
  size_t unstripped = 0;
  for (const fs::path& path : testing::python_files()) {
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
      if (site.kind == kW && name == "PyCOND_TIMEDWAIT") continue;  // not inlined: --with-pydebug
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
