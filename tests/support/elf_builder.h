// Builds small ELF files in memory, with a handful of instructions: what a test of the GIL site
// finder needs, and nothing that a linker would add beyond it. x86-64 with Code, AArch64 with
// A64Code.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "target/gil_sites.h"

namespace giltop::testing {

// Registers as the encoding numbers them.
enum Reg : uint8_t { rax = 0, rbx = 3, rsp = 4, rbp = 5, rsi = 6, rdi = 7, r12 = 12, r15 = 15 };

// How calls reach an imported function.
enum class Plt {
  lazy,      // .plt: jmp *slot; push; jmp
  secure,    // .plt.sec: endbr64; bnd jmp *slot
  got,       // .plt.got: jmp *slot; xchg %ax,%ax, and a GLOB_DAT relocation
  none,      // -fno-plt: call *slot(%rip)
  bnd_call,  // .plt.sec, and the calls have a bnd prefix too
};
// AArch64: lazy is adrp, ldr, add, br; secure has bti c before it, bnd_call autia1716 in it as
// well; got has a GLOB_DAT relocation; none is adrp, ldr, blr.

// The code of one function (or .cold part). Every call returns *this, to be chained.
class Code {
 public:
  Code& raw(std::initializer_list<int> bytes);
  Code& store(Reg base, int32_t disp, int32_t value);  // movl $value, disp(base)
  Code& store_data(uint64_t offset, int32_t value);    // movl $value, data+offset(%rip)
  Code& lea_rdi(Reg base, int32_t disp);               // lea disp(base), %rdi
  Code& lea_rdi_data(uint64_t offset);                 // lea data+offset(%rip), %rdi
  Code& mov_edi_data(uint64_t offset);                 // mov $data+offset, %edi
  Code& mov_reg(Reg to, Reg from);                     // mov %from, %to
  Code& load_rdi(Reg base, int32_t disp);              // mov disp(base), %rdi
  Code& lea_rdi_text(const std::string& text);         // lea "text"(%rip), %rdi
  Code& call(const std::string& import);               // call import
  Code& load_slot(Reg to, const std::string& import);  // mov import@GOTPCREL(%rip), %to
  Code& test_eax();                                    // test %eax,%eax; jne .+2; nop; nop
  Code& cmp_etimedout();                               // cmp $110,%eax; je .+2; nop; nop
  Code& ret();

  // The next call is a GIL site of this kind: expected() of the builder lists it.
  Code& expect(SiteKind kind);
  // The bytes that follow are one of this kind and length.
  Code& expect_here(SiteKind kind, uint8_t length);

 protected:
  friend class ElfBuilder;
  // The last ones are AArch64's: bl, and adrp with the ldr or add behind it.
  enum class Target {
    import,
    slot,
    data,
    data_absolute,
    text,
    a64_import,
    a64_function,
    a64_slot,
    a64_data,
    a64_text
  };
  struct Fixup {
    size_t at;  // of the 4 bytes to fill
    Target target;
    uint64_t offset;
    std::string name;
    size_t start;  // of the instruction
    std::optional<SiteKind> kind;
  };
  void fix(Target target, uint64_t offset, std::string name, size_t start);

  struct Mark {
    size_t at;
    SiteKind kind;
    uint8_t length;
  };

  std::vector<uint8_t> bytes_;
  std::vector<Fixup> fixups_;
  std::vector<Mark> marks_;
  std::optional<SiteKind> expected_;
};

class ElfBuilder {
 public:
  struct Options {
    uint16_t machine = EM_X86_64;  // or EM_AARCH64
    Plt plt = Plt::lazy;
    bool sections = true;
    bool interpreter = true;  // PT_INTERP
    bool eh_frame = true;
    bool empty_eh_frame = false;  // no FDE in it
    bool relocations = true;
    std::string soname;
    std::vector<uint8_t> build_id = {0xab, 0xcd, 0xef, 0x01};
    std::vector<uint8_t> data = std::vector<uint8_t>(512);
  };
  struct Expected {
    SiteKind kind;
    uint64_t address;
    uint64_t file_offset;
    uint8_t length;
    bool operator==(const Expected&) const = default;
  };

  explicit ElfBuilder(Options options) : options_(std::move(options)) {}

  // A function named in the symbol table where `exported`.
  ElfBuilder& function(const std::string& name, Code code, bool exported = false);
  ElfBuilder& export_data(const std::string& name, uint64_t offset, uint64_t size);
  ElfBuilder& import(const std::string& name);  // an undefined symbol without a call
  ElfBuilder& rodata(const std::string& text);  // NUL-terminated, in read-only data

  std::vector<std::byte> build();
  const std::vector<Expected>& expected() const { return expected_; }  // of the last build()

 private:
  struct Function {
    std::string name;
    Code code;
    bool exported;
  };
  struct DataSymbol {
    std::string name;
    uint64_t offset, size;
  };
  Options options_;
  std::vector<Function> functions_;
  std::vector<DataSymbol> data_symbols_;
  std::vector<std::string> imports_;
  std::string rodata_;
  std::vector<Expected> expected_;
};

// A descriptor of an unnamed file with these bytes; negative on failure.
int memory_file(const std::vector<std::byte>& bytes);

}  // namespace giltop::testing
