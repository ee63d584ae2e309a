// All that can be summed up of snapshots: what must not get lost when they are folded or parted.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "model/snapshot.h"

namespace giltop::testing {

struct Sum {
  std::map<std::string, uint64_t> of;
  void add(const std::string& what, uint64_t value) { of[what] += value; }
  void add(const std::string& what, const HistogramSnapshot& h);
  void add(const ThreadSnapshot& t);
  void add(const GilSnapshot& g);
  // Of a process's threads and GILs; without how many there are.
  void add_figures(const ProcessSnapshot& p);
  void add(const ProcessSnapshot& p);
  void add(const Sum& other);
};

}  // namespace giltop::testing
