// The keys of the live view, and what they do to its state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "view/live.h"
#include "view/live_state.h"

namespace giltop {

// Clicks are held against what live_screen() showed last.
Action press(LiveState& state, const Input& input, const LiveFrame& frame);

// A line of the help for each thing that keys do in a view: the same table that press() follows.
struct KeyHelp {
  std::string keys;  // "P", "< >", "F1 ? h"
  std::string does;
};
std::vector<KeyHelp> help_of(LiveState::View view);

// Of the bottom line.
struct KeyLabel {
  std::string key, label;
  Input input;
  unsigned keep;  // the least goes first where there is no room
};
std::vector<KeyLabel> labels_of(const LiveState& state);

}  // namespace giltop
