#include "base/cpus.h"

#include <fstream>

namespace giltop {

std::vector<int> online_cpus() {
  std::ifstream file("/sys/devices/system/cpu/online");  // a list like "0-3,8"
  std::vector<int> cpus;
  int first = 0, last = 0;
  char separator = 0;
  while (file >> first) {
    last = first;
    if (file.peek() == '-') file >> separator >> last;
    for (int cpu = first; cpu <= last; cpu++) cpus.push_back(cpu);
    if (!(file >> separator)) break;
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

}  // namespace giltop
