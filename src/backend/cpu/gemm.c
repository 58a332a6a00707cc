/* backend/cpu/gemm.c - which panel meets which, when, on which thread.
 *
 * C is cut into *slabs* small enough that the packed halves of both operands stay in the
 * workspace (PANEL_BYTES each); a slab's panels are packed by all threads, then its tiles
 * of mc x nc are multiplied by all threads, each tile by one thread through all blocks of
 * k in the slab. Workspace:
 *
 *   panels of A | panels of B | partial sums of a bf16 C | sums of A's rows | per thread
 *
 * Panels of a slab lie block by block: within block b (kc deep) panel p begins at
 * p x width x steps(b) words, so a tile reads both operands forward through memory. */
#include "backend/cpu/gemm.h"

#include "base/pool.h"

enum {
    PANEL_BYTES = 16 << 20,  /* packed A of a slab, and packed B: half of a 32 MiB L3 */
    K_SLAB = 4096,           /* at most; a longer K goes through C, or its partial sums */
    PACK_ROWS = 96,          /* rows of an operand that one part packs */
    TILES_PER_THREAD = 16,   /* at least, where C is large enough: evens out the ends */
};

/* How a product is cut, and where things lie in the workspace. */
struct plan {
    const struct gemm_kernels *k;
    i64 m, n, depth;           /* extents of a full slab */
    i64 words_per_depth_block; /* steps of a full block of k */
    bool partials;             /* a bf16 C that takes more than one slab in k */
    i64 b_at, partial_at, sums_at, thread_at, thread_bytes, bytes;
};

/* One slab being worked on. */
struct work {
    const struct gemm *g;
    struct plan plan;
    u8 *space;
    i64 m0, n0, k0, M, N, K; /* this slab's place in C and in the sum */
    i64 mc, nc, tiles_m, tiles_n;
    i64 a_parts, b_parts, blocks;
    bool pack_a, pack_b;
};

/* --- plan --------------------------------------------------------------------------- */

static i64 slab_extent(i64 n, i64 grain, i64 words_per_row)
{
    i64 most = i64_max(grain, PANEL_BYTES / 4 / words_per_row / grain * grain);
    if (n <= most)
        return n;
    return round_up(ceil_div(n, ceil_div(n, most)), grain); /* even slabs */
}

static struct plan plan_product(const struct gemm *g, const struct gemm_kernels *kernels,
                                int threads)
{
    const struct gemm_kernels *k = gemm_kernels_for(kernels, g->A.type, g->B.type);
    struct plan p = { .k = k };
    p.depth = i64_min(g->K, round_up(ceil_div(g->K, ceil_div(i64_max(g->K, 1), K_SLAB)), k->kc));
    i64 words = i64_max(1, gemm_steps(k, p.depth));
    p.m = slab_extent(g->M, k->mc, words);
    p.n = slab_extent(g->N, k->nc, words);
    p.partials = g->C.type == DTYPE_BF16 && p.depth < g->K;

    i64 at = round_up(4 * round_up(p.m, k->mr) * words, 4096);
    p.b_at = at;
    at += round_up(4 * round_up(p.n, k->nr) * words, 4096);
    p.partial_at = at;
    if (p.partials)
        at += round_up(4 * round_up(p.m, k->mr) * round_up(p.n, k->nr), 4096);
    p.sums_at = at;
    if (g->row_sum)
        at += round_up(4 * ceil_div(p.depth, k->kc) * p.m, 4096);
    p.thread_at = at;
    p.thread_bytes = round_up(4 * k->mc * k->nc, 4096);
    p.bytes = at + p.thread_bytes * threads;
    return p;
}

i64 gemm_workspace_bytes(const struct gemm *g, const struct gemm_kernels *k, int threads)
{
    return plan_product(g, k, threads).bytes;
}

/* --- packing ------------------------------------------------------------------------ */

static i64 block_depth(const struct work *w, i64 block)
{
    i64 kc = w->plan.k->kc;
    return i64_min(kc, w->K - block * kc);
}

/* Where block b of an operand's panels begins; padded is its extent in whole panels. */
static u32 *block_panels(const struct work *w, i64 at, i64 padded, i64 block)
{
    const struct gemm_kernels *k = w->plan.k;
    return (u32 *)(w->space + at) + padded * gemm_steps(k, block * k->kc);
}

static const void *element(const struct gemm_matrix *m, i64 r, i64 c)
{
    return (const u8 *)m->data +
           (r * m->row_stride + c * m->col_stride) * dtype_bytes(m->type);
}

static i64 pack_rows(i64 width)
{
    return i64_max(1, PACK_ROWS / width) * width;
}

static void pack_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct plan *p = &w->plan;
    const struct gemm_kernels *k = p->k;
    (void)thread;
    bool is_a = part < w->a_parts;
    i64 at = is_a ? part : part - w->a_parts, block = at % w->blocks;
    i64 width = is_a ? k->mr : k->nr, extent = is_a ? w->M : w->N;
    i64 first = at / w->blocks * pack_rows(width), kc0 = w->k0 + block * k->kc;
    const struct gemm_matrix *m = is_a ? &w->g->A : &w->g->B;
    struct gemm_slab s = {
        .data = is_a ? element(m, w->m0 + first, kc0) : element(m, kc0, w->n0 + first),
        .type = m->type,
        .row_stride = is_a ? m->row_stride : m->col_stride,
        .k_stride = is_a ? m->col_stride : m->row_stride,
        .rows = i64_min(pack_rows(width), extent - first),
        .k = block_depth(w, block),
    };
    u32 *panels = block_panels(w, is_a ? 0 : p->b_at, round_up(extent, width), block);
    k->pack(panels + first * gemm_steps(k, s.k), &s, width);
    if (is_a && w->g->row_sum && w->n0 == 0)
        k->sum_rows((float *)(w->space + p->sums_at) + block * w->M + first, &s);
}

/* row_sum (+)= the blocks' sums in ascending order. */
static void add_row_sums(const struct work *w)
{
    const float *sums = (const float *)(w->space + w->plan.sums_at);
    float *out = w->g->row_sum + w->m0;
    for (i64 r = 0; r < w->M; r++) {
        float sum = w->g->accumulate || w->k0 > 0 ? out[r] : 0;
        for (i64 b = 0; b < w->blocks; b++)
            sum += sums[b * w->M + r];
        out[r] = sum;
    }
}

static void pack_slab(struct work *w, struct pool *pool)
{
    const struct gemm_kernels *k = w->plan.k;
    w->a_parts = w->pack_a ? ceil_div(w->M, pack_rows(k->mr)) * w->blocks : 0;
    w->b_parts = w->pack_b ? ceil_div(w->N, pack_rows(k->nr)) * w->blocks : 0;
    pool_run(pool, w->a_parts + w->b_parts, pack_part, w);
    if (w->pack_a && w->g->row_sum && w->n0 == 0)
        add_row_sums(w);
}

/* --- multiplying -------------------------------------------------------------------- */

/* One tile of C: m, n relative to the slab. Sums build up in `sum`: C itself where C is
 * f32, else f32 scratch that holds whole micro tiles. */
struct tile {
    i64 m, n, rows, cols;
    float *sum;
    i64 sum_stride;
    bool first, last; /* block of k: sums begin, sums are complete */
    i64 steps;
    const u32 *a, *b; /* panels of the block, from the tile's first on */
};

static void start_sums(const struct work *w, const struct tile *t, float *sum, i64 m, i64 n,
                       i64 rows, i64 cols)
{
    const struct gemm *g = w->g;
    const struct gemm_matrix *from = g->accumulate ? &g->C : &g->residual;
    struct gemm_start s = { .from_type = from->type, .from_stride = from->row_stride,
                            .bias = g->bias ? g->bias + w->n0 + n : NULL };
    if (from->data)
        s.from = element(from, w->m0 + m, w->n0 + n);
    w->plan.k->start(sum, t->sum_stride, &s, rows, cols);
}

/* One micro tile, (i, j) within the tile, i and j multiples of mr and nr. */
static void multiply(const struct work *w, const struct tile *t, i64 i, i64 j)
{
    const struct gemm *g = w->g;
    const struct gemm_kernels *k = w->plan.k;
    i64 rows = i64_min(k->mr, t->rows - i), cols = i64_min(k->nr, t->cols - j);
    const u32 *a = t->a + i * t->steps, *b = t->b + j * t->steps;
    float *sum = t->sum + i * t->sum_stride + j;
    bool in_place = g->C.type == DTYPE_F32, from_c = g->accumulate && in_place && !g->bias;
    bool starts = t->first && !from_c && (g->accumulate || g->residual.data || g->bias);
    bool add = !t->first || starts || from_c;

    if (starts)
        start_sums(w, t, sum, t->m + i, t->n + j, rows, cols);
    if (in_place && (rows < k->mr || cols < k->nr)) {
        _Alignas(64) float edge[GEMM_MICRO_MAX];
        k->micro(t->steps, a, b, edge, k->nr, false);
        k->finish(sum, DTYPE_F32, t->sum_stride, edge, k->nr, rows, cols, add);
        return;
    }
    k->micro(t->steps, a, b, sum, t->sum_stride, add);
    if (t->last && !in_place)
        k->finish((void *)element(&g->C, w->m0 + t->m + i, w->n0 + t->n + j), g->C.type,
                  g->C.row_stride, sum, t->sum_stride, rows, cols, false);
}

static void place_sums(const struct work *w, struct tile *t, int thread)
{
    const struct gemm_matrix *C = &w->g->C;
    const struct plan *p = &w->plan;
    if (C->type == DTYPE_F32) {
        t->sum_stride = C->row_stride;
        t->sum = (float *)element(C, w->m0 + t->m, w->n0 + t->n);
    } else if (p->partials) {
        t->sum_stride = round_up(w->N, p->k->nr);
        t->sum = (float *)(w->space + p->partial_at) + t->m * t->sum_stride + t->n;
    } else {
        t->sum_stride = p->k->nc;
        t->sum = (float *)(w->space + p->thread_at + p->thread_bytes * thread);
    }
}

static void tile_part(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct gemm_kernels *k = w->plan.k;
    i64 m = part % w->tiles_m * w->mc, n = part / w->tiles_m * w->nc;
    struct tile t = { .m = m, .n = n, .rows = i64_min(w->mc, w->M - m),
                      .cols = i64_min(w->nc, w->N - n) };
    place_sums(w, &t, thread);
    for (i64 block = 0; block < w->blocks; block++) {
        t.steps = gemm_steps(k, block_depth(w, block));
        t.a = block_panels(w, 0, round_up(w->M, k->mr), block) + m * t.steps;
        t.b = block_panels(w, w->plan.b_at, round_up(w->N, k->nr), block) + n * t.steps;
        t.first = w->k0 == 0 && block == 0;
        t.last = w->k0 + w->K == w->g->K && block == w->blocks - 1;
        for (i64 j = 0; j < t.cols; j += k->nr)
            for (i64 i = 0; i < t.rows; i += k->mr)
                multiply(w, &t, i, j);
    }
}

/* Tiles of mc x nc, or lower ones when there would be too few of them to share out. */
static void multiply_slab(struct work *w, struct pool *pool)
{
    const struct gemm_kernels *k = w->plan.k;
    i64 wanted = (i64)TILES_PER_THREAD * pool_threads(pool);
    w->nc = k->nc;
    w->mc = k->mc;
    w->tiles_n = ceil_div(w->N, w->nc);
    if (pool_threads(pool) > 1 && ceil_div(w->M, w->mc) * w->tiles_n < wanted)
        w->mc = i64_max(4 * k->mr, k->mc / 2 / k->mr * k->mr);
    w->tiles_m = ceil_div(w->M, w->mc);
    pool_run(pool, w->tiles_m * w->tiles_n, tile_part, w);
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
    struct work w = { .g = g, .space = workspace,
                      .plan = plan_product(g, k, pool_threads(pool)) };
    const struct plan *p = &w.plan;
    i64 a_m = -1, a_k = -1, b_n = -1, b_k = -1; /* whose panels the workspace holds */

    for (w.m0 = 0; w.m0 < g->M; w.m0 += p->m)
        for (w.n0 = 0; w.n0 < g->N; w.n0 += p->n)
            for (w.k0 = 0; w.k0 < i64_max(g->K, 1); w.k0 += i64_max(p->depth, 1)) {
                w.M = i64_min(p->m, g->M - w.m0);
                w.N = i64_min(p->n, g->N - w.n0);
                w.K = i64_min(p->depth, g->K - w.k0);
                w.blocks = i64_max(1, ceil_div(w.K, p->k->kc));
                w.pack_a = a_m != w.m0 || a_k != w.k0;
                w.pack_b = b_n != w.n0 || b_k != w.k0;
                a_m = w.m0, a_k = w.k0, b_n = w.n0, b_k = w.k0;
                pack_slab(&w, pool);
                multiply_slab(&w, pool);
            }
}
