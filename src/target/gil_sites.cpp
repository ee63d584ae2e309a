#include "target/gil_sites.h"

#include <elf.h>

#include "target/call_sites.h"
#include "target/elf_dynamic.h"
#include "target/elf_file.h"
#include "target/gil_classify.h"
#include "target/python_version.h"

namespace giltop {
namespace {

Inspection refused(std::string reason) {
  Inspection inspection;
  inspection.kind = Inspection::Kind::refused;
  inspection.reason = std::move(reason);
  return inspection;
}

Inspection not_python(const ElfFile& file) {
  Inspection inspection;
  inspection.kind = file.is_dynamic() ? Inspection::Kind::launcher : Inspection::Kind::unrelated;
  return inspection;
}

// A program that does not even name the CPython API. One that is a CPython all the same (linked
// without --export-dynamic, or static altogether) must not be passed over in silence.
Inspection inspect_nameless(const ElfFile& file, const DynamicSection* dynamic) {
  const bool is_static = !file.is_dynamic() && (dynamic == nullptr || dynamic->is_pie()) &&
                         file.entry_file_offset().has_value();
  bool imports_all = file.is_dynamic() && dynamic != nullptr;
  for (const char* const name : kCondNames) {
    imports_all = imports_all && dynamic->mentions(name);
  }
  if (!is_static && !imports_all) return not_python(file);
  const std::string tag = cache_tag(file);
  if (tag.empty()) return not_python(file);
  return refused("this looks like CPython (cpython-" + tag +
                 ") but exports none of its symbols: its GIL cannot be proved");
}

// EM_386 and EM_ARM: what runs on the machines giltop reads, but is refused for its 32 bits.
bool is_32bit_sibling(uint16_t machine) { return machine == EM_386 || machine == EM_ARM; }

// `machine`: null for a 32-bit one.
Result<Inspection> inspect(const ElfFile& file, const Machine* machine) {
  auto dynamic = DynamicSection::make(file);
  if (!dynamic) return std::move(dynamic).error();
  if (!*dynamic) return inspect_nameless(file, nullptr);
  const DynamicSection& names = **dynamic;
  if (names.soname().starts_with("libpypy")) {
    return refused("this is PyPy, not CPython; giltop reads CPython's GIL only");
  }
  if (!may_be_python(names)) return inspect_nameless(file, &names);
  auto symbols = python_symbols(file, names);
  if (!symbols) return std::move(symbols).error();
  if (symbols->pypy) return refused("this is PyPy, not CPython; giltop reads CPython's GIL only");
  if (!symbols->is_cpython()) return not_python(file);

  const auto version = python_version(file, names, *symbols);
  const std::string name = version ? "Python " + version->text : "a CPython of unknown version";
  const bool too_old =
      symbols->python2 ||
      (version && (version->major < 3 || (version->major == 3 && version->minor < 6)));
  if (too_old) {
    const bool contradicts = version && version->major > 2 && symbols->python2;
    return refused("this is " + (version && !contradicts ? name : std::string("Python 2")) +
                   "; giltop reads CPython 3.6 and newer");
  }
  if (!file.is_64bit() || machine == nullptr) {
    return refused("this is a 32-bit CPython; giltop reads 64-bit ones only");
  }
  if (!version)
    return refused("this is " + name + ": neither Py_Version nor a version string found");

  auto calls = find_call_sites(file, names, *machine);
  if (!calls) {
    return refused(name + ": the GIL's call sites cannot be proved: " + calls.error().message());
  }
  for (const CondCall needed : {CondCall::timedwait, CondCall::signal}) {
    const auto i = static_cast<size_t>(needed);
    if (calls->imports[i]) continue;
    return refused(name + ": the GIL's call sites cannot be proved: " + kCondNames[i] +
                   " is not called through the PLT or GOT (a static C library?)");
  }
  Inspection inspection;
  inspection.kind = Inspection::Kind::cpython;
  CPythonFile& cpython = inspection.cpython;
  cpython.version = version->text;
  cpython.major = version->major;
  cpython.minor = version->minor;
  cpython.build_id = build_id(file);
  cpython.free_threaded = is_free_threaded(file, *symbols);
  for (const std::string_view library : names.needed())
    cpython.glibc = cpython.glibc || library == "libc.so.6";
  const bool separate_statics = version->major == 3 && version->minor == 6;
  auto classified = classify_gil_sites(*calls, *machine, separate_statics, cpython.free_threaded);
  if (!classified) {
    return refused(name +
                   ": the GIL's call sites cannot be proved: " + classified.error().message());
  }
  cpython.sites = std::move(classified->sites);
  cpython.cond_offset = classified->layout.cond_offset;
  cpython.switch_cond_offset = classified->layout.switch_cond_offset;
  if (symbols->runtime) cpython.runtime_address = symbols->runtime->address;
  for (const ElfFile::Segment& segment : file.segments()) {
    if (segment.type == PT_LOAD && (segment.flags & PF_X) != 0)
      cpython.code.push_back({segment.address, segment.offset, segment.file_size});
  }
  return inspection;
}

}  // namespace

const char* to_string(SiteKind kind) {
  switch (kind) {
    case SiteKind::wait:
      return "wait";
    case SiteKind::acquire:
      return "acquire";
    case SiteKind::release:
      return "release";
    case SiteKind::forced:
      return "forced";
    case SiteKind::gave_up:
      return "gave up";
  }
  return "unknown";
}

Result<Inspection> inspect_elf(const ElfFile& file) {
  const Machine* const machine = find_machine(file.machine());
  if (machine == nullptr && !is_32bit_sibling(file.machine())) {
    return Error("ELF file of another machine (e_machine " + std::to_string(file.machine()) + ")");
  }
  auto inspection = inspect(file, machine);
  if (inspection) inspection->machine = file.machine();
  return inspection;
}

Result<Inspection> inspect_native_elf(const ElfFile& file) {
  auto inspection = inspect_elf(file);
  if (inspection && inspection->is_foreign())
    return Error("ELF file of another machine (e_machine " + std::to_string(inspection->machine) +
                 ")");
  return inspection;
}

}  // namespace giltop
