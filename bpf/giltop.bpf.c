// SPDX-License-Identifier: GPL-2.0
/* giltop's kernel side: one short program per hook. */
#include "vmlinux.h"
#ifndef GILTOP_FULL_VMLINUX
#include <linux/bpf.h>
#include <stdbool.h>
#endif
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "giltop/abi.h"

#include "emit.bpf.h"
#include "filter.bpf.h"
#include "compat.bpf.h"
#include "hold.bpf.h"
#include "site.bpf.h"
#include "count.bpf.h"
#include "light.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* A record's size is told in units of 8 bytes, and it ends within its chunk's spill. */
#define IS_RECORD(type) \
	_Static_assert(sizeof(struct type) % 8 == 0 && sizeof(struct type) + 8 <= GT_SPILL, #type)
IS_RECORD(gt_gil);
IS_RECORD(gt_switch);
IS_RECORD(gt_wakeup);
IS_RECORD(gt_sample);
IS_RECORD(gt_fork);
IS_RECORD(gt_exec);
IS_RECORD(gt_found);
IS_RECORD(gt_exit);
IS_RECORD(gt_rename);
IS_RECORD(gt_entry);
#undef IS_RECORD

/* The GIL: call sites inside take_gil and drop_gil. The cookie says what a call means and, with a
 * register, which GIL it is (site.bpf.h). */

static __always_inline bool tell_found(__u32 tgid, __u32 tid, __u32 file, bool new)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct gt_found *e = reserve_quietly(sizeof(*e));

	if (!e)
		return false; /* not lost: the next one tells */
	stamp(&e->h, GT_FOUND, tgid, tid);
	e->h.state = new ? GT_NEW : 0;
	e->h.extra = file & (GT_FILES - 1);
	file_key(&e->file, BPF_CORE_READ(task, mm, exe_file));
	bpf_core_read(e->comm, sizeof(e->comm), &task->comm);
	e->ns_tid = ns_tid(task);
	e->user = user_of(task);
	submit_now(e);
	return true;
}

/* `enabled` is the first member of a free-threaded build's GIL (struct _gil_runtime_state,
 * Include/internal/pycore_gil.h, 3.13), and the last release comes after it is cleared. */
static __always_inline __u8 switched_off(__u64 gil)
{
	int enabled;

	if (bpf_probe_read_user(&enabled, sizeof(enabled), (void *)gil))
		return 0;
	return enabled == 0 ? GT_GIL_OFF : 0;
}

/* Whether a hit of one of `file`'s sites is to be told. That of a process that was not heard of is
 * told with which Python it is. */
static __always_inline bool wanted(__u32 tgid, __u32 tid, __u32 file)
{
	__u8 how = how_of(tgid);

	if (!how && !host_wide) {
		__sync_fetch_and_add(&filtered_hits, 1);
		return false;
	}
	if (!ready[file & (GT_FILES - 1)])
		return false;
	if (!how || how & GT_TELL) {
		bool new = !how;

		if (new)
			track(tgid);
		if (count_waits && new)
			count_image(tgid);
		if (tell_found(tgid, tid, file, new))
			told(tgid);
	}
	return true;
}

SEC("uprobe")
int on_gil(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid(), cookie, gil;
	__u32 tgid = id >> 32;
	struct gt_gil *e;
	enum gt_kind kind;

	if (!armed)
		return 0;
	cookie = bpf_get_attach_cookie(ctx);
	kind = cookie >> GT_COOKIE_KIND_SHIFT & 3;
	if (!wanted(tgid, (__u32)id, cookie >> GT_COOKIE_FILE_SHIFT) ||
	    (both_modes && !counts(ctx, tgid, cookie)))
		return 0;
	if (cookie & GT_COOKIE_STEPPED)
		__sync_fetch_and_add(&stepped_hits, 1);
	e = reserve(kind, sizeof(*e));
	if (!e)
		return 0;
	e->gil = gil_at(ctx, cookie);
	stamp(&e->h, kind, tgid, (__u32)id);
	if (cookie & GT_COOKIE_FREE_THREADED && kind == GT_GIL_RELEASE)
		e->h.state = switched_off(e->gil);
	gil = e->gil;
	submit(e);
	if (kind == GT_GIL_WAIT) {
		bpf_map_update_elem(&contended, &tgid, &gil, BPF_ANY);
		if (both_modes)
			note_wait(gil); /* it may end in light mode */
	}
	return 0;
}

static __always_inline bool in_light_mode(__u32 tgid, __u64 cookie)
{
	__u8 how = how_of(tgid);

	if (how & (GT_LIGHT | GT_OWN))
		return how & GT_LIGHT;
	return light_files[cookie >> GT_COOKIE_FILE_SHIFT & (GT_FILES - 1)];
}

/* Light mode: pthread_cond_timedwait() in take_gil has returned. Free: this thread takes it now, as
 * it has the mutex. Else it calls again. */
SEC("uprobe")
int on_light_resume(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid(), cookie, gil, now;
	enum gt_kind kind = GT_GIL_ACQUIRE;
	__u32 tgid = id >> 32;
	struct gt_light *light;
	struct await *await;
	__u32 how = NOT_ASLEEP;
	__u8 state = 0;
	bool new;
	int locked;

	if (!armed)
		return 0;
	cookie = bpf_get_attach_cookie(ctx);
	if (!wanted(tgid, (__u32)id, cookie >> GT_COOKIE_FILE_SHIFT) ||
	    !in_light_mode(tgid, cookie))
		return 0;
	count_light(GT_LIGHT_HITS);
	now = bpf_ktime_get_boot_ns();
	await = bpf_task_storage_get(&awaited, bpf_get_current_task_btf(), 0, 0);
	new = !await;
	if (await)
		how = await->how;
	if (how == TOLD) {
		gil = await->gil;
	} else if (await && how == NOT_KNOWN) {
		gil = learn_gil(await, (cookie & GT_COOKIE_OFFSET_MASK) + GT_LOCKED_BEFORE_COND);
		light = bpf_map_lookup_elem(&light_gils, &tgid);
		if (gil && light)
			see_gil(light, gil);
		if (!gil) {
			gil = only_gil(tgid);
			if (gil) { /* it slept for something else, and not here */
				how = NOT_ASLEEP;
				await->how = NOT_ASLEEP;
			}
		}
	} else {
		gil = only_gil(tgid);
		if (!await)
			await = new_await(bpf_get_current_task_btf());
	}
	if (gil && cookie & GT_COOKIE_FREE_THREADED && switched_off(gil)) {
		kind = GT_GIL_RELEASE;
		state = GT_GIL_OFF;
	} else if (!gil ||
		   bpf_probe_read_user(&locked, sizeof(locked),
				       (void *)(gil + (cookie & GT_COOKIE_OFFSET_MASK))) ||
		   locked) {
		/* It has slept, or that is not known: it is new to us, or its sleeps are not told yet. */
		if (await && how != TOLD && (new || how == NOT_KNOWN || !is_light(tgid)))
			await->how = EARLIER;
		if (count_waits && new)
			count_step(tgid, (__u32)id, now);
		return 0;
	}
	/* Where its sleeps are not told yet it may have slept, and may do so in its next wait. */
	if (await)
		await->how = is_light(tgid) ? NOT_ASLEEP : EARLIER;
	if (how == NOT_ASLEEP && !is_light(tgid))
		how = EARLIER;
	if (!new && how != TOLD) /* NOT_ASLEEP: it did not need to */
		tell_waits(gil, 0, how == NOT_ASLEEP ? NOT_ASLEEP : EARLIER, tgid, (__u32)id, now);
	tell_waited(kind, gil, state, tgid, (__u32)id, now);
	return 0;
}

/* Light mode: on every CPU, some hundred times a second. What could not be read is told, too: else
 * those that could would speak for it. */
SEC("perf_event")
int on_sample(void *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct gt_light *light;
	__u32 tgid = id >> 32;
	struct gt_sample *e;
	__u8 state;

	if (!armed || !is_light(tgid))
		return 0;
	light = bpf_map_lookup_elem(&light_gils, &tgid);
	state = light ? holding(bpf_get_current_task_btf(), light) : 0;
	e = reserve(GT_SAMPLE, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_SAMPLE, tgid, (__u32)id);
	e->h.state = state;
	submit(e);
	return 0;
}

/* The scheduler. */

SEC("tp_btf/sched_switch")
int on_sched_switch(__u64 *ctx)
{
	struct task_struct *prev, *next;
	bool prev_tracked, next_tracked = false;
	__u8 left, how, gil = 0;
	struct gt_switch *e;
	__u32 state, tgid;

	if (!armed)
		return 0;
	prev = (struct task_struct *)ctx[1];
	next = (struct task_struct *)ctx[2];
	tgid = prev->tgid;
	how = how_of(tgid);
	prev_tracked = how != 0;
	if (tell_threads)
		next_tracked = next->tgid == tgid ? prev_tracked : is_tracked(next->tgid);
	if (!prev_tracked && !next_tracked)
		return 0;
	state = task_state(prev);
	left = left_as((bool)ctx[0], switch_has_prev_state ? (__u32)ctx[3] : state, state);
	if (!tell_threads) {
		if (how & GT_LIGHT && left == GT_TASK_INTERRUPTIBLE)
			falls_asleep(prev);
		if (left != GT_TASK_STOPPED) /* who is held at its exec is let go when it has */
			return 0;
	} else if (how) {
		gil = leaves(prev, left, how & GT_LIGHT);
	}
	e = reserve(GT_SWITCH, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_SWITCH, prev_tracked ? prev->tgid : 0, prev_tracked ? prev->pid : 0);
	e->h.state = gil | left;
	e->h.extra = next_tracked ? next->pid : 0;
	e->next_tgid = next_tracked ? next->tgid : 0;
	e->prev_ran_ns = prev_tracked ? ran_ns(prev) : 0;
	e->uncharged_ns = uncharged_ns(prev_tracked ? prev : next);
	submit(e);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int on_sched_wakeup(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct gt_wakeup *e;
	__u64 now;

	if (!armed || !is_tracked(task->tgid))
		return 0;
	if (!tell_threads) {
		count_woken(task->pid, 0);
		return 0;
	}
	e = reserve(GT_WAKEUP, sizeof(*e));
	if (e) {
		stamp(&e->h, GT_WAKEUP, task->tgid, task->pid);
		now = e->h.ts_ns;
		submit(e);
	} else {
		now = bpf_ktime_get_boot_ns();
	}
	if (count_handoffs)
		count_woken(task->pid, now);
	return 0;
}

/* Lives of processes and threads. */

SEC("tp_btf/sched_process_fork")
int on_process_fork(__u64 *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx[0];
	struct task_struct *child = (struct task_struct *)ctx[1];
	__u32 tgid = child->tgid;
	struct gt_fork *e;

	if (!armed || !is_tracked(parent->tgid))
		return 0;
	if (tgid != parent->tgid) {
		if (!follow_children)
			return 0;
		track_like(parent->tgid, tgid);
		inherit_light(parent->tgid, tgid);
	}
	if (is_light(tgid))
		new_await(child);
	if (count_waits) {
		count_fork(child->pid);
		if (tgid != parent->tgid)
			count_image(tgid);
	}
	if (!tell_threads && tgid == parent->tgid)
		return 0;
	e = reserve(GT_FORK, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_FORK, tgid, child->pid);
	e->h.state = how_of(tgid) & GT_LIGHT;
	e->h.extra = parent->pid;
	e->parent_tgid = parent->tgid;
	e->ns_tid = ns_tid(child);
	bpf_core_read(e->comm, sizeof(e->comm), &child->comm);
	submit(e);
	return 0;
}

/* Host-wide: what the exec of `key` by `tgid` makes of it (GT_NEW ...). False: nothing to tell. */
static __always_inline bool follow_exec(__u32 tgid, const struct gt_file_key *key, __u8 *state)
{
	__u32 *what = bpf_map_lookup_elem(&known_files, key);
	bool python = what && *what == GT_PYTHON;

	if (python) {
		track(tgid);
		*state = GT_NEW;
	} else if (is_tracked(tgid)) {
		set_how(tgid, 0);
		*state = what ? GT_LEFT : GT_LEFT | GT_UNSEEN;
	} else if (what) {
		return false;
	} else {
		*state = GT_UNSEEN;
	}
	return true;
}

SEC("tp_btf/sched_process_exec")
int on_process_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[2];
	struct gt_file_key key;
	struct gt_exec *e;
	__u8 state = 0;

	if (!armed || (!host_wide && !is_tracked(task->tgid)))
		return 0;
	forget_light(task->tgid);
	bpf_task_storage_delete(&awaited, task);
	if (count_waits)
		count_thread_end(task, (__u32)ctx[1], true, true);
	file_key(&key, bprm->file);
	if (host_wide && !follow_exec(task->tgid, &key, &state))
		return 0;
	if (track_as & GT_LIGHT && (!host_wide || state & GT_NEW))
		new_await(task);
	if (count_waits && (!host_wide || state & GT_NEW))
		count_image(task->tgid);
	e = reserve(GT_EXEC, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_EXEC, task->tgid, task->pid);
	e->h.state = state;
	e->h.extra = (__u32)ctx[1];
	e->file = key;
	bpf_core_read(e->comm, sizeof(e->comm), &task->comm);
	e->ns_tid = ns_tid(task);
	e->user = user_of(task);
	if (!host_wide) {
		track(task->tgid); /* a new image: its first GIL event tells which Python it is */
		if (follow_children && !bpf_map_lookup_elem(&known_files, &key))
			e->h.state = hold(task->tgid);
	}
	submit_now(e);
	return 0;
}

/* At a program's ELF entry point: the loader has mapped its libraries, none has run Python yet. */
SEC("uprobe")
int on_entry(struct pt_regs *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 id = bpf_get_current_pid_tgid();
	struct gt_entry *e;
	__u32 *what;

	if (!armed)
		return 0;
	if (!is_tracked(id >> 32)) {
		__sync_fetch_and_add(&filtered_hits, 1);
		return 0;
	}
	e = reserve(GT_ENTRY, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_ENTRY, id >> 32, (__u32)id);
	file_key(&e->file, BPF_CORE_READ(task, mm, exe_file));
	what = bpf_map_lookup_elem(&known_files, &e->file);
	if (!what || *what != GT_TELL_AT_ENTRY)
		e->h.state = hold(id >> 32);
	submit_now(e);
	return 0;
}

/* Before the name changes. An exec gives its thread a name, too: GT_EXEC tells that one, of the image
 * that follows. */
SEC("tp_btf/task_rename")
int on_task_rename(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct gt_rename *e;

	if (!armed || !is_tracked(task->tgid) || in_execve(task))
		return 0;
	e = reserve(GT_RENAME, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_RENAME, task->tgid, task->pid);
	bpf_probe_read_kernel_str(e->comm, sizeof(e->comm), (const void *)ctx[1]);
	submit(e);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_process_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 tgid = task->tgid;
	struct gt_exit *e;
	bool last;

	if (!is_tracked(tgid) && !count_waits)
		return 0;
	/* do_exit() has already counted this thread out of signal->live. */
	last = BPF_CORE_READ(task, signal, live.counter) == 0;
	if (!is_tracked(tgid)) {
		if (last) /* the loader may have given up tracing it just now */
			count_no_image(tgid);
		return 0;
	}
	if (count_waits)
		count_thread_end(task, task->pid, last, false);
	if (last) {
		set_how(tgid, 0);
		forget_light(tgid);
	}
	if (!armed || (!tell_threads && !last))
		return 0;
	e = reserve(GT_EXIT, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_EXIT, tgid, task->pid);
	e->h.state = last ? GT_LAST : 0;
	e->h.extra = user_of(task);
	bpf_core_read(e->comm, sizeof(e->comm), &task->comm);
	if (last)
		submit_now(e); /* whoever waits for its end */
	else
		submit(e);
	return 0;
}
