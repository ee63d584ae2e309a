// MmapWatch: hears of every file that any process of the host maps executable.
//
// A CPython may come into a process at any time: as its program, as a library that the loader or
// dlopen(3) maps. The kernel tells of all of them with PERF_RECORD_MMAP2 (include/uapi/linux/
// perf_event.h), on every kernel that giltop runs on and without BPF.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "target/process.h"

namespace giltop {

struct NewMapping {
  uint32_t tgid = 0;  // of the initial PID namespace
  MappedFile file;
  uint64_t generation = 0;  // of the inode
};

class MmapWatch {
 public:
  // Errors: perf events are not permitted, or the kernel has none.
  static Result<MmapWatch> make();
  MmapWatch(MmapWatch&& other) noexcept = default;
  MmapWatch& operator=(MmapWatch&&) = delete;
  ~MmapWatch();

  // Passes on the mappings since the last call, those of one CPU in order. False: some were lost,
  // and whoever wants to know all must look into /proc.
  bool drain(const std::function<void(const NewMapping&)>& sink);

  // Readable when there is something to drain. One a CPU.
  std::vector<int> poll_fds() const;

 private:
  MmapWatch() = default;
  struct Ring {
    Fd fd;
    std::byte* pages = nullptr;  // the control page, then the data
  };
  bool drain(const Ring& ring, const std::function<void(const NewMapping&)>& sink);

  std::vector<Ring> rings_;
  size_t page_ = 0;
};

}  // namespace giltop
