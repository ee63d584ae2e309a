// Changes of a protobuf message that leave it one.
#pragma once

#include <string>
#include <string_view>

namespace giltop::fuzz {

// A copy of `message` with one or some of its fields, or of those of the messages in it, changed,
// left out, repeated, or in another order. What is no message comes back as it is.
std::string mutated_message(std::string_view message, unsigned seed);

}  // namespace giltop::fuzz
