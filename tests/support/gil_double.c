// A stand-in for CPython 3.11 whose GIL keeps its own books.
//
//   gil_double THREADS SECONDS SEED LOGFILE [--ready]
//
// Its take_gil and drop_gil make the same calls on the same structure, in the same order and under
// the same conditions as CPython's do (compare Python/ceval_gil.h of 3.11), and every thread notes
// the time of each of its transitions right before the call that giltop probes. At the end LOGFILE
// ("-": stdout) holds one line for each, thread by thread:
//
//   TID wait NS      found the GIL taken: before the first timed wait on gil->cond
//   TID acquire NS   owns it now: before the signal of gil->switch_cond
//   TID release NS   owns it no more: before the signal of gil->cond
//   TID asked NS     had released what a waiter had asked for
//   TID forced NS    lets a waiter go first: before the wait on gil->switch_cond
//
// NS is CLOCK_BOOTTIME. `acquire` and `release` are noted under gil->mutex, so over all threads
// they alternate. The same SEED gives each thread the same sequence of things to do; how they
// interleave is the scheduler's business. With --ready it prints "ready PID" once the GIL exists
// (free, never taken) and waits for a line on stdin, so that a tracer can be attached first.
//
//   gil_double --told THREADS INTERVAL_US
//
// Its threads do what lines on stdin tell them, one step at a time; INTERVAL_US is the switch
// interval. It prints "ready PID" when all of them (0 to THREADS - 1) are there, none with the GIL,
// and then for a line
//
//   N take    "N waits K" when the thread sleeps for the GIL, if it has to; "N took K" when it has
//   it N drop    "N dropped K" when it has let it go N step    "N stepped K" when it has woken
//   twice and found the GIL taken N nap     "N napped K" when it has been on a CPU, and sleeps
//   again N end     "N ended" when the thread is no more
//
// K counts the thread's takes, from 1. It ends with stdin.
//
// Build: cc -O2 -rdynamic -pthread, and linked to a shared libc: giltop looks for the calls through
// the PLT, and for the exported names.

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FATAL(what)                                                        \
  do {                                                                     \
    fprintf(stderr, "gil_double: %s failed at line %d\n", what, __LINE__); \
    abort();                                                               \
  } while (0)

// ---- What giltop looks for in a CPython 3.11 ----

struct thread_state;

struct gil {
  unsigned long interval;  // microseconds a waiter waits before it asks for the GIL
  _Atomic(struct thread_state*) last_holder;
  atomic_int locked;  // -1 before the GIL is made
  unsigned long switch_number;
  pthread_cond_t cond;
  pthread_mutex_t mutex;
  pthread_cond_t switch_cond;
  pthread_mutex_t switch_mutex;
};

_Static_assert(offsetof(struct gil, interval) == 0, "as in CPython");
_Static_assert(offsetof(struct gil, last_holder) == 8, "as in CPython");
_Static_assert(offsetof(struct gil, locked) == 0x10, "as in CPython");
_Static_assert(offsetof(struct gil, switch_number) == 0x18, "as in CPython");
_Static_assert(offsetof(struct gil, cond) == 0x20, "as in CPython");
_Static_assert(offsetof(struct gil, mutex) == 0x50, "as in CPython");
#ifdef __x86_64__  // aarch64's pthread_mutex_t is 8 bytes longer
_Static_assert(offsetof(struct gil, switch_cond) == 0x78, "as in CPython");
_Static_assert(offsetof(struct gil, switch_mutex) == 0xa8, "as in CPython");
#endif

struct runtime {
  unsigned char before[0x168];
  struct gil gil;
  unsigned char after[0x100];
};

_Static_assert(offsetof(struct runtime, gil) == 0x168, "as in CPython 3.11");

// How a tracer gets from gil->last_holder to a thread.
struct thread_state {
  struct thread_state *prev, *next;
  void* interp;
  unsigned char before[0x80];
  unsigned long thread_id;         // pthread_self()
  unsigned long native_thread_id;  // gettid()
  // From here on our own.
  struct runtime* runtime;  // through a pointer, as in CPython: the GIL's address is no constant
  struct event* log;
  size_t logged, log_capacity;
  uint64_t random;
  uint64_t deadline_ns;  // CLOCK_MONOTONIC
  pthread_t pthread;
  // Of one that is told what to do.
  sem_t told;
  char verb;
  size_t number;
  atomic_int takes, took, waits, naps;  // how often, up to now
  atomic_int steps;                     // of a wait: found it still taken
};

_Static_assert(offsetof(struct thread_state, next) == 0x08, "as in CPython 3.11");
_Static_assert(offsetof(struct thread_state, thread_id) == 0x98, "as in CPython 3.11");
_Static_assert(offsetof(struct thread_state, native_thread_id) == 0xa0, "as in CPython 3.11");

const unsigned long Py_Version = 0x030b02f0;  // 3.11.2 final
struct runtime _PyRuntime = {.gil = {.interval = 5000, .locked = -1}};
struct thread_state* PyEval_SaveThread(void);
void PyEval_RestoreThread(struct thread_state* self);

static atomic_int gil_drop_request;
static _Thread_local struct thread_state* current;

// ---- The log ----

enum kind { kWait, kAcquire, kRelease, kForced, kAsked };
static const char* const kKindNames[] = {"wait", "acquire", "release", "forced", "asked"};

struct event {
  uint64_t ns;
  enum kind kind;
};

// One step of a thread's work logs at most this many events: it compares the room left with it
// before each step and ends its work early rather than lose one.
enum { kLogReserve = 64 };

static uint64_t now_ns(clockid_t clock) {
  struct timespec t;
  if (clock_gettime(clock, &t)) FATAL("clock_gettime");
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void note(struct thread_state* self, enum kind kind) {
  if (self->logged == self->log_capacity) FATAL("log: room for one more event");
  self->log[self->logged++] = (struct event){now_ns(CLOCK_BOOTTIME), kind};
}

// ---- The GIL ----

static void create_gil(struct gil* gil) {
  pthread_condattr_t monotonic;
  if (pthread_condattr_init(&monotonic)) FATAL("pthread_condattr_init");
  if (pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC)) FATAL("pthread_condattr_setclock");
  if (pthread_mutex_init(&gil->mutex, NULL)) FATAL("pthread_mutex_init");
  if (pthread_mutex_init(&gil->switch_mutex, NULL)) FATAL("pthread_mutex_init");
  if (pthread_cond_init(&gil->cond, &monotonic)) FATAL("pthread_cond_init");
  if (pthread_cond_init(&gil->switch_cond, &monotonic)) FATAL("pthread_cond_init");
  pthread_condattr_destroy(&monotonic);
  atomic_store(&gil->locked, 0);
}

static __attribute__((noinline)) void take_gil(struct thread_state* self) {
  struct gil* gil = &self->runtime->gil;
  if (pthread_mutex_lock(&gil->mutex)) FATAL("pthread_mutex_lock");
  if (atomic_load(&gil->locked)) {
    note(self, kWait);
    atomic_fetch_add(&self->waits, 1);
  }
  while (atomic_load(&gil->locked)) {
    const unsigned long seen = gil->switch_number;
    const uint64_t until_ns = now_ns(CLOCK_MONOTONIC) + gil->interval * 1000u;
    const struct timespec until = {(time_t)(until_ns / 1000000000u),
                                   (long)(until_ns % 1000000000u)};
    const int error = pthread_cond_timedwait(&gil->cond, &gil->mutex, &until);
    if (error != 0 && error != ETIMEDOUT) FATAL("pthread_cond_timedwait");
    if (atomic_load(&gil->locked)) atomic_fetch_add(&self->steps, 1);
    // A whole interval has passed and nobody else had it meanwhile: ask for it.
    if (error == ETIMEDOUT && atomic_load(&gil->locked) && gil->switch_number == seen)
      atomic_store(&gil_drop_request, 1);
  }

  if (pthread_mutex_lock(&gil->switch_mutex)) FATAL("pthread_mutex_lock");
  atomic_store(&gil->locked, 1);
  if (atomic_load(&gil->last_holder) != self) {
    atomic_store(&gil->last_holder, self);
    gil->switch_number++;
  }
  note(self, kAcquire);
  if (pthread_cond_signal(&gil->switch_cond)) FATAL("pthread_cond_signal");
  if (pthread_mutex_unlock(&gil->switch_mutex)) FATAL("pthread_mutex_unlock");

  if (atomic_load(&gil_drop_request)) atomic_store(&gil_drop_request, 0);
  if (pthread_mutex_unlock(&gil->mutex)) FATAL("pthread_mutex_unlock");
}

static __attribute__((noinline)) void drop_gil(struct thread_state* self) {
  struct gil* gil = &self->runtime->gil;
  if (!atomic_load(&gil->locked)) FATAL("drop_gil: the GIL being held");
  if (pthread_mutex_lock(&gil->mutex)) FATAL("pthread_mutex_lock");
  atomic_store(&gil->last_holder, self);
  atomic_store(&gil->locked, 0);
  note(self, kRelease);
  const int asked = atomic_load(&gil_drop_request);
  if (pthread_cond_signal(&gil->cond)) FATAL("pthread_cond_signal");
  if (pthread_mutex_unlock(&gil->mutex)) FATAL("pthread_mutex_unlock");
  if (asked) note(self, kAsked);  // this release was a forced one

  // Forced switching: do not run for the GIL again before the one who asked for it has it.
  if (atomic_load(&gil_drop_request)) {
    if (pthread_mutex_lock(&gil->switch_mutex)) FATAL("pthread_mutex_lock");
    if (atomic_load(&gil->last_holder) == self) {
      atomic_store(&gil_drop_request, 0);
      note(self, kForced);
      if (pthread_cond_wait(&gil->switch_cond, &gil->switch_mutex)) FATAL("pthread_cond_wait");
    }
    if (pthread_mutex_unlock(&gil->switch_mutex)) FATAL("pthread_mutex_unlock");
  }
}

struct thread_state* PyEval_SaveThread(void) {
  struct thread_state* self = current;
  current = NULL;
  drop_gil(self);
  return self;
}

void PyEval_RestoreThread(struct thread_state* self) {
  take_gil(self);
  current = self;
}

// ---- The work ----

static uint64_t next_random(struct thread_state* self) {  // xorshift64*, state never 0
  self->random ^= self->random >> 12;
  self->random ^= self->random << 25;
  self->random ^= self->random >> 27;
  return self->random * 0x2545f4914f6cdd1du;
}

static uint64_t between(struct thread_state* self, uint64_t low, uint64_t high) {
  return low + (next_random(self) >> 16) % (high - low + 1);
}

static void compute_without_gil(uint64_t us) {
  const uint64_t end = now_ns(CLOCK_MONOTONIC) + us * 1000u;
  while (now_ns(CLOCK_MONOTONIC) < end) continue;
}

static void compute_with_gil(uint64_t us) {
  const uint64_t end = now_ns(CLOCK_MONOTONIC) + us * 1000u;
  while (now_ns(CLOCK_MONOTONIC) < end) {
    if (atomic_load_explicit(&gil_drop_request, memory_order_relaxed)) {  // the eval loop's check
      drop_gil(current);
      take_gil(current);
    }
  }
}

static void sleep_us(uint64_t us) {
  const struct timespec t = {(time_t)(us / 1000000u), (long)(us % 1000000u) * 1000};
  nanosleep(&t, NULL);
}

static void do_one_thing(void) {
  struct thread_state* self = current;
  const uint64_t dice = between(self, 1, 100);
  if (dice <= 42) {
    compute_with_gil(between(self, 1, 100));
  } else if (dice <= 46) {
    compute_with_gil(between(self, 5500, 9000));  // long enough to be asked for the GIL
  } else if (dice <= 70) {
    const uint64_t us = between(self, 10, 500);
    PyEval_SaveThread();
    sleep_us(us);
    PyEval_RestoreThread(self);
  } else if (dice <= 90) {
    const uint64_t us = between(self, 1, 60);
    PyEval_SaveThread();
    compute_without_gil(us);
    PyEval_RestoreThread(self);
  } else {
    PyEval_SaveThread();
    PyEval_RestoreThread(self);
  }
}

static void note_thread(struct thread_state* self) {
  self->thread_id = (unsigned long)pthread_self();
  self->native_thread_id = (unsigned long)syscall(SYS_gettid);
}

static void* run_thread(void* argument) {
  struct thread_state* self = argument;
  note_thread(self);
  PyEval_RestoreThread(self);
  while (now_ns(CLOCK_MONOTONIC) < self->deadline_ns &&
         self->log_capacity - self->logged > kLogReserve)
    do_one_thing();
  PyEval_SaveThread();
  return NULL;
}

static void make_thread_state(struct thread_state* self, uint64_t seed, double seconds) {
  memset(self, 0, sizeof *self);
  self->runtime = &_PyRuntime;
  self->random = (seed + 1) * 0x9e3779b97f4a7c15u | 1;
  self->log_capacity = 4096 + (size_t)(seconds * 30000);  // several times what is used
  self->log = malloc(self->log_capacity * sizeof *self->log);
  if (!self->log) FATAL("malloc");
  memset(self->log, 0, self->log_capacity * sizeof *self->log);  // no page faults later
}

// ---- Threads that are told what to do ----

static void* run_told(void* argument) {
  struct thread_state* self = argument;
  note_thread(self);
  atomic_store(&self->steps, 0);
  for (;;) {
    while (sem_wait(&self->told)) continue;
    self->logged = 0;
    const int take = atomic_load(&self->takes);
    switch (self->verb) {
      case 't':
        PyEval_RestoreThread(self);
        printf("%zu took %d\n", self->number, take);
        fflush(stdout);
        atomic_store(&self->took, take);
        break;
      case 'd':
        PyEval_SaveThread();
        printf("%zu dropped %d\n", self->number, take);
        fflush(stdout);
        break;
      case 'n':
        atomic_fetch_add(&self->naps, 1);
        break;
      default:
        return NULL;
    }
  }
}

// As /proc has it; 0: there is no such thread.
static char scheduler_state(const struct thread_state* thread) {
  char path[64], state = 0;
  snprintf(path, sizeof path, "/proc/self/task/%lu/stat", thread->native_thread_id);
  FILE* stat = fopen(path, "r");
  if (!stat) return 0;
  if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1) state = 0;
  fclose(stat);
  return state;
}

static void tell(struct thread_state* thread, char verb) {
  thread->verb = verb;
  if (sem_post(&thread->told)) FATAL("sem_post");
}

static void tell_take(struct thread_state* thread) {
  const int take = atomic_fetch_add(&thread->takes, 1) + 1, waits = atomic_load(&thread->waits);
  tell(thread, 't');
  while (atomic_load(&thread->took) != take) {
    if (atomic_load(&thread->waits) != waits && scheduler_state(thread) == 'S') {
      printf("%zu waits %d\n", thread->number, take);
      fflush(stdout);
      return;
    }
    sleep_us(100);
  }
}

static int do_as_told(struct thread_state* threads, size_t count) {
  // So that who reads its memory finds the GIL: _PyRuntime.interpreters.head, and one of id 0.
  static unsigned char interpreter[0x100];
  void* const head = interpreter;
  memcpy(_PyRuntime.before + 0x28, &head, sizeof head);
  create_gil(&_PyRuntime.gil);
  for (size_t i = 0; i < count; i++) {
    threads[i].interp = interpreter;
    threads[i].number = i;
    if (sem_init(&threads[i].told, 0, 0)) FATAL("sem_init");
    atomic_store(&threads[i].steps, -1);
    if (pthread_create(&threads[i].pthread, NULL, run_told, &threads[i])) FATAL("pthread_create");
    while (atomic_load(&threads[i].steps) != 0) sleep_us(100);
  }
  printf("ready %d\n", (int)getpid());
  fflush(stdout);
  size_t number;
  char verb[16];
  while (scanf("%zu %15s", &number, verb) == 2) {
    if (number >= count) return 2;
    struct thread_state* thread = &threads[number];
    if (strcmp(verb, "take") == 0) {
      tell_take(thread);
    } else if (strcmp(verb, "drop") == 0) {
      tell(thread, 'd');
    } else if (strcmp(verb, "nap") == 0) {
      const int naps = atomic_load(&thread->naps);
      tell(thread, 'n');
      while (atomic_load(&thread->naps) == naps || scheduler_state(thread) != 'S') sleep_us(100);
      printf("%zu napped %d\n", number, atomic_load(&thread->takes));
      fflush(stdout);
    } else if (strcmp(verb, "step") == 0) {
      const int steps = atomic_load(&thread->steps);
      while (atomic_load(&thread->steps) - steps < 2) sleep_us(100);
      printf("%zu stepped %d\n", number, atomic_load(&thread->takes));
      fflush(stdout);
    } else if (strcmp(verb, "end") == 0) {
      tell(thread, 'e');
      if (pthread_join(thread->pthread, NULL)) FATAL("pthread_join");
      while (scheduler_state(thread)) sleep_us(100);  // the kernel's part of it
      printf("%zu ended\n", number);
      fflush(stdout);
    } else {
      return 2;
    }
  }
  return 0;
}

static bool parse(const char* text, double low, double high, double* value) {
  char* end;
  *value = strtod(text, &end);
  return end != text && *end == '\0' && *value >= low && *value <= high;
}

int main(int argc, char** argv) {
  double thread_count, seconds, seed, interval_us;
  if (argc == 4 && strcmp(argv[1], "--told") == 0 && parse(argv[2], 1, 256, &thread_count) &&
      parse(argv[3], 1, 1e9, &interval_us)) {
    const size_t told = (size_t)thread_count;
    struct thread_state* threads = calloc(told, sizeof *threads);
    if (!threads) FATAL("calloc");
    for (size_t i = 0; i < told; i++) make_thread_state(&threads[i], i, 0);
    _PyRuntime.gil.interval = (unsigned long)interval_us;
    return do_as_told(threads, told);
  }
  const bool ready = argc == 6 && strcmp(argv[5], "--ready") == 0;
  if ((argc != 5 && !ready) || !parse(argv[1], 1, 256, &thread_count) ||
      !parse(argv[2], 0, 3600, &seconds) || !parse(argv[3], 0, 1e15, &seed)) {
    fprintf(stderr,
            "usage: gil_double THREADS SECONDS SEED LOGFILE [--ready]\n"
            "       gil_double --told THREADS INTERVAL_US\n");
    return 2;
  }
  FILE* out = strcmp(argv[4], "-") == 0 ? stdout : fopen(argv[4], "w");
  if (!out) {
    fprintf(stderr, "gil_double: cannot write %s: %s\n", argv[4], strerror(errno));
    return 1;
  }

  const size_t count = (size_t)thread_count + 1;  // the main thread is the first
  struct thread_state* threads = calloc(count, sizeof *threads);
  if (!threads) FATAL("calloc");
  for (size_t i = 0; i < count; i++)
    make_thread_state(&threads[i], (uint64_t)seed * 1000 + i, seconds);

  create_gil(&_PyRuntime.gil);
  if (ready) {
    char line[64];
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;  // whoever was to attach has gone
  }

  // As in Python, the main thread starts the others with the GIL held and joins them without it.
  struct thread_state* self = &threads[0];
  note_thread(self);
  PyEval_RestoreThread(self);
  const uint64_t deadline_ns = now_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  for (size_t i = 1; i < count; i++) {
    threads[i].deadline_ns = deadline_ns;
    if (pthread_create(&threads[i].pthread, NULL, run_thread, &threads[i])) FATAL("pthread_create");
  }
  PyEval_SaveThread();
  for (size_t i = 1; i < count; i++)
    if (pthread_join(threads[i].pthread, NULL)) FATAL("pthread_join");
  PyEval_RestoreThread(self);
  PyEval_SaveThread();

  for (size_t i = 0; i < count; i++) {
    for (size_t e = 0; e < threads[i].logged; e++)
      fprintf(out, "%lu %s %llu\n", threads[i].native_thread_id, kKindNames[threads[i].log[e].kind],
              (unsigned long long)threads[i].log[e].ns);
    free(threads[i].log);
  }
  free(threads);
  if (fflush(out) || ferror(out) || fclose(out)) {
    fprintf(stderr, "gil_double: cannot write %s: %s\n", argv[4], strerror(errno));
    return 1;
  }
  return 0;
}
