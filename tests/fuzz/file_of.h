// A file in memory that holds an input.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/fd.h"

namespace giltop::fuzz {

inline Fd file_of(const uint8_t* data, size_t size) {
  Fd file(memfd_create("input", MFD_CLOEXEC));
  if (!file || pwrite(file.get(), data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  return file;
}

}  // namespace giltop::fuzz
