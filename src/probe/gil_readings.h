// What was read of a process at attach, as events for the model.
#pragma once

#include <cstdint>
#include <vector>

#include "event/event.h"
#include "target/process_gils.h"

namespace giltop {

// Of the time at which the reading ended; threads first, so that the holder's scheduler state is
// known when its hold begins. Pure.
inline std::vector<Event> reading_events(uint32_t tgid, const ProcessGils& read) {
  std::vector<Event> events;
  const auto add = [&](EventKind kind, uint64_t value, uint8_t state) -> Event& {
    Event& event = events.emplace_back();
    event.ts_ns = read.end_ns;
    event.kind = kind;
    event.tgid = tgid;
    event.value = value;
    event.state = state;
    return event;
  };
  for (const ProcessGils::Thread& thread : read.threads) {
    using State = ProcessGils::Thread::State;
    uint8_t bits = thread.blocked ? kReadBlocked : 0;
    if (thread.state == State::waiting) bits |= kReadWaiting;
    if (thread.state == State::released) bits |= kReadReleased;
    Event& event = add(EventKind::thread_read, thread.gil, bits);
    event.tid = static_cast<uint32_t>(thread.tid);
    event.cpu = static_cast<uint16_t>(thread.cpu);
  }
  for (const ProcessGils::Gil& gil : read.gils) {
    using State = GilInMemory::State;
    GilReading reading = GilReading::unknown;
    switch (gil.memory.state) {
      case State::unknown:
        break;
      case State::not_created:
        reading = GilReading::not_created;
        break;
      case State::disabled:
        reading = GilReading::disabled;
        break;
      case State::free:
        reading = GilReading::free;
        break;
      case State::held:
        reading = GilReading::held;
        break;
    }
    Event& event = add(EventKind::gil_read, gil.memory.address, static_cast<uint8_t>(reading));
    event.tid = static_cast<uint32_t>(gil.holder);
    // Interpreters are numbered from 0 on and never twice: one that does not fit is not named.
    if (!gil.memory.interpreters.empty() &&
        static_cast<uint64_t>(gil.memory.interpreters.front()) < ~uint32_t{0})
      event.other = static_cast<uint32_t>(gil.memory.interpreters.front()) + 1;
  }
  return events;
}

}  // namespace giltop
