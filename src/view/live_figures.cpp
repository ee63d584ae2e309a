#include "view/live_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/format.h"
#include "view/format.h"

namespace giltop {
namespace {

constexpr std::array<StateGlyph, kBarStates> kGlyphs = {
    {{"█", "H", Style::held_running, "holding the GIL, on CPU"},
     {"▚", "p", Style::held_off_cpu, "holding it, preempted: all others stand still"},
     {"▓", "h", Style::held_off_cpu, "holding it, asleep: all others stand still"},
     {"░", "W", Style::waiting, "waiting for the GIL"},
     {"▒", "N", Style::native, "running native code without the GIL"},
     {"-", "R", Style::runnable, "wants a CPU, not the GIL"},
     {"·", "S", Style::asleep, "asleep without the GIL"},
     {"?", "?", Style::dim, "unknown"}}};

double percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

// Light mode decides some of what was held only in the next interval: there no more is shown than
// so many GILs can be held.
double held_percent(uint64_t held_ns, const ProcessSnapshot& p, size_t gils, uint64_t span_ns) {
  const double held = percent(held_ns, span_ns);
  return p.exact || p.folded != 0 ? held : std::min(held, 100.0 * static_cast<double>(gils));
}

size_t gils_of(const ProcessSnapshot& p) { return std::max<size_t>(p.gils.size(), 1); }

double per_second(uint64_t count, uint64_t ns) {
  return ns == 0 ? 0 : static_cast<double>(count) * 1e9 / static_cast<double>(ns);
}

uint64_t since(uint64_t begin_ns, uint64_t now_ns) {
  return begin_ns == 0 || begin_ns > now_ns ? 0 : now_ns - begin_ns;
}

void add(StateTimes& times, const ThreadSnapshot& t) {
  for (size_t g = 0; g < 4; g++)
    for (size_t c = 0; c < 4; c++)
      times[static_cast<size_t>(bar_state(static_cast<GilState>(g), static_cast<CpuState>(c)))] +=
          t.matrix[g][c];
}

void add(BlameSnapshot& to, const BlameSnapshot& from) {
  to.running_ns += from.running_ns;
  to.runnable_ns += from.runnable_ns;
  to.blocked_ns += from.blocked_ns;
  to.handoff_ns += from.handoff_ns;
  to.unknown_ns += from.unknown_ns;
}

// Behind whom most of the waits were.
std::optional<Blocker> blocker_of(const std::vector<const GilSnapshot*>& gils) {
  // By the thread's number: another may have had its tid before.
  std::map<uint64_t, Blocker> behind;
  Blocker nobody;
  for (const GilSnapshot* g : gils) {
    for (const BlameSnapshot& b : g->blame) {
      Blocker& holder = b.holder_tid ? behind[b.holder] : nobody;
      holder.tid = b.holder_tid;
      add(holder.parts, b);
    }
  }
  std::optional<Blocker> worst;
  const uint64_t nobodys_ns = nobody.parts.total_ns();
  uint64_t all_ns = nobodys_ns;
  for (const auto& [number, holder] : behind) {
    all_ns += holder.parts.total_ns();
    if (holder.parts.total_ns() > (worst ? worst->parts.total_ns() : 0)) worst = holder;
  }
  // Somebody, unless most of the waiting was behind nobody known.
  if (nobodys_ns != 0 && nobodys_ns * 2 >= all_ns) worst = nobody;
  // A wait that has only begun.
  for (const GilSnapshot* g : gils)
    if (!worst && g->waiters != 0 && g->holder_tid) worst = Blocker{g->holder_tid, {}};
  return worst;
}

// The interpreter's arguments without the options that say nothing of what is run.
std::string without_options(const std::string& words) {
  size_t at = 0;
  while (at < words.size() && words[at] == '-') {
    size_t end = std::min(words.find(' ', at), words.size());
    const std::string word = words.substr(at, end - at);
    const bool has_value = word.starts_with("-X") || word.starts_with("-W");
    if (!has_value && (word.size() < 2 || word.find_first_not_of("bBdEIOPqRsSuvx", 1) != word.npos))
      break;
    if (has_value && word.size() == 2 && end < words.size())
      end = std::min(words.find(' ', end + 1), words.size());
    at = std::min(end + 1, words.size());
  }
  return at == words.size() ? words : words.substr(at);
}

std::optional<Hold> hold_of(const ThreadSnapshot& t, const ProcessSnapshot& p, uint64_t now_ns) {
  if (t.gil_state != GilState::holding || t.ended || t.folded != 0) return std::nullopt;
  const uint64_t length = since(t.state_since_ns, now_ns);
  if (length < kLong_ns) return std::nullopt;
  Hold hold{t.tid, length, t.cpu_state, 0, !t.state_since_exact};
  for (const GilSnapshot& g : p.gils)
    if (g.number == t.gil) hold.waiters = g.waiters;
  return hold;
}

}  // namespace

const StateGlyph& glyph_of(BarState state) { return kGlyphs[static_cast<size_t>(state)]; }

BarState bar_state(GilState gil, CpuState cpu) {
  if (gil == GilState::waiting) return BarState::waiting;
  if (gil == GilState::unknown || cpu == CpuState::unknown) return BarState::unknown;
  const bool holding = gil == GilState::holding;
  if (cpu == CpuState::running) return holding ? BarState::held_running : BarState::native;
  if (cpu == CpuState::runnable) return holding ? BarState::held_preempted : BarState::runnable;
  return holding ? BarState::held_asleep : BarState::asleep;
}

std::vector<Cell> bar_of(const StateTimes& times, size_t columns, bool letters) {
  const std::vector<size_t> shares = apportion({times.begin(), times.end()}, columns);
  std::vector<Cell> cells;
  for (size_t i = 0; i < shares.size(); i++)
    cells.insert(cells.end(), shares[i],
                 Cell{letters ? kGlyphs[i].letter : kGlyphs[i].block, 1, kGlyphs[i].style});
  return cells;
}

std::string Blocker::what() const {
  if (parts.total_ns() == 0) return "";
  const std::pair<uint64_t, const char*> kinds[] = {{parts.running_ns, "running"},
                                                    {parts.runnable_ns, "preempted"},
                                                    {parts.blocked_ns, "asleep"},
                                                    {parts.handoff_ns, "hand-off"},
                                                    {parts.unknown_ns, ""}};
  return std::max_element(std::begin(kinds), std::end(kinds),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

bool Blocker::off_cpu() const {
  const std::string most = what();
  return most == "preempted" || most == "asleep";
}

std::string Hold::length() const {
  const double s = static_cast<double>(length_ns) / 1e9;
  return fmt::format("{:.{}f}s", s, s < 99.95 ? 1 : 0);
}

std::string Hold::text() const {
  const char* const doing = cpu == CpuState::blocked    ? " asleep"
                            : cpu == CpuState::runnable ? " preempted"
                            : cpu == CpuState::running  ? " running"
                                                        : "";
  return length() + doing;
}

std::unordered_map<uint64_t, Blocker> blockers_of(const ProcessSnapshot& p) {
  std::unordered_map<uint64_t, Blocker> worst;
  for (const GilSnapshot& g : p.gils) {
    for (const BlameSnapshot& b : g.blame) {
      if (!b.waiter_tid || b.total_ns() == 0) continue;
      Blocker& behind = worst[b.waiter];
      if (b.total_ns() > behind.parts.total_ns()) behind = {b.holder_tid, b};
    }
  }
  return worst;
}

bool worse(const Hold& a, const Hold& b) {
  const auto rank = [](const Hold& h) {
    return std::tuple(h.waiters > 0, h.off_cpu(), h.length_ns);
  };
  return rank(a) > rank(b);
}

std::optional<Hold> hold_of(const ProcessSnapshot& p, const Snapshot& interval) {
  std::optional<Hold> worst;
  for (const ThreadSnapshot& t : p.threads)
    if (const auto hold = hold_of(t, p, interval.last_ns); hold && (!worst || worse(*hold, *worst)))
      worst = hold;
  return worst;
}

Figures figures_of(const ThreadSnapshot& t, const ProcessSnapshot& p, const Snapshot& interval) {
  const uint64_t span = interval.duration_ns();
  Figures f;
  f.cpu = percent(t.in(CpuState::running), span);
  f.held = held_percent(t.in(GilState::holding), p, t.folded != 0 ? gils_of(p) : 1, span);
  f.off_cpu = percent(
      t.in(GilState::holding, CpuState::runnable) + t.in(GilState::holding, CpuState::blocked),
      span);
  f.off_cpu = std::min(f.off_cpu, f.held);
  f.wait = percent(t.in(GilState::waiting), span);
  f.acquires_per_s = per_second(t.acquires, span);
  f.wait_p99_ns = t.wait.p99_ns;
  f.longest_ns = t.wait.max_ns;
  const bool waits = t.gil_state == GilState::waiting && !t.ended;
  if (const uint64_t now = waits ? since(t.state_since_ns, interval.last_ns) : 0;
      now > f.longest_ns) {
    f.longest_ns = now;
    f.longest_lasts = true;
  }
  f.hold = hold_of(t, p, interval.last_ns);
  add(f.states, t);
  f.idle = t.acquires == 0 && t.in(CpuState::running) == 0 && t.in(GilState::holding) == 0 &&
           t.in(GilState::waiting) == 0;
  return f;
}

Figures figures_of(const GilSnapshot& g, const ProcessSnapshot& p, const Snapshot& interval) {
  const uint64_t span = interval.duration_ns();
  Figures f;
  const uint64_t running = g.of(LedgerColumn::running), runnable = g.of(LedgerColumn::runnable),
                 blocked = g.of(LedgerColumn::blocked);
  f.held = held_percent(running + runnable + blocked, p, 1, span);
  f.off_cpu = std::min(percent(runnable + blocked, span), f.held);
  uint64_t waited = 0;
  for (const BlameSnapshot& b : g.blame) waited += b.total_ns();
  f.wait = percent(waited, span);
  f.waiters = g.waiters;
  f.most_waiters = std::max(g.max_waiters, g.waiters);
  f.acquires_per_s = per_second(g.acquires, span);
  f.blocker = blocker_of({&g});
  for (const ThreadSnapshot& t : p.threads) {
    if (t.gil != g.number) continue;
    if (const auto hold = hold_of(t, p, interval.last_ns)) f.hold = hold;
    if (t.gil_state != GilState::waiting || t.ended) continue;
    if (const uint64_t now = since(t.state_since_ns, interval.last_ns); now > f.longest_ns) {
      f.longest_ns = now;
      f.longest_lasts = true;
    }
  }
  f.states[static_cast<size_t>(BarState::held_running)] = running;
  f.states[static_cast<size_t>(BarState::held_preempted)] = runnable;
  f.states[static_cast<size_t>(BarState::held_asleep)] = blocked;
  f.states[static_cast<size_t>(BarState::waiting)] = g.of(LedgerColumn::handoff);
  f.states[static_cast<size_t>(BarState::asleep)] =
      g.of(LedgerColumn::idle) + g.of(LedgerColumn::off);
  f.states[static_cast<size_t>(BarState::unknown)] = g.of(LedgerColumn::unknown);
  f.idle = running + runnable + blocked == 0 && waited == 0 && g.acquires == 0;
  return f;
}

Figures figures_of(const ProcessSnapshot& p, const Snapshot& interval) {
  Figures f;
  uint64_t held_ns = 0;
  std::vector<const HistogramSnapshot*> waits;
  for (const ThreadSnapshot& t : p.threads) {
    const Figures one = figures_of(t, p, interval);
    f.cpu += one.cpu;
    held_ns += t.in(GilState::holding);
    f.off_cpu += one.off_cpu;
    f.wait += one.wait;
    if (one.longest_ns > f.longest_ns) {
      f.longest_ns = one.longest_ns;
      f.longest_lasts = one.longest_lasts;
    }
    f.idle = f.idle && one.idle;
    for (size_t i = 0; i < kBarStates; i++) f.states[i] += one.states[i];
    if (t.wait.count != 0) waits.push_back(&t.wait);
  }
  f.held = held_percent(held_ns, p, gils_of(p), interval.duration_ns());
  f.wait_p99_ns = sum_of(waits).p99_ns;
  std::vector<const GilSnapshot*> gils;
  for (const GilSnapshot& g : p.gils) {
    gils.push_back(&g);
    f.waiters += g.waiters;
    f.most_waiters = std::max({f.most_waiters, g.max_waiters, g.waiters});
    f.acquires_per_s += per_second(g.acquires, interval.duration_ns());
  }
  f.most_waiters = std::max(f.most_waiters, f.waiters);
  f.blocker = blocker_of(gils);
  f.hold = hold_of(p, interval);
  // Threads that sleep all day would leave no room for what the others did: sleep only fills up
  // what they leave of the interval.
  uint64_t busy = 0;
  for (const uint64_t ns : f.states) busy += ns;
  uint64_t& asleep = f.states[static_cast<size_t>(BarState::asleep)];
  busy -= asleep;
  asleep = std::min(asleep, interval.duration_ns() - std::min(busy, interval.duration_ns()));
  return f;
}

std::string title_of(const ProcessSnapshot& p) {
  if (p.folded != 0) return fmt::format("{} ({} ended)", p.comm, format_count(p.folded));
  std::string line = p.cmdline;
  const auto base = [](const std::string& path) {
    const size_t end = path.find(' ');
    const size_t slash = path.rfind('/', end == std::string::npos ? end : end - (end != 0));
    return slash == std::string::npos ? path : path.substr(slash + 1);
  };
  line = base(line);
  // "python3.11 app.py --port 80" is app.py, to all who look for it.
  if (line.starts_with("python")) {
    const size_t end = line.find(' ');
    if (end != std::string::npos && end + 1 < line.size())
      line = base(without_options(line.substr(end + 1)));
  }
  // Programs given by -c have lines.
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line.empty() ? p.comm : line;
}

std::string title_of(const ThreadSnapshot& t) {
  return t.folded != 0 ? fmt::format("{} ended threads", format_count(t.folded)) : t.comm;
}

}  // namespace giltop
