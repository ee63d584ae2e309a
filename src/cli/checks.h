// What is checked of words on the command line. Each returns what is wrong, or nothing, and may put
// what the word means in its place.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace giltop {

// "64K", "16M": a power of two from 64 KiB to 1 GiB.
std::string check_size(std::string& text);
// "2", "0.5%": more than nothing, at most 100.
std::string check_percent(std::string& text);
// Names or numbers of users.
std::string check_user(std::string& text);
std::string check_regex(std::string& text);
// Not so brief that giltop has nothing else to do, nor longer than a day.
std::string check_delay(std::string& text);
// More than nothing, at most a year.
std::string check_seconds(std::string& text);

// Whether one would be written over the other, there already or not; never where that is a device,
// like /dev/null. "-" is stdout, wherever that goes. Empty: no output.
bool is_same_output(const std::string& a, const std::string& b);
// What is wrong with it that option `one` writes to `path`, and `other` to `other_path`; or
// nothing.
std::string wrong_if_same(const std::string& one, const std::string& path, const std::string& other,
                          const std::string& other_path);
// What is wrong with it that option `kept` writes to file `path`, of which an old one becomes
// PATH.old, and `other` to `other_path`; or nothing.
std::string wrong_pair(const std::string& kept, const std::string& path, const std::string& other,
                       const std::string& other_path);
// What is wrong with it that `option` writes to `path`, if that is a file, and other things to
// stderr and, if `to_stdout`, to stdout; or nothing.
std::string wrong_if_printed(const std::string& option, const std::string& path, bool to_stdout);
// A recording, a file whatever its name, cannot be made again. Errors: one of `outputs` would be
// written over it.
Status spare_recording(const std::string& recording, const std::vector<std::string>& outputs);

}  // namespace giltop
