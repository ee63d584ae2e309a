// Spans: what each thread was doing, moment by moment, for a picture of the whole run.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "model/model.h"

namespace giltop {

// GilState * 4 + CpuState; or kMixed.
struct Span {
  static constexpr unsigned kMixed = 16;
  uint64_t ns : 58;
  uint64_t cell : 6;

  bool operator==(const Span&) const = default;
};

// One thread's life, without a gap.
struct SpanRow {
  uint64_t thread = 0;  // number
  uint64_t first_ns = 0;
  std::vector<Span> spans;
  std::vector<Span> parts;  // of the mixed spans, in order: each's add up to its duration
  // From this span on it is about the GIL of this number that the thread holds or waits.
  std::vector<std::pair<size_t, uint64_t>> gils;

  std::array<uint64_t, 16> cells() const;  // ns in each
};

struct Spans {
  uint64_t resolution_ns = 0;  // what is shorter may be part of a mixed span; 0: nothing is
  std::vector<SpanRow> rows;

  size_t count() const;
  // Neighbours that are shorter than `resolution_ns` become one mixed span at least as long, where
  // there are enough of them. What a thread spent in each state stays as it is, to the nanosecond.
  void coarsen(uint64_t resolution_ns);
};

// Makes the spans out of what each event changed. What the model books otherwise later (when a
// switch tells how long the kernel says a run has lasted, or a sample of light mode who held the
// GIL) is moved in the newest spans that have it, so a row's spans always add up to its thread's
// matrix.
class SpanRecorder {
 public:
  // Of all threads; where there would be more they are made coarser, so that memory is bounded.
  static constexpr size_t kMost = size_t{1} << 24;

  explicit SpanRecorder(size_t most = kMost) : most_(most) {}

  // After each event, with what it changed.
  void take(const Model& model, const Event& event, const Change& change);
  // Of the threads that the model keeps one by one. The recorder is empty then.
  Spans finish();

 private:
  using Cells = std::array<uint64_t, 16>;  // ns
  struct Recorded {
    const Thread* thread = nullptr;
    uint64_t until_ns = 0;  // all before it is in `row`
    unsigned cell = 0;      // and after it
    uint64_t gil = 0;       // number
    Cells told{};           // what the row's spans add up to
    SpanRow row;
  };

  void look(const Thread& thread, bool moved);
  void append(Recorded& recorded, uint64_t ns);
  void correct(Recorded& recorded, const Cells& now);
  void limit();

  size_t most_;
  size_t count_ = 0;
  uint64_t resolution_ns_ = 0;
  std::vector<Recorded> threads_;  // by index
};

}  // namespace giltop
