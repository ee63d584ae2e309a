#include "event/event.h"

#include <algorithm>
#include <utility>

namespace giltop {

uint32_t EventTables::intern(std::string_view text, uint64_t until_ns) {
  if (const auto found = ids_.find(text); found != ids_.end()) {
    uint64_t& until = texts_[found->second].until_ns;
    until = std::max(until, until_ns);
    return found->second;
  }
  auto id = static_cast<uint32_t>(texts_.size());
  if (free_texts_.empty()) {
    texts_.emplace_back();
  } else {
    id = free_texts_.back();
    free_texts_.pop_back();
  }
  texts_[id] = {std::string(text), until_ns};
  ids_.emplace(texts_[id].text, id);
  return id;
}

std::string_view EventTables::text(uint32_t id) const {
  return id < texts_.size() ? std::string_view(texts_[id].text) : std::string_view();
}

uint32_t EventTables::add(ProcessFacts facts, uint64_t until_ns) {
  auto id = static_cast<uint32_t>(facts_.size());
  if (free_facts_.empty()) {
    facts_.emplace_back();
  } else {
    id = free_facts_.back();
    free_facts_.pop_back();
  }
  facts_[id] = {std::move(facts), until_ns};
  return id;
}

const ProcessFacts& EventTables::facts(uint32_t index) const {
  return facts_[index < facts_.size() ? index : 0].facts;
}

void EventTables::forget(const Used& used, uint64_t before_ns) {
  free_texts_.clear();
  for (size_t id = texts_.size(); id-- > 1;) {  // the first of them is given first
    Text& text = texts_[id];
    const bool is_used = id >= used.texts.size() || used.texts[id];
    if (is_used || text.until_ns >= before_ns) continue;
    if (!text.text.empty()) ids_.erase(text.text);  // else it was free before
    text = {std::string(), 0};
    free_texts_.push_back(static_cast<uint32_t>(id));
  }
  free_facts_.clear();
  for (size_t id = facts_.size(); id-- > 1;) {
    Facts& facts = facts_[id];
    const bool is_used = id >= used.facts.size() || used.facts[id];
    if (is_used || facts.until_ns >= before_ns) continue;
    facts = {ProcessFacts(), 0};
    free_facts_.push_back(static_cast<uint32_t>(id));
  }
  texts_limit_ = std::max(kFewTexts, 2 * (texts_.size() - free_texts_.size()));
  facts_limit_ = std::max(kFewFacts, 2 * (facts_.size() - free_facts_.size()));
}

}  // namespace giltop
