/* Made by tools/gen-vmlinux on Linux 6.12.107 (Debian 13); do not edit. */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

typedef unsigned int __u32;

typedef long long unsigned int __u64;

typedef __u32 u32;

typedef __u64 u64;

typedef int __kernel_pid_t;

typedef long long int __kernel_loff_t;

typedef u32 __kernel_dev_t;

typedef __kernel_dev_t dev_t;

typedef __kernel_pid_t pid_t;

typedef __kernel_loff_t loff_t;

typedef struct {
	int counter;
} atomic_t;

struct cfs_rq;

struct sched_entity {
	struct cfs_rq *cfs_rq;
};

struct sched_info {
	long long unsigned int last_arrival;
};

struct mm_struct;

struct pid;

struct signal_struct;

struct task_struct {
	unsigned int __state;
	struct sched_entity se;
	struct sched_info sched_info;
	struct mm_struct *mm;
	pid_t pid;
	pid_t tgid;
	struct pid *thread_pid;
	char comm[16];
	struct signal_struct *signal;
};

struct user_pt_regs {
	__u64 regs[31];
	__u64 pc;
};

struct file;

struct mm_struct {
	struct {
		struct file *exe_file;
	};
};

struct upid {
	int nr;
};

struct pid {
	unsigned int level;
	struct upid numbers[0];
};

struct signal_struct {
	atomic_t live;
};

struct inode;

struct file {
	struct inode *f_inode;
};

struct super_block;

struct inode {
	struct super_block *i_sb;
	long unsigned int i_ino;
	loff_t i_size;
	u32 i_generation;
};

struct super_block {
	dev_t s_dev;
};

struct linux_binprm {
	struct file *file;
};

struct rq;

struct cfs_rq {
	struct rq *rq;
};

struct rq {
	u64 clock;
	u64 clock_task;
};

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
