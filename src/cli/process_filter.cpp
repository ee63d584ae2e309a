#include "cli/process_filter.h"

#include <algorithm>

#include "target/process.h"

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
    if (has_name(p) && has_user(p)) return false;
    for (const ThreadSnapshot& t : p.threads) snapshot.hidden_cpu_ns += t.in(CpuState::running);
    return true;
  });
}

bool ProcessFilter::matches(const ProcessSnapshot& process) const {
  constexpr size_t kMost = 4096;
  const auto found = [&](const std::string& text) {
    return regexec(&name_->compiled, text.substr(0, kMost).c_str(), 0, nullptr, 0) == 0;
  };
  return found(process.comm) || found(process.cmdline);
}

// Told again only when it is called otherwise.
bool ProcessFilter::has_name(const ProcessSnapshot& process) {
  if (!name_) return true;
  constexpr size_t kMostKnown = 65536;
  const auto known = known_.find(process.number);
  if (known != known_.end() && known->second.comm == process.comm &&
      known->second.cmdline == process.cmdline)
    return known->second.matches;
  while (known_.size() >= kMostKnown) known_.erase(known_.begin());
  const Known now{process.comm, process.cmdline, matches(process)};
  known_.insert_or_assign(process.number, now);
  return now.matches;
}

// Of one that lives whoever it is now, as top has it; of one that has ended, whoever it was then.
bool ProcessFilter::has_user(const ProcessSnapshot& process) const {
  if (users_.empty()) return true;
  std::optional<uint32_t> user;
  if (!process.ended) user = process_user(static_cast<pid_t>(process.pid));
  if (!user) user = process.user;
  return user && std::find(users_.begin(), users_.end(), *user) != users_.end();
}

}  // namespace giltop
