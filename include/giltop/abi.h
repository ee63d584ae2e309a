/* The only file that the BPF programs and the loader both include: the rings, their records and the
 * configuration that is fixed at load time. Records are 8-byte aligned and carry their kind in a
 * common header; each kind has one size. Times are bpf_ktime_get_boot_ns() (CLOCK_BOOTTIME), taken
 * after the record's place in its ring is reserved: giltop's exact reordering rests on that (see
 * src/probe/rings.h). */
#ifndef GILTOP_ABI_H
#define GILTOP_ABI_H

#ifndef __bpf__
#include <linux/types.h>
#endif

/* A ring: one CPU's, or that of some CPUs. Positions are in bytes and only grow; modulo the ring's
 * size they are places in it. They begin at random, so that nobody can have left a record's head where
 * the next one will be written. Two lines of a cache apart, as CPUs fetch two at a time. */
struct gt_ring {
	__u64 producer; /* up to where places are reserved */
	__u64 unused[15];
	__u64 consumer; /* up to where the reader is done with them; its own */
	__u64 wake_at;  /* what is reserved beyond wakes the reader; its own */
	__u64 unused_too[14];
};

/* Before each record, 8 bytes: its position from bit 7 on, for positions are multiples of 8, and
 * its size with this head, in units of 8 bytes. */
#define GT_HEAD_AT_SHIFT 4
#define GT_HEAD_SIZE_MASK 0x7fULL
#define GT_HEAD_BUSY (1ULL << 63) /* reserved, and not yet written */
#define GT_HEAD_WAKE (1ULL << 62) /* and beyond wake_at */

#define GT_SPILL 128 /* at least a record with its head, bytes */
#define GT_RESERVE_TRIES 64 /* then the record counts as lost */

enum gt_kind {
	GT_GIL_WAIT = 0,    /* found the GIL taken, waits; repeats about every switch interval */
	GT_GIL_ACQUIRE = 1, /* owns the GIL */
	GT_GIL_RELEASE = 2, /* let it go */
	GT_GIL_FORCED = 3,  /* the release before was asked for; waits for another to take over */
	GT_SWITCH = 4,      /* one task leaves a CPU, another enters */
	GT_WAKEUP = 5,      /* a task becomes runnable */
	GT_FORK = 6,        /* a thread or process begins */
	GT_EXEC = 7,        /* a process replaced its image */
	GT_EXIT = 8,        /* a thread ends */
	GT_ENTRY = 9,       /* a program reached its ELF entry point and is held there */
	GT_FOUND = 10,      /* the first GIL event of a program image: which Python it is */
	GT_SAMPLE = 11,     /* light mode: a CPU-clock sample of a running thread */
	GT_RENAME = 12,     /* a thread gets another name, from itself or from another of its process */
	GT_KINDS = 13,
};

/* gt_header.state of GT_SWITCH: how the previous task left the CPU. */
enum gt_task_state {
	GT_TASK_RUNNABLE = 0, /* preempted or yielded */
	GT_TASK_INTERRUPTIBLE = 1,
	GT_TASK_UNINTERRUPTIBLE = 2,
	GT_TASK_STOPPED = 3, /* job control or a tracer */
	GT_TASK_DEAD = 4,
};

struct gt_header {
	__u64 ts_ns;
	__u32 tgid; /* ids of the initial PID namespace */
	__u32 tid;
	__u16 cpu;
	__u8 kind;  /* enum gt_kind */
	__u8 state; /* GT_SWITCH: enum gt_task_state, and as GT_SAMPLE; GT_EXIT: GT_LAST;
	             * GT_GIL_RELEASE: GT_GIL_OFF; GT_GIL_WAIT: GT_NO_TRAP, GT_EARLIER;
	             * GT_SAMPLE: GT_GIL_READ ...; GT_FORK: GT_LIGHT, the mode of a new process; others:
	             * GT_HELD ... GT_LEFT */
	__u32 extra; /* GT_SWITCH: next tid; GT_FORK: parent's tid; GT_EXEC: the tid it had before;
	              * GT_EXIT: its user;
	              * GT_FOUND: the file's number, from the cookie; GT_GIL_WAIT in light mode: the
	              * holder's id as its process calls it, 0: not known */
};

/* Light mode: whether the thread (of GT_SWITCH: the previous one) held a GIL at that moment. */
#define GT_TASK_STATE_MASK 0x07
#define GT_GIL_READ 0x08 /* the memory of the process's GILs could be read */
#define GT_GIL_MINE 0x10 /* and it holds that of the slot: */
#define GT_GIL_SLOT_SHIFT 5
#define GT_LIGHT_GILS 4
/* GT_SWITCH, exact mode: the previous thread sleeps for a GIL's mutex. */
#define GT_GIL_MUTEX 0x80

#define GT_GIL_OFF 1 /* and it was switched off for now (free-threaded builds) */
#define GT_NO_TRAP 1 /* light mode: told by the hook, or by the trap, that tells another record, too */
#define GT_EARLIER 2 /* light mode: it waited already when it was not yet known for which GIL */
#define GT_LAST 1 /* it was the last thread of its process */
#define GT_HELD 1 /* GT_EXEC, GT_ENTRY: it got SIGSTOP and waits for giltop's SIGCONT */
#define GT_NEW 2  /* GT_EXEC, GT_FOUND: not traced before, traced from here on */
#define GT_UNSEEN 4 /* GT_EXEC: of a file the loader has not looked at; the process is not traced */
#define GT_LEFT 8 /* GT_EXEC: it was traced until here and is no more: the file is no Python */

/* GT_GIL_* */
struct gt_gil {
	struct gt_header h;
	__u64 gil; /* address of the GIL's struct in the process */
};

/* GT_SWITCH: h.tgid/h.tid are the previous task's, 0 where it is not tracked. */
struct gt_switch {
	struct gt_header h;
	__u32 next_tgid; /* 0: the next task is not tracked (h.extra is 0 then, too) */
	/* How long the previous task was on this CPU, ns, by the scheduler's own account; 0: not known,
	 * or 2^32 ns and more. The kernel may not report every switch: what it hides is mended by it. */
	__u32 prev_ran_ns;
	/* Time this CPU has charged to no task since boot (stolen by the hypervisor, and interrupts
	 * where the kernel accounts them): rq->clock - rq->clock_task, ns. Only differences count. */
	__u64 uncharged_ns;
};

struct gt_wakeup {
	struct gt_header h; /* of the woken task; h.cpu is the waker's */
};

struct gt_sample {
	struct gt_header h;
};

#define GT_COMM 16

struct gt_fork {
	struct gt_header h; /* of the child */
	__u32 parent_tgid;
	__u32 ns_tid; /* the child's id in its own PID namespace; 0: that is the initial one */
	char comm[GT_COMM];
};

/* A file as the kernel names it; the loader hands it back, it never computes one. */
struct gt_file_key {
	__u64 inode;
	__u64 size;
	__u32 device;
	__u32 generation;
};

struct gt_exec {
	struct gt_header h;
	struct gt_file_key file;
	char comm[GT_COMM];
	__u32 ns_tid; /* as in gt_fork */
	__u32 user;   /* effective, as the initial user namespace has it */
};

struct gt_found {
	struct gt_header h;
	struct gt_file_key file; /* the program: it may have loaded the Python as a library */
	char comm[GT_COMM];
	__u32 ns_tid; /* of h.tid */
	__u32 user;   /* as in gt_exec */
};

struct gt_exit {
	struct gt_header h;
	char comm[GT_COMM];
};

struct gt_rename {
	struct gt_header h; /* of the renamed thread; h.cpu is where that was done */
	char comm[GT_COMM]; /* its new name */
};

/* GT_ENTRY */
struct gt_entry {
	struct gt_header h;
	struct gt_file_key file; /* of the program, not of the loader that started it */
};

/* What known_files says of a program. */
#define GT_HOLD_AT_ENTRY 1 /* where its entry point is watched */
#define GT_TELL_AT_ENTRY 2 /* what it maps is known, too: nobody need wait */
#define GT_PYTHON 3        /* host-wide: it is a Python, or has loaded one: traced from its exec on */
#define GT_OTHER 4         /* host-wide: not a Python itself */

#define GT_PIDS (1 << 22) /* PID_MAX_LIMIT, include/linux/threads.h */

/* What `tracked` says of a process: bits. */
#define GT_TRACED 1
#define GT_TELL 2  /* its next GIL event is to be told with a GT_FOUND */
#define GT_LIGHT 4 /* in light mode */
#define GT_OWN 8   /* exact mode by probes of its own, not by those of the file's processes */
#define GT_SWAP 16 /* it has both for now: the newer ones, which GT_OWN says, are hit first */
#define GT_CLAIMED 32 /* by the loader, which is not sure of it yet; what it executes is its own */

/* Where the GILs of a process in light mode are, and how to tell who holds one. Offsets in bytes. */
struct gt_light {
	__u64 gils[GT_LIGHT_GILS]; /* addresses; 0: no more */
	__u32 locked;              /* in a GIL: int, 1 while it is held */
	__u32 holder;              /* in a GIL: PyThreadState * of who took it last */
	__u32 native_id;           /* in PyThreadState: gettid() of its thread; 0: not there */
	__u32 pthread;             /* in PyThreadState: its pthread_t; 0: holders are not known */
	__u32 pthread_tid;         /* in what a pthread_t points at: gettid() */
	__u32 all;                 /* the process has no other GIL */
	__u32 cond;                /* in a GIL: what a thread that waits for it sleeps on */
	__u32 grows;               /* others may come, or there are some already */
};

/* What is counted of light mode: */
#define GT_LIGHT_HITS 0    /* traps */
#define GT_LIGHT_RECORDS 1 /* GT_GIL_* records, lost ones too */
#define GT_LIGHT_COUNTS 2

#define GT_LOCKED_BEFORE_COND 16 /* in a GIL, bytes */
#define GT_COND_SIZE 48 /* pthread_cond_t of glibc, bytes */

/* The cookie of a GIL site. Bits 0 to 31: how far the GIL lies below what GT_COOKIE_BASE says,
 * signed; then its kind (GT_GIL_*), the loader's number of the file, the base, and flags. */
#define GT_COOKIE_OFFSET_MASK 0xffffffffULL
#define GT_COOKIE_KIND_SHIFT 32
#define GT_COOKIE_FILE_SHIFT 34
#define GT_COOKIE_BASE_SHIFT 44
#define GT_COOKIE_BASE_MASK 7
#define GT_COOKIE_FREE_THREADED (1ULL << 47)
#define GT_COOKIE_STEPPED (1ULL << 48) /* not emulated: its cost is another */
#define GT_COOKIE_OWN (1ULL << 49) /* set in one process alone (GT_OWN) */

/* What the address of the GIL is counted from when a site's probe is hit. Only GT_BASE_ARGUMENT is
 * used on AArch64. */
enum gt_base {
	GT_BASE_ARGUMENT = 0, /* the first argument of the call that is probed */
	GT_BASE_CODE = 1,     /* the probed instruction itself: a GIL in static data */
	GT_BASE_RBX = 2,
	GT_BASE_RBP = 3,
	GT_BASE_R12 = 4,
	GT_BASE_R13 = 5,
	GT_BASE_R14 = 6,
	GT_BASE_R15 = 7,
};

#define GT_FILES 1024 /* Pythons whose sites may be probed at once; number 0 is giltop itself */

/* Buckets of durations in nanoseconds, those of the kernel side, of C++ and of files: 64 to an
 * octave, so that one is at most 1.6 % wide; values below 128 have one each. */
#define GT_BUCKET_BITS 6
#define GT_BUCKETS ((64 - GT_BUCKET_BITS + 1) << GT_BUCKET_BITS)
#define GT_NO_BUCKET GT_BUCKETS /* waits of which the beginning was not seen: their count alone */

/* Bits up to the highest that is set. BPF has no instruction for it, and clang 14 does not end when
 * it is asked for one. */
static inline __u32 gt_width_by_halves(__u64 value)
{
	__u32 width = 0;

	for (__u32 half = 32; half; half /= 2) {
		if (value >> half) {
			value >>= half;
			width += half;
		}
	}
	return width + (value != 0);
}

static inline __u32 gt_bucket_of(__u64 value)
{
	__u32 octave;

	if (value < 1 << GT_BUCKET_BITS)
		return value;
#ifdef __bpf__
	octave = gt_width_by_halves(value) - GT_BUCKET_BITS;
#else
	octave = 64 - __builtin_clzll(value) - GT_BUCKET_BITS;
#endif
	return octave << GT_BUCKET_BITS | (value >> (octave - 1) & ((1 << GT_BUCKET_BITS) - 1));
}

/* Waits and hand-offs counted in the kernel (bpf/count.bpf.h). Whose they are: a thread's, or with
 * tid 0 those of all of a process. born_ns is the time of its first sight, and of a process that of
 * its image: it tells owners of one id apart. */
struct gt_waiter {
	__u64 born_ns;
	__u32 tgid;
	__u32 tid;
};

struct gt_waiter_facts {
	__u64 image_ns; /* when its process began as it is: just before the GT_FORK, GT_EXEC or
			 * GT_FOUND that told, or since when the loader traces it */
	char comm[GT_COMM]; /* at the end of the last wait, or of the thread */
	__u64 ended; /* no more waits will come */
};

/* What is counted: */
#define GT_COUNT_WAITS 0
#define GT_COUNT_HANDOFFS 1 /* always of a process (tid 0): from the wakeup to the acquire */

struct gt_count_key {
	struct gt_waiter waiter;
	__u32 bucket;
	__u32 what; /* GT_COUNT_* */
};

struct gt_count {
	__u64 count;
	__u64 sum_ns, min_ns, max_ns;
};

/* By thread: the wait that goes on. */
struct gt_wait {
	__u64 gil;      /* 0: not known */
	__u64 since_ns; /* 0: it began before it was seen */
	__u64 woken_ns; /* first since it fell asleep last; 0: not yet */
	__u64 image_ns; /* as above */
	__u64 born_ns;  /* of its gt_waiter */
	__u64 waits;    /* it does wait */
};

/* A thread that waits and found no room for its gt_wait is noted in the slot of its id. */
#define GT_ROOMLESS_SLOTS 8192

#define GT_HELD_SLOTS 1024
#define GT_HELD_TRIES 8 /* a process's mark is in one of so many slots from its id on */
/* Or-ed into a slot of `held` by the loader while it sends the SIGCONT. */
#define GT_LETTING_GO 0x80000000u

#endif
