#include "view/text_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "model/verdict.h"
#include "view/format.h"

namespace giltop {
namespace {

constexpr size_t kMaxThreads = 16;      // rows of a process; the rest is summed up
constexpr uint64_t kBrief = 50;         // a thread is brief below this part of its process's life
constexpr size_t kMaxBrief = 4;         // more of them are one row
constexpr size_t kFullProcesses = 2;    // of many, shown in full: the worst
constexpr double kMuchOverhead = 0.05;  // of the processes' CPU time
constexpr size_t kMaxProcesses = 12;    // shown at all
constexpr size_t kMaxBlame = 4;

std::string duration_or_dash(const HistogramSnapshot& h, uint64_t ns) {
  return h.count == 0 ? "–" : format_duration(ns);
}

struct Columns {
  bool unknown = false;  // has one of its own
  bool no_gil = false;   // there is none to hold or wait for: no figures of it
  bool sampled = false;  // who held it was sampled
};

std::string thread_row(const std::string& name, const ThreadSnapshot& t, Columns columns) {
  const uint64_t life = t.life_ns();
  const auto percent = [&](GilState g) {
    const bool sampled = columns.sampled && g != GilState::waiting && g != GilState::unknown;
    return columns.no_gil ? std::string("–")
                          : fmt::format("{}{}%", sampled ? "~" : "", format_percent(t.in(g), life));
  };
  std::string row = "  " + pad_right(name, 22);
  row += pad_left(life < 100'000'000 ? format_duration(life) : format_seconds(life), 8) +
         pad_left(percent(GilState::holding), 10) + pad_left(percent(GilState::waiting), 9) +
         pad_left(percent(GilState::released), 10);
  if (columns.unknown) row += pad_left(percent(GilState::unknown), 9);
  row += pad_left(duration_or_dash(t.wait, t.wait.p50_ns), 11) +
         pad_left(duration_or_dash(t.wait, t.wait.p99_ns), 8) +
         pad_left(duration_or_dash(t.wait, t.wait.max_ns), 8) +
         pad_left(duration_or_dash(t.hold, t.hold.max_ns), 10);
  return row + "  " + state_bar(t) + "\n";
}

std::string name_of(const ThreadSnapshot& t) {
  if (t.folded != 0) return fmt::format("{} ended threads", format_count(t.folded));
  return fmt::format("{} {}", t.tid, printable(t.comm));
}

// Short-lived threads as one: their lives and cells summed up, the longest of their waits and
// holds.
ThreadSnapshot sum_of(const std::vector<const ThreadSnapshot*>& threads) {
  ThreadSnapshot sum;
  for (const ThreadSnapshot* t : threads) {
    sum.last_ns += t->life_ns();
    for (size_t g = 0; g < sum.matrix.size(); g++)
      for (size_t c = 0; c < sum.matrix[g].size(); c++) sum.matrix[g][c] += t->matrix[g][c];
    sum.hold.count += t->hold.count;
    sum.hold.max_ns = std::max(sum.hold.max_ns, t->hold.max_ns);
  }
  return sum;
}

void gil_lines(std::string& out, const GilSnapshot& g, bool one_of_many, bool sampled) {
  const uint64_t life = g.life_ns();
  const auto percent = [&](LedgerColumn c) { return format_percent(g.of(c), life); };
  const uint64_t held =
      g.of(LedgerColumn::running) + g.of(LedgerColumn::runnable) + g.of(LedgerColumn::blocked);
  const std::string interpreter =
      one_of_many && g.interpreter ? fmt::format("interpreter {} · ", *g.interpreter) : "";
  const std::string name = g.folded == 0 ? fmt::format("GIL 0x{:x}", g.address)
                                         : fmt::format("{} GILs", format_count(g.folded));
  out += "  " + pad_right(name, 20) + interpreter +
         fmt::format("held {}{} %: running {}, preempted {}, asleep {} · hand-off {} % · idle {} %",
                     sampled ? "~" : "", format_percent(held, life), percent(LedgerColumn::running),
                     percent(LedgerColumn::runnable), percent(LedgerColumn::blocked),
                     percent(LedgerColumn::handoff), percent(LedgerColumn::idle));
  if (g.of(LedgerColumn::off) != 0) out += fmt::format(" · off {} %", percent(LedgerColumn::off));
  if (g.of(LedgerColumn::unknown) * 1000 >= life && life != 0)
    out += fmt::format(" · unknown {} %", percent(LedgerColumn::unknown));
  out += "\n";

  std::vector<BlameSnapshot> blame = g.blame;
  std::stable_sort(blame.begin(), blame.end(),
                   [](const auto& a, const auto& b) { return a.total_ns() > b.total_ns(); });
  std::string waits;
  for (size_t i = 0; i < blame.size() && i < kMaxBlame; i++) {
    const BlameSnapshot& b = blame[i];
    if (b.total_ns() * 1000 < life && i != 0) break;
    std::string parts;
    const auto part = [&](uint64_t ns, const char* what) {
      if (ns * 50 < b.total_ns() || ns == 0) return;
      parts += fmt::format("{}{} {}", parts.empty() ? "" : " + ", format_duration(ns), what);
    };
    part(b.running_ns, "running");
    part(b.runnable_ns, "preempted");
    part(b.blocked_ns, "asleep");
    part(b.handoff_ns, "hand-off");
    part(b.unknown_ns, "unknown");
    waits += fmt::format("{}{} behind {}: {}", waits.empty() ? "" : " · ",
                         b.waiter_tid ? std::to_string(*b.waiter_tid) : "other threads",
                         b.holder_tid ? std::to_string(*b.holder_tid)
                                      : (b.holder_folded ? "other threads" : "nobody known"),
                         parts);
  }
  if (!waits.empty()) out += "  " + pad_right("waits", 20) + waits + "\n";

  out += "  " + pad_right("hand-off", 20);
  if (g.handoff.count != 0) {
    const auto mean = [&](uint64_t sum) { return format_duration(sum / g.handoff.count); };
    const std::string wakeup =
        sampled ? std::string() : fmt::format("wakeup {} + ", mean(g.handoff_wakeup_ns));
    out += fmt::format("{}, mean {} = {}run queue {} + lock {} · ", format_count(g.handoff.count),
                       mean(g.handoff.sum_ns), wakeup, mean(g.handoff_runqueue_ns),
                       mean(g.handoff_lock_ns));
  }
  if (sampled) {
    out += fmt::format("{} contended acquires; what is marked ~ was sampled\n",
                       format_count(g.contended));
    return;
  }
  out += fmt::format("{} acquires ({} contended) · releases {} forced, {} voluntary\n",
                     format_count(g.acquires), format_count(g.contended),
                     format_count(g.forced_releases), format_count(g.voluntary_releases));
}

std::string process_part(const ProcessSnapshot& p, bool automatic) {
  const uint64_t span = span_ns(p);
  std::vector<const ThreadSnapshot*> threads, brief;
  Columns columns;
  columns.no_gil = gil_is_off(p);
  columns.sampled = !p.exact;
  bool& unknown = columns.unknown;
  const ThreadSnapshot* folded = nullptr;
  for (const ThreadSnapshot& t : p.threads) {
    if (t.folded != 0) {
      folded = &t;
    } else {
      (t.life_ns() < span / kBrief ? brief : threads).push_back(&t);
    }
    unknown = unknown || (!columns.no_gil && t.in(GilState::unknown)*1000 >= t.life_ns());
  }
  if (brief.size() <= kMaxBrief) {
    threads.insert(threads.end(), brief.begin(), brief.end());
    brief.clear();
  }
  const auto used = [](const ThreadSnapshot* t) {
    return t->in(GilState::holding) + t->in(GilState::waiting);
  };
  std::stable_sort(threads.begin(), threads.end(),
                   [&](const auto* a, const auto* b) { return used(a) > used(b); });
  std::string out = "  " + pad_right("THREAD", 22) + pad_left("LIFE", 8) + pad_left("HOLDING", 10) +
                    pad_left("WAITING", 9) + pad_left("RELEASED", 10) +
                    (unknown ? pad_left("UNKNOWN", 9) : "") + pad_left("WAIT p50", 11) +
                    pad_left("p99", 8) + pad_left("max", 8) + pad_left("HOLD max", 10) +
                    "  STATES\n";
  std::string bars;
  const size_t shown = threads.size() <= kMaxThreads + 2 ? threads.size() : kMaxThreads;
  for (size_t i = 0; i < shown; i++) {
    out += thread_row(name_of(*threads[i]), *threads[i], columns);
    bars += state_bar(*threads[i]);
  }
  if (shown < threads.size())
    out += fmt::format("  … and {} more threads\n", format_count(threads.size() - shown));
  if (!brief.empty()) {
    const ThreadSnapshot sum = sum_of(brief);
    out += thread_row(fmt::format("{} brief threads", format_count(brief.size())), sum, columns);
    bars += state_bar(sum);
  }
  if (folded) {
    out += thread_row(name_of(*folded), *folded, columns);
    bars += state_bar(*folded);
  }
  out += "  " + bar_legend(bars) + "\n";
  // All of its life: it began beside one in light mode.
  if (automatic && p.light_ns != 0 && p.light_ns + span / 100 < span)
    out += fmt::format("  in light mode for {} of {}: exact mode would have cost too much\n",
                       format_seconds(p.light_ns), format_seconds(span));
  if (!p.gils.empty()) out += "\n";
  std::vector<const GilSnapshot*> gils;
  for (const GilSnapshot& g : p.gils) gils.push_back(&g);
  for (const GilSnapshot* g : gils) gil_lines(out, *g, gils.size() > 1, !p.exact);
  return out;
}

std::string title(const ProcessSnapshot& p) {
  std::string line = printable(p.cmdline.empty() ? p.comm : p.cmdline);
  if (line.size() > 100) line = pad_right(line, 100);
  const std::string id = p.folded != 0   ? fmt::format("{} ended processes", format_count(p.folded))
                         : p.ns_pid == 0 ? std::to_string(p.pid)
                                         : fmt::format("{} ({} in its container)", p.pid, p.ns_pid);
  return fmt::format("{} · Python {}{} · {}", id, p.python, p.free_threaded ? " free-threaded" : "",
                     line);
}

std::string paragraph(const Verdict& verdict) {
  return verdict.sentence + "\n" + (verdict.advice.empty() ? "" : verdict.advice + "\n");
}

}  // namespace

std::string text_report(const Snapshot& s) {
  std::string out;
  if (s.processes.empty()) {
    out += "No CPython process was seen.\n";
  } else {
    const auto processes = verdicts_of(s);
    const size_t shown = processes.size() <= kMaxProcesses + 1 ? processes.size() : kMaxProcesses;
    for (size_t i = 0; i < shown; i++) {
      const auto& [p, verdict] = processes[i];
      if (i <= kFullProcesses && i != 0) out += "\n";
      if (processes.size() > 1) out += title(*p) + "\n";
      if (i >= kFullProcesses) {
        out += "    " + verdict.sentence + "\n";
        continue;
      }
      out += paragraph(verdict);
      for (Verdict other : verdict.also) {
        if (other.advice == verdict.advice) other.advice.clear();
        out += "Also: " + paragraph(other);
      }
      out += "\n";
      out += process_part(*p, s.run.mode == "auto");
    }
    if (shown < processes.size())
      out += fmt::format("… and {} more processes: --json has them all\n",
                         format_count(processes.size() - shown));
  }
  out += "\n";
  if (s.lost_events != 0) {
    std::string kinds;
    for (size_t i = 0; i < kRecordKinds.size(); i++)
      if (s.lost_by_kind[i] != 0)
        kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", format_count(s.lost_by_kind[i]),
                             kRecordKinds[i]);
    out += fmt::format(
        "{} events were LOST ({}): what they covered is unknown. A larger "
        "--buffer-size helps.\n",
        format_count(s.lost_events), kinds);
  }
  if (s.memory_disagreements != 0) {
    const bool one = s.memory_disagreements == 1;
    out += fmt::format("{} of a process's memory proved wrong: what rested on {} is unknown.\n",
                       one ? "A reading" : format_count(s.memory_disagreements) + " readings",
                       one ? "it" : "them");
  }
  if (s.violations != 0) {
    std::string whose;
    size_t more = 0;
    for (const ProcessSnapshot& p : s.processes) {
      if (p.violations == 0 || p.folded != 0) continue;
      if (more++ < 3) whose += fmt::format("{}{}", whose.empty() ? " of " : ", ", p.pid);
    }
    if (more > 3) whose += fmt::format(" and {} more", more - 3);
    out += fmt::format(
        "{} contradictions in the events{}: do not trust these figures, and please "
        "report it.\n",
        format_count(s.violations), whose);
  }
  const uint64_t taken_ns = s.run.probe_cost_ns, untraced_ns = s.untraced_cpu_ns();
  out += fmt::format("Overhead about {} % ({} probe hit{}{}); giltop itself used {} of CPU.\n",
                     format_percent(taken_ns, untraced_ns, taken_ns < untraced_ns / 10 ? 2 : 0),
                     format_count(s.run.probe_hits), s.run.probe_hits == 1 ? "" : "s",
                     s.run.other_probe_hits == 0 ? std::string()
                                                 : ", and " + format_count(s.run.other_probe_hits) +
                                                       " in other processes of the same Python",
                     format_seconds(s.run.own_cpu_ns));
  if (s.run.mode == "exact" && untraced_ns != 0 &&
      static_cast<double>(taken_ns) >= kMuchOverhead * static_cast<double>(untraced_ns))
    out +=
        "That is much: --mode auto keeps it low; holds are sampled then, and a wait begins some µs "
        "late.\n";
  return out;
}

}  // namespace giltop
