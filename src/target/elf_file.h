// ElfFile: a read-only view of an ELF file, with every offset checked before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace giltop {

// Assumes nothing of the file: it may be hostile, truncated, or change while it is read. Parts are
// read with pread(2) when asked for and never mapped: a file truncated under a mapping would kill
// giltop with SIGBUS, and most files need only their dynamic string table looked at.
//
// Little-endian files of 32 and 64 bits are taken; the headers of both are kept in 64-bit form.
class ElfFile {
 public:
  struct Segment {
    uint32_t type = 0;   // PT_*
    uint32_t flags = 0;  // PF_*
    uint64_t offset = 0, address = 0, file_size = 0, memory_size = 0;
  };
  struct Section {
    std::string name;
    uint32_t type = 0;  // SHT_*
    uint64_t flags = 0, address = 0, offset = 0, size = 0;
    uint32_t link = 0;  // sh_link: of a symbol table, the index of its strings
  };

  // Takes an open descriptor (the file may be deleted or in another mount namespace).
  // Errors: unreadable, not a regular file, not ELF, headers outside the file.
  static Result<ElfFile> make(Fd fd);
  static Result<ElfFile> open(const std::string& path);

  uint64_t size() const { return size_; }        // bytes, when it was opened
  uint16_t machine() const { return machine_; }  // EM_*
  bool is_64bit() const { return is_64bit_; }
  bool is_dynamic() const;  // has a PT_INTERP: a loader runs before its entry point

  // File offset of e_entry inside its PT_LOAD segment: where a uprobe sees the program start, after
  // the dynamic loader has mapped every library it needs. Nothing when the file has no entry point.
  std::optional<uint64_t> entry_file_offset() const;

  const std::vector<Segment>& segments() const { return segments_; }
  // Empty where the file has none (sstrip), or none that can be trusted: no loader needs them.
  const std::vector<Section>& sections() const { return sections_; }
  const Section* section(const char* name) const;

  // The file offset that a linked address is loaded from; nothing for .bss or outside PT_LOAD.
  std::optional<uint64_t> file_offset(uint64_t address) const;
  // Bytes from `address` to the end of what its PT_LOAD has in the file; 0 outside.
  uint64_t bytes_from(uint64_t address) const;

  // Exactly `size` bytes. Errors: outside the file, larger than kMaxRead, read(2) fails.
  Result<std::vector<std::byte>> read(uint64_t offset, uint64_t size) const;
  Result<std::vector<std::byte>> read_address(uint64_t address, uint64_t size) const;

  static constexpr uint64_t kMaxRead = uint64_t{256} << 20;  // bytes; no CPython part comes near

 private:
  ElfFile() = default;
  Status parse();
  void parse_sections(uint64_t offset, uint64_t count, uint64_t names, uint64_t entry_size);

  Fd fd_;
  uint64_t size_ = 0;
  uint64_t entry_ = 0;
  uint16_t machine_ = 0;
  bool is_64bit_ = false;
  std::vector<Segment> segments_;
  std::vector<Section> sections_;
};

}  // namespace giltop
