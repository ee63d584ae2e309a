// LightGils: tells the kernel side where the GILs of processes in light mode are.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "event/event.h"
#include "target/gil_sites.h"

namespace giltop {

// No event tells it: a GIL that nobody waits for traps nowhere. So it is looked up in the process's
// memory (src/target/gil_memory.h): often until the interpreter is up, then every second where
// interpreters may have GILs of their own (CPython 3.12 and newer).
class LightGils {
 public:
  using Push = std::function<void(const Event&)>;
  // Where a process has mapped a file: what is to be added to its linked addresses.
  using Bias = std::function<std::optional<uint64_t>(uint32_t tgid, const CPythonFile& file)>;
  // `map`: the kernel side's light_gils.
  LightGils(int map, Bias bias, Push push)
      : map_(map), bias_(std::move(bias)), push_(std::move(push)) {}

  // The process runs `file`, which outlives it, from now on; `alone`: and no other CPython.
  void add(uint32_t tgid, const CPythonFile& file, bool alone);
  void forget(uint32_t tgid);
  bool empty() const { return processes_.empty(); }

  // Somebody waits for this one: if it is new, look soon.
  void see(uint32_t tgid, uint64_t gil, uint64_t now_ns);
  // Looks where it is time to. What is new goes to the kernel side, and as an event to the model.
  void look(uint64_t now_ns);

 private:
  struct Target {
    const CPythonFile* file = nullptr;
    bool alone = true;
    std::optional<uint64_t> bias;  // load bias, once the file is mapped
    std::vector<uint64_t> gils;    // by slot
    bool all = false;              // as told the kernel side
    uint64_t since_ns = 0;         // of the first look
    uint64_t looked_ns = 0;
    uint64_t next_ns = 0;
  };
  static bool may_grow(const Target& target);
  void look_at(uint32_t tgid, Target& target);

  int map_;
  Bias bias_;
  Push push_;
  std::unordered_map<uint32_t, Target> processes_;
  uint64_t next_ns_ = 0;  // the earliest of theirs
};

}  // namespace giltop
