#include "backend/cpu/linear.h"

#include "ops/ops.h"

/* A row-major matrix as it lies, and its transpose. */
static struct gemm_matrix plain(const struct tensor *t)
{
    return (struct gemm_matrix){ t->data, t->dtype, t->dim[1], 1 };
}

static struct gemm_matrix transposed(const struct tensor *t)
{
    return (struct gemm_matrix){ t->data, t->dtype, 1, t->dim[1] };
}

static struct gemm_leaves leaves_of(const struct task *t)
{
    struct gemm_leaves l = { .count = (i64)t->attr[LINEAR_LEAVES] };
    for (int p = 0; p < GEMM_PIECES && l.count > 0; p++) {
        l.pieces[p].k = (i64)t->attr[LINEAR_PIECES + p];
        l.pieces[p].share = (i64)t->attr[LINEAR_SHARES + p];
    }
    return l;
}

static struct gemm linear_gemm(const struct task *t)
{
    const struct tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2], *residual = t->in[3];
    return (struct gemm){
        .M = x->dim[0], .N = w->dim[0], .K = x->dim[1],
        .leaves = leaves_of(t),
        .A = plain(x), .B = transposed(w), .C = plain(t->out[0]),
        .bias = bias ? bias->data : NULL,
        .residual = residual ? plain(residual) : (struct gemm_matrix){ 0 },
    };
}

static struct gemm linear_dx_gemm(const struct task *t)
{
    const struct tensor *dy = t->in[0], *w = t->in[1], *addend = t->in[2];
    return (struct gemm){
        .M = dy->dim[0], .N = w->dim[1], .K = dy->dim[1],
        .leaves = leaves_of(t),
        .A = plain(dy), .B = plain(w), .C = plain(t->out[0]),
        .residual = addend ? plain(addend) : (struct gemm_matrix){ 0 },
    };
}

static struct gemm linear_dw_gemm(const struct task *t)
{
    const struct tensor *dy = t->in[0], *x = t->in[1], *dbias = t->out[1];
    return (struct gemm){
        .M = dy->dim[1], .N = x->dim[1], .K = dy->dim[0],
        .leaves = leaves_of(t),
        .A = transposed(dy), .B = plain(x), .C = plain(t->out[0]),
        .row_sum = dbias ? dbias->data : NULL,
    };
}

void linear_run(const struct task *t, struct run *x)
{
    struct gemm g = linear_gemm(t);
    gemm_run(&g, x->context, x->pool, x->workspace);
}

void linear_dx_run(const struct task *t, struct run *x)
{
    struct gemm g = linear_dx_gemm(t);
    gemm_run(&g, x->context, x->pool, x->workspace);
}

void linear_dw_run(const struct task *t, struct run *x)
{
    struct gemm g = linear_dw_gemm(t);
    g.accumulate = run_accumulates(t, x);
    gemm_run(&g, x->context, x->pool, x->workspace);
}

i64 linear_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = linear_gemm(t);
    return gemm_workspace_bytes(&g, context, threads);
}

i64 linear_dx_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = linear_dx_gemm(t);
    return gemm_workspace_bytes(&g, context, threads);
}

i64 linear_dw_workspace(const struct task *t, int threads, const void *context)
{
    struct gemm g = linear_dw_gemm(t);
    return gemm_workspace_bytes(&g, context, threads);
}

static const struct gemm_kernels *kernels_of(const char *backend)
{
    struct backend b;
    if (!backend || backend_init(&b, backend) < 0)
        return NULL;
    const struct kernel *k = backend_kernel(&b, &op_linear);
    return k && k->run == linear_run ? k->context : NULL;
}

i64 linear_tile_columns(const char *backend)
{
    const struct gemm_kernels *k = kernels_of(backend);
    return k ? k->nr : 1;
}

i64 linear_cut_columns(const char *backend)
{
    const struct gemm_kernels *k = kernels_of(backend);
    return k ? k->cut : 0;
}
