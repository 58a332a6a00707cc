#include "backend/cpu/expert_linear.h"

#include <string.h>

/* Rows [row, row + rows) of a matrix as they lie, and their transpose. */
static struct gemm_matrix rows_of(const struct tensor *t, i64 row)
{
    char *data = (char *)t->data + row * t->dim[1] * dtype_bytes(t->dtype);
    return (struct gemm_matrix){ data, t->dtype, t->dim[1], 1 };
}

static struct gemm_matrix transposed(struct gemm_matrix m)
{
    return (struct gemm_matrix){ m.data, m.type, m.col_stride, m.row_stride };
}

/* n rows from `row` on, of expert e. */
static struct gemm y_gemm(const struct task *t, i64 e, i64 row, i64 n)
{
    i64 N = t->out[0]->dim[1];
    return (struct gemm){ .M = n, .N = N, .K = t->in[0]->dim[1], .A = rows_of(t->in[0], row),
                          .B = transposed(rows_of(t->in[1], e * N)),
                          .C = rows_of(t->out[0], row) };
}

static struct gemm dx_gemm(const struct task *t, i64 e, i64 row, i64 n)
{
    i64 N = t->in[0]->dim[1];
    return (struct gemm){ .M = n, .N = t->in[1]->dim[1], .K = N, .A = rows_of(t->in[0], row),
                          .B = rows_of(t->in[1], e * N), .C = rows_of(t->out[0], row) };
}

static struct gemm dw_gemm(const struct task *t, i64 e, i64 row, i64 n)
{
    i64 N = t->in[0]->dim[1];
    return (struct gemm){ .M = N, .N = t->in[1]->dim[1], .K = n,
                          .A = transposed(rows_of(t->in[0], row)), .B = rows_of(t->in[1], row),
                          .C = rows_of(t->out[0], e * N) };
}

typedef struct gemm (*gemm_of)(const struct task *t, i64 e, i64 row, i64 n);

/* Expert by expert, each over all threads: their numbers of rows differ too much to share them
 * out whole. */
static void run_experts(const struct task *t, struct run *x, gemm_of product, bool accumulate)
{
    const i32 *begin = t->in[2]->data;
    for (i64 e = 0; e + 1 < t->in[2]->dim[0]; e++) {
        struct gemm g = product(t, e, begin[e], begin[e + 1] - begin[e]);
        g.accumulate = accumulate;
        gemm_run(&g, x->context, x->pool, x->workspace);
    }
}

static void zero_unused(const struct task *t)
{
    const struct tensor *y = t->out[0];
    i64 used = ((const i32 *)t->in[2]->data)[t->in[2]->dim[0] - 1];
    i64 row_bytes = y->dim[1] * dtype_bytes(y->dtype);
    memset((char *)y->data + used * row_bytes, 0, (size_t)((y->dim[0] - used) * row_bytes));
}

void expert_linear_run(const struct task *t, struct run *x)
{
    run_experts(t, x, y_gemm, false);
    zero_unused(t);
}

void expert_linear_dx_run(const struct task *t, struct run *x)
{
    run_experts(t, x, dx_gemm, false);
    zero_unused(t);
}

void expert_linear_dw_run(const struct task *t, struct run *x)
{
    run_experts(t, x, dw_gemm, run_accumulates(t, x));
}

/* All rows may be of one expert. */
i64 expert_linear_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = y_gemm(t, 0, 0, t->in[0]->dim[0]);
    return gemm_workspace_bytes(&g, context, threads);
}

i64 expert_linear_dx_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = dx_gemm(t, 0, 0, t->in[0]->dim[0]);
    return gemm_workspace_bytes(&g, context, threads);
}

i64 expert_linear_dw_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = dw_gemm(t, 0, 0, t->in[0]->dim[0]);
    return gemm_workspace_bytes_up_to(&g, context, threads);
}
