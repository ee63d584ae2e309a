// The CPUs of this host.
#pragma once

#include <vector>

namespace giltop {

// Numbers of those that are online, ascending; 0 alone where the kernel does not tell
// (/sys/devices/system/cpu/online).
std::vector<int> online_cpus();

}  // namespace giltop
