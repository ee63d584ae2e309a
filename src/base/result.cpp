#include "base/result.h"

#include <cstring>

namespace giltop {

Error system_error(std::string_view what, int error) {
  return Error(std::string(what) + ": " + std::strerror(error));
}

}  // namespace giltop
