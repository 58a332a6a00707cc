/* backend/cpu/expert_linear.h - products of each expert's rows with its matrix, one product of
 * gemm.h per expert. The kernel's context is the struct gemm_kernels to multiply with. */
#ifndef HEADWAY_EXPERT_LINEAR_H
#define HEADWAY_EXPERT_LINEAR_H

#include "backend/backend.h"
#include "backend/cpu/gemm.h"

void expert_linear_run(const struct task *t, struct run *x);
void expert_linear_dx_run(const struct task *t, struct run *x);
void expert_linear_dw_run(const struct task *t, struct run *x);

i64 expert_linear_workspace(const struct task *t, int threads, const void *context);
i64 expert_linear_dx_workspace(const struct task *t, int threads, const void *context);
i64 expert_linear_dw_workspace(const struct task *t, int threads, const void *context);

#endif
