#include "model/spans.h"

#include <algorithm>

namespace giltop {
namespace {

constexpr unsigned kUnknown = 15;  // in both states

unsigned cell_of(const Thread& thread) {
  return static_cast<unsigned>(thread.gil_state) * 4 + static_cast<unsigned>(thread.cpu_state);
}

std::array<uint64_t, 16> cells_of(const Thread& thread) {
  std::array<uint64_t, 16> cells;
  for (size_t i = 0; i < cells.size(); i++) cells[i] = thread.matrix[i / 4][i % 4];
  return cells;
}

void insert_span(SpanRow& row, size_t at, Span span) {
  row.spans.insert(row.spans.begin() + static_cast<std::ptrdiff_t>(at), span);
  for (auto gil = row.gils.rbegin(); gil != row.gils.rend() && gil->first >= at; ++gil)
    gil->first++;
}

// Moves up to `ns` from one cell to another within the parts [begin, end) of a mixed span.
uint64_t move_parts(SpanRow& row, size_t begin, size_t end, unsigned from, unsigned to,
                    uint64_t ns) {
  uint64_t taken = 0;
  size_t gains = end;
  for (size_t i = begin; i < end; i++) {
    Span& part = row.parts[i];
    if (part.cell == from) {
      const uint64_t take = std::min<uint64_t>(ns - taken, part.ns);
      part.ns -= take;
      taken += take;
    } else if (part.cell == to) {
      gains = i;
    }
  }
  if (taken == 0) return 0;
  if (gains == end) {
    row.parts.insert(row.parts.begin() + static_cast<std::ptrdiff_t>(end), Span{0, to});
  }
  row.parts[gains].ns += taken;
  return taken;
}

// The newest `ns` that were told to be `from` are `to`.
void move(SpanRow& row, unsigned from, unsigned to, uint64_t ns) {
  size_t parts = row.parts.size();  // end of those of the span looked at
  for (size_t i = row.spans.size(); i-- > 0 && ns > 0;) {
    Span& span = row.spans[i];
    if (span.cell == Span::kMixed) {
      const size_t end = parts;
      for (uint64_t sum = 0; sum < span.ns;) sum += row.parts[--parts].ns;
      ns -= move_parts(row, parts, end, from, to, ns);
      continue;
    }
    if (span.cell != from) continue;
    const uint64_t take = std::min<uint64_t>(ns, span.ns);
    ns -= take;
    if (take == span.ns) {
      span.cell = to;
    } else {
      span.ns -= take;
      if (i + 1 < row.spans.size() && row.spans[i + 1].cell == to) {
        row.spans[i + 1].ns += take;
      } else {
        insert_span(row, i + 1, Span{take, to});
      }
    }
  }
}

// Where time that was told as `from` and is not has gone. The scheduler's state is sure as a rule,
// unless it is just that which was told otherwise.
unsigned gaining_cell(const std::array<uint64_t, 16>& told, const std::array<uint64_t, 16>& now,
                      unsigned from) {
  const auto gained = [&](unsigned cell) { return now[cell] > told[cell]; };
  for (unsigned cell = from % 4; cell < 16; cell += 4)
    if (gained(cell)) return cell;
  for (unsigned cell = from / 4 * 4; cell < from / 4 * 4 + 4; cell++)
    if (gained(cell)) return cell;
  for (unsigned cell = 0; cell < 16; cell++)
    if (gained(cell)) return cell;
  return from;
}

// A run of spans that is to be one.
class Group {
 public:
  explicit Group(SpanRow& out) : out_(out) {}

  void add(Span span) {
    cells_[span.cell] += span.ns;
    ns_ += span.ns;
  }
  uint64_t ns() const { return ns_; }
  void end() {
    if (ns_ == 0) return;
    const auto used = static_cast<size_t>(
        std::count_if(cells_.begin(), cells_.end(), [](uint64_t ns) { return ns != 0; }));
    for (unsigned cell = 0; cell < cells_.size(); cell++) {
      if (cells_[cell] == 0) continue;
      (used == 1 ? out_.spans : out_.parts).push_back({cells_[cell], cell});
    }
    if (used > 1) out_.spans.push_back({ns_, Span::kMixed});
    cells_ = {};
    ns_ = 0;
  }

 private:
  SpanRow& out_;
  std::array<uint64_t, 16> cells_{};
  uint64_t ns_ = 0;
};

void coarsen_row(SpanRow& row, uint64_t resolution_ns) {
  SpanRow out;
  out.thread = row.thread;
  out.first_ns = row.first_ns;
  Group group(out);
  size_t part = 0, gil = 0;
  for (size_t i = 0; i < row.spans.size(); i++) {
    const Span span = row.spans[i];
    const size_t first_part = part;
    if (span.cell == Span::kMixed)
      for (uint64_t sum = 0; sum < span.ns;) sum += row.parts[part++].ns;
    const bool is_long = span.ns >= resolution_ns;
    if (is_long || group.ns() >= resolution_ns) group.end();
    for (; gil < row.gils.size() && row.gils[gil].first <= i; gil++) {
      const uint64_t number = row.gils[gil].second;
      // Of several within a group the last one holds from its beginning on.
      if (!out.gils.empty() && out.gils.back().first == out.spans.size()) out.gils.pop_back();
      out.gils.emplace_back(out.spans.size(), number);
    }
    if (is_long) {
      out.spans.push_back(span);
      out.parts.insert(out.parts.end(), row.parts.begin() + static_cast<std::ptrdiff_t>(first_part),
                       row.parts.begin() + static_cast<std::ptrdiff_t>(part));
    } else if (span.cell == Span::kMixed) {
      for (size_t p = first_part; p < part; p++) group.add(row.parts[p]);
    } else {
      group.add(span);
    }
  }
  group.end();
  out.spans.shrink_to_fit();
  out.parts.shrink_to_fit();
  row = std::move(out);
}

}  // namespace

std::array<uint64_t, 16> SpanRow::cells() const {
  std::array<uint64_t, 16> sum{};
  for (const Span& span : spans)
    if (span.cell != Span::kMixed) sum[span.cell] += span.ns;
  for (const Span& part : parts) sum[part.cell] += part.ns;
  return sum;
}

size_t Spans::count() const {
  size_t sum = 0;
  for (const SpanRow& row : rows) sum += row.spans.size();
  return sum;
}

void Spans::coarsen(uint64_t to_ns) {
  if (to_ns <= resolution_ns) return;
  resolution_ns = to_ns;
  for (SpanRow& row : rows) coarsen_row(row, to_ns);
}

// --- recording -----------------------------------------------------------------------------------

void SpanRecorder::append(Recorded& recorded, uint64_t ns) {
  SpanRow& row = recorded.row;
  const bool new_gil = !row.gils.empty() && row.gils.back().first == row.spans.size();
  if (!row.spans.empty() && row.spans.back().cell == recorded.cell && !new_gil) {
    row.spans.back().ns += ns;
  } else {
    row.spans.push_back({ns, recorded.cell});
    count_++;
  }
  recorded.told[recorded.cell] += ns;
}

void SpanRecorder::correct(Recorded& recorded, const Cells& now) {
  Cells& told = recorded.told;
  for (unsigned from = 0; from < now.size(); from++) {
    while (told[from] > now[from]) {
      const unsigned to = gaining_cell(told, now, from);
      if (to == from) break;
      const uint64_t ns = std::min(told[from] - now[from], now[to] - told[to]);
      const size_t before = recorded.row.spans.size();
      move(recorded.row, from, to, ns);
      count_ += recorded.row.spans.size() - before;
      told[from] -= ns;
      told[to] += ns;
    }
  }
}

void SpanRecorder::look(const Thread& thread, bool moved) {
  if (thread.index >= threads_.size())
    threads_.resize(std::max<size_t>(thread.index + 1, threads_.size() * 2));
  Recorded& recorded = threads_[thread.index];
  if (recorded.row.thread != thread.number) {
    count_ -= recorded.row.spans.size();
    recorded = {};
    recorded.thread = &thread;
    recorded.row.thread = thread.number;
    recorded.row.first_ns = recorded.until_ns = thread.first_ns;
    recorded.cell = kUnknown;
    moved = true;
  }
  const unsigned cell = cell_of(thread);
  const bool uses_gil = cell / 4 <= static_cast<unsigned>(GilState::waiting) && thread.gil;
  const uint64_t gil = uses_gil ? thread.gil->number : recorded.gil;
  if (cell == recorded.cell && gil == recorded.gil && !moved) return;
  if (thread.last_ns > recorded.until_ns) {
    append(recorded, thread.last_ns - recorded.until_ns);
    recorded.until_ns = thread.last_ns;
  }
  const Cells now = cells_of(thread);
  if (now != recorded.told) correct(recorded, now);
  recorded.cell = cell;
  if (gil == recorded.gil) return;
  recorded.gil = gil;
  auto& gils = recorded.row.gils;
  if (!gils.empty() && gils.back().first == recorded.row.spans.size()) gils.pop_back();
  gils.emplace_back(recorded.row.spans.size(), gil);
}

void SpanRecorder::take(const Model& model, const Event& event, const Change& change) {
  if (change.thread) look(*change.thread, change.told_apart);
  if (change.evicted) look(*change.evicted, false);
  if (change.ended)
    for (const Thread* thread : change.ended->threads) look(*thread, false);
  const bool of_all = event.kind == EventKind::loss;
  const bool of_process = change.disproved || event.kind == EventKind::mode ||
                          event.kind == EventKind::gil_read || event.kind == EventKind::thread_read;
  if (of_all || of_process) {
    for (const Process& process : model.processes())
      if (of_all || process.tgid == event.tgid)
        for (const Thread* thread : process.alive) look(*thread, false);
  }
  if (count_ > most_) limit();
}

// Half of what may be is left, so that it is not done time and again.
void SpanRecorder::limit() {
  constexpr uint64_t kFinest_ns = 1000;
  while (count_ > most_ / 2 && resolution_ns_ < uint64_t{1} << 40) {
    resolution_ns_ = std::max(kFinest_ns, resolution_ns_ * 2);
    count_ = 0;
    for (Recorded& recorded : threads_) {
      coarsen_row(recorded.row, resolution_ns_);
      count_ += recorded.row.spans.size();
    }
  }
}

Spans SpanRecorder::finish() {
  Spans out;
  for (Recorded& recorded : threads_) {
    const Thread* const thread = recorded.thread;
    if (!thread || thread->gone || thread->number != recorded.row.thread) continue;
    look(*thread, true);
    out.rows.push_back(std::move(recorded.row));
  }
  std::sort(out.rows.begin(), out.rows.end(),
            [](const SpanRow& a, const SpanRow& b) { return a.thread < b.thread; });
  const uint64_t resolution_ns = resolution_ns_;
  *this = SpanRecorder(most_);
  out.coarsen(resolution_ns);  // the newest, too
  return out;
}

}  // namespace giltop
