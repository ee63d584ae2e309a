#include "support/a64_code.h"

namespace giltop::testing {

A64Code& A64Code::words(std::initializer_list<uint32_t> all) {
  for (const uint32_t word : all) {
    for (int shift = 0; shift < 32; shift += 8) raw({static_cast<int>(word >> shift & 0xff)});
  }
  return *this;
}

A64Code& A64Code::add(uint8_t to, uint8_t from, uint32_t value) {
  return words({0x91000000 | value << 10 | uint32_t{from} << 5 | to});
}

A64Code& A64Code::mov(uint8_t to, uint8_t from) {
  return words({0xaa0003e0 | uint32_t{from} << 16 | to});
}

A64Code& A64Code::one(uint8_t to) { return words({0x52800020u | to}); }

A64Code& A64Code::store(uint8_t what, uint8_t base, uint32_t disp) {
  return words({0xb9000000 | disp / 4 << 10 | uint32_t{base} << 5 | what});
}

A64Code& A64Code::load(uint8_t to, uint8_t base, uint32_t disp) {
  return words({0xf9400000 | disp / 8 << 10 | uint32_t{base} << 5 | to});
}

A64Code& A64Code::spill(uint8_t what, uint32_t disp) {
  return words({0xf9000000 | disp / 8 << 10 | uint32_t{sp} << 5 | what});
}

namespace {

constexpr uint32_t kAdrp = 0x90000000;

uint32_t add_low(uint8_t reg) { return 0x91000000 | uint32_t{reg} << 5 | reg; }
uint32_t load_low(uint8_t reg) { return 0xf9400000 | uint32_t{reg} << 5 | reg; }

}  // namespace

A64Code& A64Code::data(uint8_t to, uint64_t offset) {
  fixups_.push_back({bytes_.size(), Target::a64_data, offset, {}, bytes_.size(), {}});
  return words({kAdrp | to, add_low(to)});
}

A64Code& A64Code::text(uint8_t to, const std::string& text) {
  fixups_.push_back({bytes_.size(), Target::a64_text, 0, text, bytes_.size(), {}});
  return words({kAdrp | to, add_low(to)});
}

A64Code& A64Code::load_slot(uint8_t to, const std::string& import) {
  fixups_.push_back({bytes_.size(), Target::a64_slot, 0, import, bytes_.size(), {}});
  return words({kAdrp | to, load_low(to)});
}

A64Code& A64Code::call(const std::string& import) {
  constexpr uint32_t kNop = 0xd503201f;
  words({kNop, kNop});
  fixups_.push_back({bytes_.size(), Target::a64_import, 0, import, bytes_.size(), expected_});
  expected_.reset();
  return words({kNop});
}

A64Code& A64Code::call_function(const std::string& name) {
  fixups_.push_back({bytes_.size(), Target::a64_function, 0, name, bytes_.size(), {}});
  return words({0x94000000});
}

A64Code& A64Code::call_register(uint8_t reg) { return words({0xd63f0000 | uint32_t{reg} << 5}); }

A64Code& A64Code::jump_ahead(uint32_t instructions) {
  return words({0x14000000 | (instructions + 1)});
}

A64Code& A64Code::jump_ahead_if(uint8_t reg, uint32_t instructions) {
  return words({0x34000000 | (instructions + 1) << 5 | reg});
}

A64Code& A64Code::check() { return words({0x35000040, 0xd503201f}); }
A64Code& A64Code::check_etimedout() { return words({0x7101b81f, 0x54000040, 0xd503201f}); }
A64Code& A64Code::ret() { return words({0xd65f03c0}); }

A64Code& A64Code::expect(SiteKind kind) {
  Code::expect(kind);
  return *this;
}

A64Code& A64Code::expect_here(SiteKind kind) {
  Code::expect_here(kind, 4);
  return *this;
}

}  // namespace giltop::testing
