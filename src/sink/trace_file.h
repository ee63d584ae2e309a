// TraceFile: blocks of packets, compressed on a thread of their own, appended to a file.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/fd.h"
#include "base/result.h"

struct libdeflate_compressor;

namespace giltop {

// A file that was there becomes FILE.old. Each block is one compressed_packets packet, written with
// one write(2): a recorder that is killed leaves a file that ends at a block. When the disk fills
// or the file breaks, the first error is kept and later blocks are dropped: recording goes on being
// harmless to its target, and error() tells.
class TraceFile {
 public:
  struct Owner {
    unsigned uid, gid;
  };

  // `owner`: who gets the file, when giltop runs under sudo. Errors: the path cannot be written.
  static Result<std::unique_ptr<TraceFile>> make(const std::string& path,
                                                 std::optional<Owner> owner);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  // Waits while kQueue blocks are waiting: the backlog then stays in the ring, where it is counted.
  void write(std::string block);
  // Takes it all back: the file is removed if it was made here, and the old one is there again.
  void discard();
  // Writes what is left and closes. Errors: the first that any write met.
  Status close();

  bool failed();
  uint64_t bytes_written();

 private:
  TraceFile(Fd fd, std::string path, bool made, bool renamed);
  void run();
  void put(const std::string& block);

  static constexpr size_t kQueue = 8;
  // The packets of live recordings of 1 and of 4 threads of os.write, to zlib's format; Xeon at
  // 2.1 GHz:
  //     by               ns/event    bytes/event
  //     zlib 1           111, 163    2.55, 3.90
  //     libdeflate 1      56,  80    2.51, 3.81
  //     libdeflate 2      73, 107    2.46, 3.76
  //     libdeflate 4      75, 144    2.44, 3.62
  // Larger blocks change neither by more than a hundredth. To decompress them takes zlib 43 and 57
  // ns an event, libdeflate 11 and 15.
  // Light mode's are less regular, and fewer: a writer whose blocks are far between takes a better
  // level, and a better one still for the little that a second brings.
  static constexpr int kFastLevel = 1, kGoodLevel = 6, kBestLevel = 9;
  static constexpr uint64_t kFarBetween_ns = 20'000'000;
  static constexpr size_t kLittle = 64 * 1024;  // bytes of a block

  Fd fd_;
  std::string path_;
  bool made_;     // it was not there before, and is a regular file
  bool renamed_;  // what was there is FILE.old now
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  bool closing_ = false;
  std::optional<Error> error_;
  uint64_t bytes_ = 0;
  struct CompressorDeleter {
    void operator()(libdeflate_compressor* c) const;
  };
  using Compressor = std::unique_ptr<libdeflate_compressor, CompressorDeleter>;
  Compressor fast_, good_, best_;
  uint64_t last_block_ns_ = 0;
  std::string packed_;
  std::thread thread_;
};

}  // namespace giltop
