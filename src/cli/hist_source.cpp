#include "cli/hist_source.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace giltop {
namespace {

constexpr int kWait_ms = 1000;
constexpr int kPoll_ms = 50;  // as Live's
constexpr uint64_t kRead_ns = 1'000'000'000;
constexpr size_t kRing_bytes = 1 << 20;  // some ten thousand processes that begin and end at once

}  // namespace

// --- events --------------------------------------------------------------------------------------

Result<std::unique_ptr<HistSource>> EventSource::make(const LiveOptions& options,
                                                      std::optional<Child>& child) {
  auto live = Live::make(options, child);
  if (!live) return live.error();
  return std::unique_ptr<HistSource>(new EventSource(std::move(*live)));
}

Result<bool> EventSource::poll() { return live_->poll(kWait_ms); }

Status EventSource::stop() {
  live_->stop();
  return ok();
}

// --- counts --------------------------------------------------------------------------------------

Result<std::unique_ptr<HistSource>> CountSource::make(LiveOptions options,
                                                      const WaitCounting& counting,
                                                      std::optional<Child>& child) {
  options.counting = counting;
  options.ring_bytes = kRing_bytes;
  std::unique_ptr<CountSource> source(new CountSource(std::move(options), child));
  if (const Status ready = source->tracing_.prepare(); !ready) return ready.error();
  return std::unique_ptr<HistSource>(std::move(source));
}

Status CountSource::start() {
  const uint64_t now = boot_ns();
  tally_.begin(now);
  if (const Status armed = tracing_.arm(); !armed) return armed;
  if (child_) child_->go();
  next_read_ns_ = now + std::min(kRead_ns, options_.delay_ns);
  next_tick_ns_ = now + options_.delay_ns;
  return ok();
}

Status CountSource::read() {
  auto counted = tracing_.session().counted();
  if (!counted) return counted.error();
  read_ = std::move(*counted);
  read_ns_ = boot_ns();
  return ok();
}

void CountSource::tell() {
  tally_.take(*std::exchange(read_, std::nullopt), read_ns_);
  tracing_.update_run();
}

Result<bool> CountSource::poll() {
  const uint64_t due_ns = std::min(next_read_ns_, next_tick_ns_);
  const uint64_t now = boot_ns();
  const uint64_t left_ms = read_ || due_ns <= now ? 0 : (due_ns - now) / 1'000'000 + 1;
  const int wait_ms =
      read_ ? kPoll_ms / 5 : static_cast<int>(std::min<uint64_t>(left_ms, kPoll_ms));
  const Status polled = tracing_.poll(wait_ms, [this](const Event& event) { take(event); });
  if (!polled) return polled.error();
  if (!read_) {
    if (boot_ns() < due_ns) return false;
    if (const Status done = read(); !done) return done.error();
  }
  if (tracing_.session().watermark() < read_ns_) return false;
  const bool is_new = read_ns_ >= next_tick_ns_;
  tell();
  if (is_new) {
    latest_ = tally_.next(tracing_.run());
    next_tick_ns_ = std::max(next_tick_ns_ + options_.delay_ns, read_ns_ + 1);
  }
  next_read_ns_ = read_ns_ + kRead_ns;
  return is_new;
}

Status CountSource::stop() {
  // What was read of those who had ended is read once.
  if (read_) {
    const auto all = [this](const Event& event) { take(event); };
    while (tracing_.session().watermark() < read_ns_)
      if (const Status polled = tracing_.poll(0, all); !polled) return polled;
    tell();
  }
  tracing_.stop([this](const Event& event) { take(event); });
  if (const Status done = read(); !done) return done;
  tell();
  tracing_.run().finished = true;
  latest_ = tally_.next(tracing_.run());
  return ok();
}

}  // namespace giltop
