#include <algorithm>
#include <unordered_map>
#include <utility>

#include "model/model.h"

namespace giltop {
namespace {

size_t column(LedgerColumn c) { return static_cast<size_t>(c); }

LedgerColumn column_of(CpuState holder) {
  switch (holder) {
    case CpuState::running:
      return LedgerColumn::running;
    case CpuState::runnable:
      return LedgerColumn::runnable;
    case CpuState::blocked:
      return LedgerColumn::blocked;
    case CpuState::unknown:
      break;
  }
  return LedgerColumn::unknown;
}

size_t hash(uint64_t key) {
  key *= 0x9e3779b97f4a7c15u;  // Fibonacci hashing: 2^64 / golden ratio
  return key >> 32;
}

}  // namespace

uint64_t Gil::key_of(const Thread& waiter, const Thread* holder) {
  return uint64_t{waiter.index} << 32 | (holder ? holder->index + 1 : 0);
}

void Gil::advance(uint64_t ts_ns) {
  const uint64_t elapsed = ts_ns - last_ns;
  last_ns = ts_ns;
  if (light) [[unlikely]] {
    share.life_ns += elapsed;
    return;
  }
  LedgerColumn where = LedgerColumn::unknown;
  if (known) {
    if (holder) {
      where = column_of(holder->cpu_state);
    } else {
      where = off               ? LedgerColumn::off
              : waiters.empty() ? LedgerColumn::idle
                                : LedgerColumn::handoff;
    }
  }
  ledger[column(where)] += elapsed;
}

void Gil::book(Thread& waiter) {
  if (light) [[unlikely]] {
    book_light(waiter);
    return;
  }
  Ledger parts;
  bool any = false;
  for (size_t c = 0; c < kLedgerColumns; c++) {
    parts[c] = ledger[c] - waiter.wait_mark[c];
    any = any || parts[c] != 0;
  }
  if (!any) return;
  Row& booked = row(waiter, blamed());
  for (size_t c = 0; c < kLedgerColumns; c++) booked.parts[c] += parts[c];
  waiter.wait_so_far.pass(blamed(), last_ns);
  waiter.wait_mark = ledger;
}

void Gil::book_all_waiters() {
  for (Thread* waiter : waiters) book(*waiter);
}

void Gil::add_waiter(Thread& waiter, uint64_t ts_ns) {
  waiters.push_back(&waiter);
  waiter.wait_so_far.begin(ledger, ts_ns);
  max_waiters = std::max<uint64_t>(max_waiters, waiters.size());
  recent_max_waiters = std::max<uint64_t>(recent_max_waiters, waiters.size());
}

void Gil::remove_waiter(Thread& waiter) {
  waiters.erase(std::remove(waiters.begin(), waiters.end(), &waiter), waiters.end());
}

void Gil::rebook(uint64_t from_ns, CpuState booked, CpuState right) {
  if (light) return;  // the share follows the thread's cells
  const size_t from = column(column_of(booked)), to = column(column_of(right));
  const auto move = [&](Ledger& columns, uint64_t ns) {
    columns[from] -= ns;
    columns[to] += ns;
  };
  move(ledger, last_ns - from_ns);
  // Who began to wait in between has marked what was booked till then.
  for (Thread* waiter : waiters) {
    if (waiter->state_since_ns <= from_ns) continue;
    move(waiter->wait_mark, waiter->state_since_ns - from_ns);
    move(waiter->wait_so_far.mark, waiter->state_since_ns - from_ns);
  }
}

Gil::Row& Gil::row(const Thread& waiter, const Thread* behind) {
  if (rows_.size() * 2 >= slots_.size()) rehash(std::max<size_t>(16, slots_.size() * 2));
  const uint64_t key = key_of(waiter, behind);
  const size_t mask = slots_.size() - 1;
  size_t at = hash(key) & mask;
  while (slots_[at] != 0) {
    Row& found = rows_[slots_[at] - 1];
    if (found.key == key) return found;
    at = (at + 1) & mask;
  }
  if (rows_.size() >= kMostRows && behind && process->rest && behind != process->rest)
    return row(waiter, process->rest);
  rows_.push_back(Row{key, &waiter, behind, {}});
  slots_[at] = static_cast<uint32_t>(rows_.size());
  return rows_.back();
}

// rows_.size() where there is none.
size_t Gil::find_row(uint64_t key) const {
  if (slots_.empty()) return rows_.size();
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash(key) & mask; slots_[at] != 0; at = (at + 1) & mask)
    if (rows_[slots_[at] - 1].key == key) return slots_[at] - 1;
  return rows_.size();
}

void Gil::rehash(size_t slots) {
  slots_.assign(slots, 0);
  if (slots == 0) return;
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < rows_.size(); i++) {
    size_t at = hash(rows_[i].key) & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = static_cast<uint32_t>(i + 1);
  }
}

void Gil::drop_empty_rows() {
  std::erase_if(rows_, [](const Row& r) { return r.parts == Ledger{}; });
  rehash(slots_.size());
}

std::vector<Gil::Row> Gil::rows_of(const Thread& waiter) const {
  std::vector<Row> rows;
  for (const Row& r : rows_)
    if (r.waiter == &waiter) rows.push_back(r);
  return rows;
}

void Gil::unbook(const Thread& waiter, const std::vector<Row>& before) {
  for (Row& r : rows_)
    if (r.waiter == &waiter) r.parts = {};
  for (const Row& r : before) row(*r.waiter, r.holder).parts = r.parts;
  drop_empty_rows();
  if (!assumed) return;
  std::erase_if(assumed->rows, [&](const Row& r) { return r.waiter == &waiter; });
  assumed->rows.insert(assumed->rows.end(), before.begin(), before.end());
}

void Gil::assume(Thread* by) {
  assumed = std::make_unique<Assumed>(Assumed{ledger, rows_, max_waiters});
  known = true;
  holder = last_holder = by;
  drop_requested = false;
  handoff_open = false;
}

void Gil::disprove(uint64_t ts_ns) {
  advance(ts_ns);
  book_all_waiters();
  const auto since = [](Ledger& parts, const Ledger& before) {
    uint64_t sum = 0;
    for (size_t c = 0; c < kLedgerColumns; c++) sum += parts[c] - before[c];
    parts = before;
    return sum;
  };
  const uint64_t elapsed = since(ledger, assumed->ledger);
  ledger[column(LedgerColumn::unknown)] += elapsed;
  std::unordered_map<uint64_t, const Row*> before;
  for (const Row& r : assumed->rows) before.emplace(r.key, &r);
  std::vector<std::pair<const Thread*, uint64_t>> waited;
  for (Row& r : rows_) {
    const auto old = before.find(r.key);
    const uint64_t sum = since(r.parts, old == before.end() ? Ledger{} : old->second->parts);
    if (sum != 0) waited.emplace_back(r.waiter, sum);
  }
  for (const auto& [waiter, ns] : waited)
    row(*waiter, nullptr).parts[column(LedgerColumn::unknown)] += ns;
  drop_empty_rows();
  for (Thread* waiter : waiters) {
    waiter->wait_mark = ledger;
    waiter->wait_so_far.forget(ledger, waiter->state_since_ns, ts_ns);
  }
  max_waiters = std::max<uint64_t>(assumed->max_waiters, waiters.size());
  recent_max_waiters = std::min(recent_max_waiters, max_waiters);
  known = false;
  holder = last_holder = nullptr;
  drop_requested = false;
  handoff_open = false;
  assumed.reset();
}

std::vector<Gil::Blame> Gil::blame() const {
  // Waits that still go on count up to now, on whoever holds the GIL now.
  std::vector<Row> rows = rows_;
  const auto add = [&](const Thread* waiter, const Thread* behind, const Ledger& parts) {
    const uint64_t key = key_of(*waiter, behind);
    const size_t at = find_row(key);
    Row& found = at < rows_.size() ? rows[at] : rows.emplace_back(Row{key, waiter, behind, {}});
    for (size_t c = 0; c < kLedgerColumns; c++) found.parts[c] += parts[c];
  };
  for (const Thread* waiter : waiters) {
    Ledger parts{};
    if (light) {
      parts = light_parts(*waiter);
      const size_t unknown = column(LedgerColumn::unknown);
      Ledger nobodys{};
      nobodys[unknown] = std::exchange(parts[unknown], 0);
      if (nobodys[unknown] != 0) add(waiter, nullptr, nobodys);
      if (waiter->light.behind) add(waiter, waiter->light.behind, parts);
      continue;
    }
    for (size_t c = 0; c < kLedgerColumns; c++) parts[c] = ledger[c] - waiter->wait_mark[c];
    add(waiter, blamed(), parts);
  }
  std::vector<Blame> result;
  result.reserve(rows.size());
  for (const Row& r : rows) {
    const auto part = [&](LedgerColumn c) { return r.parts[column(c)]; };
    result.push_back(
        {r.waiter, r.holder, part(LedgerColumn::running), part(LedgerColumn::runnable),
         part(LedgerColumn::blocked), part(LedgerColumn::handoff),
         part(LedgerColumn::unknown) + part(LedgerColumn::idle) + part(LedgerColumn::off)});
  }
  std::sort(result.begin(), result.end(), [](const Blame& a, const Blame& b) {
    const auto behind = [](const Blame& x) { return x.holder ? x.holder->number : 0; };
    return std::pair(a.waiter->number, behind(a)) < std::pair(b.waiter->number, behind(b));
  });
  return result;
}

}  // namespace giltop
