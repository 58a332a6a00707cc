/* Muon: momentum, then Newton-Schulz steps that make the update's singular values about 1.
 *
 * A block U (n,k) is scaled to Frobenius norm 1, X = U / |U|, and then stepped
 *   X <- a X + b (X X^T) X + c (X X^T)^2 X,   (a, b, c) = (3.4445, -4.7750, 2.0315).
 * With S = X X^T the step is X <- (S (c S + b I) + a I) X: three products, two of them
 * small. A tall block (n > k) takes S = X^T X and multiplies from the right. */
#include "backend/cpu/gemm.h"
#include "backend/cpu/kernels.h"


static const float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
enum { MUON_BLOCKS = 3, MUON_NORM_BLOCK = 65536 };

/* One block's matrices; s = min(n, k). All in the workspace. */
struct muon_block {
    i64 row, n, k, s;
    float *x, *next, *gram, *poly; /* (n,k) (n,k) (s,s) (s,s) */
    double *squares;               /* per block of elements of x */
    void *rest;                    /* for the matrix products */
    float inv_norm, step;          /* step: lr * 0.2 sqrt(max(n, k)) */
};

struct muon_work {
    struct work w; /* first: pool functions see it as struct work */
    struct muon_block b;
};

/* Rows of the i-th block; 0 when there is none. */
static i64 block_rows(const struct task *t, int i)
{
    const i64 first = (i64)t->attr[MUON_ROWS0];
    if (first == 0)
        return i == 0 ? t->in[0]->dim[0] : 0;
    return i < MUON_BLOCKS ? (i64)t->attr[MUON_ROWS0 + i] : 0;
}

static struct gemm_matrix matrix(float *data, i64 columns, bool transposed)
{
    return (struct gemm_matrix){ data, DTYPE_F32, transposed ? 1 : columns,
                                 transposed ? columns : 1 };
}

static struct gemm gram_gemm(const struct muon_block *b)
{
    const bool wide = b->n <= b->k;
    return (struct gemm){ .M = b->s, .N = b->s, .K = wide ? b->k : b->n,
                          .A = matrix(b->x, b->k, !wide), .B = matrix(b->x, b->k, wide),
                          .C = matrix(b->gram, b->s, false) };
}

static struct gemm poly_gemm(const struct muon_block *b)
{
    return (struct gemm){ .M = b->s, .N = b->s, .K = b->s, .A = matrix(b->gram, b->s, false),
                          .B = matrix(b->next, b->s, false), .C = matrix(b->poly, b->s, false) };
}

static struct gemm step_gemm(const struct muon_block *b)
{
    struct gemm g = { .M = b->n, .N = b->k, .K = b->s, .C = matrix(b->next, b->k, false) };
    const bool wide = b->n <= b->k;
    g.A = wide ? matrix(b->poly, b->s, false) : matrix(b->x, b->k, false);
    g.B = wide ? matrix(b->x, b->k, false) : matrix(b->poly, b->s, false);
    return g;
}

/* --- elementwise parts -------------------------------------------------------------------- */

/* m = mu m + scale g; x = nesterov ? scale g + mu m : m; squares of x per block. */
static void momentum_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    const struct task *t = mw->w.t;
    const struct muon_block *b = &mw->b;
    const float *g = (const float *)t->in[0]->data + b->row * b->k;
    const float scale = *(const float *)t->in[1]->data, mu = (float)t->attr[MUON_MU];
    float *m = (float *)t->out[1]->data + b->row * b->k;
    const bool nesterov = t->attr[MUON_NESTEROV] != 0;
    struct range r = work_range(&mw->w, part);
    double squares = 0;
    (void)thread;
    for (i64 i = r.begin; i < r.end; i++) {
        m[i] = mu * m[i] + scale * g[i];
        b->x[i] = nesterov ? scale * g[i] + mu * m[i] : m[i];
        squares += (double)b->x[i] * (double)b->x[i];
    }
    b->squares[part] = squares;
}

static void normalise_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    struct range r = work_range(&mw->w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i++)
        mw->b.x[i] *= mw->b.inv_norm;
}

/* next = c S + b I, by rows. */
static void shift_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    const struct muon_block *b = &mw->b;
    struct range rows = work_range(&mw->w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        for (i64 c = 0; c < b->s; c++)
            b->next[r * b->s + c] = NS_C * b->gram[r * b->s + c];
        b->next[r * b->s + r] += NS_B;
    }
}

static void update_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    const struct task *t = mw->w.t;
    const struct muon_block *b = &mw->b;
    const float keep = 1 - ((const float *)t->in[2]->data)[HYPER_MUON_LR] *
                               (float)t->attr[MUON_DECAY];
    float *p = (float *)t->out[0]->data + b->row * b->k;
    bf16 *copy = t->out[2] ? (bf16 *)t->out[2]->data + b->row * b->k : NULL;
    struct range r = work_range(&mw->w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i++)
        p[i] = p[i] * keep - b->step * b->x[i];
    for (i64 i = r.begin; copy && i < r.end; i++)
        copy[i] = bf16_from_f32(p[i]);
}

/* --- one block ------------------------------------------------------------------------------ */

static void run_parts(struct muon_work *mw, i64 items, i64 per_part, pool_fn fn)
{
    mw->w.items = items;
    mw->w.per_part = per_part;
    pool_run(mw->w.x->pool, ceil_div(items, per_part), fn, mw);
}

static void newton_schulz(struct muon_work *mw)
{
    struct muon_block *b = &mw->b;
    const struct gemm_kernels *k = mw->w.x->context;
    struct pool *pool = mw->w.x->pool;
    struct gemm gram = gram_gemm(b), poly = poly_gemm(b), step = step_gemm(b);
    gemm_run(&gram, k, pool, b->rest);
    run_parts(mw, b->s, rows_per_part(b->s), shift_part);
    gemm_run(&poly, k, pool, b->rest);
    for (i64 i = 0; i < b->s; i++)
        b->poly[i * b->s + i] += NS_A;
    gemm_run(&step, k, pool, b->rest);
    float *x = b->x;
    b->x = b->next;
    b->next = x;
}

static void muon_block(struct muon_work *mw)
{
    struct muon_block *b = &mw->b;
    const struct task *t = mw->w.t;
    const i64 elements = b->n * b->k, parts = ceil_div(elements, MUON_NORM_BLOCK);
    double squares = 0;
    run_parts(mw, elements, MUON_NORM_BLOCK, momentum_part);
    for (i64 i = 0; i < parts; i++)
        squares += b->squares[i];
    b->inv_norm = (float)(1 / (sqrt(squares) + 1e-7)); /* 1e-7: as in Jordan's code */
    run_parts(mw, elements, ELEMENTS_PER_PART, normalise_part);
    for (int i = 0; i < (int)t->attr[MUON_STEPS]; i++)
        newton_schulz(mw);
    b->step = ((const float *)t->in[2]->data)[HYPER_MUON_LR] *
              (float)(0.2 * sqrt((double)i64_max(b->n, b->k)));
    run_parts(mw, elements, ELEMENTS_PER_PART, update_part);
}

/* --- workspace ------------------------------------------------------------------------------ */

/* Bytes up to b->rest, 64-byte pieces; places the pieces when base is not NULL. */
static i64 layout(struct muon_block *b, char *base)
{
    const i64 matrix_bytes = round_up(b->n * b->k * 4, 64);
    const i64 square_bytes = round_up(b->s * b->s * 4, 64);
    const i64 sums_bytes = round_up(ceil_div(b->n * b->k, MUON_NORM_BLOCK) * 8, 64);
    if (base) {
        b->x = (float *)base;
        b->next = (float *)(base + matrix_bytes);
        b->gram = (float *)(base + 2 * matrix_bytes);
        b->poly = (float *)(base + 2 * matrix_bytes + square_bytes);
        b->squares = (double *)(base + 2 * matrix_bytes + 2 * square_bytes);
        b->rest = base + 2 * matrix_bytes + 2 * square_bytes + sums_bytes;
    }
    return 2 * matrix_bytes + 2 * square_bytes + sums_bytes;
}

static struct muon_block block_of(const struct task *t, i64 row, i64 rows)
{
    const i64 k = t->in[0]->dim[1];
    return (struct muon_block){ .row = row, .n = rows, .k = k, .s = i64_min(rows, k) };
}

void NAMED(muon)(const struct task *t, struct run *x)
{
    for (i64 row = 0; row < t->in[0]->dim[0];) { /* the same blocks for every expert */
        for (int i = 0; block_rows(t, i) > 0; i++) {
            struct muon_work mw = { .w = { .t = t, .x = x },
                                    .b = block_of(t, row, block_rows(t, i)) };
            layout(&mw.b, x->workspace);
            muon_block(&mw);
            row += block_rows(t, i);
        }
    }
}

i64 NAMED(muon_workspace)(const struct task *t, int threads, const void *context)
{
    i64 most = 0;
    for (int i = 0; block_rows(t, i) > 0; i++) {
        struct muon_block b = block_of(t, 0, block_rows(t, i));
        struct gemm gram = gram_gemm(&b), poly = poly_gemm(&b), step = step_gemm(&b);
        i64 rest = i64_max(gemm_workspace_bytes(&gram, context, threads),
                           i64_max(gemm_workspace_bytes(&poly, context, threads),
                                   gemm_workspace_bytes(&step, context, threads)));
        most = i64_max(most, layout(&b, NULL) + rest);
    }
    return most;
}
