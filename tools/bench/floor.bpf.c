// SPDX-License-Identifier: GPL-2.0
/* The floor: what a trap costs before a program does anything. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("uprobe")
int on_hit(void *ctx)
{
	return 0;
}
