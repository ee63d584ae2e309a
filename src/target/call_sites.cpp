#include "target/call_sites.h"

#include <elf.h>

#include <algorithm>
#include <unordered_map>

#include "target/elf_dynamic.h"
#include "target/elf_file.h"

namespace giltop {
namespace {

// Limits against files made to exhaust us; CPython's largest numbers are far below.
constexpr uint64_t kMaxCode = uint64_t{256} << 20;    // bytes of executable segments
constexpr uint64_t kMaxFunction = uint64_t{4} << 20;  // bytes; the eval loop has 0.1 MB
constexpr uint64_t kMaxDecoded = uint64_t{32} << 20;  // bytes, all functions together

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

Result<CallTargets> find_slots(const ElfFile& file, const DynamicSection& dynamic,
                               const Machine& machine, CallSites& sites,
                               std::unordered_set<uint64_t>& lock_slots) {
  std::unordered_map<uint32_t, CondCall> symbols;
  std::unordered_set<uint32_t> locks;
  auto read =
      dynamic.for_each_symbol(file, [&](uint32_t index, const DynamicSection::Symbol& symbol) {
        for (int i = 0; i < kCondCalls; ++i) {
          if (symbol.name == kCondNames[i]) symbols.emplace(index, static_cast<CondCall>(i));
        }
        if (symbol.name == "pthread_mutex_lock") locks.insert(index);
      });
  if (!read) return std::move(read).error();
  CallTargets slots;
  if (symbols.empty()) return slots;
  read = dynamic.for_each_relocation(file, [&](const DynamicSection::Relocation& relocation) {
    if (relocation.type != machine.jump_slot && relocation.type != machine.global_data) return;
    if (locks.contains(relocation.symbol)) lock_slots.insert(relocation.address);
    if (const auto symbol = symbols.find(relocation.symbol); symbol != symbols.end()) {
      slots.add(relocation.address, symbol->second);
      sites.imports[static_cast<int>(symbol->second)] = true;
    }
  });
  if (!read) return std::move(read).error();
  return slots;
}

const CodeSegment* segment_of(const std::vector<CodeSegment>& code,
                              const FunctionBounds& function) {
  const auto part = std::find_if(code.begin(), code.end(), [&](const CodeSegment& c) {
    return function.begin >= c.address && function.begin < c.end();
  });
  return part == code.end() ? nullptr : &*part;
}

// Which of the functions that `callers` call never return.
Result<std::unordered_set<uint64_t>> find_never_returning(
    const ElfFile& file, const std::vector<CodeSegment>& code,
    const std::vector<FunctionBounds>& callers, const Machine& machine) {
  constexpr size_t kMaxCallees = 1 << 16;  // against hostile files; CPython: some hundreds
  std::unordered_set<uint64_t> found;
  if (machine.never_returns == nullptr) return found;
  std::vector<uint64_t> callees;
  for (const FunctionBounds& caller : callers) {
    const CodeSegment* const part = segment_of(code, caller);
    if (part == nullptr || caller.end - caller.begin > kMaxFunction) continue;
    machine.add_callees(*part, caller, callees);
    if (callees.size() > kMaxCallees) return found;
  }
  std::sort(callees.begin(), callees.end());
  callees.erase(std::unique(callees.begin(), callees.end()), callees.end());
  auto bounds = function_bounds(file, callees);
  if (!bounds) return std::move(bounds).error();
  uint64_t read = 0;
  for (const FunctionBounds& callee : *bounds) {
    if (!std::binary_search(callees.begin(), callees.end(), callee.begin)) continue;
    const uint64_t size = callee.end - callee.begin;
    const CodeSegment* const part = segment_of(code, callee);
    if (part == nullptr || size > kMaxFunction || (read += size) > kMaxDecoded) continue;
    if (machine.never_returns(*part, callee)) found.insert(callee.begin);
  }
  return found;
}

// `function`: the one just added to sites.functions.
Status add_calls(const CallCandidate& candidate, const FunctionCode& function,
                 const CodeSegment& code, CallSites& sites) {
  auto calls = function.calls_of(candidate);
  if (!calls) return std::move(calls).error();
  for (const FoundCall& call : *calls) {
    if (sites.calls.size() == kMaxCandidates) return Error("more calls than giltop looks at");
    const uint64_t file_offset = code.file_offset + (call.address - code.address);
    sites.calls.push_back({call, candidate.callee, file_offset, sites.functions.size() - 1});
  }
  return ok();
}

}  // namespace

Result<CallSites> find_call_sites(const ElfFile& file, const DynamicSection& dynamic,
                                  const Machine& machine) {
  CallSites sites;
  CodeContext context;
  auto slots = find_slots(file, dynamic, machine, sites, context.lock_slots);
  if (!slots) return std::move(slots).error();
  if (slots->empty()) return sites;
  auto code = read_code(file);
  if (!code) return std::move(code).error();
  std::vector<CallCandidate> candidates = machine.find_candidates(*code, *slots);
  for (const ElfFile::Section& section : file.sections()) {
    if (!is_dead_section(section)) continue;
    std::erase_if(candidates, [&](const CallCandidate& candidate) {
      return candidate.address >= section.address &&
             candidate.address - section.address < section.size;
    });
  }
  if (candidates.empty()) return sites;
  if (candidates.size() == kMaxCandidates) return Error("more calls than giltop looks at");

  std::vector<uint64_t> addresses;
  for (const CallCandidate& candidate : candidates) addresses.push_back(candidate.address);
  auto bounds = function_bounds(file, addresses);
  if (!bounds) return std::move(bounds).error();

  auto never_return = find_never_returning(file, *code, *bounds, machine);
  if (!never_return) return std::move(never_return).error();
  context.never_return = *std::move(never_return);

  uint64_t decoded = 0;
  auto candidate = candidates.begin();
  for (const FunctionBounds& function : *bounds) {
    while (candidate != candidates.end() && candidate->address < function.begin) ++candidate;
    if (candidate == candidates.end()) break;
    if (candidate->address >= function.end) continue;  // taken by an overlapping one
    const CodeSegment* const part = segment_of(*code, function);
    if (part == nullptr) continue;
    const uint64_t size = function.end - function.begin;
    if (size > kMaxFunction || (decoded += size) > kMaxDecoded) {
      return Error("a function that calls pthread_cond_* is larger than giltop decodes");
    }
    const auto body = machine.decode_function(*part, function, context);
    sites.functions.push_back({function, body->flag_stores()});
    for (; candidate != candidates.end() && candidate->address < function.end; ++candidate) {
      if (auto added = add_calls(*candidate, *body, *part, sites); !added) {
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
