#include "support/live_frames.h"

#include <algorithm>
#include <numeric>

#include "model/histogram.h"

namespace giltop::testing {
namespace {

constexpr uint64_t kMs = 1'000'000;

}  // namespace

FrameMaker::FrameMaker() {
  frame.host = "web-7";
  frame.clock = "12:04:31";
  frame.clock_ms = ((12 * 60 + 4) * 60 + 31) * 1000 + 250;
  frame.events_per_s = 12'400;
  frame.giltop_cpu = 0.012;
  frame.interval.run.kernel = "6.18.44";
  frame.interval.run.mode = "auto";
  frame.interval.run.cpus = 8;
  frame.interval.run.probe_hits = 4200;
  frame.interval.run.probe_cost_ns = 3 * kMs;
  frame.interval.first_ns = end_ns - 1000 * kMs;
  frame.interval.last_ns = end_ns;
}

ProcessSnapshot& FrameMaker::process(uint32_t pid, const std::string& comm,
                                     const std::string& cmdline, const std::string& python) {
  ProcessSnapshot& p = frame.interval.processes.emplace_back();
  p.number = next_number++;
  p.pid = pid;
  p.comm = comm;
  p.cmdline = cmdline;
  p.python = python;
  p.gil_enabled = true;
  return p;
}

ThreadSnapshot& FrameMaker::thread(ProcessSnapshot& process, uint32_t tid, const std::string& comm,
                                   const std::vector<unsigned>& cells_ms) {
  ThreadSnapshot& t = process.threads.emplace_back();
  next_number++;
  t.number = t.tid = tid;
  t.comm = comm;
  t.first_ns = frame.interval.first_ns;
  t.last_ns = frame.interval.last_ns;
  static constexpr std::pair<GilState, CpuState> kCells[] = {
      {GilState::holding, CpuState::running},  {GilState::holding, CpuState::runnable},
      {GilState::holding, CpuState::blocked},  {GilState::waiting, CpuState::blocked},
      {GilState::released, CpuState::running}, {GilState::released, CpuState::runnable},
      {GilState::released, CpuState::blocked}};
  for (size_t i = 0; i < cells_ms.size() && i < std::size(kCells); i++)
    t.matrix[static_cast<size_t>(kCells[i].first)][static_cast<size_t>(kCells[i].second)] +=
        cells_ms[i] * kMs;
  t.gil_state = GilState::released;
  t.cpu_state = CpuState::blocked;
  t.acquires = 100 + tid % 100;
  return t;
}

GilSnapshot& FrameMaker::gil(ProcessSnapshot& process, const std::vector<unsigned>& ledger_ms) {
  GilSnapshot& g = process.gils.emplace_back();
  g.number = next_number++;
  g.address = 0x7f21c0 + 0x1000 * g.number;
  g.first_ns = frame.interval.first_ns;
  g.last_ns = frame.interval.last_ns;
  for (size_t i = 0; i < ledger_ms.size() && i < kLedgerColumns; i++)
    g.ledger[i] = ledger_ms[i] * kMs;
  return g;
}

HistogramSnapshot histogram_of(const std::vector<uint64_t>& values_ns) {
  Histogram histogram;
  for (const uint64_t value : values_ns) histogram.add(value);
  return snapshot_of(histogram);
}

Timeline timeline_of(const ProcessSnapshot& process, uint64_t end_ns) {
  Timeline timeline;
  timeline.process = process.number;
  timeline.end_ns = end_ns / (5 * kMs) * (5 * kMs);
  timeline.step_ns = 5 * kMs;
  size_t place = 0;
  for (const ThreadSnapshot& t : process.threads) {
    if (t.folded != 0) continue;
    Timeline::Row& row = timeline.rows.emplace_back();
    row.thread = t.number;
    row.tid = t.tid;
    row.comm = t.comm;
    row.columns.resize(2400);
    for (size_t i = 0; i < row.columns.size(); i++) {
      const size_t turn = (timeline.end_ns / timeline.step_ns + i) % 37;
      GilState g = turn % 3 == place % 3 ? GilState::holding : GilState::waiting;
      if (place > 2) g = GilState::released;
      const CpuState c = g == GilState::holding && turn > 25 ? CpuState::blocked
                         : g == GilState::holding            ? CpuState::running
                                                             : CpuState::blocked;
      row.columns[i][static_cast<size_t>(g) * 4 + static_cast<size_t>(c)] = 200;
      row.columns[i][15] = 20;
    }
    place++;
  }
  return timeline;
}

LiveFrame web_host() {
  FrameMaker maker;
  maker.frame.interval.processes.reserve(8);
  const uint64_t now = maker.end_ns;
  {
    ProcessSnapshot& p = maker.process(20313, "gunicorn", "gunicorn: worker [api]", "3.12.7");
    p.threads.reserve(8);
    GilSnapshot& g = maker.gil(p, {808, 30, 154, 8, 0});
    g.waiters = 2;
    g.max_waiters = 7;
    g.acquires = 2100;
    g.holder_tid = 21877;
    ThreadSnapshot& holder =
        maker.thread(p, 21877, "ThreadPoolExecutor-0_3", {401, 0, 579, 4, 16, 0, 0});
    holder.gil_state = GilState::holding;
    holder.cpu_state = CpuState::blocked;
    holder.state_since_ns = now - 9800 * kMs;
    holder.state_since_exact = true;
    holder.gil = g.number;
    holder.wait = histogram_of({12 * kMs, 48 * kMs, 2 * kMs});
    holder.hold = histogram_of({200'000, 900'000, 22 * kMs});
    ThreadSnapshot& waiter =
        maker.thread(p, 20319, "ThreadPoolExecutor-0_1", {220, 5, 0, 713, 0, 0, 62});
    waiter.gil_state = GilState::waiting;
    waiter.state_since_ns = now - 3200 * kMs;
    waiter.gil = g.number;
    std::vector<uint64_t> waits;
    for (uint64_t i = 1; i < 400; i++) waits.push_back(i * i * 1000);
    waiter.wait = histogram_of(waits);
    waiter.hold = histogram_of({200'000, 900'000, 22 * kMs});
    maker.thread(p, 20320, "日本語のスレッド名前", {187, 25, 0, 700, 0, 0, 88});
    maker.thread(p, 20321, "asyncio_0", {0, 0, 0, 0, 0, 0, 1000}).acquires = 0;
    g.blame = {{20319, 21877, 20319, 21877, false, 133 * kMs, 20 * kMs, 540 * kMs, 20 * kMs, 0},
               {20320, 21877, 20320, 21877, false, 400 * kMs, 0, 200 * kMs, 5 * kMs, 0},
               {21877, 20319, 21877, 20319, false, 4 * kMs, 0, 0, 0, 0},
               {20320, 20319, 20320, 20319, false, 95 * kMs, 0, 0, 0, 0}};
    g.handoff = histogram_of({21'000, 28'000, 90'000});
    g.handoff_wakeup_ns = 63'000;
    g.handoff_runqueue_ns = 12'000;
    g.handoff_lock_ns = 9'000;
    p.longest_waits = {
        {now - 3200 * kMs, now, true, 20319, 21877, {400 * kMs, 0, 2800 * kMs}, 20319, 21877},
        {now - 900 * kMs, now - 804 * kMs, false, 20320, 21877, {96 * kMs}, 20320, 21877}};
    std::vector<float> history;
    for (int i = 0; i < 60; i++) history.push_back(static_cast<float>(i % 20) / 10);
    maker.frame.wait_history[p.number] = history;
  }
  {
    ProcessSnapshot& p =
        maker.process(20877, "celery", "/usr/bin/python3.11 -m celery worker", "3.11.2");
    p.threads.reserve(4);
    GilSnapshot& g = maker.gil(p, {118, 0, 0, 1, 881});
    g.max_waiters = 1;
    g.acquires = 140;
    ThreadSnapshot& t = maker.thread(p, 20877, "celery", {118, 0, 0, 10, 2, 0, 870});
    t.wait = histogram_of({5 * kMs, 9 * kMs + 800'000});
    maker.thread(p, 20881, "celery", {0, 0, 0, 11, 0, 0, 989});
    g.blame = {{20877, 20881, 20877, 20881, false, 10 * kMs, 0, 0, 0, 0}};
    p.exact = false;
    p.light = true;
  }
  {
    ProcessSnapshot& p =
        maker.process(21990, "python3.14t",
                      "/opt/python3.14t/bin/python3.14t -m ipykernel_launcher -f k.json", "3.14.0");
    p.threads.reserve(4);
    p.free_threaded = true;
    p.gil_enabled = false;
    maker.thread(p, 21990, "python3.14t", {0, 0, 0, 0, 990, 0, 10});
    maker.thread(p, 21991, "worker", {0, 0, 0, 0, 500, 100, 400});
  }
  {
    ProcessSnapshot& p = maker.process(30001, "python3", "python3 subs.py", "3.13.1");
    p.threads.reserve(4);
    p.gils.reserve(3);
    GilSnapshot& a = maker.gil(p, {500, 0, 0, 0, 500});
    a.interpreter = 0;
    GilSnapshot& b = maker.gil(p, {900, 0, 0, 0, 100});
    b.interpreter = 1;
    maker.thread(p, 30001, "python3", {500, 0, 0, 0, 0, 0, 500}).gil = a.number;
    maker.thread(p, 30002, "python3", {900, 0, 0, 0, 0, 0, 100}).gil = b.number;
  }
  maker.frame.notes = {"4242 (pypy3): this is PyPy, not CPython; giltop reads CPython's GIL only"};
  maker.frame.timeline = timeline_of(maker.frame.interval.processes[0], now);
  return maker.frame;
}

LiveFrame random_frame(std::mt19937_64& random) {
  FrameMaker maker;
  const auto below = [&](uint64_t n) { return random() % n; };
  const auto some_ns = [&] { return below(4) == 0 ? 0 : below(uint64_t{1} << below(40)); };
  static const std::vector<std::string> kNames = {"python3",
                                                  "日本語",
                                                  "e\u0301e\u0301",
                                                  "👩‍👩‍👧‍👦👍🏽🇩🇪",
                                                  "\x1b[31mred\x1b]0;x\x07",
                                                  "\xff\xfe\xc3",
                                                  "",
                                                  std::string(1000, 'n'),
                                                  "\u202eevil\u200b",
                                                  "a\tb\nc",
                                                  "界" + std::string(30, 'x') + "界界界"};
  const auto name = [&] { return kNames[below(kNames.size())]; };
  LiveFrame& frame = maker.frame;
  frame.host = name();
  frame.lost_events = below(3) == 0 ? some_ns() : 0;
  frame.events_per_s = static_cast<double>(some_ns());
  frame.accumulated = below(4) == 0;
  if (below(8) == 0) frame.interval.first_ns = frame.interval.last_ns;
  frame.interval.violations = below(5) == 0 ? 3 : 0;
  for (uint64_t i = below(3); i > 0; i--) frame.notes.push_back(name());
  const uint64_t processes = below(10) == 0 ? 0 : below(12);
  std::vector<uint64_t> numbers(20);
  std::iota(numbers.begin(), numbers.end(), 1);
  std::shuffle(numbers.begin(), numbers.end(), random);
  for (uint64_t i = 0; i < processes; i++) {
    ProcessSnapshot& p =
        maker.process(static_cast<uint32_t>(1 + below(4'194'304)), name(), name(), "3.13.1");
    p.number = numbers[i];  // the same ones come and go
    p.exact = below(3) != 0;
    p.ended = below(6) == 0;
    p.folded = below(10) == 0 ? 1 + below(9000) : 0;
    p.free_threaded = below(5) == 0;
    if (p.free_threaded) p.gil_enabled = below(2) == 0;
    for (uint64_t k = below(3); k > 0; k--) {
      GilSnapshot& g = maker.gil(p, {});
      for (uint64_t& part : g.ledger) part = some_ns();
      g.waiters = below(4);
      g.max_waiters = below(30);
      g.acquires = some_ns();
      g.contended = some_ns();
      g.handoff = histogram_of({some_ns(), some_ns()});
      for (uint64_t b = below(6); b > 0; b--) {
        BlameSnapshot& blame = g.blame.emplace_back();
        if (below(5) != 0) blame.waiter_tid = static_cast<uint32_t>(below(50));
        if (below(5) != 0) blame.holder_tid = static_cast<uint32_t>(below(50));
        blame.waiter = p.number * 100 + below(100);
        blame.holder = p.number * 100 + below(100);
        blame.running_ns = some_ns();
        blame.blocked_ns = some_ns();
        blame.unknown_ns = some_ns();
      }
    }
    for (uint64_t k = below(8); k > 0; k--) {
      ThreadSnapshot& t = maker.thread(p, static_cast<uint32_t>(below(50)), name(), {});
      t.number = p.number * 100 + 10 * k + below(10);
      for (auto& row : t.matrix)
        for (uint64_t& cell : row) cell = some_ns();
      t.folded = below(10) == 0 ? 1 + below(50) : 0;
      t.ended = below(8) == 0;
      t.gil_state = static_cast<GilState>(below(4));
      t.cpu_state = static_cast<CpuState>(below(4));
      t.state_since_ns = below(3) == 0 ? 0 : maker.end_ns - some_ns();
      t.gil = p.gils.empty() ? below(3) : p.gils[below(p.gils.size())].number;
      t.acquires = some_ns();
      for (uint64_t n = below(4); n > 0; n--) t.wait = histogram_of({some_ns(), some_ns()});
      t.hold = histogram_of({some_ns()});
    }
    for (uint64_t k = below(4); k > 0; k--) {
      WaitSnapshot& w = p.longest_waits.emplace_back();
      w.start_ns = maker.end_ns - some_ns();
      w.end_ns = w.start_ns + some_ns();
      w.waiter_tid = static_cast<uint32_t>(below(50));
      w.waiter = p.number * 100 + below(100);
      w.parts[below(kLedgerColumns)] = w.end_ns - w.start_ns;
    }
    std::vector<float>& history = frame.wait_history[p.number];
    for (uint64_t n = below(61); n > 0; n--)
      history.push_back(static_cast<float>(below(400)) / 100);
    if (below(3) == 0) frame.timeline = timeline_of(p, maker.end_ns);
  }
  return frame;
}

}  // namespace giltop::testing
