#include "target/installed_pythons.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace giltop {
namespace {

namespace fs = std::filesystem;

bool consists_of(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == text.npos;
}

// python3, python3.11, python3.13t, python3.12d; not python3-config.
bool is_interpreter(std::string_view name) {
  constexpr std::string_view kPrefix = "python3";
  return name.starts_with(kPrefix) && consists_of(name.substr(kPrefix.size()), ".0123456789td");
}

// libpython3.so.1.0 is no more than a list of what it leads to.
bool is_library(std::string_view name) {
  return name.starts_with("libpython3.") && !name.starts_with("libpython3.so") &&
         name.find(".so") != name.npos;
}

class Found {
 public:
  void look(const fs::path& directory, bool (*is_wanted)(std::string_view)) {
    std::vector<fs::path> here;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
      if (is_wanted(at->path().filename().native())) here.push_back(at->path());
    std::sort(here.begin(), here.end());
    for (const fs::path& path : here) {
      const fs::path file = fs::canonical(path, error);
      if (error || !fs::is_regular_file(file, error)) continue;
      if (files_.size() < kMostInstalled &&
          std::find(files_.begin(), files_.end(), file.native()) == files_.end())
        files_.push_back(file.native());
    }
  }
  std::vector<std::string> take() { return std::move(files_); }

 private:
  std::vector<std::string> files_;
};

}  // namespace

std::vector<std::string> installed_pythons(std::string_view path) {
  Found found;
  while (!path.empty()) {
    const size_t length = std::min(path.find(':'), path.size());
    const fs::path directory(path.substr(0, length));
    path.remove_prefix(std::min(length + 1, path.size()));
    if (!directory.is_absolute()) continue;
    found.look(directory, is_interpreter);
    const fs::path lib = directory.parent_path() / "lib";
    found.look(lib, is_library);
    found.look(directory.parent_path() / "lib64", is_library);
    std::error_code error;
    for (fs::directory_iterator at(lib, error), end; !error && at != end; at.increment(error))
      if (at->path().filename().native().find("-linux-") != std::string::npos)
        found.look(at->path(), is_library);
  }
  return found.take();
}

}  // namespace giltop
