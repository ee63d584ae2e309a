#include <fcntl.h>
#include <unistd.h>

#include "cli/commands.h"

namespace {

// A standard stream that is closed stays what it is to whoever uses it, an error, and so does it
// for a command that giltop runs. But no file of giltop's own may get its number.
void keep_standard_streams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) == -1)
      (void)open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_streams();
  return giltop::run(argc, argv);
}
