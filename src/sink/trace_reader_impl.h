// What the parts of TraceReader share.
#pragma once

#include <algorithm>
#include <protozero/pbf_reader.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "sink/trace_format.h"
#include "sink/trace_reader.h"

namespace giltop {

using protozero::pbf_reader;

inline constexpr uint64_t kMaxLength_ns = uint64_t{1} << 57;  // four years; a Span has one bit more

inline pbf_reader reader_of(std::string_view data) { return pbf_reader(data.data(), data.size()); }

// protozero asserts that a field has the type it is read as: of a file that is no bug of ours.
inline void expect_type(const pbf_reader& reader, protozero::pbf_wire_type type) {
  if (!reader.has_wire_type(type)) throw protozero::unknown_pbf_wire_type_exception();
}

inline std::string_view view_of(pbf_reader& reader) {
  expect_type(reader, protozero::pbf_wire_type::length_delimited);
  const auto data = reader.get_view();
  return std::string_view(data.data(), data.size());
}

inline pbf_reader message_of(pbf_reader& reader) { return reader_of(view_of(reader)); }

inline uint64_t number_of(pbf_reader& reader) {
  expect_type(reader, protozero::pbf_wire_type::varint);
  return reader.get_uint64();
}

struct TraceReader::Damaged {
  std::string what;
  bool other_format = false;  // nothing is broken: another giltop wrote it
};

struct TraceReader::Annotations {
  struct Entry {
    std::string_view name, text;
    uint64_t number = 0;
  };
  std::vector<Entry> entries;

  uint64_t number(std::string_view name) const {
    for (const Entry& e : entries)
      if (e.name == name) return e.number;
    return 0;
  }
  bool has(std::string_view name) const {
    return std::any_of(entries.begin(), entries.end(),
                       [&](const Entry& e) { return e.name == name; });
  }
  std::string_view text(std::string_view name) const {
    for (const Entry& e : entries)
      if (e.name == name) return e.text;
    return {};
  }
  uint32_t id(std::string_view name) const {
    const uint64_t value = number(name);
    if (value > kMaxTid) throw Damaged{"a thread id out of range"};
    return static_cast<uint32_t>(value);
  }
};

}  // namespace giltop
