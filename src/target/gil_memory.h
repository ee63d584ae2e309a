// Finds the GILs of a running CPython in its memory, and says who holds each.
//
// Where they are (checked on x86-64, 3.7 to 3.15; _PyRuntimeState is in CPython's
// Include/internal/pycore_runtime*.h, PyInterpreterState in pycore_interp*.h):
//
//     3.7 … 3.11   _PyRuntime ── the GIL, one for all interpreters
//     3.12         _PyRuntime ── interpreters.head ──► interpreter ── ceval.gil ──► the GIL
//     3.13 and on  the same, by the offsets that _PyRuntime begins with (_Py_DebugOffsets)
//
// 3.6 keeps its GIL in static variables that nothing points to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "target/gil_sites.h"
#include "target/process.h"

namespace giltop {

// Fills `to` from the target's memory at `address`. False: not all of it is there.
using MemoryReader = std::function<bool(uint64_t address, std::span<std::byte> to)>;

struct GilInMemory {
  enum class State : uint8_t {
    unknown,      // what it says makes no sense, or changed while it was read
    not_created,  // no thread has been started yet (3.7, 3.8), or the interpreter is being made
    disabled,     // free-threaded, and off
    free,
    held,
  };
  uint64_t address = 0;               // as the probes report it
  std::vector<int64_t> interpreters;  // ids of those that use it, ascending
  State state = State::unknown;
  std::optional<bool> enabled;  // free-threaded builds only
  uint64_t holder_state = 0;    // PyThreadState of the holder
  int64_t holder_id = 0;        // its thread id, as the process itself calls it
  bool operator==(const GilInMemory&) const = default;
};

struct GilMemory {
  std::vector<GilInMemory> gils;  // in the order of the interpreter list
  std::string missing;            // why nothing, or not everything, could be read; else empty
  // How a PyThreadState names its thread, in bytes from its start; 0: not so.
  struct Ids {
    uint32_t native_thread_id = 0;  // as the process itself calls it (3.11 and newer); or
    uint32_t thread_id = 0;         // its pthread_t, which points at a struct with its id at
    uint32_t pthread_tid = 0;
    bool operator==(const Ids&) const = default;
  } ids = {};
  bool operator==(const GilMemory&) const = default;
};

// Everything in the target's memory is taken for hostile: a pointer that leads nowhere, a list
// without an end or a value that cannot be makes what depends on it unknown, and nothing else.
// `load_bias`: what is to be added to a linked address of `file` in this process.
GilMemory gils_in_memory(const CPythonFile& file, uint64_t load_bias, const MemoryReader& read);

// From one executable mapping of the file. Nothing when none of the file's segments is mapped so.
std::optional<uint64_t> load_bias(const CPythonFile& file, const MappedFile& mapping);

}  // namespace giltop
