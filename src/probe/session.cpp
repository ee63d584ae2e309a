#include "probe/session.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <variant>

#include "base/descriptor_limit.h"
#include "giltop.skel.h"
#include "giltop/abi.h"
#include "probe/attachments.h"
#include "probe/calibrate.h"
#include "probe/cost_meter.h"
#include "probe/count_maps.h"
#include "probe/holds.h"
#include "probe/kernel_facts.h"
#include "probe/mmap_watch.h"
#include "probe/rings.h"
#include "probe/sampler.h"
#include "probe/targets.h"
#include "probe/tracked.h"

namespace giltop {
namespace {

struct SkeletonDeleter {
  void operator()(giltop_bpf* skeleton) const { giltop_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<giltop_bpf, SkeletonDeleter>;

// While processes come or go, what is not told by a wakeup of its own (that a held one's parent was
// stopped, where a new one's GIL is) is looked for this often. The time is longer than a parent
// takes to hear of its child (holds.cpp).
constexpr int kAttentive_ms = 20;
constexpr uint64_t kAttention_ns = 1'500'000'000;

int print_libbpf(enum libbpf_print_level level, const char* format, va_list args) {
  static const bool wanted = std::getenv("GILTOP_DEBUG_LIBBPF") != nullptr;
  return wanted && level <= LIBBPF_DEBUG ? std::vfprintf(stderr, format, args) : 0;
}

class LiveSession final : public Session {
 public:
  LiveSession(const SessionOptions& options, EventTables& tables)
      : options_(options), tables_(tables), decoder_(tables) {}
  ~LiveSession() override { detach(); }

  Status load();
  Status track(uint32_t tgid) override { return targets_->track(tgid); }
  Status attach_process(uint32_t tgid) override { return targets_->attach_process(tgid); }
  void attach_all() override;
  Status arm() override;
  void poll(int timeout_ms, const EventSink& sink) override;
  uint64_t watermark() const override { return watermark_; }
  void add_wakeup(int fd) override { rings_->add_wakeup(fd); }
  void stop(const EventSink& sink) override;
  std::vector<std::string> refusals() const override;
  uint64_t records() const override { return decoder_.counts().records; }
  uint64_t probe_hits() const override;
  uint64_t other_probe_hits() const override { return skeleton_->bss->filtered_hits; }
  double hit_cost_ns() const override { return meter_.costs().hit.warm; }
  uint64_t cost_ns() const override;
  uint64_t malformed() const override { return decoder_.counts().malformed; }
  uint64_t late() const override { return reorder_.late(); }
  uint64_t moved() const override { return reorder_.moved(); }
  Result<CountedWaits> counted() override;

 private:
  using Notice = std::variant<gt_fork, gt_exec, gt_entry, gt_found, gt_exit>;

  bool tells_threads() const { return !options_.counting || !options_.counting->instead_of_events; }
  Status prepare_rings(const RingSizes& sizes);
  Status prepare_counting();
  void push(const Event& event);
  void note_roomless(uint32_t tid);
  Status attach_scheduler();
  Status calibrate();
  void calibrate_hooks(Costs& costs);
  void detach();
  uint64_t drain();
  uint64_t take_all();
  void take_record(std::span<const std::byte> record);
  template <typename Record>
  void note(std::span<const std::byte> record);
  void take_notices();
  void choose_modes();
  void start_sampler();
  void take_losses(uint64_t from_ns);
  uint64_t light_count(uint32_t what) const;

  SessionOptions options_;
  EventTables& tables_;
  Skeleton skeleton_;
  UprobeWay way_ = UprobeWay::perf;
  std::optional<MmapWatch> mappings_;
  std::optional<Tracked> tracked_;
  std::optional<Holds> holds_;
  std::optional<Attachments> attachments_;
  std::optional<Rings> rings_;
  std::optional<Targets> targets_;
  std::optional<CountMaps> counts_;
  std::vector<Link> scheduler_;
  std::optional<Sampler> sampler_;
  std::string sampler_error_;
  Decoder decoder_;
  Reorder reorder_;
  std::vector<Notice> notices_;           // what the kernel side told of processes, in its order
  std::vector<NewMapping> new_mappings_;  // taken before them
  std::array<uint64_t, GT_KINDS> lost_seen_{};
  std::array<uint64_t, GT_KINDS> taken_{};  // records per kind
  uint64_t attentive_until_ns_ = 0;         // processes have just come or gone
  // By process, since the modes were chosen last.
  std::unordered_map<uint32_t, double> spent_ns_;
  uint64_t modes_chosen_ns_ = 0;
  uint64_t watermark_ = 0;       // events up to here are out
  uint64_t next_watermark_ = 0;  // events up to here are in hand
  CostMeter meter_;
  bool armed_ = false;
};

// --- start ---------------------------------------------------------------------------------------

Status LiveSession::load() {
  libbpf_set_print(print_libbpf);
  raise_descriptor_limit();
  const auto kernel = look_at_kernel();
  if (!kernel) return kernel.error();
  skeleton_.reset(giltop_bpf__open());
  if (!skeleton_) return system_error("open the BPF programs", errno);
  skeleton_->rodata->follow_children = options_.follow_children || options_.host_wide;
  skeleton_->rodata->host_wide = options_.host_wide;
  const bool light = options_.mode == Mode::light;
  const bool automatic = options_.mode == Mode::automatic;
  skeleton_->rodata->both_modes = automatic;
  skeleton_->rodata->track_as = GT_TRACED | GT_TELL | (light ? GT_LIGHT : 0);
  skeleton_->rodata->switch_has_prev_state = kernel->switch_has_prev_state;
  const auto cpus = static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  const RingSizes sizes = RingSizes::of(
      options_.ring_bytes ? options_.ring_bytes : RingSizes::wanted_bytes(cpus), cpus);
  if (const Status done = prepare_rings(sizes); !done) return done;
  bpf_map* const unused = light                          ? skeleton_->maps.contended
                          : options_.mode == Mode::exact ? skeleton_->maps.light_gils
                                                         : nullptr;
  if (unused && bpf_map__set_max_entries(unused, 1) != 0)
    return system_error("size the maps of GILs", errno);
  if (const Status done = prepare_counting(); !done) return done;
  way_ = uprobe_way();
  if (way_ == UprobeWay::perf && options_.mode == Mode::automatic)
    return Error(
        "cannot change between exact and light mode: before Linux 6.6 each probe takes a tenth of "
        "a "
        "second to remove; choose one by --mode");
  prepare_for(way_, skeleton_->progs.on_gil);
  prepare_for(way_, skeleton_->progs.on_light_resume);
  prepare_for(way_, skeleton_->progs.on_entry);
  if (giltop_bpf__load(skeleton_.get()) != 0) {
    const int error = errno;
    if (error == EPERM) {
      return Error(
          geteuid() == 0
              ? "cannot trace: BPF is not permitted here, though this is root: a container "
                "without CAP_BPF and CAP_PERFMON, or a kernel in lockdown"
              : "cannot trace: BPF is not permitted here (no CAP_BPF): run giltop with "
                "sudo");
    }
    // EACCES and EINVAL are the verifier's.
    return Error("cannot trace: this kernel refuses giltop's BPF programs (" +
                 std::string(std::strerror(error)) +
                 "); GILTOP_DEBUG_LIBBPF=1 in the environment shows why");
  }
  auto rings = Rings::make(sizes, bpf_map__fd(skeleton_->maps.rings),
                           bpf_map__fd(skeleton_->maps.chunks), bpf_map__fd(skeleton_->maps.bell));
  if (!rings) return rings.error();
  rings_.emplace(std::move(*rings));
  auto tracked = Tracked::make(bpf_map__fd(skeleton_->maps.tracked));
  if (!tracked) return tracked.error();
  tracked_.emplace(std::move(*tracked));
  auto holds = Holds::make(skeleton_->bss->held, &skeleton_->bss->heartbeat_ns);
  if (!holds) return holds.error();
  holds_.emplace(std::move(*holds));
  auto mappings = MmapWatch::make();
  if (!mappings) return mappings.error().in("cannot trace");
  mappings_.emplace(std::move(*mappings));
  for (const int fd : mappings_->poll_fds()) rings_->add_wakeup(fd);
  auto& p = skeleton_->progs;
  attachments_.emplace(Attachments::Programs{way_, p.on_gil, p.on_light_resume, p.on_entry,
                                             skeleton_->bss->ready, skeleton_->bss->light_files},
                       light, automatic, options_.only_pid);
  rings_->add_wakeup(attachments_->writes_fd());
  targets_.emplace(Targets::Options{options_.follow_children, options_.host_wide, light,
                                    automatic ? std::optional(options_.budget) : std::nullopt},
                   Targets::Maps{*tracked_, bpf_map__fd(skeleton_->maps.known_files),
                                 bpf_map__fd(skeleton_->maps.light_gils),
                                 options_.counting ? bpf_map__fd(skeleton_->maps.images) : -1},
                   *attachments_, *holds_, tables_, [this](const Event& event) { push(event); });
  if (const Status done = calibrate(); !done) return done.error().in("cannot trace");
  return ok();
}

Status LiveSession::prepare_rings(const RingSizes& sizes) {
  auto& maps = skeleton_->maps;
  auto& constants = *skeleton_->rodata;
  constants.ring_mask = sizes.count() - 1;
  constants.ring_shift = sizes.ring_shift;
  constants.chunk_shift = sizes.chunk_shift;
  if (bpf_map__set_max_entries(maps.rings, sizes.count()) != 0 ||
      bpf_map__set_max_entries(maps.chunks, sizes.chunks()) != 0 ||
      bpf_map__set_value_size(maps.chunks, sizes.chunk_value_bytes()) != 0 ||
      bpf_map__set_max_entries(maps.bell, static_cast<__u32>(sysconf(_SC_PAGESIZE))) != 0)
    return system_error("size the rings", errno);
  return ok();
}

Status LiveSession::prepare_counting() {
  if (!options_.counting) return ok();
  const WaitCounting& counting = *options_.counting;
  auto& maps = skeleton_->maps;
  skeleton_->rodata->tell_threads = counting.instead_of_events ? 0 : 1;
  skeleton_->rodata->count_waits = 1;
  skeleton_->rodata->count_by_thread = counting.by_thread ? 1 : 0;
  skeleton_->rodata->count_handoffs = counting.handoffs ? 1 : 0;
  return counts_
      .emplace(CountMaps::Maps{maps.waits, maps.images, maps.waiters, maps.wait_counts},
               counting.by_thread)
      .make_room(counting.room);
}

// What is read of processes, to take its turn among what the kernel side tells.
void LiveSession::push(const Event& event) {
  if (counts_ && event.kind == EventKind::thread_read && (event.state & kReadWaiting) != 0 &&
      !counts_->note_waiting(event.tgid, event.tid, event.value))
    note_roomless(event.tid);
  reorder_.push(event);
}

// As the kernel side does: of two threads with one slot it is booked of the first at once.
void LiveSession::note_roomless(uint32_t tid) {
  const uint32_t before =
      std::atomic_ref(skeleton_->bss->roomless[tid % GT_ROOMLESS_SLOTS]).exchange(tid);
  if (before != 0 && before != tid) std::atomic_ref(skeleton_->bss->not_counted)++;
}

Result<CountedWaits> LiveSession::counted() {
  if (!counts_) return CountedWaits();
  auto counted = counts_->read();
  if (counted) counted->not_counted = std::atomic_ref(skeleton_->bss->not_counted).load();
  return counted;
}

Status LiveSession::calibrate() {
  const auto self = static_cast<uint32_t>(getpid());
  tracked_->set(self, GT_TRACED);
  skeleton_->bss->ready[0] = 1;
  skeleton_->bss->armed = 1;
  Costs costs;
  const auto hits = calibrate_hits(way_, skeleton_->progs.on_gil);
  if (tells_threads()) calibrate_hooks(costs);
  skeleton_->bss->armed = 0;
  tracked_->erase(self);
  (void)rings_->drain(std::atomic_ref(skeleton_->bss->reader_woken), [](auto) {});
  for (size_t kind = 0; kind < GT_KINDS; kind++) lost_seen_[kind] = skeleton_->bss->lost[kind];
  skeleton_->bss->filtered_hits = 0;
  skeleton_->bss->stepped_hits = 0;
  skeleton_->bss->spare_hits = 0;
  if (!hits) return hits.error();
  costs.hit = *hits;
  meter_ = CostMeter(costs);
  return ok();
}

// giltop itself is the traced process. The hooks run for all others of the host, too: that is
// cheap, and measured first.
void LiveSession::calibrate_hooks(Costs& costs) {
  auto& p = skeleton_->progs;
  const Link on_switch(bpf_program__attach(p.on_sched_switch));
  const Link on_wakeup(bpf_program__attach(p.on_sched_wakeup));
  if (!on_switch || !on_wakeup) return;
  const auto self = static_cast<uint32_t>(getpid());
  const int light_gils = bpf_map__fd(skeleton_->maps.light_gils);
  uint8_t how = GT_TRACED;
  tracked_->erase(self);
  const HookExercise others = exercise_hooks({p.on_sched_switch, p.on_sched_wakeup});
  // In light mode the hooks read who holds the GIL: this is one that somebody else holds.
  static struct {
    int locked = 1;
    int holder_tid = 1;
    void* holder = this;
  } gil;
  if (options_.mode == Mode::light) {
    gt_light light{};
    light.gils[0] = reinterpret_cast<uint64_t>(&gil);
    light.locked = offsetof(decltype(gil), locked);
    light.holder = offsetof(decltype(gil), holder);
    light.native_id = offsetof(decltype(gil), holder_tid);
    light.all = 1;
    light.cond = sizeof(gil);
    how |= GT_LIGHT;
    bpf_map_update_elem(light_gils, &self, &light, BPF_ANY);
  }
  tracked_->set(self, how);
  const double idle_ns =
      others.runs == 0 ? 0 : static_cast<double>(others.took_ns) / static_cast<double>(others.runs);
  // ns of a record.
  const auto measure = [&](bool cold, double& sleep_ns) {
    size_t records = 0;
    const auto count = [&](std::span<const std::byte>) { records++; };
    (void)rings_->drain(std::atomic_ref(skeleton_->bss->reader_woken), count);
    records = 0;
    const HookExercise own = exercise_hooks({p.on_sched_switch, p.on_sched_wakeup}, cold);
    (void)rings_->drain(std::atomic_ref(skeleton_->bss->reader_woken), count);
    sleep_ns = own.sleep_ns;
    const auto idle_runs = static_cast<double>(own.runs - std::min<uint64_t>(own.runs, records));
    const double took_ns = std::max(0.0, static_cast<double>(own.took_ns) - idle_runs * idle_ns);
    return records == 0 ? 0 : took_ns / static_cast<double>(records);
  };
  double sleep_ns = 0, ignored = 0;
  costs.hook = measure(false, sleep_ns);
  costs.sleep = std::max(0.0, sleep_ns - 2 * costs.hook);
  costs.cold_hook = std::max(costs.hook, measure(true, ignored));
  bpf_map_delete_elem(light_gils, &self);
}

Status LiveSession::attach_scheduler() {
  auto& p = skeleton_->progs;
  for (bpf_program* program : {p.on_process_fork, p.on_process_exec, p.on_process_exit,
                               p.on_task_rename, p.on_sched_wakeup, p.on_sched_switch}) {
    const bool counts =
        program == p.on_sched_wakeup && options_.counting && options_.counting->handoffs;
    const bool of_threads = program == p.on_task_rename || program == p.on_sched_wakeup;
    if (of_threads && !counts && !tells_threads()) continue;
    bpf_link* link = bpf_program__attach(program);
    if (!link) return system_error(std::string("attach ") + bpf_program__name(program), errno);
    scheduler_.emplace_back(link);
  }
  if (options_.mode == Mode::light && tells_threads()) start_sampler();
  return ok();
}

Status LiveSession::arm() {
  if (const Status done = attach_scheduler(); !done) return done;
  holds_->beat();
  targets_->see_threads([this] {
    const uint64_t now = boot_ns();
    std::atomic_ref(skeleton_->bss->armed).store(1);
    armed_ = true;
    watermark_ = next_watermark_ = now;
    attentive_until_ns_ = now + kAttention_ns;
    return now;
  });
  targets_->look_for_gils(boot_ns());
  // Who began to run between the look into /proc and now.
  if (options_.host_wide) targets_->rescan_processes();
  return ok();
}

// --- run -----------------------------------------------------------------------------------------

template <typename Record>
void LiveSession::note(std::span<const std::byte> record) {
  if (record.size() != sizeof(Record)) return;
  Record copy;
  std::memcpy(&copy, record.data(), sizeof(copy));
  notices_.emplace_back(copy);
}

// Also in what may run yet: where sudo's PATH does not lead, and in the usual places.
void LiveSession::attach_all() {
  targets_->attach_all();
  const char* path = std::getenv("PATH");
  targets_->attach_installed(std::string(path ? path : "") + ":/usr/local/bin:/usr/bin");
}

void LiveSession::take_record(std::span<const std::byte> record) {
  gt_header header{};
  std::memcpy(&header, record.data(), std::min(record.size(), sizeof(header)));
  decoder_.decode(record, [&](const Event& event) {
    reorder_.push(event);
    if (event.kind == EventKind::fork) {
      targets_->on_fork(event);
    } else if (event.kind == EventKind::gil_wait && options_.mode != Mode::exact) {
      targets_->see_gil(event.tgid, event.value, event.ts_ns);
    }
  });
  if (record.size() < sizeof(header)) return;
  if (header.kind < GT_KINDS) taken_[header.kind]++;
  meter_.add(header);
  // What the hooks cost light mode does not save.
  if (options_.mode == Mode::automatic) spent_ns_[header.tgid] += meter_.last_of_traps_ns();
  if (header.kind <= GT_GIL_FORCED) return;
  if (header.kind == GT_SWITCH) {
    if ((header.state & GT_TASK_STATE_MASK) == GT_TASK_STOPPED)
      holds_->note_stopped(header.tgid, header.ts_ns);
  } else if (header.kind == GT_FORK) {
    // A process: its main thread.
    if (header.tid == header.tgid && options_.mode != Mode::exact) note<gt_fork>(record);
  } else if (header.kind == GT_EXEC) {
    note<gt_exec>(record);
  } else if (header.kind == GT_ENTRY) {
    note<gt_entry>(record);
  } else if (header.kind == GT_FOUND) {
    note<gt_found>(record);
  } else if (header.kind == GT_EXIT && header.state == GT_LAST) {
    note<gt_exit>(record);
  }
}

uint64_t LiveSession::drain() {
  return rings_->drain(std::atomic_ref(skeleton_->bss->reader_woken),
                       [this](std::span<const std::byte> record) { take_record(record); });
}

void LiveSession::take_notices() {
  struct Visitor {
    Targets& targets;
    void operator()(const gt_fork& fork) { targets.on_child(fork); }
    void operator()(const gt_exec& exec) { targets.on_exec(exec); }
    void operator()(const gt_entry& entry) { targets.on_entry(entry); }
    void operator()(const gt_found& found) { targets.on_found(found); }
    void operator()(const gt_exit& exit) { targets.on_last_exit(exit.h.tgid); }
  };
  if (notices_.empty()) return;
  attentive_until_ns_ = boot_ns() + kAttention_ns;
  for (const Notice& notice : std::exchange(notices_, {})) std::visit(Visitor{*targets_}, notice);
}

// What there is to take and to look at. Returns the rings' watermark.
uint64_t LiveSession::take_all() {
  // Mappings first, but looked at last: a process maps its libraries after its exec, which is then
  // in the ring.
  const bool all_mappings =
      mappings_->drain([this](const NewMapping& mapping) { new_mappings_.push_back(mapping); });
  const uint64_t in_hand = drain();
  targets_->forget_overwritten();
  targets_->forget_some();
  take_notices();
  for (const NewMapping& mapping : std::exchange(new_mappings_, {}))
    if (targets_->on_mapping(mapping)) attentive_until_ns_ = boot_ns() + kAttention_ns;
  targets_->look_at_children();
  if (!all_mappings) targets_->rescan();
  targets_->look_for_gils(boot_ns());
  return in_hand;
}

void LiveSession::poll(int timeout_ms, const EventSink& sink) {
  holds_->beat();
  rings_->wait(boot_ns() < attentive_until_ns_ ? std::min(timeout_ms, kAttentive_ms) : timeout_ms);
  const uint64_t in_hand = take_all();
  if (options_.mode == Mode::automatic) choose_modes();
  holds_->continue_parents();
  targets_->settle_threads(in_hand);
  take_losses(watermark_ + 1);
  // Out goes what was in hand a round ago. The round in between gives a program that found the ring
  // full, and was interrupted before it could count that, time to do so: what it lost is then known
  // before anything later is passed on.
  watermark_ = next_watermark_;
  next_watermark_ = std::max(next_watermark_, in_hand);
  targets_->settle_unlooked(watermark_);
  reorder_.release(watermark_, sink);
}

// Without it waits are exact all the same.
void LiveSession::start_sampler() {
  if (!sampler_error_.empty()) return;
  auto sampler = Sampler::make(skeleton_->progs.on_sample);
  if (sampler) {
    sampler_.emplace(std::move(*sampler));
  } else {
    sampler_error_ =
        "who holds a GIL while it runs is not known in light mode: " + sampler.error().message();
  }
}

std::vector<std::string> LiveSession::refusals() const {
  std::vector<std::string> lines = targets_->refusals();
  if (!sampler_error_.empty()) lines.push_back(sampler_error_);
  return lines;
}

void LiveSession::choose_modes() {
  constexpr uint64_t kPeriod_ns = 500'000'000;
  const uint64_t now = boot_ns();
  const uint64_t passed = now - modes_chosen_ns_;
  if (passed >= kPeriod_ns) {
    if (modes_chosen_ns_ != 0) {
      targets_->choose_modes(now, [&](uint32_t tgid) {
        const auto spent = spent_ns_.find(tgid);
        return spent == spent_ns_.end() ? 0 : spent->second / static_cast<double>(passed);
      });
    }
    spent_ns_.clear();
    modes_chosen_ns_ = now;
  }
  targets_->change_modes(now);
  meter_.set_other_sets(targets_->own_sets());
  // Samples are of use in light mode only, and wake idle CPUs.
  if (!targets_->any_light()) {
    sampler_.reset();
  } else if (!sampler_) {
    start_sampler();
  }
}

void LiveSession::take_losses(uint64_t from_ns) {
  const uint64_t now = boot_ns();
  for (size_t kind = 0; kind < GT_KINDS; kind++) {
    const uint64_t lost = std::atomic_ref(skeleton_->bss->lost[kind]).load();
    if (lost == lost_seen_[kind]) continue;
    Event event;
    event.kind = EventKind::loss;
    event.ts_ns = from_ns;
    event.value = now;
    event.state = static_cast<uint8_t>(kind);
    event.other = static_cast<uint32_t>(std::min<uint64_t>(lost - lost_seen_[kind], ~uint32_t{0}));
    lost_seen_[kind] += event.other;
    reorder_.push(event);
  }
}

// --- end -----------------------------------------------------------------------------------------

void LiveSession::detach() {
  scheduler_.clear();
  sampler_.reset();
  if (attachments_) attachments_->clear();
  if (targets_) targets_->drop_own();
  if (!skeleton_ || !rings_) return;
  if (targets_) drain();
  // Whoever was stopped and not yet looked at.
  if (holds_) holds_->let_all_go();
}

void LiveSession::stop(const EventSink& sink) {
  if (!armed_) return;
  armed_ = false;
  Event end;
  end.kind = EventKind::end;
  end.ts_ns = boot_ns();
  std::atomic_ref(skeleton_->bss->armed).store(0);
  // Who began since the last round, which may have been long: what it is only its exec tells.
  take_all();
  targets_->settle_unlooked(end.ts_ns);
  // Programs that saw `armed` set may still emit; once detached, none runs any more.
  detach();
  take_losses(watermark_ + 1);
  reorder_.push(end);
  bool ended = false;
  reorder_.release(~uint64_t{0}, [&](const Event& event) {
    // What came while we were stopping is past the end.
    if (!ended) sink(event);
    ended = ended || event.kind == EventKind::end;
  });
}

uint64_t LiveSession::light_count(uint32_t what) const {
  std::vector<uint64_t> by_cpu(static_cast<size_t>(std::max(0, libbpf_num_possible_cpus())));
  if (bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.light_counts), &what, by_cpu.data()) != 0)
    return 0;
  return std::accumulate(by_cpu.begin(), by_cpu.end(), uint64_t{0});
}

uint64_t LiveSession::probe_hits() const {
  uint64_t exact = 0;
  for (const size_t kind : {GT_GIL_WAIT, GT_GIL_ACQUIRE, GT_GIL_RELEASE, GT_GIL_FORCED})
    exact += taken_[kind] + lost_seen_[kind];
  exact -= std::min(exact, light_count(GT_LIGHT_RECORDS));
  // A GT_FOUND comes with the event that it precedes.
  const uint64_t spare = std::atomic_ref(skeleton_->bss->spare_hits).load();
  return taken_[GT_ENTRY] + exact + light_count(GT_LIGHT_HITS) + spare;
}

uint64_t LiveSession::cost_ns() const {
  const HitCosts& hit = meter_.costs().hit;
  const auto stepped = static_cast<double>(std::atomic_ref(skeleton_->bss->stepped_hits).load());
  // Traps without a record of their own, less records without a trap of theirs.
  const double untold = static_cast<double>(probe_hits()) - static_cast<double>(meter_.hits());
  const double cost =
      meter_.total_ns() + untold * hit.warm + stepped * std::max(0.0, hit.stepped - hit.warm);
  return static_cast<uint64_t>(std::max(0.0, cost));
}

}  // namespace

Result<std::unique_ptr<Session>> Session::make(const SessionOptions& options, EventTables& tables) {
  auto session = std::make_unique<LiveSession>(options, tables);
  if (const Status loaded = session->load(); !loaded) return loaded.error();
  return std::unique_ptr<Session>(std::move(session));
}

}  // namespace giltop
