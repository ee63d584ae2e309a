// Where this host has its CPythons, whether or not one runs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace giltop {

// Files that by their name are an interpreter (python3, python3.11, python3.13t) in one of the
// directories of `path` (as the environment's PATH: "/usr/bin:…"; what is relative in it is left
// out), or a libpython beside such a directory or beside what a link in it leads to ("../lib",
// "../lib64" and the folders of "../lib" for architectures). Each file once, without links, in the
// order of `path`; at most 32 of a folder. What cannot be read is left out.
std::vector<std::string> installed_pythons(std::string_view path);

}  // namespace giltop
