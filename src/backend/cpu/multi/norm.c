/* RMS norm and layer norm, and their gradients, over rows of C channels. */
#include "backend/cpu/norm_rows.h"

/* --- forward ------------------------------------------------------------------------ */

INLINE void norm_rows(bool half, bool centred, const struct task *t, struct range rows)
{
    const struct tensor *x = t->in[0], *bias = centred ? t->in[2] : NULL;
    float *means = centred ? t->out[1]->data : NULL, *rstds = t->out[centred ? 2 : 1]->data;
    const i64 C = tensor_columns(x);
    for (i64 r = rows.begin; r < rows.end; r++) {
        const void *row = vec_at(half, x->data, r * C);
        float mean = centred ? row_mean(half, row, C) : 0;
        float rstd = row_rstd(half, centred, row, mean, C, t->attr[NORM_EPS]);
        norm_row(half, vec_at(half, t->out[0]->data, r * C), row, mean, rstd, t->in[1]->data,
                 bias ? bias->data : NULL, C);
        if (centred)
            means[r] = mean;
        rstds[r] = rstd;
    }
}

static void rmsnorm_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        norm_rows(true, false, w->t, work_range(w, part));
    else
        norm_rows(false, false, w->t, work_range(w, part));
}

static void layernorm_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[0]->dtype))
        norm_rows(true, true, w->t, work_range(w, part));
    else
        norm_rows(false, true, w->t, work_range(w, part));
}

void NAMED(rmsnorm)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->in[0])), rmsnorm_part);
}

void NAMED(layernorm)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_rows(t->in[0]), rows_per_part(tensor_columns(t->in[0])),
             layernorm_part);
}

/* --- gradient: a part is a block of rows with its own sums -------------------------- */

/* Workspace: dgain [blocks][C], dbias [blocks][C]. */
INLINE void grad_rows(bool half, bool centred, const struct work *w, i64 block)
{
    const struct task *t = w->t;
    const struct tensor *x = t->in[1], *addend = t->in[centred ? 5 : 4];
    const float *means = centred ? t->in[3]->data : NULL;
    const float *rstds = t->in[centred ? 4 : 3]->data;
    const i64 C = tensor_columns(x), blocks = ceil_div(w->items, w->per_part);
    const bool grouped = t->out[1]->rank == 2;
    float *partial = (float *)(grouped ? t->out[1]->data : w->x->workspace) + block * C;
    struct norm_row_grad a = { .gain = t->in[2]->data, .dgain = partial };
    if (centred && t->out[2])
        a.dbias = grouped ? (float *)t->out[2]->data + block * C : partial + blocks * C;
    if (!grouped || !run_accumulates(t, w->x)) {
        memset(a.dgain, 0, (size_t)C * sizeof(float));
        if (a.dbias)
            memset(a.dbias, 0, (size_t)C * sizeof(float));
    }
    struct range rows = work_range(w, block);
    for (i64 r = rows.begin; r < rows.end; r++) {
        a.dy = vec_at(half, t->in[0]->data, r * C);
        a.x = vec_at(half, x->data, r * C);
        a.addend = addend ? vec_at(half, addend->data, r * C) : NULL;
        a.dx = vec_at(half, t->out[0]->data, r * C);
        a.mean = centred ? means[r] : 0;
        a.rstd = rstds[r];
        norm_row_grad(half, centred, &a, C);
    }
}

static void rmsnorm_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[1]->dtype))
        grad_rows(true, false, w, block);
    else
        grad_rows(false, false, w, block);
}

static void layernorm_block(void *context, i64 block, int thread)
{
    const struct work *w = context;
    (void)thread;
    if (is_half(w->t->in[1]->dtype))
        grad_rows(true, true, w, block);
    else
        grad_rows(false, true, w, block);
}

static void sum_columns(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const i64 C = w->items, R = tensor_rows(w->t->in[1]);
    const i64 blocks = ceil_div(R, rows_per_block(R));
    const bool keep = run_accumulates(w->t, w->x);
    float *partial = w->x->workspace;
    struct range c = work_range(w, part);
    (void)thread;
    norm_sum_blocks(w->t->out[1]->data, partial, blocks, C, c.begin, c.end, keep);
    if (w->t->out[2])
        norm_sum_blocks(w->t->out[2]->data, partial + blocks * C, blocks, C, c.begin, c.end,
                        keep);
}

/* Sums of groups of rows: each is a block's. */
static void norm_grad_groups(const struct task *t, struct run *x, pool_fn block)
{
    const i64 R = tensor_rows(t->in[1]);
    work_run(t, x, R, R / t->out[1]->dim[0], block);
}

static void norm_grad(const struct task *t, struct run *x, pool_fn block)
{
    const i64 R = tensor_rows(t->in[1]), C = tensor_columns(t->in[1]);
    if (t->out[1]->rank == 2) {
        norm_grad_groups(t, x, block);
        return;
    }
    work_run(t, x, R, rows_per_block(R), block);
    work_run(t, x, C, 64, sum_columns);
}

static i64 norm_grad_bytes(const struct task *t)
{
    const i64 R = tensor_rows(t->in[1]), C = tensor_columns(t->in[1]);
    return 2 * ceil_div(R, rows_per_block(R)) * C * (i64)sizeof(float);
}

void NAMED(rmsnorm_grad)(const struct task *t, struct run *x)
{
    norm_grad(t, x, rmsnorm_block);
}

void NAMED(layernorm_grad)(const struct task *t, struct run *x)
{
    norm_grad(t, x, layernorm_block);
}

i64 NAMED(rmsnorm_grad_workspace)(const struct task *t, int threads, const void *context)
{
    (void)threads;
    (void)context;
    return norm_grad_bytes(t);
}

i64 NAMED(layernorm_grad_workspace)(const struct task *t, int threads, const void *context)
{
    (void)threads;
    (void)context;
    return norm_grad_bytes(t);
}
