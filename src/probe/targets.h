// Targets: which processes are traced, and what Python each of them runs.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "event/event.h"
#include "giltop/abi.h"
#include "probe/attachments.h"
#include "probe/holds.h"
#include "probe/light_gils.h"
#include "probe/mmap_watch.h"
#include "probe/mode_chooser.h"
#include "probe/tracked.h"

namespace giltop {

// From `ts_ns` on the process is in that mode.
Event mode_event(uint32_t tgid, uint64_t ts_ns, bool light);

// A process comes to be known
//   - by attach_process() or attach_all(), when it runs already;
//   - by its exec. One that is traced and follows its children is held there, when the file is new,
//     and again at its entry point, when the loader has mapped its libraries. Host-wide nobody is
//     held: an exec of a file that is known to be a Python is traced from there on in the kernel;
//   - by a mapping: a libpython that is loaded later (dlopen, ld.so);
//   - host-wide, by its first GIL event, which names the file that the probe sits in.
// Whichever is first. What is found is told to the model as events.
class Targets {
 public:
  struct Options {
    bool follow_children = true;
    bool host_wide = false;
    bool light = false;            // every process is in light mode
    std::optional<double> budget;  // else those that would take more than so much of their time
  };
  struct Maps {  // descriptors of the kernel side's maps
    const Tracked& tracked;
    int known_files = -1;
    int light_gils = -1;
    int images = -1;  // where waits are counted
  };
  using Push = std::function<void(const Event&)>;

  // `attachments` and `holds` outlive it.
  Targets(Options options, Maps maps, Attachments& attachments, Holds& holds, EventTables& tables,
          Push push)
      : options_(options),
        maps_(maps),
        attachments_(attachments),
        holds_(holds),
        tables_(tables),
        push_(std::move(push)),
        light_gils_(
            maps.light_gils,
            [this](uint32_t tgid, const CPythonFile& file) { return bias_of(tgid, file); }, push_) {
    if (options_.budget) chooser_.emplace(*options_.budget);
  }

  Status track(uint32_t tgid);
  Status attach_process(uint32_t tgid);
  void attach_all();
  // Sets probes in the Pythons that installed_pythons() finds, so that whoever executes one is
  // traced from there on, be it ever so brief.
  void attach_installed(std::string_view path);
  // Forgets what files were that have been written to since.
  void forget_overwritten();
  // Forgets files that are no Python, and processes whose end was lost, when they are many.
  void forget_some();
  // Looks into /proc for what on_mapping() should have told: some of that was lost.
  void rescan();
  // The same for processes that are new, of which nothing had to be told.
  void rescan_processes();

  // Reports the threads of what came to be traced since the last call as seen at the moment that
  // `now` is called. At first that is when the kernel side begins to tell.
  void see_threads(const std::function<uint64_t()>& now);

  // What the kernel side told, in its order.
  void on_fork(const Event& fork);  // at once, of a thread, too
  void on_child(const gt_fork& fork);
  void on_exec(const gt_exec& exec);
  void on_entry(const gt_entry& entry);
  void on_found(const gt_found& found);
  void on_last_exit(uint32_t tgid);
  bool on_mapping(const NewMapping& mapping);  // true: a process is found to run Python by it

  // Looks for the GILs of processes in light mode.
  void look_for_gils(uint64_t now_ns) { light_gils_.look(now_ns); }
  void see_gil(uint32_t tgid, uint64_t gil, uint64_t now_ns) { light_gils_.see(tgid, gil, now_ns); }

  // Chooses the modes that processes can afford. `share_of`: what exact mode took of a process's
  // time since the last call.
  void choose_modes(uint64_t now_ns, const std::function<double(uint32_t tgid)>& share_of);
  // Events up to `now_ns` go out: what they say of processes whose Python is not known yet.
  void settle_unlooked(uint64_t now_ns);
  // Looks at what such processes forked.
  void look_at_children();
  // Puts them into those modes, a few at a call.
  void change_modes(uint64_t now_ns);
  void drop_own() { own_.clear(); }
  // Processes with probes of their own.
  size_t own_sets() const {
    return static_cast<size_t>(std::count_if(own_.begin(), own_.end(),
                                             [](const auto& own) { return !own.second.empty(); }));
  }

  // Whether a process is in light mode, where that may change.
  bool any_light() const { return !light_gils_.empty(); }

  // Every record up to `now_ns` was passed on: a thread that no fork told of was there before.
  void settle_threads(uint64_t now_ns);

  // Why processes could not be traced, one line each.
  std::vector<std::string> refusals() const;

 private:
  using File = Attachments::File;
  struct Mapped {
    File* file = nullptr;
    FileId id;
    MappedFile place;
  };
  // What a process runs since its last exec.
  struct Image {
    std::vector<File*> pythons;
    Mapped seen;             // where one of them was, to look there first
    bool at_loader = false;  // executed and not yet at the entry point, where it will be looked at
    uint64_t seen_ns = 0;    // what it is was told at that time (boot clock), if that was late

    bool is_light() const {
      return std::any_of(pythons.begin(), pythons.end(),
                         [](File* file) { return file->is_light(); });
    }
    bool was_light_since(uint64_t ts_ns) const {
      return std::any_of(pythons.begin(), pythons.end(),
                         [ts_ns](const File* file) { return file->was_light_since(ts_ns); });
    }
    bool has(const File* file) const {
      return std::find(pythons.begin(), pythons.end(), file) != pythons.end();
    }
  };
  struct KeyLess {
    bool operator()(const gt_file_key& a, const gt_file_key& b) const {
      return std::memcmp(&a, &b, sizeof(a)) < 0;
    }
  };
  struct Known {  // a program
    File* file = nullptr;
    uint32_t what = 0;  // as told the kernel side
  };
  struct Refusal {
    uint32_t tgid = 0;
    uint64_t count = 0;
  };
  // Traced since then, and what Python it runs is not known yet, if any: nor is its mode.
  struct Unlooked {
    uint64_t since_ns = 0;
    bool settled = false;  // events since then are out
    bool light = false;    // it was told to be in light mode, to be on the safe side
  };

  // What was read under an id since it was made is of one process that runs `file` (null: whatever
  // it runs), if it holds in the end: ids are given away again.
  class Witness {
   public:
    Witness(const Targets& targets, uint32_t tgid, const File* file);
    bool holds() const;

   private:
    const Targets& targets_;
    uint32_t tgid_;
    const File* file_;
    Fd process_;
    bool began_;
  };

  uint8_t track_as() const { return GT_TRACED | GT_TELL | (options_.light ? GT_LIGHT : 0); }
  bool trace_running(uint32_t tgid, const File& file, const std::function<bool()>& is_there);
  bool maps(uint32_t tgid, const File* file) const;
  const MappedFile* seen_place(uint32_t tgid, const File* file) const;
  bool is_tracked(uint32_t tgid) const { return maps_.tracked.contains(tgid); }
  void untrack(uint32_t tgid);
  template <typename Which>
  void forget_programs(Which&& which);
  void tell_kernel(const gt_file_key& key, Known& known, uint32_t what);
  // Traces a process that runs already and maps the file `id` at `place`.
  bool adopt(uint32_t tgid, const Mapped& mapped);
  Result<std::vector<File*>> mapped_files(uint32_t tgid);
  File* file_of(pid_t pid, const FileId& id, const MappedFile& place);
  Mapped mapped_file(const NewMapping& mapping);
  // The process is a CPython made of image.pythons, all probed: tells the model. At kWhenSeen: when
  // its threads are seen, which is not before the kernel side begins to tell.
  static constexpr uint64_t kWhenSeen = 0;
  // `told`: by the kernel side, for what has ended by now.
  struct Told {
    std::string_view comm;
    std::optional<uint32_t> user;
  };
  void report(uint32_t tgid, const Image& image, uint64_t ts_ns, bool late, const Told& told = {});
  void refuse(uint32_t tgid, const File& file);
  bool is_still_held(const gt_header& record) const;
  // Those whose Python is not known yet (target_unlooked.cpp).
  bool any_file_light() const;
  void await_python(uint32_t tgid, uint64_t ts_ns);
  void end_unlooked(uint32_t tgid, const Image& image);
  void change_unlooked(bool light);
  bool look_at(uint32_t tgid);
  void exec_held(const gt_exec& exec);
  void exec_host_wide(const gt_exec& exec);
  void forget_python(uint32_t tgid, const File* file);
  void add_namespace_ids(uint32_t tgid, const std::map<pid_t, std::string>& threads,
                         std::vector<Event>& events) const;
  void add_gil_readings(uint32_t tgid, std::vector<Event>& events) const;
  bool inherits(uint32_t tgid, const File* file) const;
  // Their modes (target_modes.cpp). What runs a file, and what a process runs: forked ones too.
  std::vector<uint32_t> processes_of(const File& file) const;
  const std::vector<File*>& files_of(uint32_t tgid) const;
  uint8_t how_of(uint32_t tgid) const { return maps_.tracked.how(tgid); }
  void tell_how(uint32_t tgid, uint8_t flags);
  void tell_mode(uint32_t tgid, bool light, uint64_t ts_ns);
  void go_light(uint32_t tgid);
  void leave_light(uint32_t tgid);
  bool has_own(uint32_t tgid) const;
  void set_own(uint32_t tgid);
  bool set_own_where_needed(const std::vector<File*>& mixed);
  void mix(File& file);
  void unmix(File& file);
  void find_unneeded(const std::vector<File*>& mixed);
  static void fail_to_change(File& file, const std::string& reason, uint64_t retry_ns);
  void forget_mode(uint32_t tgid);
  void forget_image(uint32_t tgid);
  std::optional<uint64_t> bias_of(uint32_t tgid, const CPythonFile& python) const;
  Known& look_at_program(uint32_t tgid, const gt_file_key& key);
  void know_program(uint32_t tgid, const File& file);

  Options options_;
  Maps maps_;
  Attachments& attachments_;
  Holds& holds_;
  EventTables& tables_;
  Push push_;
  LightGils light_gils_;
  std::optional<ModeChooser> chooser_;
  std::unordered_set<uint32_t> wants_light_;  // processes, since the last choice
  std::unordered_map<uint32_t, std::vector<Uprobes>>
      own_;  // by process (GT_OWN, GT_SWAP); none: it could not be
  bool changing_ = false;
  uint64_t mode_told_ns_ = 0;       // as of when a mode was told last, other than by a report
  std::vector<uint32_t> unneeded_;  // whose own may go
  std::unordered_map<uint32_t, std::vector<File*>> inherited_;  // by forked children
  std::unordered_map<uint32_t, Unlooked> unlooked_;
  std::vector<uint32_t> children_;  // of whom it was not known, not looked at yet
  // Traced since the last see_threads(), and what it has to map still, or its id is another's by
  // now; null: not known.
  std::vector<std::pair<uint32_t, const File*>> new_;
  std::map<gt_file_key, Known, KeyLess> programs_;
  std::unordered_map<uint32_t, Image> images_;
  static constexpr size_t kFewImages = 4096;
  size_t many_images_ = kFewImages;
  // When a mapping of a file that is no Python was last looked at, by device, inode and generation.
  std::map<std::array<uint64_t, 3>, uint64_t> others_;
  // Threads that were listed (boot clock, ns) and not before, by tgid and tid: a fork may yet tell.
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> pending_threads_;
  std::map<std::pair<std::string, std::string>, Refusal> refusals_;  // by file and reason
  std::vector<std::pair<uint32_t, ProcessFacts>> unseen_;            // to be told of at kWhenSeen
  bool armed_ = false;                                               // the kernel side tells
  bool missed_ = false;
  uint64_t never_entered_ = 0;  // ended before they were seen at their entry point
};

}  // namespace giltop
