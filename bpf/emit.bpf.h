/* SPDX-License-Identifier: GPL-2.0 */
/* Into the ring: reserve, stamp, submit; count what does not fit. */
#ifndef GILTOP_EMIT_BPF_H
#define GILTOP_EMIT_BPF_H

/* Set by the loader before load. */
const volatile __u32 wake_bytes = 1 << 20; /* wake the reader when this much is unread */
const volatile __u8 tell_threads = 1; /* what threads do; 0: only that processes begin and end */

/* Shared with the loader through the .bss map. */
__u64 lost[GT_KINDS];  /* records that found the ring full, per kind */
__u32 reader_woken;    /* set here, cleared by the reader before it drains */
__u32 armed;           /* 0 until every probe is attached: nothing is emitted before */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* the loader sets the real size */
} ring SEC(".maps");

static __always_inline void count_lost(enum gt_kind kind)
{
	__sync_fetch_and_add(&lost[kind], 1);
}

static __always_inline void *reserve(enum gt_kind kind, __u64 size)
{
	void *record = bpf_ringbuf_reserve(&ring, size, 0);

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

static __always_inline void submit(void *record)
{
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (!reader_woken && bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= wake_bytes) {
		reader_woken = 1;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(record, flags);
}

static __always_inline void submit_now(void *record)
{
	bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP);
}

#endif
