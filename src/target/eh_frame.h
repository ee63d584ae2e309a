// Function bounds from .eh_frame, which unwinding needs and `strip` therefore leaves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace giltop {

class ElfFile;

// A function, or the .cold part of one: both have an FDE of their own.
struct FunctionBounds {
  uint64_t begin = 0, end = 0;  // linked addresses, end exclusive; begin < end
};

// The bounds of those functions that hold one of `addresses` (sorted), ordered by begin.
// Errors: no .eh_frame. One that is malformed ends there: what follows is not found.
Result<std::vector<FunctionBounds>> function_bounds(const ElfFile& file,
                                                    std::span<const uint64_t> addresses);

}  // namespace giltop
