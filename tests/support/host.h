// Host: a recorder of the whole host beside programs of the test's own.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support/live.h"

namespace giltop::testing {

class Host : public Live {
 protected:
  // giltop record -a, from the moment that it traces.
  struct Recorder {
    Program program;
    std::string json;
    Recorder(const TemporaryDirectory& directory, const std::vector<std::string>& more,
             const std::map<std::string, std::string>& environment = {})
        : program(words(directory, more), environment), json(directory.path("a.json")) {
      EXPECT_TRUE(program.wait_for("tracing every Python")) << program.err();
    }
    static std::vector<std::string> words(const TemporaryDirectory& directory,
                                          const std::vector<std::string>& more) {
      std::vector<std::string> all = {GILTOP_BINARY,
                                      "record",
                                      "-a",
                                      "-o",
                                      directory.path("a.pftrace"),
                                      "--json=" + directory.path("a.json")};
      all.insert(all.end(), more.begin(), more.end());
      return all;
    }
    Json finish() {
      program.signal(SIGINT);
      ran = program.finish();
      EXPECT_EQ(ran.status, 0) << ran.err;
      const std::string text = read_file(json);
      if (!Json::accept(text)) {
        ADD_FAILURE() << "no report: " << ran.err;
        return {{"processes", Json::array()}};
      }
      const Json report = Json::parse(text);
      EXPECT_EQ(report.at("violations"), 0);
      EXPECT_EQ(report.at("lost_events"), 0);
      return report;
    }
    Ran ran;
  };

  static const Json& process(const Json& report, int pid) {
    static const Json none;
    for (const Json& p : report.at("processes"))
      if (p.at("pid") == pid) return p;
    return none;
  }

  // Lives long enough to be found while it runs: its next processes are traced from their exec on.
  static void get_known(const std::string& program) {
    EXPECT_EQ(run({program, "-c", "import time; time.sleep(0.4)"}).status, 0);
  }

  static uint64_t acquires(const Json& process) {
    uint64_t sum = 0;
    for (const Json& gil : process.at("gils")) sum += gil.at("acquires").get<uint64_t>();
    return sum;
  }

  // Acquires of each thread, as the double counted them itself.
  static std::map<uint32_t, uint64_t> logged_acquires(const std::string& path) {
    std::map<uint32_t, uint64_t> counts;
    std::ifstream in(path);
    uint32_t tid;
    std::string kind;
    uint64_t ns;
    while (in >> tid >> kind >> ns)
      if (kind == "acquire") counts[tid]++;
    return counts;
  }

  // Copies the double and its libraries below `root`.
  static void make_root(const std::string& root) {
    std::filesystem::create_directories(root);
    std::filesystem::copy_file(GILTOP_DOUBLE, root + "/double");
    std::istringstream libraries(run({"ldd", GILTOP_DOUBLE}).out);
    for (std::string word; libraries >> word;) {
      if (word[0] != '/') continue;
      const std::filesystem::path copy = root + word;
      std::filesystem::create_directories(copy.parent_path());
      std::filesystem::copy_file(word, copy, std::filesystem::copy_options::skip_existing);
    }
  }
};

}  // namespace giltop::testing
