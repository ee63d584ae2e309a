#include "target/eh_frame.h"

#include <elf.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "target/bytes.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

// Pointer encodings: LSB Core, "DWARF Exception Header Encoding".
constexpr uint8_t kAbsolute = 0x00, kUdata2 = 0x02, kUdata4 = 0x03, kUdata8 = 0x04;
constexpr uint8_t kSdata2 = 0x0a, kSdata4 = 0x0b, kSdata8 = 0x0c, kSigned = 0x08;
constexpr uint8_t kPcRelative = 0x10, kIndirect = 0x80, kOmitted = 0xff;

constexpr uint64_t kMaxFrame = uint64_t{64} << 20;  // bytes; CPython has 0.4 MB
constexpr size_t kMaxCies = 1 << 16;                // CPython has a dozen
constexpr size_t kMaxFound = 1 << 16;

struct Frame {
  uint64_t address = 0;  // of its first byte
  std::vector<std::byte> bytes;
};

// Reads one encoded value, moving `at` behind it.
std::optional<uint64_t> read_value(std::span<const std::byte> bytes, uint64_t& at,
                                   uint8_t encoding) {
  const auto take = [&]<typename T>(T) -> std::optional<uint64_t> {
    const auto value = load<T>(bytes, at);
    if (!value) return std::nullopt;
    at += sizeof(T);
    return static_cast<uint64_t>(static_cast<int64_t>(*value));  // sign-extends signed types only
  };
  switch (encoding & 0x0f) {
    case kAbsolute:
    case kUdata8:
      return take(uint64_t{});
    case kUdata2:
      return take(uint16_t{});
    case kUdata4:
      return take(uint32_t{});
    case kSdata2:
      return take(int16_t{});
    case kSdata4:
      return take(int32_t{});
    case kSdata8:
    case kSigned:
      return take(int64_t{});
    default:
      return std::nullopt;  // LEB128 and worse: no linker writes them here
  }
}

std::optional<uint64_t> read_uleb128(std::span<const std::byte> bytes, uint64_t& at) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = load<uint8_t>(bytes, at);
    if (!byte) return std::nullopt;
    ++at;
    value |= uint64_t{*byte & 0x7fu} << shift;
    if ((*byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

// The pointer encoding of the FDEs that belong to the CIE at `at` (the offset of its length word).
std::optional<uint8_t> fde_encoding(std::span<const std::byte> bytes, uint64_t at) {
  at += 8;  // length, id
  const auto version = load<uint8_t>(bytes, at++);
  if (!version || (*version != 1 && *version != 3)) return std::nullopt;
  const std::string_view augmentation = load_string(bytes, at);
  at += augmentation.size() + 1;
  if (augmentation.empty()) return kAbsolute;
  if (augmentation[0] != 'z') return std::nullopt;
  if (!read_uleb128(bytes, at)) return std::nullopt;  // code alignment
  if (!read_uleb128(bytes, at)) return std::nullopt;  // data alignment (sign does not matter)
  if (*version == 1) {
    ++at;  // return address register
  } else if (!read_uleb128(bytes, at)) {
    return std::nullopt;
  }
  if (!read_uleb128(bytes, at)) return std::nullopt;  // augmentation length
  uint8_t encoding = kAbsolute;
  for (const char letter : augmentation.substr(1)) {
    if (letter == 'S' || letter == 'B') continue;
    const auto value = load<uint8_t>(bytes, at++);
    if (!value) return std::nullopt;
    if (letter == 'R') {
      encoding = *value;
    } else if (letter == 'P') {
      if (!read_value(bytes, at, *value)) return std::nullopt;
    } else if (letter != 'L') {
      return std::nullopt;
    }
  }
  return encoding;
}

// PT_GNU_EH_FRAME points at .eh_frame; its end is the section's, or that of the segment (a zero
// length word ends it earlier).
Result<Frame> read_frame(const ElfFile& file) {
  uint64_t address = 0, size = 0;
  for (const ElfFile::Segment& segment : file.segments()) {
    if (segment.type != PT_GNU_EH_FRAME) continue;
    const auto header = file.read(segment.offset, std::min<uint64_t>(segment.file_size, 12));
    if (!header || header->size() < 4) break;
    const auto encoding = std::to_integer<uint8_t>((*header)[1]);
    uint64_t at = 4;
    if (encoding == kOmitted || (encoding & kIndirect) != 0) break;
    const auto value = read_value(*header, at, encoding);
    if (!value) break;
    address = *value + ((encoding & 0x70) == kPcRelative ? segment.address + 4 : 0);
    size = file.bytes_from(address);
    break;
  }
  const ElfFile::Section* section = file.section(".eh_frame");
  if (section != nullptr && section->type != SHT_NOBITS &&
      (size == 0 || section->address == address)) {
    address = section->address;
    size = std::min(section->size, file.bytes_from(address));
  }
  if (size == 0) return Error("no .eh_frame: the bounds of functions are not known");
  auto bytes = file.read_address(address, std::min(size, kMaxFrame));
  if (!bytes) return std::move(bytes).error().in(".eh_frame");
  return Frame{address, *std::move(bytes)};
}

}  // namespace

Result<std::vector<FunctionBounds>> function_bounds(const ElfFile& file,
                                                    std::span<const uint64_t> addresses) {
  auto frame = read_frame(file);
  if (!frame) return std::move(frame).error();
  const std::span<const std::byte> bytes = frame->bytes;
  std::unordered_map<uint64_t, std::optional<uint8_t>> encodings;  // by offset of the CIE
  std::vector<FunctionBounds> found;

  for (uint64_t at = 0;;) {
    const auto length = load<uint32_t>(bytes, at);
    if (!length || *length == 0) break;
    if (*length == UINT32_MAX) break;  // 64-bit DWARF: no linker writes it here
    const uint64_t id_at = at + 4;
    const uint64_t next = id_at + *length;
    const auto id = load<uint32_t>(bytes, id_at);
    if (next > bytes.size() || *length < 4 || !id) break;
    if (*id != 0 && *id <= id_at) {  // an FDE; its id is the distance back to its CIE
      const uint64_t cie = id_at - *id;
      auto encoding = encodings.find(cie);
      if (encoding == encodings.end()) {
        if (encodings.size() == kMaxCies) break;
        encoding = encodings.emplace(cie, fde_encoding(bytes, cie)).first;
      }
      if (encoding->second && (*encoding->second & kIndirect) == 0) {
        uint64_t value_at = id_at + 4;
        const uint64_t place = frame->address + value_at;
        const auto start = read_value(bytes, value_at, *encoding->second);
        const auto size = read_value(bytes, value_at, *encoding->second & 0x0f);
        if (start && size && value_at <= next) {
          const bool relative = (*encoding->second & 0x70) == kPcRelative;
          const uint64_t begin = *start + (relative ? place : 0);
          const uint64_t end = begin + *size;
          const auto hit = std::lower_bound(addresses.begin(), addresses.end(), begin);
          if (begin < end && hit != addresses.end() && *hit < end) {
            if (found.size() == kMaxFound) break;
            found.push_back({begin, end});
          }
        }
      }
    }
    at = next;
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return found;
}

}  // namespace giltop
