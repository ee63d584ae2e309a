// The report as a page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libdeflate.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string_view>

#include "model/verdict.h"
#include "sink/html.h"
#include "sink/page_spans.h"
#include "support/event_builder.h"

namespace giltop {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;
using testing::Simulation;
using testing::Story;

struct Recorded {
  Recorded(EventTables& tables, const std::vector<Event>& events) : model(tables) {
    SpanRecorder recorder;
    for (const Event& event : events) {
      const Change change = model.apply(event);
      recorder.take(model, event, change);
    }
    spans = recorder.finish();
    snapshot = snapshot_of(model, {.version = "1", .kernel = "6", .finished = true});
  }
  Model model;
  Spans spans;
  Snapshot snapshot;
};

class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}
  uint8_t byte() {
    if (at_ >= bytes_.size()) {
      ADD_FAILURE() << "the bytes end at " << at_;
      return 0;
    }
    return static_cast<uint8_t>(bytes_[at_++]);
  }
  uint64_t number() {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const uint8_t next = byte();
      value |= uint64_t{next & 0x7fu} << shift;
      if (next < 0x80) return value;
    }
  }
  std::string_view take(size_t count) {
    const std::string_view part = bytes_.substr(at_, count);
    EXPECT_EQ(part.size(), count);
    at_ += count;
    return part;
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

// As the page's script has it, and by what encode_spans() promises.
struct DecodedRow {
  uint64_t process = 0, thread = 0;
  SpanRow row;  // `gils` are places in the process
};
std::vector<DecodedRow> decode(std::string_view bytes) {
  Bytes in(bytes);
  std::vector<DecodedRow> rows(in.number());
  std::vector<std::pair<uint64_t, uint64_t>> sizes;
  for (DecodedRow& row : rows) {
    row.process = in.number();
    row.thread = in.number();
    row.row.first_ns = in.number();
    const uint64_t codes = in.number();
    sizes.emplace_back(codes, in.number());
  }
  for (size_t i = 0; i < rows.size(); i++) {
    SpanRow& row = rows[i].row;
    const std::string_view codes = in.take(sizes[i].first);
    Bytes values(in.take(sizes[i].second));
    for (const char code : codes) {
      if (code == static_cast<char>(kGilCode)) {
        row.gils.emplace_back(row.spans.size(), values.number());
      } else if (code == static_cast<char>(kMixedCode)) {
        uint64_t sum = 0;
        for (uint64_t left = values.number(); left > 0; left--) {
          const uint64_t cell = values.number(), ns = values.number();
          row.parts.push_back({ns, cell});
          sum += ns;
        }
        row.spans.push_back({sum, Span::kMixed});
      } else {
        row.spans.push_back({values.number(), static_cast<uint8_t>(code)});
      }
    }
    EXPECT_TRUE(values.at_end());
  }
  EXPECT_TRUE(in.at_end());
  return rows;
}

std::string from_base64(std::string_view text) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out.push_back(static_cast<char>(bits >> count & 0xff));
  }
  return out;
}

std::string inflated(const std::string& packed) {
  libdeflate_decompressor* const d = libdeflate_alloc_decompressor();
  std::string out(64 << 20, '\0');
  size_t size = 0;
  EXPECT_EQ(
      libdeflate_zlib_decompress(d, packed.data(), packed.size(), out.data(), out.size(), &size),
      LIBDEFLATE_SUCCESS);
  libdeflate_free_decompressor(d);
  out.resize(size);
  return out;
}

// What bytesOf() of the page's script makes of it.
std::string unpacked(const std::string& packed) {
  std::string out;
  std::istringstream parts(packed);
  for (std::string part; std::getline(parts, part, kPartsApart);)
    out += inflated(from_base64(part));
  return out;
}

// What is between the tags of the block of this id.
std::string block(const std::string& page, const std::string& id) {
  const size_t tag = page.find("id=\"" + id + "\">");
  if (tag == std::string::npos) return {};
  const size_t begin = page.find('>', tag) + 1;
  return page.substr(begin, page.find("</script>", begin) - begin);
}

Json report_of(const std::string& page) {
  return Json::parse(inflated(from_base64(block(page, "giltop-report"))));
}

size_t count_of(const std::string& text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) count++;
  return count;
}

void expect_same(const Recorded& run, const Spans& spans, const std::string& encoded) {
  const auto rows = decode(encoded);
  std::map<uint64_t, const SpanRow*> by_number;
  for (const SpanRow& row : spans.rows) by_number[row.thread] = &row;
  size_t threads = 0;
  for (const ProcessSnapshot& process : run.snapshot.processes)
    for (const ThreadSnapshot& thread : process.threads) threads += thread.folded == 0;
  EXPECT_EQ(rows.size(), threads);
  for (const DecodedRow& row : rows) {
    const ProcessSnapshot& process = run.snapshot.processes.at(row.process);
    const SpanRow& exact = *by_number.at(process.threads.at(row.thread).number);
    EXPECT_EQ(row.row.first_ns, exact.first_ns - run.snapshot.first_ns);
    EXPECT_EQ(row.row.spans, exact.spans);
    EXPECT_EQ(row.row.parts, exact.parts);
    for (const auto& [span, gil] : row.row.gils) {
      const auto told = std::find_if(exact.gils.begin(), exact.gils.end(),
                                     [&, at = span](const auto& each) { return each.first == at; });
      ASSERT_NE(told, exact.gils.end());
      EXPECT_EQ(process.gils.at(gil).number, told->second);
    }
  }
}

TEST(PageSpans, RoundTrip) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    Simulation simulation(seed, {.steps = 3000, .max_threads = 12});
    Recorded run(simulation.tables(),
                 testing::with_programs(simulation.tables(), simulation.events()));
    expect_same(run, run.spans, encode_spans(run.spans, run.snapshot));
    Spans coarser = run.spans;
    coarser.coarsen(2'000'000);
    expect_same(run, coarser, encode_spans(coarser, run.snapshot));
  }
}

TEST(PageSpans, AreMadeCoarserUntilTheyFit) {
  Simulation simulation(1, {.steps = 30000, .max_threads = 12});
  Recorded run(simulation.tables(),
               testing::with_programs(simulation.tables(), simulation.events()));
  Spans fine = run.spans;
  const std::string whole = packed_spans(fine, run.snapshot, 1 << 30);
  EXPECT_EQ(fine.resolution_ns, 0u);
  Spans spans = run.spans;
  const size_t most = whole.size() / 5;
  std::vector<uint64_t> told;
  const std::string packed =
      packed_spans(spans, run.snapshot, most, [&](uint64_t done, uint64_t all) {
        told.push_back(done);
        EXPECT_LT(done, all);
      });
  EXPECT_GT(told.size(), 1u);
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_LE(packed.size(), most);
  EXPECT_GT(packed.size(), most / 5);
  EXPECT_GT(spans.resolution_ns, 0u);
  expect_same(run, spans, unpacked(packed));
  for (size_t i = 0; i < spans.rows.size(); i++)
    EXPECT_EQ(spans.rows[i].cells(), run.spans.rows[i].cells());
}

// So many that to compress them takes long.
TEST(PageSpans, TheirProgressGoesOnToTheEnd) {
  Story story;
  story.process("main", 100).at(0).execs("main").is_python("main").at(100).ends();
  Recorded run(story.tables(), story.events());
  std::mt19937_64 rng(1);
  std::vector<Span>& many = run.spans.rows.at(0).spans;
  many.clear();
  for (uint32_t i = 0; i < 1'000'000; i++) many.push_back({1 + rng() % 1'000'000, i % 2 * 8});
  // All at once, and after two tries that do not fit.
  Spans fine = run.spans;
  const size_t whole = packed_spans(fine, run.snapshot, SIZE_MAX / 8).size();
  for (const size_t most : {whole, whole * 9 / 10}) {
    Spans spans = run.spans;
    std::vector<uint64_t> told;
    const std::string packed =
        packed_spans(spans, run.snapshot, most, [&](uint64_t done, uint64_t all) {
          told.push_back(done);
          EXPECT_LT(done, all);
        });
    EXPECT_EQ(spans.resolution_ns != 0, most < whole);
    EXPECT_LE(packed.size(), most);
    expect_same(run, spans, unpacked(packed));
    uint64_t longest = 0;  // step, of a million
    ASSERT_TRUE(std::is_sorted(told.begin(), told.end()));
    for (size_t i = 1; i < told.size(); i++) longest = std::max(longest, told[i] - told[i - 1]);
    EXPECT_GT(told.size(), 6u);
    EXPECT_LT(longest, 400'000u);
  }
}

TEST(Page, HoldsWhatTheReportSays) {
  Story story;
  story.process("main", 100).thread("a", "main", 101).thread("b", "main", 102);
  story.at(0).execs("main").is_python("main").forks("main", "a").forks("main", "b");
  story.sleeps("main").runs("a").acquires("a").runs("b").waits("b").sleeps("b");
  story.at(5'000'000).releases("a").runs("b").acquires("b").at(6'000'000).releases("b").ends();
  Recorded run(story.tables(), story.events());
  const std::string page = to_html(run.snapshot, run.spans, {});
  const Json data = report_of(page);
  EXPECT_EQ(data["report"]["schema"], "giltop.report/1");
  EXPECT_EQ(data["order"], Json::array({0}));
  EXPECT_EQ(data["report"]["processes"][0]["verdict"]["text"],
            verdict_of(run.snapshot.processes[0], run.snapshot).sentence);
  EXPECT_EQ(data["resolution_ns"], 0);
  EXPECT_EQ(data["breaks_off"], false);
  const Json& process = data["report"]["processes"][0];
  EXPECT_EQ(process["wait"]["count"], 1);
  EXPECT_EQ(process["hold"]["count"], 2);
  EXPECT_FALSE(process["wait"]["buckets"].empty());
  EXPECT_EQ(process["gils"][0]["blame_left_out"]["rows"], 0);
  expect_same(run, run.spans, unpacked(block(page, "giltop-spans")));
}

TEST(Page, CarriesTheLicencesOfWhatIsInIt) {
  EventTables tables;
  Recorded recorded(tables, {});
  const std::string page = to_html(recorded.snapshot, std::move(recorded.spans), {});
  EXPECT_THAT(page, HasSubstr("fflate:\n\nMIT License\n\nCopyright"));
  EXPECT_THAT(page, HasSubstr("uplot:\n\nThe MIT License (MIT)\n\nCopyright"));
}

TEST(Page, OfVeryManyThreadsKeepsItsSize) {
  Story story;
  story.process("main", 100).at(0).execs("main").is_python("main");
  for (uint32_t i = 0; i < 2000; i++) {
    const std::string name = "t" + std::to_string(i);
    story.thread(name, "main", 101 + i).at(1 + i).forks("main", name, "worker-" + name);
  }
  story.at(5000).ends();
  Recorded run(story.tables(), story.events());
  const std::string page = to_html(run.snapshot, run.spans, {.most_bytes = 1'000'000});
  EXPECT_LE(page.size(), 1'000'000u);
  EXPECT_EQ(report_of(page)["report"]["processes"][0]["threads"].size(), 2001u);
}

TEST(Page, NamesStayWithinTheirBlock) {
  const std::string name = "</script><b>", command = "x <!-- <script> </SCRIPT> \xff \"'&\\ -->";
  Story story;
  story.process("main", 100);
  ProcessFacts facts;
  facts.comm = name;
  facts.cmdline = command;
  facts.python = "3.11.2";
  story.at(0).execs("main", name).is_python("main", facts);
  story.acquires("main").at(10).releases("main").at(20).ends();
  Recorded run(story.tables(), story.events());
  const std::string page = to_html(run.snapshot, run.spans, {});
  const std::string harmless =
      to_html({}, {}, {});  // the shell alone: as many tags as there may be
  EXPECT_EQ(count_of(page, "</script"), count_of(harmless, "</script"));
  EXPECT_EQ(count_of(page, "<script"), count_of(harmless, "<script"));
  EXPECT_EQ(count_of(page, "<!--"), count_of(harmless, "<!--"));
  const Json report = report_of(page)["report"];
  EXPECT_EQ(report["processes"][0]["threads"][0]["comm"], name);
  EXPECT_THAT(report["processes"][0]["cmdline"].get<std::string>(), HasSubstr("</SCRIPT>"));
}

}  // namespace
}  // namespace giltop
