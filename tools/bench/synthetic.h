// Records as the ring delivers them, of programs that never ran.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "giltop/abi.h"

namespace giltop::bench {

// Records, each behind its length, in the order in which their places in the ring were reserved.
class Records {
 public:
  void add(std::span<const std::byte> record) {
    const uint64_t length = record.size();
    const auto* begin = reinterpret_cast<const std::byte*>(&length);
    bytes_.insert(bytes_.end(), begin, begin + sizeof(length));
    bytes_.insert(bytes_.end(), record.begin(), record.end());
    count_++;
  }
  template <typename Record>
  void add(const Record& record) {
    static_assert(sizeof(Record) % 8 == 0);
    add(std::as_bytes(std::span(&record, 1)));
  }
  uint64_t count() const { return count_; }
  bool done(size_t at) const { return at >= bytes_.size(); }

  // Calls sink(record) for the records from byte `at` on, about `bytes` of them; returns where the
  // next begins.
  template <typename Sink>
  size_t take(size_t at, size_t bytes, Sink&& sink) const {
    for (const size_t end = at + bytes; at < end && at < bytes_.size();) {
      uint64_t length;
      std::memcpy(&length, bytes_.data() + at, sizeof(length));
      sink(std::span(bytes_.data() + at + sizeof(length), length));
      at += sizeof(length) + length;
    }
    return at;
  }

 private:
  std::vector<std::byte> bytes_;
  uint64_t count_ = 0;
};

// How much earlier than the one before it in the ring a record's time may be.
inline constexpr uint64_t kDisorder_ns = 400;

// Gets them in parts, in order.
using RecordSink = std::function<void(Records&&)>;

// Passes on about `count` records, `part` at a time. The first three are of one process on two
// CPUs; how long their steps take and how much that varies is as in live recordings.
// One thread, os.write in a loop: release, acquire, …
void uncontended_writer(uint64_t count, uint64_t part, const RecordSink& sink);
// Four threads do: waits, hand-offs, switches, wakeups.
void four_writers(uint64_t count, uint64_t part, const RecordSink& sink);
// Two threads compute: a forced switch every 5 ms.
void two_computers(uint64_t count, uint64_t part, const RecordSink& sink);
// Threads that are there for a fifth of a millisecond, each with a name of its own, in processes
// that are there for 64 of them: 42 records a thread.
void brief_threads(uint64_t count, uint64_t part, const RecordSink& sink);

}  // namespace giltop::bench
