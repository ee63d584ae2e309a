#pragma once

#include <string>

#include "base/result.h"

namespace giltop {

// What was at `path` becomes PATH.old, if it is a regular file with something in it. True: it did.
// Errors: `path` could not be written, or is a directory.
Result<bool> keep_old(const std::string& path);

}  // namespace giltop
