// The report as a page: one file that holds all it needs.
#pragma once

#include <string>

#include "model/snapshot.h"
#include "model/spans.h"
#include "sink/page_spans.h"

namespace giltop {

struct PageOptions {
  size_t most_bytes = 5'000'000;  // of the page: spans are made coarser until they fit
  bool breaks_off = false;        // the recorder did not end in order
  PageProgress progress = {};     // is told how far it is
};

// Pure: figures in, text out.
std::string to_html(const Snapshot& snapshot, Spans spans, const PageOptions& options);

}  // namespace giltop
