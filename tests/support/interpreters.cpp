#include "support/interpreters.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <ostream>
#include <regex>

#include "support/live.h"
#include "target/elf_dynamic.h"
#include "target/elf_file.h"

namespace giltop::testing {
namespace {

namespace fs = std::filesystem;

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr const char* kMultiarch = "x86_64-linux-gnu";
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
constexpr const char* kMultiarch = "aarch64-linux-gnu";
#endif

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<fs::path> split_path(const char* value) {
  std::vector<fs::path> parts;
  std::string rest = value != nullptr ? value : "";
  for (size_t at; !rest.empty(); rest.erase(0, std::min(at, rest.size() - 1) + 1)) {
    at = rest.find(':');
    if (at != 0) parts.emplace_back(rest.substr(0, at));
  }
  return parts;
}

std::vector<fs::path> pyenv_versions() {
  const char* const root = std::getenv("PYENV_ROOT");
  const char* const home = std::getenv("HOME");
  if (root != nullptr) return entries(fs::path(root) / "versions");
  if (home != nullptr) return entries(fs::path(home) / ".pyenv" / "versions");
  return {};
}

// What tools/interpreters makes, and folders like them: roots (with usr/bin) and builds (with bin).
std::vector<fs::path> store_folders() {
  std::vector<fs::path> stores = {fs::path(GILTOP_SOURCE_DIR) / "build" / "interpreters"};
  if (const char* const more = std::getenv("GILTOP_INTERPRETERS")) stores.emplace_back(more);
  std::vector<fs::path> folders;
  for (const fs::path& store : stores)
    for (const fs::path& folder : entries(store))
      if (folder.filename().string().front() != '.') folders.push_back(folder);
  return folders;
}

bool is_root(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder / "usr" / "bin", error);
}

bool is_python_name(const std::string& name) {
  const bool library = name.starts_with("libpython") && name.find(".so") != std::string::npos;
  return library || name.starts_with("python3") || name == "python" || name.starts_with("python2");
}

// The file itself, where it is an ELF file for this machine.
std::optional<fs::path> native_elf(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error || !fs::is_regular_file(real, error)) return std::nullopt;
  Elf64_Ehdr header = {};
  std::ifstream(real, std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof(header));
  const bool native = std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
                      header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == kMachine;
  return native ? std::optional(real) : std::nullopt;
}

bool needs_libpython(const fs::path& program) {
  const auto file = ElfFile::open(program.string());
  if (!file) return false;
  const auto dynamic = DynamicSection::make(*file);
  return dynamic && *dynamic && (*dynamic)->mentions("libpython3");
}

// "python3.14d", "libpython3.7m.so.1.0": the minor version and ABI flags.
std::optional<Interpreter> from_name(const fs::path& path) {
  static const std::regex form(R"((?:lib)?python3\.(\d{1,2})([dmtu]*)(?:\.so\.1\.0)?)");
  std::smatch match;
  const std::string name = path.filename().string();
  if (!std::regex_match(name, match, form)) return std::nullopt;
  Interpreter interpreter;
  interpreter.minor = std::stoi(match[1]);
  interpreter.free_threaded = match[2].str().find('t') != std::string::npos;
  interpreter.debug = match[2].str().find('d') != std::string::npos;
  interpreter.program = interpreter.gil_file = path.string();
  if (interpreter.minor < 6) return std::nullopt;
  return interpreter;
}

std::string identifier(std::string text) {
  for (char& c : text)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return text;
}

// Whether a program that was linked here starts there: glibc 2.34 is the last that gave new
// versions to what every program uses.
bool has_our_libc(const fs::path& root) {
  const auto file = ElfFile::open((root / "usr/lib" / kMultiarch / "libc.so.6").string());
  if (!file) return false;
  const auto dynamic = DynamicSection::make(*file);
  return dynamic && *dynamic && (*dynamic)->mentions("GLIBC_2.34");
}

class Finder {
 public:
  // The pythons of a folder, and their libpythons in another.
  void add_folder(const std::string& prefix, const fs::path& bin, const fs::path& lib,
                  const std::string& root = "") {
    for (const fs::path& path : entries(bin)) {
      const auto real = native_elf(path);
      if (!real || !real->filename().string().starts_with("python3")) continue;
      auto interpreter = from_name(*real);
      if (!interpreter) continue;
      if (needs_libpython(*real)) {
        const auto library = native_elf(lib / ("lib" + real->filename().string() + ".so.1.0"));
        if (!library) continue;
        interpreter->gil_file = library->string();
      }
      interpreter->root = root;
      add(prefix + real->filename().string(), *interpreter);
    }
    for (const fs::path& path : entries(lib)) {
      if (!path.filename().string().starts_with("libpython3")) continue;
      const auto real = native_elf(path);
      if (!real) continue;
      auto interpreter = from_name(*real);
      if (!interpreter) continue;
      interpreter->root = root;
      const std::string name = real->filename().string();
      add(prefix + name.substr(0, name.find(".so")), *interpreter);
    }
  }

  std::vector<Interpreter> found() const {
    std::vector<Interpreter> all;
    for (const auto& [name, interpreter] : by_name_) all.push_back(interpreter);
    return all;
  }

 private:
  void add(const std::string& name, Interpreter interpreter) {
    if (!files_.insert(interpreter.program).second) return;
    files_.insert(interpreter.gil_file);  // a libpython with its own python needs no embedder
    interpreter.name = identifier(name);
    by_name_.emplace(interpreter.name, interpreter);
  }

  std::set<std::string> files_;
  std::map<std::string, Interpreter> by_name_;
};

}  // namespace

std::set<fs::path> python_files() {
  std::vector<fs::path> folders = split_path(std::getenv("PATH"));
  for (const char* folder :
       {"/usr/bin", "/usr/local/bin", "/usr/lib", "/usr/lib64", "/usr/local/lib"})
    folders.emplace_back(folder);
  folders.push_back(fs::path("/usr/lib") / kMultiarch);
  std::vector<fs::path> prefixes = pyenv_versions();
  for (const fs::path& folder : store_folders()) {
    prefixes.push_back(folder);
    prefixes.push_back(folder / "usr");
  }
  for (const fs::path& prefix : prefixes) {
    folders.push_back(prefix / "bin");
    folders.push_back(prefix / "lib");
    folders.push_back(prefix / "lib" / kMultiarch);
  }
  std::set<fs::path> files;
  for (const fs::path& folder : folders)
    for (const fs::path& path : entries(folder))
      if (is_python_name(path.filename().string()))
        if (const auto real = native_elf(path)) files.insert(*real);
  return files;
}

std::vector<Interpreter> installed_interpreters() {
  Finder finder;
  for (const fs::path& version : pyenv_versions())
    finder.add_folder("pyenv_" + version.filename().string() + "_", version / "bin",
                      version / "lib");
  for (const fs::path& folder : store_folders()) {
    const std::string prefix = folder.filename().string() + "_";
    if (is_root(folder))
      finder.add_folder(prefix, folder / "usr/bin", folder / "usr/lib" / kMultiarch,
                        folder.string());
    else
      finder.add_folder(prefix, folder / "bin", folder / "lib");
  }
  finder.add_folder("usr_", "/usr/bin", fs::path("/usr/lib") / kMultiarch);
  for (const fs::path& folder : split_path(std::getenv("PATH")))
    finder.add_folder("path_", folder, folder.parent_path() / "lib");
  return finder.found();
}

bool Interpreter::embedded() const {
  return fs::path(program).filename().string().starts_with("lib");
}

// A libpython whose root is older than our C library has to do with the latter.
bool Interpreter::entered() const { return !root.empty() && (!embedded() || has_our_libc(root)); }

std::string Interpreter::inside(const std::string& shared, const std::string& file) const {
  return (entered() ? "/mnt" : shared) + "/" + file;
}

std::vector<std::string> Interpreter::command(const std::string& shared, const std::string& script,
                                              const std::vector<std::string>& arguments,
                                              Load load) const {
  std::vector<std::string> words = {"env", "PYTHONDONTWRITEBYTECODE=1"};
  if (embedded() && load == Load::early)
    words.push_back("EMBEDDER_EARLY=" + inside(shared, "embedder"));
  if (entered()) {
    const char* const enter = R"(PATH=$PATH:/usr/sbin:/sbin
        mount --bind /proc "$1/proc" && mount --bind /dev "$1/dev" && mount --bind "$2" "$1/mnt" &&
        root=$1 && shift 2 && exec chroot "$root" "$@")";
    words.insert(words.end(), {"unshare", "--mount", "sh", "-c", enter, "enter", root, shared});
  } else if (!root.empty()) {
    words.push_back("PYTHONHOME=" + root + "/usr");
  }
  if (embedded()) {
    std::error_code error;
    for (const char* copy : {"embedder", "starter"})
      std::filesystem::copy_file(GILTOP_EMBEDDER, fs::path(shared) / copy,
                                 fs::copy_options::skip_existing, error);
    words.push_back(inside(shared, load == Load::early ? "starter" : "embedder"));
  }
  words.insert(words.end(),
               {entered() ? program.substr(root.size()) : program, inside(shared, script)});
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

void PrintTo(const Interpreter& interpreter, std::ostream* out) { *out << interpreter.gil_file; }

namespace {

constexpr SiteKind kW = SiteKind::wait, kA = SiteKind::acquire, kR = SiteKind::release,
                   kF = SiteKind::forced;

}  // namespace

const KnownBuild* known_build(const std::string& build_id) {
  // clang-format off
  static const std::vector<KnownBuild> builds = {
      {"pyenv 3.6.15",
       "6d853d1016a951ac13d69174b9a33ac9639c3a22",
       {{kR, 0x1436eb}, {kF, 0x14378e}, {kW, 0x144493}, {kA, 0x144538}}},
      {"pyenv 3.7.16",
       "edcca1179f608e68bf531649c8046e6c3508c5f9",
       {{kR, 0x15c440}, {kF, 0x15c4ee}, {kW, 0x15d214}, {kA, 0x15d2b1}}},
      {"pyenv 3.8.18",
       "ff2a4988bea9e9bbbb8004eb6e74cc0792734c3b",
       {{kR, 0x172c7c},
        {kF, 0x172d17},
        {kW, 0x1741f6},
        {kA, 0x17427c},
        {kW, 0x174455},
        {kA, 0x1744e0}}},
      {"pyenv 3.9.18",
       "8a6cadea533dd782615a0f14a75b5aef248a10d4",
       {{kR, 0x19cdba}, {kF, 0x19ce81}, {kW, 0x19d702}, {kA, 0x19d7c4}}},
      {"pyenv 3.10.13",
       "ece57af647dd10ee274f46d757d62a5eab42c418",
       {{kR, 0x1b2d4a}, {kF, 0x1b2e11}, {kW, 0x1b38fa}, {kA, 0x1b39f8}}},
      {"pyenv 3.11.7",
       "49daf84ed369fe589b73ea876f2591cd4c3588bb",
       {{kR, 0x24f42a}, {kF, 0x24f4f1}, {kW, 0x24f86a}, {kA, 0x24f914}}},
      {"pyenv 3.12.1",
       "f9d5c82f5f2c22df68c1d49c944ef3dee5103dcc",
       {{kR, 0x2ae17b}, {kF, 0x2ae285}, {kW, 0x2aeaa0}, {kA, 0x2aeb49}}},
      {"pyenv 3.13.0",
       "d11d13fb0f82d32f3da1221ffd551ab179afb423",
       {{kR, 0x265b5b},
        {kF, 0x265bfd},
        {kW, 0x265fd0},
        {kA, 0x266065},
        {kR, 0x2664a1},
        {kF, 0x26651d}}},
      {"Debian static 3.11.2",
       "571d98e01096d5c1c32420d229a6731a0a50d2a0",
       {{kA, 0x4f9370},
        {kA, 0x4f9423},
        {kW, 0x4f94e9},
        {kR, 0x527a4b},
        {kF, 0x527aac},
        {kR, 0x5a1183},
        {kF, 0x5a1428},
        {kR, 0x5aed3d},
        {kF, 0x5aee0c},
        {kR, 0x5ba542},
        {kF, 0x5ba7b1},
        {kR, 0x634353},
        {kF, 0x6343b9},
        {kR, 0x647fcc},
        {kF, 0x64826b}}},
      {"Debian libpython 3.11.2",
       "9c43ffefa67ac31d2070c69c46db6d8ced25b942",
       {{kR, 0x265b9a}, {kF, 0x265c61}, {kW, 0x265f52}, {kA, 0x2660ce}}},
      {"Debian static 3.9.2",
       "f902f8a561c3abdb9c8d8c859d4243bd8c3f928f",
       {{kA, 0x4f12ca}, {kA, 0x4f13c1}, {kW, 0x4f14fb}, {kR, 0x531f8d}, {kF, 0x531ff0},
        {kR, 0x5528b1}, {kF, 0x5529d1}, {kR, 0x552bf2}, {kR, 0x561e85}, {kF, 0x561f51},
        {kR, 0x58ee5e}, {kF, 0x58f099}, {kR, 0x5f7293}, {kF, 0x5f72f9}, {kR, 0x5fed04},
        {kF, 0x5fefc2}}},
      {"Debian libpython 3.9.2",
       "dfc9cac51b855a4114caf956f6389952e4a4371e",
       {{kR, 0x1a2cfa}, {kF, 0x1a2dc1}, {kW, 0x1a30a1}, {kA, 0x1a31e0}}},
      {"Debian static 3.11.2-6+deb12u8",
       "2dd439c6335b443668ce8099c87b26a093da08b0",
       {{kA, 0x4f9711}, {kA, 0x4f97c4}, {kW, 0x4f988d}, {kR, 0x5282fb}, {kF, 0x52835c},
        {kR, 0x5a2b53}, {kF, 0x5a2df8}, {kR, 0x5b049d}, {kF, 0x5b056c}, {kR, 0x5bbb42},
        {kF, 0x5bbd9d}, {kR, 0x635713}, {kF, 0x635779}, {kR, 0x64939c}, {kF, 0x64963b}}},
      {"Debian libpython 3.11.2-6+deb12u8",
       "9fa511d0544f0c0984911c86bc02ed5fe5bd8a0a",
       {{kR, 0x265d4a}, {kF, 0x265e11}, {kW, 0x266102}, {kA, 0x26627e}}},
      {"Debian pydebug 3.11.2-6+deb12u8",
       "2077aba0a22802af961ff16c2fb337218c16e0a7",
       {{kW, 0x5738ab}, {kR, 0x5739e0}, {kF, 0x573aa3}, {kA, 0x57762d}}},
      {"Debian static 3.13.5",
       "7e8d5f6d0cd6cd1e9bff2a775c11d398cecca758",
       {{kR, 0x46ed0f}, {kF, 0x46ed6a}, {kA, 0x524154}, {kA, 0x524241}, {kW, 0x5242fe},
        {kR, 0x555283}, {kF, 0x5552dd}, {kR, 0x5e7242}, {kF, 0x5e7815}, {kR, 0x5f0f4f},
        {kF, 0x5f12be}, {kR, 0x5f4a27}, {kF, 0x5f4d06}, {kR, 0x5f645c}, {kR, 0x5f65ee},
        {kF, 0x5f66bd}, {kF, 0x5f670f}, {kR, 0x609503}, {kF, 0x609757}, {kR, 0x61733a},
        {kF, 0x6178b4}, {kR, 0x6595bb}, {kF, 0x659893}, {kR, 0x691fc0}, {kF, 0x69201f}}},
      {"Debian libpython 3.13.5",
       "49ec9466f7da2f7296456b47963da8bcc3b5ea25",
       {{kR, 0x28480f}, {kF, 0x2848ad}, {kR, 0x2849a5}, {kF, 0x284a1d}, {kW, 0x284bc1},
        {kA, 0x284db7}, {kR, 0x2851e7}, {kF, 0x28525d}, {kR, 0x28534b}, {kF, 0x2853cd},
        {kR, 0x2ba2c3}, {kF, 0x2ba33d}}},
      {"Debian static 3.13.18",
       "f9de766c3a031e0782095d175ff04e394a2744d2",
       {{kF, 0x493947}, {kR, 0x493a40}, {kA, 0x56d5ce}, {kA, 0x56d6d2}, {kW, 0x56d78b},
        {kR, 0x5b24a3}, {kF, 0x5b2509}, {kR, 0x661eef}, {kF, 0x66248a}, {kR, 0x66b8ee},
        {kF, 0x66c0c3}, {kR, 0x670cbd}, {kF, 0x670fd7}, {kR, 0x671265}, {kF, 0x671535},
        {kR, 0x6735ec}, {kR, 0x67377f}, {kF, 0x673850}, {kF, 0x6738a3}, {kR, 0x68c4b4},
        {kF, 0x68c75e}, {kR, 0x69ff9c}, {kF, 0x6a044f}, {kR, 0x6f6ba2}, {kF, 0x6f6ed9},
        {kR, 0x734785}, {kF, 0x7347e8}, {kR, 0x734874}, {kF, 0x7348ee}}},
      {"Debian libpython 3.13.18",
       "a37a60671b56cd2a8fee2e12145ae38765a2b20d",
       {{kR, 0x2c4fcd}, {kF, 0x2c5076}, {kW, 0x2cbdcd}, {kA, 0x2cbfec}}},
      {"Debian static 3.14.10",
       "cccda113240f3ba4c016991793a62dc0cfe01613",
       {{kR, 0x4546c1}, {kF, 0x4547ca}, {kA, 0x5406b7}, {kW, 0x540866}, {kA, 0x5408a8},
        {kR, 0x5881ec}, {kF, 0x588250}, {kR, 0x64eafd}, {kF, 0x64f0ee}, {kR, 0x660d4b},
        {kR, 0x660f3b}, {kF, 0x660feb}, {kF, 0x661137}, {kR, 0x6bc48b}, {kF, 0x6bc8a3},
        {kR, 0x6fa37c}, {kF, 0x6fa3dd}, {kR, 0x6fa439}, {kR, 0x7258f1}, {kF, 0x725cd4}}},
      {"Debian libpython 3.14.10",
       "4f93ed59248fde6a4c136b9bb1cf3c1e6885e384",
       {{kR, 0x2f5f98}, {kF, 0x2f6041}, {kR, 0x2f614e}, {kF, 0x2f61e1}, {kW, 0x2f9f4c},
        {kA, 0x2fa11b}, {kR, 0x2fa510}, {kF, 0x2fa5a9}, {kR, 0x2fa6c4}, {kF, 0x2fa759},
        {kR, 0x2fb437}, {kF, 0x2fb734}}},
      {"Debian pydebug 3.14.10",
       "707ba6ee7fc4b6e496c0a7aa050182eb9f970687",
       {{kW, 0x651e88}, {kR, 0x651f7d}, {kF, 0x6520aa}, {kA, 0x652343}}},
      {"Debian static 3.15.2",
       "d41ac9e28ff414f10df5da23fb051683a7b4adcf",
       {{kR, 0x457c35}, {kF, 0x457d41}, {kA, 0x568e93}, {kA, 0x568f73}, {kW, 0x5690b7},
        {kR, 0x5ba594}, {kF, 0x5ba5f9}, {kR, 0x69416f}, {kF, 0x69478c}, {kR, 0x6a41cc},
        {kF, 0x6a42fc}, {kR, 0x6a4394}, {kF, 0x6a4426}, {kR, 0x710637}, {kF, 0x710a7c},
        {kR, 0x753d11}, {kF, 0x753d70}, {kR, 0x753de1}, {kR, 0x77f5a5}, {kF, 0x77f911},
        {kR, 0x77fa80}, {kF, 0x77fd57}}},
      {"Debian libpython 3.15.2",
       "8c264ae27fa145f74f511c2f2bb541e432ac741a",
       {{kR, 0x32c5cb}, {kF, 0x32c672}, {kR, 0x32c784}, {kF, 0x32c81a}, {kW, 0x32d322},
        {kA, 0x32d4e9}, {kR, 0x32d8c6}, {kF, 0x32d95b}, {kR, 0x32da7a}, {kF, 0x32db0b},
        {kR, 0x3d0742}, {kF, 0x3d07d3}}},
  };
  // clang-format on
  for (const KnownBuild& build : builds)
    if (build_id == build.build_id) return &build;
  return nullptr;
}

}  // namespace giltop::testing
