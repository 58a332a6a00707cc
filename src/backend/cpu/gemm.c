/* backend/cpu/gemm.c - which panel meets which, when, on which thread.
 *
 * B is cut into *slabs*, small enough that the panels of two stay in L3. A thread takes a
 * *strip* of C's rows, packs the rows of A that the strip needs for itself, and multiplies
 * them with the slab, tile by tile of nc columns, so that the tile of C stays in its cache
 * while the sums go through the blocks of k. Between strips, threads pack the next slab in
 * small parts: one waits for memory while the other multiplies. Strips become lower towards
 * the end of a slab, so that threads finish together.
 *
 * Workspace: panels of two slabs of B | partial sums of a bf16 C | per thread: panels of A,
 * sums of a tile. Panels lie block by block of k: within block b (kc deep) of an operand,
 * panel p begins p x width x steps(b) words after the block, so tiles read forward. */
#include "backend/cpu/gemm.h"

#include "base/pool.h"

enum {
    PANEL_BYTES = 8 << 20, /* panels of a slab of B; two of them in an L3 of 8 MiB or more */
    K_SLAB = 1536,         /* a longer K goes through C, or partial sums, between slabs */
    PACK_COLUMNS = 120,    /* columns of B that one part packs */
    LEAST_PANELS = 8,      /* of A in a strip: 8 uses of a panel of B pay for its trip */
};

/* How a product is cut, and where things lie in the workspace. */
struct plan {
    const struct gemm_kernels *k;
    i64 N, K;      /* extents of a full slab */
    bool partials; /* a bf16 C that takes more than one slab in k */
    i64 panel_bytes, partial_at, thread_at, thread_sum_at, thread_bytes, bytes;
};

/* Columns [n0, n0 + N) of B, k from k0 on. */
struct slab {
    i64 n0, k0, N, K, blocks; /* blocks of k; 0: there is no such slab */
    u32 *panels;
};

struct work {
    const struct gemm *g;
    struct plan plan;
    u8 *space;
    struct slab slab, next;         /* being multiplied, being packed */
    i64 threads, columns, ranges;   /* a part is a strip times one range of columns */
    i64 strip_parts, pack_parts;
};

/* Rows [m, m + rows) of C, columns [n, n + cols) of the slab. Sums build up in `sum`: C itself
 * where C is f32, else f32 scratch in whole micro tiles. */
struct tile {
    i64 m, n, rows, cols;
    float *sum;
    i64 sum_stride;
    bool starts, adds, ends; /* this block: start values first; onto sums; completes them */
    i64 steps;
    const u32 *a, *b, *next; /* panels of this block; what of B is needed after it */
};

/* --- plan --------------------------------------------------------------------------- */

/* n cut into equal parts of at most `most`, each a multiple of grain. */
static i64 even_part(i64 n, i64 most, i64 grain)
{
    i64 parts = ceil_div(i64_max(n, 1), i64_max(most / grain * grain, grain));
    return i64_max(1, i64_min(n, round_up(ceil_div(n, parts), grain)));
}

static struct plan plan_product(const struct gemm *g, const struct gemm_kernels *kernels,
                                int threads)
{
    const struct gemm_kernels *k = gemm_kernels_for(kernels, g->A.type, g->B.type);
    struct plan p = { .k = k, .K = even_part(g->K, K_SLAB * k->per_step, k->kc) };
    i64 words = gemm_steps(k, p.K);
    p.N = even_part(g->N, PANEL_BYTES / 4 / words, k->nr);
    p.partials = g->C.type == DTYPE_BF16 && p.K < g->K;

    p.panel_bytes = round_up(4 * round_up(p.N, k->nr) * words, 4096);
    p.partial_at = p.panel_bytes * (p.N < g->N || p.K < g->K ? 2 : 1);
    p.thread_at = p.partial_at;
    if (p.partials)
        p.thread_at += round_up(4 * round_up(g->M, k->mr) * round_up(p.N, k->nr), 4096);
    p.thread_sum_at = round_up(4 * k->mc * words, 4096);
    p.thread_bytes = p.thread_sum_at + round_up(4 * k->mc * k->nc, 4096);
    p.bytes = p.thread_at + p.thread_bytes * threads;
    return p;
}

i64 gemm_workspace_bytes(const struct gemm *g, const struct gemm_kernels *k, int threads)
{
    return plan_product(g, k, threads).bytes;
}

/* The slab after s, in the other half of the panels; k goes fastest. */
static struct slab slab_after(const struct work *w, const struct slab *s)
{
    const struct plan *p = &w->plan;
    struct slab next = *s;
    next.k0 += p->K;
    if (next.k0 >= i64_max(w->g->K, 1)) {
        next.k0 = 0;
        next.n0 += p->N;
    }
    next.N = i64_min(p->N, w->g->N - next.n0);
    next.K = i64_min(p->K, w->g->K - next.k0);
    next.blocks = next.N > 0 ? i64_max(1, ceil_div(next.K, p->k->kc)) : 0;
    next.panels = (u32 *)(s->panels == (u32 *)w->space ? w->space + p->panel_bytes : w->space);
    return next;
}

/* --- packing ------------------------------------------------------------------------ */

static const void *element(const struct gemm_matrix *m, i64 r, i64 c)
{
    return (const u8 *)m->data +
           (r * m->row_stride + c * m->col_stride) * dtype_bytes(m->type);
}

static i64 block_depth(const struct work *w, const struct slab *s, i64 block)
{
    i64 kc = w->plan.k->kc;
    return i64_min(kc, s->K - block * kc);
}

/* Words of an operand's panels before block b; extent: its rows or columns there. */
static i64 words_before(const struct work *w, i64 extent, i64 width, i64 block)
{
    return round_up(extent, width) * gemm_steps(w->plan.k, block * w->plan.k->kc);
}

static u32 *thread_panels(const struct work *w, int thread)
{
    return (u32 *)(w->space + w->plan.thread_at + w->plan.thread_bytes * thread);
}

static i64 pack_columns(const struct work *w)
{
    return round_up(PACK_COLUMNS, w->plan.k->nr);
}

static void pack_b(const struct work *w, const struct slab *b, i64 part)
{
    const struct gemm_kernels *k = w->plan.k;
    const struct gemm_matrix *B = &w->g->B;
    i64 block = part % b->blocks, first = part / b->blocks * pack_columns(w);
    struct gemm_slab s = {
        .data = element(B, b->k0 + block * k->kc, b->n0 + first),
        .type = B->type,
        .row_stride = B->col_stride,
        .k_stride = B->row_stride,
        .rows = i64_min(pack_columns(w), b->N - first),
        .k = block_depth(w, b, block),
    };
    u32 *panels = b->panels + words_before(w, b->N, k->nr, block);
    k->pack(panels + first * gemm_steps(k, s.k), &s, k->nr);
}

/* row_sum (+)= this block's sums of the strip's rows. */
static void add_row_sums(const struct work *w, const struct gemm_slab *s, i64 m, i64 block)
{
    enum { ROWS = 64 };
    float sums[ROWS], *out = w->g->row_sum + m;
    bool add = w->g->accumulate || w->slab.k0 > 0 || block > 0;
    struct gemm_slab part = *s;
    for (i64 r0 = 0; r0 < s->rows; r0 += ROWS) {
        part.data = (const u8 *)s->data + r0 * s->row_stride * dtype_bytes(s->type);
        part.rows = i64_min(ROWS, s->rows - r0);
        w->plan.k->sum_rows(sums, &part);
        for (i64 r = 0; r < part.rows; r++)
            out[r0 + r] = (add ? out[r0 + r] : 0) + sums[r];
    }
}

static void pack_a(const struct work *w, const struct tile *t, i64 block, u32 *panels)
{
    const struct gemm_kernels *k = w->plan.k;
    const struct gemm_matrix *A = &w->g->A;
    struct gemm_slab s = {
        .data = element(A, t->m, w->slab.k0 + block * k->kc),
        .type = A->type,
        .row_stride = A->row_stride,
        .k_stride = A->col_stride,
        .rows = t->rows,
        .k = block_depth(w, &w->slab, block),
    };
    k->pack(panels, &s, k->mr);
    if (w->g->row_sum && w->slab.n0 + t->n == 0)
        add_row_sums(w, &s, t->m, block);
}

/* --- multiplying -------------------------------------------------------------------- */

static void start_sums(const struct work *w, const struct tile *t, float *sum, i64 i, i64 j,
                       i64 rows, i64 cols)
{
    const struct gemm *g = w->g;
    const struct gemm_matrix *from = g->accumulate ? &g->C : &g->residual;
    i64 m = t->m + i, n = w->slab.n0 + t->n + j;
    struct gemm_start s = { .from_type = from->type, .from_stride = from->row_stride,
                            .bias = g->bias ? g->bias + n : NULL };
    if (from->data)
        s.from = element(from, m, n);
    w->plan.k->start(sum, t->sum_stride, &s, rows, cols);
}

/* A micro tile that C does not hold whole: through scratch. */
static void multiply_edge(const struct gemm_kernels *k, const struct tile *t, const u32 *a,
                          const u32 *b, float *sum, i64 rows, i64 cols, bool add)
{
    _Alignas(64) float edge[GEMM_MICRO_MAX];
    k->micro(t->steps, a, b, edge, k->nr, false, b);
    k->finish(sum, DTYPE_F32, t->sum_stride, edge, k->nr, rows, cols, add);
}

/* Micro tile (i, j) of the tile, whatever is special about it. */
static void multiply_special(const struct work *w, const struct tile *t, i64 i, i64 j,
                             const u32 *ahead)
{
    const struct gemm *g = w->g;
    const struct gemm_kernels *k = w->plan.k;
    i64 rows = i64_min(k->mr, t->rows - i), cols = i64_min(k->nr, t->cols - j);
    const u32 *a = t->a + i * t->steps, *b = t->b + j * t->steps;
    float *sum = t->sum + i * t->sum_stride + j;

    if (t->starts)
        start_sums(w, t, sum, i, j, rows, cols);
    if (g->C.type == DTYPE_F32 && (rows < k->mr || cols < k->nr))
        multiply_edge(k, t, a, b, sum, rows, cols, t->adds);
    else
        k->micro(t->steps, a, b, sum, t->sum_stride, t->adds, ahead);
    if (t->ends && g->C.type != DTYPE_F32)
        k->finish((void *)element(&g->C, t->m + i, w->slab.n0 + t->n + j), g->C.type,
                  g->C.row_stride, sum, t->sum_stride, rows, cols, false);
}

static void multiply_block(const struct work *w, const struct tile *t)
{
    const struct gemm_kernels *k = w->plan.k;
    const i64 ahead = gemm_ahead_words(k, t->steps);
    bool special = t->starts || (t->ends && w->g->C.type != DTYPE_F32);
    for (i64 j = 0; j < t->cols; j += k->nr) {
        i64 plain = special || j + k->nr > t->cols ? 0 : t->rows / k->mr * k->mr;
        const u32 *b = t->b + j * t->steps;
        const u32 *next = j + k->nr < t->cols ? b + k->nr * t->steps : t->next;
        for (i64 i = 0; i < t->rows; i += k->mr, next += ahead) {
            if (i < plain)
                k->micro(t->steps, t->a + i * t->steps, b, t->sum + i * t->sum_stride + j,
                         t->sum_stride, t->adds, next);
            else
                multiply_special(w, t, i, j, next);
        }
    }
}

static void place_sums(const struct work *w, struct tile *t, int thread)
{
    const struct gemm_matrix *C = &w->g->C;
    const struct plan *p = &w->plan;
    if (C->type == DTYPE_F32) {
        t->sum_stride = C->row_stride;
        t->sum = (float *)element(C, t->m, w->slab.n0 + t->n);
    } else if (p->partials) {
        t->sum_stride = round_up(w->slab.N, p->k->nr);
        t->sum = (float *)(w->space + p->partial_at) + t->m * t->sum_stride + t->n;
    } else {
        t->sum_stride = p->k->nc;
        t->sum = (float *)((u8 *)thread_panels(w, thread) + p->thread_sum_at);
    }
}

/* What the sums of this block are added to. */
static void set_block(const struct work *w, struct tile *t, i64 block)
{
    const struct gemm *g = w->g;
    bool first = w->slab.k0 == 0 && block == 0, f32 = g->C.type == DTYPE_F32;
    bool in_place = f32 && !g->bias &&
                    (g->accumulate || (g->residual.data && g->residual.data == g->C.data &&
                                       g->residual.row_stride == g->C.row_stride));
    t->starts = first && !in_place && (g->accumulate || g->residual.data || g->bias);
    t->adds = !first || t->starts || in_place;
    t->ends = w->slab.k0 + w->slab.K == g->K && block == w->slab.blocks - 1;
    t->steps = gemm_steps(w->plan.k, block_depth(w, &w->slab, block));
}

/* Strips are mc rows high while there are many, then an even share of half of what is left,
 * as far as whole panels go. */
static i64 strip_rows(const struct work *w, i64 m)
{
    const struct gemm_kernels *k = w->plan.k;
    i64 left = ceil_div(w->g->M - m, k->mr), most = k->mc / k->mr;
    i64 share = w->threads == 1 ? most : left / (2 * w->threads);
    i64 panels = i64_min(most, i64_max(LEAST_PANELS, share));
    return i64_min(panels * k->mr, w->g->M - m);
}

static i64 strip_count(const struct work *w)
{
    i64 strips = 0;
    for (i64 m = 0; m < w->g->M; m += strip_rows(w, m))
        strips++;
    return strips;
}

/* Where the panels of a block of the slab begin for column n, a multiple of nr. */
static const u32 *panels_at(const struct work *w, i64 block, i64 n)
{
    const struct slab *s = &w->slab;
    return s->panels + words_before(w, s->N, w->plan.k->nr, block) +
           n * gemm_steps(w->plan.k, block_depth(w, s, block));
}

static void multiply_strip(const struct work *w, i64 part, int thread)
{
    const struct gemm_kernels *k = w->plan.k;
    i64 begin = part % w->ranges * w->columns, end = i64_min(w->slab.N, begin + w->columns);
    struct tile t = { .m = 0 };
    for (i64 strip = part / w->ranges; strip > 0; strip--)
        t.m += strip_rows(w, t.m);
    t.rows = strip_rows(w, t.m);

    for (t.n = begin; t.n < end; t.n += k->nc) {
        t.cols = i64_min(k->nc, end - t.n);
        place_sums(w, &t, thread);
        for (i64 block = 0; block < w->slab.blocks; block++) {
            u32 *a = thread_panels(w, thread) + words_before(w, t.rows, k->mr, block);
            if (t.n == begin)
                pack_a(w, &t, block, a);
            set_block(w, &t, block);
            t.a = a;
            t.b = panels_at(w, block, t.n);
            t.next = block + 1 < w->slab.blocks ? panels_at(w, block + 1, t.n)
                                                : panels_at(w, 0, t.n + t.cols);
            multiply_block(w, &t);
        }
    }
}

/* Packing parts lie evenly between the strips. */
static void run_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    i64 parts = w->strip_parts + w->pack_parts;
    i64 strips = part * w->strip_parts / parts;
    if ((part + 1) * w->strip_parts / parts > strips)
        multiply_strip(w, strips, thread);
    else
        pack_b(w, &w->next, part - strips);
}

static i64 count_pack_parts(const struct work *w, const struct slab *s)
{
    return s->blocks > 0 ? ceil_div(s->N, pack_columns(w)) * s->blocks : 0;
}

/* Multiplies w->slab (if any) and packs w->next (if any). Few rows leave few strips: then
 * their columns are shared out as well. */
static void run_slab(struct work *w, struct pool *pool)
{
    w->strip_parts = 0;
    if (w->slab.blocks > 0) {
        i64 strips = strip_count(w), wanted = w->threads == 1 ? 1 : 4 * w->threads;
        i64 range = ceil_div(w->slab.N, ceil_div(wanted, strips));
        w->columns = even_part(w->slab.N, range, w->plan.k->nr);
        w->ranges = ceil_div(w->slab.N, w->columns);
        w->strip_parts = strips * w->ranges;
    }
    w->pack_parts = count_pack_parts(w, &w->next);
    pool_run(pool, w->strip_parts + w->pack_parts, run_part, w);
}

/* --- entry -------------------------------------------------------------------------- */

static void check(const struct gemm *g)
{
    assert(g->M >= 0 && g->N >= 0 && g->K >= 0);
    assert(g->A.row_stride == 1 || g->A.col_stride == 1);
    assert(g->B.row_stride == 1 || g->B.col_stride == 1);
    assert(g->C.col_stride == 1);
    assert(!g->residual.data ||
           (!g->accumulate && g->residual.type == g->C.type && g->residual.col_stride == 1));
    (void)g;
}

void gemm_run(const struct gemm *g, const struct gemm_kernels *k, struct pool *pool,
              void *workspace)
{
    check(g);
    struct work w = { .g = g, .space = workspace, .threads = pool_threads(pool),
                      .plan = plan_product(g, k, pool_threads(pool)) };
    const struct slab before_first = { .k0 = -w.plan.K };
    if (g->M == 0 || g->N == 0)
        return;
    w.next = slab_after(&w, &before_first);
    w.next.panels = (u32 *)workspace;
    while (w.next.blocks > 0) {
        run_slab(&w, pool);
        w.slab = w.next;
        w.next = slab_after(&w, &w.slab);
    }
    run_slab(&w, pool);
}
