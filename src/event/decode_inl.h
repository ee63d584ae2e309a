// The hot part of Decoder, inlined into the drain loop.
#pragma once

#include <cstring>

#include "giltop/abi.h"

namespace giltop {

template <typename Sink>
inline void Decoder::decode(std::span<const std::byte> record, Sink&& sink) {
  counts_.records++;
  gt_header header;
  if (record.size() < sizeof(header)) {
    counts_.malformed++;
    return;
  }
  std::memcpy(&header, record.data(), sizeof(header));
  Event event;
  event.ts_ns = header.ts_ns;
  event.tgid = header.tgid;
  event.tid = header.tid;
  event.cpu = header.cpu;
  // The ring pads records to 8 bytes, so a size may exceed its struct's by less than that: all
  // structs are multiples of 8, hence equality.
  if (header.kind <= GT_GIL_FORCED) {
    if (record.size() != sizeof(gt_gil) || header.tid > kMaxTid || header.tgid > kMaxTid) {
      counts_.malformed++;
      return;
    }
    static_assert(static_cast<int>(EventKind::gil_wait) == GT_GIL_WAIT &&
                  static_cast<int>(EventKind::gil_acquire) == GT_GIL_ACQUIRE &&
                  static_cast<int>(EventKind::gil_release) == GT_GIL_RELEASE &&
                  static_cast<int>(EventKind::gil_forced) == GT_GIL_FORCED);
    event.kind = static_cast<EventKind>(header.kind);
    std::memcpy(&event.value, record.data() + offsetof(gt_gil, gil), sizeof(event.value));
    sink(event);
    return;
  }
  if (header.kind == GT_SWITCH) {
    gt_switch body;
    if (record.size() != sizeof(body)) {
      counts_.malformed++;
      return;
    }
    std::memcpy(&body, record.data(), sizeof(body));
    if (header.tid > kMaxTid || header.extra > kMaxTid || header.tgid > kMaxTid ||
        body.next_tgid > kMaxTid || header.state > GT_TASK_DEAD) {
      counts_.malformed++;
      return;
    }
    event.value = body.uncharged_ns;
    if (header.tid != 0) {
      event.kind = EventKind::switch_out;
      event.state = header.state;
      event.other = body.prev_ran_ns;
      sink(event);
    }
    if (header.extra != 0) {
      event.kind = EventKind::switch_in;
      event.state = 0;
      event.other = 0;
      event.tgid = body.next_tgid;
      event.tid = header.extra;
      sink(event);
    }
    return;
  }
  if (decode_rare(record, event)) sink(event);
}

}  // namespace giltop
