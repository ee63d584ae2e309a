// giltop report, the program: its formats, and that --anonymize leaves no name in any of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "support/live.h"

namespace giltop {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Json;
using ::testing::Not;
using testing::Ran;
using testing::read_file;
using testing::TemporaryDirectory;

const std::string kRecording = std::string(GILTOP_TEST_DIR) + "/recordings/taking-turns.pftrace";

Ran report(std::vector<std::string> options, const std::string& file = kRecording) {
  options.insert(options.begin(), {GILTOP_BINARY, "report", file});
  return testing::run(options);
}

// Seconds that rows of `name` show, by tid.
std::map<uint64_t, double> shown(const Json& trace, const std::string& name, uint64_t row) {
  std::map<uint64_t, double> out;
  for (const Json& e : trace["traceEvents"])
    if (e["ph"] == "X" && e["name"] == name)
      out[e["tid"].get<uint64_t>() - row] += e["dur"].get<double>() / 1e6;
  return out;
}

TEST(Report, ChromeTraceShowsWhatTheReportSays) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("out.json");
  const Ran ran = report({"-f", "chrometrace", "-o", file});
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, IsEmpty());
  const Json trace = Json::parse(read_file(file));
  const Json summary = Json::parse(report({"--json"}).out);
  auto held = shown(trace, "GIL held", 10'000'000), waits = shown(trace, "GIL wait", 10'000'000);
  auto ran_s = shown(trace, "running", 20'000'000);
  const Json& process = summary["processes"][0];
  ASSERT_EQ(process["threads"].size(), 3u);
  for (const Json& thread : process["threads"]) {
    const auto tid = thread["tid"].get<uint64_t>();
    EXPECT_NEAR(held[tid], testing::in_gil_state(thread, "holding"), 1e-9);
    EXPECT_NEAR(waits[tid], testing::in_gil_state(thread, "waiting"), 1e-9);
    // The report charges what a switch took to whom the kernel charges it.
    EXPECT_NEAR(ran_s[tid], testing::in_cpu_state(thread, "running"), 0.01);
  }
  EXPECT_EQ(trace["otherData"]["lost_events"], 0);
  EXPECT_EQ(report({"-f", "chrometrace"}).out, read_file(file)) << "stdout is the default";
}

TEST(Report, FormatsAndFiles) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("out");
  EXPECT_EQ(report({"-f", "json"}).out, report({"--json"}).out);
  EXPECT_EQ(report({"-o", file}).status, 0);
  EXPECT_EQ(read_file(file), report({}).out);
  EXPECT_EQ(report({"-f", "svg"}).status, 2);
  EXPECT_EQ(report({"-f", "json", "--json"}).status, 2);
  const Ran nowhere = report({"-f", "chrometrace", "-o", directory.path("none/out")});
  EXPECT_EQ(nowhere.status, 1);
  EXPECT_THAT(nowhere.err, HasSubstr("cannot write"));
}

TEST(Report, NeverWritesOverTheRecording) {
  const TemporaryDirectory directory;
  const std::string recorded = read_file(kRecording);
  const std::string html = directory.path("a.html"), file = html + ".old";
  testing::write_file(file, recorded);
  testing::write_file(html, "a page");
  const std::string way_round = directory.path("./a.html.old"), link = directory.path("link");
  ASSERT_EQ(symlink(file.c_str(), link.c_str()), 0);
  const std::vector<std::vector<std::string>> harmful = {
      {"-o", file},       {"-f", "chrometrace", "-o", way_round},
      {"--json=" + file}, {"--json=" + link},
      {"--html", file},   {"--html", directory.path("b.html"), "--json=" + way_round},
      {"--html", html}};
  for (const std::vector<std::string>& options : harmful) {
    const Ran ran = report(options, file);
    EXPECT_EQ(ran.status, 1) << options.back();
    EXPECT_THAT(ran.err, HasSubstr("is the recording")) << options.back();
    EXPECT_EQ(read_file(file), recorded) << options.back();
    EXPECT_EQ(read_file(html), "a page") << options.back();
  }
}

TEST(Report, HtmlAndJsonAreTwoFiles) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("out");
  for (const std::string& json : {file, directory.path("./out")}) {
    const Ran ran = report({"--html", file, "--json=" + json});
    EXPECT_EQ(ran.status, 2);
    EXPECT_THAT(ran.err, HasSubstr("cannot both go to " + file));
    EXPECT_NE(access(file.c_str(), F_OK), 0) << "nothing was written";
  }
}

// A page that was there becomes FILE.old: so nothing else may be written there.
TEST(Report, JsonSparesThePageThatWasThere) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("a.html");
  testing::write_file(file, "a page");
  for (const std::string& json : {file + ".old", directory.path("./a.html.old")}) {
    const Ran ran = report({"--html", file, "--json=" + json});
    EXPECT_EQ(ran.status, 2);
    EXPECT_THAT(ran.err, HasSubstr("an old " + file + " becomes that"));
    EXPECT_EQ(read_file(file), "a page");
  }
}

// "-" is stdout only where something is written.
TEST(Report, ReadsAFileAlone) {
  const TemporaryDirectory directory;
  const std::string recorded = read_file(kRecording), file = directory.path("copy");
  testing::write_file(file, recorded);
  const Ran piped = testing::run({"sh", "-c", "cd \"$2\" && \"$1\" report - < copy > out", "sh",
                                  GILTOP_BINARY, directory.path(".")});
  EXPECT_THAT(piped.err, HasSubstr("cannot read -"));
  for (const char* const command : {"report", "hist"}) {
    const Ran ran = testing::run(
        {"sh", "-c", "\"$1\" \"$2\" \"$3\" >> \"$3\"", "sh", GILTOP_BINARY, command, file});
    EXPECT_EQ(ran.status, 1) << command;
    EXPECT_EQ(ran.err, "giltop: cannot write to stdout: it is the recording\n");
    EXPECT_EQ(read_file(file), recorded) << command;
  }
}

// Found before anything is traced, so no root is needed.
TEST(Report, RecordDoesNotPrintIntoItsFile) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("r");
  testing::write_file(file, "what was there");
  for (const std::string& printed : {file, file + ".old"}) {
    const Ran ran = testing::run({"sh", "-c", "\"$1\" record -o \"$2\" -p $$ -d 0.1 >> \"$3\"",
                                  "sh", GILTOP_BINARY, file, printed});
    EXPECT_EQ(ran.status, 2) << printed;
    EXPECT_THAT(ran.err, HasSubstr("what is printed")) << printed;
    EXPECT_EQ(read_file(file), "what was there");
  }
}

// Nor does what a command, or giltop itself, prints go to where the figures are written.
TEST(Report, JsonSparesWhatIsPrinted) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("f"), out = directory.path("r");
  ASSERT_EQ(symlink("f", directory.path("link").c_str()), 0);
  const std::string command = " -- sh -c 'echo its own' >> f";
  for (const std::string& words : {
           "record -q -o r --json=f" + command,
           "record -q -o r --json=link" + command,
           "record -q -o r --json=/dev/stdout" + command,
           "hist --json=f" + command,
           "top --json=f" + command,
           std::string("record -o r --json=f -p $$ -d 0.1 >> f"),
           std::string("record -o r --json=f -p $$ -d 0.1 2>> f"),
           std::string("hist --json=f -p $$ 0.1 1 2>> f"),
           std::string("top --json=f -p $$ -n 1 2>> f"),
           std::string("report \"$3\" --json=f 2>> f"),
           std::string("demo -o d --json=f >> f"),
           std::string("doctor --json=f 2>> f"),
       }) {
    SCOPED_TRACE(words);
    testing::write_file(file, "precious\n");
    const Ran ran = testing::run({"sh", "-c", "cd \"$1\" && \"$2\" " + words, "sh",
                                  directory.path("."), GILTOP_BINARY, kRecording});
    EXPECT_EQ(ran.status, 2);
    EXPECT_THAT(ran.out, IsEmpty());
    const std::string kept = read_file(file);
    ASSERT_EQ(kept.rfind("precious\n", 0), 0u) << kept;
    EXPECT_THAT(kept.substr(9) + ran.err, ::testing::StartsWith("giltop: --json and what is "));
    EXPECT_NE(access(out.c_str(), F_OK), 0);
  }
  // Where nothing else goes there it may.
  for (const std::string& words :
       {std::string("report \"$3\" --json=f >> f"), std::string("report \"$3\" --json=/dev/stdout"),
        std::string("report \"$3\" --json=f > /dev/null 2>&1"),
        std::string("hist \"$3\" --json=f > /dev/null 2>&1")}) {
    SCOPED_TRACE(words);
    const Ran ran = testing::run({"sh", "-c", "cd \"$1\" && \"$2\" " + words, "sh",
                                  directory.path("."), GILTOP_BINARY, kRecording});
    EXPECT_EQ(ran.status, 0) << ran.err;
    EXPECT_FALSE(Json::parse(ran.out.empty() ? read_file(file) : ran.out).empty());
  }
}

TEST(Report, RecordSaysBeforeItTracesThatItCannotWrite) {
  const TemporaryDirectory directory;
  const Ran ran =
      testing::run({GILTOP_BINARY, "record", "-o", directory.path("r"),
                    "--json=" + directory.path("none/out"), "--", "sh", "-c", "echo it ran"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("cannot write " + directory.path("none/out")));
  EXPECT_THAT(ran.out, IsEmpty());
  EXPECT_NE(access(directory.path("r").c_str(), F_OK), 0);
}

TEST(Report, WritesThroughALinkThatLeadsToNoFileYet) {
  const TemporaryDirectory directory;
  const std::string link = directory.path("link"), file = directory.path("file");
  ASSERT_EQ(symlink("file", link.c_str()), 0);
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"-o", link}, {"--json=" + link}, {"--html", link}}) {
    EXPECT_EQ(report(options).status, 0) << options[0];
    EXPECT_THAT(read_file(file), Not(IsEmpty())) << options[0];
    unlink(file.c_str());
  }
}

TEST(Report, DiffTakesNoOtherOutput) {
  for (const char* const option : {"--json", "--json=/dev/null", "-o/dev/null"}) {
    const Ran ran = testing::run({GILTOP_BINARY, "hist", "--diff", kRecording, kRecording, option});
    EXPECT_EQ(ran.status, 2) << option;
    EXPECT_THAT(ran.err, HasSubstr("--diff prints text")) << option;
  }
}

// What was whole is there, and valid, and the exit says that it is not all.
TEST(Report, ChromeTraceOfADamagedRecording) {
  const TemporaryDirectory directory;
  testing::write_file(directory.path("damaged"), read_file(kRecording) + "rubbish");
  const Ran ran = report({"-f", "chrometrace"}, directory.path("damaged"));
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("damaged at byte"));
  EXPECT_GT(Json::parse(ran.out)["traceEvents"].size(), 1000u);
}

TEST(Report, ChromeTraceOfNoRecordingSparesWhatWasThere) {
  const TemporaryDirectory directory;
  const std::string file = directory.path("none"), out = directory.path("out.json");
  testing::write_file(file, "no recording");
  testing::write_file(out, "mine");
  EXPECT_EQ(report({"-f", "chrometrace", "-o", out}, file).status, 1);
  EXPECT_EQ(read_file(out), "mine");
  const std::string other = directory.path("new.json");
  EXPECT_EQ(report({"-f", "chrometrace", "-o", other}, file).status, 1);
  EXPECT_NE(access(other.c_str(), F_OK), 0) << "nothing was written";
}

TEST(Report, ChromeTraceToAFullDeviceSaysSoOnce) {
  const Ran ran = report({"-f", "chrometrace", "-o", "/dev/full"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("cannot write /dev/full: No space left on device\n"));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1);
}

TEST(Report, AnonymousInEveryFormat) {
  for (const char* const format : {"text", "json", "chrometrace"}) {
    const std::string plain = report({"-f", format}).out;
    const std::string neutral = report({"-f", format, "--anonymize"}).out;
    EXPECT_THAT(plain, HasSubstr("python3")) << format;
    EXPECT_THAT(neutral, AllOf(Not(HasSubstr("python3")), Not(HasSubstr("workload"))));
    EXPECT_THAT(neutral, HasSubstr("thread-1")) << format;
  }
  const Json plain = Json::parse(report({"--json"}).out);
  const Json neutral = Json::parse(report({"--json", "--anonymize"}).out);
  EXPECT_EQ(plain["processes"][0]["gils"], neutral["processes"][0]["gils"]);
  EXPECT_EQ(plain["processes"][0]["python"], neutral["processes"][0]["python"]);
  EXPECT_EQ(plain["processes"][0]["pid"], neutral["processes"][0]["pid"]);
}

}  // namespace
}  // namespace giltop
