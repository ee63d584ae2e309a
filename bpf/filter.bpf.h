/* SPDX-License-Identifier: GPL-2.0 */
/* Which processes are traced. Keys are process ids of the initial namespace. */
#ifndef GILTOP_FILTER_BPF_H
#define GILTOP_FILTER_BPF_H

/* Set by the loader before load: trace what traced processes fork and execute. */
const volatile __u8 follow_children = 1;

/* Probe hits of processes that are not traced: they cost those processes a trap all the same. */
__u64 filtered_hits;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u32);
} tracked SEC(".maps");

static __always_inline bool is_tracked(__u32 tgid)
{
	return tgid && bpf_map_lookup_elem(&tracked, &tgid);
}

#endif
