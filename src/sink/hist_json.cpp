#include "sink/hist_json.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace giltop {
namespace {

using Json = nlohmann::ordered_json;

double seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

// Errors: std::out_of_range, when it is none that a clock can show.
uint64_t ns_of(const Json& seconds) {
  const double ns = std::round(seconds.get<double>() * 1e9);
  if (!(ns >= 0 && ns < 1.8e19)) throw std::out_of_range("a time is out of range");
  return static_cast<uint64_t>(ns);
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// Errors: std::out_of_range, when it is no whole number, or is more than T holds.
template <typename T>
T number(const Json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<T>::max())
    throw std::out_of_range("what should be a whole number is none, or too large");
  return value.get<T>();
}

template <typename T>
std::optional<T> optional(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional(number<T>(value));
}

HistogramSnapshot histogram_of(const Json& json) {
  HistogramSnapshot h;
  if (json.at("count").is_null()) return h;
  h.sum_ns = ns_of(json.at("sum_s"));
  h.min_ns = ns_of(json.at("min_s"));
  h.max_ns = ns_of(json.at("max_s"));
  if (h.min_ns > h.max_ns) throw std::out_of_range("the least is more than the most");
  uint64_t before = 0;
  for (const Json& bucket : json.at("buckets")) {
    const uint64_t upper = ns_of(bucket.at(0));
    const auto count = number<uint64_t>(bucket.at(1));
    if (upper <= before || count == 0 || count > ~uint64_t{0} - h.count)
      throw std::out_of_range("the buckets are not in order");
    h.buckets.push_back({Histogram::lower_of(Histogram::index_of(upper - 1)), upper, count});
    h.count += count;
    before = upper;
  }
  set_quantiles(h);
  return h;
}

HistReport report_of(const Json& json) {
  if (json.at("schema") != "giltop.hist/1") throw std::out_of_range("another schema");
  HistReport report;
  report.duration_ns = ns_of(json.at("duration_s"));
  report.lost_events = number<uint64_t>(json.at("lost_events"));
  // Files of an earlier giltop have neither.
  report.events = number<uint64_t>(json.value("events", Json(0u)));
  report.not_counted = number<uint64_t>(json.value("not_counted", Json(0u)));
  report.mode = json.at("mode").get<std::string>();
  for (const Json& each : json.at("series")) {
    HistSeries& series = report.series.emplace_back();
    const auto kind = each.at("kind").get<std::string>();
    const auto* const found = std::find_if(std::begin(kHistKinds), std::end(kHistKinds),
                                           [&](HistKind k) { return kind == to_string(k); });
    if (found == std::end(kHistKinds)) throw std::out_of_range("no such kind: " + kind);
    series.kind = *found;
    series.all = each.at("all").get<bool>();
    series.pid = optional<uint32_t>(each.at("pid"));
    series.tid = optional<uint32_t>(each.at("tid"));
    series.name = each.at("name").get<std::string>();
    series.acquires = optional<uint64_t>(each.at("acquires"));
    series.contended = number<uint64_t>(each.at("contended"));
    series.values = histogram_of(each.at("histogram"));
  }
  return report;
}

}  // namespace

Json histogram_json(const HistogramSnapshot& h) {
  Json buckets = Json::array();
  for (const auto& b : h.buckets) buckets.push_back({seconds(b.upper_ns), b.count});
  return {{"count", h.count},
          {"sum_s", seconds(h.sum_ns)},
          {"min_s", seconds(h.min_ns)},
          {"max_s", seconds(h.max_ns)},
          {"p50_s", seconds(h.p50_ns)},
          {"p90_s", seconds(h.p90_ns)},
          {"p99_s", seconds(h.p99_ns)},
          {"p999_s", seconds(h.p999_ns)},
          {"buckets", std::move(buckets)}};
}

Json holds_json(const HistogramSnapshot& h, bool exact) {
  Json out = histogram_json(h);
  if (!exact && h.count == 0)
    for (auto& [name, value] : out.items())
      if (name != "buckets") value = nullptr;
  return out;
}

std::string to_json(const HistReport& report) {
  Json series = Json::array();
  for (const HistSeries& s : report.series)
    series.push_back({{"kind", to_string(s.kind)},
                      {"all", s.all},
                      {"pid", or_null(s.pid)},
                      {"tid", or_null(s.tid)},
                      {"name", s.name},
                      {"acquires", or_null(s.acquires)},
                      {"contended", s.contended},
                      {"histogram", holds_json(s.values, !holds_unknown(s))}});
  const Json document = {{"schema", "giltop.hist/1"},
                         {"mode", report.mode},
                         {"duration_s", seconds(report.duration_ns)},
                         {"events", report.events},
                         {"lost_events", report.lost_events},
                         {"not_counted", report.not_counted},
                         {"series", std::move(series)}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<HistReport> hist_from_json(const std::string& text) {
  try {
    return report_of(Json::parse(text));
  } catch (const std::exception& e) {  // the library's, and ours above
    return Error(std::string("no histograms of giltop hist: ") + e.what());
  }
}

}  // namespace giltop
