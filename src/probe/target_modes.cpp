// Which of the traced are in light mode, where that may change: Targets' part of --mode auto.
//
// Probes sit in a file and serve all who map it. Once one of those is in light mode the file has
// light mode's probes, which cost the others next to nothing, and who is in exact mode has exact
// mode's for itself (GT_OWN):
//
//            a process of it goes to light mode
//     exact ───────────────────────────────────► mixed: light mode's for all, exact mode's for some
//       ▲                                          │
//       └──────────────────────────────────────────┘
//            none has been in light mode for kSettled_ns
//
// Who begins while its file is mixed is in light mode until the next choice.
#include <bpf/bpf.h>

#include <algorithm>

#include "base/clock.h"
#include "probe/targets.h"

namespace giltop {
namespace {

constexpr uint64_t kSettled_ns = 10'000'000'000;
// Processes with probes of their own; what is more shares a fate. The kernel goes through all sets
// of a place at each trap there: of 50 other processes they took 0.2 us, of 200 1.2 us.
constexpr size_t kMostOwn = 64;
// To set probes takes some milliseconds, to remove them some ten: so many at once, as the ring is
// not drained meanwhile. One is removed at a time.
constexpr size_t kSetAtOnce = 4;
constexpr uint64_t kRetry_ns = 10'000'000'000;  // a lack of memory or descriptors may be over

}  // namespace

Event mode_event(uint32_t tgid, uint64_t ts_ns, bool light) {
  Event event;
  event.kind = EventKind::mode;
  event.ts_ns = ts_ns;
  event.tgid = tgid;
  event.state = light;
  return event;
}

// --- what is to be -------------------------------------------------------------------------------

std::vector<uint32_t> Targets::processes_of(const File& file) const {
  std::vector<uint32_t> found;
  for (const auto& [tgid, image] : images_)
    if (image.has(&file)) found.push_back(tgid);
  for (const auto& [tgid, files] : inherited_)
    if (std::find(files.begin(), files.end(), &file) != files.end() && !images_.contains(tgid))
      found.push_back(tgid);
  return found;
}

const std::vector<Targets::File*>& Targets::files_of(uint32_t tgid) const {
  static const std::vector<File*> none;
  if (const auto image = images_.find(tgid); image != images_.end()) return image->second.pythons;
  const auto child = inherited_.find(tgid);
  return child == inherited_.end() ? none : child->second;
}

void Targets::choose_modes(uint64_t now_ns, const std::function<double(uint32_t)>& share_of) {
  wants_light_.clear();
  for (const File* file : attachments_.numbered()) {
    if (!file || !file->is_traced() || now_ns < file->mode_retry_ns) continue;
    const std::vector<uint32_t> processes = processes_of(*file);
    if (attachments_.can_attach_own()) {
      for (const uint32_t tgid : processes)
        if (!wants_light_.contains(tgid) && chooser_->choose(tgid, share_of(tgid), now_ns))
          wants_light_.insert(tgid);
      continue;
    }
    double share = 0;
    for (const uint32_t tgid : processes) share = std::max(share, share_of(tgid));
    if (chooser_->choose(file->number, share, now_ns))
      wants_light_.insert(processes.begin(), processes.end());
  }
  changing_ = !own_.empty() || !wants_light_.empty() || any_file_light();
}

void Targets::forget_mode(uint32_t tgid) {
  own_.erase(tgid);
  wants_light_.erase(tgid);
  if (chooser_ && attachments_.can_attach_own()) chooser_->forget(tgid);
}

// --- how it comes to be --------------------------------------------------------------------------

void Targets::tell_how(uint32_t tgid, uint8_t flags) {
  maps_.tracked.change(tgid, GT_LIGHT | GT_OWN | GT_SWAP, flags);
}

// To the model before the kernel side obeys, so that nothing in light mode comes before it; what
// exact mode tells yet is no harm. And the other way round.
void Targets::tell_mode(uint32_t tgid, bool light, uint64_t ts_ns) {
  if (how_of(tgid) == 0) return;
  if (light) push_(mode_event(tgid, ts_ns, true));
  tell_how(tgid, light ? GT_LIGHT : has_own(tgid) ? GT_OWN : 0);
  mode_told_ns_ = boot_ns();
  if (!light) push_(mode_event(tgid, mode_told_ns_, false));
}

void Targets::go_light(uint32_t tgid) {
  const std::vector<File*>& files = files_of(tgid);
  if (files.empty()) return;
  light_gils_.add(tgid, files.front()->inspection.cpython, files.size() == 1);
  light_gils_.look(boot_ns());
  tell_mode(tgid, true, boot_ns());
}

void Targets::leave_light(uint32_t tgid) {
  tell_mode(tgid, false, boot_ns());
  if (!has_own(tgid)) light_gils_.forget(tgid);
}

bool Targets::has_own(uint32_t tgid) const {
  const auto own = own_.find(tgid);
  return own != own_.end() && !own->second.empty();
}

// Exact mode's probes in this process alone, in all of its Pythons. It is not tried twice. Where
// its GILs are the kernel side is told for its children, which are in light mode.
void Targets::set_own(uint32_t tgid) {
  std::vector<Uprobes>& probes = own_[tgid];
  const std::vector<File*>& files = files_of(tgid);
  for (const File* file : files) {
    auto set = attachments_.attach_own(*file, tgid);
    if (!set) {
      probes.clear();
      return;
    }
    probes.push_back(std::move(*set));
  }
  if (files.empty() || how_of(tgid) & GT_LIGHT) return;
  light_gils_.add(tgid, files.front()->inspection.cpython, files.size() == 1);
}

// Who is to be in exact mode and has a file that is mixed, or will be. False: there are more.
bool Targets::set_own_where_needed(const std::vector<File*>& mixed) {
  if (!attachments_.can_attach_own()) return true;
  size_t tried = 0;
  for (const File* file : mixed) {
    for (const uint32_t tgid : processes_of(*file)) {
      const uint8_t how = how_of(tgid);
      if (wants_light_.contains(tgid) || how == 0) continue;
      if (has_own(tgid) && how & GT_LIGHT) leave_light(tgid);
      if (own_.contains(tgid)) continue;
      if (own_.size() >= kMostOwn) return true;
      if (tried++ == kSetAtOnce) return false;
      set_own(tgid);
      if (has_own(tgid) && how & GT_LIGHT) leave_light(tgid);
    }
  }
  return true;
}

// Those that nobody uses, or is about to use.
void Targets::find_unneeded(const std::vector<File*>& mixed) {
  for (const auto& [tgid, probes] : own_) {
    const uint8_t how = how_of(tgid);
    if (how & GT_OWN) continue;
    const std::vector<File*>& files = files_of(tgid);
    const bool needed =
        !wants_light_.contains(tgid) && std::any_of(files.begin(), files.end(), [&](File* file) {
          return std::find(mixed.begin(), mixed.end(), file) != mixed.end();
        });
    if (!needed || how & GT_SWAP) unneeded_.push_back(tgid);
  }
}

void Targets::fail_to_change(File& file, const std::string& reason, uint64_t retry_ns) {
  file.mode_error = reason;
  file.mode_retry_ns = retry_ns;
}

void Targets::mix(File& file) {
  std::vector<uint32_t> swapped;
  const Status changed = attachments_.set_light(file, true, [&] {
    change_unlooked(true);
    for (const uint32_t tgid : processes_of(file)) {
      const uint8_t how = how_of(tgid);
      if (how & (GT_LIGHT | GT_OWN)) continue;  // it has another file that is mixed
      if (wants_light_.contains(tgid) || !has_own(tgid)) {
        go_light(tgid);
      } else {
        tell_how(tgid, GT_OWN | GT_SWAP);
        swapped.push_back(tgid);
      }
    }
  });
  for (const uint32_t tgid : swapped) tell_how(tgid, GT_OWN);
  if (changed) {
    file.mode_error.clear();
  } else {
    fail_to_change(file, changed.error().message(), boot_ns() + kRetry_ns);
  }
}

void Targets::unmix(File& file) {
  const Status changed = attachments_.set_light(file, false, [&] {
    for (const uint32_t tgid : processes_of(file)) {
      const std::vector<File*>& files = files_of(tgid);
      const bool elsewhere = std::any_of(files.begin(), files.end(), [&](const File* other) {
        return other != &file && other->is_light();
      });
      if (elsewhere) continue;
      const bool own = how_of(tgid) & GT_OWN;
      if (own && files.size() == 1) {
        tell_how(tgid, GT_SWAP);
        continue;
      }
      if (own) go_light(tgid);  // of another file its own probes are the newer ones
      own_.erase(tgid);
      leave_light(tgid);
    }
  });
  if (changed) {
    file.light_until_ns = boot_ns();
    if (!any_file_light()) change_unlooked(false);
  } else {
    fail_to_change(file, changed.error().message(), boot_ns() + kRetry_ns);
  }
}

void Targets::change_modes(uint64_t now_ns) {
  if (!changing_) return;
  if (!unneeded_.empty()) {
    const uint32_t tgid = unneeded_.back();
    unneeded_.pop_back();
    const uint8_t how = how_of(tgid);
    own_.erase(tgid);
    if (!(how & GT_LIGHT)) light_gils_.forget(tgid);
    if (how & GT_SWAP) tell_how(tgid, 0);
    return;
  }
  changing_ = false;
  std::vector<File*> mixed, to_mix, to_unmix;
  for (File* file : attachments_.numbered()) {
    if (!file || !file->is_traced() || now_ns < file->mode_retry_ns) continue;
    const std::vector<uint32_t> processes = processes_of(*file);
    const bool any = std::any_of(processes.begin(), processes.end(),
                                 [&](uint32_t tgid) { return wants_light_.contains(tgid); });
    if (any) file->light_wanted_ns = now_ns;
    if (any && !file->is_light()) {
      if (const std::string reason = attachments_.light_refusal(*file); !reason.empty()) {
        fail_to_change(*file, reason, ~uint64_t{0});
        continue;
      }
      to_mix.push_back(file);
    }
    const bool settled =
        !attachments_.can_attach_own() || now_ns - file->light_wanted_ns >= kSettled_ns;
    if (!any && file->is_light() && settled) {
      to_unmix.push_back(file);
    } else if (any || file->is_light()) {
      mixed.push_back(file);
    }
  }
  for (const File* file : mixed) {
    for (const uint32_t tgid : processes_of(*file)) {
      const uint8_t how = how_of(tgid);
      if (!wants_light_.contains(tgid) || !file->is_light() || how == 0 || how & GT_LIGHT) continue;
      go_light(tgid);
    }
  }
  if (!set_own_where_needed(mixed)) {
    changing_ = true;
    return;
  }
  for (File* file : to_mix) mix(*file);
  for (File* file : to_unmix) unmix(*file);
  std::erase_if(mixed, [](const File* file) { return !file->is_light(); });
  find_unneeded(mixed);
  changing_ = !unneeded_.empty();
}

}  // namespace giltop
