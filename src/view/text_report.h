// The summary a person reads in ten seconds.
#pragma once

#include <string>

#include "model/snapshot.h"

namespace giltop {

// Verdict, threads, GILs, losses and overhead; ends with a newline.
std::string text_report(const Snapshot& snapshot);

}  // namespace giltop
