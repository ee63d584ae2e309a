// What this host lets giltop do, each thing tried and not guessed.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace giltop {

struct HostCheck {
  bool ok = false;
  bool blocks = true;  // without it nothing can be traced
  std::string what;    // what works, or what is missing
  std::string cure;    // for what is missing
};

struct HostChecks {
  std::string kernel, machine;  // as uname(2) has them
  unsigned cpus = 0;            // on line
  std::vector<HostCheck> checks;
  std::optional<double> hit_cost_ns;  // of one probe hit, where probes could be set
};

HostChecks check_host();

}  // namespace giltop
