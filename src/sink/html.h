// The report as a page: one file that holds all it needs.
#pragma once

#include <string>
#include <vector>

#include "model/snapshot.h"
#include "model/spans.h"

namespace giltop {

struct PageProcess {
  size_t process = 0;  // its place in the snapshot
  std::string verdict, advice;
};

struct PageOptions {
  size_t most_bytes = 5'000'000;  // of the page: spans are made coarser until they fit
  bool breaks_off = false;        // the recorder did not end in order
};

// `processes` are in the order in which they are shown. Pure: text in, text out.
std::string to_html(const Snapshot& snapshot, Spans spans,
                    const std::vector<PageProcess>& processes, const PageOptions& options);

}  // namespace giltop
