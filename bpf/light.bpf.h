/* SPDX-License-Identifier: GPL-2.0 */
/* Light mode: no trap unless a thread waits. Who holds a GIL is read from the GIL itself.
 *
 * take_gil() holds gil->mutex from its first look to its return, but while it sleeps in
 * pthread_cond_timedwait(); and `locked` and `last_holder` change under that mutex (drop_gil() too).
 * So at the call, and when it has returned, what is read is true, not a race. At a context switch or
 * a sample it is the word of the current thread about itself: only the instructions between the
 * stores of the two are missed. */
#ifndef GILTOP_LIGHT_BPF_H
#define GILTOP_LIGHT_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct gt_light);
} light_gils SEC(".maps");

/* By thread: the GIL that it waits for in take_gil; 0: none. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} awaited SEC(".maps");

static __always_inline bool note_wait(__u64 gil)
{
	__u64 *await = bpf_task_storage_get(&awaited, bpf_get_current_task_btf(), 0,
					    BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!await)
		return false;
	*await = gil;
	return true;
}

/* Who holds the GIL at `gil`, by its own name for itself. 0: nobody, or it cannot be told. */
static __always_inline __u32 holder_of(const struct gt_light *light, __u64 gil, bool *known)
{
	__u64 state, pthread;
	int locked;
	__u32 tid;

	*known = false;
	if (bpf_probe_read_user(&locked, sizeof(locked), (void *)(gil + light->locked)))
		return 0;
	if (locked != 1) {
		*known = true;
		return 0;
	}
	if (bpf_probe_read_user(&state, sizeof(state), (void *)(gil + light->holder)))
		return 0;
	if (light->native_id) {
		if (bpf_probe_read_user(&tid, sizeof(tid), (void *)(state + light->native_id)))
			return 0;
	} else {
		if (!light->pthread || !light->pthread_tid ||
		    bpf_probe_read_user(&pthread, sizeof(pthread), (void *)(state + light->pthread)) ||
		    bpf_probe_read_user(&tid, sizeof(tid), (void *)(pthread + light->pthread_tid)))
			return 0;
	}
	*known = tid != 0;
	return tid;
}

/* Whether `task`, which is the current one, holds a GIL: GT_GIL_READ ... of its state. */
static __always_inline __u8 holding(struct task_struct *task, __u32 tgid)
{
	struct gt_light *light = bpf_map_lookup_elem(&light_gils, &tgid);
	__u32 self = 0, holder;
	bool known, all;
	int i;

	if (!light)
		return 0;
	all = light->all;
	for (i = 0; i < GT_LIGHT_GILS && light->gils[i]; i++) {
		holder = holder_of(light, light->gils[i], &known);
		all &= known;
		if (!holder)
			continue;
		if (!self)
			self = ns_tid(task) ?: task->pid;
		if (holder == self)
			return GT_GIL_READ | GT_GIL_MINE | i << GT_GIL_SLOT_SHIFT;
	}
	return i && all ? GT_GIL_READ : 0;
}

/* Somebody waits for a GIL that was not known of: who holds none of the others may hold that one. */
static __always_inline void see_gil(struct gt_light *light, __u64 gil)
{
	int i;

	for (i = 0; i < GT_LIGHT_GILS; i++)
		if (light->gils[i] == gil)
			return;
	light->all = 0;
}

/* 0: it has several, or it is not known where. */
static __always_inline __u64 only_gil(__u32 tgid)
{
	struct gt_light *light = bpf_map_lookup_elem(&light_gils, &tgid);

	return light && light->all && !light->gils[1] ? light->gils[0] : 0;
}

/* A forked child has its GILs where its parent had them. */
static __always_inline void inherit_light(__u32 parent, __u32 child)
{
	struct gt_light *light = bpf_map_lookup_elem(&light_gils, &parent), copy;

	if (!light)
		return;
	copy = *light;
	bpf_map_update_elem(&light_gils, &child, &copy, BPF_ANY);
}

static __always_inline void forget_light(__u32 tgid)
{
	bpf_map_delete_elem(&light_gils, &tgid);
}

#endif
