// Reads a recording as Perfetto's importer does, independently of TraceReader, and names every rule
// of the importer that it breaks (trace_processor: proto_trace_reader.cc, track_event_tokenizer.cc,
// generic_kernel_parser.cc, clock_synchronizer.cc).
#pragma once

#include <cstdint>
#include <map>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace giltop::testing {

struct TraceCounts {
  uint64_t bytes = 0, bundles = 0, packets = 0;
  uint64_t tracks = 0, threads = 0;
  uint64_t slices = 0, instants = 0, counters = 0;
  uint64_t states = 0;  // task states, those of the idle task left out
  uint64_t flows_begun = 0, flows_ended = 0;
  uint64_t losses = 0;
  std::map<uint64_t, uint64_t> running_ns;  // as it is shown, by thread id
  std::map<uint64_t, uint64_t> held_ns;     // slices "GIL held" that end, by thread id
  uint64_t contended = 0, forced = 0;       // slices whose arguments say so
  uint64_t waits_told = 0;                  // waits whose arguments say what the holders did
  std::vector<std::string> odd_waits;       // of these, where that is not all of it
  std::map<int, std::string> ranked;        // tracks by their rank among their siblings
  std::map<std::string, std::string> attributes;
  bool truncated = false;  // the last packet is not whole: a recorder that was killed
  bool finished = false;   // it says that it ended
};

// One line for each broken rule, at most a hundred; none: the trace is fine.
std::vector<std::string> check_trace(const std::string& path, TraceCounts* counts = nullptr);
// The same of the file's bytes.
std::vector<std::string> check_trace_bytes(std::string_view bytes, TraceCounts* counts = nullptr);

// A protobuf message by field numbers, for traces that are made up.
class Message {
 public:
  Message& field(uint32_t number, uint64_t value) {
    protozero::pbf_writer(data_).add_uint64(number, value);
    return *this;
  }
  Message& fixed64(uint32_t number, uint64_t value) {
    protozero::pbf_writer(data_).add_fixed64(number, value);
    return *this;
  }
  Message& bytes(uint32_t number, std::string_view value) {
    protozero::pbf_writer(data_).add_bytes(number, value.data(), value.size());
    return *this;
  }
  const std::string& data() const { return data_; }

 private:
  std::string data_;
};

}  // namespace giltop::testing
