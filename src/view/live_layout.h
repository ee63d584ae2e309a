// The live view's picture of a frame, as cells.
#pragma once

#include "view/live.h"
#include "view/live_state.h"
#include "view/screen.h"

namespace giltop {

inline constexpr unsigned kLeastColumns = 60, kLeastRows = 15;

// `state` learns what is where, for the mouse and for paging, and what the rows were sorted by.
Screen live_screen(const LiveFrame& frame, LiveState& state, unsigned columns, unsigned rows);

}  // namespace giltop
