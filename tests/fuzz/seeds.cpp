// Inputs to begin with: recordings with their packets unpacked and, as changes of a large input
// rarely meet what matters, their beginnings alone.
#include <zlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <protozero/exception.hpp>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "sink/trace_format.h"

namespace {

constexpr size_t kBeginning = 12'000;  // bytes
constexpr size_t kMostInflated = 16 << 20;

std::string inflated(std::string_view data) {
  std::string out(kMostInflated, '\0');
  uLongf size = out.size();
  if (uncompress(reinterpret_cast<Bytef*>(out.data()), &size,
                 reinterpret_cast<const Bytef*>(data.data()), data.size()) != Z_OK)
    return {};
  out.resize(size);
  return out;
}

void unpack(std::string_view records, std::vector<std::string>& packets) {
  protozero::pbf_reader reader(records.data(), records.size());
  while (reader.next(giltop::trace::kTracePacket)) {
    const protozero::data_view packet = reader.get_view();
    protozero::pbf_reader fields(packet);
    if (fields.next(giltop::trace::packet::kCompressedPackets)) {
      const protozero::data_view block = fields.get_view();
      unpack(inflated({block.data(), block.size()}), packets);
    } else {
      packets.emplace_back(packet.data(), packet.size());
    }
  }
}

std::string seed_of(const std::vector<std::string>& packets) {
  std::string seed;
  protozero::pbf_writer writer(seed);
  for (size_t at = 0; at < packets.size() && seed.size() < kBeginning; at++)
    writer.add_message(giltop::trace::kTracePacket, packets[at]);
  return seed;
}

}  // namespace

// seeds DIRECTORY RECORDING...
int main(int count, char** words) {
  if (count < 3) {
    std::fputs("seeds DIRECTORY RECORDING...\n", stderr);
    return 2;
  }
  for (int i = 2; i < count; i++) {
    std::ifstream file(words[i], std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::string> packets;
    try {
      unpack(bytes, packets);
    } catch (const protozero::exception& error) {
      std::fprintf(stderr, "%s: %s\n", words[i], error.what());
      return 1;
    }
    const std::filesystem::path name = std::filesystem::path(words[i]).stem();
    std::ofstream(std::filesystem::path(words[1]) / name, std::ios::binary) << seed_of(packets);
  }
}
