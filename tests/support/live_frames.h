// Frames of the live view made by hand.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "view/live.h"
#include "view/live_state.h"

namespace giltop::testing {

// Builds snapshots of an interval of one second that ends at `end_ns`.
struct FrameMaker {
  uint64_t end_ns = 100'000'000'000;
  uint64_t next_number = 1;
  LiveFrame frame;

  FrameMaker();
  ProcessSnapshot& process(uint32_t pid, const std::string& comm, const std::string& cmdline,
                           const std::string& python);
  // Its number is its tid. Milliseconds in: holding running, preempted, asleep; waiting; native;
  // wants a CPU; asleep.
  ThreadSnapshot& thread(ProcessSnapshot& process, uint32_t tid, const std::string& comm,
                         const std::vector<unsigned>& cells_ms);
  GilSnapshot& gil(ProcessSnapshot& process, const std::vector<unsigned>& ledger_ms);
};

HistogramSnapshot histogram_of(const std::vector<uint64_t>& values_ns);

// The host of the design's screens: a starved gunicorn, a quiet celery, a free-threaded kernel.
LiveFrame web_host();
LiveFrame random_frame(std::mt19937_64& random);
// `watched`: the process's threads in turns, every 5 ms.
Timeline timeline_of(const ProcessSnapshot& process, uint64_t end_ns);

}  // namespace giltop::testing
