#include "target/elf_dynamic.h"

#include <elf.h>

#include <algorithm>

#include "target/bytes.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

constexpr uint64_t kMaxDynamic = 1 << 16;            // bytes of PT_DYNAMIC; real ones have 500
constexpr uint64_t kMaxTable = uint64_t{128} << 20;  // bytes; libtorch has 30 MB of names

}  // namespace

Result<std::optional<DynamicSection>> DynamicSection::make(const ElfFile& file) {
  const auto segment = std::find_if(file.segments().begin(), file.segments().end(),
                                    [](const ElfFile::Segment& s) { return s.type == PT_DYNAMIC; });
  if (segment == file.segments().end() || segment->file_size == 0) {
    return std::optional<DynamicSection>();
  }
  auto entries = file.read(segment->offset, std::min(segment->file_size, kMaxDynamic));
  if (!entries) return std::move(entries).error().in("PT_DYNAMIC");

  DynamicSection dynamic;
  const uint64_t entry_size = file.is_64bit() ? sizeof(Elf64_Dyn) : sizeof(Elf32_Dyn);
  for (uint64_t at = 0; at + entry_size <= entries->size(); at += entry_size) {
    uint64_t tag, value;
    if (file.is_64bit()) {
      tag = *load<uint64_t>(*entries, at), value = *load<uint64_t>(*entries, at + 8);
    } else {
      tag = *load<uint32_t>(*entries, at), value = *load<uint32_t>(*entries, at + 4);
    }
    if (tag == DT_NULL) break;
    switch (tag) {
      case DT_SYMTAB:
        dynamic.symbols_.address = value;
        break;
      case DT_STRTAB:
        dynamic.strings_table_.address = value;
        break;
      case DT_STRSZ:
        dynamic.strings_table_.size = value;
        break;
      case DT_JMPREL:
        dynamic.jump_relocations_.address = value;
        break;
      case DT_PLTRELSZ:
        dynamic.jump_relocations_.size = value;
        break;
      case DT_RELA:
        dynamic.relocations_.address = value;
        break;
      case DT_RELASZ:
        dynamic.relocations_.size = value;
        break;
      case DT_HASH:
        dynamic.hash_ = value;
        break;
      case DT_SONAME:
        dynamic.soname_offset_ = value, dynamic.has_soname_ = true;
        break;
      case DT_NEEDED:
        dynamic.needed_offsets_.push_back(value);
        break;
      case DT_FLAGS_1:
        dynamic.is_pie_ = (value & DF_1_PIE) != 0;
        break;
      default:
        break;
    }
  }
  if (dynamic.strings_table_.size > kMaxTable) return Error(".dynstr is larger than giltop reads");
  if (dynamic.strings_table_.size != 0) {
    auto strings = file.read_address(dynamic.strings_table_.address, dynamic.strings_table_.size);
    if (!strings) return std::move(strings).error().in("DT_STRTAB");
    dynamic.strings_ = *std::move(strings);
  }
  return std::optional<DynamicSection>(std::move(dynamic));
}

bool DynamicSection::mentions(std::string_view text) const {
  const std::string_view all = as_text(strings_);
  return all.find(text) != std::string_view::npos;
}

std::string_view DynamicSection::soname() const {
  return has_soname_ ? load_string(strings_, soname_offset_) : std::string_view();
}

std::vector<std::string_view> DynamicSection::needed() const {
  std::vector<std::string_view> names;
  for (const uint64_t offset : needed_offsets_) {
    const std::string_view name = load_string(strings_, offset);
    if (!name.empty()) names.push_back(name);
  }
  return names;
}

// Bytes. PT_DYNAMIC does not tell it: the section header does, else DT_HASH (nchain = number of
// symbols), else the string table, which every linker lays right behind the symbols.
uint64_t DynamicSection::symbol_table_size(const ElfFile& file) const {
  const uint64_t stored = file.bytes_from(symbols_.address);
  const uint64_t entry_size = file.is_64bit() ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
  for (const ElfFile::Section& section : file.sections()) {
    if (section.type == SHT_DYNSYM && section.address == symbols_.address) {
      return std::min(section.size, stored);
    }
  }
  if (hash_ != 0) {
    if (const auto counts = file.read_address(hash_, 8); counts) {
      return std::min(*load<uint32_t>(*counts, 4) * entry_size, stored);
    }
  }
  if (strings_table_.address > symbols_.address) {
    return std::min(strings_table_.address - symbols_.address, stored);
  }
  return 0;
}

Status DynamicSection::for_each_symbol(
    const ElfFile& file, const std::function<void(uint32_t, const Symbol&)>& visit) const {
  const uint64_t size = std::min(symbol_table_size(file), kMaxTable);
  if (size == 0) return ok();
  auto table = file.read_address(symbols_.address, size);
  if (!table) return std::move(table).error().in("DT_SYMTAB");
  const auto visit_all = [&]<typename Sym>(Sym) {
    const auto count = static_cast<uint32_t>(table->size() / sizeof(Sym));
    for (uint32_t index = 0; index < count; ++index) {
      const Sym symbol = *load<Sym>(*table, uint64_t{index} * sizeof(Sym));
      visit(index, {load_string(strings_, symbol.st_name), symbol.st_value, symbol.st_size,
                    symbol.st_shndx != SHN_UNDEF});
    }
  };
  if (file.is_64bit()) {
    visit_all(Elf64_Sym{});
  } else {
    visit_all(Elf32_Sym{});
  }
  return ok();
}

Status DynamicSection::for_each_relocation(
    const ElfFile& file, const std::function<void(const Relocation&)>& visit) const {
  for (const Table& where : {jump_relocations_, relocations_}) {
    const uint64_t size = where.size - where.size % sizeof(Elf64_Rela);
    if (size == 0) continue;
    if (size > kMaxTable) return Error("relocation table is larger than giltop reads");
    auto table = file.read_address(where.address, size);
    if (!table) return std::move(table).error().in("relocation table");
    for (uint64_t at = 0; at < size; at += sizeof(Elf64_Rela)) {
      const auto rela = *load<Elf64_Rela>(*table, at);
      visit({rela.r_offset, static_cast<uint32_t>(ELF64_R_TYPE(rela.r_info)),
             static_cast<uint32_t>(ELF64_R_SYM(rela.r_info))});
    }
  }
  return ok();
}

}  // namespace giltop
