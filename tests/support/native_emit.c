#include "native_emit.h"

#include <time.h>

static inline __u64 native_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static __thread __u32 native_cpu;
static __u64 bells;
static struct gt_ring *native_rings;
static char *native_chunks;

static void *native_lookup(void *map, __u32 key);

static void (*interrupt)(void);
static void (*interrupt_look)(void);

static __u64 native_swap(__u64 *where, __u64 before, __u64 after)
{
	if (interrupt)
		interrupt();
	return __sync_val_compare_and_swap(where, before, after);
}

static __thread unsigned looks;

/* The first is at the position. */
static __u64 native_read(__u64 *where)
{
	if (interrupt_look && looks++ % 2)
		interrupt_look();
	return *(volatile __u64 *)where;
}

#define const /* what the loader sets before load is set here at run time */
#define SEC(name)
#define __uint(name, value) int name
#define __type(name, type) type *name
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define barrier() __asm__ volatile("" ::: "memory")
#if defined(__x86_64__)
#define bpf_target_x86
#endif
#define bpf_map_lookup_elem(map, key) native_lookup(map, *(key))
#define bpf_get_smp_processor_id() native_cpu
#define bpf_ktime_get_boot_ns native_clock
#define bpf_ringbuf_output(map, data, size, flags) \
	((void)(data), (void)__sync_fetch_and_add(&bells, 1))

#define __sync_val_compare_and_swap native_swap
#define READ_NOW(field) native_read(&(field))

#include "../../bpf/emit.bpf.h"

static void *native_lookup(void *map, __u32 key)
{
	if (map == (void *)&rings)
		return native_rings + key;
	return native_chunks + (__u64)key * ((1u << chunk_shift) + GT_SPILL);
}

void native_begin(__u32 count_shift, __u32 shift, __u32 shift_of_chunk, struct gt_ring *of_cpus,
		  void *of_rings)
{
	ring_mask = (1u << count_shift) - 1;
	ring_shift = shift;
	chunk_shift = shift_of_chunk;
	native_rings = of_cpus;
	native_chunks = of_rings;
	reader_woken = 0;
	bells = 0;
	interrupt = 0;
	interrupt_look = 0;
	looks = 0;
	for (int kind = 0; kind < GT_KINDS; kind++)
		lost[kind] = 0;
}

void native_on_cpu(__u32 cpu)
{
	native_cpu = cpu;
}

void native_interrupt(void (*by)(void))
{
	interrupt = by;
}

void native_interrupt_look(void (*by)(void))
{
	interrupt_look = by;
}

void *native_reserve(enum gt_kind kind, __u64 size)
{
	return reserve(kind, size);
}

void native_stamp(void *record, enum gt_kind kind, __u32 tgid, __u32 tid)
{
	stamp(record, kind, tgid, tid);
}

void native_submit(void *record)
{
	submit(record);
}

void native_submit_now(void *record)
{
	submit_now(record);
}

__u64 native_lost(enum gt_kind kind)
{
	return lost[kind];
}

__u32 *native_reader_woken(void)
{
	return &reader_woken;
}

__u64 native_bells(void)
{
	return bells;
}
