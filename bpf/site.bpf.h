/* SPDX-License-Identifier: GPL-2.0 */
/* Which GIL a hit of a site's probe is about. */
#ifndef GILTOP_SITE_BPF_H
#define GILTOP_SITE_BPF_H

/* Mostly the call itself is probed, whose first argument lies in the GIL's struct. A call that the
 * kernel cannot emulate has its probe on an instruction before it: the argument is not set yet, but
 * a register that lasts, or the code's own place, leads to the GIL. */
static __always_inline __u64 gil_at(struct pt_regs *ctx, __u64 cookie)
{
	__u64 from = PT_REGS_PARM1(ctx);

#ifdef bpf_target_x86
	__u32 base = cookie >> GT_COOKIE_BASE_SHIFT & GT_COOKIE_BASE_MASK;

	/* barrier_var: one load each. The compiler would choose an address first and load once, but
	 * the verifier allows no computed address in the context. */
#define FROM(which, name) \
	if (base == which) { \
		from = ctx->name; \
		barrier_var(from); \
	}
	if (base != GT_BASE_ARGUMENT) {
		FROM(GT_BASE_CODE, ip)
		FROM(GT_BASE_RBX, bx)
		FROM(GT_BASE_RBP, bp)
		FROM(GT_BASE_R12, r12)
		FROM(GT_BASE_R13, r13)
		FROM(GT_BASE_R14, r14)
		FROM(GT_BASE_R15, r15)
	}
#undef FROM
#endif
	return from - (__s64)(__s32)(cookie & GT_COOKIE_OFFSET_MASK);
}

#endif
