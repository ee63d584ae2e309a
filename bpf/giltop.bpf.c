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

char LICENSE[] SEC("license") = "GPL";

/* The GIL: call sites inside take_gil and drop_gil. The cookie says what a call means and where in
 * the GIL's struct the condition variable lies that is its first argument: which GIL it is, then. */

SEC("uprobe")
int on_gil(struct pt_regs *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct gt_gil *e;
	enum gt_kind kind;
	__u64 cookie;

	if (!armed)
		return 0;
	if (!is_tracked(id >> 32)) {
		__sync_fetch_and_add(&filtered_hits, 1);
		return 0;
	}
	cookie = bpf_get_attach_cookie(ctx);
	kind = cookie >> GT_COOKIE_KIND_SHIFT & 3;
	e = reserve(kind, sizeof(*e));
	if (!e)
		return 0;
	e->gil = PT_REGS_PARM1(ctx) - (cookie & GT_COOKIE_OFFSET_MASK);
	stamp(&e->h, kind, id >> 32, (__u32)id);
	submit(e);
	return 0;
}

/* The scheduler. */

SEC("tp_btf/sched_switch")
int on_sched_switch(__u64 *ctx)
{
	struct task_struct *prev, *next;
	bool prev_tracked, next_tracked;
	struct gt_switch *e;
	__u32 state;

	if (!armed)
		return 0;
	prev = (struct task_struct *)ctx[1];
	next = (struct task_struct *)ctx[2];
	prev_tracked = is_tracked(prev->tgid);
	next_tracked = is_tracked(next->tgid);
	if (!prev_tracked && !next_tracked)
		return 0;
	e = reserve(GT_SWITCH, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_SWITCH, prev_tracked ? prev->tgid : 0, prev_tracked ? prev->pid : 0);
	state = task_state(prev);
	e->h.state = left_as((bool)ctx[0], switch_has_prev_state ? (__u32)ctx[3] : state, state);
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

	if (!armed || !is_tracked(task->tgid))
		return 0;
	e = reserve(GT_WAKEUP, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_WAKEUP, task->tgid, task->pid);
	submit(e);
	return 0;
}

/* Lives of processes and threads. */

SEC("tp_btf/sched_process_fork")
int on_process_fork(__u64 *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx[0];
	struct task_struct *child = (struct task_struct *)ctx[1];
	__u32 tgid = child->tgid, one = 1;
	struct gt_fork *e;

	if (!armed || !is_tracked(parent->tgid))
		return 0;
	if (tgid != parent->tgid) {
		if (!follow_children)
			return 0;
		if (bpf_map_update_elem(&tracked, &tgid, &one, BPF_ANY)) {
			count_lost(GT_FORK);
			return 0;
		}
	}
	e = reserve(GT_FORK, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_FORK, tgid, child->pid);
	e->h.extra = parent->pid;
	e->parent_tgid = parent->tgid;
	e->pad = 0;
	bpf_core_read(e->comm, sizeof(e->comm), &child->comm);
	submit(e);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_process_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[2];
	bool unknown;
	struct gt_exec *e;

	if (!armed || !is_tracked(task->tgid))
		return 0;
	e = reserve(GT_EXEC, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_EXEC, task->tgid, task->pid);
	e->h.extra = (__u32)ctx[1];
	file_key(&e->file, bprm->file);
	bpf_core_read(e->comm, sizeof(e->comm), &task->comm);
	unknown = follow_children && !bpf_map_lookup_elem(&known_files, &e->file);
	if (unknown)
		e->h.state = hold(task->tgid);
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

SEC("tp_btf/sched_process_exit")
int on_process_exit(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 tgid = task->tgid;
	struct gt_exit *e;
	bool last;

	if (!is_tracked(tgid))
		return 0;
	/* do_exit() has already counted this thread out of signal->live. */
	last = BPF_CORE_READ(task, signal, live.counter) == 0;
	if (last)
		bpf_map_delete_elem(&tracked, &tgid);
	if (!armed)
		return 0;
	e = reserve(GT_EXIT, sizeof(*e));
	if (!e)
		return 0;
	stamp(&e->h, GT_EXIT, tgid, task->pid);
	e->h.state = last ? GT_LAST : 0;
	bpf_core_read(e->comm, sizeof(e->comm), &task->comm);
	submit(e);
	return 0;
}
