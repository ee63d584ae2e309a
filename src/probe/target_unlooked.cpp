// Processes that are traced before it is known what Python they run: a launcher, until its library
// is looked at, or a program that loads one later; and what they forked. Where files change their
// mode that one's may be light mode, and the kernel side tells accordingly: so they are told to be
// in light mode from the beginning, unless they are looked at before anything of them is passed on,
// as mostly they are.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "probe/targets.h"

namespace giltop {

bool Targets::any_file_light() const {
  const auto& files = attachments_.numbered();
  return std::any_of(files.begin(), files.end(),
                     [](const File* file) { return file && file->is_light(); });
}

void Targets::await_python(uint32_t tgid, uint64_t ts_ns) {
  if (!chooser_ && !options_.light) return;
  unlooked_[tgid] = {.since_ns = ts_ns};
  if (chooser_) tell_how(tgid, 0);  // of what it was before
}

void Targets::settle_unlooked(uint64_t now_ns) {
  for (auto& [tgid, unlooked] : unlooked_) {
    if (unlooked.settled || unlooked.since_ns > now_ns) continue;
    unlooked.settled = true;
    const auto& files = attachments_.numbered();
    const bool was_light =
        options_.light ||
        std::any_of(files.begin(), files.end(), [since_ns = unlooked.since_ns](const File* file) {
          return file && file->was_light_since(since_ns);
        });
    if (was_light) push_(mode_event(tgid, unlooked.since_ns, true));
    unlooked.light = options_.light || any_file_light();
    const bool told_meanwhile = mode_told_ns_ >= unlooked.since_ns;
    if ((was_light != unlooked.light || told_meanwhile) && is_tracked(tgid))
      push_(mode_event(tgid, boot_ns(), unlooked.light));
  }
}

// It runs these.
void Targets::end_unlooked(uint32_t tgid, const Image& image) {
  const auto found = unlooked_.find(tgid);
  if (found == unlooked_.end()) return;
  const Unlooked unlooked = found->second;
  unlooked_.erase(found);
  if (unlooked.settled) return;
  push_(mode_event(tgid, unlooked.since_ns, image.was_light_since(unlooked.since_ns)));
}

// A file's mode has become light mode, or none's is any more.
void Targets::change_unlooked(bool light) {
  for (auto& [tgid, unlooked] : unlooked_) {
    if (!unlooked.settled || unlooked.light == light || !is_tracked(tgid)) continue;
    mode_told_ns_ = boot_ns();
    push_(mode_event(tgid, mode_told_ns_, light));
    unlooked.light = light;
  }
}

// A forked child is what its parent was, in the mode that the kernel side says: where its parent
// has probes of its own that is another one. By now that may have changed, and exact mode's probes
// may have gone before the change got to it: then it is in light mode from its fork on.
void Targets::on_child(const gt_fork& fork) {
  const uint32_t tgid = fork.h.tgid, parent = fork.parent_tgid;
  forget_image(tgid);  // of another one, whose end may have been lost
  std::vector<File*> files;
  if (const auto image = images_.find(parent); image != images_.end()) {
    files = image->second.pythons;
    if (fork.h.ts_ns <= image->second.seen_ns) children_.push_back(tgid);
  } else if (const auto more = inherited_.find(parent); more != inherited_.end()) {
    files = more->second;
  }
  if (files.empty()) {
    await_python(tgid, fork.h.ts_ns);
    children_.push_back(tgid);
    return;
  }
  const bool light = fork.h.state & GT_LIGHT;
  const bool light_now =
      std::any_of(files.begin(), files.end(), [](const File* file) { return file->is_light(); });
  if (chooser_) {
    push_(mode_event(tgid, fork.h.ts_ns, light || light_now));
    if (light != light_now) tell_mode(tgid, light_now, boot_ns());
  }
  if (light_now) light_gils_.add(tgid, files.front()->inspection.cpython, files.size() == 1);
  inherited_[tgid] = std::move(files);
}

// What it runs, or what its parent does, was not told yet when it was forked, and it maps nothing
// anew.
void Targets::look_at_children() {
  bool any = false;
  for (const uint32_t tgid : std::exchange(children_, {}))
    if ((unlooked_.contains(tgid) || inherited_.contains(tgid)) && look_at(tgid)) any = true;
  if (any) see_threads(boot_ns);
}

}  // namespace giltop
