/* SPDX-License-Identifier: GPL-2.0 */
/* Hold a traced process while the loader looks at a file that is new to it.
 *
 * exec(unknown file) -> SIGSTOP, delivered before the new image's first instruction -> the loader
 * reads the file, sets its probes, adds it to known_files -> SIGCONT. The place in the ring is
 * reserved first: a process is stopped only when the loader is sure to hear of it. `held` lets
 * giltop's guard process wake whoever is stopped when giltop itself is killed. */
#ifndef GILTOP_HOLD_BPF_H
#define GILTOP_HOLD_BPF_H

__u32 held[GT_HELD_SLOTS]; /* process ids, in a slot from their own number on; 0 is free */

/* The loader's word that it is there to let go whom we hold: boot clock, set at every poll. A giltop
 * that is stopped itself, or stuck, must not take others along. */
__u64 heartbeat_ns;
#define HEARTBEAT_LIMIT_NS 500000000ULL

/* LRU: a host executes any number of files. One that is forgotten is looked at again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct gt_file_key);
	__type(value, __u32);
} known_files SEC(".maps");

#define SIGSTOP 19

static __always_inline __u8 hold(__u32 tgid)
{
	__u32 *slot = 0;
	int i;

	if (bpf_ktime_get_boot_ns() - heartbeat_ns > HEARTBEAT_LIMIT_NS)
		return 0;
	for (i = 0; i < GT_HELD_TRIES; i++) {
		slot = &held[(tgid + i) % GT_HELD_SLOTS];
		if (__sync_val_compare_and_swap(slot, 0, tgid) == 0)
			break;
		slot = 0;
	}
	if (!slot)
		return 0;
	if (bpf_send_signal(SIGSTOP)) {
		*slot = 0;
		return 0;
	}
	return GT_HELD;
}

static __always_inline void file_key(struct gt_file_key *key, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	key->inode = BPF_CORE_READ(inode, i_ino);
	key->size = BPF_CORE_READ(inode, i_size);
	key->device = BPF_CORE_READ(inode, i_sb, s_dev);
	key->generation = BPF_CORE_READ(inode, i_generation);
}

#endif
