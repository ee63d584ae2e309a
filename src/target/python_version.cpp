#include "target/python_version.h"

#include <elf.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "target/bytes.h"
#include "target/elf_dynamic.h"
#include "target/elf_file.h"
#include "target/machine.h"

namespace giltop {
namespace {

constexpr std::string_view kSaveThread = "PyEval_SaveThread";
constexpr std::string_view kPypyNames[] = {"pypy_main_startup", "rpython_startup_code",
                                           "pypy_execute_source"};

// "3.11.2" or "3.9" or "2.7.18+" at the start of `text`; all of it must belong to the version.
std::optional<PythonVersion> parse_version(std::string_view text) {
  PythonVersion version{std::string(text), 0, 0};
  const char* const end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, version.major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return std::nullopt;
  const auto minor = std::from_chars(major.ptr + 1, end, version.minor);
  if (minor.ec != std::errc()) return std::nullopt;
  if (version.major < 2 || version.major > 9 || version.minor < 0 || version.minor > 99) {
    return std::nullopt;
  }
  if (minor.ptr == end) return version;
  if (*minor.ptr != '.' || text.size() > 24) return std::nullopt;
  int patch;
  const auto micro = std::from_chars(minor.ptr + 1, end, patch);
  if (micro.ec != std::errc() || patch < 0) return std::nullopt;
  const std::string_view suffix(micro.ptr, static_cast<size_t>(end - micro.ptr));
  if (suffix.find_first_not_of("abcr0123456789+") != std::string_view::npos) return std::nullopt;
  return version;
}

// PY_VERSION_HEX: 0xMMmmppRL, R: a alpha, b beta, c candidate, f final (Include/patchlevel.h).
std::optional<PythonVersion> version_of_hex(uint32_t hex) {
  PythonVersion version;
  version.major = static_cast<int>(hex >> 24);
  version.minor = static_cast<int>((hex >> 16) & 0xff);
  if (version.major < 3 || version.major > 9) return std::nullopt;
  version.text = std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
                 std::to_string((hex >> 8) & 0xff);
  const uint32_t level = (hex >> 4) & 0xf, serial = hex & 0xf;
  const char* const name = level == 0xa ? "a" : level == 0xb ? "b" : level == 0xc ? "rc" : nullptr;
  if (name != nullptr) version.text += name + std::to_string(serial);
  return version;
}

std::string string_at(const ElfFile& file, uint64_t address, uint64_t limit) {
  const auto bytes = file.read_address(address, std::min(file.bytes_from(address), limit));
  return bytes ? std::string(load_string(*bytes, 0)) : std::string();
}

// Py_GetVersion passes PY_VERSION to snprintf: the version is a string its code takes the address
// of. (Searching the data instead would take "/opt/python-3.8.1" for a version.)
std::optional<PythonVersion> version_of_code(const ElfFile& file,
                                             const PythonSymbols::Symbol& function) {
  const Machine* const machine = find_machine(file.machine());
  if (machine == nullptr) return std::nullopt;
  constexpr uint64_t kMaxFunction = 4096;  // bytes; real ones have 100
  const uint64_t size = std::min({function.size, kMaxFunction, file.bytes_from(function.address)});
  const auto code = file.read_address(function.address, size);
  if (!code) return std::nullopt;
  for (const uint64_t address : machine->taken_addresses(*code, function.address)) {
    if (auto version = parse_version(string_at(file, address, 32))) return version;
  }
  return std::nullopt;
}

// "libpython3.8.so.1.0", "libpython3.6m.so.1.0".
std::optional<PythonVersion> version_of_soname(std::string_view soname) {
  constexpr std::string_view kPrefix = "libpython";
  if (!soname.starts_with(kPrefix)) return std::nullopt;
  soname.remove_prefix(kPrefix.size());
  const size_t end = soname.find_first_not_of("0123456789.");
  soname = soname.substr(0, std::min(end, soname.find(".so")));
  return parse_version(soname);
}

// "39" and "311": one digit of major version.
std::optional<PythonVersion> version_of_tag(std::string_view tag) {
  if (tag.size() < 2) return std::nullopt;
  return parse_version(std::string(1, tag[0]) + "." + std::string(tag.substr(1)));
}

}  // namespace

bool may_be_python(const DynamicSection& dynamic) {
  if (dynamic.mentions(kSaveThread)) return true;
  return std::any_of(std::begin(kPypyNames), std::end(kPypyNames),
                     [&](std::string_view name) { return dynamic.mentions(name); });
}

Result<PythonSymbols> python_symbols(const ElfFile& file, const DynamicSection& dynamic) {
  PythonSymbols found;
  const auto visit = [&](uint32_t, const DynamicSection::Symbol& symbol) {
    if (!symbol.defined || symbol.name.empty()) return;
    const PythonSymbols::Symbol where{symbol.value, symbol.size};
    switch (symbol.name[0]) {
      case 'P':
        if (symbol.name == kSaveThread) found.eval_save_thread = where;
        if (symbol.name == "Py_InitializeEx") found.initialize_ex = where;
        if (symbol.name == "Py_GetVersion") found.get_version = where;
        if (symbol.name == "Py_Version") found.version = where;
        if (symbol.name == "PyString_FromString") found.python2 = true;
        break;
      case '_':
        if (symbol.name == "_PyRuntime") found.runtime = where;
        if (symbol.name == "_Py_MergeZeroLocalRefcount") found.nogil_refcounts = true;
        break;
      case 'p':
      case 'r':
        for (const std::string_view name : kPypyNames) found.pypy |= symbol.name == name;
        break;
      default:
        break;
    }
  };
  if (auto read = dynamic.for_each_symbol(file, visit); !read) return std::move(read).error();
  return found;
}

std::optional<PythonVersion> python_version(const ElfFile& file, const DynamicSection& dynamic,
                                            const PythonSymbols& symbols) {
  if (symbols.version) {
    if (const auto bytes = file.read_address(symbols.version->address, 4)) {
      if (auto version = version_of_hex(*load<uint32_t>(*bytes, 0))) return version;
    }
  }
  if (symbols.get_version) {
    if (auto version = version_of_code(file, *symbols.get_version)) return version;
  }
  if (auto version = version_of_soname(dynamic.soname())) return version;
  return version_of_tag(cache_tag(file));
}

bool is_free_threaded(const ElfFile& file, const PythonSymbols& symbols) {
  // struct _Py_DebugOffsets: char cookie[8]; uint64_t version; uint64_t free_threaded; ...
  if (symbols.runtime) {
    const auto offsets = file.read_address(symbols.runtime->address, 24);
    if (offsets && as_text(*offsets).starts_with("xdebugpy")) {
      return *load<uint64_t>(*offsets, 16) != 0;
    }
  }
  return symbols.nogil_refcounts;
}

std::string cache_tag(const ElfFile& file) {
  constexpr uint64_t kMaxData = uint64_t{64} << 20;  // bytes
  constexpr std::string_view kTag = "cpython-";
  uint64_t total = 0;
  for (const ElfFile::Segment& segment : file.segments()) {
    if (segment.type != PT_LOAD || (segment.flags & PF_W) != 0) continue;
    if (segment.file_size > kMaxData - total) continue;
    total += segment.file_size;
    const auto bytes = file.read(segment.offset, segment.file_size);
    if (!bytes) continue;
    const std::string_view text = as_text(*bytes);
    for (size_t at = text.find(kTag); at != std::string_view::npos; at = text.find(kTag, at + 1)) {
      const std::string_view tag = load_string(*bytes, at + kTag.size());
      if ((tag.size() == 2 || tag.size() == 3) && (tag[0] == '2' || tag[0] == '3') &&
          tag.find_first_not_of("0123456789") == std::string_view::npos) {
        return std::string(tag);
      }
    }
  }
  return {};
}

std::string build_id_of_notes(std::span<const std::byte> notes) {
  for (uint64_t at = 0; at + 12 <= notes.size();) {
    const uint64_t name_size = *load<uint32_t>(notes, at);
    const uint64_t size = *load<uint32_t>(notes, at + 4);
    const auto type = *load<uint32_t>(notes, at + 8);
    const uint64_t name = at + 12;
    const uint64_t description = name + (name_size + 3) / 4 * 4;
    if (description > notes.size() || size > notes.size() - description) break;
    if (type == NT_GNU_BUILD_ID && name_size == 4 && size <= 64 &&
        std::memcmp(notes.data() + name, ELF_NOTE_GNU, 4) == 0) {
      constexpr char kHex[] = "0123456789abcdef";
      std::string text;
      for (uint64_t i = 0; i < size; ++i) {
        const auto byte = std::to_integer<unsigned>(notes[description + i]);
        text += {kHex[byte >> 4], kHex[byte & 15]};
      }
      return text;
    }
    // .note.gnu.property is aligned to 8, but then it has a segment of its own.
    at = description + (size + 3) / 4 * 4;
  }
  return {};
}

std::string build_id(const ElfFile& file) {
  constexpr uint64_t kMaxNotes = 1 << 16;  // bytes of one PT_NOTE
  for (const ElfFile::Segment& segment : file.segments()) {
    if (segment.type != PT_NOTE) continue;
    const auto notes = file.read(segment.offset, std::min(segment.file_size, kMaxNotes));
    if (!notes) continue;
    if (std::string id = build_id_of_notes(*notes); !id.empty()) return id;
  }
  return {};
}

}  // namespace giltop
