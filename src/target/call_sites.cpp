#include "target/call_sites.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <unordered_map>

#include "target/decoded_function.h"
#include "target/elf_dynamic.h"
#include "target/elf_file.h"
#include "target/x86_insn.h"

namespace giltop {
namespace {

// Limits against files made to exhaust us; CPython's largest numbers are far below.
constexpr uint64_t kMaxCode = uint64_t{256} << 20;    // bytes of executable segments
constexpr size_t kMaxCandidates = 4096;               // CPython: about 30
constexpr size_t kMaxTargets = 64;                    // slots, stubs; CPython: 3 each
constexpr size_t kSearchBudget = size_t{4} << 20;     // instructions, see DecodedFunction
constexpr uint64_t kMaxFunction = uint64_t{4} << 20;  // bytes; the eval loop has 0.1 MB
constexpr uint64_t kMaxDecoded = uint64_t{32} << 20;  // bytes, all functions together

struct Target {
  uint64_t address = 0;
  CondCall callee = CondCall::signal;
};

struct Candidate {
  uint64_t opcode_address = 0;  // of the E8, FF or 8B byte: a prefix may stand before it
  CondCall callee = CondCall::signal;
};

// A handful of addresses, looked up for every call of the file: a range check drops nearly all.
class Targets {
 public:
  void add(uint64_t address, CondCall callee) {
    if (all_.size() == kMaxTargets) return;
    all_.push_back({address, callee});
    low_ = std::min(low_, address);
    high_ = std::max(high_, address);
  }
  std::optional<CondCall> find(uint64_t address) const {
    if (address < low_ || address > high_) return std::nullopt;
    for (const Target& target : all_) {
      if (target.address == address) return target.callee;
    }
    return std::nullopt;
  }
  bool empty() const { return all_.empty(); }

 private:
  std::vector<Target> all_;
  uint64_t low_ = UINT64_MAX, high_ = 0;
};

// BOLT keeps the code it has rewritten as .bolt.org.text: dead, but still in an executable segment.
bool is_dead_section(const ElfFile::Section& section) {
  return section.name.starts_with(".bolt.org") && (section.flags & SHF_EXECINSTR) != 0;
}

Result<CodeSegment> read_part(const ElfFile& file, const ElfFile::Segment& segment) {
  auto bytes = file.read(segment.offset, segment.file_size);
  if (!bytes) return std::move(bytes).error();
  return CodeSegment{segment.address, segment.offset, *std::move(bytes)};
}

Result<std::vector<CodeSegment>> read_code(const ElfFile& file) {
  std::vector<CodeSegment> code;
  uint64_t total = 0;
  for (const ElfFile::Segment& segment : file.segments()) {
    if (segment.type != PT_LOAD || (segment.flags & PF_X) == 0 || segment.file_size == 0) continue;
    // Old linkers put .rodata into the same segment: what is found there has no function bounds.
    total += std::min(segment.file_size, kMaxCode + 1);
    if (total > kMaxCode) return Error("more executable code than giltop reads");
    if (segment.address > UINT64_MAX - segment.file_size) return Error("bad executable segment");
    auto part = read_part(file, segment);
    if (!part) return std::move(part).error().in("executable segment");
    code.push_back(*std::move(part));
  }
  std::sort(code.begin(), code.end(),
            [](const CodeSegment& a, const CodeSegment& b) { return a.address < b.address; });
  return code;
}

// Calls visit(offset) for every place in `bytes` where `first` is found with `tail` bytes behind
// it.
template <typename Visit>
void for_each_byte(std::span<const std::byte> bytes, uint8_t first, size_t tail, Visit visit) {
  if (bytes.size() <= tail) return;
  const std::byte* at = bytes.data();
  const std::byte* const end = bytes.data() + (bytes.size() - tail);
  while (at < end) {
    at = static_cast<const std::byte*>(std::memchr(at, first, static_cast<size_t>(end - at)));
    if (at == nullptr) return;
    visit(static_cast<size_t>(at - bytes.data()));
    ++at;
  }
}

uint64_t relative_target(const CodeSegment& code, size_t displacement_at) {
  int32_t displacement;
  std::memcpy(&displacement, code.bytes.data() + displacement_at, sizeof displacement);
  return code.address + displacement_at + sizeof displacement +
         static_cast<uint64_t>(int64_t{displacement});
}

uint8_t byte_at(const CodeSegment& code, size_t at) {
  return std::to_integer<uint8_t>(code.bytes[at]);
}

// Entry points of a PLT stub whose jmp stands at `at`: itself, before a bnd prefix, before endbr64.
void add_stub(const CodeSegment& code, size_t at, CondCall callee, Targets& stubs) {
  stubs.add(code.address + at, callee);
  if (at >= 1 && byte_at(code, at - 1) == 0xf2) stubs.add(code.address + --at, callee);
  constexpr uint8_t kEndbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  if (at >= 4 && std::memcmp(code.bytes.data() + at - 4, kEndbr64, 4) == 0) {
    stubs.add(code.address + at - 4, callee);
  }
}

std::vector<Candidate> find_candidates(const std::vector<CodeSegment>& code, const Targets& slots) {
  Targets stubs;
  std::vector<Candidate> found;
  const auto keep = [&](uint64_t address, CondCall callee) {
    if (found.size() < kMaxCandidates) found.push_back({address, callee});
  };
  for (const CodeSegment& part : code) {
    for_each_byte(part.bytes, 0xff, 5, [&](size_t at) {
      const uint8_t modrm = byte_at(part, at + 1);
      if (modrm != 0x25 && modrm != 0x15) return;  // jmp *disp(%rip), call *disp(%rip)
      const auto callee = slots.find(relative_target(part, at + 2));
      if (!callee) return;
      if (modrm == 0x25) {
        add_stub(part, at, *callee, stubs);
      } else {
        keep(part.address + at, *callee);
      }
    });
  }
  for (const CodeSegment& part : code) {
    for_each_byte(part.bytes, 0x8b, 5, [&](size_t at) {
      if ((byte_at(part, at + 1) & 0xc7) != 0x05) return;  // mov disp(%rip), %reg
      if (const auto callee = slots.find(relative_target(part, at + 2))) {
        keep(part.address + at, *callee);
      }
    });
  }
  if (!stubs.empty()) {
    for (const CodeSegment& part : code) {
      for_each_byte(part.bytes, 0xe8, 4, [&](size_t at) {
        if (const auto callee = stubs.find(relative_target(part, at + 1))) {
          keep(part.address + at, *callee);
        }
      });
    }
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return a.opcode_address < b.opcode_address;
  });
  return found;
}

Result<Targets> find_slots(const ElfFile& file, const DynamicSection& dynamic, CallSites& sites) {
  std::unordered_map<uint32_t, CondCall> symbols;
  auto read =
      dynamic.for_each_symbol(file, [&](uint32_t index, const DynamicSection::Symbol& symbol) {
        for (int i = 0; i < kCondCalls; ++i) {
          if (symbol.name == kCondNames[i]) symbols.emplace(index, static_cast<CondCall>(i));
        }
      });
  if (!read) return std::move(read).error();
  Targets slots;
  if (symbols.empty()) return slots;
  read = dynamic.for_each_relocation(file, [&](const DynamicSection::Relocation& relocation) {
    if (relocation.type != R_X86_64_JUMP_SLOT && relocation.type != R_X86_64_GLOB_DAT) return;
    if (const auto symbol = symbols.find(relocation.symbol); symbol != symbols.end()) {
      slots.add(relocation.address, symbol->second);
      sites.imports[static_cast<int>(symbol->second)] = true;
    }
  });
  if (!read) return std::move(read).error();
  return slots;
}

// The calls that a candidate in the function `body`, the last of sites.functions, stands for.
Status add_calls(const Candidate& candidate, const DecodedFunction& body, const CodeSegment& code,
                 CallSites& sites) {
  if (candidate.opcode_address >= body.decoded_to()) {
    return Error("cannot decode the code at address " + std::to_string(body.decoded_to()));
  }
  const auto index = body.instruction_over(candidate.opcode_address);
  const auto insn = index ? body.decode_at(body.start(*index)) : std::nullopt;
  if (!insn) return ok();
  std::vector<size_t> calls;
  if (insn->is_call()) {
    // Only prefixes may stand before the opcode, so its operand ends the instruction. Else the
    // bytes are part of another instruction.
    const uint64_t tail = insn->is(x86::Map::primary, 0xe8) ? 5 : 6;
    if (body.start(*index) + insn->length != candidate.opcode_address + tail) return ok();
    calls.push_back(*index);
  } else if (insn->is(x86::Map::primary, 0x8b) && insn->rip_relative) {
    auto through = body.calls_through(*index);
    if (!through) {
      return Error(std::string("cannot follow the calls of ") +
                   kCondNames[static_cast<size_t>(candidate.callee)] + " through a register");
    }
    calls = *std::move(through);
  }
  for (const size_t call : calls) {
    if (sites.calls.size() == kMaxCandidates) return Error("more calls than giltop looks at");
    CallSite site;
    site.callee = candidate.callee;
    site.address = body.start(call);
    site.file_offset = code.file_offset + (site.address - code.address);
    site.length = body.decode_at(site.address)->length;
    site.checked = body.result_is_checked(call);
    site.argument = body.first_argument(call);
    site.function = sites.functions.size() - 1;
    sites.calls.push_back(site);
  }
  return ok();
}

}  // namespace

Result<CallSites> find_call_sites(const ElfFile& file, const DynamicSection& dynamic) {
  CallSites sites;
  auto slots = find_slots(file, dynamic, sites);
  if (!slots) return std::move(slots).error();
  if (slots->empty()) return sites;
  auto code = read_code(file);
  if (!code) return std::move(code).error();
  std::vector<Candidate> candidates = find_candidates(*code, *slots);
  for (const ElfFile::Section& section : file.sections()) {
    if (!is_dead_section(section)) continue;
    std::erase_if(candidates, [&](const Candidate& candidate) {
      return candidate.opcode_address >= section.address &&
             candidate.opcode_address - section.address < section.size;
    });
  }
  if (candidates.empty()) return sites;
  if (candidates.size() == kMaxCandidates) return Error("more calls than giltop looks at");

  std::vector<uint64_t> addresses;
  for (const Candidate& candidate : candidates) addresses.push_back(candidate.opcode_address);
  auto bounds = function_bounds(file, addresses);
  if (!bounds) return std::move(bounds).error();

  uint64_t decoded = 0;
  size_t budget = kSearchBudget;
  auto candidate = candidates.begin();
  for (const FunctionBounds& function : *bounds) {
    while (candidate != candidates.end() && candidate->opcode_address < function.begin) ++candidate;
    if (candidate == candidates.end()) break;
    if (candidate->opcode_address >= function.end) continue;  // taken by an overlapping one
    const auto part = std::find_if(code->begin(), code->end(), [&](const CodeSegment& c) {
      return function.begin >= c.address && function.begin < c.end();
    });
    if (part == code->end()) continue;
    const uint64_t size = function.end - function.begin;
    if (size > kMaxFunction || (decoded += size) > kMaxDecoded) {
      return Error("a function that calls pthread_cond_* is larger than giltop decodes");
    }
    const DecodedFunction body(*part, function, budget);
    sites.functions.push_back({function, body.flag_stores()});
    for (; candidate != candidates.end() && candidate->opcode_address < function.end; ++candidate) {
      if (auto added = add_calls(*candidate, body, *part, sites); !added) {
        return std::move(added).error();
      }
    }
  }
  if (sites.functions.empty()) return Error(".eh_frame has no function that holds the calls");
  std::sort(sites.calls.begin(), sites.calls.end(),
            [](const CallSite& a, const CallSite& b) { return a.address < b.address; });
  const auto same = [](const CallSite& a, const CallSite& b) { return a.address == b.address; };
  sites.calls.erase(std::unique(sites.calls.begin(), sites.calls.end(), same), sites.calls.end());
  return sites;
}

}  // namespace giltop
