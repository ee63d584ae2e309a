#include "view/batch.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "view/format.h"
#include "view/live_parts.h"
#include "view/live_rows.h"

namespace giltop {
namespace {

std::string id_or_dash(uint32_t id) { return id == 0 ? "-" : std::to_string(id); }

std::string python_of(const ProcessSnapshot& p) {
  const std::string version = p.python.substr(0, p.python.find('.', p.python.find('.') + 1));
  return version.empty() ? "-" : version + (p.free_threaded ? "t" : "");
}

std::string line_of(const LiveRow& row, const std::string& time) {
  const ProcessSnapshot& p = *row.process;
  const Figures& f = row.figures;
  const bool no_gil = p.gil_enabled == false;
  const auto percent = [&](double figure, bool sampled) {
    return no_gil ? "-" : fmt::format("{}{:.1f}", sampled && !p.exact ? "~" : "", figure);
  };
  const auto duration = [](uint64_t ns) {
    return ns == 0 ? std::string("-") : format_duration(ns);
  };
  const uint32_t tid = row.thread ? row.thread->tid : 0;
  const uint32_t blocker = f.blocker ? f.blocker->tid.value_or(0) : 0;
  return time + pad_left(id_or_dash(p.pid), 8) + pad_left(id_or_dash(tid), 8) +
         pad_left(row.thread ? "-" : python_of(p), 7) + pad_left(fmt::format("{:.1f}", f.cpu), 7) +
         pad_left(percent(f.held, true), 7) + pad_left(percent(f.off_cpu, true), 8) +
         pad_left(percent(f.wait, false), 7) +
         pad_left(row.thread ? "-" : std::to_string(f.most_waiters), 5) +
         pad_left(p.exact && !no_gil ? fmt::format("{:.0f}", f.acquires_per_s) : "-", 9) +
         pad_left(duration(f.wait_p99_ns), 9) + pad_left(duration(f.longest_ns), 9) +
         pad_left(id_or_dash(blocker), 9) + "  " +
         printable(row.thread ? title_of(*row.thread) : title_of(p)) + "\n";
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
  return fmt::format("giltop - {}, {}, {}, {}, mode {}, overhead {}, {} lost\n", frame.clock,
                     count(processes, "Python"), count(threads, "thread"), count(gils, "GIL"), mode,
                     overhead_text(s), frame.lost_events);
}

}  // namespace

std::string batch_text(const LiveFrame& frame, const BatchOptions& options) {
  // A state of its own each time: rows are in the order of this frame's figures.
  LiveState state;
  state.sort = options.sort;
  state.idle = options.idle;
  state.threads = options.threads;
  const std::string time = options.timestamp ? pad_right(frame.clock, 8) + " " : std::string();
  std::string out = about(frame);
  out += (options.timestamp ? "TIME     " : "") + pad_left("PID", 8) + pad_left("TID", 8) +
         pad_left("PY", 7) + pad_left("CPU%", 7) + pad_left("HELD%", 7) + pad_left("OFFCPU%", 8) +
         pad_left("WAIT%", 7) + pad_left("WQ", 5) + pad_left("ACQ/s", 9) + pad_left("WAITp99", 9) +
         pad_left("LONGEST", 9) + pad_left("BLOCKER", 9) + "  NAME\n";
  for (const LiveRow& row : live_rows(frame, state)) {
    if (row.gil) continue;
    out += line_of(row, time);
    // The only thread of a process is no row of the tree.
    if (!options.threads || row.thread || row.foldable) continue;
    for (const ThreadSnapshot& t : row.process->threads) {
      LiveRow only = row;
      only.thread = &t;
      only.figures = figures_of(t, *row.process, frame.interval);
      if (options.idle || !only.figures.idle) out += line_of(only, time);
    }
  }
  return out + "\n";
}

}  // namespace giltop
