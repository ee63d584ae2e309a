#include "target/installed_pythons.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class InstalledPythons : public ::testing::Test {
 protected:
  InstalledPythons() {
    for (const char* folder : {"bin", "lib", "lib/x86_64-linux-gnu", "lib64", "other"})
      std::filesystem::create_directories(path(folder));
  }
  std::string path(const std::string& name) const { return directory_.path(name); }
  void make(const std::string& name) const { write_file(path(name), "x"); }

 private:
  TemporaryDirectory directory_;
};

TEST_F(InstalledPythons, InterpretersAndTheirLibraries) {
  for (const char* name :
       {"bin/python3.11", "bin/python3.13t", "bin/python3.11-config", "bin/python2.7", "bin/python",
        "bin/python3-pip", "lib/libpython3.so", "lib/libpython3.12.so.1.0", "lib/libpython2.7.so",
        "lib/libpython3.12.a", "lib/x86_64-linux-gnu/libpython3.9d.so", "other/libpython3.8.so"})
    make(name);
  std::filesystem::create_symlink("python3.11", path("bin/python3"));
  std::filesystem::create_symlink("libpython3.12.so.1.0", path("lib/libpython3.12.so"));
  EXPECT_THAT(
      installed_pythons(path("bin")),
      ElementsAre(path("bin/python3.11"), path("bin/python3.13t"), path("lib/libpython3.12.so.1.0"),
                  path("lib/x86_64-linux-gnu/libpython3.9d.so")));
  EXPECT_THAT(installed_pythons(path("bin") + ":" + path("bin")), SizeIs(4)) << "each once";
}

TEST_F(InstalledPythons, WhatIsNoFileIsLeftOut) {
  std::filesystem::create_symlink("nowhere", path("bin/python3.1"));
  std::filesystem::create_symlink("python3.2", path("bin/python3.2"));
  std::filesystem::create_directories(path("bin/python3.3"));
  ASSERT_EQ(mkfifo(path("bin/python3.4").c_str(), 0600), 0);
  EXPECT_THAT(installed_pythons(path("bin")), IsEmpty());
}

TEST_F(InstalledPythons, APathLikeAnyOther) {
  make("bin/python3.11");
  EXPECT_THAT(installed_pythons(""), IsEmpty());
  EXPECT_THAT(installed_pythons(":::"), IsEmpty());
  EXPECT_THAT(installed_pythons("bin:.:" + path("gone") + "::" + path("bin") + ":"),
              ElementsAre(path("bin/python3.11")));
}

TEST_F(InstalledPythons, AFolderWithASlash) {
  make("bin/python3.11");
  make("lib/libpython3.11.so.1.0");
  EXPECT_THAT(installed_pythons(path("bin") + "//"),
              ElementsAre(path("bin/python3.11"), path("lib/libpython3.11.so.1.0")));
}

TEST_F(InstalledPythons, TheLibraryIsWhereALinkLeadsTo) {
  for (const char* folder : {"opt/bin", "opt/lib"})
    std::filesystem::create_directories(path(folder));
  make("opt/bin/python3.11");
  make("opt/lib/libpython3.11.so.1.0");
  std::filesystem::create_symlink(path("opt/bin/python3.11"), path("bin/python3"));
  EXPECT_THAT(installed_pythons(path("bin")),
              ElementsAre(path("opt/bin/python3.11"), path("opt/lib/libpython3.11.so.1.0")));
}

TEST_F(InstalledPythons, AFolderWithVeryManyLeavesRoomForOthers) {
  for (int i = 0; i < 200; i++) make("bin/python3." + std::to_string(i));
  std::filesystem::create_directories(path("more/bin"));
  make("more/bin/python3.11");
  const auto found = installed_pythons(path("bin") + ":" + path("more/bin"));
  EXPECT_THAT(found, SizeIs(33));
  EXPECT_EQ(found.back(), path("more/bin/python3.11"));
}

}  // namespace
}  // namespace giltop::testing
