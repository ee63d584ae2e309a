// One process with two CPythons that know nothing of each other.
//
//   two_pythons LIBPYTHON HOME LIBPYTHON HOME
//
// In each, two threads compute for half a second, those of one beside those of the other.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

struct python {
  void (*initialize)(int);
  int (*run)(const char*);
  void* (*save)(void);
  void (*restore)(void*);
  void* state;
};

static void* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (!found) {
    fprintf(stderr, "two_pythons: %s\n", dlerror());
    exit(2);
  }
  return found;
}

static void begin(struct python* p, const char* path, const char* home) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "two_pythons: %s\n", dlerror());
    exit(2);
  }
  *(void**)&p->initialize = symbol(library, "Py_InitializeEx");
  *(void**)&p->run = symbol(library, "PyRun_SimpleString");
  *(void**)&p->save = symbol(library, "PyEval_SaveThread");
  *(void**)&p->restore = symbol(library, "PyEval_RestoreThread");
  setenv("PYTHONHOME", home, 1);
  p->initialize(0);
  p->run("import threading, time\n"
         "def work():\n"
         "    end = time.monotonic() + 0.5\n"
         "    while time.monotonic() < end: sum(range(1000))\n"
         "threads = [threading.Thread(target=work) for _ in range(2)]\n"
         "for t in threads: t.start()\n");
  p->state = p->save();
}

static void end(struct python* p) {
  p->restore(p->state);
  p->run("for t in threads: t.join()\n");
  p->state = p->save();
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  struct python one, two;
  begin(&one, argv[1], argv[2]);
  begin(&two, argv[3], argv[4]);
  end(&one);
  end(&two);
  return 0;
}
