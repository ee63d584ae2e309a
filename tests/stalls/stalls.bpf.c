// SPDX-License-Identifier: GPL-2.0
/* Keeps a CPU, with its interrupts off, for as long as chance will have it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* Set by the loader before load. */
const volatile __u64 longest_ns = 0;
const volatile __u32 chance = 0; /* of a clock tick to be one, in 2^32 */

__u64 stalls, stalled_ns; /* so far, on all CPUs */

#define ROUNDS (1 << 23) /* as many as bpf_loop() takes: some 50 ms at least */

static long is_over(__u32 round, void *until_ns)
{
	return bpf_ktime_get_ns() >= *(__u64 *)until_ns;
}

SEC("perf_event")
int on_tick(void *ctx)
{
	__u64 now, until_ns;

	if (bpf_get_prandom_u32() >= chance)
		return 0;
	now = bpf_ktime_get_ns();
	until_ns = now + (longest_ns >> bpf_get_prandom_u32() % 6);
	bpf_loop(ROUNDS, is_over, &until_ns, 0);
	__sync_fetch_and_add(&stalls, 1);
	__sync_fetch_and_add(&stalled_ns, bpf_ktime_get_ns() - now);
	return 0;
}
