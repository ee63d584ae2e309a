#include "target/installed_pythons.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

namespace giltop {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostOfFolder = 32;

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
  // Of a folder with very many, some: others must not go short.
  void look(const fs::path& directory, bool (*is_wanted)(std::string_view)) {
    std::vector<fs::path> here;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
      if (is_wanted(at->path().filename().native())) here.push_back(at->path());
    std::sort(here.begin(), here.end());
    size_t found = 0;
    for (const fs::path& path : here) {
      const fs::path file = fs::canonical(path, error);
      if (error || !fs::is_regular_file(file, error) || is_known(file)) continue;
      if (found++ == kMostOfFolder) break;
      files_.push_back(file.native());
    }
  }
  // Beside a folder of programs.
  void look_for_libraries(const fs::path& programs) {
    const fs::path root = programs.parent_path(), lib = root / "lib";
    if (!looked_.insert(root.native()).second) return;
    look(lib, is_library);
    look(root / "lib64", is_library);
    std::error_code error;
    for (fs::directory_iterator at(lib, error), end; !error && at != end; at.increment(error))
      if (at->path().filename().native().find("-linux-") != std::string::npos)
        look(at->path(), is_library);
  }
  const std::vector<std::string>& files() const { return files_; }

 private:
  bool is_known(const fs::path& file) const {
    return std::find(files_.begin(), files_.end(), file.native()) != files_.end();
  }

  std::vector<std::string> files_;
  std::set<std::string> looked_;  // where libraries were looked for
};

}  // namespace

std::vector<std::string> installed_pythons(std::string_view path) {
  Found found;
  while (!path.empty()) {
    const size_t length = std::min(path.find(':'), path.size());
    std::string_view name = path.substr(0, length);
    path.remove_prefix(std::min(length + 1, path.size()));
    while (name.size() > 1 && name.ends_with('/')) name.remove_suffix(1);
    const fs::path directory(name);
    if (!directory.is_absolute()) continue;
    const size_t known = found.files().size();
    found.look(directory, is_interpreter);
    const std::vector<std::string> new_ones(found.files().begin() + static_cast<long>(known),
                                            found.files().end());
    found.look_for_libraries(directory);
    // A link leads to where its library is.
    for (const std::string& file : new_ones) found.look_for_libraries(fs::path(file).parent_path());
  }
  return found.files();
}

}  // namespace giltop
