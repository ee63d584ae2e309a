// Bytes of the ring (include/giltop/abi.h) to events.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "event/event.h"

namespace giltop {

struct DecodeCounts {
  uint64_t records = 0;
  uint64_t malformed = 0;  // an unknown kind, or a size that is not its kind's
};

// Called once per record; `sink(event)` is called for each event in it (a context switch holds two:
// who left, then who came; a fork in a PID namespace says its id there). Records are checked
// against their size. ENTRY records carry no event.
class Decoder {
 public:
  explicit Decoder(EventTables& tables) : tables_(tables) {}

  template <typename Sink>
  void decode(std::span<const std::byte> record, Sink&& sink);

  const DecodeCounts& counts() const { return counts_; }

 private:
  // Everything but the GIL and scheduler kinds. False: malformed, or nothing for the model.
  // `ns_tid`: the thread's id in its own PID namespace; 0 where that is the initial one.
  bool decode_rare(std::span<const std::byte> record, Event& event, uint32_t& ns_tid);

  EventTables& tables_;
  DecodeCounts counts_;
};

}  // namespace giltop

#include "event/decode_inl.h"
