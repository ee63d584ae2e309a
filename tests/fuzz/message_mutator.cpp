#include "message_mutator.h"

#include <cstdint>
#include <iterator>
#include <optional>
#include <protozero/exception.hpp>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <protozero/types.hpp>
#include <random>
#include <utility>
#include <vector>

namespace giltop::fuzz {
namespace {

using Random = std::minstd_rand;

struct Field {
  uint32_t tag = 0;
  protozero::pbf_wire_type type = protozero::pbf_wire_type::varint;
  uint64_t number = 0;
  std::string text;  // or a message: of a length of its own

  bool is_text() const { return type == protozero::pbf_wire_type::length_delimited; }
};

uint32_t below(Random& random, size_t end) {
  return static_cast<uint32_t>(std::uniform_int_distribution<size_t>(0, end - 1)(random));
}

// Nothing: it is no message.
std::optional<std::vector<Field>> fields_of(std::string_view message) {
  std::vector<Field> fields;
  try {
    protozero::pbf_reader reader(message.data(), message.size());
    while (reader.next()) {
      Field field;
      field.tag = reader.tag();
      field.type = reader.wire_type();
      if (field.is_text()) {
        const protozero::data_view view = reader.get_view();
        field.text.assign(view.data(), view.size());
      } else if (field.type == protozero::pbf_wire_type::varint) {
        field.number = reader.get_uint64();
      } else if (field.type == protozero::pbf_wire_type::fixed64) {
        field.number = reader.get_fixed64();
      } else {
        field.number = reader.get_fixed32();
      }
      fields.push_back(std::move(field));
    }
  } catch (const protozero::exception&) {
    return std::nullopt;
  }
  return fields;
}

std::string message_of(const std::vector<Field>& fields) {
  std::string message;
  protozero::pbf_writer writer(message);
  for (const Field& field : fields) {
    if (field.is_text()) {
      writer.add_string(field.tag, field.text);
    } else if (field.type == protozero::pbf_wire_type::varint) {
      writer.add_uint64(field.tag, field.number);
    } else if (field.type == protozero::pbf_wire_type::fixed64) {
      writer.add_fixed64(field.tag, field.number);
    } else {
      writer.add_fixed32(field.tag, static_cast<uint32_t>(field.number));
    }
  }
  return message;
}

uint64_t other_number(uint64_t number, Random& random) {
  constexpr uint64_t kOdd[] = {0,
                               1,
                               2,
                               0x7f,
                               0xff,
                               0xffff,
                               1 << 22,
                               0x7fffffff,
                               0x80000000,
                               0xffffffff,
                               uint64_t{1} << 62,
                               ~uint64_t{0}};
  switch (below(random, 4)) {
    case 0:
      return kOdd[below(random, std::size(kOdd))];
    case 1:
      return number + 1;
    case 2:
      return number - 1;
    default:
      return number ^ uint64_t { 1 } << below(random, 64);
  }
}

std::string mutated(std::string_view message, Random& random, int depth);

void change(Field& field, Random& random, int depth) {
  if (!field.is_text()) {
    field.number = other_number(field.number, random);
  } else if (depth < 8 && !field.text.empty() && fields_of(field.text)) {
    field.text = mutated(field.text, random, depth + 1);
  } else if (field.text.empty() || below(random, 4) == 0) {
    field.text.insert(below(random, field.text.size() + 1), 1 + below(random, 40),
                      static_cast<char>(below(random, 256)));
  } else {
    field.text[below(random, field.text.size())] = static_cast<char>(below(random, 256));
  }
}

std::string mutated(std::string_view message, Random& random, int depth) {
  auto fields = fields_of(message);
  if (!fields || fields->empty()) return std::string(message);
  for (uint32_t times = 1 + below(random, 3); times > 0 && !fields->empty(); times--) {
    const size_t at = below(random, fields->size()), other = below(random, fields->size());
    const auto place = fields->begin() + static_cast<ptrdiff_t>(at);
    switch (below(random, 8)) {
      case 0:
        fields->erase(place);
        break;
      case 1:
        fields->insert(fields->begin() + static_cast<ptrdiff_t>(other), Field((*fields)[at]));
        break;
      case 2:
        std::swap((*fields)[at], (*fields)[other]);
        break;
      case 3:
        place->tag = 1 + below(random, 64);
        break;
      default:
        change(*place, random, depth);
    }
  }
  return message_of(*fields);
}

}  // namespace

std::string mutated_message(std::string_view message, unsigned seed) {
  Random random(seed);
  return mutated(message, random, 0);
}

}  // namespace giltop::fuzz
