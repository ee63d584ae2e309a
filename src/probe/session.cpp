#include "probe/session.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>

#include "giltop.skel.h"
#include "giltop/abi.h"
#include "probe/attachments.h"
#include "probe/calibrate.h"
#include "probe/guard.h"
#include "probe/ring.h"
#include "target/process.h"

namespace giltop {
namespace {

struct SkeletonDeleter {
  void operator()(giltop_bpf* skeleton) const { giltop_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<giltop_bpf, SkeletonDeleter>;

struct BtfDeleter {
  void operator()(btf* types) const { btf__free(types); }
};

int print_libbpf(enum libbpf_print_level level, const char* format, va_list args) {
  static const bool wanted = std::getenv("GILTOP_DEBUG_LIBBPF") != nullptr;
  return wanted && level <= LIBBPF_DEBUG ? std::vfprintf(stderr, format, args) : 0;
}

// sched_switch passes prev_state since 5.18: (context, preempt, prev, next, prev_state).
bool switch_has_prev_state() {
  const std::unique_ptr<btf, BtfDeleter> types(btf__load_vmlinux_btf());
  if (!types) return false;
  const int id = btf__find_by_name_kind(types.get(), "btf_trace_sched_switch", BTF_KIND_TYPEDEF);
  if (id < 0) return false;
  const btf_type* type = btf__type_by_id(types.get(), static_cast<__u32>(id));
  while (type && (btf_is_typedef(type) || btf_is_ptr(type)))
    type = btf__type_by_id(types.get(), type->type);
  return type && btf_is_func_proto(type) && btf_vlen(type) >= 5;
}

constexpr uint64_t kParentWatch_ns = 1'000'000'000;  // a parent hears of its child's stop by then

struct KeyLess {
  bool operator()(const gt_file_key& a, const gt_file_key& b) const {
    return std::memcmp(&a, &b, sizeof(a)) < 0;
  }
};

class LiveSession final : public Session {
 public:
  LiveSession(const SessionOptions& options, EventTables& tables)
      : options_(options), tables_(tables), decoder_(tables) {}
  ~LiveSession() override { detach(); }

  Status load();
  Status track(uint32_t tgid) override;
  Status attach_process(uint32_t tgid) override;
  Status arm() override;
  void poll(int timeout_ms, const EventSink& sink) override;
  void stop(const EventSink& sink) override;
  std::vector<std::string> refusals() const override { return refusals_; }
  uint64_t records() const override { return decoder_.counts().records; }
  uint64_t probe_hits() const override;
  uint64_t other_probe_hits() const override { return skeleton_->bss->filtered_hits; }
  double hit_cost_ns() const override { return hit_cost_ns_; }
  uint64_t malformed() const override { return decoder_.counts().malformed; }
  uint64_t late() const override { return reorder_.late(); }

 private:
  using File = Attachments::File;

  Status attach_scheduler();
  Status calibrate();
  void detach();
  uint64_t drain();
  void take_losses(uint64_t from_ns);
  void on_exec(const gt_exec& exec);
  void on_entry(const gt_entry& entry);
  void let_go(uint32_t tgid);
  void watch_parent(uint32_t tgid);
  void continue_parents();
  void beat() {
    std::atomic_ref(skeleton_->bss->heartbeat_ns).store(boot_ns(), std::memory_order_relaxed);
  }
  // The process is (or may be) a CPython made of `files`: probed already; tell the model.
  void report_process(uint32_t tgid, const std::vector<File*>& files, uint64_t ts_ns,
                      bool late = false);
  Result<std::vector<File*>> mapped_files(uint32_t tgid);
  void refuse(uint32_t tgid, const File& file);
  void settle_pending_threads(uint64_t now_ns);

  SessionOptions options_;
  EventTables& tables_;
  Skeleton skeleton_;
  UprobeWay way_ = UprobeWay::perf;
  std::optional<Guard> guard_;
  std::optional<Attachments> attachments_;
  std::optional<Ring> ring_;
  std::vector<Link> scheduler_;
  Decoder decoder_;
  Reorder reorder_;
  std::vector<uint32_t> tracked_;
  std::map<gt_file_key, File*, KeyLess> known_;
  std::set<std::pair<uint32_t, uint32_t>> pending_threads_;  // tgid, tid: seen, may yet show a fork
  std::vector<std::string> refusals_;
  std::vector<gt_exec> execs_;
  std::vector<gt_entry> entries_;
  std::vector<uint32_t> stopped_;                    // traced processes that went into a stop
  std::map<uint32_t, uint64_t> stopped_with_child_;  // parents of those we held; until when
  std::array<uint64_t, GT_KINDS> lost_seen_{};
  std::array<uint64_t, GT_KINDS> taken_{};  // records per kind
  uint64_t watermark_ = 0;                  // events up to here are out
  uint64_t next_watermark_ = 0;             // events up to here are in hand
  double hit_cost_ns_ = 0;
  bool armed_ = false;
};

// --- start ---------------------------------------------------------------------------------------

Status LiveSession::load() {
  libbpf_set_print(print_libbpf);
  if (access("/sys/kernel/btf/vmlinux", R_OK) != 0)
    return Error(
        "cannot trace: this kernel has no type information (/sys/kernel/btf/vmlinux, "
        "CONFIG_DEBUG_INFO_BTF=y); Debian 11 and newer, Fedora and Ubuntu 20.10 have it");
  utsname system;
  uname(&system);
  unsigned major = 0, minor = 0;
  if (std::sscanf(system.release, "%u.%u", &major, &minor) == 2 &&
      (major < 5 || (major == 5 && minor < 15)))
    return Error(std::string("cannot trace: giltop needs Linux 5.15 or newer, this is ") +
                 system.release);
  struct stat pid_namespace;
  constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, include/linux/proc_ns.h
  if (stat("/proc/self/ns/pid", &pid_namespace) == 0 &&
      pid_namespace.st_ino != kInitialPidNamespace)
    return Error(
        "cannot trace from inside a PID namespace: run giltop on the host, or the container "
        "with the host's (docker run --pid=host)");
  skeleton_.reset(giltop_bpf__open());
  if (!skeleton_) return system_error("open the BPF programs", errno);
  skeleton_->rodata->wake_bytes = static_cast<uint32_t>(options_.ring_bytes / 8);
  skeleton_->rodata->follow_children = options_.follow_children;
  skeleton_->rodata->switch_has_prev_state = switch_has_prev_state();
  if (bpf_map__set_max_entries(skeleton_->maps.ring, static_cast<__u32>(options_.ring_bytes)) != 0)
    return system_error("size the ring buffer", errno);
  way_ = uprobe_way();
  prepare_for(way_, skeleton_->progs.on_gil);
  prepare_for(way_, skeleton_->progs.on_entry);
  if (giltop_bpf__load(skeleton_.get()) != 0) {
    const int error = errno;
    if (error == EPERM || error == EACCES) {
      return Error(
          geteuid() == 0
              ? "cannot trace: BPF is not permitted here, though this is root: a container "
                "without CAP_BPF and CAP_PERFMON, or a kernel in lockdown"
              : "cannot trace: BPF is not permitted here (no CAP_BPF): run giltop with "
                "sudo");
    }
    return system_error("load the BPF programs into the kernel", error);
  }
  auto ring =
      Ring::make(bpf_map__fd(skeleton_->maps.ring), bpf_map__max_entries(skeleton_->maps.ring));
  if (!ring) return ring.error();
  ring_.emplace(std::move(*ring));
  auto guard = Guard::make(skeleton_->bss->held, GT_HELD_SLOTS, &skeleton_->bss->heartbeat_ns);
  if (!guard) return guard.error();
  guard_.emplace(std::move(*guard));
  attachments_.emplace(
      Attachments::Programs{way_, skeleton_->progs.on_gil, skeleton_->progs.on_entry},
      options_.only_pid);
  if (const Status done = calibrate(); !done) return done.error().in("cannot trace");
  return ok();
}

Status LiveSession::calibrate() {
  if (const Status self = track(static_cast<uint32_t>(getpid())); !self) return self;
  skeleton_->bss->armed = 1;
  const auto cost = calibrate_hit_ns(way_, skeleton_->progs.on_gil);
  skeleton_->bss->armed = 0;
  const uint32_t self = tracked_.back();
  tracked_.pop_back();
  bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.tracked), &self);
  (void)ring_->drain(std::atomic_ref(skeleton_->bss->reader_woken), [](auto) {});
  for (size_t kind = 0; kind < GT_KINDS; kind++) lost_seen_[kind] = skeleton_->bss->lost[kind];
  skeleton_->bss->filtered_hits = 0;
  if (!cost) return cost.error();
  hit_cost_ns_ = *cost;
  return ok();
}

Status LiveSession::track(uint32_t tgid) {
  const uint32_t one = 1;
  if (bpf_map_update_elem(bpf_map__fd(skeleton_->maps.tracked), &tgid, &one, BPF_ANY) != 0)
    return system_error("trace process " + std::to_string(tgid), errno);
  tracked_.push_back(tgid);
  return ok();
}

Result<std::vector<Attachments::File*>> LiveSession::mapped_files(uint32_t tgid) {
  const auto pid = static_cast<pid_t>(tgid);
  auto mappings = executable_mappings(pid);
  if (!mappings) return mappings.error();
  std::vector<File*> files;
  for (const MappedFile& mapping : *mappings) {
    auto fd = open_mapping(pid, mapping);
    if (!fd) continue;  // gone again, or not a file at all
    File* file = attachments_->add(std::move(*fd), mapping.path);
    if (std::find(files.begin(), files.end(), file) == files.end()) files.push_back(file);
  }
  return files;
}

Status LiveSession::attach_process(uint32_t tgid) {
  const std::string id = std::to_string(tgid);
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (!info) return info.error();
  const std::string who = "cannot trace " + id + " (" + info->comm + ")";
  auto files = mapped_files(tgid);
  if (!files) return files.error().in(who);
  if (files->empty()) return Error(who + ": it maps no program: a kernel thread or a zombie");
  std::string reason;
  bool found = false;
  for (const File* file : *files) {
    if (file->inspection.kind == Inspection::Kind::cpython) {
      if (!file->error.empty()) return Error(who + ": " + file->error);
      found = true;
    }
    if (reason.empty() && file->inspection.kind == Inspection::Kind::refused)
      reason = file->inspection.reason;
    if (reason.empty() && file == files->front() && !file->error.empty()) reason = file->error;
  }
  if (!found) return Error(who + ": " + (reason.empty() ? "it is not a Python process" : reason));
  report_process(tgid, *files, boot_ns());
  return ok();
}

Status LiveSession::attach_scheduler() {
  auto& p = skeleton_->progs;
  for (bpf_program* program : {p.on_process_fork, p.on_process_exec, p.on_process_exit,
                               p.on_sched_wakeup, p.on_sched_switch}) {
    bpf_link* link = bpf_program__attach(program);
    if (!link) return system_error(std::string("attach ") + bpf_program__name(program), errno);
    scheduler_.emplace_back(link);
  }
  return ok();
}

Status LiveSession::arm() {
  if (const Status done = attach_scheduler(); !done) return done;
  std::map<uint32_t, std::map<pid_t, std::string>> before;
  const auto threads_of = [](uint32_t tgid) {
    std::map<pid_t, std::string> result;
    if (const auto threads = process_threads(static_cast<pid_t>(tgid)))
      for (const ThreadInfo& t : *threads) result[t.tid] = t.comm;
    return result;
  };
  for (const uint32_t tgid : tracked_) before[tgid] = threads_of(tgid);
  const uint64_t now = boot_ns();
  beat();
  std::atomic_ref(skeleton_->bss->armed).store(1);
  armed_ = true;
  watermark_ = next_watermark_ = now;
  // A thread that was there before and after was there at `now`. One that is there only after may
  // have been made on either side of it: if no fork event tells, it is reported later.
  for (const uint32_t tgid : tracked_) {
    for (const auto& [tid, comm] : threads_of(tgid)) {
      if (!before[tgid].contains(tid)) {
        pending_threads_.emplace(tgid, static_cast<uint32_t>(tid));
        continue;
      }
      Event event;
      event.kind = EventKind::thread_seen;
      event.ts_ns = now;
      event.tgid = tgid;
      event.tid = static_cast<uint32_t>(tid);
      event.other = tables_.intern(comm);
      reorder_.push(event);
    }
  }
  return ok();
}

// --- run -----------------------------------------------------------------------------------------

uint64_t LiveSession::drain() {
  return ring_->drain(std::atomic_ref(skeleton_->bss->reader_woken),
                      [&](std::span<const std::byte> record) {
                        decoder_.decode(record, [&](const Event& event) {
                          if (event.kind == EventKind::fork && !pending_threads_.empty())
                            pending_threads_.erase({event.tgid, event.tid});
                          reorder_.push(event);
                        });
                        gt_header header;
                        if (record.size() < sizeof(header)) return;
                        std::memcpy(&header, record.data(), sizeof(header));
                        if (header.kind < GT_KINDS) taken_[header.kind]++;
                        if (header.kind == GT_SWITCH && header.state == GT_TASK_STOPPED)
                          stopped_.push_back(header.tgid);
                        if (header.kind == GT_EXEC && record.size() == sizeof(gt_exec)) {
                          std::memcpy(&execs_.emplace_back(), record.data(), sizeof(gt_exec));
                        } else if (header.kind == GT_ENTRY && record.size() == sizeof(gt_entry)) {
                          std::memcpy(&entries_.emplace_back(), record.data(), sizeof(gt_entry));
                        }
                      });
}

void LiveSession::poll(int timeout_ms, const EventSink& sink) {
  beat();
  ring_->wait(timeout_ms);
  const uint64_t in_hand = drain();
  for (const gt_exec& exec : std::exchange(execs_, {})) on_exec(exec);
  for (const gt_entry& entry : std::exchange(entries_, {})) on_entry(entry);
  continue_parents();
  settle_pending_threads(in_hand);
  take_losses(watermark_ + 1);
  // Out goes what was in hand a round ago. The round in between gives a program that found the ring
  // full, and was interrupted before it could count that, time to do so: what it lost is then known
  // before anything later is passed on.
  watermark_ = next_watermark_;
  next_watermark_ = std::max(next_watermark_, in_hand);
  reorder_.release(watermark_, sink);
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

void LiveSession::settle_pending_threads(uint64_t now_ns) {
  for (const auto& [tgid, tid] : pending_threads_) {
    Event event;
    event.kind = EventKind::thread_seen;
    event.ts_ns = now_ns;
    event.tgid = tgid;
    event.tid = tid;
    reorder_.push(event);
  }
  pending_threads_.clear();
}

void LiveSession::report_process(uint32_t tgid, const std::vector<File*>& files, uint64_t ts_ns,
                                 bool late) {
  ProcessFacts facts;
  facts.late = late;
  for (const File* file : files) {
    if (file->inspection.kind != Inspection::Kind::cpython || !file->error.empty()) continue;
    facts.python = file->inspection.cpython.version;
    facts.build_id = file->inspection.cpython.build_id;
    facts.free_threaded = file->inspection.cpython.free_threaded;
    break;
  }
  if (const auto info = process_info(static_cast<pid_t>(tgid))) {
    facts.comm = info->comm;
    facts.cmdline = info->cmdline;
  }
  Event event;
  event.kind = EventKind::process;
  event.ts_ns = ts_ns;
  event.tgid = tgid;
  event.other = tables_.add(std::move(facts));
  reorder_.push(event);
}

void LiveSession::refuse(uint32_t tgid, const File& file) {
  std::string reason;
  if (file.inspection.kind == Inspection::Kind::refused) reason = file.inspection.reason;
  if (file.inspection.kind == Inspection::Kind::cpython) reason = file.error;
  if (reason.empty()) return;
  std::string line = "cannot trace " + std::to_string(tgid) + " (" + file.path + "): " + reason;
  if (refusals_.size() < 64 &&
      std::find(refusals_.begin(), refusals_.end(), line) == refusals_.end())
    refusals_.push_back(std::move(line));
}

// A traced process runs another program. What it is is looked up, or looked at while it is held.
void LiveSession::on_exec(const gt_exec& exec) {
  const uint32_t tgid = exec.h.tgid;
  const auto known = known_.find(exec.file);
  File* file = known == known_.end() ? nullptr : known->second;
  // A file that is new, in a process that could not be held: it may run Python already.
  const bool late = !file && options_.follow_children && exec.h.state != GT_HELD;
  if (late) {
    const std::string line =
        "some programs ran before giltop could look at them: their first events are missed";
    if (std::find(refusals_.begin(), refusals_.end(), line) == refusals_.end())
      refusals_.push_back(line);
  }
  if (!file) {
    if (auto fd = open_executable(static_cast<pid_t>(tgid))) {
      Fd watch_fd(dup(fd->get()));
      const auto info = process_info(static_cast<pid_t>(tgid));
      file = attachments_->add(std::move(*fd), info ? info->comm : std::string("?"));
      if (file->inspection.kind == Inspection::Kind::launcher && file->error.empty()) {
        if (const Status watched = attachments_->watch_entry(*file, watch_fd); !watched)
          file->error = watched.error().message();
      }
      refuse(tgid, *file);
      known_[exec.file] = file;
      const uint32_t what = GT_HOLD_AT_ENTRY;
      bpf_map_update_elem(bpf_map__fd(skeleton_->maps.known_files), &exec.file, &what, BPF_ANY);
    }
  }
  if (file && file->inspection.kind == Inspection::Kind::cpython && file->error.empty())
    report_process(tgid, {file}, exec.h.ts_ns, late);
  if (exec.h.state == GT_HELD) let_go(tgid);
}

// A program that the dynamic loader has just finished mapping: is there a CPython among it?
void LiveSession::on_entry(const gt_entry& entry) {
  const uint32_t tgid = entry.h.tgid;
  const size_t probed = attachments_->probed_files();
  if (const auto files = mapped_files(tgid)) {
    bool python = false;
    for (const File* file : *files) {
      python =
          python || (file->inspection.kind == Inspection::Kind::cpython && file->error.empty());
      refuse(tgid, *file);
    }
    // Nobody waited, and there was a new CPython after all: its first events are missed.
    const bool late = entry.h.state != GT_HELD && attachments_->probed_files() != probed;
    if (python) {
      report_process(tgid, *files, entry.h.ts_ns, late);
      const uint32_t what = GT_TELL_AT_ENTRY;
      bpf_map_update_elem(bpf_map__fd(skeleton_->maps.known_files), &entry.file, &what, BPF_ANY);
    } else if (!files->empty()) {
      attachments_->unwatch_entry(*files->front());
    }
  }
  if (entry.h.state == GT_HELD) let_go(tgid);
}

void LiveSession::let_go(uint32_t tgid) {
  watch_parent(tgid);
  // It may run into its next hold before we are back from kill(): that one's mark must stay.
  std::optional<uint32_t> marked;
  for (uint32_t i = 0; i < GT_HELD_TRIES && !marked; i++) {
    const uint32_t slot = (tgid + i) % GT_HELD_SLOTS;
    uint32_t expected = tgid;
    if (std::atomic_ref(skeleton_->bss->held[slot])
            .compare_exchange_strong(expected, tgid | GT_LETTING_GO))
      marked = slot;
  }
  kill(static_cast<pid_t>(tgid), SIGCONT);
  uint32_t expected = tgid | GT_LETTING_GO;
  if (marked) std::atomic_ref(skeleton_->bss->held[*marked]).compare_exchange_strong(expected, 0);
}

// su, script and their like stop themselves when their child was stopped, and wait for a shell that
// continues them. Nobody will: so we do, when it is our doing.
void LiveSession::watch_parent(uint32_t tgid) {
  const auto info = process_info(static_cast<pid_t>(tgid));
  if (info && info->parent > 1)
    stopped_with_child_[static_cast<uint32_t>(info->parent)] = boot_ns() + kParentWatch_ns;
}

void LiveSession::continue_parents() {
  for (const uint32_t tgid : std::exchange(stopped_, {})) {
    const auto watched = stopped_with_child_.find(tgid);
    if (watched == stopped_with_child_.end() || watched->second < boot_ns()) continue;
    kill(static_cast<pid_t>(tgid), SIGCONT);
    watch_parent(tgid);
  }
  std::erase_if(stopped_with_child_, [now = boot_ns()](const auto& w) { return w.second < now; });
}

// --- end -----------------------------------------------------------------------------------------

void LiveSession::detach() {
  scheduler_.clear();
  if (attachments_) attachments_->clear();
  if (!skeleton_ || !ring_) return;
  drain();
  // Whoever was stopped and not yet looked at; then any mark that is left.
  for (const gt_exec& exec : std::exchange(execs_, {}))
    if (exec.h.state == GT_HELD) let_go(exec.h.tgid);
  for (const gt_entry& entry : std::exchange(entries_, {}))
    if (entry.h.state == GT_HELD) let_go(entry.h.tgid);
  for (uint32_t& slot : skeleton_->bss->held) {
    const uint32_t tgid = std::atomic_ref(slot).exchange(0) & ~GT_LETTING_GO;
    if (tgid != 0) kill(static_cast<pid_t>(tgid), SIGCONT);
  }
}

void LiveSession::stop(const EventSink& sink) {
  if (!armed_) return;
  armed_ = false;
  Event end;
  end.kind = EventKind::end;
  end.ts_ns = boot_ns();
  std::atomic_ref(skeleton_->bss->armed).store(0);
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

uint64_t LiveSession::probe_hits() const {
  uint64_t hits = taken_[GT_ENTRY];
  for (const int kind : {GT_GIL_WAIT, GT_GIL_ACQUIRE, GT_GIL_RELEASE, GT_GIL_FORCED})
    hits += taken_[static_cast<size_t>(kind)] + lost_seen_[static_cast<size_t>(kind)];
  return hits;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::make(const SessionOptions& options, EventTables& tables) {
  auto session = std::make_unique<LiveSession>(options, tables);
  if (const Status loaded = session->load(); !loaded) return loaded.error();
  return std::unique_ptr<Session>(std::move(session));
}

}  // namespace giltop
