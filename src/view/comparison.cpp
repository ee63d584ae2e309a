#include "view/comparison.h"

#include <fmt/format.h>

#include "base/format.h"
#include "model/verdict.h"
#include "view/format.h"

namespace giltop {
namespace {

// The process with the most CPU time, and its thread that used the GIL most: the workload's face.
const ProcessSnapshot* busiest(const Snapshot& s) {
  const ProcessSnapshot* found = nullptr;
  for (const ProcessSnapshot& p : s.processes)
    if (!found || cpu_ns(p) > cpu_ns(*found)) found = &p;
  return found;
}

std::string range(const std::vector<double>& values) {
  if (values.empty()) return "–";
  double low = values[0], high = values[0];
  for (const double v : values) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  const std::string a = fmt::format("{:.0f}", low), b = fmt::format("{:.0f}", high);
  return a == b ? a + "%" : a + "–" + b + "%";
}

}  // namespace

std::string comparison(const std::vector<ComparedRun>& runs) {
  std::string out = pad_right("WORKLOAD", 26) + pad_left("TIME", 7) + pad_left("CPUs", 6) +
                    pad_left("HELD", 7) + pad_left("WAITING", 10) + pad_left("WAIT p50", 10) +
                    pad_left("FORCED", 8) + pad_left("VOLUNT.", 9) + "  STATES\n";
  std::string bars;
  for (const ComparedRun& run : runs) {
    const ProcessSnapshot* p = busiest(run.snapshot);
    if (!p) {
      out += pad_right(run.title, 26) + "  no Python seen\n";
      continue;
    }
    const uint64_t span = span_ns(*p);
    uint64_t held = 0, forced = 0, voluntary = 0;
    for (const GilSnapshot& g : p->gils) {
      held +=
          g.of(LedgerColumn::running) + g.of(LedgerColumn::runnable) + g.of(LedgerColumn::blocked);
      forced += g.forced_releases;
      voluntary += g.voluntary_releases;
    }
    // The workers: every thread but the one that only starts and joins them.
    std::vector<double> waiting;
    const ThreadSnapshot* slowest = nullptr;
    std::vector<std::string> worker_bars;
    for (const ThreadSnapshot& t : p->threads) {
      if (p->threads.size() > 1 && t.tid == p->pid) continue;
      if (t.folded != 0) continue;
      waiting.push_back(t.life_ns() == 0 ? 0
                                         : 100.0 * static_cast<double>(t.in(GilState::waiting)) /
                                               static_cast<double>(t.life_ns()));
      if (!slowest || t.wait.count > slowest->wait.count) slowest = &t;
      worker_bars.push_back(state_bar(t));
    }
    out +=
        pad_right(run.title, 26) + pad_left(format_seconds(span), 7) +
        pad_left(fmt::format("{:.2f}", static_cast<double>(cpu_ns(*p)) /
                                           static_cast<double>(std::max<uint64_t>(span, 1))),
                 6) +
        pad_left(format_percent(held, span, 0) + "%", 7) + pad_left(range(waiting), 10) +
        pad_left(slowest && slowest->wait.count ? format_duration(slowest->wait.p50_ns) : "–", 10) +
        pad_left(format_count(forced), 8) + pad_left(format_count(voluntary), 9);
    for (size_t i = 0; i < worker_bars.size(); i++) {
      out += (i == 0 ? "  " : std::string(85, ' ')) + worker_bars[i] + "\n";
      bars += worker_bars[i];
    }
    if (worker_bars.empty()) out += "\n";
    out += "  " + run.description + " " + verdict_of(*p, run.snapshot).sentence + "\n";
    if (run.snapshot.lost_events != 0)
      out += fmt::format("  {} events were LOST\n", format_count(run.snapshot.lost_events));
  }
  return out + "\n" + bar_legend(bars) + "\n";
}

}  // namespace giltop
