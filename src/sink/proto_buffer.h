// ProtoBuffer: protobuf wire format, appended to a flat buffer. The hot path of recording.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace giltop {

// Fields are written in the caller's order. Nested messages have a one-byte length that is patched
// on end(), so they must stay below 128 bytes, or are built apart and added with bytes().
class ProtoBuffer {
 public:
  void varint(uint64_t value) {
    char bytes[10];
    size_t n = 0;
    while (value >= 0x80) {
      bytes[n++] = static_cast<char>(value | 0x80);
      value >>= 7;
    }
    bytes[n++] = static_cast<char>(value);
    data_.append(bytes, n);
  }
  void field(uint32_t number, uint64_t value) {
    varint(uint64_t{number} << 3);
    varint(value);
  }
  void field_fixed64(uint32_t number, uint64_t value) {
    varint(uint64_t{number} << 3 | 1);
    char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = static_cast<char>(value >> (8 * i));
    data_.append(bytes, sizeof(bytes));
  }
  void bytes(uint32_t number, std::string_view value) {
    varint(uint64_t{number} << 3 | 2);
    varint(value.size());
    data_.append(value);
  }
  size_t begin(uint32_t number) {
    varint(uint64_t{number} << 3 | 2);
    data_.push_back(0);
    return data_.size();
  }
  void end(size_t begun) { data_[begun - 1] = static_cast<char>(data_.size() - begun); }

  const std::string& data() const { return data_; }
  std::string take() { return std::exchange(data_, {}); }
  size_t size() const { return data_.size(); }
  void clear() { data_.clear(); }
  void reserve(size_t bytes) { data_.reserve(bytes); }

 private:
  std::string data_;
};

}  // namespace giltop
