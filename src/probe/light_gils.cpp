#include "probe/light_gils.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <iterator>

#include "base/clock.h"
#include "giltop/abi.h"
#include "target/process_gils.h"

namespace giltop {
namespace {

constexpr uint64_t kOften_ns = 10'000'000, kSeldom_ns = 1'000'000'000;
constexpr uint64_t kNever_ns = ~uint64_t{0};
constexpr uint64_t kStartup_ns = 1'000'000'000;  // then it is looked at seldom

}  // namespace

// An interpreter may have a GIL of its own.
bool LightGils::may_grow(const Target& target) { return target.file->minor >= 12; }

void LightGils::add(uint32_t tgid, const CPythonFile& file, bool alone) {
  Target& target = processes_[tgid];
  target = {};
  target.file = &file;
  target.alone = alone;
  next_ns_ = 0;
}

void LightGils::forget(uint32_t tgid) {
  if (processes_.erase(tgid) != 0) bpf_map_delete_elem(map_, &tgid);
}

void LightGils::look(uint64_t now_ns) {
  if (now_ns < next_ns_) return;
  next_ns_ = kNever_ns;
  for (auto& [tgid, target] : processes_) {
    if (target.next_ns <= now_ns) {
      if (target.since_ns == 0) target.since_ns = now_ns;
      target.looked_ns = now_ns;
      look_at(tgid, target);
      const bool starting = !target.all && now_ns - target.since_ns < kStartup_ns;
      const bool again = may_grow(target) || !target.all;
      target.next_ns = starting ? now_ns + kOften_ns : again ? now_ns + kSeldom_ns : kNever_ns;
    }
    next_ns_ = std::min(next_ns_, target.next_ns);
  }
}

void LightGils::see(uint32_t tgid, uint64_t gil, uint64_t now_ns) {
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) return;
  Target& target = found->second;
  if (std::find(target.gils.begin(), target.gils.end(), gil) != target.gils.end()) return;
  target.next_ns = std::min(target.next_ns, std::max(now_ns, target.looked_ns + kOften_ns));
  next_ns_ = std::min(next_ns_, target.next_ns);
}

void LightGils::look_at(uint32_t tgid, Target& target) {
  const auto pid = static_cast<pid_t>(tgid);
  if (!target.bias) target.bias = bias_(tgid, *target.file);
  if (!target.bias) return;
  const GilMemory memory = read_gil_memory(pid, *target.file, *target.bias);
  // Those that are still there keep their order: an interpreter may have ended, and its GIL's
  // memory may be anything by now.
  std::vector<uint64_t> gils;
  const auto is_there = [&](uint64_t address) {
    return !memory.missing.empty() ||
           std::any_of(memory.gils.begin(), memory.gils.end(),
                       [&](const GilInMemory& gil) { return gil.address == address; });
  };
  std::copy_if(target.gils.begin(), target.gils.end(), std::back_inserter(gils), is_there);
  bool all = target.alone && memory.missing.empty();
  for (const GilInMemory& gil : memory.gils) {
    if (std::find(gils.begin(), gils.end(), gil.address) != gils.end()) continue;
    if (gils.size() == kLightGils) {
      all = false;
      break;
    }
    gils.push_back(gil.address);
  }
  // The kernel side clears `all` when somebody waits for another.
  gt_light known{};
  const bool told = bpf_map_lookup_elem(map_, &tgid, &known) == 0;
  if (gils == target.gils && told && (known.all != 0) == all) return;
  // What was read may have been the memory of the id's next owner.
  if (bias_(tgid, *target.file) != target.bias) return;
  gt_light light{};
  std::copy(gils.begin(), gils.end(), light.gils);
  light.locked = target.file->cond_offset - kLockedBeforeCond;
  light.holder = target.file->cond_offset - kHolderBeforeCond;
  light.native_id = memory.ids.native_thread_id;
  light.pthread = memory.ids.thread_id;
  light.pthread_tid = memory.ids.pthread_tid;
  light.all = all;
  light.cond = target.file->cond_offset;
  light.grows = may_grow(target) || !all;
  for (size_t slot = 0; slot < gils.size(); slot++) {
    if (slot < target.gils.size() && target.gils[slot] == gils[slot]) continue;
    Event event;
    event.kind = EventKind::light_gil;
    event.ts_ns = boot_ns();
    event.tgid = tgid;
    event.state = static_cast<uint8_t>(slot);
    event.value = gils[slot];
    push_(event);
  }
  target.gils = std::move(gils);
  target.all = all;
  bpf_map_update_elem(map_, &tgid, &light, BPF_ANY);
}

}  // namespace giltop
