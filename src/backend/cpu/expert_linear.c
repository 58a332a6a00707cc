#include "backend/cpu/expert_linear.h"

#include "base/pool.h"
#include "ops/ops.h"

#include <string.h>

enum { SUMS_PER_PART = 16384 };

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

/* Leaves of a sum over K terms that ranks along tp share. */
static struct gemm_leaves split_of(const struct task *t, i64 K)
{
    struct gemm_leaves l = { .count = (i64)t->attr[EXPERT_SPLIT] };
    const i64 pieces = i64_max(1, (i64)t->attr[EXPERT_PIECES]);
    for (i64 p = 0; p < pieces && l.count > 0; p++) {
        l.pieces[p].k = K / pieces;
        l.pieces[p].share = K / pieces / l.count;
    }
    return l;
}

/* n rows from `row` on, of expert e. */
static struct gemm y_gemm(const struct task *t, i64 e, i64 row, i64 n)
{
    i64 N = t->out[0]->dim[1];
    return (struct gemm){ .M = n, .N = N, .K = t->in[0]->dim[1], .A = rows_of(t->in[0], row),
                          .leaves = split_of(t, t->in[0]->dim[1]),
                          .B = transposed(rows_of(t->in[1], e * N)),
                          .C = rows_of(t->out[0], row) };
}

static struct gemm dx_gemm(const struct task *t, i64 e, i64 row, i64 n)
{
    i64 N = t->in[0]->dim[1];
    return (struct gemm){ .M = n, .N = t->in[1]->dim[1], .K = N, .A = rows_of(t->in[0], row),
                          .leaves = split_of(t, N),
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

/* Of each expert, in begin. */
static i64 leaves_of(const struct task *t)
{
    return i64_max(1, (i64)t->attr[EXPERT_LEAVES]);
}

static i64 experts_of(const struct task *t)
{
    return (t->in[2]->dim[0] - 1) / leaves_of(t);
}

/* Expert by expert, each over all threads: their numbers of rows differ too much to share them
 * out whole. */
static void run_experts(const struct task *t, struct run *x, gemm_of product)
{
    const i32 *begin = t->in[2]->data;
    const i64 L = leaves_of(t);
    for (i64 e = 0; e < experts_of(t); e++) {
        struct gemm g = product(t, e, begin[e * L], begin[(e + 1) * L] - begin[e * L]);
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
    run_experts(t, x, y_gemm);
    zero_unused(t);
}

void expert_linear_dx_run(const struct task *t, struct run *x)
{
    run_experts(t, x, dx_gemm);
    zero_unused(t);
}

/* --- sums over rows, as a tree of leaves -------------------------------------------- */

/* Leaves that one chain goes through: the odd part of their number. */
static i64 chain_leaves(const struct task *t)
{
    i64 n = leaves_of(t);
    while (n % 2 == 0)
        n /= 2;
    return n;
}

/* Floats of an expert's matrix. */
static i64 matrix_floats(const struct task *t)
{
    return round_up(t->in[0]->dim[1] * t->in[1]->dim[1], 16);
}

/* Matrices in the workspace: one in the making, and a subtree of 2^l chains in slot l. */
static i64 slots_of(const struct task *t)
{
    i64 slots = 0;
    for (i64 chains = leaves_of(t) / chain_leaves(t); chains > 1; chains /= 2)
        slots++;
    return slots > 0 ? slots + 1 : 0;
}

struct addition {
    float *to;
    const float *from;
    i64 n;
};

static void add_part(void *context, i64 part, int thread)
{
    const struct addition *a = context;
    const i64 end = i64_min(a->n, (part + 1) * SUMS_PER_PART);
    (void)thread;
    for (i64 i = part * SUMS_PER_PART; i < end; i++)
        a->to[i] += a->from[i];
}

static void add_matrix(const struct task *t, struct run *x, float *to, const float *from)
{
    struct addition a = { to, from, t->in[0]->dim[1] * t->in[1]->dim[1] };
    pool_run(x->pool, ceil_div(a.n, SUMS_PER_PART), add_part, &a);
}

/* dw_e = the tree over its chains, counted in like a binary number. */
static void run_tree(const struct task *t, struct run *x, i64 e, void *space)
{
    const i64 each = chain_leaves(t), chains = leaves_of(t) / each, size = matrix_floats(t);
    const i32 *begin = (const i32 *)t->in[2]->data + e * leaves_of(t);
    float *slot = x->workspace, *now = slot + (slots_of(t) - 1) * size;
    const bool keep = run_accumulates(t, x);
    for (i64 i = 0; i < chains; i++) {
        struct gemm g = dw_gemm(t, e, begin[i * each], begin[(i + 1) * each] - begin[i * each]);
        float *dw = g.C.data;
        i64 level = 0;
        if (i < chains - 1 || keep)
            g.C.data = now;
        gemm_run(&g, x->context, x->pool, space);
        for (; i >> level & 1; level++)
            add_matrix(t, x, g.C.data, slot + level * size);
        if (i < chains - 1)
            memcpy(slot + level * size, now, (size_t)size * sizeof *now);
        else if (keep)
            add_matrix(t, x, dw, now);
    }
}

void expert_linear_dw_run(const struct task *t, struct run *x)
{
    const i32 *begin = t->in[2]->data;
    const i64 L = leaves_of(t);
    void *space = (float *)x->workspace + slots_of(t) * matrix_floats(t);
    for (i64 e = 0; e < experts_of(t); e++) {
        if (slots_of(t) > 0) {
            run_tree(t, x, e, space);
            continue;
        }
        struct gemm g = dw_gemm(t, e, begin[e * L], begin[(e + 1) * L] - begin[e * L]);
        g.accumulate = run_accumulates(t, x);
        gemm_run(&g, x->context, x->pool, space);
    }
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
    return slots_of(t) * matrix_floats(t) * (i64)sizeof(float) +
           gemm_workspace_bytes_up_to(&g, context, threads);
}
