#include "cli/process_filter.h"

#include <sys/stat.h>

#include <algorithm>

namespace giltop {

void ProcessFilter::apply(Snapshot& snapshot) {
  if (!name_ && users_.empty()) return;
  std::erase_if(snapshot.processes, [this](const ProcessSnapshot& p) { return !shows(p); });
}

bool ProcessFilter::shows(const ProcessSnapshot& process) {
  if (name_ && !std::regex_search(process.comm, *name_) &&
      !std::regex_search(process.cmdline, *name_))
    return false;
  return users_.empty() || std::find(users_.begin(), users_.end(), owner(process)) != users_.end();
}

// Asked for when it is first seen; nobody's, if it has ended by then.
uid_t ProcessFilter::owner(const ProcessSnapshot& process) {
  constexpr uid_t kNobody = ~uid_t{0};
  constexpr size_t kMostOwners = 65536;
  if (process.folded != 0) return kNobody;
  const auto [known, first] = owners_.try_emplace(process.number, kNobody);
  const uid_t user = [&] {
    struct stat status;
    const std::string place = "/proc/" + std::to_string(process.pid);
    if (first && stat(place.c_str(), &status) == 0) known->second = status.st_uid;
    return known->second;
  }();
  while (owners_.size() > kMostOwners) owners_.erase(owners_.begin());
  return user;
}

}  // namespace giltop
