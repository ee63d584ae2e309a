// DynamicSection: what the dynamic loader would read of an ELF file: symbols and relocations.
//
// Everything is found through PT_DYNAMIC, which the loader needs and `strip` and `sstrip` therefore
// leave; section headers only tell the number of symbols where they are there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace giltop {

class ElfFile;

class DynamicSection {
 public:
  struct Symbol {
    std::string_view name;  // valid as long as the DynamicSection
    uint64_t value = 0, size = 0;
    bool defined = false;
  };
  struct Relocation {
    uint64_t address = 0;
    uint32_t type = 0;    // R_X86_64_*
    uint32_t symbol = 0;  // index as for_each_symbol() gives it
  };

  // Nothing for a file without PT_DYNAMIC. Reads the string table only; the rest when asked for.
  // Errors: tables outside the file.
  static Result<std::optional<DynamicSection>> make(const ElfFile& file);

  // Whether `text` stands anywhere in the string table: a cheap "no" before any symbol is read.
  bool mentions(std::string_view text) const;
  std::string_view soname() const;               // empty when there is none
  std::vector<std::string_view> needed() const;  // DT_NEEDED: the libraries it is linked to
  bool is_pie() const { return is_pie_; }        // DF_1_PIE: a program, not a library

  Status for_each_symbol(const ElfFile& file,
                         const std::function<void(uint32_t, const Symbol&)>& visit) const;
  // Relocations with an addend, 64-bit files only: JMPREL and RELA.
  Status for_each_relocation(const ElfFile& file,
                             const std::function<void(const Relocation&)>& visit) const;

 private:
  struct Table {
    uint64_t address = 0, size = 0;
  };
  uint64_t symbol_table_size(const ElfFile& file) const;

  std::vector<std::byte> strings_;
  Table symbols_, strings_table_, jump_relocations_, relocations_;
  uint64_t hash_ = 0;  // DT_HASH
  uint64_t soname_offset_ = 0;
  std::vector<uint64_t> needed_offsets_;
  bool has_soname_ = false;
  bool is_pie_ = false;
};

}  // namespace giltop
