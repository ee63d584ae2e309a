// The rows of the live view's table: which there are, and in which order.
#pragma once

#include <vector>

#include "view/live.h"
#include "view/live_figures.h"
#include "view/live_state.h"

namespace giltop {

struct LiveRow {
  RowId id;
  unsigned depth = 0;
  bool foldable = false, unfolded = false;
  const ProcessSnapshot* process = nullptr;
  const GilSnapshot* gil = nullptr;        // of a GIL's row
  const ThreadSnapshot* thread = nullptr;  // of a thread's
  Figures figures;
};

// Rows do not change places for little: each is sorted by a smoothed figure that follows the true
// one only when that has moved by more than a tenth; equal ones stay in order of appearance,
// those that do something before those at rest. A row
// that does nothing is hidden (where the user wants that) when it has for some seconds.
std::vector<LiveRow> live_rows(const LiveFrame& frame, LiveState& state);

// Whether what the user typed is in the row's name, command line or id.
bool matches(const LiveRow& row, const std::string& text);

RowId id_of(const ProcessSnapshot& process);
RowId id_of(const ProcessSnapshot& process, const ThreadSnapshot& thread);

// The cursor's place in `rows`. The row it was on keeps it; where that is gone, what took its
// place.
size_t selected_index(const std::vector<LiveRow>& rows, LiveState& state);

}  // namespace giltop
