#include "cli/process_filter.h"

#include <sys/stat.h>

#include <algorithm>

namespace giltop {

ProcessFilter::ProcessFilter(std::vector<uid_t> users, const std::string& name)
    : users_(std::move(users)) {
  if (name.empty()) return;
  // The C library's: its depth does not depend on what the target calls itself.
  auto regex = std::make_unique<Regex>();
  if (regcomp(&regex->compiled, name.c_str(), REG_EXTENDED | REG_NOSUB) == 0)
    name_ = std::move(regex);
}

void ProcessFilter::apply(Snapshot& snapshot) {
  if (!name_ && users_.empty()) return;
  std::erase_if(snapshot.processes, [&](const ProcessSnapshot& p) {
    if (shows(p)) return false;
    for (const ThreadSnapshot& t : p.threads) snapshot.hidden_cpu_ns += t.in(CpuState::running);
    return true;
  });
}

bool ProcessFilter::matches(const ProcessSnapshot& process) const {
  constexpr size_t kMost = 4096;
  const auto found = [&](const std::string& text) {
    return regexec(&name_->compiled, text.substr(0, kMost).c_str(), 0, nullptr, 0) == 0;
  };
  return !name_ || found(process.comm) || found(process.cmdline);
}

// Looked at when it is first seen, and when it is called otherwise. Nobody's, if it has ended by
// then.
const ProcessFilter::Known& ProcessFilter::look_at(const ProcessSnapshot& process) {
  constexpr uid_t kNobody = ~uid_t{0};
  constexpr size_t kMostKnown = 65536;
  const auto known = known_.find(process.number);
  if (known != known_.end() && known->second.comm == process.comm &&
      known->second.cmdline == process.cmdline)
    return known->second;
  while (known_.size() >= kMostKnown) known_.erase(known_.begin());
  Known now{kNobody, process.comm, process.cmdline, matches(process)};
  struct stat status;
  const std::string place = "/proc/" + std::to_string(process.pid);
  if (process.folded == 0 && stat(place.c_str(), &status) == 0) now.owner = status.st_uid;
  return known_.insert_or_assign(process.number, std::move(now)).first->second;
}

bool ProcessFilter::shows(const ProcessSnapshot& process) {
  const Known& known = look_at(process);
  return known.matches &&
         (users_.empty() || std::find(users_.begin(), users_.end(), known.owner) != users_.end());
}

}  // namespace giltop
