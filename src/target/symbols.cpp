#include "target/symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <lzma.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/fd.h"
#include "target/bytes.h"
#include "target/elf_file.h"
#include "target/python_version.h"

namespace giltop {
namespace {

constexpr uint64_t kMaxSymbols = uint64_t{64} << 20;     // bytes of one .symtab; Python's has 400 K
constexpr uint64_t kMaxStrings = uint64_t{64} << 20;     // bytes of its names
constexpr uint64_t kMaxDebugFile = uint64_t{2} << 30;    // bytes read for a CRC-32
constexpr uint64_t kMaxPacked = uint64_t{16} << 20;      // bytes of .gnu_debugdata
constexpr uint64_t kMaxUnpacked = uint64_t{64} << 20;    // bytes out of it
constexpr uint64_t kMaxLzmaMemory = uint64_t{96} << 20;  // bytes; xz -9 asks for 65 MB

constexpr size_t kMaxAddresses =
    256;  // bounds the time a hostile table takes; CPython has 30 sites

class Finder {
 public:
  Finder(std::span<const uint64_t> addresses, FunctionNames& found)
      : addresses_(addresses), found_(found) {
    found_.names.resize(addresses.size());
  }

  bool complete() const {
    return std::all_of(found_.names.begin(), found_.names.end(),
                       [](const auto& name) { return name.has_value(); });
  }

  // Names what is nameless yet from a symbol table of `type`.
  void look(const ElfFile& file, uint32_t type, const std::string& source) {
    if (!file.is_64bit() || complete()) return;
    for (const ElfFile::Section& section : file.sections()) {
      if (section.type != type || section.link >= file.sections().size()) continue;
      const ElfFile::Section& names = file.sections()[section.link];
      const uint64_t size = section.size - section.size % sizeof(Elf64_Sym);
      if (names.type != SHT_STRTAB || size > kMaxSymbols || names.size > kMaxStrings) continue;
      const auto table = file.read(section.offset, size);
      const auto strings = file.read(names.offset, names.size);
      if (!table || !strings) continue;
      if (look(*table, *strings)) found_.sources.push_back(source);
      return;
    }
  }

 private:
  bool look(std::span<const std::byte> table, std::span<const std::byte> strings) {
    std::vector<std::optional<Elf64_Sym>> best(addresses_.size());
    for (uint64_t at = 0; at < table.size(); at += sizeof(Elf64_Sym)) {
      const Elf64_Sym symbol = *load<Elf64_Sym>(table, at);
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF) continue;
      for (size_t i = 0; i < addresses_.size(); ++i) {
        if (found_.names[i] || addresses_[i] < symbol.st_value ||
            addresses_[i] - symbol.st_value >= symbol.st_size) {
          continue;
        }
        // The innermost; of two names for one function, the first.
        if (best[i] && best[i]->st_value >= symbol.st_value) continue;
        if (!load_string(strings, symbol.st_name).empty()) best[i] = symbol;
      }
    }
    bool any = false;
    for (size_t i = 0; i < best.size(); ++i) {
      if (!best[i]) continue;
      constexpr size_t kMaxName = 256;  // longer ones are none of CPython's
      const std::string_view name = load_string(strings, best[i]->st_name).substr(0, kMaxName);
      found_.names[i] = FunctionName{std::string(name), addresses_[i] - best[i]->st_value};
      any = true;
    }
    return any;
  }

  std::span<const uint64_t> addresses_;
  FunctionNames& found_;
};

// A regular file below `root`, which no link on the way leaves. O_PATH first: a FIFO or a device
// must not be opened. Nothing where there is none.
Fd open_below(const std::string& root, const std::string& path) {
  const Fd folder(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return Fd();
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const Fd place(
      static_cast<int>(::syscall(SYS_openat2, folder.get(), path.c_str(), &how, sizeof(how))));
  struct stat status;
  if (!place || ::fstat(place.get(), &status) != 0 || !S_ISREG(status.st_mode)) return Fd();
  const std::string again = "/proc/self/fd/" + std::to_string(place.get());
  return Fd(::open(again.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

// In a debug file the program headers may be those of the file it was split from (eu-strip): the
// sections tell.
std::string build_id_of_sections(const ElfFile& file) {
  constexpr uint64_t kMaxNotes = 1 << 16;  // bytes
  for (const ElfFile::Section& section : file.sections()) {
    if (section.type != SHT_NOTE) continue;
    const auto notes = file.read(section.offset, std::min(section.size, kMaxNotes));
    if (!notes) continue;
    if (std::string id = build_id_of_notes(*notes); !id.empty()) return id;
  }
  return {};
}

// As .gnu_debuglink has it: of the whole file, the polynomial of zlib's crc32().
std::optional<uint32_t> crc_of(const Fd& fd) {
  std::vector<std::byte> buffer(size_t{1} << 20);
  uLong crc = ::crc32(0, nullptr, 0);
  for (uint64_t at = 0; at < kMaxDebugFile;) {
    const ssize_t got = ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::nullopt;
    if (got == 0) return static_cast<uint32_t>(crc);
    crc = ::crc32(crc, reinterpret_cast<const Bytef*>(buffer.data()), static_cast<uInt>(got));
    at += static_cast<uint64_t>(got);
  }
  return std::nullopt;
}

struct DebugLink {
  std::string name;  // of a file, without a folder
  uint32_t crc = 0;
};

std::optional<DebugLink> debug_link(const ElfFile& file) {
  const ElfFile::Section* const section = file.section(".gnu_debuglink");
  constexpr uint64_t kMaxLink = 4096;  // bytes
  if (section == nullptr || section->size > kMaxLink) return std::nullopt;
  const auto bytes = file.read(section->offset, section->size);
  if (!bytes) return std::nullopt;
  const std::string_view name = load_string(*bytes, 0);
  const auto crc = load<uint32_t>(*bytes, (name.size() + 1 + 3) / 4 * 4);
  if (name.empty() || name.find('/') != std::string_view::npos || !crc) return std::nullopt;
  return DebugLink{std::string(name), *crc};
}

class DebugFiles {
 public:
  DebugFiles(const ElfFile& file, const DebugPlaces& places, Finder& finder, FunctionNames& found)
      : file_(file), places_(places), finder_(finder), found_(found), id_(build_id(file)) {}

  void look() {
    if (id_.size() > 2) {
      try_file("/usr/lib/debug/.build-id/" + id_.substr(0, 2) + "/" + id_.substr(2) + ".debug",
               std::nullopt);
    }
    const auto link = debug_link(file_);
    const size_t slash = places_.path.rfind('/');
    if (!link || slash == std::string::npos) return;
    const std::string folder = places_.path.substr(0, slash + 1);
    for (const std::string& where : {folder, folder + ".debug/", "/usr/lib/debug" + folder}) {
      try_file(where + link->name, link->crc);
    }
  }

  void look_inside() {
    const ElfFile::Section* const section = file_.section(".gnu_debugdata");
    if (section == nullptr || finder_.complete()) return;
    const std::string name = ".gnu_debugdata";
    if (section->size > kMaxPacked) return refuse(name, "larger than giltop reads");
    const auto packed = file_.read(section->offset, section->size);
    if (!packed) return refuse(name, packed.error().message());
    const auto unpacked = unpack_xz(*packed);
    if (!unpacked) return refuse(name, unpacked.error().message());
    Fd memory(::memfd_create("gnu_debugdata", MFD_CLOEXEC));
    if (!memory) return refuse(name, system_error("memfd_create", errno).message());
    for (size_t done = 0; done < unpacked->size();) {
      const ssize_t put = ::write(memory.get(), unpacked->data() + done, unpacked->size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return refuse(name, system_error("unpack", errno).message());
      done += static_cast<size_t>(put);
    }
    const auto inner = ElfFile::make(std::move(memory));
    if (!inner) return refuse(name, inner.error().message());
    finder_.look(*inner, SHT_SYMTAB, name);
  }

 private:
  void try_file(const std::string& path, std::optional<uint32_t> crc) {
    if (finder_.complete()) return;
    Fd fd = open_below(places_.root, path);
    if (!fd) return;
    if (crc && crc_of(fd) != *crc) return refuse(path, "its CRC-32 is another than the file tells");
    const auto debug = ElfFile::make(std::move(fd));
    if (!debug) return refuse(path, debug.error().message());
    const std::string id = build_id_of_sections(*debug);
    // Without an id in either, the CRC has decided.
    if (id != id_ && (!crc || (!id.empty() && !id_.empty()))) {
      return refuse(path, id.empty() ? "it has no build-id" : "it is of build-id " + id);
    }
    finder_.look(*debug, SHT_SYMTAB, path);
  }

  void refuse(const std::string& path, const std::string& why) {
    found_.refused.push_back(path + ": not used: " + why);
  }

  const ElfFile& file_;
  const DebugPlaces& places_;
  Finder& finder_;
  FunctionNames& found_;
  std::string id_;
};

}  // namespace

Result<std::vector<std::byte>> unpack_xz(std::span<const std::byte> packed) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (::lzma_stream_decoder(&stream, kMaxLzmaMemory, 0) != LZMA_OK) return Error("out of memory");
  struct End {
    lzma_stream& stream;
    ~End() { ::lzma_end(&stream); }
  } const end{stream};
  std::vector<std::byte> out;
  std::array<std::byte, 65536> buffer;
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  for (lzma_ret state = LZMA_OK; state == LZMA_OK;) {
    stream.next_out = reinterpret_cast<uint8_t*>(buffer.data());
    stream.avail_out = buffer.size();
    state = ::lzma_code(&stream, LZMA_FINISH);
    if (state == LZMA_MEMLIMIT_ERROR) return Error("unpacking it takes too much memory");
    if (state != LZMA_OK && state != LZMA_STREAM_END) return Error("not a whole xz file");
    const size_t got = buffer.size() - stream.avail_out;
    if (got > kMaxUnpacked - out.size()) return Error("unpacked, larger than giltop reads");
    out.insert(out.end(), buffer.data(), buffer.data() + got);
  }
  return out;
}

FunctionNames function_names(const ElfFile& file, const DebugPlaces& places,
                             std::span<const uint64_t> addresses) {
  FunctionNames found;
  Finder finder(addresses, found);
  if (addresses.size() > kMaxAddresses) return found;
  finder.look(file, SHT_SYMTAB, ".symtab");
  finder.look(file, SHT_DYNSYM, ".dynsym");
  if (!finder.complete()) {
    DebugFiles debug(file, places, finder, found);
    debug.look();
    debug.look_inside();
  }
  return found;
}

GilFunction gil_function(std::string_view name) {
  GilFunction function = GilFunction::other;
  const auto take = [&name](std::string_view prefix) {
    const bool is = name.starts_with(prefix);
    if (is) name.remove_prefix(prefix.size());
    return is;
  };
  if (take("take_gil")) {
    function = GilFunction::take_gil;
  } else if (take("drop_gil")) {
    function = GilFunction::drop_gil;
    (void)take("_impl");  // 3.13 and newer
  }
  while (!name.empty()) {
    constexpr std::string_view kSuffixes[] = {".lto_priv", ".constprop", ".isra", ".part", ".cold"};
    if (std::none_of(std::begin(kSuffixes), std::end(kSuffixes), take)) return GilFunction::other;
    const size_t digits = name.find_first_not_of("0123456789", 1);
    if (name.size() > 1 && name[0] == '.' && digits != 1) {
      name.remove_prefix(std::min(digits, name.size()));
    }
  }
  return function;
}

}  // namespace giltop
