#include "support/elf_builder.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace giltop::testing {
namespace {

constexpr uint64_t kBase = 0x400000;  // address = kBase + file offset, for all

constexpr uint64_t kStub = 32;  // bytes a PLT stub has room for

class Image {
 public:
  uint64_t size() const { return bytes_.size(); }
  uint64_t address() const { return kBase + bytes_.size(); }
  void align(uint64_t to) {
    while (bytes_.size() % to != 0) bytes_.push_back(std::byte{0});
  }
  void add(const void* data, size_t size) {
    const auto* from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }
  template <typename T>
  void put(T value) {
    add(&value, sizeof value);
  }
  template <typename T>
  void patch(uint64_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void patch_relative(uint64_t at, uint64_t target) {  // 4 bytes, from behind them
    patch(at, static_cast<int32_t>(target - (kBase + at + 4)));
  }
  uint32_t word(uint64_t at) const {
    uint32_t value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  // AArch64: adrp at `at`, and ldr (of 8 bytes) or add with the low bits behind it.
  void patch_page(uint64_t at, uint64_t target) {
    const auto pages = static_cast<uint32_t>((target >> 12) - ((kBase + at) >> 12));
    patch(at, word(at) | (pages & 3) << 29 | (pages >> 2 & 0x7ffff) << 5);
    const auto low = static_cast<uint32_t>(target & 0xfff);
    const bool load = word(at + 4) >> 22 == 0x3e5;
    patch(at + 4, word(at + 4) | (load ? low / 8 : low) << 10);
  }
  void patch_branch(uint64_t at, uint64_t target) {
    patch(at, 0x94000000 | (static_cast<uint32_t>((target - (kBase + at)) / 4) & 0x3ffffff));
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

struct SectionNote {
  const char* name;
  uint32_t type;
  uint64_t flags, offset, size;
};

}  // namespace

Code& Code::raw(std::initializer_list<int> bytes) {
  for (const int byte : bytes) bytes_.push_back(static_cast<uint8_t>(byte));
  return *this;
}

void Code::fix(Target target, uint64_t offset, std::string name, size_t start) {
  fixups_.push_back({bytes_.size(), target, offset, std::move(name), start, expected_});
  raw({0, 0, 0, 0});
}

namespace {

// ModRM (and SIB) with a 32-bit displacement.
void add_memory(Code& code, int reg, Reg base, int32_t disp) {
  code.raw({0x80 | (reg & 7) << 3 | (base & 7)});
  if ((base & 7) == 4) code.raw({0x24});
  code.raw({disp & 0xff, disp >> 8 & 0xff, disp >> 16 & 0xff, disp >> 24 & 0xff});
}

}  // namespace

Code& Code::store(Reg base, int32_t disp, int32_t value) {
  if (base >= 8) raw({0x41});
  raw({0xc7});
  add_memory(*this, 0, base, disp);
  return raw({value, 0, 0, 0});
}

Code& Code::store_data(uint64_t offset, int32_t value) {
  const size_t start = bytes_.size();
  raw({0xc7, 0x05});
  fix(Target::data, offset - 4, {}, start);  // 4 bytes of immediate follow the displacement
  return raw({value, 0, 0, 0});
}

Code& Code::lea_rdi(Reg base, int32_t disp) {
  raw({base >= 8 ? 0x49 : 0x48, 0x8d});
  add_memory(*this, rdi, base, disp);
  return *this;
}

Code& Code::lea_rdi_data(uint64_t offset) {
  const size_t start = bytes_.size();
  raw({0x48, 0x8d, 0x3d});
  fix(Target::data, offset, {}, start);
  return *this;
}

Code& Code::mov_edi_data(uint64_t offset) {
  const size_t start = bytes_.size();
  raw({0xbf});
  fix(Target::data_absolute, offset, {}, start);
  return *this;
}

Code& Code::mov_reg(Reg to, Reg from) {
  return raw(
      {0x48 | (from >= 8 ? 4 : 0) | (to >= 8 ? 1 : 0), 0x89, 0xc0 | (from & 7) << 3 | (to & 7)});
}

Code& Code::load_rdi(Reg base, int32_t disp) {
  raw({base >= 8 ? 0x49 : 0x48, 0x8b});
  add_memory(*this, rdi, base, disp);
  return *this;
}

Code& Code::lea_rdi_text(const std::string& text) {
  const size_t start = bytes_.size();
  raw({0x48, 0x8d, 0x3d});
  fix(Target::text, 0, text, start);
  return *this;
}

Code& Code::call(const std::string& import) {
  // Room for the longest form; build() writes the one the PLT style asks for.
  const size_t start = bytes_.size();
  raw({0x90, 0x90});
  fix(Target::import, 0, import, start);
  expected_.reset();
  return *this;
}

Code& Code::load_slot(Reg to, const std::string& import) {
  const size_t start = bytes_.size();
  raw({to >= 8 ? 0x4c : 0x48, 0x8b, 0x05 | (to & 7) << 3});
  fix(Target::slot, 0, import, start);
  return *this;
}

Code& Code::expect_here(SiteKind kind, uint8_t length) {
  marks_.push_back({bytes_.size(), kind, length});
  return *this;
}

Code& Code::test_eax() { return raw({0x85, 0xc0, 0x75, 0x02, 0x90, 0x90}); }
Code& Code::cmp_etimedout() { return raw({0x83, 0xf8, 0x6e, 0x74, 0x02, 0x90, 0x90}); }
Code& Code::ret() { return raw({0xc3}); }

Code& Code::expect(SiteKind kind) {
  expected_ = kind;
  return *this;
}

ElfBuilder& ElfBuilder::function(const std::string& name, Code code, bool exported) {
  functions_.push_back({name, std::move(code), exported});
  return *this;
}

ElfBuilder& ElfBuilder::export_data(const std::string& name, uint64_t offset, uint64_t size) {
  data_symbols_.push_back({name, offset, size});
  return *this;
}

ElfBuilder& ElfBuilder::import(const std::string& name) {
  if (std::find(imports_.begin(), imports_.end(), name) == imports_.end()) imports_.push_back(name);
  return *this;
}

ElfBuilder& ElfBuilder::rodata(const std::string& text) {
  rodata_ += text + '\0';
  return *this;
}

std::vector<std::byte> ElfBuilder::build() {
  expected_.clear();
  for (const Function& function : functions_) {
    for (const Code::Fixup& fixup : function.code.fixups_) {
      if (fixup.target == Code::Target::import || fixup.target == Code::Target::slot ||
          fixup.target == Code::Target::a64_import || fixup.target == Code::Target::a64_slot) {
        import(fixup.name);
      }
      if ((fixup.target == Code::Target::text || fixup.target == Code::Target::a64_text) &&
          rodata_.find(fixup.name) == std::string::npos) {
        rodata(fixup.name);
      }
    }
  }

  std::string strings(1, '\0');
  const auto name_of = [&](const std::string& name) {
    const auto at = static_cast<uint32_t>(strings.size());
    strings += name + '\0';
    return at;
  };
  const uint32_t soname = options_.soname.empty() ? 0 : name_of(options_.soname);
  std::vector<Elf64_Sym> symbols(1);
  const auto add_symbol = [&](const std::string& name, bool defined) {
    Elf64_Sym symbol{};
    symbol.st_name = name_of(name);
    symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE);
    symbol.st_shndx = defined ? 1 : SHN_UNDEF;
    symbols.push_back(symbol);
    return symbols.size() - 1;
  };
  std::vector<size_t> import_symbols, function_symbols, data_symbols;
  for (const auto& name : imports_) import_symbols.push_back(add_symbol(name, false));
  for (const auto& function : functions_) {
    function_symbols.push_back(function.exported ? add_symbol(function.name, true) : 0);
  }
  for (const auto& symbol : data_symbols_) data_symbols.push_back(add_symbol(symbol.name, true));

  Image image;
  std::vector<SectionNote> sections = {{"", SHT_NULL, 0, 0, 0}};
  const auto section = [&](const char* name, uint32_t type, uint64_t flags, uint64_t start) {
    sections.push_back({name, type, flags, start, image.size() - start});
  };
  constexpr uint64_t kSegments = 6;
  const Elf64_Ehdr empty_header{};
  image.put(empty_header);
  const uint64_t phdrs_at = image.size();
  for (uint64_t i = 0; i < kSegments; ++i) image.put(Elf64_Phdr{});

  const uint64_t interp_at = image.size();
  constexpr char kInterpreter[] = "/lib64/ld.so";
  image.add(kInterpreter, sizeof kInterpreter);
  image.align(8);
  const uint64_t note_at = image.size();
  image.put(uint32_t{4});
  image.put(static_cast<uint32_t>(options_.build_id.size()));
  image.put(uint32_t{NT_GNU_BUILD_ID});
  image.add("GNU", 4);
  image.add(options_.build_id.data(), options_.build_id.size());
  const uint64_t note_size = image.size() - note_at;
  section(".note.gnu.build-id", SHT_NOTE, SHF_ALLOC, note_at);
  image.align(8);

  const uint64_t symbols_at = image.size();  // written again at the end, with the addresses
  image.add(symbols.data(), symbols.size() * sizeof(Elf64_Sym));
  section(".dynsym", SHT_DYNSYM, SHF_ALLOC, symbols_at);
  const uint64_t strings_at = image.size();
  image.add(strings.data(), strings.size());
  section(".dynstr", SHT_STRTAB, SHF_ALLOC, strings_at);
  image.align(8);
  const uint64_t relocations_at = image.size();
  const uint64_t relocations_size = options_.relocations ? imports_.size() * sizeof(Elf64_Rela) : 0;
  for (size_t i = 0; i < imports_.size(); ++i) image.put(Elf64_Rela{});
  section(".rela.plt", SHT_RELA, SHF_ALLOC, relocations_at);

  // One stub for each import; the jumps are filled in when the GOT has its place.
  const bool a64 = options_.machine == EM_AARCH64;
  image.align(16);
  const uint64_t stubs_at = image.size();
  std::vector<uint64_t> stub_jumps;
  for (size_t i = 0; i < imports_.size() && options_.plt != Plt::none; ++i) {
    const uint64_t stub = image.size();
    if (a64) {
      if (options_.plt == Plt::secure || options_.plt == Plt::bnd_call) {
        image.put(uint32_t{0xd503245f});  // bti c
      }
      stub_jumps.push_back(image.size());
      image.put(uint32_t{0x90000010});                                     // adrp x16
      image.put(uint32_t{0xf9400211});                                     // ldr x17, [x16]
      image.put(uint32_t{0x91000210});                                     // add x16, x16
      if (options_.plt == Plt::bnd_call) image.put(uint32_t{0xd503219f});  // autia1716
      image.put(uint32_t{0xd61f0220});                                     // br x17
      while (image.size() < stub + kStub) image.put(uint32_t{0xd503201f});
      continue;
    }
    if (options_.plt == Plt::secure || options_.plt == Plt::bnd_call) {
      image.put(uint32_t{0xfa1e0ff3});  // endbr64
      image.put(uint8_t{0xf2});         // bnd
    }
    image.put(uint16_t{0x25ff});
    stub_jumps.push_back(image.size());
    image.put(uint32_t{0});
    while (image.size() < stub + kStub) image.put(uint8_t{0x90});
  }
  section(".plt", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, stubs_at);

  const uint64_t text_at = image.size();
  std::vector<uint64_t> function_offsets;
  for (const Function& function : functions_) {
    image.align(16);
    function_offsets.push_back(image.size());
    image.add(function.code.bytes_.data(), function.code.bytes_.size());
  }
  section(".text", SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, text_at);
  image.align(8);
  const uint64_t rodata_at = image.size();
  image.add(rodata_.data(), rodata_.size());
  section(".rodata", SHT_PROGBITS, SHF_ALLOC, rodata_at);
  image.align(8);

  const uint64_t frame_header_at = image.size();
  image.put(uint32_t{0xffff1b01});  // version 1, pcrel sdata4, no table
  const uint64_t frame_at = image.size() + 4;
  image.put(static_cast<int32_t>(4));  // .eh_frame follows right behind this word
  const uint64_t cie_at = image.size();
  const uint8_t cie[] = {'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8};
  image.put(static_cast<uint32_t>(4 + 1 + sizeof cie));
  image.put(uint32_t{0});
  image.put(uint8_t{1});
  image.add(cie, sizeof cie);
  for (size_t i = 0; i < functions_.size() && !options_.empty_eh_frame; ++i) {
    image.put(uint32_t{13});
    image.put(static_cast<uint32_t>(image.size() - cie_at));
    image.put(static_cast<int32_t>(function_offsets[i] - image.size()));
    image.put(static_cast<uint32_t>(functions_[i].code.bytes_.size()));
    image.put(uint8_t{0});
  }
  image.put(uint32_t{0});
  section(".eh_frame", SHT_PROGBITS, SHF_ALLOC, frame_at);
  if (!options_.eh_frame) sections.pop_back();
  image.align(16);
  const uint64_t read_only_end = image.size();

  const uint64_t dynamic_at = image.size();
  const auto entry = [&](uint64_t tag, uint64_t value) { image.put(tag), image.put(value); };
  entry(DT_SYMTAB, kBase + symbols_at);
  entry(DT_STRTAB, kBase + strings_at);
  entry(DT_STRSZ, strings.size());
  if (options_.plt == Plt::got || options_.plt == Plt::none) {
    entry(DT_RELA, kBase + relocations_at), entry(DT_RELASZ, relocations_size);
  } else {
    entry(DT_JMPREL, kBase + relocations_at), entry(DT_PLTRELSZ, relocations_size);
  }
  if (soname != 0) entry(DT_SONAME, soname);
  entry(DT_NULL, 0);
  const uint64_t dynamic_size = image.size() - dynamic_at;
  const uint64_t got_at = image.size();
  for (size_t i = 0; i < imports_.size(); ++i) image.put(uint64_t{0});
  const uint64_t data_at = image.size();
  image.add(options_.data.data(), options_.data.size());
  const uint64_t loaded_end = image.size();

  // Everything has its place: fill in what refers to it.
  const bool global_data = options_.plt == Plt::got || options_.plt == Plt::none;
  for (size_t i = 0; i < imports_.size(); ++i) {
    Elf64_Rela rela{};
    rela.r_offset = kBase + got_at + i * 8;
    const uint64_t type = a64 ? (global_data ? R_AARCH64_GLOB_DAT : R_AARCH64_JUMP_SLOT)
                              : (global_data ? R_X86_64_GLOB_DAT : R_X86_64_JUMP_SLOT);
    rela.r_info = ELF64_R_INFO(uint64_t{import_symbols[i]}, type);
    image.patch(relocations_at + i * sizeof rela, rela);
    if (i >= stub_jumps.size()) continue;
    const uint64_t slot = kBase + got_at + i * 8;
    if (!a64) {
      image.patch_relative(stub_jumps[i], slot);
      continue;
    }
    image.patch_page(stub_jumps[i], slot);
    image.patch(stub_jumps[i] + 8,
                image.word(stub_jumps[i] + 8) | static_cast<uint32_t>(slot & 0xfff) << 10);
  }
  const auto import_index = [&](const std::string& name) {
    return static_cast<uint64_t>(std::find(imports_.begin(), imports_.end(), name) -
                                 imports_.begin());
  };
  for (size_t i = 0; i < functions_.size(); ++i) {
    const auto& code = functions_[i].code;
    for (const Code::Mark& mark : code.marks_) {
      const uint64_t start = function_offsets[i] + mark.at;
      expected_.push_back({mark.kind, kBase + start, start, mark.length});
    }
    for (const Code::Fixup& fixup : code.fixups_) {
      const uint64_t at = function_offsets[i] + fixup.at;
      switch (fixup.target) {
        case Code::Target::slot:
          image.patch_relative(at, kBase + got_at + import_index(fixup.name) * 8);
          break;
        case Code::Target::import: {
          const uint64_t index = import_index(fixup.name);
          uint8_t length = 5;
          if (options_.plt == Plt::none) {
            image.patch(at - 2, uint16_t{0x15ff});
            image.patch_relative(at, kBase + got_at + index * 8);
            length = 6;
          } else {
            image.patch(at - 1, uint8_t{0xe8});
            if (options_.plt == Plt::bnd_call) image.patch(at - 2, uint8_t{0xf2}), length = 6;
            image.patch_relative(at, kBase + stubs_at + index * kStub);
          }
          if (fixup.kind) {
            const uint64_t start = at + 4 - length;
            expected_.push_back({*fixup.kind, kBase + start, start, length});
          }
          break;
        }
        case Code::Target::data:
          image.patch_relative(at, kBase + data_at + fixup.offset);
          break;
        case Code::Target::data_absolute:
          image.patch(at, static_cast<uint32_t>(kBase + data_at + fixup.offset));
          break;
        case Code::Target::a64_import: {
          const uint64_t index = import_index(fixup.name);
          if (options_.plt == Plt::none) {
            image.patch(at - 8, uint32_t{0x90000009});  // adrp x9
            image.patch(at - 4, uint32_t{0xf9400129});  // ldr x9, [x9]
            image.patch(at, uint32_t{0xd63f0120});      // blr x9
            image.patch_page(at - 8, kBase + got_at + index * 8);
          } else {
            image.patch_branch(at, kBase + stubs_at + index * kStub);
          }
          if (fixup.kind) expected_.push_back({*fixup.kind, kBase + at, at, 4});
          break;
        }
        case Code::Target::a64_function:
          for (size_t callee = 0; callee < functions_.size(); ++callee) {
            if (functions_[callee].name == fixup.name) {
              image.patch_branch(at, kBase + function_offsets[callee]);
            }
          }
          break;
        case Code::Target::a64_slot:
          image.patch_page(at, kBase + got_at + import_index(fixup.name) * 8);
          break;
        case Code::Target::a64_data:
          image.patch_page(at, kBase + data_at + fixup.offset);
          break;
        case Code::Target::a64_text:
          image.patch_page(at, kBase + rodata_at + rodata_.find(fixup.name));
          break;
        case Code::Target::text:
          image.patch_relative(at, kBase + rodata_at + rodata_.find(fixup.name));
          break;
      }
    }
    if (function_symbols[i] != 0) {
      symbols[function_symbols[i]].st_value = kBase + function_offsets[i];
      symbols[function_symbols[i]].st_size = code.bytes_.size();
    }
  }
  std::sort(expected_.begin(), expected_.end(),
            [](const Expected& a, const Expected& b) { return a.address < b.address; });
  for (size_t i = 0; i < data_symbols_.size(); ++i) {
    symbols[data_symbols[i]].st_value = kBase + data_at + data_symbols_[i].offset;
    symbols[data_symbols[i]].st_size = data_symbols_[i].size;
  }
  for (size_t i = 0; i < symbols.size(); ++i) {
    image.patch(symbols_at + i * sizeof(Elf64_Sym), symbols[i]);
  }

  const auto segment = [&](uint64_t index, uint32_t type, uint32_t flags, uint64_t from,
                           uint64_t size) {
    Elf64_Phdr phdr{};
    phdr.p_type = type, phdr.p_flags = flags;
    phdr.p_offset = from, phdr.p_vaddr = kBase + from;
    phdr.p_filesz = phdr.p_memsz = size;
    image.patch(phdrs_at + index * sizeof phdr, phdr);
  };
  segment(0, PT_LOAD, PF_R | PF_X, 0, read_only_end);
  segment(1, PT_LOAD, PF_R | PF_W, dynamic_at, loaded_end - dynamic_at);
  segment(2, PT_DYNAMIC, PF_R | PF_W, dynamic_at, dynamic_size);
  segment(3, PT_NOTE, PF_R, note_at, note_size);
  if (options_.interpreter) segment(4, PT_INTERP, PF_R, interp_at, sizeof kInterpreter);
  if (options_.eh_frame) {
    segment(5, PT_GNU_EH_FRAME, PF_R, frame_header_at, frame_at - frame_header_at);
  }

  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = options_.machine;
  header.e_version = EV_CURRENT;
  header.e_entry = kBase + text_at;
  header.e_phoff = phdrs_at;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = kSegments;
  header.e_shentsize = sizeof(Elf64_Shdr);
  if (options_.sections) {
    std::string names;
    std::vector<Elf64_Shdr> table;
    const uint64_t names_at = image.size();
    sections.push_back({".shstrtab", SHT_STRTAB, 0, names_at, 0});
    for (const SectionNote& note : sections) {
      Elf64_Shdr shdr{};
      shdr.sh_name = static_cast<uint32_t>(names.size());
      names += std::string(note.name) + '\0';
      shdr.sh_type = note.type, shdr.sh_flags = note.flags;
      shdr.sh_offset = note.offset, shdr.sh_size = note.size;
      shdr.sh_addr = (note.flags & SHF_ALLOC) != 0 ? kBase + note.offset : 0;
      table.push_back(shdr);
    }
    table.back().sh_size = names.size();
    image.add(names.data(), names.size());
    image.align(8);
    header.e_shoff = image.size();
    header.e_shnum = static_cast<uint16_t>(table.size());
    header.e_shstrndx = static_cast<uint16_t>(table.size() - 1);
    image.add(table.data(), table.size() * sizeof(Elf64_Shdr));
  }
  image.patch(0, header);
  return image.take();
}

int memory_file(const std::vector<std::byte>& bytes) {
  const int fd = ::memfd_create("giltop-test", MFD_CLOEXEC);
  if (fd < 0) return fd;
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote <= 0) {
      ::close(fd);
      return -1;
    }
    done += static_cast<size_t>(wrote);
  }
  return fd;
}

}  // namespace giltop::testing
