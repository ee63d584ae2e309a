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
  // zlib on the packets of live recordings of 1 and of 4 threads of os.write; Xeon at 2.1 GHz:
  //     level or strategy   ns/event     bytes/event
  //     Z_RLE               103, 188     3.2, 5.9
  //     1                   105, 190     2.5, 5.0
  //     2                   106, 203     2.4, 4.8
  //     3                   135, 249     2.3, 4.4
  //     6                   262, 547     2.1, 3.9
  //     Z_HUFFMAN_ONLY      314, 381      18,  21
  // A smaller window or hash table, and deflateTune(), make it slower, larger or both.
  static constexpr int kLevel = 1;

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
  std::string packed_;
  std::thread thread_;
};

}  // namespace giltop
