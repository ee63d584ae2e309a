// TracePackets: the packets of a Perfetto trace, one writer, one sequence, in blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sink/proto_buffer.h"

namespace giltop {

// An argument of a slice.
struct Argument {
  uint8_t name;  // trace::kArg…
  uint64_t value;
  bool is_flag = false;
};

// What is said of a switch-out beside the state, for the reader.
struct OfSwitch {
  uint8_t sight = 0;
  std::optional<uint32_t> ran_ns = std::nullopt;
  int64_t lead_ns = 0;
};

struct ClockReading {
  uint64_t boottime_ns = 0, monotonic_ns = 0, realtime_ns = 0;
};

// Times of packets are differences to the packet before (the sequence's incremental clock), so
// packets must come in the order of time. It knows the format, not what is drawn.
class TracePackets {
 public:
  // Receives whole packet records, at most trace::kMaxBlockBytes at a time.
  using BlockSink = std::function<void(std::string block)>;
  explicit TracePackets(BlockSink block);

  void clocks(const ClockReading& clocks);
  void flush();  // hands over what there is

 protected:
  // A message of any size, in a packet of its own.
  void packet(uint64_t ts_ns, uint32_t field, std::string_view message);
  // Begins the sequence, or begins it anew after a loss: clocks, defaults and interned names.
  void begin_sequence(uint64_t ts_ns, const ClockReading* clocks, bool first);

  void slice_begin(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow = 0,
                   std::span<const Argument> arguments = {});
  void slice_end(uint64_t ts_ns, uint64_t uuid, uint64_t flow, bool cut,
                 std::span<const Argument> arguments = {});
  void instant(uint64_t ts_ns, uint64_t uuid, uint64_t name, uint64_t flow = 0,
               std::span<const Argument> arguments = {});
  void counter(uint64_t ts_ns, uint64_t uuid, uint64_t value);
  // cpu -1: none
  void task_state(uint64_t ts_ns, int cpu, uint32_t tid, uint32_t state,
                  const OfSwitch& of_switch = {});

  // An instant of the root track: begin, then annotations, then end. Names may be interned ones.
  void root_begin(const char* name);
  void root_begin(uint64_t name);
  void note(uint8_t name, uint64_t value);
  void note(std::string_view name, uint64_t value);
  void note(std::string_view name, std::string_view text);
  void root_end(uint64_t ts_ns);

  // Of the trace as a whole, for people.
  struct Attribute {
    std::string_view key;
    std::string_view text;  // empty: it is a number
    uint64_t number = 0;
  };
  void attributes(std::initializer_list<Attribute> list);

  void write_clocks();
  bool has_unwritten_clocks() const { return unwritten_clocks_.has_value(); }
  // Of interned data: a loss begins a new one.
  uint32_t epoch() const { return epoch_; }
  void raw_packet(std::string_view packet);  // one without time and sequence

 private:
  // Bytes. A nested message has a length of one byte: seven arguments, of 15 bytes at most, fit.
  static constexpr size_t kMaxHotPacket = 160;
  struct Packet {
    ProtoFields fields;
    char* length;
  };
  void make_room(uint64_t ts_ns);
  Packet begin_packet(uint64_t ts_ns);
  void end_packet(Packet& packet);

  BlockSink block_;
  ProtoBuffer out_;
  ProtoBuffer event_;  // the message under construction
  uint64_t last_ns_ = 0;
  std::optional<ClockReading> unwritten_clocks_;
  uint32_t epoch_ = 0;
};

}  // namespace giltop
