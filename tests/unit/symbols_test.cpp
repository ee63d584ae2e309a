// Names of functions: from the file, from separate debug files of every kind, and from none that is
// damaged or another file's. The files are made from the GIL's double by objcopy.
#include "target/symbols.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <lzma.h>
#include <sys/stat.h>

#include <filesystem>

#include "support/elf_builder.h"
#include "support/live.h"
#include "target/elf_file.h"
#include "target/gil_sites.h"
#include "target/python_version.h"

namespace giltop::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string pack(const std::string& text, uint32_t preset = 6) {
  std::string packed(text.size() + 65536, '\0');
  size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(
                preset, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
                text.size(), reinterpret_cast<uint8_t*>(packed.data()), &size, packed.size()),
            LZMA_OK);
  packed.resize(size);
  return packed;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class Symbols : public ::testing::Test {
 protected:
  // The double as `folder`/app below a root of the test's own, split into program and debug file.
  void SetUp() override {
    root_ = directory_.path("root");
    std::filesystem::create_directories(root_ + "/opt/bin");
    app_ = root_ + "/opt/bin/app";
    debug_ = directory_.path("app.debug");
    std::filesystem::copy_file(GILTOP_DOUBLE, app_);
    const auto elf = ElfFile::open(app_);
    ASSERT_TRUE(elf) << elf.error().message();
    const auto inspection = inspect_elf(*elf);
    ASSERT_TRUE(inspection) << inspection.error().message();
    ASSERT_EQ(inspection->kind, Inspection::Kind::cpython) << inspection->reason;
    for (const GilSite& site : inspection->cpython.sites) addresses_.push_back(site.address);
    id_ = inspection->cpython.build_id;
    ASSERT_GT(id_.size(), 2u);
    whole_ = look();
    objcopy({"--only-keep-debug", app_, debug_});
  }

  static void objcopy(std::vector<std::string> words) {
    words.insert(words.begin(), "objcopy");
    const Ran ran = run(words);
    ASSERT_EQ(ran.status, 0) << ran.err;
  }
  void strip() { objcopy({"--strip-all", app_}); }

  FunctionNames look() {
    const auto elf = ElfFile::open(app_);
    EXPECT_TRUE(elf) << elf.error().message();
    return function_names(*elf, {root_, "/opt/bin/app"}, addresses_);
  }

  std::string by_build_id() {
    const std::string folder = root_ + "/usr/lib/debug/.build-id/" + id_.substr(0, 2);
    std::filesystem::create_directories(folder);
    return folder + "/" + id_.substr(2) + ".debug";
  }

  void expect_all(const FunctionNames& names, const std::string& source) {
    EXPECT_THAT(names.sources, ElementsAre(EndsWith(source)));
    EXPECT_THAT(names.refused, IsEmpty());
    ASSERT_EQ(names.names.size(), addresses_.size());
    for (size_t i = 0; i < names.names.size(); i++) {
      ASSERT_TRUE(names.names[i]) << i;
      EXPECT_EQ(names.names[i]->name, whole_.names[i]->name);
      EXPECT_EQ(names.names[i]->offset, whole_.names[i]->offset);
    }
  }
  // Nothing but what is exported is named.
  static void expect_few(const FunctionNames& names) {
    for (const auto& name : names.names) {
      if (name) {
        EXPECT_THAT(name->name, HasSubstr("PyEval"));
      }
    }
    for (const std::string& source : names.sources) EXPECT_EQ(source, ".dynsym");
  }

  TemporaryDirectory directory_;
  std::string root_, app_, debug_, id_;
  std::vector<uint64_t> addresses_;
  FunctionNames whole_;
};

TEST_F(Symbols, OfTheFileItself) {
  expect_all(whole_, ".symtab");
  // As nm has them.
  const Ran nm = run({"nm", "--defined-only", app_});
  ASSERT_EQ(nm.status, 0);
  bool gil = false;
  for (size_t i = 0; i < addresses_.size(); i++) {
    char line[256];
    std::snprintf(line, sizeof(line), "%016llx",
                  static_cast<unsigned long long>(addresses_[i] - whole_.names[i]->offset));
    const size_t at = nm.out.find(line);
    ASSERT_NE(at, std::string::npos) << line;
    const std::string rest = nm.out.substr(at, nm.out.find('\n', at) - at);
    EXPECT_THAT(rest, EndsWith(" " + whole_.names[i]->name));
    gil = gil || gil_function(whole_.names[i]->name) == GilFunction::take_gil;
  }
  EXPECT_TRUE(gil);
}

TEST_F(Symbols, StrippedHasOnlyWhatIsExported) {
  strip();
  const FunctionNames names = look();
  expect_few(names);
  EXPECT_THAT(names.refused, IsEmpty());
}

TEST_F(Symbols, ByBuildId) {
  strip();
  std::filesystem::copy_file(debug_, by_build_id());
  const FunctionNames names = look();
  EXPECT_THAT(names.refused, IsEmpty());
  for (size_t i = 0; i < names.names.size(); i++) {
    ASSERT_TRUE(names.names[i]) << i;
    EXPECT_EQ(names.names[i]->name, whole_.names[i]->name);
  }
  EXPECT_THAT(names.sources.back(), EndsWith(".debug"));
}

TEST_F(Symbols, ByBuildIdOfAnother) {
  strip();
  std::filesystem::copy_file(GILTOP_BINARY, by_build_id());
  const FunctionNames names = look();
  expect_few(names);
  EXPECT_THAT(names.refused, ElementsAre(HasSubstr("it is of build-id")));
}

TEST_F(Symbols, LinksStayBelowTheRoot) {
  strip();
  // Absolute, it leads to the root's own file; followed from the host's root it would lead nowhere.
  std::filesystem::copy_file(debug_, root_ + "/opt/elsewhere");
  std::filesystem::create_symlink("/opt/elsewhere", by_build_id());
  EXPECT_THAT(look().sources.back(), EndsWith(".debug"));
  // Out of it, there is none.
  std::filesystem::remove(by_build_id());
  std::filesystem::create_symlink(debug_, by_build_id());
  expect_few(look());
  std::filesystem::remove(by_build_id());
  std::filesystem::create_symlink("../../../../../../../../../../../.." + debug_, by_build_id());
  expect_few(look());
}

TEST_F(Symbols, NotAFile) {
  strip();
  ASSERT_EQ(mkfifo(by_build_id().c_str(), 0600), 0);
  expect_few(look());  // and does not hang
  std::filesystem::remove(by_build_id());
  std::filesystem::create_directory(by_build_id());
  expect_few(look());
}

TEST_F(Symbols, ByDebugLink) {
  strip();
  const std::string name = directory_.path("link.debug");
  std::filesystem::copy_file(debug_, name);
  objcopy({"--add-gnu-debuglink=" + name, app_});
  expect_few(look());  // none of the three folders has it
  for (const char* folder : {"/opt/bin", "/opt/bin/.debug", "/usr/lib/debug/opt/bin"}) {
    SCOPED_TRACE(folder);
    std::filesystem::create_directories(root_ + folder);
    const std::string place = root_ + folder + "/link.debug";
    std::filesystem::copy_file(name, place);
    const FunctionNames names = look();
    EXPECT_THAT(names.sources.back(), EndsWith(std::string(folder) + "/link.debug"));
    EXPECT_THAT(names.refused, IsEmpty());
    for (size_t i = 0; i < names.names.size(); i++) {
      ASSERT_TRUE(names.names[i]) << i;
      EXPECT_EQ(names.names[i]->name, whole_.names[i]->name);
    }
    // One byte more, and it is another file.
    write_file(place, read_file(place) + "x");
    const FunctionNames other = look();
    expect_few(other);
    EXPECT_THAT(other.refused, ElementsAre(HasSubstr("CRC-32")));
    std::filesystem::remove(place);
  }
}

TEST_F(Symbols, DebugLinkWithoutBuildId) {
  objcopy({"--strip-all", "--remove-section=.note.gnu.build-id", app_});
  const auto elf = ElfFile::open(app_);
  ASSERT_TRUE(elf);
  const std::string name = root_ + "/opt/bin/link.debug";
  objcopy({"--remove-section=.note.gnu.build-id", debug_, name});
  objcopy({"--add-gnu-debuglink=" + name, app_});
  EXPECT_THAT(look().sources.back(), EndsWith("link.debug"));
}

TEST_F(Symbols, DebugLinkIsNoPath) {
  strip();
  // By hand: a name with folders in it, and the right CRC.
  const std::string name = root_ + "/opt/link.debug";
  std::filesystem::copy_file(debug_, name);
  objcopy({"--add-gnu-debuglink=" + name, app_});
  const std::string section = directory_.path("section");
  objcopy({"-O", "binary", "--only-section=.gnu_debuglink", "--set-section-flags",
           ".gnu_debuglink=alloc", app_, section});
  const std::string crc = read_file(section).substr(12);
  ASSERT_EQ(crc.size(), 4u);
  write_file(section, std::string("../link.debug\0\0\0", 16) + crc);
  objcopy({"--update-section", ".gnu_debuglink=" + section, app_});
  expect_few(look());
}

TEST_F(Symbols, InDebugData) {
  strip();
  const auto with = [&](const std::string& content) {
    write_file(directory_.path("data"), content);
    std::filesystem::copy_file(app_, app_ + ".with");
    objcopy({"--add-section", ".gnu_debugdata=" + directory_.path("data"), app_ + ".with"});
    const auto elf = ElfFile::open(app_ + ".with");
    std::filesystem::remove(app_ + ".with");
    return function_names(*elf, {root_, "/opt/bin/app"}, addresses_);
  };
  const std::string packed = pack(read_file(debug_));
  const FunctionNames names = with(packed);
  EXPECT_EQ(names.sources.back(), ".gnu_debugdata");
  EXPECT_THAT(names.refused, IsEmpty());
  for (const auto& name : names.names) EXPECT_TRUE(name);
  const auto refuses = [&](const std::string& content, const std::string& why) {
    const FunctionNames none = with(content);
    expect_few(none);
    EXPECT_THAT(none.refused, ElementsAre(HasSubstr(why)));
  };
  refuses(packed.substr(0, packed.size() / 2), "not a whole xz file");
  refuses("no xz at all", "not a whole xz file");
  refuses(pack("no ELF file"), "not an ELF file");
  // 65 MB of nothing in 10 KB.
  refuses(pack(std::string(65 << 20, '\0')), "larger than giltop reads");
}

TEST_F(Symbols, Truncated) {
  const std::string whole = read_file(debug_);
  strip();
  for (size_t part = 0; part < 64; part++) {
    write_file(by_build_id(), whole.substr(0, whole.size() * part / 64));
    expect_few(look());
  }
}

TEST_F(Symbols, Garbled) {
  // Whatever the bytes of symbol and string tables are, names come out of bounds nowhere.
  const std::string whole = read_file(app_);
  uint32_t random = 12345;
  for (int round = 0; round < 60; round++) {
    std::string garbled = whole;
    for (int i = 0; i < 400; i++) {
      random = random * 1664525 + 1013904223;
      garbled[garbled.size() - 1 - random % (garbled.size() / 3)] = static_cast<char>(random >> 24);
    }
    write_file(directory_.path("garbled"), garbled);
    const auto elf = ElfFile::open(directory_.path("garbled"));
    if (!elf) continue;
    const FunctionNames names = function_names(*elf, {root_, "/opt/bin/app"}, addresses_);
    EXPECT_EQ(names.names.size(), addresses_.size());
  }
}

TEST(UnpackXz, TakesTooMuchMemory) {
  // The header of an xz file made with a dictionary of 1.5 GiB: properties byte of LZMA2 is 39 - …
  lzma_options_lzma options;
  ASSERT_FALSE(lzma_lzma_preset(&options, 0));
  options.dict_size = 256u << 20;
  const lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  const std::string text(1000, 'a');
  std::string packed(65536, '\0');
  size_t size = 0;
  // The encoder needs no more memory than the input asks for.
  lzma_filter copy[] = {filters[0], filters[1]};
  ASSERT_EQ(lzma_stream_buffer_encode(
                copy, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const uint8_t*>(text.data()),
                text.size(), reinterpret_cast<uint8_t*>(packed.data()), &size, packed.size()),
            LZMA_OK);
  packed.resize(size);
  const auto unpacked = unpack_xz(bytes_of(packed));
  ASSERT_FALSE(unpacked);
  EXPECT_THAT(unpacked.error().message(), HasSubstr("memory"));
}

TEST(UnpackXz, GivesBackWhatWentIn) {
  const std::string text = "a text " + std::string(200000, 'x');
  const std::string packed = pack(text, 9);  // what rpm's find-debuginfo may use at most
  const auto unpacked = unpack_xz(bytes_of(packed));
  ASSERT_TRUE(unpacked) << unpacked.error().message();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(unpacked->data()), unpacked->size()), text);
  EXPECT_FALSE(unpack_xz({}));
}

TEST(GilFunctionName, ClonesOfGcc) {
  for (const char* name : {"take_gil", "take_gil.constprop.0", "take_gil.lto_priv.0.cold",
                           "take_gil.cold", "take_gil.isra.0.part.12"})
    EXPECT_EQ(gil_function(name), GilFunction::take_gil) << name;
  for (const char* name : {"drop_gil", "drop_gil_impl", "drop_gil_impl.lto_priv.0",
                           "drop_gil.part.0", "drop_gil.cold"})
    EXPECT_EQ(gil_function(name), GilFunction::drop_gil) << name;
  for (const char* name :
       {"", "take_gil2", "take_gil_impl", "my_take_gil", "take_gil.", "take_gil.0", "drop_gil_",
        "take_gil.constprop.", "take_gil.constprop.0x", "take_gil.partly", "PyEval_SaveThread"})
    EXPECT_EQ(gil_function(name), GilFunction::other) << name;
}

}  // namespace
}  // namespace giltop::testing
