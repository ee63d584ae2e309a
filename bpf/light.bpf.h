/* SPDX-License-Identifier: GPL-2.0 */
/* Light mode: one trap when a wait for a GIL is over, and else none. Who holds a GIL is read from the
 * GIL itself.
 *
 * A thread that finds the GIL taken sleeps in pthread_cond_timedwait(&gil->cond), on a futex inside
 * the GIL's struct: at the context switch its registers tell that it waits, and for which GIL. A
 * trap at the call would tell the same some microseconds earlier, but with gil->mutex in hand: it kept
 * the holder from letting go, and cost more than all else.
 *
 * When the call has returned the thread has gil->mutex again: what is read then is true, not a race.
 * At a context switch or a sample it is the word of the current thread about itself: only the
 * instructions between the stores of `locked` and `last_holder` are missed. Of another thread it may
 * be that which has just let go. */
#ifndef GILTOP_LIGHT_BPF_H
#define GILTOP_LIGHT_BPF_H

/* The loader gives this, or `contended`, one entry where it is not used: hashes are preallocated, as
 * Linux before 6.1 wants of those that samples read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct gt_light);
} light_gils SEC(".maps");

/* By thread: what is known of its wait in take_gil. */
enum {
	NOT_ASLEEP = 0,
	TOLD = 1,      /* for `gil` */
	NOT_KNOWN = 2, /* perhaps for one not known of */
	EARLIER = 3,   /* it goes on, and was not told */
};
struct await {
	__u64 gil;   /* that it waited for last; 0: none */
	__u64 futex; /* NOT_KNOWN: what it slept on */
	__u32 cond;  /* in `gil`, bytes */
	__u32 how;
	__u64 swapped; /* GT_SWAP: where the trap was that the newer probes told, */
	__u64 swapped_ns; /* and when: the older ones may be gone by then */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct await);
} awaited SEC(".maps");

/* Not at a context switch: memory is allocated. */
static __always_inline struct await *new_await(struct task_struct *task)
{
	return bpf_task_storage_get(&awaited, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* Where files may change their mode: whether a hit of exact mode's probes is to be told, as the
 * process may have two sets of them (GT_SWAP), and each trap hits both. The kernel runs the newer
 * one's program first (consumer_add(), kernel/events/uprobes.c). So that one decides, the other
 * looks whether it has, and no trap is told twice or never whenever the loader says which counts. */
static __always_inline bool counts(struct pt_regs *ctx, __u32 tgid, __u64 cookie)
{
	__u8 how = how_of(tgid);
	__u64 at = PT_REGS_IP(ctx), now;
	struct await *await;
	bool mine, told;

	if (!how)
		return true; /* it began just now */
	if (how & GT_LIGHT) {
		__sync_fetch_and_add(&spare_hits, 1);
		return false;
	}
	mine = !(cookie & GT_COOKIE_OWN) == !(how & GT_OWN);
	if (!(how & GT_SWAP))
		return mine;
	await = new_await(bpf_get_current_task_btf());
	if (!await)
		return mine;
	now = bpf_ktime_get_ns();
	told = await->swapped == at && now - await->swapped_ns < 1000000000;
	await->swapped = mine ? at : 0;
	await->swapped_ns = now;
	return mine || !told;
}

static __always_inline void note_wait(__u64 gil)
{
	struct await *await = new_await(bpf_get_current_task_btf());

	if (!await)
		return;
	await->gil = gil;
	await->cond = 0;
	await->how = TOLD;
}

/* By CPU: GT_LIGHT_HITS, GT_LIGHT_RECORDS. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GT_LIGHT_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} light_counts SEC(".maps");

static __always_inline void count_light(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&light_counts, &what);

	if (count)
		(*count)++;
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
static __always_inline __u8 holding(struct task_struct *task, const struct gt_light *light)
{
	__u32 self = 0, holder;
	bool known, all;
	int i;

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

/* A record of kind GT_GIL_WAIT, ACQUIRE or RELEASE. Returns its time, 0: it was lost. */
static __always_inline __u64 emit_gil(enum gt_kind kind, __u64 gil, __u8 state, __u32 extra,
				      __u32 tgid, __u32 tid)
{
	struct gt_gil *e;
	__u64 now;

	count_light(GT_LIGHT_RECORDS);
	e = reserve(kind, sizeof(*e));
	if (!e)
		return 0;
	e->gil = gil;
	stamp(&e->h, kind, tgid, tid);
	e->h.state = state;
	e->h.extra = extra;
	now = e->h.ts_ns;
	submit(e);
	return now;
}

/* Waits for `gil` from `now` on, or still: TOLD, EARLIER. The record's time is its own. */
static __always_inline void tell_waits(__u64 gil, __u32 holder, __u32 how, __u32 tgid, __u32 tid,
				       __u64 now)
{
	__u8 state = GT_NO_TRAP | (how == EARLIER ? GT_EARLIER : 0);

	if (tell_threads)
		now = emit_gil(GT_GIL_WAIT, gil, state, holder, tgid, tid) ?: now;
	if (count_waits)
		count_begin(tgid, tid, gil, how == TOLD, how == EARLIER, now);
}

/* Waits no more. `kind`: GT_GIL_ACQUIRE, or GT_GIL_RELEASE where the GIL was switched off. */
static __always_inline void tell_waited(enum gt_kind kind, __u64 gil, __u8 state, __u32 tgid,
					__u32 tid, __u64 now)
{
	if (tell_threads)
		now = emit_gil(kind, gil, state, 0, tgid, tid) ?: now;
	if (count_waits)
		count_end(tgid, tid, kind == GT_GIL_ACQUIRE ? gil : 0, now);
}

/* A GIL that was not known of: who holds none of the others may hold that one. */
static __always_inline void see_gil(struct gt_light *light, __u64 gil)
{
	int i;

	for (i = 0; i < GT_LIGHT_GILS; i++)
		if (light->gils[i] == gil)
			return;
	light->all = 0;
}

/* `task`, the current one, goes to sleep on `futex`, with a time limit. Tells if it does so for a
 * GIL; false: it does not. */
static __always_inline bool tell_wait(struct task_struct *task, struct gt_light *light, __u64 futex)
{
	__u32 holder = 0, cond = 0, how = NOT_ASLEEP;
	struct await *await;
	bool known;
	__u64 gil = 0;
	int i;

	if (light)
		cond = light->cond;
	for (i = 0; light && i < GT_LIGHT_GILS && light->gils[i]; i++)
		if (futex - (light->gils[i] + cond) < GT_COND_SIZE)
			gil = light->gils[i];
	if (!gil && light && !light->grows)
		return false;
	await = bpf_task_storage_get(&awaited, task, 0, 0);
	if (!gil && await && await->cond && futex - (await->gil + await->cond) < GT_COND_SIZE) {
		gil = await->gil;
		cond = await->cond;
	}
	if (await && gil) {
		if (await->how == EARLIER || (await->how == TOLD && await->gil == gil))
			how = await->how;
		await->gil = gil;
		await->cond = cond;
		await->how = TOLD;
	} else if (await) {
		await->futex = futex;
		await->how = NOT_KNOWN;
	}
	if (!gil)
		return false;
	if (light && tell_threads)
		holder = holder_of(light, gil, &known);
	if (light)
		see_gil(light, gil);
	tell_waits(gil, holder, how, task->tgid, task->pid, bpf_ktime_get_boot_ns());
	return true;
}

/* The GIL that the current thread waited for, of which nothing was known but the futex it slept on;
 * it has gil->mutex now. In glibc's condition variable that futex lies 40 bytes from the start, from
 * 2.41 on 32, or four more; its mutex has the owner's id at 8. 0: it was something else. */
static __always_inline __u64 learn_gil(struct await *await, __u32 cond)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 self = ns_tid(task) ?: task->pid, owner;
	__u64 start;
	int i;

	for (i = 32; i <= 40; i += 8) {
		start = (await->futex & ~7ULL) - i;
		if (bpf_probe_read_user(&owner, sizeof(owner), (void *)(start + GT_COND_SIZE + 8)) ||
		    owner != self)
			continue;
		await->gil = start - cond;
		await->cond = cond;
		return await->gil;
	}
	return 0;
}

/* By process, exact mode: the GIL that a thread waited for last. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} contended SEC(".maps");

/* Whether `futex` is the GIL's mutex, behind `cond` (at 0x20, in a free-threaded build at 0x28). */
static __always_inline bool is_mutex_of(__u64 gil, __u64 futex)
{
	return futex == gil + 0x20 + GT_COND_SIZE || futex == gil + 0x28 + GT_COND_SIZE;
}

/* A task of a traced process leaves its CPU, for a sleep as `left` says. What is known of it and
 * GILs: GT_GIL_READ ... of its state. */
static __always_inline __u8 leaves(struct task_struct *task, __u8 left, bool is_light)
{
	__u32 tgid = task->tgid;
	struct gt_light *light = is_light ? bpf_map_lookup_elem(&light_gils, &tgid) : 0;
	__u64 futex = 0, *gil;
	bool timed = false;
	__u8 mutex = 0;

	if (left == GT_TASK_INTERRUPTIBLE)
		futex = futex_of(task, &timed);
	if (futex && timed) {
		if (is_light && tell_wait(task, light, futex))
			return GT_GIL_READ; /* who waits for one holds none */
	} else if (futex && !is_light) {
		gil = bpf_map_lookup_elem(&contended, &tgid);
		mutex = gil && is_mutex_of(*gil, futex) ? GT_GIL_MUTEX : 0;
	}
	return mutex | (light ? holding(task, light) : 0);
}

/* A task in light mode goes to sleep, and nothing but its waits matters. */
static __always_inline void falls_asleep(struct task_struct *task)
{
	__u32 tgid = task->tgid;
	bool timed = false;
	__u64 futex = futex_of(task, &timed);

	if (futex && timed)
		tell_wait(task, bpf_map_lookup_elem(&light_gils, &tgid), futex);
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
	bpf_map_delete_elem(&contended, &tgid);
}

#endif
