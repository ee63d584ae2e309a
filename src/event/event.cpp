#include "event/event.h"

namespace giltop {

uint32_t EventTables::intern(std::string_view text) {
  const auto found = ids_.find(text);
  if (found != ids_.end()) return found->second;
  const auto id = static_cast<uint32_t>(texts_.size());
  ids_.emplace(texts_.emplace_back(text), id);
  return id;
}

std::string_view EventTables::text(uint32_t id) const {
  return id < texts_.size() ? std::string_view(texts_[id]) : std::string_view();
}

uint32_t EventTables::add(ProcessFacts facts) {
  facts_.push_back(std::move(facts));
  return static_cast<uint32_t>(facts_.size() - 1);
}

const ProcessFacts& EventTables::facts(uint32_t index) const {
  return facts_[index < facts_.size() ? index : 0];
}

}  // namespace giltop
