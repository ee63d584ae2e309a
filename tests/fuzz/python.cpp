// Fuzzing: an ELF file that says it is a CPython.
#include <cstddef>
#include <cstdint>

#include "file_of.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = giltop::ElfFile::make(giltop::fuzz::file_of(data, size));
  if (file) (void)giltop::inspect_elf(*file);
  return 0;
}
