#include "model/wait_tally.h"

#include <algorithm>
#include <set>
#include <utility>

#include "giltop/abi.h"

namespace giltop {

// --- processes -----------------------------------------------------------------------------------

WaitTally::Image& WaitTally::new_image(uint32_t tgid, uint64_t start_ns) {
  Image& image = images_[++numbers_];
  image.number = numbers_;
  image.tgid = tgid;
  image.start_ns = start_ns;
  by_tgid_[tgid].push_back(image.number);
  return image;
}

// Null: none is alive.
WaitTally::Image* WaitTally::image_now(uint32_t tgid) {
  const auto found = by_tgid_.find(tgid);
  if (found == by_tgid_.end()) return nullptr;
  Image& last = images_.at(found->second.back());
  return last.end_ns == 0 ? &last : nullptr;
}

void WaitTally::end_image(uint32_t tgid, uint64_t ts_ns, bool left) {
  Image* const image = image_now(tgid);
  if (!image) return;
  image->end_ns = ts_ns;
  image->left = left;
}

void WaitTally::forget(uint64_t number) {
  const auto image = images_.find(number);
  const auto numbers = by_tgid_.find(image->second.tgid);
  std::erase(numbers->second, number);
  if (numbers->second.empty()) by_tgid_.erase(numbers);
  images_.erase(image);
}

void WaitTally::apply(const Event& event, const EventTables& tables) {
  switch (event.kind) {
    case EventKind::fork: {
      const auto parent_tgid = static_cast<uint32_t>(event.value >> 32);
      if (parent_tgid == event.tgid) return;
      end_image(event.tgid, event.ts_ns, false);
      Image& image = new_image(event.tgid, event.ts_ns);
      image.forked = true;
      image.comm = tables.text(event.other);
      if (const Image* const parent = image_now(parent_tgid)) {
        image.cmdline = parent->cmdline;
        image.python = parent->python;
      }
      return;
    }
    case EventKind::exec:
      end_image(event.tgid, event.ts_ns, true);
      new_image(event.tgid, event.ts_ns).comm = tables.text(event.other);
      return;
    case EventKind::exit:
      if (event.state != 0) end_image(event.tgid, event.ts_ns, event.state == 2);
      return;
    case EventKind::process: {
      const ProcessFacts& facts = tables.facts(event.other);
      Image* image = image_now(event.tgid);
      if (!image) image = &new_image(event.tgid, event.ts_ns);
      // Of a forked child that ended before it could be looked at nothing more is known.
      if (!facts.cmdline.empty()) image->cmdline = facts.cmdline;
      if (!facts.comm.empty()) image->comm = facts.comm;
      image->python = facts.python;
      return;
    }
    case EventKind::loss:
      lost_events_ += event.other;
      return;
    default:
      return;
  }
}

// The image that the waiter is of. Null: its beginning was lost.
WaitTally::Image* WaitTally::image_of(const Waiter& waiter) {
  const auto found = by_tgid_.find(waiter.id.tgid);
  if (found == by_tgid_.end()) return nullptr;
  // The kernel notes the time, or the loader traces a process, before that is told.
  for (const uint64_t number : found->second)
    if (Image& image = images_.at(number); image.start_ns >= waiter.image_ns) return &image;
  return &images_.at(found->second.back());
}

// A child that was forked to execute something is a moment of its parent's.
bool WaitTally::is_reported(const Image& image) {
  return !image.python.empty() && !(image.forked && !image.waited && image.left);
}

// --- values --------------------------------------------------------------------------------------

void WaitTally::Values::add(const Values& more) {
  for (const auto& [bucket, count] : more.buckets) buckets[bucket] += count;
  times += more.times;
  sum_ns += more.sum_ns;
  min_ns = std::min(min_ns, more.min_ns);
  max_ns = std::max(max_ns, more.max_ns);
}

// What came to a bucket. Its extremes are exact where they are new, else not beyond the bucket.
void WaitTally::Values::add(const WaitCount& now, const WaitCount& before) {
  times += now.count - before.count;
  if (now.bucket == GT_NO_BUCKET) return;
  buckets[now.bucket] += now.count - before.count;
  sum_ns += now.sum_ns - before.sum_ns;
  const bool first = before.count == 0;
  const uint64_t lower = Histogram::lower_of(now.bucket), upper = Histogram::upper_of(now.bucket);
  const bool new_min = first || now.min_ns < before.min_ns;
  const bool new_max = first || now.max_ns > before.max_ns;
  min_ns = std::min(min_ns, new_min ? now.min_ns : std::max(now.min_ns, lower));
  max_ns = std::max(max_ns,
                    new_max ? now.max_ns : std::min(now.max_ns, lower + (upper - 1 - lower) / 2));
}

HistogramSnapshot WaitTally::Values::histogram() const {
  HistogramSnapshot h;
  for (const auto& [bucket, count] : buckets) {
    h.buckets.push_back({Histogram::lower_of(bucket), Histogram::upper_of(bucket), count});
    h.count += count;
  }
  if (h.count == 0) return h;
  h.sum_ns = sum_ns;
  h.max_ns = max_ns;
  h.min_ns = std::min(min_ns, max_ns);
  set_quantiles(h);
  return h;
}

uint64_t WaitTally::Image::waited_times() const {
  uint64_t times = rest.times;
  for (const auto& [id, thread] : threads) times += thread.waits.times;
  return times;
}

void WaitTally::take(const CountedWaits& counted, uint64_t now_ns) {
  taken_ns_ = now_ns;
  final_ns_ = counted.begun_ns;
  not_counted_ = counted.not_counted;
  of_unknown_ = 0;
  std::map<WaiterId, std::pair<Image*, const Waiter*>> whose;
  std::set<WaiterId> ended_unknown;
  for (const Waiter& waiter : counted.waiters) {
    Image* const image = image_of(waiter);
    if (!image) {
      if (waiter.ended) ended_unknown.insert(waiter.id);
      continue;
    }
    whose[waiter.id] = {image, &waiter};
  }
  for (const WaitCount& now : counted.counts) {
    WaitCount& before = taken_[now.waiter][{now.handoffs, now.bucket}];
    if (now.count == before.count) continue;
    const auto of = whose.find(now.waiter);
    if (of == whose.end()) {
      if (!now.handoffs)
        (ended_unknown.contains(now.waiter) ? of_nobody_ : of_unknown_) += now.count - before.count;
      continue;
    }
    Image& image = *of->second.first;
    (now.handoffs ? image.handoffs : image.threads[now.waiter].waits).add(now, before);
    image.waited = true;
    before = now;
  }
  for (const auto& [id, of] : whose) {
    const auto thread = of.first->threads.find(id);
    if (thread == of.first->threads.end()) continue;  // that has not waited in this interval
    thread->second.tid = id.tid;
    thread->second.comm = of.second->comm;
    thread->second.ended = of.second->ended;
  }
  for (const Waiter& waiter : counted.waiters)
    if (waiter.ended) taken_.erase(waiter.id);
  for (auto& [number, image] : images_) fold_threads(image);
  fold_images();
}

// --- what has ended ------------------------------------------------------------------------------

namespace {

// Of `all`, which hold count() and can be sorted out: those that waited least, so that `most` are
// left.
template <typename Each>
std::vector<Each> least_of(std::vector<std::pair<uint64_t, Each>> all, size_t most) {
  std::vector<Each> least;
  if (all.size() <= most) return least;
  const auto end = all.begin() + static_cast<ptrdiff_t>(all.size() - most / 2);
  std::nth_element(all.begin(), end, all.end());
  std::transform(all.begin(), end, std::back_inserter(least),
                 [](const auto& each) { return each.second; });
  return least;
}

}  // namespace

void WaitTally::fold_threads(Image& image) {
  if (image.threads.size() <= kMostEnded) return;
  std::vector<std::pair<uint64_t, WaiterId>> ended;
  for (const auto& [id, thread] : image.threads)
    if (thread.ended && thread.tid != 0) ended.emplace_back(thread.waits.times, id);
  for (const WaiterId& id : least_of(std::move(ended), kMostEnded)) {
    const auto thread = image.threads.find(id);
    image.rest.add(thread->second.waits);
    image.folded++;
    image.threads.erase(thread);
  }
}

void WaitTally::fold_images() {
  if (images_.size() <= kMostEnded) return;
  std::vector<std::pair<uint64_t, uint64_t>> ended;
  for (const auto& [number, image] : images_) {
    if (is_over(image)) ended.emplace_back(image.waited_times(), number);
  }
  for (const uint64_t number : least_of(std::move(ended), kMostEnded)) {
    const Image& image = images_.at(number);
    if (is_reported(image)) {
      const bool full = programs_.size() >= kMostPrograms && !programs_.contains(image.comm);
      Program& program = programs_[full ? "others" : image.comm];
      program.folded++;
      program.waits.add(image.rest);
      for (const auto& [id, thread] : image.threads) program.waits.add(thread.waits);
      program.handoffs.add(image.handoffs);
    }
    forget(number);
  }
}

// --- snapshots -----------------------------------------------------------------------------------

Snapshot WaitTally::next(const RunFacts& run) {
  const auto thread_of = [](const Values& waits) {
    ThreadSnapshot t;
    t.contended = waits.times;
    t.wait = waits.histogram();
    return t;
  };
  // Whichever it is, or all that there are.
  const auto gil_of = [](uint64_t contended, const Values& handoffs) {
    GilSnapshot g;
    g.contended = contended;
    g.handoff = handoffs.histogram();
    return g;
  };
  Snapshot out;
  out.run = run;
  out.run.events -= told_run_.events;
  told_run_ = run;
  out.first_ns = std::exchange(told_ns_, taken_ns_);
  out.last_ns = taken_ns_;
  out.lost_events = std::exchange(lost_events_, 0);
  const uint64_t not_counted = not_counted_ + of_nobody_ + (run.finished ? of_unknown_ : 0);
  out.not_counted = not_counted - std::exchange(not_counted_told_, not_counted);
  std::vector<uint64_t> over;
  for (auto& [number, image] : images_) {
    if (is_over(image)) over.push_back(number);
    if (is_reported(image)) {
      ProcessSnapshot& p = out.processes.emplace_back();
      p.number = number;
      p.pid = image.tgid;
      p.comm = image.comm;
      p.cmdline = image.cmdline;
      p.python = image.python;
      p.ended = image.end_ns != 0;
      p.light = true;
      p.exact = false;
      for (const auto& [id, thread] : image.threads) {
        ThreadSnapshot& t = p.threads.emplace_back(thread_of(thread.waits));
        t.tid = thread.tid;
        t.comm = thread.comm;
      }
      if (image.folded != 0) p.threads.emplace_back(thread_of(image.rest)).folded = image.folded;
      p.gils.push_back(gil_of(image.waited_times(), image.handoffs));
    }
    image.threads.clear();
    image.folded = 0;
    image.rest = image.handoffs = {};
  }
  for (const uint64_t number : over) forget(number);
  for (const auto& [comm, program] : std::exchange(programs_, {})) {
    ProcessSnapshot& p = out.processes.emplace_back();
    p.number = ++numbers_;
    p.folded = program.folded;
    p.comm = comm;
    p.light = true;
    p.exact = false;
    p.threads.push_back(thread_of(program.waits));
    p.gils.push_back(gil_of(program.waits.times, program.handoffs));
  }
  return out;
}

}  // namespace giltop
