/* backend/cpu/gemm.c - which panel meets which, when, on which thread.
 *
 * B is cut into *slabs*, small enough that the panels of two stay in L3. A thread takes a
 * *strip* of C's rows, packs the rows of A that the strip needs for itself, and multiplies
 * them with the slab, tile by tile of nc columns, so that the tile of C stays in its cache
 * while the sums go through the blocks of k. Between strips, threads pack the next slab in
 * small parts: one waits for memory while the other multiplies. Strips become lower towards
 * the end of a slab, or are equally many for each, so that threads finish together.
 *
 * Workspace: the blocks of k | panels of two slabs of B | partial sums | per thread: panels of A,
 * sums of a tile. Panels lie block by block of k: within block b of an operand,
 * panel p begins p x width x steps(b) words after the block, so tiles read forward.
 *
 * Where a kernel multiplies on a unit of its own (micro_tail), a micro tile of sums waits and is
 * brought to its place while the next one is multiplied. Where its chain can go on (micro_on), a
 * block's steps are multiplied in parts of near_steps, down all micro tiles of a column, and f32
 * sums too build up in the thread's tile: tile registers wait for each line of C that is far away.
 *
 * Sums in leaves (gemm_tree.h): the next leaf is summed on top of a thread's stack, or straight
 * onto the one below where it would be added to that at once, so nothing is copied. Slots
 * between slabs are as large as C. */
#include "backend/cpu/gemm.h"

#include "backend/cpu/gemm_plan.h"
#include "backend/cpu/gemm_tree.h"
#include "base/pool.h"

#include <string.h>

enum {
    PACK_COLUMNS = 120, /* columns of B that one part packs */
    LEAST_PANELS = 8,   /* of A in a strip: 8 uses of a panel of B pay for its trip */
    LARGE_C = 4 << 20,  /* bytes: more is in no core's cache when the next op reads it */
};

/* Columns [n0, n0 + N) of B, blocks of k from `first` on. */
struct slab {
    i64 n0, N, first, blocks; /* blocks 0: there is no such slab */
    u32 *panels;
};

struct work {
    const struct gemm *g;
    struct gemm_plan plan;
    u8 *space;
    const struct gemm_block *block;
    struct slab slab, next;         /* being multiplied, being packed */
    i64 threads, columns, ranges;   /* a part is a strip times one range of columns */
    i64 strip_parts, pack_parts;
    bool whole_words; /* of A */
    bool past_caches; /* the tails of micro tiles store C so, and f32 sums do not build up in it */
};

/* Rows [m, m + rows) of C, columns [n, n + cols) of the slab. Sums build up in `sum`: C itself
 * where C is f32, else f32 scratch in whole micro tiles. */
struct tile {
    i64 m, n, rows, cols;
    float *sum;
    i64 sum_stride;
    bool in_c;               /* sum is C itself */
    bool starts, adds, ends; /* this block: with the start; onto sums; completes them */
    bool joins;              /* this block: a whole leaf, onto the subtree that it is added to */
    bool goes_on;            /* this block: with the chain of the one before */
    i64 steps;
    const u32 *a, *b, *next; /* panels of this block; what of B is needed after it */
    const u32 *rows_of_a;    /* not NULL: A is read as it lies, with rows a_stride words apart */
    i64 a_stride;
};

/* The slab after s, in the other half of the panels; k goes fastest. */
static struct slab slab_after(const struct work *w, const struct slab *s)
{
    const struct gemm_plan *p = &w->plan;
    struct slab next = *s;
    u8 *panels = w->space + p->panel_at;
    next.first += s->blocks;
    if (next.first >= p->blocks) {
        next.first = 0;
        next.n0 += p->N;
    }
    next.N = i64_min(p->N, w->g->N - next.n0);
    next.blocks = 0;
    while (next.N > 0 && (next.blocks == 0 || !w->block[next.first + next.blocks - 1].ends_slab))
        next.blocks++;
    next.panels = (u32 *)(s->panels == (u32 *)panels ? panels + p->panel_bytes : panels);
    return next;
}

/* --- packing ------------------------------------------------------------------------ */

static const void *element(const struct gemm_matrix *m, i64 r, i64 c)
{
    return (const u8 *)m->data +
           (r * m->row_stride + c * m->col_stride) * dtype_bytes(m->type);
}

/* Block b of the slab. */
static const struct gemm_block *block_of(const struct work *w, const struct slab *s, i64 b)
{
    return &w->block[s->first + b];
}

static i64 block_steps(const struct work *w, const struct gemm_block *b)
{
    return gemm_steps(w->plan.k, b->depth);
}

/* Words of an operand's panels before the block; extent: its rows or columns there. */
static i64 words_before(const struct gemm_block *b, i64 extent, i64 width)
{
    return round_up(extent, width) * b->step;
}

static u8 *thread_space(const struct work *w, int thread)
{
    return w->space + w->plan.thread_at + w->plan.thread_bytes * thread;
}

static u32 *thread_panels(const struct work *w, int thread)
{
    return (u32 *)thread_space(w, thread);
}

static i64 pack_columns(const struct work *w)
{
    return round_up(PACK_COLUMNS, w->plan.k->nr);
}

static void pack_b(const struct work *w, const struct slab *b, i64 part)
{
    const struct gemm_kernels *k = w->plan.k;
    const struct gemm_matrix *B = &w->g->B;
    const struct gemm_block *block = block_of(w, b, part % b->blocks);
    i64 first = part / b->blocks * pack_columns(w);
    struct gemm_slab s = {
        .data = element(B, block->k0, b->n0 + first),
        .type = B->type,
        .row_stride = B->col_stride,
        .k_stride = B->row_stride,
        .rows = i64_min(pack_columns(w), b->N - first),
        .k = block->depth,
    };
    u32 *panels = b->panels + words_before(block, b->N, k->nr);
    k->pack_b(panels + first * gemm_steps(k, s.k), &s, k->nr);
}

/* Block sums of rows [m, m + n), which a leaf collects; at its end they are counted in. */
static void count_row_sums(const struct work *w, const struct gemm_block *b, i64 m, i64 n,
                           const float *sums, i64 offset, int thread)
{
    const struct gemm_plan *p = &w->plan;
    const i64 padded = round_up(w->g->M, p->k->mr), leaf = b->leaf % p->unit_leaves;
    const i64 top = gemm_tree_height(leaf, p->unit_leaves);
    float *shared = (float *)(w->space + p->row_at) + m;
    const struct gemm_slots between = { shared, padded, 1 };
    const struct gemm_slots stack = {
        (float *)(thread_space(w, thread) + p->thread_row_at) + offset, p->k->mc, 1
    };
    const struct gemm_sums x = {
        p->long_leaves ? gemm_slot(&between, p->slots - 1) : stack.first, 1, n, 1
    };
    p->k->finish(p->long_leaves ? x.at : gemm_slot(&stack, top), DTYPE_F32, 1, sums, 1, n, 1,
                 !b->first);
    if (!b->last)
        return;
    gemm_tree_join(p->k, &stack, top, gemm_tree_joins(leaf, p->unit_leaves), n, 1);
    if (leaf == p->unit_leaves - 1 &&
        (p->units == 1 ||
         gemm_tree_count_in(p->k, &x, &between, b->leaf / p->unit_leaves, p->units)))
        p->k->finish(w->g->row_sum + m, DTYPE_F32, 1, x.at, 1, n, 1, w->g->accumulate);
}

/* row_sum (+)= this block's sums of the strip's rows. */
static void add_row_sums(const struct work *w, const struct gemm_slab *s, i64 m,
                         const struct gemm_block *b, int thread)
{
    enum { ROWS = 64 };
    float sums[ROWS], *out = w->g->row_sum + m;
    bool add = w->g->accumulate || b != w->block;
    struct gemm_slab part = *s;
    for (i64 r0 = 0; r0 < s->rows; r0 += ROWS) {
        part.data = (const u8 *)s->data + r0 * s->row_stride * dtype_bytes(s->type);
        part.rows = i64_min(ROWS, s->rows - r0);
        w->plan.k->sum_rows(sums, &part);
        if (w->plan.units > 0) {
            count_row_sums(w, b, m + r0, part.rows, sums, r0, thread);
            continue;
        }
        for (i64 r = 0; r < part.rows; r++)
            out[r0 + r] = (add ? out[r0 + r] : 0) + sums[r];
    }
}

static void pack_a(const struct work *w, const struct tile *t, const struct gemm_block *b,
                   u32 *panels, int thread)
{
    const struct gemm_kernels *k = w->plan.k;
    const struct gemm_matrix *A = &w->g->A;
    struct gemm_slab s = {
        .data = element(A, t->m, b->k0),
        .type = A->type,
        .row_stride = A->row_stride,
        .k_stride = A->col_stride,
        .rows = t->rows,
        .k = b->depth,
    };
    k->pack_a(panels, &s, k->mr);
    if (w->g->row_sum && w->slab.n0 + t->n == 0)
        add_row_sums(w, &s, t->m, b, thread);
}

/* --- multiplying -------------------------------------------------------------------- */

/* sum = start + sums, which may be sum. */
static void start_sums(const struct work *w, const struct tile *t, float *sum, const float *sums,
                       i64 sums_stride, i64 i, i64 j, i64 rows, i64 cols)
{
    const struct gemm *g = w->g;
    const struct gemm_matrix *from = g->accumulate ? &g->C : &g->residual;
    i64 m = t->m + i, n = w->slab.n0 + t->n + j;
    struct gemm_start s = { .from_type = from->type, .from_stride = from->row_stride,
                            .bias = g->bias ? g->bias + n : NULL };
    if (from->data)
        s.from = element(from, m, n);
    w->plan.k->start(sum, t->sum_stride, &s, sums, sums_stride, rows, cols);
}

/* Rows of A from i on, by a panel of B. */
static void run_micro(const struct gemm_kernels *k, const struct tile *t, i64 i, const u32 *b,
                      float *c, i64 ldc, bool add, const u32 *ahead)
{
    if (t->goes_on)
        k->micro_on(t->steps, t->a + i * t->steps, b, c, ldc, ahead);
    else if (t->rows_of_a)
        k->micro_rows(t->steps, t->rows_of_a + i * t->a_stride, t->a_stride, b, c, ldc, add,
                      ahead);
    else
        k->micro(t->steps, t->a + i * t->steps, b, c, ldc, add, ahead);
}

/* Asks for the lines of a micro tile of m, which are needed when its sums are ready. Inline:
 * gcc takes a function that only prefetches for one that does nothing, and leaves it out. */
static inline __attribute__((always_inline)) void
fetch_micro_tile(const struct gemm_matrix *m, i64 r, i64 c, i64 rows, i64 cols)
{
    const i64 bytes = dtype_bytes(m->type);
    for (i64 i = 0; i < rows; i++) {
        const u8 *row = element(m, r + i, c);
        for (i64 b = 0; b < cols * bytes; b += 64)
            __builtin_prefetch(row + b, 1);
    }
}

/* Micro tile (i, j) of the tile, whatever is special about it. */
static void multiply_special(const struct work *w, const struct tile *t, i64 i, i64 j,
                             const u32 *ahead)
{
    const struct gemm *g = w->g;
    const struct gemm_kernels *k = w->plan.k;
    const i64 rows = i64_min(k->mr, t->rows - i), cols = i64_min(k->nr, t->cols - j);
    const i64 m = t->m + i, n = w->slab.n0 + t->n + j;
    const u32 *b = t->b + j * t->steps;
    const bool leaves = t->ends && !t->in_c; /* the sums, for C */
    float *sum = t->sum + i * t->sum_stride + j;
    _Alignas(64) float scratch[GEMM_MICRO_MAX];

    if (k->fetches_c && (t->in_c || leaves))
        fetch_micro_tile(&g->C, m, n, rows, cols);
    if (k->fetches_c && t->starts && g->residual.data)
        fetch_micro_tile(&g->residual, m, n, rows, cols);
    if (t->starts) {
        run_micro(k, t, i, b, scratch, k->nr, false, ahead);
        start_sums(w, t, sum, scratch, k->nr, i, j, rows, cols);
    } else if (t->in_c && (rows < k->mr || cols < k->nr)) {
        if (t->goes_on) {
            memset(scratch, 0, sizeof scratch);
            k->finish(scratch, DTYPE_F32, k->nr, sum, t->sum_stride, rows, cols, false);
        }
        run_micro(k, t, i, b, scratch, k->nr, false, ahead);
        k->finish(sum, DTYPE_F32, t->sum_stride, scratch, k->nr, rows, cols,
                  t->adds && !t->goes_on);
    } else {
        run_micro(k, t, i, b, sum, t->sum_stride, t->adds, ahead);
    }
    if (leaves)
        k->finish((void *)element(&g->C, m, n), g->C.type, g->C.row_stride, sum, t->sum_stride,
                  rows, cols, false);
}

/* Steps of a block that are multiplied at once, micro tile after micro tile, so that this much of a
 * panel of B stays in L1. The chain then goes on through the next steps. At least 1. */
static i64 steps_at_a_time(const struct gemm_kernels *k, i64 steps, bool whole)
{
    return whole || !k->near_steps ? i64_max(1, steps)
                                   : gemm_even_part(steps, k->near_steps, k->steps_at_once);
}

/* Steps [s, s + n) of micro tile (i, j) of the tile, whose sums build up where they are. */
static void multiply_steps(const struct gemm_kernels *k, const struct tile *t, i64 i, i64 j, i64 s,
                           i64 n, const u32 *ahead)
{
    const u32 *a = t->a + i * t->steps + s * k->mr, *b = t->b + j * t->steps + s * k->nr;
    float *c = t->sum + i * t->sum_stride + j;
    if (s > 0 || t->goes_on)
        k->micro_on(n, a, b, c, t->sum_stride, ahead);
    else
        k->micro(n, a, b, c, t->sum_stride, false, ahead);
}

static void multiply_block(const struct work *w, const struct tile *t)
{
    const struct gemm_kernels *k = w->plan.k;
    const bool special = t->starts || (t->ends && !t->in_c);
    const bool whole = special || (t->adds && !t->goes_on);
    const i64 part = steps_at_a_time(k, t->steps, whole);
    for (i64 j = 0; j < t->cols; j += k->nr) {
        i64 plain = special || j + k->nr > t->cols ? 0 : t->rows / k->mr * k->mr;
        const u32 *b = t->b + j * t->steps;
        const u32 *next = j + k->nr < t->cols ? b + k->nr * t->steps : t->next;
        for (i64 s = 0; s == 0 || s < t->steps; s += part) {
            const i64 n = i64_min(part, t->steps - s), ahead = gemm_ahead_words(k, n);
            for (i64 i = 0; i < t->rows; i += k->mr, next += ahead) {
                if (i < plain && n < t->steps)
                    multiply_steps(k, t, i, j, s, n, next);
                else if (i < plain)
                    run_micro(k, t, i, b, t->sum + i * t->sum_stride + j, t->sum_stride, t->adds,
                              next);
                else if (s == 0)
                    multiply_special(w, t, i, j, next);
            }
        }
    }
}

/* The thread's sums of a tile: where there are leaves, its stack. */
static struct gemm_slots thread_tiles(const struct work *w, int thread)
{
    const struct gemm_plan *p = &w->plan;
    return (struct gemm_slots){ (float *)(thread_space(w, thread) + p->thread_sum_at),
                           p->tile_bytes / (i64)sizeof(float), p->nc };
}

/* Slot i between slabs, or the partial sums, at the tile. */
static float *shared_tile(const struct work *w, const struct tile *t, i64 stride, i64 i)
{
    return (float *)(w->space + w->plan.partial_at + i * w->plan.slot_bytes) +
           t->m * stride + t->n;
}

/* A leaf that is one block is added to the subtree below it as the micro kernel ends. */
static bool joins_at_once(const struct work *w, const struct gemm_block *b)
{
    const i64 n = w->plan.unit_leaves;
    return n > 0 && b->first && b->last && gemm_tree_joins(b->leaf % n, n) > 0;
}

/* Of the stack, for a block's sums. */
static i64 level_of(const struct work *w, const struct gemm_block *b)
{
    const i64 n = w->plan.unit_leaves;
    return n > 0 ? gemm_tree_height(b->leaf % n, n) - joins_at_once(w, b) : 0;
}

/* Where this block's sums build up. */
static void place_sums(const struct work *w, struct tile *t, const struct gemm_block *b,
                       int thread)
{
    const struct gemm_matrix *C = &w->g->C;
    const struct gemm_plan *p = &w->plan;
    const i64 shared_stride = round_up(w->slab.N, p->k->nr);
    t->in_c = C->type == DTYPE_F32 && p->units == 0 && !w->past_caches &&
              !(p->k->micro_on && p->slabs == 1); /* loads of tiles would wait for lines of C */
    if (t->in_c) {
        t->sum_stride = C->row_stride;
        t->sum = (float *)element(C, t->m, w->slab.n0 + t->n);
    } else if (p->partials || p->long_leaves) {
        t->sum_stride = shared_stride;
        t->sum = shared_tile(w, t, shared_stride, p->long_leaves ? p->slots - 1 : 0);
    } else {
        const struct gemm_slots stack = thread_tiles(w, thread);
        t->sum_stride = stack.stride;
        t->sum = gemm_slot(&stack, level_of(w, b));
    }
}

/* All that the sums start with is what C has already. */
static bool starts_in_c(const struct gemm *g)
{
    return !g->bias && (g->accumulate || (g->residual.data && g->residual.data == g->C.data &&
                                          g->residual.row_stride == g->C.row_stride));
}

/* What the sums of this block are added to. */
static void set_block(const struct work *w, struct tile *t, const struct gemm_block *b)
{
    const struct gemm *g = w->g;
    bool first = b == w->block, in_place = t->in_c && starts_in_c(g);
    t->starts = first && !in_place && (g->accumulate || g->residual.data || g->bias);
    t->adds = !first || in_place;
    t->ends = b == w->block + w->plan.blocks - 1;
    t->steps = block_steps(w, b);
    t->goes_on = w->plan.k->micro_on && !b->begins;
    if (w->plan.units > 0) {
        t->starts = t->ends = false;
        t->joins = joins_at_once(w, b);
        t->adds = !b->first || t->joins;
    }
}

/* C = start + x. */
static void finish_tree(const struct work *w, const struct tile *t, const struct gemm_sums *x)
{
    const struct gemm *g = w->g;
    const struct gemm_kernels *k = w->plan.k;
    const bool onto_c = g->C.type == DTYPE_F32 && starts_in_c(g);
    if (!onto_c && (g->accumulate || g->residual.data || g->bias))
        start_sums(w, t, x->at, x->at, x->stride, 0, 0, t->rows, t->cols);
    k->finish((void *)element(&g->C, t->m, w->slab.n0 + t->n), g->C.type, g->C.row_stride, x->at,
              x->stride, t->rows, t->cols, onto_c);
}

/* Behind a leaf's last block: what it makes with those of its slab, and these with other slabs'. */
static void end_leaf(const struct work *w, const struct tile *t, const struct gemm_block *b,
                     int thread)
{
    const struct gemm_plan *p = &w->plan;
    const i64 n = p->unit_leaves, leaf = b->leaf % n, stride = round_up(w->slab.N, p->k->nr);
    const struct gemm_slots stack = thread_tiles(w, thread);
    const struct gemm_slots between = { shared_tile(w, t, stride, 0), p->slot_bytes / 4, stride };
    const struct gemm_sums x = { p->long_leaves ? t->sum : stack.first, t->sum_stride, t->rows,
                                 t->cols };
    gemm_tree_join(p->k, &stack, level_of(w, b), gemm_tree_joins(leaf, n) - t->joins, t->rows,
                   t->cols);
    if (leaf == n - 1 &&
        (p->units == 1 || gemm_tree_count_in(p->k, &x, &between, b->leaf / n, p->units)))
        finish_tree(w, t, &x);
}

/* --- multiplying one micro tile while the one before is brought to its place --------- */

struct waiting {
    _Alignas(64) float sums[2][GEMM_MICRO_MAX];
    struct gemm_tail tail;
    int at;   /* whose sums wait */
    bool any;
};

/* Of the last block, at the tile's first element. */
static struct gemm_tail tail_of_tile(const struct work *w, const struct tile *t)
{
    const struct gemm *g = w->g;
    const struct gemm_matrix *from = g->accumulate ? &g->C : &g->residual;
    const i64 n = w->slab.n0 + t->n;
    struct gemm_tail x = { .dst = (void *)element(&g->C, t->m, n), .type = g->C.type,
                           .dst_stride = g->C.row_stride, .past_caches = w->past_caches };
    if (w->plan.blocks == 1) /* else the chain began with it */
        x.start = (struct gemm_start){ from->data ? element(from, t->m, n) : NULL, from->type,
                                       from->row_stride, g->bias ? g->bias + n : NULL };
    return x;
}

/* The same at micro tile (i, j). */
static struct gemm_tail tail_at(const struct gemm_tail *block, const struct tile *t, i64 i, i64 j)
{
    struct gemm_tail x = *block;
    const struct gemm_start *s = &block->start;
    x.dst = (u8 *)x.dst + (i * x.dst_stride + j) * dtype_bytes(x.type);
    if (s->from)
        x.start.from = (const u8 *)s->from + (i * s->from_stride + j) * dtype_bytes(s->from_type);
    if (s->bias)
        x.start.bias = s->bias + j;
    x.a = t->a + i * t->steps;
    x.b = t->b + j * t->steps;
    x.steps = t->steps;
    return x;
}

/* Whether a product's last block has tails, which add nothing that lies in memory to sums but what
 * they start with: loads of tiles would wait for more. */
static bool can_have_tails(const struct gemm *g, const struct gemm_plan *p)
{
    if (!p->k->micro_tail || p->units > 0)
        return false;
    return p->k->micro_on ? p->slabs == 1 || !g->accumulate : p->blocks == 1 && !g->accumulate;
}

static bool has_tails(const struct work *w, const struct gemm_block *b)
{
    return can_have_tails(w->g, &w->plan) && b == w->block + w->plan.blocks - 1;
}

static void end_waiting(const struct gemm_kernels *k, struct waiting *p)
{
    if (p->any)
        k->tail(p->sums[p->at], &p->tail);
    p->any = false;
}

/* Where sums wait between two parts of a block's steps: not in C, from which they may start. */
static bool has_parts(const struct tile *t, const struct gemm_tail *block)
{
    return !t->in_c || (!block->start.from && !block->start.bias);
}

static void multiply_beside(const struct work *w, const struct tile *t,
                            const struct gemm_tail *block, struct waiting *p)
{
    const struct gemm_kernels *k = w->plan.k;
    const i64 part = steps_at_a_time(k, t->steps, !has_parts(t, block));
    for (i64 j = 0; j < t->cols; j += k->nr) {
        const u32 *next = j + k->nr < t->cols ? t->b + (j + k->nr) * t->steps : t->next;
        for (i64 s = 0; s == 0 || s < t->steps; s += part) {
            const i64 n = i64_min(part, t->steps - s), ahead = gemm_ahead_words(k, n);
            for (i64 i = 0; i < t->rows; i += k->mr, next += ahead) {
                const struct gemm_tail x = tail_at(block, t, i, j);
                if (i + k->mr > t->rows || j + k->nr > t->cols) {
                    if (s == 0)
                        multiply_special(w, t, i, j, next);
                    continue;
                }
                if (s + n < t->steps) {
                    multiply_steps(k, t, i, j, s, n, next);
                    continue;
                }
                k->micro_tail(n, x.a + s * k->mr, x.b + s * k->nr,
                              s > 0 || t->goes_on ? t->sum + i * t->sum_stride + j : NULL,
                              t->sum_stride, p->sums[!p->at], next, p->sums[p->at],
                              p->any ? &p->tail : NULL);
                p->tail = x;
                p->at = !p->at;
                p->any = true;
            }
        }
    }
}

/* --- strips ------------------------------------------------------------------------- */

/* Where tiles multiply, what a strip has in common with others (packing, the trip of B's panels)
 * costs more than what threads wait for each other: equally many strips for each, equally high. */
static i64 even_strip_rows(const struct work *w, i64 m)
{
    const struct gemm_kernels *k = w->plan.k;
    const i64 panels = ceil_div(w->g->M, k->mr), done = m / k->mr;
    const i64 enough = round_up(ceil_div(panels, k->mc / k->mr), w->threads);
    const i64 strips = i64_min(panels, enough), before = ((done + 1) * strips - 1) / panels;
    return i64_min((before + 1) * panels / strips * k->mr, w->g->M) - m;
}

/* Strips are mc rows high while there are many, then an even share of half of what is left,
 * as far as whole panels go. */
static i64 strip_rows(const struct work *w, i64 m)
{
    const struct gemm_kernels *k = w->plan.k;
    if (k->micro_tail)
        return even_strip_rows(w, m);
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
    const struct gemm_block *b = block_of(w, s, block);
    return s->panels + words_before(b, s->N, w->plan.k->nr) + n * block_steps(w, b);
}

/* A's rows are whole words, in every block. */
static bool whole_words(const struct work *w)
{
    const struct gemm_matrix *A = &w->g->A;
    const i64 per_step = w->plan.k->per_step;
    bool whole = A->type == (per_step == 1 ? DTYPE_F32 : DTYPE_BF16) && A->col_stride == 1 &&
                 A->row_stride % per_step == 0 && (uintptr_t)A->data % sizeof(u32) == 0;
    for (i64 i = 0; whole && i < w->plan.blocks; i++)
        whole = w->block[i].depth == block_steps(w, &w->block[i]) * per_step;
    return whole;
}

/* The micro kernel can read rows as they lie, where they fill its tiles. Packing would be a
 * twentieth of the product of 768 columns. */
static bool reads_in_place(const struct work *w, const struct tile *t)
{
    return w->plan.k->micro_rows && w->whole_words && t->rows % w->plan.k->mr == 0 &&
           !w->g->row_sum;
}

static void multiply_strip(const struct work *w, i64 part, int thread)
{
    const struct gemm_kernels *k = w->plan.k;
    i64 begin = part % w->ranges * w->columns, end = i64_min(w->slab.N, begin + w->columns);
    struct tile t = { .m = 0 };
    for (i64 strip = part / w->ranges; strip > 0; strip--)
        t.m += strip_rows(w, t.m);
    t.rows = strip_rows(w, t.m);
    t.a_stride = w->g->A.row_stride / k->per_step;
    const bool in_place = reads_in_place(w, &t);
    struct waiting waiting;
    waiting.at = 0;
    waiting.any = false;

    if (k->begin)
        k->begin();
    for (t.n = begin; t.n < end; t.n += w->plan.nc) {
        t.cols = i64_min(w->plan.nc, end - t.n);
        for (i64 i = 0; i < w->slab.blocks; i++) {
            const struct gemm_block *b = block_of(w, &w->slab, i);
            u32 *a = thread_panels(w, thread) + words_before(b, t.rows, k->mr);
            if (in_place)
                t.rows_of_a = element(&w->g->A, t.m, b->k0);
            else if (t.n == begin)
                pack_a(w, &t, b, a, thread);
            t.a = a;
            t.b = panels_at(w, i, t.n);
            t.next = i + 1 < w->slab.blocks ? panels_at(w, i + 1, t.n)
                                            : panels_at(w, 0, t.n + t.cols);
            place_sums(w, &t, b, thread);
            set_block(w, &t, b);
            if (has_tails(w, b)) {
                const struct gemm_tail tail = tail_of_tile(w, &t);
                multiply_beside(w, &t, &tail, &waiting);
                continue;
            }
            end_waiting(k, &waiting); /* which may read this thread's tile of sums */
            multiply_block(w, &t);
            if (w->plan.units > 0 && b->last)
                end_leaf(w, &t, b, thread);
        }
    }
    end_waiting(k, &waiting);
    if (k->end)
        k->end();
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
        /* where tiles multiply, packing a strip again for another range of columns costs more
         * than waiting for each other at the end */
        i64 strips = strip_count(w), each = w->plan.k->micro_tail ? 2 : 4;
        i64 wanted = w->threads == 1 ? 1 : each * w->threads;
        i64 range = ceil_div(w->slab.N, ceil_div(wanted, strips));
        w->columns = gemm_even_part(w->slab.N, range, w->plan.k->nr);
        w->ranges = ceil_div(w->slab.N, w->columns);
        w->strip_parts = strips * w->ranges;
    }
    w->pack_parts = count_pack_parts(w, &w->next);
    pool_run(pool, w->strip_parts + w->pack_parts, run_part, w);
}

/* --- entry -------------------------------------------------------------------------- */

static void check(const struct gemm *g)
{
    i64 pieces = 0;
    for (int p = 0; p < GEMM_PIECES; p++)
        pieces += g->leaves.pieces[p].k;
    assert(g->M >= 0 && g->N >= 0 && g->K >= 0);
    assert(g->A.row_stride == 1 || g->A.col_stride == 1);
    assert(g->B.row_stride == 1 || g->B.col_stride == 1);
    assert(g->C.col_stride == 1);
    assert(!g->residual.data ||
           (!g->accumulate && g->residual.type == g->C.type && g->residual.col_stride == 1));
    assert(g->leaves.count == 0 || pieces == g->K);
    (void)g;
    (void)pieces;
}

/* Whether lines of C can be stored without being read first, and nobody will read them soon. */
static bool goes_past_caches(const struct work *w)
{
    const struct gemm *g = w->g;
    const struct gemm_plan *p = &w->plan;
    const i64 bytes = dtype_bytes(g->C.type);
    return can_have_tails(g, p) && (g->C.type == DTYPE_BF16 || p->slabs == 1) &&
           g->M * g->N * bytes >= LARGE_C && (uintptr_t)g->C.data % 64 == 0 &&
           g->C.row_stride * bytes % 64 == 0;
}

void gemm_run(const struct gemm *g, const struct gemm_kernels *k, struct pool *pool,
              void *workspace)
{
    check(g);
    struct work w = { .g = g, .space = workspace, .block = workspace,
                      .threads = pool_threads(pool),
                      .plan = gemm_plan_product(g, k, pool_threads(pool)) };
    const struct slab before_first = { .panels = NULL };
    if (g->M == 0 || g->N == 0)
        return;
    gemm_plan_blocks(g, &w.plan, workspace);
    w.whole_words = whole_words(&w);
    w.past_caches = goes_past_caches(&w);
    w.next = slab_after(&w, &before_first);
    while (w.next.blocks > 0) {
        run_slab(&w, pool);
        w.slab = w.next;
        w.next = slab_after(&w, &w.slab);
    }
    run_slab(&w, pool);
}
