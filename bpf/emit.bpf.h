/* SPDX-License-Identifier: GPL-2.0 */
/* Into the rings: reserve, stamp, submit; count what does not fit.
 *
 * Rings of our own rather than a BPF_MAP_TYPE_RINGBUF: that one has a lock for all CPUs, and its
 * helpers are calls, each of whose returns costs some 10 ns where the kernel mends SRSO or Retbleed. A
 * place is reserved by one compare-and-swap of the ring's position; who is preempted or interrupted
 * in between, or shares the ring with another CPU, tries again.
 *
 * What is reserved must be submitted, on every way: the verifier does not look after that, and the
 * reader waits for it. */
#ifndef GILTOP_EMIT_BPF_H
#define GILTOP_EMIT_BPF_H

/* Set by the loader before load. */
const volatile __u32 ring_mask = 0;   /* a CPU's ring is that of its number, by this */
const volatile __u32 ring_shift = 0;  /* log2 of a ring's bytes */
const volatile __u32 chunk_shift = 0; /* and of a chunk's */
const volatile __u8 tell_threads = 1; /* what threads do; 0: only that processes begin and end */

/* Shared with the loader through the .bss map. */
__u64 lost[GT_KINDS];  /* records that found the ring full (or too busy to get in), per kind */
__u32 reader_woken;    /* set here, cleared by the reader before it drains */
__u32 armed;           /* 0 until every probe is attached: nothing is emitted before */

/* The loader sets the sizes, and has these and `chunks` mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gt_ring);
} rings SEC(".maps");

/* Their records, chunk by chunk, as not every kernel has maps with values of some MB. What begins in a
 * chunk ends in it: there is GT_SPILL behind its end. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, GT_SPILL);
} chunks SEC(".maps");

/* Wakes the reader; what is in it means nothing. If it is full the reader has yet to wake (or whoever
 * rings it just now has been preempted; then it wakes when its time is up). */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* the loader sets a page */
} bell SEC(".maps");

static __always_inline void ring_bell(void)
{
	__u64 nothing = 0;

	bpf_ringbuf_output(&bell, &nothing, sizeof(nothing), BPF_RB_FORCE_WAKEUP);
}

static __always_inline void count_lost(enum gt_kind kind)
{
	__sync_fetch_and_add(&lost[kind], 1);
}

#ifndef READ_NOW /* a test looks in between */
#define READ_NOW(field) (*(volatile __u64 *)&(field))
#endif

/* Room for `size` bytes, a constant and a multiple of 8, after their head. 0: there is none. */
static __always_inline void *reserve_quietly(__u64 size)
{
	__u32 slot = bpf_get_smp_processor_id() & ring_mask, chunk;
	__u64 at, *head, taken = sizeof(*head) + size, in_chunk;
	struct gt_ring *ring = bpf_map_lookup_elem(&rings, &slot);
	char *bytes;
	int i;

	if (!ring)
		return 0;
	for (i = 0; i < GT_RESERVE_TRIES; i++) {
		/* Another CPU was faster: fetch the line as its only owner, not to lose it again at once. */
		at = i ? __sync_fetch_and_add(&ring->producer, 0) : READ_NOW(ring->producer);
		/* Negative: it was emitted and read since. The swap fails then. */
		if ((__s64)(at + taken - READ_NOW(ring->consumer)) > (__s64)(1ULL << ring_shift))
			return 0;
		if (__sync_val_compare_and_swap(&ring->producer, at, at + taken) == at)
			break;
	}
	if (i == GT_RESERVE_TRIES)
		return 0;
	chunk = slot << (ring_shift - chunk_shift) |
		(at & ((1ULL << ring_shift) - 1)) >> chunk_shift;
	in_chunk = at & ((1ULL << chunk_shift) - 1);
	bytes = bpf_map_lookup_elem(&chunks, &chunk);
	if (!bytes)
		return 0; /* cannot be */
	head = (__u64 *)(bytes + in_chunk);
	*head = at << GT_HEAD_AT_SHIFT | taken / 8 | GT_HEAD_BUSY;
	if (at + taken >= READ_NOW(ring->wake_at))
		*head |= GT_HEAD_WAKE;
	return head + 1;
}

static __always_inline void *reserve(enum gt_kind kind, __u64 size)
{
	void *record = reserve_quietly(size);

	if (!record)
		count_lost(kind);
	return record;
}

static __always_inline void stamp(struct gt_header *h, enum gt_kind kind, __u32 tgid, __u32 tid)
{
	h->tgid = tgid;
	h->tid = tid;
	h->cpu = bpf_get_smp_processor_id();
	h->kind = kind;
	h->state = 0;
	h->extra = 0;
	h->ts_ns = bpf_ktime_get_boot_ns();
}

/* The record is whole. Returns what its head was. */
static __always_inline __u64 commit(void *record)
{
	__u64 *head = (__u64 *)record - 1, was = *head;

#ifdef bpf_target_x86
	barrier();
	*(volatile __u64 *)head = was & ~(GT_HEAD_BUSY | GT_HEAD_WAKE); /* x86 keeps stores in order */
#else
	__sync_lock_test_and_set(head, was & ~(GT_HEAD_BUSY | GT_HEAD_WAKE));
#endif
	return was;
}

static __always_inline void submit(void *record)
{
	if (commit(record) & GT_HEAD_WAKE && !reader_woken) {
		reader_woken = 1;
		ring_bell();
	}
}

static __always_inline void submit_now(void *record)
{
	commit(record);
	ring_bell();
}

#undef READ_NOW

#endif
