// giltop_bench_http_load PORT RATE WARM_UP SECONDS PID: asks the server on loopback for RATE pages
// a second, each on a connection of its own, and prints how long they took as JSON, how much of its
// CPU time the server, the process PID, took meanwhile, and how many pages it made in all.
//
// An open loop: when a page is asked for does not depend on when others came. The moments are those
// of a Poisson process, the same in each run, and a page's time counts from the moment it was due.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"

namespace giltop::bench {
namespace {

constexpr double kSecond = 1e9;
constexpr uint64_t kPatience_ns = 5'000'000'000;

uint64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

// One page on its way.
struct Request {
  Fd socket;
  uint64_t due_ns;
  bool sent = false;
  bool answered = false;  // with the status that it should have
};

class Load {
 public:
  explicit Load(uint16_t port) {
    server_.sin_family = AF_INET;
    server_.sin_port = htons(port);
    server_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }

  void ask(uint64_t due_ns);
  // Serves the requests under way until `until_ns`.
  void serve(uint64_t until_ns);
  void finish();

  std::vector<uint64_t> times_ns;
  uint64_t errors = 0;

 private:
  bool advance(Request& request);  // false: it is over

  sockaddr_in server_{};
  std::vector<Request> under_way_;
  std::vector<pollfd> polled_;
};

void Load::ask(uint64_t due_ns) {
  Request request{Fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), due_ns};
  const auto* address = reinterpret_cast<const sockaddr*>(&server_);
  if (!request.socket ||
      (connect(request.socket.get(), address, sizeof(server_)) != 0 && errno != EINPROGRESS)) {
    errors++;
    return;
  }
  under_way_.push_back(std::move(request));
}

bool Load::advance(Request& request) {
  if (!request.sent) {
    constexpr std::string_view text = "GET /page HTTP/1.0\r\n\r\n";
    if (send(request.socket.get(), text.data(), text.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(text.size())) {
      errors++;
      return false;
    }
    request.sent = true;
    return true;
  }
  char buffer[16384];
  const ssize_t got = recv(request.socket.get(), buffer, sizeof(buffer), 0);
  if (got > 0) {
    // The server sends its status line in one piece, first.
    const std::string_view text(buffer, static_cast<size_t>(got));
    if (text.starts_with("HTTP/1.0 200")) request.answered = true;
    return true;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got == 0 && request.answered) {
    times_ns.push_back(now_ns() - request.due_ns);
  } else {
    errors++;
  }
  return false;
}

void Load::serve(uint64_t until_ns) {
  for (uint64_t now = now_ns(); now < until_ns; now = now_ns()) {
    polled_.clear();
    for (const Request& r : under_way_)
      polled_.push_back({r.socket.get(), static_cast<short>(r.sent ? POLLIN : POLLOUT), 0});
    const uint64_t left = until_ns - now;
    const timespec timeout{static_cast<time_t>(left / 1'000'000'000),
                           static_cast<long>(left % 1'000'000'000)};
    if (ppoll(polled_.data(), polled_.size(), &timeout, nullptr) <= 0) continue;
    for (size_t i = polled_.size(); i-- > 0;) {
      if (!polled_[i].revents || advance(under_way_[i])) continue;
      under_way_.erase(under_way_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
}

void Load::finish() {
  const uint64_t end = now_ns() + kPatience_ns;
  while (!under_way_.empty() && now_ns() < end) serve(std::min(end, now_ns() + 1'000'000));
  errors += under_way_.size();
  under_way_.clear();
}

void run(Load& load, std::mt19937_64& random, double rate, double seconds) {
  const uint64_t begin = now_ns(), end = begin + static_cast<uint64_t>(seconds * kSecond);
  double due = static_cast<double>(begin);
  while (true) {
    const double uniform = (static_cast<double>(random() >> 11) + 0.5) / 0x1p53;
    due += -std::log(uniform) / rate * kSecond;
    const auto due_ns = static_cast<uint64_t>(due);
    if (due_ns >= end) break;
    load.serve(due_ns);
    load.ask(due_ns);
  }
  load.finish();
}

double quantile_s(const std::vector<uint64_t>& sorted, double q) {
  const auto at = static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5);
  return static_cast<double>(sorted[at]) / kSecond;
}

int main(int argc, char** argv) {
  double numbers[5] = {};
  for (int i = 1; i < argc && i <= 5; i++) numbers[i - 1] = std::strtod(argv[i], nullptr);
  const auto [port, rate, warm_up_s, seconds, pid] = numbers;
  if (argc != 6 ||
      !(port >= 1 && port < 65536 && rate > 0 && warm_up_s > 0 && seconds > 0 && pid >= 1)) {
    fmt::print(stderr, "usage: giltop_bench_http_load PORT RATE WARM_UP SECONDS PID\n");
    return 2;
  }
  clockid_t server_cpu;
  if (clock_getcpuclockid(static_cast<pid_t>(pid), &server_cpu) != 0) {
    fmt::print(stderr, "giltop_bench_http_load: there is no process {}\n", argv[5]);
    return 1;
  }
  prctl(PR_SET_TIMERSLACK, 1);  // or a page is asked for up to 50 µs after it is due
  std::mt19937_64 random;
  Load load(static_cast<uint16_t>(port));
  run(load, random, rate, warm_up_s);
  const size_t warm = load.times_ns.size();
  const uint64_t start_cpu_ns = clock_ns(server_cpu);
  run(load, random, rate, seconds);
  const uint64_t cpu_ns = clock_ns(server_cpu) - start_cpu_ns;
  std::vector<uint64_t> times(load.times_ns.begin() + static_cast<ptrdiff_t>(warm),
                              load.times_ns.end());
  if (times.empty()) {
    fmt::print(stderr, "giltop_bench_http_load: no answers, {} errors\n", load.errors);
    return 1;
  }
  std::sort(times.begin(), times.end());
  fmt::print(
      "{{\"pages\": {}, \"total\": {}, \"errors\": {}, \"p50_s\": {}, \"p99_s\": {}, "
      "\"cpu_s\": {}}}\n",
      times.size(), load.times_ns.size(), load.errors, quantile_s(times, 0.5),
      quantile_s(times, 0.99), static_cast<double>(cpu_ns) / kSecond);
  return 0;
}

}  // namespace
}  // namespace giltop::bench

int main(int argc, char** argv) { return giltop::bench::main(argc, argv); }
