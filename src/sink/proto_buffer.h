// ProtoBuffer: protobuf wire format, appended to a flat buffer. The hot path of recording.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace giltop {

// Fields at a pointer, in the caller's order. Whoever makes it vouches for the room.
class ProtoFields {
 public:
  static constexpr size_t kMaxVarint = 10;
  static constexpr size_t kMaxTag = 5;

  explicit ProtoFields(char* at) : at_(at) {}

  void varint(uint64_t value) {
    while (value >= 0x80) {
      *at_++ = static_cast<char>(value | 0x80);
      value >>= 7;
    }
    *at_++ = static_cast<char>(value);
  }
  void field(uint32_t number, uint64_t value) {
    tag(number, 0);
    varint(value);
  }
  void field_fixed64(uint32_t number, uint64_t value) {
    tag(number, 1);
    for (int i = 0; i < 8; i++) *at_++ = static_cast<char>(value >> (8 * i));
  }
  void bytes(uint32_t number, std::string_view value) {
    tag(number, 2);
    varint(value.size());
    at_ += value.copy(at_, value.size());
  }
  // A nested message: its length is one byte that end() fills in, so it stays below 128 bytes.
  char* begin(uint32_t number) {
    tag(number, 2);
    return at_++;
  }
  void end(char* length) { *length = static_cast<char>(at_ - length - 1); }

  char* at() const { return at_; }

 private:
  // `number` is nearly always a constant, and then so are the bytes.
  void tag(uint32_t number, uint32_t wire_type) {
    const uint32_t value = number << 3 | wire_type;
    if (value < 0x80) {
      *at_++ = static_cast<char>(value);
    } else {
      varint(value);
    }
  }

  char* at_;
};

// A message that grows.
class ProtoBuffer {
 public:
  void field(uint32_t number, uint64_t value) {
    ProtoFields fields = open(ProtoFields::kMaxTag + ProtoFields::kMaxVarint);
    fields.field(number, value);
    close(fields);
  }
  void bytes(uint32_t number, std::string_view value) {
    ProtoFields fields = open(ProtoFields::kMaxTag + ProtoFields::kMaxVarint + value.size());
    fields.bytes(number, value);
    close(fields);
  }
  // A nested message, below 128 bytes. end() takes what begin() returned.
  size_t begin(uint32_t number) {
    ProtoFields fields = open(ProtoFields::kMaxTag + 1);
    fields.begin(number);
    close(fields);
    return size_;
  }
  void end(size_t begun) { data_[begun - 1] = static_cast<char>(size_ - begun); }

  // Several fields at once, at most `bytes` together; nothing else may be added before close().
  ProtoFields open(size_t bytes) {
    if (data_.size() - size_ < bytes) data_.resize(std::max(size_ + bytes, 2 * data_.size()));
    return ProtoFields(data_.data() + size_);
  }
  void close(const ProtoFields& fields) { size_ = static_cast<size_t>(fields.at() - data_.data()); }

  std::string_view data() const { return std::string_view(data_.data(), size_); }
  std::string take() {
    data_.resize(std::exchange(size_, 0));
    return std::exchange(data_, {});
  }
  size_t size() const { return size_; }
  void clear() { size_ = 0; }
  void reserve(size_t bytes) { data_.resize(std::max(data_.size(), bytes)); }

 private:
  std::string data_;  // what is behind size_ is room
  size_t size_ = 0;
};

}  // namespace giltop
