/* SPDX-License-Identifier: GPL-2.0 */
/* Which processes are traced. Keys are process ids of the initial namespace.
 *
 * Host-wide, a process is traced from the exec of a file that is known to be a Python, or from its
 * first GIL event on: the probes sit in Pythons only, so whoever hits one is one. */
#ifndef GILTOP_FILTER_BPF_H
#define GILTOP_FILTER_BPF_H

/* Set by the loader before load: trace what traced processes fork and execute. */
const volatile __u8 follow_children = 1;
const volatile __u8 host_wide = 0;
const volatile __u8 both_modes = 0; /* a file may change its mode, and its probes overlap then */
const volatile __u32 track_as = GT_TELL; /* what is tracked is in light mode, or is not */

/* By file: all of its sites are probed. Until then some of what it does would be seen and some not,
 * and an acquire without its release is worse than neither. Set by the loader. */
__u8 ready[GT_FILES];

/* By file: of probes that serve all of its processes light mode's alone are set. Those that began
 * just now are in light mode, too. Set by the loader. */
__u8 light_files[GT_FILES];

/* Probe hits of processes that are not traced: they cost those processes a trap all the same. */
__u64 filtered_hits;

/* Those of traced processes on instructions that the kernel does not emulate. */
__u64 stepped_hits;

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

static __always_inline bool is_light(__u32 tgid)
{
	__u32 *how = bpf_map_lookup_elem(&tracked, &tgid);

	return how && *how & GT_LIGHT;
}

static __always_inline bool track(__u32 tgid)
{
	__u32 how = track_as;

	return bpf_map_update_elem(&tracked, &tgid, &how, BPF_ANY) == 0;
}

static __always_inline void told(__u32 tgid)
{
	__u32 *how = bpf_map_lookup_elem(&tracked, &tgid);

	if (how)
		*how = (*how & ~GT_TELL) | GT_TRACED;
}

/* A forked child is in the mode of its parent, but has no probes of its own. */
static __always_inline bool track_like(__u32 parent, __u32 tgid)
{
	__u32 *as = bpf_map_lookup_elem(&tracked, &parent);
	__u32 how = GT_TELL | (as && *as & (GT_LIGHT | GT_OWN) ? GT_LIGHT : 0);

	return bpf_map_update_elem(&tracked, &tgid, &how, BPF_ANY) == 0;
}

/* The id of `task` in its own PID namespace; 0 where that is the initial one. */
static __always_inline __u32 ns_tid(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	unsigned int level = BPF_CORE_READ(pid, level);
	/* The elements' size is the running kernel's: vmlinux.h has only the fields we use. */
	void *number = (void *)&pid->numbers[0].nr + level * bpf_core_type_size(struct upid);
	int nr;

	if (level == 0 || bpf_probe_read_kernel(&nr, sizeof(nr), number))
		return 0;
	return nr;
}

/* The types of a task's user, which vmlinux.h has not. */
struct cred___of_user {
	struct {
		__u32 val;
	} euid;
} __attribute__((preserve_access_index));
struct task_struct___of_user {
	const struct cred___of_user *cred;
} __attribute__((preserve_access_index));

/* The effective user of `task`, which ps and the owner of /proc/PID tell. */
static __always_inline __u32 user_of(struct task_struct *task)
{
	return BPF_CORE_READ((struct task_struct___of_user *)task, cred, euid.val);
}

#endif
