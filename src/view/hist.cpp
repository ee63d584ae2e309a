#include "view/hist.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/format.h"
#include "view/format.h"

namespace giltop {
namespace {

constexpr size_t kBar = 40;

const char* noun(HistKind kind) {
  constexpr const char* kNouns[] = {"GIL wait", "GIL hold", "GIL hand-off"};
  return kNouns[static_cast<size_t>(kind)];
}

uint64_t unit_ns(HistUnit unit) { return unit == HistUnit::microseconds ? 1000 : 1'000'000; }
const char* unit_name(HistUnit unit) { return unit == HistUnit::microseconds ? "usecs" : "msecs"; }

// By power of two: row 0 is 0 and 1 of the unit, row r is 2^r to 2^(r+1) - 1. A bucket goes where
// its middle is.
using Rows = std::vector<uint64_t>;

Rows rows_of(const HistogramSnapshot& h, HistUnit unit) {
  Rows rows;
  for (const auto& b : h.buckets) {
    const uint64_t value = (b.lower_ns + (b.upper_ns - b.lower_ns) / 2) / unit_ns(unit);
    const size_t row = value < 2 ? 0 : static_cast<size_t>(std::bit_width(value)) - 1;
    if (row >= rows.size()) rows.resize(row + 1);
    rows[row] += b.count;
  }
  return rows;
}

size_t first_of(const Rows& rows) {
  size_t first = 0;
  while (first < rows.size() && rows[first] == 0) first++;
  return first;
}

std::string range_of(size_t row) {
  const uint64_t low = row == 0 ? 0 : uint64_t{1} << row;
  const uint64_t high = row == 63 ? ~uint64_t{0} : (uint64_t{1} << (row + 1)) - 1;
  return fmt::format("{:>10} -> {:<10}", low, high);
}

// `part` of `whole` in `width` columns: at least one where there is anything.
std::string bar(uint64_t part, double whole, size_t width) {
  const double share = whole > 0 ? static_cast<double>(part) / whole : 0;
  auto length = static_cast<size_t>(share * static_cast<double>(width) + 0.5);
  if (part != 0 && length == 0) length = 1;
  length = std::min(length, width);
  return fmt::format("|{:*<{}}{:<{}}|", "", length, "", width - length);
}

std::string quantiles(const HistogramSnapshot& h) {
  return fmt::format("p50 {}  p90 {}  p99 {}  max {}", format_duration(h.p50_ns),
                     format_duration(h.p90_ns), format_duration(h.p99_ns),
                     format_duration(h.max_ns));
}

std::string whose(const HistSeries& s) {
  const std::string name = printable(s.name);
  if (s.tid) return fmt::format("{} ({}, {})", name, s.pid ? std::to_string(*s.pid) : "?", *s.tid);
  if (s.pid) return fmt::format("{} ({})", name, *s.pid);
  return name;
}

std::string title(const HistSeries& s, const HistReport& r) {
  std::string line = fmt::format("{}  {}, {:.1f} s", whose(s), noun(s.kind),
                                 static_cast<double>(r.duration_ns) / 1e9);
  if (s.acquires) line += fmt::format(", {} acquires", format_count(*s.acquires));
  line += fmt::format(", {} contended, {} lost", format_count(s.contended),
                      format_count(r.lost_events));
  if (s.kind == HistKind::hold && !s.acquires && s.values.count != 0)
    line += ", in exact mode alone";
  if (r.not_counted != 0)
    line +=
        fmt::format(", {} waits{} not counted: no room in the kernel", format_count(r.not_counted),
                    s.kind == HistKind::handoff ? " and their hand-offs" : "");
  return line + "\n";
}

std::string shift(const char* name, uint64_t a, uint64_t b) {
  const std::string change =
      a == 0
          ? std::string("new")
          : fmt::format("{:+.0f} %", (static_cast<double>(b) / static_cast<double>(a) - 1) * 100);
  return fmt::format("{} {} -> {} ({})", name, format_duration(a), format_duration(b), change);
}

}  // namespace

std::string hist_text(const HistReport& report, HistUnit unit) {
  std::string out;
  for (const HistSeries& s : report.series) {
    if (!out.empty()) out += "\n";
    out += title(s, report);
    if (s.values.count == 0) {
      out += holds_unknown(s)           ? "not known in light mode\n"
             : s.kind == HistKind::wait ? "nobody waited\n"
                                        : "none\n";
      continue;
    }
    const Rows rows = rows_of(s.values, unit);
    const uint64_t most = *std::max_element(rows.begin(), rows.end());
    out += fmt::format("  {:>21}    : count     distribution\n", unit_name(unit));
    for (size_t row = first_of(rows); row < rows.size(); row++)
      out += fmt::format("  {} : {:<9} {}\n", range_of(row), rows[row],
                         bar(rows[row], static_cast<double>(most), kBar));
    out += quantiles(s.values) + "\n";
  }
  if (report.series.empty()) out = "none\n";
  return out;
}

std::string hist_diff(const HistReport& a, const HistReport& b, HistUnit unit) {
  constexpr size_t kHalf = 20;
  const std::string modes =
      a.mode == b.mode ? std::string() : fmt::format(", in {} and in {} mode", a.mode, b.mode);
  std::string out;
  std::vector<bool> seen(b.series.size());
  for (const HistSeries& s : a.series) {
    // Two processes may have had one id, one after the other: then names tell which is which.
    const auto find = [&](bool named) {
      return std::find_if(b.series.begin(), b.series.end(), [&](const HistSeries& each) {
        return !seen[static_cast<size_t>(&each - b.series.data())] && same_series(s, each) &&
               (!named || each.name == s.name);
      });
    };
    auto other = find(true);
    if (other == b.series.end()) other = find(false);
    if (!out.empty()) out += "\n";
    if (other == b.series.end()) {
      out += fmt::format("{}  {}: only in the first, {} values\n", whose(s), noun(s.kind),
                         format_count(s.values.count));
      continue;
    }
    seen[static_cast<size_t>(other - b.series.begin())] = true;
    if (holds_unknown(s) || holds_unknown(*other)) {
      out += fmt::format("{}  {}: not known in light mode\n", whose(s), noun(s.kind));
      continue;
    }
    out += fmt::format("{}  {}: {} values in {:.1f} s, then {} in {:.1f} s{}\n", whose(s),
                       noun(s.kind), format_count(s.values.count),
                       static_cast<double>(a.duration_ns) / 1e9, format_count(other->values.count),
                       static_cast<double>(b.duration_ns) / 1e9, modes);
    Rows left = rows_of(s.values, unit), right = rows_of(other->values, unit);
    const size_t size = std::max(left.size(), right.size());
    left.resize(size);
    right.resize(size);
    const auto most = [](const Rows& rows, uint64_t all) {
      return rows.empty() || all == 0
                 ? 0.0
                 : static_cast<double>(*std::max_element(rows.begin(), rows.end())) /
                       static_cast<double>(all);
    };
    // One scale for both.
    const double scale =
        std::max({most(left, s.values.count), most(right, other->values.count), 1e-9});
    const auto whole = [&](uint64_t all) { return static_cast<double>(all) * scale; };
    if (size != 0)
      out += fmt::format("  {:>21}    : {:<7} {:<{}}  {:<7} after\n", unit_name(unit), "share",
                         "before", kHalf + 2, "share");
    for (size_t row = std::min(first_of(left), first_of(right)); row < size; row++)
      out += fmt::format("  {} : {:>5} % {}  {:>5} % {}\n", range_of(row),
                         format_percent(left[row], s.values.count),
                         bar(left[row], whole(s.values.count), kHalf),
                         format_percent(right[row], other->values.count),
                         bar(right[row], whole(other->values.count), kHalf));
    out += shift("p50", s.values.p50_ns, other->values.p50_ns) + "  " +
           shift("p90", s.values.p90_ns, other->values.p90_ns) + "  " +
           shift("p99", s.values.p99_ns, other->values.p99_ns) + "  " +
           shift("max", s.values.max_ns, other->values.max_ns) + "\n";
  }
  for (size_t i = 0; i < b.series.size(); i++) {
    const HistSeries& s = b.series[i];
    if (!seen[i])
      out += fmt::format("{}{}  {}: only in the second, {} values\n", out.empty() ? "" : "\n",
                         whose(s), noun(s.kind), format_count(s.values.count));
  }
  return out.empty() ? "none\n" : out;
}

}  // namespace giltop
