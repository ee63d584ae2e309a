#include "model/hist.h"

#include <algorithm>

namespace giltop {
namespace {

// The name by which a user knows the process: what was typed, without the folders.
std::string name_of(const ProcessSnapshot& p) {
  if (p.folded != 0) return p.comm + ": " + std::to_string(p.folded) + " ended processes";
  if (p.cmdline.empty()) return p.comm;
  const size_t space = std::min(p.cmdline.find(' '), p.cmdline.size());
  const size_t slash = p.cmdline.rfind('/', space);
  return slash == std::string::npos ? p.cmdline : p.cmdline.substr(slash + 1);
}

void take(HistSeries& series, const ProcessSnapshot& p, const ThreadSnapshot& t) {
  add_values(series.values, series.kind == HistKind::wait ? t.wait : t.hold);
  series.contended += t.contended;
  if (!p.exact) series.acquires.reset();
  if (series.acquires) *series.acquires += t.acquires;
}

void take(HistSeries& series, const ProcessSnapshot& p, const GilSnapshot& g) {
  add_values(series.values, g.handoff);
  series.contended += g.contended;
  if (!p.exact) series.acquires.reset();
  if (series.acquires) *series.acquires += g.acquires;
}

}  // namespace

const char* to_string(HistKind kind) {
  constexpr const char* kNames[] = {"wait", "hold", "handoff"};
  return kNames[static_cast<size_t>(kind)];
}

bool holds_unknown(const HistSeries& series) {
  return series.kind == HistKind::hold && !series.acquires && series.values.count == 0;
}

HistReport hist_of(const Snapshot& snapshot, HistGroup group, const std::vector<HistKind>& kinds) {
  HistReport report;
  report.duration_ns = snapshot.duration_ns();
  report.lost_events = snapshot.lost_events;
  report.events = snapshot.run.events;
  report.not_counted = snapshot.not_counted;
  report.mode = snapshot.run.mode;
  const auto keep = [&](HistSeries& series) {
    if (series.values.count == 0) return;
    set_quantiles(series.values);
    report.series.push_back(std::move(series));
  };
  for (const HistKind kind : kinds) {
    HistSeries all;
    all.kind = kind;
    all.all = true;
    if (report.mode != "light") all.acquires = 0;  // whoever there was
    const bool one = snapshot.processes.size() == 1;
    if (one && snapshot.processes[0].folded == 0) all.pid = snapshot.processes[0].pid;
    all.name =
        one ? name_of(snapshot.processes[0])
            : (snapshot.processes.empty() ? "no" : std::to_string(snapshot.processes.size())) +
                  " Pythons";
    for (const ProcessSnapshot& p : snapshot.processes) {
      HistSeries process;
      process.kind = kind;
      process.acquires = 0;
      if (p.folded == 0) {
        process.pid = p.pid;
        process.process = p.number;
      }
      process.name = name_of(p);
      HistSeries& sum = group == HistGroup::all ? all : process;
      if (kind == HistKind::handoff) {
        for (const GilSnapshot& g : p.gils) take(sum, p, g);
      } else if (group != HistGroup::thread) {
        for (const ThreadSnapshot& t : p.threads) take(sum, p, t);
      } else {
        for (const ThreadSnapshot& t : p.threads) {
          HistSeries thread;
          thread.kind = kind;
          thread.acquires = 0;
          thread.pid = process.pid;
          thread.process = process.process;
          if (t.folded == 0) thread.tid = t.tid;
          thread.name = t.folded == 0
                            ? t.comm
                            : std::to_string(t.folded) + " ended threads of " + process.name;
          take(thread, p, t);
          keep(thread);
        }
        continue;
      }
      if (group == HistGroup::process || group == HistGroup::thread) keep(process);
    }
    if (group == HistGroup::all) {
      set_quantiles(all.values);
      report.series.push_back(std::move(all));
    }
  }
  return report;
}

bool same_series(const HistSeries& a, const HistSeries& b) {
  if (a.all || b.all) return a.kind == b.kind && a.all == b.all;
  return a.kind == b.kind && a.pid == b.pid && a.tid == b.tid && (a.pid || a.name == b.name);
}

void add(HistReport& sum, const HistReport& part) {
  sum.duration_ns += part.duration_ns;
  sum.lost_events += part.lost_events;
  sum.events += part.events;
  sum.not_counted += part.not_counted;
  sum.mode = part.mode;
  for (const HistSeries& series : part.series) {
    const auto found = std::find_if(sum.series.begin(), sum.series.end(), [&](const auto& each) {
      return each.process == series.process && same_series(each, series);
    });
    if (found == sum.series.end()) {
      sum.series.push_back(series);
      continue;
    }
    if (found->name != series.name) {
      found->name = series.all ? "all Pythons" : series.name;
      if (series.all) found->pid.reset();
    }
    add_values(found->values, series.values);
    set_quantiles(found->values);
    found->contended += series.contended;
    if (!series.acquires) found->acquires.reset();
    if (found->acquires) *found->acquires += *series.acquires;
  }
}

}  // namespace giltop
