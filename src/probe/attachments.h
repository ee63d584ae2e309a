// Attachments: which files giltop has looked at, and the probes it set in them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "probe/uprobes.h"
#include "target/gil_sites.h"
#include "target/process.h"

namespace giltop {

// Probes are set per file, by its identity, and serve every process that maps it; a file is read
// once. With `only_pid` they are set in that process alone, and its later children have none.
class Attachments {
 public:
  struct File {
    std::string path;     // for messages
    uint32_t number = 0;  // what its probes' cookies say of it; 0: none were ever set
    Inspection inspection;
    std::string error;           // unreadable, not ELF, or a site that could not be probed
    std::string mode_error;      // why its mode could not be changed
    uint64_t mode_retry_ns = 0;  // and until when it is not tried again
    bool on_overlay = false;
    uint64_t probed_ns = 0;        // when its probes came into force (boot clock); 0: it has none
    Uprobes sites;                 // exact mode's
    Fd fd;                         // where its mode may change
    uint64_t light_wanted_ns = 0;  // by one of its processes, the last time
    Uprobes resumes;               // light mode's
    uint64_t light_until_ns = 0;   // when its mode came back from light mode, the last time
    Uprobes entry;                 // set while the program's entry point is watched

    bool is_traced() const { return sites || is_light(); }
    bool is_light() const { return static_cast<bool>(resumes); }
    bool was_light_since(uint64_t ts_ns) const { return is_light() || light_until_ns >= ts_ns; }
    // Neither a Python nor watched: it may be forgotten, and looked at again.
    bool is_plain() const {
      return inspection.kind != Inspection::Kind::cpython && number == 0 && !entry;
    }
    // Why it cannot be traced, where it is an interpreter; else empty.
    const std::string& refusal() const;
  };

  struct Programs {
    UprobeWay way;
    bpf_program* gil;
    bpf_program* light_resume;
    bpf_program* entry;
    // GT_FILES of each, shared with the kernel side.
    unsigned char* ready;
    unsigned char* light_files;
  };
  // `light`: files get the probes of light mode, not those of exact mode. `changes`: set_light()
  // may be called.
  Attachments(Programs programs, bool light, bool changes, int only_pid = -1);

  // The file's probes become those of the other mode: first come the new ones, then `tell` says who
  // is in that mode, then the old ones go. Errors: nothing has changed.
  Status set_light(File& file, bool light, const std::function<void()>& tell);
  // Why it cannot be traced in light mode, or nothing.
  static std::string light_refusal(const File& file);
  // Exact mode's, in one process alone, which may have the file's, too (GT_OWN, GT_SWAP).
  Result<Uprobes> attach_own(const File& file, uint32_t tgid) const;
  bool can_attach_own() const { return only_pid_ < 0 && can_probe_one_process(programs_.way); }
  const std::vector<File*>& numbered() const { return numbered_; }  // [0] is null

  // The file of an identity that was added before; else null.
  File* find(const FileId& id) const;

  // What the file is; where it is a CPython, its sites are probed when this returns. A file that
  // cannot be read is kept with its error; one that could not be probed is tried again. Never null.
  File* add(Fd fd, const std::string& path);
  File* by_number(uint32_t number) const;

  // Stops programs that run `file` at their entry point, or lets them run through.
  Status watch_entry(File& file, const Fd& fd);
  void unwatch_entry(File& file) { file.entry.reset(); }

  // Files that were written to since they were probed: a breakpoint of the old content must not
  // come into the new. They are not probed any more; under their new identity they are added again.
  std::vector<File*> take_overwritten();
  int writes_fd() const { return writes_.get(); }  // readable when there are

  // Many files were looked at since the last forget_plain(). Nobody may know a plain one then.
  bool crowded() const { return all_.size() >= crowd_; }
  void forget_plain();

  void clear();  // removes every probe
  size_t probed_files() const { return probed_files_; }

 private:
  Status attach_sites(File& file, const Fd& fd);
  Result<Uprobes> exact_probes(const File& file, const Fd& fd, int pid, uint64_t flags) const;
  Status attach_exact(File& file, const Fd& fd);
  Status attach_light(File& file, const Fd& fd);
  void drop_overwritten(const FileId& id);
  void detach(File& file);
  void attach_or_note(File& file, const Fd& fd);
  File* same_below(const FileId& id, const File& file) const;
  File* same_content(const FileId& id, const File& file) const;
  std::map<FileId, File*>::const_iterator first_of_inode(const FileId& id) const;

  Programs programs_;
  bool light_, changes_;
  int only_pid_;
  std::vector<std::unique_ptr<File>> all_;
  std::vector<File*> numbered_{nullptr};
  std::map<FileId, File*> files_;
  Fd writes_;                     // inotify
  std::map<int, File*> watches_;  // by its watch descriptors
  size_t probed_files_ = 0;
  static constexpr size_t kFewFiles = 16384;
  size_t crowd_ = kFewFiles;
};

}  // namespace giltop
