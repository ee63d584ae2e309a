// The detail page of the live view: one process, or one of its threads.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "model/verdict.h"
#include "view/live_parts.h"

namespace giltop {
namespace {

constexpr size_t kFewRows = 12;  // of the timeline: of more, sleepers are left out
constexpr size_t kMostRows = 64;
constexpr size_t kMostBlame = 40;
constexpr unsigned kWide = 96;  // columns for two histograms side by side

struct Detail {
  const LiveFrame& frame;
  const LiveState& state;
  const ProcessSnapshot& process;
  const ThreadSnapshot* thread;  // null: all of them

  bool concerns(uint64_t waiter, uint64_t holder) const {  // numbers
    return !thread || waiter == thread->number || holder == thread->number;
  }
};

// Columns of the timeline summed up to those shown: of fixed times, so that what they show moves
// but does not change. Newest last.
std::vector<StateTimes> summed(const Timeline& timeline, const Timeline::Row& row,
                               uint64_t column_ns, size_t count) {
  std::vector<StateTimes> out(count);
  if (timeline.step_ns == 0) return out;
  const uint64_t wide = std::max(column_ns, timeline.step_ns);
  const uint64_t last = timeline.end_ns == 0 ? 0 : (timeline.end_ns - 1) / wide;
  for (size_t i = 0; i < row.columns.size(); i++) {
    const uint64_t age = (row.columns.size() - 1 - i) * timeline.step_ns;
    if (age >= timeline.end_ns) continue;
    const uint64_t back = last - (timeline.end_ns - age - 1) / wide;
    if (back >= count) continue;
    StateTimes& sum = out[count - 1 - back];
    for (size_t cell = 0; cell < row.columns[i].size(); cell++)
      sum[static_cast<size_t>(bar_state(static_cast<GilState>(cell / 4),
                                        static_cast<CpuState>(cell % 4)))] += row.columns[i][cell];
  }
  return out;
}

void add_timeline(Page& page, const Detail& d) {
  const Timeline& timeline = d.frame.timeline;
  if (timeline.process != d.process.number || timeline.rows.empty()) {
    page.add("waiting for the first columns of the timeline …", Style::dim);
    return;
  }
  const unsigned names = std::clamp(page.columns() / 4, 16u, 32u);
  const unsigned cells = page.columns() - names;
  struct Line {
    const Timeline::Row* row;
    std::vector<StateTimes> columns;
    bool awake = false;
  };
  std::vector<Line> lines;
  for (const Timeline::Row& row : timeline.rows) {
    Line line{&row, summed(timeline, row, d.state.column_ns, cells)};
    for (const StateTimes& column : line.columns)
      for (size_t i = 0; i < kBarStates; i++)
        line.awake = line.awake || (column[i] != 0 && static_cast<BarState>(i) != BarState::asleep);
    lines.push_back(std::move(line));
  }
  // The thread that this is about comes first.
  std::stable_partition(lines.begin(), lines.end(), [&](const Line& line) {
    return d.thread && line.row->thread == d.thread->number;
  });
  StateTimes seen{};
  size_t asleep = 0, shown = 0, more = 0;
  for (const Line& line : lines) {
    const bool own = d.thread && line.row->thread == d.thread->number;
    if (!own && !line.awake && lines.size() > kFewRows) {
      asleep++;
      continue;
    }
    if (shown >= kMostRows) {
      more++;
      continue;
    }
    shown++;
    Screen& out = page.add();
    out.put(0, 0, fmt::format("{} {}", line.row->tid, line.row->comm),
            own ? Style::bold : Style::normal, names - 1);
    for (unsigned i = 0; i < cells; i++) {
      const StateTimes& column = line.columns[i];
      const auto most = std::max_element(column.begin(), column.end());
      if (*most == 0) continue;  // it was not there
      const auto state = static_cast<size_t>(most - column.begin());
      seen[state]++;
      const StateGlyph& glyph = glyph_of(static_cast<BarState>(state));
      out.put(names + i, 0, d.state.letters ? glyph.letter : glyph.block, glyph.style);
    }
  }
  if (asleep != 0)
    page.add(fmt::format("and {} that slept all the time", format_count(asleep)), Style::dim);
  if (more != 0) page.add(fmt::format("and {} more", format_count(more)), Style::dim);
  // What the glyphs mean, as far as there are any.
  static constexpr const char* kShort[] = {"held, on CPU", "held, preempted", "held, asleep",
                                           "waits",        "native code",     "wants a CPU",
                                           "asleep",       "unknown"};
  unsigned room = 0;
  for (size_t i = 0; i < kBarStates; i++)
    if (seen[i] != 0) room += 4 + static_cast<unsigned>(columns_of(kShort[i]));
  Screen& legend = page.add();
  unsigned at =
      std::min(names, page.columns() - std::min(page.columns(), room - std::min(room, 2u)));
  for (size_t i = 0; i < kBarStates; i++) {
    if (seen[i] == 0) continue;
    const StateGlyph& glyph = glyph_of(static_cast<BarState>(i));
    at += legend.put(at, 0, d.state.letters ? glyph.letter : glyph.block, glyph.style) + 1;
    at += legend.put(at, 0, kShort[i], Style::dim) + 2;
  }
}

void add_figures(Page& page, const Detail& d) {
  const Snapshot& s = d.frame.interval;
  const Figures f = d.thread ? figures_of(*d.thread, d.process, s) : figures_of(d.process, s);
  const std::string about = d.process.exact ? "" : "~";
  Screen* line = &page.add();
  unsigned at = 0;
  const auto put = [&](const std::string& text, Style style = Style::normal) {
    if (at != 0 && at + 3 + columns_of(text) > page.columns()) {
      line = &page.add();
      at = 0;
    }
    if (at != 0) at += 3;
    at += line->put(at, 0, text, style);
  };
  put(fmt::format("CPU {:.1f} %", f.cpu));
  if (gil_is_off(d.process)) {
    put("GIL off: free-threaded build", Style::dim);
    return;
  }
  put(fmt::format("held {}{:.1f} %", about, f.held));
  put(fmt::format("of it off the CPU {}{:.1f}", about, f.off_cpu),
      f.off_cpu >= 1 ? Style::bad : Style::normal);
  put(fmt::format("waited {:.1f} %", f.wait));
  if (!d.process.exact) return;
  uint64_t forced = 0, voluntary = 0;
  for (const ThreadSnapshot& t : d.process.threads) {
    if (d.thread && &t != d.thread) continue;
    forced += t.forced_releases;
    voluntary += t.voluntary_releases;
  }
  put(fmt::format("{} acquires/s", format_rate(f.acquires_per_s)));
  put(fmt::format("releases {} forced, {} voluntary", format_count(forced),
                  format_count(voluntary)));
}

// Octaves of 1 µs; what is shorter is the first.
struct Octaves {
  std::vector<uint64_t> counts;
  size_t first = 0, last = 0;
  bool empty = true;
};
Octaves octaves_of(const HistogramSnapshot& h) {
  Octaves o;
  o.counts.resize(40);
  for (const auto& bucket : h.buckets) {
    size_t index = 0;
    for (uint64_t edge = 1000; edge <= bucket.lower_ns && index + 1 < o.counts.size(); edge *= 2)
      index++;
    o.counts[index] += bucket.count;
  }
  for (size_t i = 0; i < o.counts.size(); i++) {
    if (o.counts[i] == 0) continue;
    if (o.empty) o.first = i;
    o.last = i;
    o.empty = false;
  }
  return o;
}

void put_histogram_line(Screen& line, unsigned at, unsigned width, const Octaves& o, size_t index) {
  const uint64_t most = *std::max_element(o.counts.begin(), o.counts.end());
  const std::string label = index == 0 ? "0" : format_duration(uint64_t{1000} << (index - 1));
  line.put_right(at, 0, label, Style::normal, 6);
  const unsigned room = std::min(width - std::min(width, 6u + 2 + 9 + 2), 64u);
  const auto full =
      static_cast<unsigned>((o.counts[index] * room + most - 1) / std::max<uint64_t>(most, 1));
  line.put(at + 7, 0, "|", Style::dim);
  line.put(at + 8, 0, std::string(full, '@'));
  line.put(at + 8 + room, 0, "|", Style::dim);
  if (o.counts[index] != 0)
    line.put_right(at + 9 + room, 0, format_count(o.counts[index]), Style::dim, 9);
}

std::string histogram_head(const char* name, const HistogramSnapshot& h) {
  if (h.count == 0) return fmt::format("{}   none ended", name);
  return fmt::format("{}   n {}  p50 {}  p90 {}  p99 {}  max {}", name, format_count(h.count),
                     format_duration(h.p50_ns), format_duration(h.p90_ns),
                     format_duration(h.p99_ns), format_duration(h.max_ns));
}

void add_histograms(Page& page, const Detail& d) {
  std::vector<const HistogramSnapshot*> waits, holds;
  for (const ThreadSnapshot& t : d.process.threads) {
    if (d.thread && &t != d.thread) continue;
    waits.push_back(&t.wait);
    holds.push_back(&t.hold);
  }
  const HistogramSnapshot wait = sum_of(waits), hold = sum_of(holds);
  const Octaves w = octaves_of(wait), h = octaves_of(hold);
  if (page.columns() >= kWide) {
    const unsigned half = page.columns() / 2;
    Screen& head = page.add();
    head.put(0, 0, histogram_head("WAIT", wait), Style::bold, half - 2);
    head.put(half, 0, histogram_head("HOLD", hold), Style::bold);
    const size_t lines =
        std::max(w.empty ? 0 : w.last - w.first + 1, h.empty ? 0 : h.last - h.first + 1);
    for (size_t i = 0; i < lines; i++) {
      Screen& line = page.add();
      if (!w.empty && w.first + i <= w.last) put_histogram_line(line, 0, half - 2, w, w.first + i);
      if (!h.empty && h.first + i <= h.last)
        put_histogram_line(line, half, page.columns() - half, h, h.first + i);
    }
    return;
  }
  const auto add = [&](const char* name, const HistogramSnapshot& histogram, const Octaves& o) {
    page.add(histogram_head(name, histogram), Style::bold);
    for (size_t i = o.first; !o.empty && i <= o.last; i++)
      put_histogram_line(page.add(), 0, page.columns(), o, i);
  };
  add("WAIT", wait, w);
  page.add("");
  add("HOLD", hold, h);
}

std::string tid_text(std::optional<uint32_t> tid, bool folded) {
  return tid ? std::to_string(*tid) : folded ? "others" : "unknown";
}

// By the thread's number: another may have had its tid before.
std::string name_of(const Detail& d, uint64_t number) {
  for (const ThreadSnapshot& t : d.process.threads)
    if (t.number == number && t.folded == 0) return t.comm;
  return "";
}

void add_blame(Page& page, const Detail& d) {
  std::vector<BlameSnapshot> rows;
  for (const GilSnapshot& g : d.process.gils)
    for (const BlameSnapshot& b : g.blame)
      if (b.total_ns() != 0 && d.concerns(b.waiter, b.holder)) rows.push_back(b);
  if (rows.empty()) return;
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.total_ns() > b.total_ns(); });
  // Figures of a fixed width; names share what they leave.
  const unsigned figures = 4 * 10 + 8, names = std::min((page.columns() - figures) / 2, 40u);
  Screen& head = page.add();
  head.put(0, 0, "WAITED", Style::bold);
  head.put(8, 0, "WHO", Style::bold);
  head.put(8 + names, 0, names > 18 ? "BEHIND, which was" : "BEHIND", Style::bold, names - 1);
  static constexpr const char* kParts[] = {"running", "preempted", "asleep", "hand-off"};
  for (unsigned i = 0; i < 4; i++)
    head.put_right(8 + 2 * names + 10 * i, 0, kParts[i], Style::bold, 10);
  for (size_t i = 0; i < rows.size() && i < kMostBlame; i++) {
    const BlameSnapshot& b = rows[i];
    Screen& line = page.add();
    line.put_right(0, 0, format_duration(b.total_ns()), Style::normal, 7);
    const std::string waiter = tid_text(b.waiter_tid, true) + " " + name_of(d, b.waiter);
    const std::string holder = tid_text(b.holder_tid, b.holder_folded) + " " + name_of(d, b.holder);
    line.put(8, 0, waiter, Style::normal, names - 1);
    line.put(8 + names, 0, holder, Style::normal, names - 1);
    const uint64_t parts[] = {b.running_ns, b.runnable_ns, b.blocked_ns, b.handoff_ns};
    for (unsigned k = 0; k < 4; k++) {
      const bool bad = (k == 1 || k == 2) && parts[k] * 20 >= b.total_ns();
      line.put_right(8 + 2 * names + 10 * k, 0, parts[k] == 0 ? "–" : format_duration(parts[k]),
                     parts[k] == 0 ? Style::dim
                     : bad         ? Style::bad
                                   : Style::normal,
                     10);
    }
  }
  if (rows.size() > kMostBlame)
    page.add(fmt::format("and {} more pairs", format_count(rows.size() - kMostBlame)), Style::dim);
  page.add("");
}

void add_handoffs(Page& page, const Detail& d) {
  bool any = false;
  for (const GilSnapshot& g : d.process.gils) {
    if (g.handoff.count == 0) continue;
    any = true;
    const auto mean = [&](uint64_t sum) { return format_duration(sum / g.handoff.count); };
    const std::string which =
        d.process.gils.size() > 1 ? fmt::format(" of GIL 0x{:x}", g.address) : "";
    // Sampled, the moment of the release is not known.
    const std::string wakeup =
        d.process.exact ? fmt::format("wakeup {} + ", mean(g.handoff_wakeup_ns)) : "";
    Screen& line = page.add();
    const unsigned at = line.put(0, 0, "HAND-OFF", Style::bold);
    line.put(at, 0,
             fmt::format("{}   n {}  mean {} = {}run queue {} + lock {}  p99 {}", which,
                         format_count(g.handoff.count), mean(g.handoff.sum_ns), wakeup,
                         mean(g.handoff_runqueue_ns), mean(g.handoff_lock_ns),
                         format_duration(g.handoff.p99_ns)));
  }
  if (any) page.add("");
}

std::string when(const Detail& d, uint64_t ns) {
  const uint64_t ago_ns = d.frame.interval.last_ns - std::min(ns, d.frame.interval.last_ns);
  if (d.frame.clock_ms == 0) return format_duration(ago_ns) + " ago";
  constexpr uint64_t kDay_ms = 86'400'000;
  const uint64_t ms = (d.frame.clock_ms + kDay_ms - ago_ns / 1'000'000 % kDay_ms) % kDay_ms;
  return fmt::format("at {:02}:{:02}:{:02}.{:03}", ms / 3'600'000, ms / 60'000 % 60, ms / 1000 % 60,
                     ms % 1000);
}

void add_longest(Page& page, const Detail& d) {
  bool any = false;
  for (const WaitSnapshot& w : d.process.longest_waits) {
    if (!d.concerns(w.waiter, w.holder)) continue;
    if (!any) page.add("LONGEST WAITS", Style::bold);
    any = true;
    std::string parts;
    const auto part = [&](LedgerColumn column, const char* what) {
      const uint64_t ns = w.parts[static_cast<size_t>(column)];
      if (ns * 50 < w.end_ns - w.start_ns || ns == 0) return;
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", what, format_duration(ns));
    };
    part(LedgerColumn::blocked, "asleep");
    part(LedgerColumn::runnable, "preempted");
    part(LedgerColumn::running, "running");
    part(LedgerColumn::handoff, "hand-off");
    part(LedgerColumn::unknown, "unknown");
    Screen& line = page.add();
    line.put_right(0, 0, format_duration(w.end_ns - w.start_ns) + (w.ongoing ? "+" : ""),
                   w.ongoing ? Style::bold : Style::normal, 8);
    const std::string waiter = std::to_string(w.waiter_tid), holder = tid_text(w.holder_tid, false);
    const auto text = [&](const std::string& who, const std::string& behind) {
      return fmt::format("{}  {} behind {}{}", when(d, w.start_ns), who, behind,
                         parts.empty() ? "" : ": " + parts);
    };
    // Names where there is room: the table above has them.
    const std::string full =
        text(waiter + " " + name_of(d, w.waiter), holder + " " + name_of(d, w.holder));
    line.put(9, 0, columns_of(full) + 9 <= page.columns() ? full : text(waiter, holder));
  }
}

}  // namespace

TitledPage detail_page(const LiveFrame& frame, const LiveState& state, unsigned columns) {
  TitledPage out{"", "", Page(columns)};
  const auto& processes = frame.interval.processes;
  const auto process = std::find_if(processes.begin(), processes.end(), [&](const auto& p) {
    return p.number == state.detail.process;
  });
  if (process == processes.end()) {
    out.title = "It did nothing in this interval, or has ended.";
    return out;
  }
  const ProcessSnapshot& p = *process;
  const ThreadSnapshot* thread = nullptr;
  for (const ThreadSnapshot& t : p.threads)
    if (state.detail.kind == RowId::Kind::thread && t.number == state.detail.number) thread = &t;
  const bool thread_gone = !thread && state.detail.kind == RowId::Kind::thread;

  const std::string python =
      fmt::format("Python {}{}", p.python, p.free_threaded ? " free-threaded" : "");
  out.title = thread ? fmt::format("{} {} · of {} {} · {}", thread->tid, title_of(*thread), p.pid,
                                   title_of(p), python)
                     : fmt::format("{} {} · {}", p.pid, title_of(p), python);
  if (p.gils.size() == 1 && p.gils.front().address != 0)
    out.title += fmt::format(" · GIL 0x{:x}", p.gils.front().address);
  if (!p.exact) out.title += " · light";
  if (thread ? thread->ended : p.ended) out.title += " · ended";
  if (thread_gone) out.title += " · its thread has ended";
  out.right = fmt::format("{} ms a column", state.column_ns / 1'000'000);

  const Detail detail{frame, state, p, thread};
  const Finding finding = finding_of(frame.interval, p.number);
  out.page.add(finding.text, finding.style);
  add_timeline(out.page, detail);
  out.page.add("");
  add_figures(out.page, detail);
  if (gil_is_off(p)) return out;
  out.page.add("");
  add_histograms(out.page, detail);
  out.page.add("");
  add_blame(out.page, detail);
  add_handoffs(out.page, detail);
  add_longest(out.page, detail);
  return out;
}

}  // namespace giltop
