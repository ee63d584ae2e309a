#include "base/keep_old.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace giltop {

Result<bool> keep_old(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return false;
  if (S_ISDIR(info.st_mode)) return Error("cannot write " + path + ": it is a directory");
  if (!S_ISREG(info.st_mode) || info.st_size == 0) return false;
  if (access(path.c_str(), W_OK) != 0) return system_error("cannot write " + path, errno);
  if (std::rename(path.c_str(), (path + ".old").c_str()) != 0)
    return system_error("cannot rename " + path + " to " + path + ".old", errno);
  return true;
}

}  // namespace giltop
