// Recordings side by side: what `giltop demo` prints.
#pragma once

#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

struct ComparedRun {
  std::string title;        // "2 threads, CPU"
  std::string description;  // what it does, a sentence
  std::string file;         // where the recording is
  Snapshot snapshot;
};

std::string comparison(const std::vector<ComparedRun>& runs);

}  // namespace giltop
