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
const volatile __u8 track_as = GT_TRACED | GT_TELL; /* what is tracked is in light mode, or is not */

/* By file: all of its sites are probed. Until then some of what it does would be seen and some not,
 * and an acquire without its release is worse than neither. Set by the loader. */
__u8 ready[GT_FILES];

/* By file: of probes that serve all of its processes light mode's alone are set. Those that began
 * just now are in light mode, too. Set by the loader. */
__u8 light_files[GT_FILES];

/* Probe hits of processes that are not traced: they cost those processes a trap all the same. */
__u64 filtered_hits;

/* Those of exact mode's probes by traced processes in light mode, which tell nothing: a forked child has
 * its parent's own in its memory. */
__u64 spare_hits;

/* Those of traced processes on instructions that the kernel does not emulate. */
__u64 stepped_hits;

/* What is known of every process that there can be: GT_TRACED ..., 0: not traced. A byte each, eight
 * to an entry, as every hit, switch and wakeup of the host asks for one or two, and the kernel puts a
 * look into an array in line. The loader has it mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GT_PIDS / 8);
	__type(key, __u32);
	__type(value, __u64);
} tracked SEC(".maps");

static __always_inline __u8 *how_at(__u32 tgid)
{
	__u32 at = tgid / 8;
	__u8 *eight = bpf_map_lookup_elem(&tracked, &at);

	return eight ? eight + (tgid & 7) : 0;
}

/* 0 is the idle tasks', and not tracked. */
static __always_inline __u8 how_of(__u32 tgid)
{
	__u8 *how = how_at(tgid);

	return how ? *how : 0;
}

static __always_inline bool is_tracked(__u32 tgid)
{
	return how_of(tgid) != 0;
}

static __always_inline bool is_light(__u32 tgid)
{
	return how_of(tgid) & GT_LIGHT;
}

static __always_inline void set_how(__u32 tgid, __u8 how)
{
	__u8 *at = how_at(tgid);

	if (at)
		*at = how;
}

static __always_inline void track(__u32 tgid)
{
	set_how(tgid, track_as);
}

/* The loader may change its mode just now. */
static __always_inline void told(__u32 tgid)
{
	__u32 at = tgid / 8;
	__u64 *eight = bpf_map_lookup_elem(&tracked, &at);

	if (eight)
		__sync_fetch_and_and(eight, ~((__u64)GT_TELL << (tgid & 7) * 8));
}

/* A forked child is in the mode of its parent, but has no probes of its own. */
static __always_inline void track_like(__u32 parent, __u32 tgid)
{
	set_how(tgid, GT_TRACED | GT_TELL |
			      (how_of(parent) & (GT_LIGHT | GT_OWN) ? GT_LIGHT : 0));
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
