/* backend/cpu/gemm_plan.c - blocks and slabs of k, and the workspace's parts. */
#include "backend/cpu/gemm_plan.h"

#include "backend/cpu/gemm_tree.h"

enum {
    PANEL_BYTES = 8 << 20, /* panels of a slab of B; two of them in an L3 of 8 MiB or more */
    K_SLAB = 1536,         /* a longer K goes through C, or partial sums, between slabs ... */
    K_SLAB_ON = 2048,      /* ... which tile registers wait for longer than for A's panels */
};

/* --- cutting k ---------------------------------------------------------------------- */

/* Where cutting stands; out NULL: blocks are counted only. */
struct cutter {
    const struct gemm_kernels *k;
    struct gemm_block *out;
    i64 n, step, deepest, slabs, slab_begin;
};

static void end_slab(struct cutter *c)
{
    if (c->n == c->slab_begin)
        return;
    if (c->out)
        c->out[c->n - 1].ends_slab = true;
    c->deepest = i64_max(c->deepest, c->step);
    c->step = 0;
    c->slab_begin = c->n;
    c->slabs++;
}

static void add_block(struct cutter *c, i64 leaf, i64 k0, i64 depth, bool begins, bool first)
{
    if (c->out)
        c->out[c->n] = (struct gemm_block){ .k0 = k0, .depth = depth, .step = c->step,
                                            .leaf = leaf, .begins = begins, .first = first };
    c->step += gemm_steps(c->k, depth);
    c->n++;
}

/* One chain: slabs of equal depth. */
static void cut_chain(struct cutter *c, i64 K)
{
    const i64 most = c->k->micro_on ? K_SLAB_ON : K_SLAB;
    i64 slab = gemm_even_part(K, most * c->k->per_step / i64_max(1, c->k->pieces), c->k->kc);
    for (i64 k0 = 0; k0 == 0 || k0 < K; k0 += c->k->kc) {
        if (k0 % slab == 0)
            end_slab(c);
        add_block(c, 0, k0, i64_min(c->k->kc, K - k0), k0 == 0, k0 == 0);
    }
}

static void cut_leaf(struct cutter *c, const struct gemm_leaves *l, i64 leaf, bool alone)
{
    i64 before = c->n, begin = 0;
    for (int p = 0; p < GEMM_PIECES; begin += l->pieces[p++].k) {
        i64 end = i64_min(l->pieces[p].k, (leaf + 1) * l->pieces[p].share);
        const i64 from = leaf * l->pieces[p].share;
        for (i64 k = from; k < end; k += c->k->kc) {
            i64 depth = i64_min(c->k->kc, end - k);
            if (alone && c->step + gemm_steps(c->k, depth) > K_SLAB)
                end_slab(c);
            add_block(c, leaf, begin + k, depth, k == from, c->n == before);
        }
    }
    if (c->n == before)
        add_block(c, leaf, 0, 0, true, true); /* zeros */
    if (c->out)
        c->out[c->n - 1].last = true;
}

static i64 leaf_steps(const struct gemm_leaves *l, const struct gemm_kernels *k)
{
    struct cutter c = { .k = k };
    cut_leaf(&c, l, 0, false);
    return c.step;
}

/* Leaves of the largest subtree that fits into a slab. */
static i64 leaves_together(const struct gemm_leaves *l, const struct gemm_kernels *k)
{
    i64 most = K_SLAB / i64_max(1, leaf_steps(l, k)), n = gemm_odd_part(l->count);
    if (n > most)
        return 1;
    while (l->count % (2 * n) == 0 && 2 * n <= most)
        n *= 2;
    return n;
}

static void cut_leaves(struct cutter *c, const struct gemm_leaves *l)
{
    i64 together = leaves_together(l, c->k);
    for (i64 leaf = 0; leaf < l->count; leaf++) {
        cut_leaf(c, l, leaf, together == 1);
        if ((leaf + 1) % together == 0)
            end_slab(c);
    }
}

static struct cutter cut_k(const struct gemm *g, const struct gemm_kernels *k,
                           struct gemm_block *out)
{
    struct cutter c = { .k = k, .out = out };
    if (g->leaves.count > 0)
        cut_leaves(&c, &g->leaves);
    else
        cut_chain(&c, g->K);
    end_slab(&c);
    return c;
}

/* --- plan --------------------------------------------------------------------------- */

static void plan_leaves(struct gemm_plan *p, const struct gemm *g)
{
    if (g->leaves.count == 0)
        return;
    p->unit_leaves = leaves_together(&g->leaves, p->k);
    p->units = g->leaves.count / p->unit_leaves;
    p->long_leaves = leaf_steps(&g->leaves, p->k) > K_SLAB;
    p->levels = gemm_tree_levels(p->unit_leaves);
    p->slots = p->units > 1 || p->long_leaves ? gemm_tree_slots(p->units) + 1 : 0;
}

struct gemm_plan gemm_plan_product(const struct gemm *g, const struct gemm_kernels *kernels,
                                   int threads)
{
    const struct gemm_kernels *k = gemm_kernels_for(kernels, g->A.type, g->B.type);
    const struct cutter cut = cut_k(g, k, NULL);
    struct gemm_plan p = { .k = k, .blocks = cut.n, .slabs = cut.slabs, .steps = cut.deepest,
                           .levels = 1 };
    i64 words = i64_max(1, p.steps), padded = round_up(g->M, k->mr);
    bool slabs = cut.slabs > 1;
    p.N = gemm_even_part(g->N, PANEL_BYTES / 4 / words, k->nr);
    p.partials = g->leaves.count == 0 && g->C.type == DTYPE_BF16 && slabs;
    plan_leaves(&p, g);

    p.panel_at = round_up(p.blocks * (i64)sizeof(struct gemm_block), 4096);
    p.panel_bytes = round_up(4 * round_up(p.N, k->nr) * words, 4096);
    p.partial_at = p.panel_at + p.panel_bytes * (p.N < g->N || slabs ? 2 : 1);
    p.slot_bytes = round_up(4 * padded * round_up(p.N, k->nr), 4096);
    p.row_at = p.partial_at + p.slot_bytes * (p.partials ? 1 : p.slots);
    p.thread_at = p.row_at + round_up(4 * padded * p.slots, 4096);
    p.thread_sum_at = round_up(4 * k->mc * words, 4096);
    p.nc = p.blocks == 1 && k->near_steps ? k->nr : k->nc;
    p.tile_bytes = round_up(4 * k->mc * p.nc, 4096);
    p.thread_row_at = p.thread_sum_at + p.tile_bytes * p.levels;
    p.thread_bytes = p.thread_row_at + round_up(4 * k->mc * p.levels, 4096);
    p.bytes = p.thread_at + p.thread_bytes * threads;
    return p;
}

void gemm_plan_blocks(const struct gemm *g, const struct gemm_plan *p, struct gemm_block *out)
{
    cut_k(g, p->k, out);
}

i64 gemm_workspace_bytes(const struct gemm *g, const struct gemm_kernels *k, int threads)
{
    return gemm_plan_product(g, k, threads).bytes;
}

/* Every size and number of slabs that a longer K could take, one of up to two slabs takes. */
i64 gemm_workspace_bytes_up_to(const struct gemm *g, const struct gemm_kernels *k, int threads)
{
    struct gemm shorter = *g;
    i64 most = 0, longest = i64_min(g->K, 2 * K_SLAB * k->per_step);
    for (shorter.K = 0; shorter.K <= longest; shorter.K++)
        most = i64_max(most, gemm_workspace_bytes(&shorter, k, threads));
    return most;
}
