// Which processes map a CPython: on the GIL's double, run by this test.
#include "target/python_processes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "support/live.h"

namespace giltop::testing {
namespace {

using ::testing::HasSubstr;

class Processes : public ::testing::Test {
 protected:
  std::unique_ptr<Program> start(const std::string& path) {
    auto program = std::make_unique<Program>(std::vector<std::string>{
        path, "1", "0", "1", directory_.path("log" + std::to_string(logs_++)), "--ready"});
    EXPECT_TRUE(program->wait_for("ready"));
    return program;
  }
  static std::map<pid_t, PythonProcesses::Process> all(PythonProcesses& pythons) {
    std::map<pid_t, PythonProcesses::Process> found;
    pid_t last = 0;
    const auto scan = pythons.for_each([&](const PythonProcesses::Process& process) {
      EXPECT_GT(process.info.tgid, last);
      last = process.info.tgid;
      found.emplace(process.info.tgid, process);
    });
    EXPECT_TRUE(scan) << scan.error().message();
    EXPECT_GE(scan->processes, found.size());
    return found;
  }
  TemporaryDirectory directory_;
  int logs_ = 0;
};

TEST_F(Processes, ShareWhatIsKnownOfAFile) {
  const auto first = start(GILTOP_DOUBLE), second = start(GILTOP_DOUBLE);
  PythonProcesses pythons;
  const auto found = all(pythons);
  ASSERT_TRUE(found.contains(first->pid()));
  ASSERT_TRUE(found.contains(second->pid()));
  EXPECT_FALSE(found.contains(getpid()));
  const auto& files = found.at(first->pid()).files;
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].is_python());
  EXPECT_TRUE(files[0].file->is_program);
  EXPECT_EQ(files[0].file->inspection.cpython.version, "3.11.2");
  EXPECT_EQ(files[0].file, found.at(second->pid()).files.at(0).file) << "looked at once";
  const size_t looked_at = pythons.files_looked_at();
  const auto again = pythons.look_at(second->pid());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->files.at(0).file, files[0].file);
  EXPECT_EQ(pythons.files_looked_at(), looked_at);
}

TEST_F(Processes, AFileReplacedUnderItsName) {
  const std::string path = directory_.path("python");
  std::filesystem::copy_file(GILTOP_DOUBLE, path);
  const auto old = start(path);
  PythonProcesses pythons;
  const auto before = pythons.look_at(old->pid());
  ASSERT_TRUE(before);
  std::filesystem::remove(path);
  std::filesystem::copy_file(GILTOP_DOUBLE, path);
  const auto replaced = start(path);
  const auto found = all(pythons);
  ASSERT_TRUE(found.contains(replaced->pid()));
  EXPECT_NE(found.at(replaced->pid()).files.at(0).file, before->files.at(0).file);
  if (geteuid() == 0) {  // the deleted one takes /proc/PID/map_files
    ASSERT_TRUE(found.contains(old->pid()));
    EXPECT_EQ(found.at(old->pid()).files.at(0).file, before->files.at(0).file);
    EXPECT_THAT(found.at(old->pid()).files.at(0).mapping.path, HasSubstr("(deleted)"));
  }
}

TEST_F(Processes, WhatIsNone) {
  PythonProcesses pythons;
  const auto self = pythons.look_at(getpid());
  ASSERT_TRUE(self) << self.error().message();
  EXPECT_TRUE(self->files.empty());
  EXPECT_EQ(pythons.look_at(-1).error().message(), "no process -1");
}

}  // namespace
}  // namespace giltop::testing
