// What the live view asks for at the bottom line: search, filter, delay; and the column to sort by.
#pragma once

#include "view/live.h"
#include "view/live_state.h"

namespace giltop {

inline constexpr double kLeastDelay_s = 0.1, kMostDelay_s = 3600;

void ask(LiveState& state, LiveState::Prompt prompt);
void ask_sort(LiveState& state);
// A key while one is open.
void answer(LiveState& state, const Input& input, const LiveFrame& frame);

}  // namespace giltop
