#include "sink/json.h"

#include <nlohmann/json.hpp>

#include "model/verdict.h"
#include "sink/hist_json.h"

namespace giltop {
namespace {

using Json = nlohmann::ordered_json;

double seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

std::string address(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// Names come from the target and need not be UTF-8; a byte that is not becomes U+FFFD when dumped.
Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

// An id in a container's PID namespace.
Json id_or_null(uint32_t id) { return id == 0 ? Json(nullptr) : Json(id); }

// Counts of what is seen in exact mode only.
Json counted(uint64_t count, bool exact) { return exact ? Json(count) : Json(nullptr); }

Json thread(const ThreadSnapshot& t, uint64_t start_ns, bool exact) {
  Json matrix = Json::object();
  for (const GilState g :
       {GilState::holding, GilState::waiting, GilState::released, GilState::unknown}) {
    matrix[to_string(g)] = {{"running_s", seconds(t.in(g, CpuState::running))},
                            {"runnable_s", seconds(t.in(g, CpuState::runnable))},
                            {"blocked_s", seconds(t.in(g, CpuState::blocked))},
                            {"unknown_s", seconds(t.in(g, CpuState::unknown))}};
  }
  return {{"tid", t.folded == 0 ? Json(t.tid) : Json(nullptr)},
          {"folded", t.folded},
          {"ns_tid", id_or_null(t.ns_tid)},
          {"comm", t.comm},
          {"name", nullptr},  // Python's own name for it: not read
          {"first_s", seconds(t.first_ns - start_ns)},
          {"last_s", seconds(t.last_ns - start_ns)},
          {"life_s", seconds(t.life_ns())},
          {"matrix", std::move(matrix)},
          {"stolen_s", seconds(t.stolen_ns)},
          {"acquires", counted(t.acquires, exact)},
          {"contended", t.contended},
          {"forced_releases", counted(t.forced_releases, exact)},
          {"voluntary_releases", counted(t.voluntary_releases, exact)},
          {"held_sleeps", t.held_sleeps},
          {"held_sleep_max_s", seconds(t.held_sleep_max_ns)},
          {"wait", histogram_json(t.wait)},
          {"hold", holds_json(t.hold, exact)}};
}

Json wait(const WaitSnapshot& w, uint64_t start_ns) {
  const auto part = [&](LedgerColumn column) {
    return seconds(w.parts[static_cast<size_t>(column)]);
  };
  // One that was under way when the interval began is of before its start.
  const double start = static_cast<double>(static_cast<int64_t>(w.start_ns - start_ns)) / 1e9;
  return {{"start_s", start},
          {"duration_s", seconds(w.total_ns())},
          {"ongoing", w.ongoing},
          {"waiter_tid", w.waiter_tid},
          {"holder_tid", w.holder_tid ? Json(*w.holder_tid) : Json(nullptr)},
          {"running_s", part(LedgerColumn::running)},
          {"runnable_s", part(LedgerColumn::runnable)},
          {"blocked_s", part(LedgerColumn::blocked)},
          {"handoff_s", part(LedgerColumn::handoff)},
          {"unknown_s",
           part(LedgerColumn::unknown) + part(LedgerColumn::idle) + part(LedgerColumn::off)}};
}

Json gil(const GilSnapshot& g, bool exact) {
  Json blame = Json::array();
  for (const BlameSnapshot& b : g.blame) {
    blame.push_back({{"waiter_tid", b.waiter_tid ? Json(*b.waiter_tid) : Json(nullptr)},
                     {"holder_tid", b.holder_tid ? Json(*b.holder_tid) : Json(nullptr)},
                     {"holder_folded", b.holder_folded},
                     {"running_s", seconds(b.running_ns)},
                     {"runnable_s", seconds(b.runnable_ns)},
                     {"blocked_s", seconds(b.blocked_ns)},
                     {"handoff_s", seconds(b.handoff_ns)},
                     {"unknown_s", seconds(b.unknown_ns)}});
  }
  Json handoff = histogram_json(g.handoff);
  handoff["wakeup_s"] = exact ? Json(seconds(g.handoff_wakeup_ns)) : Json(nullptr);
  handoff["runqueue_s"] = seconds(g.handoff_runqueue_ns);
  handoff["lock_s"] = seconds(g.handoff_lock_ns);
  return {{"address", g.folded == 0 ? Json(address(g.address)) : Json(nullptr)},
          {"folded", g.folded},
          {"life_s", seconds(g.life_ns())},
          {"interpreter", g.interpreter ? Json(*g.interpreter) : Json(nullptr)},
          {"ledger",
           {{"held_running_s", seconds(g.of(LedgerColumn::running))},
            {"held_runnable_s", seconds(g.of(LedgerColumn::runnable))},
            {"held_blocked_s", seconds(g.of(LedgerColumn::blocked))},
            {"handoff_s", seconds(g.of(LedgerColumn::handoff))},
            {"idle_s", seconds(g.of(LedgerColumn::idle))},
            {"off_s", seconds(g.of(LedgerColumn::off))},
            {"unknown_s", seconds(g.of(LedgerColumn::unknown))}}},
          {"acquires", counted(g.acquires, exact)},
          {"contended", g.contended},
          {"forced_releases", counted(g.forced_releases, exact)},
          {"voluntary_releases", counted(g.voluntary_releases, exact)},
          {"max_waiters", g.max_waiters},
          {"handoff", std::move(handoff)},
          {"blame", std::move(blame)}};
}

// The words are those of the text report.
Json finding(const Verdict& v) {
  return {{"finding", v.finding},
          {"text", v.sentence},
          {"advice", text_or_null(v.advice)},
          {"bound", v.bound == 0 ? Json(nullptr) : Json(v.bound)},
          {"lost_s", seconds(v.lost_ns)}};
}

Json verdict(const Verdict& v) {
  Json out = finding(v), also = Json::array();
  for (const Verdict& other : v.also) also.push_back(finding(other));
  out["also"] = std::move(also);
  return out;
}

}  // namespace

std::string to_json(const Snapshot& s, bool one_line) {
  Json processes = Json::array();
  for (const ProcessSnapshot& p : s.processes) {
    Json gils = Json::array(), threads = Json::array(), waits = Json::array();
    for (const WaitSnapshot& w : p.longest_waits) waits.push_back(wait(w, s.first_ns));
    for (const GilSnapshot& g : p.gils) gils.push_back(gil(g, p.exact));
    for (const ThreadSnapshot& t : p.threads) threads.push_back(thread(t, s.first_ns, p.exact));
    processes.push_back({{"pid", p.folded == 0 ? Json(p.pid) : Json(nullptr)},
                         {"folded", p.folded},
                         {"ns_pid", id_or_null(p.ns_pid)},
                         {"comm", p.comm},
                         {"cmdline", p.cmdline},
                         {"python", text_or_null(p.python)},
                         {"build_id", text_or_null(p.build_id)},
                         {"free_threaded", p.free_threaded},
                         {"violations", p.violations},
                         {"gil_enabled", p.gil_enabled ? Json(*p.gil_enabled) : Json(nullptr)},
                         {"complete", p.complete},
                         {"exact", p.exact},
                         {"light_s", seconds(p.light_ns)},
                         {"verdict", verdict(verdict_of(p, s))},
                         {"gils", std::move(gils)},
                         {"threads", std::move(threads)},
                         {"longest_waits", std::move(waits)}});
  }
  Json lost = Json::object();
  for (size_t i = 0; i < kRecordKinds.size(); i++)
    if (s.lost_by_kind[i] != 0) lost[std::string(kRecordKinds[i])] = s.lost_by_kind[i];
  const uint64_t untraced_ns = s.untraced_cpu_ns();
  const Json share =
      untraced_ns == 0
          ? Json(nullptr)
          : Json(static_cast<double>(s.run.probe_cost_ns) / static_cast<double>(untraced_ns));
  const Json document = {{"schema", "giltop.report/1"},
                         {"giltop", s.run.version},
                         {"kernel", s.run.kernel},
                         {"mode", s.run.mode},
                         {"start_boottime_s", seconds(s.first_ns)},
                         {"duration_s", seconds(s.duration_ns())},
                         {"events", s.run.events},
                         {"lost_events", s.lost_events},
                         {"lost_by_kind", std::move(lost)},
                         {"violations", s.violations},
                         {"inferred_switches", s.inferred_switches},
                         {"inferred_s", seconds(s.inferred_ns)},
                         {"memory_disagreements", s.memory_disagreements},
                         {"overhead",
                          {{"probe_hits", s.run.probe_hits},
                           {"other_probe_hits", s.run.other_probe_hits},
                           {"estimated_s", seconds(s.run.probe_cost_ns)},
                           {"estimated_share", share},
                           {"giltop_cpu_s", seconds(s.run.own_cpu_ns)}}},
                         {"processes", std::move(processes)}};
  return document.dump(one_line ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace giltop
