#include "target/elf_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "target/bytes.h"

namespace giltop {
namespace {

// Linux itself refuses more than 64 KiB of program headers (fs/binfmt_elf.c): 1170 of 56 bytes.
constexpr uint64_t kMaxSegments = 1170;
constexpr uint64_t kMaxSections = 65536;

template <typename Header>
ElfFile::Segment to_segment(const Header& header) {
  return {header.p_type,  header.p_flags,  header.p_offset,
          header.p_vaddr, header.p_filesz, header.p_memsz};
}

template <typename Header>
ElfFile::Section to_section(const Header& header) {
  return {{},
          header.sh_type,
          header.sh_flags,
          header.sh_addr,
          header.sh_offset,
          header.sh_size,
          header.sh_link};
}

}  // namespace

Result<ElfFile> ElfFile::open(const std::string& path) {
  // O_NONBLOCK: a FIFO must not hang us before fstat can refuse it.
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return system_error(path, errno);
  auto file = make(std::move(fd));
  if (!file) return std::move(file).error().in(path);
  return file;
}

Result<ElfFile> ElfFile::make(Fd fd) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return system_error("fstat", errno);
  if (!S_ISREG(status.st_mode)) return Error("not a regular file");
  ElfFile file;
  file.fd_ = std::move(fd);
  file.size_ = static_cast<uint64_t>(status.st_size);
  if (auto parsed = file.parse(); !parsed) return std::move(parsed).error();
  return file;
}

Status ElfFile::parse() {
  auto header = read(0, std::min<uint64_t>(size_, sizeof(Elf64_Ehdr)));
  if (!header) return std::move(header).error();
  const auto& bytes = *header;
  if (bytes.size() < EI_NIDENT || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) {
    return Error("not an ELF file");
  }
  const auto elf_class = std::to_integer<int>(bytes[EI_CLASS]);
  if (elf_class != ELFCLASS32 && elf_class != ELFCLASS64) return Error("ELF class is not 32 or 64");
  if (std::to_integer<int>(bytes[EI_DATA]) != ELFDATA2LSB) return Error("big-endian ELF file");
  is_64bit_ = elf_class == ELFCLASS64;

  uint64_t phoff, phnum, phentsize, shoff, shnum, shstrndx, shentsize;
  const auto take = [&](const auto& ehdr) {
    machine_ = ehdr.e_machine;
    entry_ = ehdr.e_entry;
    phoff = ehdr.e_phoff, phnum = ehdr.e_phnum, phentsize = ehdr.e_phentsize;
    shoff = ehdr.e_shoff, shnum = ehdr.e_shnum, shentsize = ehdr.e_shentsize;
    shstrndx = ehdr.e_shstrndx;
  };
  if (is_64bit_) {
    const auto ehdr = load<Elf64_Ehdr>(bytes, 0);
    if (!ehdr) return Error("ELF header is cut short");
    take(*ehdr);
  } else {
    const auto ehdr = load<Elf32_Ehdr>(bytes, 0);
    if (!ehdr) return Error("ELF header is cut short");
    take(*ehdr);
  }

  const uint64_t segment_size = is_64bit_ ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
  if (phnum != 0) {
    if (phentsize != segment_size || phnum > kMaxSegments) return Error("bad ELF program headers");
    auto table = read(phoff, phnum * segment_size);
    if (!table) return std::move(table).error().in("ELF program headers");
    for (uint64_t i = 0; i < phnum; ++i) {
      segments_.push_back(is_64bit_ ? to_segment(*load<Elf64_Phdr>(*table, i * segment_size))
                                    : to_segment(*load<Elf32_Phdr>(*table, i * segment_size)));
    }
  }
  parse_sections(shoff, shnum, shstrndx, shentsize);
  return ok();
}

void ElfFile::parse_sections(uint64_t offset, uint64_t count, uint64_t names, uint64_t entry_size) {
  const uint64_t expected = is_64bit_ ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
  if (offset == 0 || count == 0 || count > kMaxSections || entry_size != expected) return;
  const auto table = read(offset, count * entry_size);
  if (!table) return;
  std::vector<uint32_t> name_offsets;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = i * entry_size;
    sections_.push_back(is_64bit_ ? to_section(*load<Elf64_Shdr>(*table, at))
                                  : to_section(*load<Elf32_Shdr>(*table, at)));
    name_offsets.push_back(*load<uint32_t>(*table, at));  // sh_name comes first in both
  }
  if (names >= sections_.size()) return;
  constexpr uint64_t kMaxNames = 1 << 20;  // bytes of .shstrtab
  const Section& strings_section = sections_[names];
  const auto strings = read(strings_section.offset, std::min(strings_section.size, kMaxNames));
  if (!strings) return;
  constexpr size_t kMaxName = 64;  // longer ones are none we look for
  for (uint64_t i = 0; i < count; ++i) {
    sections_[i].name = load_string(*strings, name_offsets[i]).substr(0, kMaxName);
  }
}

bool ElfFile::is_dynamic() const {
  return std::any_of(segments_.begin(), segments_.end(),
                     [](const Segment& segment) { return segment.type == PT_INTERP; });
}

std::optional<uint64_t> ElfFile::entry_file_offset() const {
  if (entry_ == 0) return std::nullopt;
  return file_offset(entry_);
}

const ElfFile::Section* ElfFile::section(const char* name) const {
  for (const Section& section : sections_) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

std::optional<uint64_t> ElfFile::file_offset(uint64_t address) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD || address < segment.address) continue;
    const uint64_t inside = address - segment.address;
    if (inside >= segment.file_size) continue;
    if (segment.offset > size_ || inside >= size_ - segment.offset) return std::nullopt;
    return segment.offset + inside;
  }
  return std::nullopt;
}

uint64_t ElfFile::bytes_from(uint64_t address) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD || address < segment.address) continue;
    const uint64_t inside = address - segment.address;
    if (inside >= segment.file_size || segment.offset > size_) continue;
    const uint64_t stored = std::min(segment.file_size, size_ - segment.offset);
    return inside < stored ? stored - inside : 0;
  }
  return 0;
}

Result<std::vector<std::byte>> ElfFile::read(uint64_t offset, uint64_t size) const {
  const auto where = [&] {
    return std::to_string(size) + " bytes at offset " + std::to_string(offset);
  };
  if (offset > size_ || size > size_ - offset) {
    return Error(where() + " lie outside the file of " + std::to_string(size_));
  }
  if (size > kMaxRead) return Error(where() + ": more than giltop reads");
  std::vector<std::byte> bytes(size);
  for (uint64_t done = 0; done < size;) {
    const ssize_t got =
        ::pread(fd_.get(), bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("read " + where(), errno);
    if (got == 0) return Error("read " + where() + ": the file was truncated meanwhile");
    done += static_cast<uint64_t>(got);
  }
  return bytes;
}

Result<std::vector<std::byte>> ElfFile::read_address(uint64_t address, uint64_t size) const {
  const auto offset = file_offset(address);
  if (!offset || size > bytes_from(address)) {
    return Error(std::to_string(size) + " bytes at address " + std::to_string(address) +
                 " are not in the file");
  }
  return read(*offset, size);
}

}  // namespace giltop
