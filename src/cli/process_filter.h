// Which processes are shown, of those that are traced.
#pragma once

#include <regex.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

class ProcessFilter {
 public:
  // Those of these effective users (none: all) whose name, or the first 4 KB of whose command line,
  // match the extended regular expression (empty: all), which is a valid one.
  ProcessFilter(std::vector<uid_t> users, const std::string& name);

  // Leaves these; the CPU time of the others goes to Snapshot::hidden_cpu_ns.
  void apply(Snapshot& snapshot);

 private:
  struct Regex {
    regex_t compiled;
    ~Regex() { regfree(&compiled); }
  };
  struct Known {
    std::string comm, cmdline;
    bool matches;
  };
  bool has_name(const ProcessSnapshot& process);
  bool has_user(const ProcessSnapshot& process) const;
  bool matches(const ProcessSnapshot& process) const;

  std::unique_ptr<Regex> name_;  // null: all
  std::vector<uid_t> users_;
  std::map<uint64_t, Known> known_;  // by number of the process
};

}  // namespace giltop
