// Which processes are shown, of those that are traced.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "model/snapshot.h"

namespace giltop {

class ProcessFilter {
 public:
  // Those of these users (none: all) whose name or command line matches the regular expression
  // (empty: all), which is a valid one.
  ProcessFilter(std::vector<uid_t> users, const std::string& name) : users_(std::move(users)) {
    if (!name.empty()) name_.emplace(name);
  }

  // Leaves these.
  void apply(Snapshot& snapshot);

 private:
  bool shows(const ProcessSnapshot& process);
  uid_t owner(const ProcessSnapshot& process);

  std::optional<std::regex> name_;
  std::vector<uid_t> users_;
  std::map<uint64_t, uid_t> owners_;  // by number of the process
};

}  // namespace giltop
