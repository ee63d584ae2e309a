// The names of functions, where a file or its separate debug file tells them: to confirm what was
// proved without them, never to find it.
//
// Looked for in this order, each only for the addresses that the ones before left nameless:
//   .symtab, .dynsym, a separate debug file (by build-id, then by .gnu_debuglink), .gnu_debugdata.
// A debug file counts only where its build-id, or for .gnu_debuglink its CRC-32, agrees.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace giltop {

class ElfFile;

struct FunctionName {
  std::string name;     // as the table has it: chosen by the file, not fit for a terminal
  uint64_t offset = 0;  // bytes from the function's start
};

struct FunctionNames {
  std::vector<std::optional<FunctionName>> names;  // one for each address
  std::vector<std::string> sources;                // what they are from: ".symtab", a path
  std::vector<std::string> refused;  // debug files that were there but are another file's, damaged
};

// Where separate debug files lie: below `root`, the root folder as the file's user sees it ("/", or
// /proc/PID/root for a process with its own); `path` is the file's own name below that root. Links
// are followed inside the root only.
struct DebugPlaces {
  std::string root = "/";
  std::string path;
};

// Which function holds each of `addresses` (linked). What cannot be read has no names.
FunctionNames function_names(const ElfFile& file, const DebugPlaces& places,
                             std::span<const uint64_t> addresses);

// What a function's name says of it: (take_gil|drop_gil|drop_gil_impl) with whatever suffixes GCC's
// clones have (.constprop.0, .lto_priv.0, .isra.0, .part.0, .cold).
enum class GilFunction : uint8_t { other, take_gil, drop_gil };
GilFunction gil_function(std::string_view name);

// The content of .gnu_debugdata, an xz file. Errors: not one, damaged, or more than is bearable.
Result<std::vector<std::byte>> unpack_xz(std::span<const std::byte> packed);

}  // namespace giltop
