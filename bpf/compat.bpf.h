/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels, each with the commit that changed it. */
#ifndef GILTOP_COMPAT_BPF_H
#define GILTOP_COMPAT_BPF_H

/* 2f064a59a11f ("sched: Change task_struct::state", 5.14) renamed state to __state. */
struct task_struct___before_5_14 {
	volatile long state;
} __attribute__((preserve_access_index));

static __always_inline __u32 task_state(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state);
}

/* fa2c3254d7cf ("sched/tracing: Don't re-read p->state when emitting sched_switch event", 5.18)
 * added the fourth argument. The loader looks it up in BTF; the verifier drops the dead branch. */
const volatile __u8 switch_has_prev_state = 0; /* no bool: C++ has no _Bool for the skeleton */

#define TASK_RUNNING 0x0
#define TASK_INTERRUPTIBLE 0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED_OR_TRACED 0xc /* __TASK_STOPPED | __TASK_TRACED */
#define EXIT_DEAD_OR_ZOMBIE 0x30
#define TASK_DEAD 0x80
#define TASK_FROZEN 0x8000 /* f5d39b020809 (6.1) */

/* How `prev` leaves its CPU. A task whose state is RUNNING again by now stayed on the run queue:
 * a signal was pending when it wanted to sleep, and before 6.12 prev_state still says asleep. */
static __always_inline __u8 left_as(bool preempt, __u32 prev_state, __u32 now_state)
{
	if (preempt || prev_state == TASK_RUNNING || now_state == TASK_RUNNING)
		return GT_TASK_RUNNABLE;
	if (prev_state & (TASK_DEAD | EXIT_DEAD_OR_ZOMBIE))
		return GT_TASK_DEAD;
	if (prev_state & TASK_STOPPED_OR_TRACED)
		return GT_TASK_STOPPED;
	if (prev_state & TASK_UNINTERRUPTIBLE)
		return GT_TASK_UNINTERRUPTIBLE;
	return GT_TASK_INTERRUPTIBLE;
}

/* Whether `task` executes another program now. LSMs want the bit gone (fs/exec.c); without it an image
 * that is about to end is called what follows it. */
struct task_struct___of_exec {
	unsigned int in_execve : 1;
} __attribute__((preserve_access_index));

static __always_inline bool in_execve(struct task_struct *task)
{
	struct task_struct___of_exec *of_exec = (void *)task;

	if (!bpf_core_field_exists(of_exec->in_execve))
		return false;
	return BPF_CORE_READ_BITFIELD_PROBED(of_exec, in_execve);
}

/* The futex that `task`, the current one, sleeps on, and whether with a time limit; 0: on none. The
 * second number is that of restart_syscall(2), by which a wait goes on after a signal.
 * bpf_task_pt_regs: 5.15. */
#if defined(bpf_target_x86)
static __always_inline __u64 futex_of(struct task_struct *task, bool *timed)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	if (regs->orig_ax != 202 && regs->orig_ax != 219)
		return 0;
	*timed = regs->r10 != 0;
	return regs->di;
}
#else
struct pt_regs___of_call {
	struct user_pt_regs user_regs;
	__u64 orig_x0;
	int syscallno;
} __attribute__((preserve_access_index));

static __always_inline __u64 futex_of(struct task_struct *task, bool *timed)
{
	struct pt_regs___of_call *regs = (void *)bpf_task_pt_regs(task);

	if (regs->syscallno != 98 && regs->syscallno != 128)
		return 0;
	*timed = regs->user_regs.regs[3] != 0;
	return regs->orig_x0;
}
#endif

/* What older kernels refuse, of which the loader learns nothing before it loads (tools/kernels test
 * shows it): in a perf_event program hashes that are not preallocated. 34dd3bad1a6f ("bpf: Relax the
 * requirement to use preallocated hash maps in tracing progs.", 6.1). */

/* Time that the CPU of `task` (which runs or just ran there) has charged to no task since boot;
 * 0 on a kernel without CONFIG_FAIR_GROUP_SCHED, where a task does not lead to its run queue. (The
 * per-CPU symbol `runqueues` needs CONFIG_KALLSYMS_ALL, which is rarer.) */
static __always_inline __u64 uncharged_ns(struct task_struct *task)
{
	struct rq *rq;

	if (!bpf_core_field_exists(task->se.cfs_rq) || !bpf_core_field_exists(struct cfs_rq, rq))
		return 0;
	rq = task->se.cfs_rq->rq;
	return rq->clock - rq->clock_task;
}

/* How long `task`, which leaves its CPU, has been on it; 0 where it is not known. The kernel keeps
 * the time of arrival under CONFIG_SCHED_INFO (kernel/sched/stats.h, sched_info_arrive()). */
static __always_inline __u32 ran_ns(struct task_struct *task)
{
	__u64 ran;

	if (!bpf_core_field_exists(task->sched_info.last_arrival) ||
	    !bpf_core_field_exists(task->se.cfs_rq) || !bpf_core_field_exists(struct cfs_rq, rq))
		return 0;
	ran = task->se.cfs_rq->rq->clock - task->sched_info.last_arrival;
	return ran < 1ULL << 32 ? ran : 0;
}

#endif
