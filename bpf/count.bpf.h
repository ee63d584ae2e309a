/* SPDX-License-Identifier: GPL-2.0 */
/* Light mode: waits, and hand-offs where they are asked for, counted in the kernel, by bucket and by
 * whose they are.
 *
 * Counts only grow: the loader reads them and tells what came since it read last, so that nothing
 * need stand still for it, and intervals add up. What no wait can be added to any more (`ended`) it
 * removes when it has read it. What finds no room is counted in `not_counted`: a wait and its
 * hand-off have room, or neither is counted.
 *
 * A wait begins where the thread falls asleep in take_gil, or where it is seen that it did not need
 * to, and ends where it takes the GIL: as the records GT_GIL_WAIT and GT_GIL_ACQUIRE say. If it was
 * woken since it fell asleep last, as GT_WAKEUP says, its hand-off took from there to that end. All
 * at the records' times where they are told, too. */
#ifndef GILTOP_COUNT_BPF_H
#define GILTOP_COUNT_BPF_H

/* Set by the loader before load, with the sizes of the maps. */
const volatile __u8 count_waits = 0;
const volatile __u8 count_by_thread = 0;
const volatile __u8 count_handoffs = 0;

/* Shared with the loader through the .bss map. */
__u64 not_counted; /* waits */

/* Threads that wait and have no entry in `waits`, for want of room, each in the slot of its id. */
__u32 roomless[GT_ROOMLESS_SLOTS];

/* By thread, for its life. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gt_wait);
} waits SEC(".maps");

/* By process that is traced: when it began as it is. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} images SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct gt_waiter);
	__type(value, struct gt_waiter_facts);
} waiters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct gt_count_key);
	__type(value, struct gt_count);
} wait_counts SEC(".maps");

static __always_inline __u64 image_of(__u32 tgid)
{
	__u64 *began = bpf_map_lookup_elem(&images, &tgid);

	return began ? *began : 0;
}

/* Its wait will not be counted. Of two threads with one slot that is booked of the first at once. */
static __always_inline void note_roomless(__u32 tid)
{
	__u32 *slot = &roomless[tid & (GT_ROOMLESS_SLOTS - 1)];

	if (*slot == tid)
		return;
	if (*slot)
		__sync_fetch_and_add(&not_counted, 1);
	*slot = tid;
}

/* Whether it was noted; it is no more. */
static __always_inline bool take_roomless(__u32 tid)
{
	__u32 *slot = &roomless[tid & (GT_ROOMLESS_SLOTS - 1)];

	if (*slot != tid)
		return false;
	*slot = 0;
	return true;
}

/* The entry of a thread that has none, and waits or does not. False: there is no room. */
static __always_inline bool put_wait(__u32 tgid, __u32 tid, __u64 gil, __u64 since_ns,
				     bool waits_now, __u64 now)
{
	struct gt_wait wait = {};

	wait.gil = gil;
	wait.since_ns = since_ns;
	wait.image_ns = image_of(tgid);
	wait.born_ns = count_by_thread ? now : wait.image_ns;
	wait.waits = waits_now;
	return bpf_map_update_elem(&waits, &tid, &wait, BPF_NOEXIST) == 0;
}

/* It goes to sleep for `gil`, for the first time in this wait or `again`; `earlier`: for the first time
 * that this is known of. */
static __always_inline void count_begin(__u32 tgid, __u32 tid, __u64 gil, bool again, bool earlier,
					__u64 now)
{
	struct gt_wait *wait = bpf_map_lookup_elem(&waits, &tid);
	bool noted;

	if (!wait) {
		noted = take_roomless(tid);
		if (again && !noted)
			return; /* booked as not counted */
		if (!put_wait(tgid, tid, gil, noted || earlier ? 0 : now, true, now))
			note_roomless(tid);
		return;
	}
	if (!wait->waits || (wait->gil && wait->gil != gil)) {
		wait->since_ns = earlier ? 0 : now;
		wait->waits = 1;
	}
	wait->gil = gil;
	wait->woken_ns = 0;
}

/* It woke in take_gil and found the GIL taken. Who has no entry fell asleep before it was seen, or
 * there was no room. If the wait goes on, count_begin() will tell for which GIL. */
static __always_inline void count_step(__u32 tgid, __u32 tid, __u64 now)
{
	bool noted;

	if (bpf_map_lookup_elem(&waits, &tid))
		return;
	noted = take_roomless(tid);
	if (!put_wait(tgid, tid, 0, 0, true, now) && noted)
		note_roomless(tid);
}

/* `tid` is woken. Of one that runs, the wakeup that got it there was hidden. `now` 0: by the clock. */
static __always_inline void count_woken(__u32 tid, __u64 now)
{
	struct gt_wait *wait = bpf_map_lookup_elem(&waits, &tid);

	if (wait && wait->waits && wait->gil && !wait->woken_ns)
		wait->woken_ns = now ?: bpf_ktime_get_boot_ns();
}

/* `tid` 0: its process. */
static __always_inline struct gt_waiter waiter_of(__u32 tgid, __u32 tid, __u64 born_ns)
{
	struct gt_waiter waiter = {};

	waiter.born_ns = born_ns;
	waiter.tgid = tgid;
	waiter.tid = tid;
	return waiter;
}

/* Notes the name, of a thread anew each time. False: there is no room for another. */
static __always_inline bool know_waiter(const struct gt_waiter *waiter, __u64 image_ns)
{
	struct gt_waiter_facts *facts = bpf_map_lookup_elem(&waiters, waiter), new = {};

	if (facts) {
		if (waiter->tid)
			bpf_get_current_comm(facts->comm, sizeof(facts->comm));
		return true;
	}
	new.image_ns = image_ns;
	bpf_get_current_comm(new.comm, sizeof(new.comm));
	/* Another thread of the process may be faster. */
	return !bpf_map_update_elem(&waiters, waiter, &new, BPF_NOEXIST) ||
	       bpf_map_lookup_elem(&waiters, waiter);
}

/* Null: there is no room. */
static __always_inline struct gt_count *count_of(const struct gt_count_key *key, __u64 image_ns)
{
	struct gt_count *count, none = {};

	if (!know_waiter(&key->waiter, image_ns))
		return 0;
	count = bpf_map_lookup_elem(&wait_counts, key);
	if (count)
		return count;
	none.min_ns = ~0ULL;
	bpf_map_update_elem(&wait_counts, key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&wait_counts, key);
}

/* The counts are atomic. The extremes need not be: who ends a wait has gil->mutex, so two at once
 * have two GILs, and the bucket bounds what the lesser extreme of the two is off by. */
static __always_inline void add_length(struct gt_count *count, __u64 length)
{
	if (length < count->min_ns)
		count->min_ns = length;
	if (length > count->max_ns)
		count->max_ns = length;
	__sync_fetch_and_add(&count->sum_ns, length);
	__sync_fetch_and_add(&count->count, 1);
}

/* Clocks of two CPUs may differ by some ns. */
static __always_inline __u64 from_to(__u64 since_ns, __u64 now)
{
	return now > since_ns ? now - since_ns : 0;
}

/* The current thread's wait is over. `gil`: it owns that now; 0: that is not how it ended. */
static __always_inline void count_end(__u32 tgid, __u32 tid, __u64 gil, __u64 now)
{
	struct gt_wait *wait = bpf_map_lookup_elem(&waits, &tid);
	struct gt_count *waited, *handed = 0;
	struct gt_count_key key = {};
	__u64 length = 0, handoff = 0;

	if (!wait) {
		/* Of a thread that is new to us the loader may have read that it waits, and not
		 * have told yet: this is newer. */
		if (!take_roomless(tid))
			put_wait(tgid, tid, 0, 0, false, now);
		else if (gil)
			__sync_fetch_and_add(&not_counted, 1);
		return;
	}
	if (!wait->waits)
		return;
	wait->waits = 0;
	if (!gil || wait->gil != gil)
		return; /* or no record told that it waits */
	key.waiter = waiter_of(tgid, count_by_thread ? tid : 0, wait->born_ns);
	key.bucket = GT_NO_BUCKET;
	if (wait->since_ns) {
		length = from_to(wait->since_ns, now);
		key.bucket = gt_bucket_of(length);
	}
	waited = count_of(&key, wait->image_ns);
	if (waited && count_handoffs && wait->woken_ns) {
		handoff = from_to(wait->woken_ns, now);
		key.waiter = waiter_of(tgid, 0, wait->image_ns);
		key.bucket = gt_bucket_of(handoff);
		key.what = GT_COUNT_HANDOFFS;
		handed = count_of(&key, wait->image_ns);
		if (!handed)
			waited = 0;
	}
	if (!waited) {
		__sync_fetch_and_add(&not_counted, 1);
		return;
	}
	if (wait->since_ns)
		add_length(waited, length);
	else
		__sync_fetch_and_add(&waited->count, 1);
	if (handed)
		add_length(handed, handoff);
}

/* `task`: it has its last name. 0: that is not its own any more. */
static __always_inline void end_waiter(struct task_struct *task, const struct gt_waiter *waiter)
{
	struct gt_waiter_facts *facts = bpf_map_lookup_elem(&waiters, waiter);

	if (!facts)
		return;
	if (waiter->tid && task)
		bpf_core_read(facts->comm, sizeof(facts->comm), &task->comm);
	facts->ended = 1;
}

/* The thread, known as `tid`, ends, and perhaps its process (`image_ends`). Or that executes another
 * program (`is_exec`): it has given the thread a name by now. */
static __always_inline void count_thread_end(struct task_struct *task, __u32 tid, bool image_ends,
					     bool is_exec)
{
	struct gt_wait *wait = bpf_map_lookup_elem(&waits, &tid);
	struct gt_waiter waiter = {};
	__u32 tgid = task->tgid;

	if (count_by_thread && wait) {
		waiter = waiter_of(tgid, tid, wait->born_ns);
		end_waiter(is_exec ? 0 : task, &waiter);
	}
	bpf_map_delete_elem(&waits, &tid);
	take_roomless(tid);
	if (!image_ends)
		return;
	if (!count_by_thread || count_handoffs) {
		waiter = waiter_of(tgid, 0, image_of(tgid));
		end_waiter(task, &waiter);
	}
	bpf_map_delete_elem(&images, &tgid);
}

/* A thread's id may be that of one whose end was not seen. */
static __always_inline void count_fork(__u32 tid)
{
	bpf_map_delete_elem(&waits, &tid);
	take_roomless(tid);
}

/* Of every process that is traced, and before that is told: the event may be lost. */
static __always_inline void count_image(__u32 tgid)
{
	__u64 now = bpf_ktime_get_boot_ns();

	bpf_map_update_elem(&images, &tgid, &now, BPF_ANY);
}

static __always_inline void count_no_image(__u32 tgid)
{
	bpf_map_delete_elem(&images, &tgid);
}

#endif
