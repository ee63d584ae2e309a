/* bpf/emit.bpf.h, compiled for the machine itself: producers of rings in ordinary memory. */
#ifndef GILTOP_TESTS_NATIVE_EMIT_H
#define GILTOP_TESTS_NATIVE_EMIT_H

#include "giltop/abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As the loader does before load. `chunks`: one after the other, each with its GT_SPILL. */
void native_begin(__u32 count_shift, __u32 ring_shift, __u32 chunk_shift, struct gt_ring* rings,
                  void* chunks);
/* The calling thread runs on this CPU. */
void native_on_cpu(__u32 cpu);
/* Called when a place was chosen and is not reserved yet; 0: nothing. */
void native_interrupt(void (*by)(void));
/* Called when the ring's position was read and the reader's is not yet. */
void native_interrupt_look(void (*by)(void));
void* native_reserve(enum gt_kind kind, __u64 size);
void native_stamp(void* record, enum gt_kind kind, __u32 tgid, __u32 tid);
void native_submit(void* record);
void native_submit_now(void* record);
__u64 native_lost(enum gt_kind kind);
__u32* native_reader_woken(void);
__u64 native_bells(void); /* how often the bell was rung */

#ifdef __cplusplus
}
#endif

#endif
