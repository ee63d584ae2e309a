#include "model/timeline.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace giltop {
namespace {

constexpr uint64_t kParts = 255;  // of a column
constexpr uint64_t kPart_ns = TimelineRecorder::kStep_ns / kParts;

std::array<uint64_t, 16> cells_of(const Thread& thread) {
  std::array<uint64_t, 16> cells;
  for (size_t i = 0; i < cells.size(); i++) cells[i] = thread.matrix[i / 4][i % 4];
  return cells;
}

uint64_t waited_ns(const Thread& thread) {
  const auto& row = thread.matrix[static_cast<size_t>(GilState::waiting)];
  return std::accumulate(row.begin(), row.end(), uint64_t{0});
}

// Rounded by largest remainder, so that the parts of a whole column are kParts.
Timeline::Column parts_of(const std::array<uint64_t, 16>& ns) {
  const uint64_t sum = std::accumulate(ns.begin(), ns.end(), uint64_t{0});
  const uint64_t whole = std::max(sum, TimelineRecorder::kStep_ns);
  Timeline::Column column{};
  std::array<uint64_t, 16> rest;
  uint64_t left = (sum * kParts + whole / 2) / whole;
  for (size_t i = 0; i < ns.size(); i++) {
    column[i] = static_cast<uint8_t>(ns[i] * kParts / whole);
    rest[i] = ns[i] * kParts % whole;
    left -= std::min<uint64_t>(left, column[i]);
  }
  for (; left > 0; left--) {
    const auto most = std::max_element(rest.begin(), rest.end());
    column[static_cast<size_t>(most - rest.begin())]++;
    *most = 0;
  }
  return column;
}

constexpr size_t kUnknownRunning =
    static_cast<size_t>(GilState::unknown) * 4 + static_cast<size_t>(CpuState::running);

using Cells = std::array<uint64_t, 16>;

uint64_t grown(const Cells& now, const Cells& told, size_t cell) {
  return now[cell] - std::min(now[cell], told[cell]);
}

// Moves `ns` of `from` to `to`, in the newest columns that have it; what they have not was before
// them.
void move(std::deque<Timeline::Column>& columns, Cells& told, size_t from, size_t to, uint64_t ns) {
  told[from] -= ns;
  told[to] += ns;
  uint64_t left = ns / kPart_ns;
  for (auto column = columns.rbegin(); column != columns.rend() && left > 0; ++column) {
    const auto moved = static_cast<uint8_t>(std::min<uint64_t>(left, (*column)[from]));
    (*column)[from] = static_cast<uint8_t>((*column)[from] - moved);
    (*column)[to] = static_cast<uint8_t>((*column)[to] + moved);
    left -= moved;
  }
}

// What was not decided when it was told, and is now.
void decide(std::deque<Timeline::Column>& columns, Cells& told, const Cells& now,
            uint64_t undecided_ns) {
  for (const GilState state : {GilState::holding, GilState::released}) {
    const size_t to = static_cast<size_t>(state) * 4;
    const uint64_t ns = std::min({undecided_ns, grown(now, told, to), told[kUnknownRunning]});
    move(columns, told, kUnknownRunning, to, ns);
    undecided_ns -= ns;
  }
}

// What turned out to be less than was told, turned out to be something else.
void correct(std::deque<Timeline::Column>& columns, Cells& told, const Cells& now) {
  for (size_t from = 0; from < now.size(); from++) {
    while (told[from] > now[from]) {
      size_t to = from % 4;
      for (size_t i = to; i < now.size(); i += 4)  // the scheduler's state is sure
        if (grown(now, told, i) > grown(now, told, to)) to = i;
      if (grown(now, told, to) == 0)
        for (size_t i = 0; i < now.size(); i++)
          if (grown(now, told, i) > grown(now, told, to)) to = i;
      const uint64_t ns = std::min(told[from] - now[from], grown(now, told, to));
      if (ns == 0) break;
      move(columns, told, from, to, ns);
    }
  }
}

uint64_t undecided_ns(const Thread& thread) {
  if (!thread.process->light) return 0;
  const uint64_t unknown = thread.matrix[kUnknownRunning / 4][kUnknownRunning % 4];
  return unknown - std::min(unknown, thread.light.undecided_from);
}

}  // namespace

// --- timeline ------------------------------------------------------------------------------------

void TimelineRecorder::watch(uint64_t process, Model& model) {
  if (process == process_) return;
  *this = TimelineRecorder();
  if (!model.advance_process_to(process, model.last_ns())) return;
  process_ = process;
  end_ns_ = model.last_ns() / kStep_ns * kStep_ns;
  next_ns_ = end_ns_ + kStep_ns;
  add_rows(*model.find_process(process));
  for (Row& row : rows_) row.told = cells_of(*row.thread);
}

void TimelineRecorder::add_rows(const Process& process) {
  if (rows_.size() >= kThreads) return;
  std::set<uint64_t> there;
  for (const Row& row : rows_) there.insert(row.number);
  for (const Thread* thread : process.alive) {
    if (there.contains(thread->number) || rows_.size() >= kThreads) continue;
    Row& row = rows_.emplace_back();
    row.number = thread->number;
    row.thread = thread;
    row.tid = thread->tid;
    if (thread->first_ns < end_ns_) row.told = cells_of(*thread);  // there was no room for it
  }
}

void TimelineRecorder::end_columns(Model& model, uint64_t ts_ns) {
  if (ts_ns - next_ns_ > kColumns * kStep_ns) {  // the machine slept
    const uint64_t process = process_;
    *this = TimelineRecorder();
    (void)model.advance_process_to(process, ts_ns);
    watch(process, model);
    return;
  }
  for (; ts_ns >= next_ns_; next_ns_ += kStep_ns) {
    const Process* const process = model.find_process(process_);
    const bool goes_on = process && !process->ended;
    if (goes_on) {
      (void)model.advance_process_to(process_, next_ns_);
      add_rows(*process);
    }
    for (Row& row : rows_) add_column(row, model.tables());
    columns_ = std::min(columns_ + 1, kColumns);
    end_ns_ = next_ns_;
    std::erase_if(rows_, [](const Row& row) { return row.empty >= row.columns.size(); });
    if (!goes_on) {
      next_ns_ = ~uint64_t{0};
      return;
    }
  }
}

void TimelineRecorder::add_column(Row& row, const EventTables& tables) {
  Timeline::Column column{};
  if (row.thread && row.thread->number == row.number && !row.thread->gone) {
    const Cells now = cells_of(*row.thread);
    decide(row.columns, row.told, now, row.undecided_ns);
    correct(row.columns, row.told, now);
    row.undecided_ns = undecided_ns(*row.thread);
    Cells more;
    for (size_t i = 0; i < now.size(); i++) {
      more[i] = grown(now, row.told, i);
      row.told[i] = std::max(row.told[i], now[i]);
    }
    column = parts_of(more);
    row.comm = tables.text(row.thread->comm);
    if (row.thread->ended) row.thread = nullptr;
  } else {
    row.thread = nullptr;
  }
  row.empty = column == Timeline::Column{} && !row.thread ? row.empty + 1 : 0;
  row.columns.push_back(column);
  if (row.columns.size() > kColumns) row.columns.pop_front();
}

Timeline TimelineRecorder::timeline() const {
  Timeline out;
  out.process = process_;
  out.end_ns = end_ns_;
  out.step_ns = kStep_ns;
  for (const Row& row : rows_) {
    Timeline::Row& shown = out.rows.emplace_back();
    shown.thread = row.number;
    shown.tid = row.tid;
    shown.comm = row.comm;
    shown.columns.resize(columns_ - row.columns.size());
    shown.columns.insert(shown.columns.end(), row.columns.begin(), row.columns.end());
  }
  std::sort(out.rows.begin(), out.rows.end(),
            [](const Timeline::Row& a, const Timeline::Row& b) { return a.thread < b.thread; });
  return out;
}

// --- history -------------------------------------------------------------------------------------

void WaitHistory::end_seconds(Model& model, uint64_t ts_ns) {
  if (next_ns_ == 0) next_ns_ = ts_ns / kStep_ns * kStep_ns + kStep_ns;
  if (ts_ns > next_ns_ + kValues * kStep_ns)  // the machine slept
    next_ns_ = (ts_ns / kStep_ns - kValues) * kStep_ns;
  for (; ts_ns >= next_ns_; next_ns_ += kStep_ns) {
    model.advance_to(std::max(next_ns_, model.last_ns()));
    end_second(model);
  }
}

void WaitHistory::end_second(const Model& model) {
  for (const Process& process : model.processes()) {
    if (process.ended || !model.is_reported(process)) continue;
    uint64_t waited = process.rest ? waited_ns(*process.rest) : 0;
    for (const Thread* thread : process.threads) waited += waited_ns(*thread);
    Of& of = processes_[process.number];
    const uint64_t more = waited - std::min(waited, of.waited_ns);
    of.values.push_back(static_cast<float>(more) / static_cast<float>(kStep_ns));
    if (of.values.size() > kValues) of.values.pop_front();
    of.waited_ns = std::max(of.waited_ns, waited);
    of.seen = true;
  }
  std::erase_if(processes_, [](const auto& of) { return !of.second.seen; });
  for (auto& [number, of] : processes_) of.seen = false;
}

std::unordered_map<uint64_t, std::vector<float>> WaitHistory::values() const {
  std::unordered_map<uint64_t, std::vector<float>> out;
  for (const auto& [number, of] : processes_)
    out.emplace(number, std::vector<float>(of.values.begin(), of.values.end()));
  return out;
}

}  // namespace giltop
