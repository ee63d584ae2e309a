// The report as JSON: schema giltop.report/1 (README.md describes it).
#pragma once

#include <string>

#include "model/snapshot.h"

namespace giltop {

// One document, indented by two blanks or all on one line, with a newline at its end. Times are
// seconds.
std::string to_json(const Snapshot& snapshot, bool one_line = false);

}  // namespace giltop
