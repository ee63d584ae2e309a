// Which Python an ELF file is, proved from what the file holds, never from its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"

namespace giltop {

class ElfFile;
class DynamicSection;

// Names the file defines in its dynamic symbol table. A static python exports its C API too, for
// its extension modules (-Wl,--export-dynamic).
struct PythonSymbols {
  struct Symbol {
    uint64_t address = 0, size = 0;
  };
  std::optional<Symbol> eval_save_thread;  // PyEval_SaveThread: CPython 1.5 and newer
  std::optional<Symbol> initialize_ex;     // Py_InitializeEx: 2.4 and newer
  std::optional<Symbol> get_version;       // Py_GetVersion
  std::optional<Symbol> runtime;           // _PyRuntime: 3.7 and newer
  std::optional<Symbol> version;           // Py_Version: 3.11 and newer
  bool python2 = false;                    // PyString_FromString: gone in 3.0
  bool nogil_refcounts = false;            // _Py_MergeZeroLocalRefcount: only without a GIL
  bool pypy = false;

  // PyEval_SaveThread alone might be a stub of somebody else's.
  bool is_cpython() const { return eval_save_thread && (initialize_ex || runtime) && !pypy; }
};

// A cheap look at the string table that answers most files with "no".
bool may_be_python(const DynamicSection& dynamic);
Result<PythonSymbols> python_symbols(const ElfFile& file, const DynamicSection& dynamic);

struct PythonVersion {
  std::string text;  // "3.11.2", "3.14.0rc1", or "3.9"
  int major = 0, minor = 0;
};

// From Py_Version, else the string that Py_GetVersion's code refers to, else DT_SONAME, else the
// cache tag ("cpython-39") in the data. Nothing when none of them is there.
std::optional<PythonVersion> python_version(const ElfFile& file, const DynamicSection& dynamic,
                                            const PythonSymbols& symbols);

// From _Py_DebugOffsets at the start of _PyRuntime (3.13 and newer), else from the exported names.
bool is_free_threaded(const ElfFile& file, const PythonSymbols& symbols);

// The cache tag of sys.implementation ("cpython-311") in the file's read-only data, without the
// prefix; empty when there is none. Reads up to 64 MB: for files with no better evidence.
std::string cache_tag(const ElfFile& file);

// Lower-case hex of NT_GNU_BUILD_ID; empty when the file has none.
std::string build_id(const ElfFile& file);
// The same of the bytes of a note segment or section.
std::string build_id_of_notes(std::span<const std::byte> notes);

}  // namespace giltop
