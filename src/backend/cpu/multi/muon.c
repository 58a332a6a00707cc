/* Muon: momentum, then Newton-Schulz steps that make the update's singular values about 1.
 *
 * A block U (n,k) is scaled to Frobenius norm 1, X = U / |U|, and then stepped
 *   X <- a X + b (X X^T) X + c (X X^T)^2 X,   (a, b, c) = (3.4445, -4.7750, 2.0315).
 * With S = X X^T the step is X <- (S (c S + b I) + a I) X: three products, two of them
 * small. A tall block (n > k) takes S = X^T X and multiplies from the right. */
#include "backend/cpu/gemm.h"
#include "backend/cpu/kernels.h"

#include <string.h>

static const float NS_A = 3.4445f, NS_B = -4.7750f, NS_C = 2.0315f;
enum { MUON_NORM_BLOCK = 65536 };

/* One block's matrices; s = min(n, k). All in the workspace. */
struct muon_block {
    i64 row, n, k, s; /* row: its first of the whole matrix */
    float *x, *next, *gram, *poly; /* (n,k) (n,k) (s,s) (s,s) */
    double *squares;               /* per block of elements of x */
    void *rest;                    /* for the matrix products */
    float factor; /* of x: 1 / |x| before the steps, 0.2 sqrt(max(n, k)) behind them */
};

struct muon_work {
    struct work w; /* first: pool functions see it as struct work */
    struct muon_block b;
};

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

/* --- element by element ------------------------------------------------------------- */

static void momentum_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const float scale = *(const float *)t->in[1]->data, mu = (float)t->attr[MUON_MU];
    const bool nesterov = t->attr[MUON_NESTEROV] != 0;
    struct range r = work_range(w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += VL) {
        vec g = vec_get_n(false, t->in[0]->data, i, r.end - i) * scale;
        vec m = vec_get_n(false, t->out[0]->data, i, r.end - i) * mu + g;
        vec_put_n(false, t->out[0]->data, i, m, r.end - i);
        vec_put_n(false, t->out[1]->data, i, nesterov ? g + m * mu : m, r.end - i);
    }
}

void NAMED(muon_momentum)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, momentum_part);
}

static void step_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const float lr = ((const float *)t->in[1]->data)[HYPER_MUON_LR];
    const float keep = 1 - lr * (float)t->attr[MUON_DECAY];
    struct range r = work_range(w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i += VL) {
        vec p = vec_get_n(false, t->out[0]->data, i, r.end - i) * keep;
        p -= vec_get_n(false, t->in[0]->data, i, r.end - i) * lr;
        vec_put_n(false, t->out[0]->data, i, p, r.end - i);
        if (t->out[1])
            vec_put_n(true, t->out[1]->data, i, p, r.end - i);
    }
}

void NAMED(muon_step)(const struct task *t, struct run *x)
{
    work_run(t, x, tensor_count(t->in[0]), ELEMENTS_PER_PART, step_part);
}

/* --- parts of an orthogonalisation -------------------------------------------------- */

/* Rows of x from the shares that u is made of. */
static void pack_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    const struct muon_block *b = &mw->b;
    const float *u = mw->w.t->in[0]->data;
    const i64 run = mw->w.t->in[0]->dim[1]; /* columns that lie side by side */
    struct range rows = work_range(&mw->w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++)
        for (i64 c = 0; c < b->k; c += run)
            memcpy(b->x + r * b->k + c, u + muon_place(mw->w.t, b->row, b->n, r, c),
                   (size_t)run * sizeof *u);
}

static void unpack_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    const struct muon_block *b = &mw->b;
    float *y = mw->w.t->out[0]->data;
    const i64 run = mw->w.t->in[0]->dim[1];
    struct range rows = work_range(&mw->w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++)
        for (i64 c = 0; c < b->k; c += run) {
            float *to = y + muon_place(mw->w.t, b->row, b->n, r, c);
            for (i64 i = 0; i < run; i++)
                to[i] = b->factor * b->x[r * b->k + c + i];
        }
}

static void squares_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    struct range r = work_range(&mw->w, part);
    double squares = 0;
    (void)thread;
    for (i64 i = r.begin; i < r.end; i++)
        squares += (double)mw->b.x[i] * (double)mw->b.x[i];
    mw->b.squares[part] = squares;
}

static void normalise_part(void *context, i64 part, int thread)
{
    const struct muon_work *mw = context;
    struct range r = work_range(&mw->w, part);
    (void)thread;
    for (i64 i = r.begin; i < r.end; i++)
        mw->b.x[i] *= mw->b.factor;
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

/* --- one block ---------------------------------------------------------------------- */

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

static void orthogonalise(struct muon_work *mw)
{
    struct muon_block *b = &mw->b;
    const i64 elements = b->n * b->k, parts = ceil_div(elements, MUON_NORM_BLOCK);
    double squares = 0;
    run_parts(mw, b->n, rows_per_part(b->k), pack_part);
    run_parts(mw, elements, MUON_NORM_BLOCK, squares_part);
    for (i64 i = 0; i < parts; i++)
        squares += b->squares[i];
    b->factor = (float)(1 / (sqrt(squares) + 1e-7)); /* 1e-7: as in Jordan's code */
    run_parts(mw, elements, ELEMENTS_PER_PART, normalise_part);
    for (int i = 0; i < (int)mw->w.t->attr[MUON_STEPS]; i++)
        newton_schulz(mw);
    b->factor = (float)(0.2 * sqrt((double)i64_max(b->n, b->k)));
    run_parts(mw, b->n, rows_per_part(b->k), unpack_part);
}

/* --- workspace ---------------------------------------------------------------------- */

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
    const i64 k = muon_columns(t);
    return (struct muon_block){ .row = row, .n = rows, .k = k, .s = i64_min(rows, k) };
}

void NAMED(muon_orthogonal)(const struct task *t, struct run *x)
{
    if (t->attr[MUON_ELSEWHERE] != 0) {
        memset(t->out[0]->data, 0, (size_t)tensor_bytes(t->out[0]));
        return;
    }
    const i64 rows = tensor_count(t->in[0]) / muon_columns(t);
    for (i64 row = 0; row < rows;) { /* the same blocks for every expert */
        for (int i = 0; muon_block_rows(t, i) > 0; i++) {
            struct muon_work mw = { .w = { .t = t, .x = x },
                                    .b = block_of(t, row, muon_block_rows(t, i)) };
            layout(&mw.b, x->workspace);
            orthogonalise(&mw);
            row += muon_block_rows(t, i);
        }
    }
}

i64 NAMED(muon_orthogonal_workspace)(const struct task *t, int threads, const void *context)
{
    i64 most = 0;
    for (int i = 0; t->attr[MUON_ELSEWHERE] == 0 && muon_block_rows(t, i) > 0; i++) {
        struct muon_block b = block_of(t, 0, muon_block_rows(t, i));
        struct gemm gram = gram_gemm(&b), poly = poly_gemm(&b), step = step_gemm(&b);
        i64 rest = i64_max(gemm_workspace_bytes(&gram, context, threads),
                           i64_max(gemm_workspace_bytes(&poly, context, threads),
                                   gemm_workspace_bytes(&step, context, threads)));
        most = i64_max(most, layout(&b, NULL) + rest);
    }
    return most;
}
