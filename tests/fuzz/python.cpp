// Fuzzing: an ELF file that says it is a CPython.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "base/fd.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  giltop::Fd fd(memfd_create("python", MFD_CLOEXEC));
  if (!fd || pwrite(fd.get(), data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  const auto file = giltop::ElfFile::make(std::move(fd));
  if (file) (void)giltop::inspect_elf(*file);
  return 0;
}
