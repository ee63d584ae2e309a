#include "probe/holds.h"

#include <atomic>
#include <csignal>

#include "base/clock.h"
#include "giltop/abi.h"
#include "target/process.h"

namespace giltop {
namespace {

constexpr uint64_t kParentWatch_ns = 1'000'000'000;  // a parent hears of its child's stop by then

}  // namespace

Result<Holds> Holds::make(uint32_t* slots, unsigned long long* heartbeat_ns) {
  auto guard = Guard::make(slots, GT_HELD_SLOTS, heartbeat_ns);
  if (!guard) return guard.error();
  return Holds(slots, heartbeat_ns, std::move(*guard));
}

void Holds::beat() { std::atomic_ref(*heartbeat_ns_).store(boot_ns(), std::memory_order_relaxed); }

void Holds::let_go(uint32_t tgid) {
  watch_parent(tgid);
  // It may run into its next hold before we are back from kill(): that one's mark must stay.
  std::optional<uint32_t> marked;
  for (uint32_t i = 0; i < GT_HELD_TRIES && !marked; i++) {
    const uint32_t slot = (tgid + i) % GT_HELD_SLOTS;
    uint32_t expected = tgid;
    if (std::atomic_ref(slots_[slot]).compare_exchange_strong(expected, tgid | GT_LETTING_GO))
      marked = slot;
  }
  kill(static_cast<pid_t>(tgid), SIGCONT);
  let_go_ns_[tgid] = boot_ns();
  uint32_t expected = tgid | GT_LETTING_GO;
  if (marked) std::atomic_ref(slots_[*marked]).compare_exchange_strong(expected, 0);
}

void Holds::let_all_go() {
  for (uint32_t i = 0; i < GT_HELD_SLOTS; i++) {
    const uint32_t tgid = std::atomic_ref(slots_[i]).exchange(0) & ~GT_LETTING_GO;
    if (tgid != 0) kill(static_cast<pid_t>(tgid), SIGCONT);
  }
}

void Holds::watch_parent(uint32_t tgid) {
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (info && info->parent > 1)
    stopped_with_child_[static_cast<uint32_t>(info->parent)] = boot_ns() + kParentWatch_ns;
}

bool Holds::is_held(uint32_t tgid) const {
  for (uint32_t i = 0; i < GT_HELD_TRIES; i++) {
    const uint32_t mark = std::atomic_ref(slots_[(tgid + i) % GT_HELD_SLOTS]).load();
    if ((mark & ~GT_LETTING_GO) == tgid) return true;
  }
  return false;
}

void Holds::continue_parents() {
  for (const auto& [tgid, ts_ns] : std::exchange(stopped_, {})) {
    const auto watched = stopped_with_child_.find(tgid);
    if (watched == stopped_with_child_.end() || watched->second < boot_ns()) continue;
    // A parent may be one that we hold or held itself (sh, which executes the last of its
    // commands): its next hold must not be cut short.
    const auto let_go = let_go_ns_.find(tgid);
    if (is_held(tgid) || (let_go != let_go_ns_.end() && ts_ns <= let_go->second)) continue;
    kill(static_cast<pid_t>(tgid), SIGCONT);
    watch_parent(tgid);
  }
  const uint64_t now = boot_ns();
  std::erase_if(stopped_with_child_, [now](const auto& w) { return w.second < now; });
  std::erase_if(let_go_ns_, [now](const auto& l) { return l.second + kParentWatch_ns < now; });
}

}  // namespace giltop
