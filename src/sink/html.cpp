#include "sink/html.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "model/verdict.h"
#include "page.embed.h"
#include "sink/hist_json.h"
#include "sink/json.h"
#include "sink/page_spans.h"

namespace giltop {
namespace {

using Json = nlohmann::ordered_json;

// Marks in the page. What has been read is shown before the spans come, which may be megabytes.
constexpr std::string_view kReportPlace = "<!--giltop-data-->";
constexpr std::string_view kSpansPlace = "<!--giltop-spans-->";
constexpr size_t kMostBlame = 256;  // rows of a GIL: a page shows the worst of them

double blame_s(const Json& row) {
  double sum = 0;
  for (const char* part : {"running_s", "runnable_s", "blocked_s", "handoff_s", "unknown_s"})
    sum += row.at(part).get<double>();
  return sum;
}

void shorten_blame(Json& gil) {
  Json& blame = gil["blame"];
  std::stable_sort(blame.begin(), blame.end(),
                   [](const Json& a, const Json& b) { return blame_s(a) > blame_s(b); });
  const size_t kept = std::min(blame.size(), kMostBlame);
  double left_out_s = 0;
  for (size_t i = kept; i < blame.size(); i++) left_out_s += blame_s(blame[i]);
  const size_t left_out = blame.size() - kept;
  blame.erase(blame.begin() + static_cast<std::ptrdiff_t>(kept), blame.end());
  gil["blame_left_out"] = {{"rows", left_out}, {"sum_s", left_out_s}};  // `blame` is moved by it
}

// What `report --json` says; but for buckets, which are a process's, not a thread's.
Json report_of(const Snapshot& snapshot) {
  Json report = Json::parse(to_json(snapshot, true));
  for (size_t p = 0; p < snapshot.processes.size(); p++) {
    Json& process = report["processes"][p];
    std::vector<const HistogramSnapshot*> waits, holds;
    for (const ThreadSnapshot& thread : snapshot.processes[p].threads) {
      waits.push_back(&thread.wait);
      holds.push_back(&thread.hold);
    }
    process["wait"] = histogram_json(sum_of(waits));
    process["hold"] = holds_json(sum_of(holds), snapshot.processes[p].exact);
    for (Json& thread : process["threads"])
      for (const char* histogram : {"wait", "hold"}) thread[histogram].erase("buckets");
    for (Json& gil : process["gils"]) shorten_blame(gil);
  }
  return report;
}

// Base64 has no `<`: no name can end the block it is in.
std::string block(const char* id, const std::string& text) {
  return std::string("<script type=\"application/octet-stream\" id=\"") + id + "\">" + text +
         "</script>\n";
}

}  // namespace

std::string to_html(const Snapshot& snapshot, Spans spans, const PageOptions& options) {
  const std::string_view shell(reinterpret_cast<const char*>(embedded::page),
                               sizeof(embedded::page));
  Json page = {{"report", report_of(snapshot)},
               {"cpus", snapshot.run.cpus},
               {"breaks_off", options.breaks_off},
               {"duration_ns", snapshot.duration_ns()},
               {"order", Json::array()}};  // of the report's processes: the worst first
  for (const auto& [process, verdict] : verdicts_of(snapshot))
    page["order"].push_back(process - snapshot.processes.data());
  const auto figures = [&] {
    return packed(page.dump(-1, ' ', false, Json::error_handler_t::replace));
  };
  constexpr size_t kMargin = 1024;       // the blocks' tags, and what is still to say
  constexpr size_t kLeastSpans = 65536;  // a page without a timeline is none
  const size_t taken = shell.size() + figures().size() + kMargin;
  const size_t left = options.most_bytes - std::min(options.most_bytes, taken);
  const std::string moments =
      packed_spans(spans, snapshot, std::max(left, kLeastSpans), options.progress);
  page["resolution_ns"] = spans.resolution_ns;

  const size_t report_at = shell.find(kReportPlace), spans_at = shell.find(kSpansPlace);
  const size_t script_at = report_at + kReportPlace.size();
  std::string out(shell.substr(0, report_at));
  out += block("giltop-report", figures());
  out += shell.substr(script_at, spans_at - script_at);
  out += block("giltop-spans", moments);
  return out += shell.substr(spans_at + kSpansPlace.size());
}

}  // namespace giltop
