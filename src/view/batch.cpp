#include "view/batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "view/format.h"

namespace giltop {
namespace {

struct Key {
  BatchKey key;
  const char* name;
  const char* meaning;
};
constexpr std::array<Key, 10> kKeys = {
    {{BatchKey::wait, "wait", "time waiting for the GIL"},
     {BatchKey::cpu, "cpu", "time on a CPU"},
     {BatchKey::held, "held", "time with the GIL"},
     {BatchKey::off_cpu, "offcpu", "of it, time off the CPU: asleep or preempted"},
     {BatchKey::waiters, "wq", "most threads that waited at once"},
     {BatchKey::acquires, "acquires", "acquires a second"},
     {BatchKey::p99, "p99", "99th percentile of waits"},
     {BatchKey::longest, "longest", "the longest wait"},
     {BatchKey::pid, "pid", "process id"},
     {BatchKey::name, "name", "name"}}};

// What a row shows, of a process or a thread. Shares are of the interval.
struct Row {
  uint32_t pid = 0, tid = 0;  // 0: none
  std::string python, name;
  double cpu = 0, held = 0, off_cpu = 0, wait = 0;
  std::optional<uint64_t> waiters;
  std::optional<double> acquires;  // a second
  uint64_t waits = 0, p99_ns = 0, longest_ns = 0;
  std::optional<uint32_t> blocker;
  bool no_gil = false;   // nothing to hold or wait for
  bool sampled = false;  // who held it
  bool idle = false;
  std::vector<Row> threads;
};

// Behind whom most of the waiting was.
std::optional<uint32_t> blocker_of(const ProcessSnapshot& p, uint64_t waiter) {
  std::unordered_map<uint32_t, uint64_t> behind;
  for (const GilSnapshot& g : p.gils)
    for (const BlameSnapshot& b : g.blame)
      if (b.holder_tid && (waiter == 0 || b.waiter == waiter))
        behind[*b.holder_tid] += b.total_ns();
  const auto most =
      std::max_element(behind.begin(), behind.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second, b.first) < std::pair(b.second, a.first);
      });
  return most == behind.end() ? std::nullopt : std::optional(most->first);
}

void add(Row& row, const ThreadSnapshot& t, double interval_ns) {
  const auto share = [&](uint64_t ns) { return static_cast<double>(ns) / interval_ns; };
  row.cpu += share(t.in(CpuState::running));
  row.held += share(t.in(GilState::holding));
  row.off_cpu += share(t.in(GilState::holding, CpuState::runnable) +
                       t.in(GilState::holding, CpuState::blocked));
  row.wait += share(t.in(GilState::waiting));
}

bool is_idle(const Row& row) { return row.cpu < 0.0005 && row.held < 0.0005 && row.wait < 0.0005; }

Row row_of(const ThreadSnapshot& t, const ProcessSnapshot& p, const Row& process,
           double interval_ns) {
  Row row;
  row.pid = p.pid;
  row.tid = t.tid;
  row.name = t.folded ? fmt::format("{} ended threads", t.folded) : t.comm;
  add(row, t, interval_ns);
  if (p.exact) row.acquires = static_cast<double>(t.acquires) * 1e9 / interval_ns;
  row.waits = t.wait.count;
  row.p99_ns = t.wait.p99_ns;
  row.longest_ns = t.wait.max_ns;
  for (const WaitSnapshot& w : p.longest_waits)
    if (w.waiter_tid == t.tid) row.longest_ns = std::max(row.longest_ns, w.total_ns());
  row.blocker = blocker_of(p, t.number);
  row.no_gil = process.no_gil;
  row.sampled = process.sampled;
  row.idle = is_idle(row) && t.acquires == 0;
  return row;
}

Row row_of(const ProcessSnapshot& p, double interval_ns) {
  Row row;
  row.pid = p.pid;
  row.name = p.folded ? fmt::format("{} ended processes of {}", p.folded, p.comm) : p.comm;
  row.python = p.python.substr(0, p.python.find('.', p.python.find('.') + 1));
  if (p.free_threaded) row.python += "t";
  row.no_gil = p.gil_enabled == false;
  row.sampled = !p.exact;
  uint64_t acquires = 0;
  std::vector<const HistogramSnapshot*> waits;
  for (const ThreadSnapshot& t : p.threads) {
    add(row, t, interval_ns);
    waits.push_back(&t.wait);
    row.longest_ns = std::max(row.longest_ns, t.wait.max_ns);
  }
  row.waiters = 0;
  for (const GilSnapshot& g : p.gils) {
    acquires += g.acquires;
    row.waiters = std::max(*row.waiters, g.max_waiters);
  }
  if (p.exact) row.acquires = static_cast<double>(acquires) * 1e9 / interval_ns;
  const HistogramSnapshot all = sum_of(waits);
  row.waits = all.count;
  row.p99_ns = all.p99_ns;
  if (!p.longest_waits.empty())
    row.longest_ns = std::max(row.longest_ns, p.longest_waits.front().total_ns());
  row.blocker = blocker_of(p, 0);
  row.idle = is_idle(row) && acquires == 0;
  for (const ThreadSnapshot& t : p.threads) row.threads.push_back(row_of(t, p, row, interval_ns));
  return row;
}

// The most first; ids and names in their order.
bool before(const Row& a, const Row& b, BatchKey key) {
  const auto more = [&](auto figure) { return figure(a) > figure(b); };
  const auto same = [&](auto figure) { return figure(a) == figure(b); };
  const auto by = [&](auto figure) {
    return same(figure) ? std::pair(a.pid, a.tid) < std::pair(b.pid, b.tid) : more(figure);
  };
  switch (key) {
    case BatchKey::wait:
      return by([](const Row& r) { return r.wait; });
    case BatchKey::cpu:
      return by([](const Row& r) { return r.cpu; });
    case BatchKey::held:
      return by([](const Row& r) { return r.held; });
    case BatchKey::off_cpu:
      return by([](const Row& r) { return r.off_cpu; });
    case BatchKey::waiters:
      return by([](const Row& r) { return r.waiters.value_or(0); });
    case BatchKey::acquires:
      return by([](const Row& r) { return r.acquires.value_or(0); });
    case BatchKey::p99:
      return by([](const Row& r) { return r.p99_ns; });
    case BatchKey::longest:
      return by([](const Row& r) { return r.longest_ns; });
    case BatchKey::name:
      if (a.name != b.name) return a.name < b.name;
      break;
    case BatchKey::pid:
      break;
  }
  return std::pair(a.pid, a.tid) < std::pair(b.pid, b.tid);
}

std::string id_or_dash(uint32_t id) { return id == 0 ? "-" : std::to_string(id); }

std::string line_of(const Row& row, const std::string& time) {
  const auto percent = [&](double share, bool of_gil) {
    if (of_gil && row.no_gil) return std::string("-");
    return fmt::format("{}{:.1f}", of_gil && row.sampled ? "~" : "", share * 100);
  };
  const auto duration = [](uint64_t ns) {
    return ns == 0 ? std::string("-") : format_duration(ns);
  };
  const std::string wait = row.no_gil ? "-" : fmt::format("{:.1f}", row.wait * 100);
  return time + pad_left(id_or_dash(row.pid), 8) + pad_left(id_or_dash(row.tid), 8) +
         pad_left(row.python.empty() ? "-" : row.python, 7) + pad_left(percent(row.cpu, false), 7) +
         pad_left(percent(row.held, true), 7) + pad_left(percent(row.off_cpu, true), 8) +
         pad_left(wait, 7) + pad_left(row.waiters ? std::to_string(*row.waiters) : "-", 5) +
         pad_left(row.acquires && !row.no_gil ? fmt::format("{:.0f}", *row.acquires) : "-", 9) +
         pad_left(row.waits ? duration(row.p99_ns) : "-", 9) +
         pad_left(duration(row.longest_ns), 9) + pad_left(id_or_dash(row.blocker.value_or(0)), 9) +
         "  " + printable(row.name) + "\n";
}

std::string about(const LiveFrame& frame) {
  const Snapshot& s = frame.interval;
  size_t threads = 0, gils = 0, light = 0, processes = 0;
  for (const ProcessSnapshot& p : s.processes) {
    processes += std::max<uint64_t>(p.folded, 1);
    light += p.light && !p.ended;
    for (const ThreadSnapshot& t : p.threads) threads += std::max<uint64_t>(t.folded, 1);
    for (const GilSnapshot& g : p.gils) gils += std::max<uint64_t>(g.folded, 1);
  }
  const auto count = [](size_t n, const char* what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  const std::string mode = s.run.mode == "auto" && light != 0
                               ? fmt::format("auto ({} in light mode)", light)
                               : s.run.mode;
  return fmt::format("giltop - {}, {}, {}, {}, mode {}, overhead {} %, {} lost\n", frame.clock,
                     count(processes, "Python"), count(threads, "thread"), count(gils, "GIL"), mode,
                     format_percent(s.run.probe_cost_ns, s.untraced_cpu_ns()), frame.lost_events);
}

}  // namespace

std::optional<BatchKey> batch_key(std::string_view name) {
  for (const Key& key : kKeys)
    if (name == key.name) return key.key;
  return std::nullopt;
}

std::string batch_keys_help() {
  std::string out;
  for (const Key& key : kKeys) out += fmt::format("{:<10}{}\n", key.name, key.meaning);
  return out;
}

std::string batch_text(const LiveFrame& frame, const BatchOptions& options) {
  const auto interval_ns = static_cast<double>(std::max<uint64_t>(frame.interval.duration_ns(), 1));
  std::vector<Row> rows;
  for (const ProcessSnapshot& p : frame.interval.processes) rows.push_back(row_of(p, interval_ns));
  const auto order = [&](std::vector<Row>& some) {
    if (!options.idle) std::erase_if(some, [](const Row& row) { return row.idle; });
    std::sort(some.begin(), some.end(),
              [&](const Row& a, const Row& b) { return before(a, b, options.key); });
  };
  order(rows);
  const std::string time = options.timestamp ? pad_right(frame.clock, 8) + " " : std::string();
  std::string out = about(frame);
  out += (options.timestamp ? "TIME     " : "") + pad_left("PID", 8) + pad_left("TID", 8) +
         pad_left("PY", 7) + pad_left("CPU%", 7) + pad_left("HELD%", 7) + pad_left("OFFCPU%", 8) +
         pad_left("WAIT%", 7) + pad_left("WQ", 5) + pad_left("ACQ/s", 9) + pad_left("WAITp99", 9) +
         pad_left("LONGEST", 9) + pad_left("BLOCKER", 9) + "  NAME\n";
  for (Row& row : rows) {
    out += line_of(row, time);
    if (!options.threads) continue;
    order(row.threads);
    for (const Row& thread : row.threads) out += line_of(thread, time);
  }
  return out + "\n";
}

}  // namespace giltop
