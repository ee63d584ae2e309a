// HistSource: where a live histogram's figures come from. Either every wait is an event that the
// model takes, or the kernel side counts them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/live.h"
#include "model/wait_tally.h"

namespace giltop {

// make, start, poll …, stop.
class HistSource {
 public:
  virtual ~HistSource() = default;

  // Lets events flow, and the command go. Errors: nothing is left to trace.
  virtual Status start() = 0;
  // Waits, at most some ms. True: an interval is over, and latest() is new. Errors: the command
  // cannot be executed; the kernel's.
  virtual Result<bool> poll() = 0;
  // Whether the command, or all processes that were named, have ended.
  virtual bool ended() const = 0;
  // Ends tracing. latest() is what was left. Errors: the kernel's.
  virtual Status stop() = 0;

  virtual const Snapshot& latest() const = 0;
  virtual std::vector<std::string> notes() = 0;
};

// Of all that threads do.
class EventSource final : public HistSource {
 public:
  // `child` outlives it. Errors: as Live's.
  static Result<std::unique_ptr<HistSource>> make(const LiveOptions& options,
                                                  std::optional<Child>& child);

  Status start() override { return live_->start(); }
  Result<bool> poll() override;
  bool ended() const override { return live_->ended(); }
  Status stop() override;
  const Snapshot& latest() const override { return live_->frame().interval; }
  std::vector<std::string> notes() override { return live_->frame().notes; }

 private:
  explicit EventSource(std::unique_ptr<Live> live) : live_(std::move(live)) {}
  std::unique_ptr<Live> live_;
};

// Of waits and hand-offs in light mode, which the kernel side counts. What it counted is read each
// second, if not more often, so that what has ended makes room; and taken when all events up to
// then are through, which tell of whom it is.
class CountSource final : public HistSource {
 public:
  // `child` outlives it. Errors: as Tracing's.
  static Result<std::unique_ptr<HistSource>> make(LiveOptions options, const WaitCounting& counting,
                                                  std::optional<Child>& child);

  Status start() override;
  Result<bool> poll() override;
  bool ended() const override { return tracing_.ended(); }
  Status stop() override;
  const Snapshot& latest() const override { return latest_; }
  std::vector<std::string> notes() override { return tracing_.session().refusals(); }

 private:
  CountSource(LiveOptions options, std::optional<Child>& child)
      : options_(std::move(options)), child_(child), tracing_(options_, child) {}

  void take(const Event& event) { tally_.apply(event, tracing_.tables()); }
  Status read();
  void tell();

  LiveOptions options_;
  std::optional<Child>& child_;
  Tracing tracing_;
  WaitTally tally_;
  std::optional<CountedWaits> read_;  // and not taken yet
  uint64_t read_ns_ = 0, next_read_ns_ = 0, next_tick_ns_ = 0;
  Snapshot latest_;
};

}  // namespace giltop
