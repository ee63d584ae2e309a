#include "view/live_rows.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "model/verdict.h"
#include "view/live_columns.h"

namespace giltop {
namespace {

constexpr double kSettle_s = 1.5;             // of the smoothing
constexpr double kClearly = 0.10;             // of the figure
constexpr uint64_t kHide_ns = 5'000'000'000;  // idle for so long

// What differs by less is the same.
double least_step(LiveColumn column) {
  switch (column) {
    case LiveColumn::wait_p99:
    case LiveColumn::longest:
      return 100'000;  // ns
    case LiveColumn::waiters:
      return 0.5;
    case LiveColumn::history:
      return 0.01;
    default:
      return 1;  // percent, acquires a second
  }
}

double history_of(const LiveFrame& frame, const LiveRow& row) {
  const auto found = frame.wait_history.find(row.id.process);
  if (found == frame.wait_history.end() || found->second.empty()) return 0;
  double sum = 0;
  for (const float value : found->second) sum += value;
  return sum / static_cast<double>(found->second.size());
}

double value_of(LiveColumn column, const LiveRow& row, const LiveFrame& frame) {
  const Figures& f = row.figures;
  switch (column) {
    case LiveColumn::cpu:
      return f.cpu;
    case LiveColumn::held:
      return f.held;
    case LiveColumn::off_cpu:
      return f.off_cpu;
    case LiveColumn::waiters:
      return static_cast<double>(f.waiters) + static_cast<double>(f.most_waiters) / 1000;
    case LiveColumn::acquires:
      return f.acquires_per_s;
    case LiveColumn::wait_p99:
      return static_cast<double>(f.wait_p99_ns);
    case LiveColumn::longest:
      return static_cast<double>(f.longest_ns);
    case LiveColumn::history:
      return history_of(frame, row);
    default:
      return f.wait;
  }
}

uint32_t shown_id(const LiveRow& row) {
  return row.thread ? row.thread->tid : row.gil ? 0 : row.process->pid;
}

std::string name_of(const LiveRow& row) {
  return row.thread ? title_of(*row.thread) : title_of(*row.process);
}

// Less than 0: `a` comes first in the order of names and numbers.
int compare_texts(LiveColumn column, const LiveRow& a, const LiveRow& b) {
  switch (column) {
    case LiveColumn::pid:
      return shown_id(a) < shown_id(b) ? -1 : shown_id(a) > shown_id(b);
    case LiveColumn::name:
      return name_of(a).compare(name_of(b));
    case LiveColumn::python:
      return a.process->python.compare(b.process->python);
    default: {  // blocker; those without one come last
      const auto tid = [](const LiveRow& r) {
        return r.figures.blocker ? r.figures.blocker->tid.value_or(~0u - 1) : ~0u;
      };
      return tid(a) < tid(b) ? -1 : tid(a) > tid(b);
    }
  }
}

void settle(LiveState& state, const LiveFrame& frame, const LiveRow& row) {
  const uint64_t now = frame.interval.last_ns;
  const double value = value_of(state.sort, row, frame);
  LiveState::Sticky& sticky = state.sticky[row.id];
  if (!row.figures.idle) sticky.active_ns = now;
  if (sticky.frame_ns == now) return;
  if (sticky.frame_ns == 0) {
    sticky.mean = sticky.shown = value;
    sticky.frame_ns = now;
    return;
  }
  const double passed_s =
      now > sticky.frame_ns ? static_cast<double>(now - sticky.frame_ns) / 1e9 : 0;
  sticky.frame_ns = now;
  sticky.mean += (value - sticky.mean) * (1 - std::exp(-passed_s / kSettle_s));
  if (std::abs(sticky.mean - sticky.shown) >
      std::max(kClearly * std::abs(sticky.shown), least_step(state.sort)))
    sticky.shown = sticky.mean;
}

bool at_rest(const LiveState& state, const LiveFrame& frame, const LiveRow& row) {
  if (!row.figures.idle) return false;
  const auto found = state.sticky.find(row.id);
  const uint64_t now = frame.interval.last_ns;
  return found == state.sticky.end() || found->second.active_ns == 0 ||
         now - std::min(found->second.active_ns, now) >= kHide_ns;
}

bool hidden(const LiveState& state, const LiveFrame& frame, const LiveRow& row) {
  return !state.idle && at_rest(state, frame, row);
}

void sort_rows(std::vector<LiveRow>& rows, const LiveState& state, const LiveFrame& frame) {
  const ColumnFacts& column = facts_of(state.sort);
  const auto shown = [&](const LiveRow& row) {
    const auto found = state.sticky.find(row.id);
    return found == state.sticky.end() ? 0.0 : found->second.shown;
  };
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < rows.size(); i++)
    order.emplace_back(column.ascending ? 0.0 : shown(rows[i]), i);
  std::stable_sort(order.begin(), order.end(), [&](const auto& x, const auto& y) {
    const LiveRow &a = rows[x.second], &b = rows[y.second];
    // Sums of what has ended are behind all that lives, GILs before threads.
    const auto group = [](const LiveRow& r) {
      const bool folded = r.thread ? r.thread->folded != 0 : !r.gil && r.process->folded != 0;
      return folded ? 2 : r.thread ? 1 : 0;
    };
    if (group(a) != group(b)) return group(a) < group(b);
    if (column.ascending) {
      const int less = compare_texts(state.sort, a, b);
      if (less != 0) return state.inverted ? less > 0 : less < 0;
    } else if (x.first != y.first) {
      return state.inverted ? x.first < y.first : x.first > y.first;
    }
    const bool a_rests = at_rest(state, frame, a), b_rests = at_rest(state, frame, b);
    if (a_rests != b_rests) return b_rests;
    return a.id.number < b.id.number;
  });
  std::vector<LiveRow> sorted;
  sorted.reserve(rows.size());
  for (const auto& [value, index] : order) sorted.push_back(std::move(rows[index]));
  rows = std::move(sorted);
}

std::string lower(const std::string& text) {
  std::string out = text;
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::vector<LiveRow> thread_rows(const LiveFrame& frame, const ProcessSnapshot& p, unsigned depth) {
  std::vector<LiveRow> rows;
  const auto blockers = blockers_of(p);
  for (const ThreadSnapshot& t : p.threads) {
    LiveRow& row = rows.emplace_back();
    row.id = id_of(p, t);
    row.depth = depth;
    row.process = &p;
    row.thread = &t;
    row.figures = figures_of(t, p, frame.interval);
    const auto blocker = blockers.find(t.number);
    if (blocker != blockers.end() && t.folded == 0) row.figures.blocker = blocker->second;
  }
  return rows;
}

std::vector<LiveRow> gil_rows(const LiveFrame& frame, const ProcessSnapshot& p) {
  std::vector<LiveRow> rows;
  if (p.gils.size() < 2) return rows;
  for (const GilSnapshot& g : p.gils) {
    LiveRow& row = rows.emplace_back();
    row.id = {RowId::Kind::gil, p.number, g.number};
    row.depth = 1;
    row.process = &p;
    row.gil = &g;
    row.figures = figures_of(g, p, frame.interval);
  }
  return rows;
}

}  // namespace

RowId id_of(const ProcessSnapshot& process) {
  return {RowId::Kind::process, process.number, process.number};
}
RowId id_of(const ProcessSnapshot& process, const ThreadSnapshot& thread) {
  return {RowId::Kind::thread, process.number, thread.number};
}

bool matches(const LiveRow& row, const std::string& text) {
  const std::string wanted = lower(text);
  const auto has = [&](const std::string& in) {
    return lower(in).find(wanted) != std::string::npos;
  };
  if (row.gil) return false;
  if (has(std::to_string(shown_id(row)))) return true;
  return row.thread ? has(row.thread->comm) : has(row.process->comm) || has(row.process->cmdline);
}

std::vector<LiveRow> live_rows(const LiveFrame& frame, LiveState& state) {
  const auto sorted_by = std::pair(state.sort, frame.accumulated);
  if (state.sticky_for != sorted_by) {
    for (auto& [id, sticky] : state.sticky) sticky.frame_ns = 0;
    state.sticky_for = sorted_by;
  }
  const auto settle_all = [&](std::vector<LiveRow>& rows) {
    for (const LiveRow& row : rows) settle(state, frame, row);
    std::erase_if(rows, [&](const LiveRow& row) { return hidden(state, frame, row); });
    sort_rows(rows, state, frame);
  };

  std::vector<LiveRow> top, rows;
  std::unordered_map<uint64_t, std::vector<LiveRow>> found;  // threads that match, by process
  for (const ProcessSnapshot& p : frame.interval.processes) {
    if (!state.tree && state.threads) {
      std::vector<LiveRow> threads = thread_rows(frame, p, 0);
      if (!state.filter.empty()) {
        LiveRow process;
        process.process = &p;
        if (!matches(process, state.filter))
          std::erase_if(threads, [&](const LiveRow& r) { return !matches(r, state.filter); });
      }
      std::move(threads.begin(), threads.end(), std::back_inserter(top));
      continue;
    }
    LiveRow row;
    row.id = id_of(p);
    row.process = &p;
    if (!state.filter.empty() && !matches(row, state.filter)) {
      std::vector<LiveRow> threads = thread_rows(frame, p, 1);
      std::erase_if(threads, [&](const LiveRow& r) { return !matches(r, state.filter); });
      if (threads.empty()) continue;
      found.emplace(p.number, std::move(threads));
    }
    row.figures = figures_of(p, frame.interval);
    row.foldable = state.tree && (p.threads.size() > 1 || p.gils.size() > 1);
    const auto folded = state.unfolded.find(p.number);
    row.unfolded =
        row.foldable && (folded != state.unfolded.end() ? folded->second : state.threads);
    top.push_back(std::move(row));
  }
  settle_all(top);

  for (LiveRow& row : top) {
    const ProcessSnapshot& p = *row.process;
    const bool only_threads = found.contains(p.number) && state.tree;
    const bool unfolded = row.unfolded || only_threads;
    row.unfolded = unfolded && row.foldable;
    rows.push_back(std::move(row));
    if (!unfolded) continue;
    std::vector<LiveRow> below =
        only_threads ? std::move(found[p.number]) : thread_rows(frame, p, 1);
    if (!only_threads) {
      std::vector<LiveRow> gils = gil_rows(frame, p);
      std::move(gils.begin(), gils.end(), std::back_inserter(below));
    }
    settle_all(below);
    std::move(below.begin(), below.end(), std::back_inserter(rows));
  }

  if (state.sticky.size() > 2 * rows.size() + 256) {
    // What is not shown any more.
    std::unordered_set<RowId, RowIdHash> shown;
    for (const LiveRow& row : rows) shown.insert(row.id);
    std::erase_if(state.sticky, [&](const auto& each) { return !shown.contains(each.first); });
  }
  return rows;
}

size_t selected_index(const std::vector<LiveRow>& rows, LiveState& state) {
  if (!state.selected || rows.empty()) return 0;
  const auto at = [&](const RowId& id) {
    return std::find_if(rows.begin(), rows.end(), [&](const LiveRow& r) { return r.id == id; });
  };
  auto found = at(*state.selected);
  if (found == rows.end() && state.selected->kind != RowId::Kind::process)
    found = at({RowId::Kind::process, state.selected->process, state.selected->process});
  if (found == rows.end()) {
    const auto before = std::find(state.rows.begin(), state.rows.end(), *state.selected);
    const auto index = static_cast<size_t>(before - state.rows.begin());
    found = rows.begin() +
            static_cast<long>(std::min(before == state.rows.end() ? 0 : index, rows.size() - 1));
  }
  state.selected = found->id;
  return static_cast<size_t>(found - rows.begin());
}

}  // namespace giltop
