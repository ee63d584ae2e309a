// Session: one tracing session of the kernel side: load, track, attach, arm, drain, stop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "event/counted_waits.h"
#include "event/decode.h"
#include "event/event.h"
#include "event/reorder.h"

namespace giltop {

// exact: every hand-over of the GIL traps. light: only a thread that has to wait for it does, and
// who holds it is sampled. automatic: exact, but for Pythons with a process that it would cost more
// than the budget.
enum class Mode { exact, light, automatic };

// Waits are counted in the kernel, too (light mode): see counted().
struct WaitCounting {
  bool by_thread = false;  // else by process
  bool handoffs = false;   // these as well, by process: the hook of wakeups is set for it
  // Of threads, no events but of processes: that they begin, what they run, that they end.
  bool instead_of_events = true;
  // Buckets of all threads or processes together that have room: 112 bytes each.
  uint32_t room = 131072;
};

struct SessionOptions {
  Mode mode = Mode::exact;
  double budget = 0.02;   // of Mode::automatic: part of a process's time, above 0
  size_t ring_bytes = 0;  // of all CPUs together; a power of two, at least 4096; 0: as it does well
  // Trace children too, whatever they execute: a traced process is stopped for some ms when it
  // executes a file that is new to giltop, so that none of its events is missed.
  bool follow_children = true;
  bool host_wide = false;  // every CPython process of the host, now and later; holds nobody
  int only_pid = -1;       // set probes in this process alone
  std::optional<WaitCounting> counting;
};

// In this order: make, track (and attach_process or attach_all for what runs already), arm, poll …,
// stop. Probes are set before anything is emitted; everything is gone from the kernel when the
// session is.
class Session {
 public:
  using EventSink = std::function<void(const Event&)>;

  // Errors say what is missing and what to do: no root, no BTF, an old kernel, no BPF.
  static Result<std::unique_ptr<Session>> make(const SessionOptions& options, EventTables& tables);
  virtual ~Session() = default;

  // Traces `tgid` from now on. Errors: there is no such id.
  virtual Status track(uint32_t tgid) = 0;

  // Finds the CPython in a running process and probes it. Errors: no such process; not a CPython
  // that can be traced, and why.
  virtual Status attach_process(uint32_t tgid) = 0;

  // Finds every CPython process of the host and traces it. What cannot be is in refusals().
  virtual void attach_all() = 0;

  // Lets events flow. Threads that are there already are reported as seen at this moment.
  virtual Status arm() = 0;

  // Waits for events, at most `timeout_ms`, and passes on all whose order is certain by now.
  virtual void poll(int timeout_ms, const EventSink& sink) = 0;

  // All events up to it have been passed on, boot clock, ns. It is behind by the last two polls.
  virtual uint64_t watermark() const = 0;
  // poll() returns when `fd` is readable, too.
  virtual void add_wakeup(int fd) = 0;

  // Removes the probes, passes on what is left, and an `end` event at the moment of the call.
  virtual void stop(const EventSink& sink) = 0;

  // Why processes that came to be seen under this session could not be traced, one line each.
  virtual std::vector<std::string> refusals() const = 0;

  virtual uint64_t records() const = 0;           // taken from the ring
  virtual uint64_t other_probe_hits() const = 0;  // in processes that are not traced
  virtual uint64_t probe_hits() const = 0;        // traps in the traced processes
  virtual double hit_cost_ns() const = 0;         // of one trap, measured here at start
  // CPU time that the traced processes would not have used without giltop: what was counted times
  // what each costs by the measurement at start (probe/cost_meter.h).
  virtual uint64_t cost_ns() const = 0;
  virtual uint64_t malformed() const = 0;
  virtual uint64_t late() const = 0;   // events that came behind their turn
  virtual uint64_t moved() const = 0;  // events whose time was moved, as it was another's

  // What the kernel side counted of waits up to now, also after stop(). Who has ended is told once.
  // Errors: the kernel's.
  virtual Result<CountedWaits> counted() = 0;
};

}  // namespace giltop
