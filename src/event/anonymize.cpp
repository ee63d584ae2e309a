#include "event/anonymize.h"

#include <algorithm>
#include <utility>

namespace giltop {

void Anonymizer::apply(Event& event) {
  switch (event.kind) {
    case EventKind::process: {
      ProcessFacts facts = tables_.facts(event.other);
      facts.comm = program(facts.comm);
      facts.cmdline = facts.comm;
      event.other = tables_.add(std::move(facts), 0);
      break;
    }
    case EventKind::fork:
      numbers_.erase(event.tid);  // of one whose end was missed
      [[fallthrough]];
    case EventKind::exec:
    case EventKind::exit:
    case EventKind::thread_seen:
    case EventKind::thread_name: {
      const std::string name(tables_.text(event.other));
      event.other = tables_.intern(event.tid == event.tgid ? program(name) : thread(event), 0);
      if (event.kind == EventKind::exit) {
        numbers_.erase(event.tid);
        if (event.state != 0) counts_.erase(event.tgid);
      }
      break;
    }
    default:
      break;
  }
}

std::string Anonymizer::program(std::string_view name) {
  if (name.empty()) return {};
  const auto known = programs_.find(std::string(name));
  if (known != programs_.end()) return "program-" + std::to_string(known->second);
  if (programs_.size() == kMostPrograms) return "program";
  const size_t number = programs_.size() + 1;
  programs_.emplace(name, number);
  return "program-" + std::to_string(number);
}

std::string Anonymizer::thread(const Event& event) {
  uint32_t& number = numbers_[event.tid];
  if (number == 0) number = ++counts_[event.tgid];
  return "thread-" + std::to_string(number);
}

std::string Anonymizer::release(std::string_view kernel) {
  // Three numbers; a maker's own may follow.
  size_t end = 0;
  for (int numbers = 0; numbers < 3; numbers++) {
    const size_t begin = numbers == 0 ? 0 : end + 1;
    if (numbers != 0 && (end >= kernel.size() || kernel[end] != '.')) break;
    const size_t after = std::min(kernel.find_first_not_of("0123456789", begin), kernel.size());
    if (after <= begin) break;
    end = after;
  }
  return std::string(kernel.substr(0, end));
}

}  // namespace giltop
