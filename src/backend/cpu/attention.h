/* backend/cpu/attention.h - the kernels of attention by the names of their sets, for the set
 * that chooses between two of them, and for tests. */
#ifndef HEADWAY_ATTENTION_H
#define HEADWAY_ATTENTION_H

#include "backend/backend.h"

#define ATTENTION_DECLARE_OP(op, isa)                        \
    void op##_##isa(const struct task *t, struct run *x);    \
    i64 op##_workspace_##isa(const struct task *t, int threads, const void *context)
#define ATTENTION_DECLARE(isa)                        \
    ATTENTION_DECLARE_OP(attention, isa);             \
    ATTENTION_DECLARE_OP(attention_grad, isa);        \
    ATTENTION_DECLARE_OP(attention_block, isa);       \
    ATTENTION_DECLARE_OP(attention_block_grad, isa);  \
    ATTENTION_DECLARE_OP(attention_cached, isa)

ATTENTION_DECLARE(avx512);
ATTENTION_DECLARE(avx512bf16);
ATTENTION_DECLARE(amx);

#endif
