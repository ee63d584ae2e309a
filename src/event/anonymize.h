// Anonymizer: events without what their target called itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "event/event.h"

namespace giltop {

// Names of threads become thread-1, thread-2 … of their process, in the order of their appearance;
// names and command lines of programs program-1, program-2 …, the same for the same name, and main
// threads are called as their program. What says nothing of whose it is stays: ids, times,
// addresses, Python's version and build-id. Memory grows with the threads that live at once, and
// with the programs, up to kMostPrograms.
class Anonymizer {
 public:
  explicit Anonymizer(EventTables& tables) : tables_(tables) {}

  // To be called with each event, in their order, before anybody else sees it.
  void apply(Event& event);
  // "5.15.0-acme-7" to "5.15.0".
  static std::string release(std::string_view kernel);

 private:
  static constexpr size_t kMostPrograms = 4096;  // beyond it, all are "program"

  std::string program(std::string_view name);
  std::string thread(const Event& event);

  EventTables& tables_;
  std::unordered_map<std::string, size_t> programs_;
  std::unordered_map<uint32_t, uint32_t> numbers_;  // by tid
  std::unordered_map<uint32_t, uint32_t> counts_;   // by tgid
};

}  // namespace giltop
