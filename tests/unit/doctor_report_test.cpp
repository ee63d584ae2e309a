// The layout of doctor: pure.
#include "view/doctor_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace giltop {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Agreement = DoctorReport::Agreement;

DoctorReport::Python python() {
  DoctorReport::Python python;
  python.path = "/usr/lib/libpython3.13t.so.1.0";
  python.version = "3.13.0";
  python.build_id = "abcd";
  python.free_threaded = true;
  python.names_from = {".dynsym", "/usr/lib/debug/x.debug"};
  python.sites = {
      {"wait", 0x1000, 0x0, "take_gil", 0x10, "in the function that acquires", Agreement::agrees},
      {"release", 0x12345, 0x2345, "os_read.cold", 0x4, "same argument as 0x1", Agreement::neutral},
      {"forced", 0x12350, 0x2350, "", 0, "CPython's only use", Agreement::unnamed},
  };
  return python;
}

TEST(DoctorText, Nothing) { EXPECT_EQ(doctor_text({}), ""); }

TEST(DoctorText, Host) {
  DoctorReport report;
  report.host = {"1.2.3", "6.1.0", "x86_64", 2, std::nullopt, {}};
  report.host->checks = {{true, true, "Linux 5.15 or newer", ""},
                         {false, true, "permission", "run giltop with sudo"}};
  report.scan.emplace();
  report.scan->processes = 57;
  report.scan->unreadable = 3;
  report.scan->found = {{42, "python3", "3.11.2", "/usr/bin/python3.11", false, ""},
                        {4243, "x", "3.13.0", "/opt/libpython3.13t.so.1.0", true, ""},
                        {9, "pypy3", "", "/opt/pypy3", false, "this is PyPy"}};
  EXPECT_EQ(
      doctor_text(report),
      "giltop 1.2.3, Linux 6.1.0 x86_64, 2 CPUs\n"
      "\n"
      "ok       Linux 5.15 or newer\n"
      "MISSING  permission: run giltop with sudo\n"
      "\n"
      "   PID  NAME     PYTHON   TRACEABLE  FILE\n"
      "    42  python3  3.11.2   yes        /usr/bin/python3.11\n"
      "  4243  x        3.13.0t  yes        /opt/libpython3.13t.so.1.0\n"
      "     9  pypy3    -        no         /opt/pypy3: this is PyPy\n"
      "2 Python processes of 57, 1 more cannot be traced; 3 could not be looked at: run giltop "
      "with sudo\n");
  report.scan->as_root = true;
  EXPECT_THAT(doctor_text(report), Not(HasSubstr("looked at: run")));
}

TEST(DoctorText, Process) {
  DoctorReport report;
  DoctorReport::Process process;
  process.pid = 4242;
  process.comm = "python3";
  process.cmdline = "python3 app.py";
  process.program = "/usr/bin/python3.13t";
  process.namespace_pid = 7;
  process.own_mounts = true;
  process.root = "/srv/root";
  process.notes = {"/a: cannot be read"};
  process.pythons = {python()};
  report.processes = {process};
  EXPECT_EQ(doctor_text(report),
            "4242 python3: python3 app.py\n"
            "  program   /usr/bin/python3.13t\n"
            "  container PID 7 in its own PID namespace; its own mount namespace; its root is "
            "/srv/root\n"
            "  /a: cannot be read\n"
            "CPython 3.13.0, free-threaded, in a library\n"
            "  file      /usr/lib/libpython3.13t.so.1.0\n"
            "  build-id  abcd\n"
            "  names     .dynsym, /usr/lib/debug/x.debug\n"
            "    SITE     ADDRESS  FILE OFFSET  FUNCTION          CONFIRMED BY\n"
            "    wait     0x1000   0x0          take_gil+0x10     in the function that acquires; "
            "name agrees\n"
            "    release  0x12345  0x2345       os_read.cold+0x4  same argument as 0x1\n"
            "    forced   0x12350  0x2350       ?                 CPython's only use\n");
}

TEST(DoctorText, WarnsOfAContradiction) {
  DoctorReport report;
  report.files = {python()};
  report.files[0].sites[0].function = "drop_gil";
  report.files[0].sites[0].name = Agreement::contradicts;
  const std::string text = doctor_text(report);
  EXPECT_THAT(text, HasSubstr("in the function that acquires; name contradicts\n"));
  EXPECT_THAT(text, HasSubstr("  WARNING: wait site 0x1000 is in drop_gil: "));
}

TEST(DoctorText, StrippedAndWithoutBuildId) {
  DoctorReport report;
  report.files = {python()};
  report.files[0].build_id.clear();
  report.files[0].names_from.clear();
  const std::string text = doctor_text(report);
  EXPECT_THAT(text, HasSubstr("  build-id  none\n"));
  EXPECT_THAT(text, HasSubstr("  names     none: it is stripped"));
}

TEST(DoctorText, WhatATargetNamesItself) {
  DoctorReport report;
  DoctorReport::Process process;
  process.pid = 1;
  process.comm = "a\x1b[2J";
  process.cmdline = std::string(5000, 'x');
  process.pythons = {python()};
  process.pythons[0].path = "/tmp/\x9b\n";
  process.pythons[0].sites[1].function = "f\r\x1b]0;" + std::string(300, 'y');
  report.processes = {process};
  const std::string text = doctor_text(report);
  for (const char c : text) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20);
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
    EXPECT_LT(end - at, 160u) << text.substr(at, end - at);
}

}  // namespace
}  // namespace giltop
