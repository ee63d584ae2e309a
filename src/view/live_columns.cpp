#include "view/live_columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

namespace giltop {
namespace {

constexpr unsigned kRare = 6;  // what is kept less

// Who, how starved and behind whom stays to the last.
constexpr std::array<ColumnFacts, kLiveColumns> kColumns = {{
    {"PID", "pid", "process, or thread", 7, 7, true, true, 99},
    {"NAME", "name", "command line without its Python; of a thread, its name", 12, 40, false, true,
     99},
    {"PY", "python", "Python's version; t: a free-threaded build", 5, 5, false, true, 2},
    {"CPU%", "cpu", "of one CPU, in Python or not", 5, 6, true, false, 7},
    {"HELD%", "held", "of the time it held a GIL; ~ sampled", 6, 6, true, false, 98},
    {"OFF%", "off", "held it off the CPU, asleep or preempted: all others stand still", 5, 6, true,
     false, 97},
    {"WAIT%", "wait", "waited for a GIL; of a process, its threads' sum", 6, 6, true, false, 99},
    {"WQ", "waiters", "threads that wait now / at most at once", 5, 5, true, false, 8},
    {"ACQ/s", "acquires", "acquires of a GIL", 5, 5, true, false, 3},
    {"WAITp99", "p99", "99 % of the waits were shorter", 7, 7, true, false, 5},
    {"LONGEST", "longest", "longest wait; + it goes on", 7, 8, true, false, 98},
    {"BLOCKER", "blocker", "who held it for most of the waits, and what it did meanwhile", 10, 23,
     false, true, 96},
    {"STATES", nullptr, "what its time went to", 8, 20, false, false, 9},
    {"LAST MIN", "history", "waiting over the last minute; a full bar is a thread's worth", 10, 60,
     false, false, 1},
}};

}  // namespace

const ColumnFacts& facts_of(LiveColumn column) { return kColumns[static_cast<size_t>(column)]; }

std::optional<LiveColumn> column_of_key(std::string_view key) {
  for (size_t i = 0; i < kLiveColumns; i++)
    if (kColumns[i].key && key == kColumns[i].key) return static_cast<LiveColumn>(i);
  return std::nullopt;
}

std::string sort_keys_help() {
  std::string out;
  for (const ColumnFacts& column : kColumns)
    if (column.key) out += fmt::format("{:<10}{}\n", column.key, column.meaning);
  return out;
}

std::vector<PlacedColumn> place_columns(unsigned columns) {
  std::vector<PlacedColumn> placed;
  for (size_t i = 0; i < kLiveColumns; i++)
    placed.push_back({static_cast<LiveColumn>(i), 0, kColumns[i].least});
  const auto facts = [](const PlacedColumn& p) -> const ColumnFacts& { return facts_of(p.column); };
  const auto used = [&] {
    unsigned sum = 0;
    for (const PlacedColumn& p : placed) sum += p.width + 1;
    return sum == 0 ? 0 : sum - 1;
  };
  const auto drop = [&](unsigned keep) {
    const auto least = std::min_element(placed.begin(), placed.end(), [&](auto& a, auto& b) {
      return facts(a).keep < facts(b).keep;
    });
    if (least == placed.end() || facts(*least).keep >= keep) return false;
    placed.erase(least);
    return true;
  };
  const auto widen = [&](LiveColumn which, unsigned to) {
    for (PlacedColumn& p : placed)
      if (p.column == which)
        p.width += std::min(std::max(to, p.width) - p.width, columns - std::min(columns, used()));
  };
  // The rarer figures go before names, blockers and bars get tight.
  const unsigned comfort = 6 + 8 + 5;  // more than their least
  while (used() + comfort > columns && drop(kRare)) {
  }
  while (used() > columns && drop(~0u)) {
  }
  widen(LiveColumn::name, 18);
  widen(LiveColumn::blocker, 19);  // "holding 9.8s asleep"
  widen(LiveColumn::states, 14);
  widen(LiveColumn::name, 26);
  widen(LiveColumn::history, 20);
  for (const auto column :
       {LiveColumn::states, LiveColumn::blocker, LiveColumn::cpu, LiveColumn::off_cpu,
        LiveColumn::longest, LiveColumn::name, LiveColumn::history})
    widen(column, facts_of(column).most);
  widen(LiveColumn::name, columns);
  unsigned from = 0;
  for (PlacedColumn& p : placed) {
    p.from = from;
    from += p.width + 1;
  }
  return placed;
}

}  // namespace giltop
