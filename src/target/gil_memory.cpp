#include "target/gil_memory.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "target/bytes.h"

namespace giltop {
namespace {

constexpr size_t kMaxInterpreters = 4096;
constexpr uint64_t kPage = 4096;
// More than any of the structs below is long.
constexpr uint64_t kMaxOffset = uint64_t{16} << 20;

// Byte offsets in one version's structs.
struct Layout {
  uint64_t interpreters_head = 0;  // in _PyRuntimeState
  uint64_t runtime_gil = 0;        // in _PyRuntimeState; 0: each interpreter points at its GIL
  uint64_t interpreter_gil = 0;    // in PyInterpreterState: a pointer
  uint64_t interpreter_id = 0;     // int64_t
  uint64_t interpreter_next = 0;
  uint64_t thread_interpreter = 0x10;  // in PyThreadState
  uint64_t thread_id = 0;              // pthread_t; 0: see the next
  uint64_t native_thread_id = 0;       // 3.11 and newer
};

constexpr uint64_t kPthreadTid = 0x2d0;  // of `tid` in glibc's struct pthread, x86-64

// Final releases, from DWARF of builds with and without optimization.
std::optional<Layout> layout_by_table(int minor) {
  Layout l;
  switch (minor) {
    case 7:
      l.interpreters_head = 0x18;
      l.runtime_gil = 0x4f0;
      l.interpreter_id = 0x10;
      l.thread_id = 0xb0;
      return l;
    case 8:
      l.interpreters_head = 0x20;
      l.runtime_gil = 0x480;
      l.interpreter_id = 0x10;
      l.thread_id = 0xb0;
      return l;
    case 9:
    case 10:
      l.interpreters_head = 0x20;
      l.runtime_gil = 0x160;
      l.interpreter_id = 0x18;
      l.thread_id = 0xb0;
      return l;
    case 11:
      l.interpreters_head = 0x28;
      l.runtime_gil = 0x168;
      l.interpreter_id = 0x30;
      l.native_thread_id = 0xa0;
      return l;
    case 12:
      l.interpreters_head = 0x28;
      l.interpreter_gil = 0x180;
      l.interpreter_id = 0x08;
      l.native_thread_id = 0x90;
      return l;
    default:
      return std::nullopt;
  }
}

// Where struct _Py_DebugOffsets has what (Include/internal/pycore_debug_offsets.h; in 3.13
// pycore_runtime.h). All are uint64_t.
struct DebugOffsets {
  uint64_t interpreter_gil, gil, gil_locked, gil_holder, thread_interpreter, native_thread_id, size;
};

std::optional<DebugOffsets> debug_offsets(int minor) {
  switch (minor) {
    case 13:
      return DebugOffsets{0x70, 0x78, 0x88, 0x90, 0xb0, 0xc8, 0x248};
    case 14:
      return DebugOffsets{0x78, 0x80, 0x90, 0x98, 0xc8, 0xe0, 0x2f8};
    case 15:
      return DebugOffsets{0x78, 0x80, 0x90, 0x98, 0xc8, 0xf8, 0x378};
    default:
      return std::nullopt;
  }
}

// "3.14.2" or "3.14.0rc1"; alphas and betas may lay out their structs otherwise.
bool is_release(std::string_view version) {
  return version.find_first_of("ab") == std::string_view::npos;
}

class Reading {
 public:
  Reading(const CPythonFile& file, uint64_t runtime, const MemoryReader& read)
      : file_(file), runtime_(runtime), read_(read) {}

  GilMemory run();

 private:
  template <typename T>
  std::optional<T> value(uint64_t address) const {
    std::array<std::byte, sizeof(T)> bytes;
    if (!read_(address, bytes)) return std::nullopt;
    return load<T>(bytes, 0);
  }
  // A pointer to something of pointer alignment, or null.
  std::optional<uint64_t> pointer(uint64_t address) const {
    const auto to = value<uint64_t>(address);
    if (!to || *to % 8 != 0 || *to > ~uint64_t{0} - kMaxOffset) return std::nullopt;
    return to;
  }
  std::optional<Layout> layout_in_memory(std::string& why) const;
  std::optional<Layout> layout(std::string& why) const;
  void read_gil(GilInMemory& gil, const Layout& l, const std::set<uint64_t>& interpreters) const;
  std::optional<int64_t> thread_id(uint64_t state, const Layout& l) const;

  const CPythonFile& file_;
  uint64_t runtime_;
  const MemoryReader& read_;
};

std::optional<Layout> Reading::layout_in_memory(std::string& why) const {
  const auto where = debug_offsets(file_.minor);
  if (!where) {
    why = "Python " + file_.version + " is newer than giltop: how it lays out its GIL is not known";
    return std::nullopt;
  }
  std::vector<std::byte> bytes(where->size);
  if (!read_(runtime_, bytes)) {
    why = "_PyRuntime cannot be read";
    return std::nullopt;
  }
  const auto at = [&](uint64_t offset) { return *load<uint64_t>(bytes, offset); };
  const uint64_t hex = at(0x08);
  if (!as_text(bytes).starts_with("xdebugpy") || hex >> 24 != static_cast<uint64_t>(file_.major) ||
      (hex >> 16 & 0xff) != static_cast<uint64_t>(file_.minor) ||
      (at(0x10) != 0) != file_.free_threaded) {
    why = "_PyRuntime does not begin as Python " + file_.version + "'s does";
    return std::nullopt;
  }
  Layout l;
  l.interpreters_head = at(0x28);
  l.interpreter_id = at(0x38);
  l.interpreter_next = at(0x40);
  l.interpreter_gil = at(where->interpreter_gil);
  l.thread_interpreter = at(where->thread_interpreter);
  l.native_thread_id = at(where->native_thread_id);
  // `locked` and `last_holder` of the interpreter's own, inline GIL: the one in use may be another,
  // but it has the same struct, which the probes' condition variables lie in.
  const uint64_t own = at(where->gil);
  if (at(where->gil_locked) - own != file_.cond_offset - 0x10 ||
      at(where->gil_holder) - own != file_.cond_offset - 0x18) {
    why = "the GIL's struct is not laid out as its call sites have it";
    return std::nullopt;
  }
  for (const uint64_t offset : {l.interpreters_head, l.interpreter_id, l.interpreter_next,
                                l.interpreter_gil, l.thread_interpreter, l.native_thread_id}) {
    if (offset % 8 == 0 && offset < kMaxOffset) continue;
    why = "_Py_DebugOffsets holds an offset out of range";
    return std::nullopt;
  }
  return l;
}

std::optional<Layout> Reading::layout(std::string& why) const {
  if (file_.major != 3 || file_.minor < 7 || file_.runtime_address == 0) {
    why = "Python " + file_.version + " does not say where its GIL is";
    return std::nullopt;
  }
  if (!is_release(file_.version)) {
    why = "Python " + file_.version + " is no release: how it lays out its GIL is not known";
    return std::nullopt;
  }
  // struct _gil_runtime_state: interval, last_holder, locked, switch_number, cond.
  if (file_.cond_offset != (file_.free_threaded ? 0x28u : 0x20u)) {
    why = "the GIL's struct has an unknown layout";
    return std::nullopt;
  }
  if (file_.minor >= 13) return layout_in_memory(why);
  return layout_by_table(file_.minor);
}

// By the holder's PyThreadState.
std::optional<int64_t> Reading::thread_id(uint64_t state, const Layout& l) const {
  if (l.native_thread_id != 0) {
    const auto id = value<uint64_t>(state + l.native_thread_id);
    if (!id || *id == 0 || *id > ~uint32_t{0}) return std::nullopt;
    return static_cast<int64_t>(*id);
  }
  const auto pthread = pointer(state + l.thread_id);
  if (!pthread || *pthread == 0) return std::nullopt;
  const auto id = value<int32_t>(*pthread + kPthreadTid);
  if (!id || *id <= 0) return std::nullopt;
  return *id;
}

void Reading::read_gil(GilInMemory& gil, const Layout& l,
                       const std::set<uint64_t>& interpreters) const {
  const uint64_t cond = gil.address + file_.cond_offset;
  if (file_.free_threaded) {
    const auto enabled = value<int32_t>(gil.address);
    if (!enabled) return;
    gil.enabled = *enabled != 0;
    if (!*gil.enabled) {
      gil.state = GilInMemory::State::disabled;
      return;
    }
  }
  const auto locked = value<int32_t>(cond - 0x10);
  if (!locked) return;
  if (*locked == -1) gil.state = GilInMemory::State::not_created;
  if (*locked == 0) gil.state = GilInMemory::State::free;
  if (*locked != 1) return;
  const auto holder = pointer(cond - 0x18);
  if (!holder || *holder == 0) return;
  const auto interpreter = pointer(*holder + l.thread_interpreter);
  // A thread state that was freed (PyThreadState_Swap() does not tell the GIL) belongs to nobody.
  if (!interpreter || !interpreters.contains(*interpreter)) return;
  const auto id = thread_id(*holder, l);
  if (!id) return;
  gil.state = GilInMemory::State::held;
  gil.holder_state = *holder;
  gil.holder_id = *id;
}

GilMemory Reading::run() {
  GilMemory result;
  const auto l = layout(result.missing);
  if (!l) return result;
  result.ids.native_thread_id = static_cast<uint32_t>(l->native_thread_id);
  if (l->native_thread_id == 0) {
    result.ids.thread_id = static_cast<uint32_t>(l->thread_id);
    result.ids.pthread_tid = kPthreadTid;
  }
  std::vector<std::set<uint64_t>> users;  // interpreters of each GIL
  std::set<uint64_t> seen;
  auto next = pointer(runtime_ + l->interpreters_head);
  while (next && *next != 0) {
    const uint64_t interpreter = *next;
    if (seen.size() == kMaxInterpreters || !seen.insert(interpreter).second) {
      result.missing = "the list of interpreters has no end";
      break;
    }
    const auto id = value<int64_t>(interpreter + l->interpreter_id);
    const auto gil = l->runtime_gil != 0 ? std::optional(runtime_ + l->runtime_gil)
                                         : pointer(interpreter + l->interpreter_gil);
    if (!id || *id < 0 || !gil || *gil == 0) {
      result.missing = "an interpreter's state makes no sense";
      break;
    }
    const auto found =
        std::find_if(result.gils.begin(), result.gils.end(),
                     [&](const GilInMemory& known) { return known.address == *gil; });
    const auto index = static_cast<size_t>(found - result.gils.begin());
    if (found == result.gils.end()) {
      result.gils.emplace_back().address = *gil;
      users.emplace_back();
    }
    result.gils[index].interpreters.push_back(*id);
    users[index].insert(interpreter);
    next = pointer(interpreter + l->interpreter_next);
  }
  if (!next) result.missing = "the list of interpreters leads nowhere";
  if (result.gils.empty() && result.missing.empty())
    result.missing = "no interpreter has been made yet";
  for (size_t i = 0; i < result.gils.size(); i++) {
    GilInMemory& gil = result.gils[i];
    std::sort(gil.interpreters.begin(), gil.interpreters.end());
    read_gil(gil, *l, users[i]);
  }
  return result;
}

}  // namespace

GilMemory gils_in_memory(const CPythonFile& file, uint64_t load_bias, const MemoryReader& read) {
  return Reading(file, file.runtime_address + load_bias, read).run();
}

std::optional<uint64_t> load_bias(const CPythonFile& file, const MappedFile& mapping) {
  for (const CPythonFile::Segment& segment : file.code) {
    // A segment is mapped in whole pages.
    const uint64_t begin = segment.offset / kPage * kPage;
    if (mapping.offset < begin || mapping.offset - begin >= segment.size + kPage) continue;
    const uint64_t linked = segment.address - segment.offset + mapping.offset;
    const uint64_t bias = mapping.start - linked;
    if (bias % kPage == 0) return bias;
  }
  return std::nullopt;
}

}  // namespace giltop
