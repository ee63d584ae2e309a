// In place of a fuzzer: gives a target some inputs and changes of them, the same each time.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
[[gnu::weak]] size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most,
                                             unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);
}

namespace {

std::minstd_rand dice;

std::vector<uint8_t> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void try_changes(const std::vector<uint8_t>& input, int count) {
  LLVMFuzzerTestOneInput(input.data(), input.size());
  for (int i = 0; i < count; i++) {
    std::vector<uint8_t> changed = input;
    changed.resize(2 * input.size() + 1);
    changed.resize(LLVMFuzzerCustomMutator
                       ? LLVMFuzzerCustomMutator(changed.data(), input.size(), changed.size(),
                                                 static_cast<unsigned>(dice()))
                       : LLVMFuzzerMutate(changed.data(), input.size(), changed.size()));
    LLVMFuzzerTestOneInput(changed.data(), changed.size());
  }
}

}  // namespace

// Other bytes, or fewer.
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t) {
  for (auto times = 1 + dice() % 4; times > 0 && size > 0; times--)
    data[dice() % size] = static_cast<uint8_t>(dice());
  return dice() % 8 == 0 && size > 0 ? dice() % size : size;
}

// TARGET CHANGES FILE...: of each, and of each in a folder.
int main(int count, char** words) {
  if (count < 3) {
    std::fputs("CHANGES FILE...\n", stderr);
    return 2;
  }
  size_t files = 0;
  for (int i = 2; i < count; i++) {
    std::vector<std::filesystem::path> paths = {words[i]};
    if (std::filesystem::is_directory(paths[0]))
      paths.assign(std::filesystem::directory_iterator(paths[0]), {});
    for (const auto& path : paths) {
      if (const std::vector<uint8_t> input = bytes_of(path); !input.empty()) {
        try_changes(input, std::atoi(words[1]));
        files++;
      }
    }
  }
  std::printf("%zu files\n", files);
  return files == 0 ? 1 : 0;
}
