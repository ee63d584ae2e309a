#include "cli/live.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "probe/uprobes.h"

namespace giltop {
namespace {

// A wakeup may find nothing; new programs are looked at no later than that, and frames are behind
// by two of it.
constexpr int kPoll_ms = 50;
constexpr int kFirstPoll_ms = 15;  // so that a first frame that is due at once has something

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  (void)gethostname(name, sizeof(name) - 1);
  return name;
}

// Wall-clock time of a moment of CLOCK_BOOTTIME, as text and in ms since midnight.
void tell_time(uint64_t at_ns, LiveFrame& frame) {
  const uint64_t wall_ns = clock_ns(CLOCK_REALTIME) - (boot_ns() - at_ns);
  const auto seconds = static_cast<std::time_t>(wall_ns / 1'000'000'000);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char text[16];
  std::strftime(text, sizeof(text), "%H:%M:%S", &parts);
  frame.clock = text;
  frame.clock_ms =
      static_cast<uint64_t>((parts.tm_hour * 60 + parts.tm_min) * 60 + parts.tm_sec) * 1000 +
      wall_ns / 1'000'000 % 1000;
}

}  // namespace

Result<std::unique_ptr<Live>> Live::make(LiveOptions options, std::optional<Child>& child) {
  std::vector<std::string> notes;
  if (options.mode == Mode::automatic && uprobe_way() == UprobeWay::perf) {
    options.mode = Mode::exact;
    notes.push_back(
        "exact mode, whatever it costs: to change modes while tracing needs Linux 6.6 or newer");
  }
  std::unique_ptr<Live> live(new Live(std::move(options), child));
  live->notes_ = std::move(notes);
  live->frame_.host = host_name();
  live->tracing_.model().begin_interval();
  if (const Status ready = live->tracing_.prepare(); !ready) return ready.error();
  return live;
}

Status Live::start() {
  started_ns_ = boot_ns();
  if (const Status armed = tracing_.arm(); !armed) return armed;
  if (child_) child_->go();
  next_tick_ns_ =
      boot_ns() + (options_.first_delay_ns ? options_.first_delay_ns : options_.delay_ns);
  return ok();
}

// Events come in order; one that comes behind its turn is moved behind what was told.
void Live::take(const Event& event) {
  pass(event.ts_ns);
  Model& model = tracing_.model();
  if (event.ts_ns >= model.last_ns()) [[likely]] {
    model.apply(event);
  } else {
    Event late = event;
    late.ts_ns = model.last_ns();
    model.apply(late);
  }
}

// The columns and seconds that are over by then.
void Live::pass(uint64_t ts_ns) {
  timeline_.pass(tracing_.model(), ts_ns);
  history_.pass(tracing_.model(), ts_ns);
}

Result<bool> Live::poll(int timeout_ms) {
  const uint64_t now = boot_ns();
  const uint64_t left_ms = next_tick_ns_ > now ? (next_tick_ns_ - now) / 1'000'000 + 1 : 0;
  const bool first = interval_.last_ns == 0 && options_.first_delay_ns != 0;
  const int wait_ms = std::min({timeout_ms, first ? kFirstPoll_ms : kPoll_ms,
                                static_cast<int>(std::min<uint64_t>(left_ms, INT_MAX))});
  const Status polled = tracing_.poll(wait_ms, [this](const Event& event) { take(event); });
  if (!polled) return polled.error();
  pass(std::max(tracing_.session().watermark(), tracing_.model().last_ns()));
  if (boot_ns() < next_tick_ns_) return false;
  tick();
  return true;
}

void Live::tick() {
  Model& model = tracing_.model();
  const uint64_t until = std::max(tracing_.session().watermark(), model.last_ns());
  pass(until);
  model.advance_to(until);
  tracing_.update_run();
  Snapshot now = snapshot_of(model, tracing_.run());
  model.begin_interval();
  now.first_ns = std::min(started_ns_, now.last_ns);
  frame_.lost_events = now.lost_events;
  if (accumulate_) {
    accumulated_ = since_reset_.since(now);
  } else {
    since_reset_.skip(now);
  }
  interval_ = intervals_.next(std::move(now));
  const double seconds = static_cast<double>(std::max<uint64_t>(interval_.duration_ns(), 1)) / 1e9;
  frame_.events_per_s = static_cast<double>(interval_.run.events) / seconds;
  frame_.giltop_cpu = static_cast<double>(interval_.run.own_cpu_ns) / 1e9 / seconds;
  frame_.accumulated = accumulate_;
  frame_.interval = accumulate_ ? accumulated_ : interval_;
  tell_time(until, frame_);
  frame_.notes = notes_;
  for (std::string& line : tracing_.session().refusals()) frame_.notes.push_back(std::move(line));
  frame_.wait_history = history_.values();
  frame_.timeline = timeline_.timeline();
  const uint64_t at = boot_ns();
  next_tick_ns_ += options_.delay_ns;
  if (next_tick_ns_ <= at) next_tick_ns_ = at + options_.delay_ns;
}

void Live::stop() {
  tracing_.stop([this](const Event& event) { take(event); });
  tracing_.run().finished = true;
  tick();
}

void Live::set_delay(uint64_t ns) {
  next_tick_ns_ = next_tick_ns_ - std::min(next_tick_ns_, options_.delay_ns) + ns;
  options_.delay_ns = ns;
}

void Live::set_accumulated(bool accumulated) {
  if (accumulated == accumulate_) return;
  accumulate_ = accumulated;
  frame_.accumulated = accumulated;
  const bool any = interval_.last_ns != 0;
  if (accumulated) {
    if (any) next_tick_ns_ = 0;  // what that is is not known before the next look
  } else {
    frame_.interval = interval_;
  }
}

// What there is is shown at once. The next frame is a delay later, however often that is wanted.
void Live::reset() {
  next_tick_ns_ = boot_ns();
  tick();
  since_reset_ = Intervals();
  (void)since_reset_.next(snapshot_of(tracing_.model(), tracing_.run()));
  if (accumulate_) next_tick_ns_ = 0;  // nothing yet, but that is to be shown
}

void Live::watch(uint64_t process) { timeline_.watch(process, tracing_.model()); }

}  // namespace giltop
