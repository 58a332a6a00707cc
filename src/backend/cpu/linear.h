/* backend/cpu/linear.h - the matrix products as kernels of ops: y = x w^T, dx = dy w,
 * dw = dy^T x, with biases and residuals, through gemm.h. The kernel's context is the
 * struct gemm_kernels to multiply with. */
#ifndef HEADWAY_LINEAR_H
#define HEADWAY_LINEAR_H

#include "backend/backend.h"
#include "backend/cpu/gemm.h"

void linear_run(const struct task *t, struct run *x);
void linear_dx_run(const struct task *t, struct run *x);
void linear_dw_run(const struct task *t, struct run *x);

i64 linear_workspace(const struct task *t, int threads, const void *context);
i64 linear_dx_workspace(const struct task *t, int threads, const void *context);
i64 linear_dw_workspace(const struct task *t, int threads, const void *context);

/* Columns of a tile of a backend's products: results are computed in whole ones. 1 where it has
 * no such kernels, or the name is none of this machine's. */
i64 linear_tile_columns(const char *backend);
/* Columns that a tile costs more than those where a product's columns end within it. */
i64 linear_cut_columns(const char *backend);

#endif
