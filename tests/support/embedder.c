// A program that is no Python until it loads one: runs a script with a libpython by dlopen.
//
//   embedder LIBPYTHON [PYTHON ARGUMENTS]
//
// With EMBEDDER_READY set it prints "ready PID" first and waits for a line on stdin, so that a
// tracer can be there before the library is. The exit status is Python's.
//
// Build: cc, a shared libc, no later symbol versions than GLIBC_2.34.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: embedder LIBPYTHON [PYTHON ARGUMENTS]\n");
    return 2;
  }
  char* early = getenv("EMBEDDER_EARLY");
  if (early) {
    char* program = strdup(early);
    unsetenv("EMBEDDER_EARLY");
    setenv("LD_PRELOAD", argv[1], 1);
    if (program) execv(program, argv);
    perror("embedder: cannot execute EMBEDDER_EARLY");
    return 2;
  }
  unsetenv("LD_PRELOAD");  // not for the children
  if (getenv("EMBEDDER_READY")) {
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    // Byte by byte: what comes behind the line is for Python to read.
    for (char c = 0; c != '\n';)
      if (read(0, &c, 1) != 1) return 2;
  }
  // Its symbols serve the extension modules, which are not linked to it.
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    fprintf(stderr, "embedder: %s\n", dlerror());
    return 2;
  }
  argv[1] = argv[0];
  int (*bytes_main)(int, char**) = (int (*)(int, char**))dlsym(library, "Py_BytesMain");  // 3.8+
  if (bytes_main) return bytes_main(argc - 1, argv + 1);

  int (*wide_main)(int, wchar_t**) = (int (*)(int, wchar_t**))dlsym(library, "Py_Main");
  wchar_t* (*decode)(const char*, size_t*) =
      (wchar_t * (*)(const char*, size_t*)) dlsym(library, "Py_DecodeLocale");
  wchar_t** wide = calloc((size_t)argc, sizeof(*wide));
  if (!wide_main || !decode || !wide) {
    fprintf(stderr, "embedder: %s has no Py_Main\n", argv[1]);
    return 2;
  }
  for (int i = 1; i < argc; i++)
    if (!(wide[i - 1] = decode(argv[i], NULL))) return 2;
  return wide_main(argc - 1, wide);
}
