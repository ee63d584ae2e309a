#include "base/descriptor_limit.h"

#include <sys/resource.h>

#include <optional>

namespace giltop {
namespace {

std::optional<rlimit> before;

}  // namespace

void raise_descriptor_limit() {
  rlimit limit{};
  if (before || getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  before = limit;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void restore_descriptor_limit() {
  if (before) setrlimit(RLIMIT_NOFILE, &*before);
}

}  // namespace giltop
