// giltop hist, live and from a file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <sstream>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Hist : public Live {
 protected:
  // The histogram of one kind, of a document of giltop.hist/1 with one series of it.
  static Json of(const Json& document, const std::string& kind) {
    for (const Json& series : document.at("series"))
      if (series.at("kind") == kind) return series.at("histogram");
    return nullptr;
  }
  static Json parsed(const std::string& text) {
    return Json::accept(text) ? Json::parse(text) : Json(nullptr);
  }
};

// The file, the report and the histogram that was made while it was recorded.
TEST_F(Hist, LiveRecordedAndReportedAgree) {
  Program target({python(), workload(), "convoy", "--scale", "1", "--ready"});
  ASSERT_TRUE(target.wait_for("ready"));
  const std::string pid = std::to_string(target.pid());
  const std::string file = directory_.path("r.pftrace"), report = directory_.path("r.json"),
                    kept = directory_.path("h.json");
  Program recorder({GILTOP_BINARY, "record", "-o", file, "--json=" + report, "-p", pid});
  ASSERT_TRUE(recorder.wait_for("tracing")) << recorder.err();
  Program hist({GILTOP_BINARY, "hist", "-p", pid, "--wait", "--hold", "--handoff", "-o", kept});
  ASSERT_TRUE(hist.wait_for("tracing")) << hist.err();
  target.write_line("go");
  EXPECT_EQ(target.finish().status, 0);
  EXPECT_EQ(recorder.finish().status, 0);
  const Ran shown = hist.finish();
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, AllOf(HasSubstr("GIL wait, "), HasSubstr("GIL hand-off, "),
                               HasSubstr("usecs"), HasSubstr("|****")));

  const Json reported = parsed(read_file(report));
  ASSERT_FALSE(reported.is_null());
  const Json& process = reported.at("processes").at(0);
  uint64_t waits = 0, holds = 0;
  for (const Json& t : process.at("threads")) {
    waits += t.at("wait").at("count").get<uint64_t>();
    holds += t.at("hold").at("count").get<uint64_t>();
  }
  const uint64_t handoffs = process.at("gils").at(0).at("handoff").at("count");
  ASSERT_GT(waits, 50u);
  const Ran offline = run({GILTOP_BINARY, "hist", file, "--wait", "--hold", "--handoff", "--json"});
  ASSERT_EQ(offline.status, 0) << offline.err;
  for (const Json& document : {parsed(read_file(kept)), parsed(offline.out)}) {
    ASSERT_FALSE(document.is_null());
    EXPECT_EQ(document.at("schema"), "giltop.hist/1");
    EXPECT_EQ(of(document, "wait").at("count"), waits);
    EXPECT_EQ(of(document, "hold").at("count"), holds);
    EXPECT_EQ(of(document, "handoff").at("count"), handoffs);
  }
  // Both saw the same waits, by probes of their own.
  for (const char* figure : {"p50_s", "p90_s", "p99_s", "max_s"}) {
    const double live = of(parsed(read_file(kept)), "wait").at(figure);
    const double recorded = of(parsed(offline.out), "wait").at(figure);
    EXPECT_NEAR(live, recorded, 0.03 * recorded) << figure;
  }

  const Ran diff = run({GILTOP_BINARY, "hist", "--diff", kept, file});
  EXPECT_EQ(diff.status, 0) << diff.err;
  EXPECT_THAT(diff.out, AllOf(HasSubstr("GIL wait: "), HasSubstr("GIL hold: only in the first")));
}

TEST_F(Hist, IntervalsAndACount) {
  Program target({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  const Ran ran =
      run({GILTOP_BINARY, "hist", "-p", std::to_string(target.pid()), "-L", "--json", "0.5", "2"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  std::istringstream in(ran.out);
  int lines = 0;
  for (std::string line; std::getline(in, line); lines++) {
    const Json document = parsed(line);
    ASSERT_FALSE(document.is_null()) << line;
    EXPECT_EQ(document.at("series").size(), 2u) << "two threads wait";
    for (const Json& series : document.at("series"))
      EXPECT_GT(series.at("histogram").at("p50_s").get<double>(), 0.001);
  }
  EXPECT_EQ(lines, 2);
}

TEST_F(Hist, TheWholeHostIsOneSeries) {
  Program one({python(), workload(), "turns", "--scale", "30", "--started"});
  Program other({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(one.wait_for("started") && other.wait_for("started"));
  const Ran ran = run({GILTOP_BINARY, "hist", "-a", "--json", "0.5", "1"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  const Json document = parsed(ran.out);
  ASSERT_FALSE(document.is_null()) << ran.out;
  ASSERT_EQ(document.at("series").size(), 1u) << ran.out;
  EXPECT_TRUE(document.at("series")[0].at("pid").is_null()) << "of nobody in particular";
  EXPECT_GT(document.at("series")[0].at("histogram").at("count"), 10);
  const Ran by_process = run({GILTOP_BINARY, "hist", "-a", "-P", "--json", "0.5", "1"});
  EXPECT_GE(parsed(by_process.out).at("series").size(), 2u) << by_process.out;
}

TEST_F(Hist, ACommand) {
  const Ran ran = run({GILTOP_BINARY, "hist", "-P", "--", python(), "-c",
                       "import sys; print('its own'); sys.exit(7)"});
  EXPECT_EQ(ran.status, 7);
  EXPECT_EQ(ran.out, "its own\n") << "stdout is the command's";
}

TEST_F(Hist, RefusesWhatItDoesNotUnderstand) {
  const auto refuses = [](std::vector<std::string> words, int status, const std::string& what) {
    words.insert(words.begin(), {GILTOP_BINARY, "hist"});
    const Ran ran = run(words);
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_THAT(ran.err, AllOf(StartsWith("giltop: "), HasSubstr(what)));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_EQ(ran.out, "");
  };
  refuses({}, 2, "give a recording");
  refuses({"a", "b"}, 2, "give a recording");
  refuses({"-a", "-p", "1"}, 2, "one of");
  refuses({"-a", "0"}, 2, "not a delay");
  refuses({"-a", "1", "0"}, 2, "not a number of intervals");
  refuses({"-a", "1", "-1"}, 2, "-1");
  refuses({"-P", "-L", "-a"}, 2, "-L");
  refuses({"x", "--overhead", "3"}, 2, "--overhead");
  refuses({"-a", "--overhead", "3"}, 2, "--mode auto");
  refuses({"--diff", "a"}, 2, "--diff");
  refuses({"--diff", "a", "b", "-a"}, 2, "--diff");
  refuses({"/nonexistent"}, 1, "/nonexistent");
  refuses({"--diff", "/nonexistent", "/dev/null"}, 1, "/nonexistent");
  refuses({"/dev/null"}, 1, "/dev/null");
  const std::string file = directory_.path("no.json");
  write_file(file, "{\"schema\": \"giltop.hist/1\"}");
  refuses({"--diff", file, file}, 1, "no.json");
}

// Nothing that it wrote itself is overwritten by the file of -o.
TEST_F(Hist, SparesWhatItPrints) {
  Program target({python(), workload(), "turns", "--scale", "30", "--started"});
  ASSERT_TRUE(target.wait_for("started"));
  const std::string pid = std::to_string(target.pid()), file = directory_.path("f"),
                    link = directory_.path("link"), giltop = GILTOP_BINARY;
  std::filesystem::create_symlink("f", link);
  const std::string live = giltop + " hist -p " + pid + " 0.2 1 ";
  for (const std::string& command : {
           live + "-o " + file + " >> " + file,
           live + "-o " + link + " >> " + file,
           live + "-o /dev/stdout >> " + file,
           live + "-o " + file + " 2>> " + file,
           live + "-o " + file + " --json=" + link,
           live + "-o " + file + " --json >> " + file,
           giltop + " hist -o " + file + " -- sh -c 'echo its own' >> " + file,
       }) {
    SCOPED_TRACE(command);
    write_file(file, "precious\n");
    const Ran ran = run({"sh", "-c", command});
    EXPECT_EQ(ran.status, 2);
    EXPECT_EQ(ran.out, "");
    const bool is_stderr = command.find("2>>") != std::string::npos;
    const std::string kept = read_file(file), said = is_stderr ? kept.substr(9) : ran.err;
    EXPECT_THAT(kept, StartsWith("precious\n"));
    EXPECT_THAT(said, AllOf(StartsWith("giltop: --output and "), HasSubstr(" cannot both go to ")))
        << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    if (!is_stderr) {
      EXPECT_EQ(kept, "precious\n");
    }
  }
  // A new file, another one, and no file.
  for (const std::string& command : {
           live + "-o " + file + " > " + directory_.path("other"),
           live + "-o " + file + " --json=" + directory_.path("j") + " 2> /dev/null",
           live + "-o /dev/null > /dev/null 2>&1",
           live + "-o - --json=" + directory_.path("j"),
       }) {
    SCOPED_TRACE(command);
    const Ran ran = run({"sh", "-c", command});
    EXPECT_EQ(ran.status, 0) << ran.err;
  }
  EXPECT_FALSE(parsed(read_file(file)).is_null());
}

}  // namespace
}  // namespace giltop::testing
