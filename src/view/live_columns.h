// The columns of the live view's table: what they are called, and which are shown at a width.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "view/live_state.h"

namespace giltop {

struct ColumnFacts {
  const char* head;
  const char* key;  // of --sort-key; null: not to sort by
  const char* meaning;
  unsigned least, most;  // columns
  bool right;            // aligned
  bool ascending;        // the order of the first sort: names and numbers of processes
  unsigned keep;         // the least is the first to go when the screen is narrow
};
const ColumnFacts& facts_of(LiveColumn column);
std::optional<LiveColumn> column_of_key(std::string_view key);
// The keys and what they mean, one a line.
std::string sort_keys_help();

struct PlacedColumn {
  LiveColumn column;
  unsigned from, width;
};
std::vector<PlacedColumn> place_columns(unsigned columns);

}  // namespace giltop
