// The hot part of Decoder, inlined into the drain loop.
#pragma once

#include <cstring>

#include "giltop/abi.h"

namespace giltop {

// A GIL record is an Event.
static_assert(offsetof(Event, ts_ns) == offsetof(gt_header, ts_ns) &&
              offsetof(Event, tgid) == offsetof(gt_header, tgid) &&
              offsetof(Event, tid) == offsetof(gt_header, tid) &&
              offsetof(Event, cpu) == offsetof(gt_header, cpu) &&
              offsetof(Event, kind) == offsetof(gt_header, kind) &&
              offsetof(Event, state) == offsetof(gt_header, state) &&
              offsetof(Event, other) == offsetof(gt_header, extra) &&
              offsetof(Event, value) == offsetof(gt_gil, gil) && sizeof(Event) == sizeof(gt_gil));
static_assert(static_cast<int>(EventKind::gil_wait) == GT_GIL_WAIT &&
              static_cast<int>(EventKind::gil_acquire) == GT_GIL_ACQUIRE &&
              static_cast<int>(EventKind::gil_release) == GT_GIL_RELEASE &&
              static_cast<int>(EventKind::gil_forced) == GT_GIL_FORCED);

template <typename Sink>
inline void Decoder::decode(std::span<const std::byte> record, Sink&& sink) {
  counts_.records++;
  gt_header header;
  if (record.size() < sizeof(header)) {
    counts_.malformed++;
    return;
  }
  std::memcpy(&header, record.data(), sizeof(header));
  // The ring pads records to 8 bytes, so a size may exceed its struct's by less than that: all
  // structs are multiples of 8, hence equality.
  if (header.kind <= GT_GIL_FORCED) {
    if (record.size() != sizeof(gt_gil) || header.tid == 0 || header.tid > kMaxTid ||
        header.tgid > kMaxTid) {
      counts_.malformed++;
      return;
    }
    Event event;
    std::memcpy(&event, record.data(), sizeof(event));
    if (header.kind == GT_GIL_WAIT)  // what GT_NO_TRAP says is not the model's
      event.state = (header.state & GT_EARLIER) != 0;
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
        body.next_tgid > kMaxTid || (header.state & GT_TASK_STATE_MASK) > GT_TASK_DEAD) {
      counts_.malformed++;
      return;
    }
    Event event;
    event.ts_ns = header.ts_ns;
    event.cpu = header.cpu;
    event.value = body.uncharged_ns;
    if (header.tid != 0) {
      event.kind = EventKind::switch_out;
      event.tgid = header.tgid;
      event.tid = header.tid;
      event.state = header.state & ~GT_GIL_MUTEX;
      event.other = body.prev_ran_ns;
      sink(event);
    }
    if (header.extra != 0) {
      event.kind = EventKind::switch_in;
      event.tgid = body.next_tgid;
      event.tid = header.extra;
      event.state = 0;
      event.other = 0;
      sink(event);
    }
    return;
  }
  Event event;
  event.ts_ns = header.ts_ns;
  event.tgid = header.tgid;
  event.tid = header.tid;
  event.cpu = header.cpu;
  uint32_t ns_tid = 0;
  if (decode_rare(record, event, ns_tid)) sink(event);
  if (ns_tid == 0) return;
  event.kind = EventKind::ns_id;
  event.state = 0;
  event.value = 0;
  event.other = ns_tid;
  sink(event);
}

}  // namespace giltop
