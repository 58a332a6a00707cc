/* tests/parallel/exact.h - are the ranks of a layout one rank, to the last bit? */
#ifndef HEADWAY_TEST_EXACT_H
#define HEADWAY_TEST_EXACT_H

#include "parallel/ranks.h"

#include <stdio.h>
#include <stdlib.h>

/* One element of a rank's state, by its place in its bucket; NULL: not on this rank. */
struct state_kind {
    const char *name;
    const void *(*at)(const struct bucket *b, i64 at);
    enum dtype (*dtype)(const struct bucket *b, i64 at);
};

/* Gradients and master weights of a split state are whole in the own slice only. */
static bool owns(const struct bucket *b, i64 at)
{
    return at < b->copied || (at >= b->own_begin && at < b->own_begin + b->own_count);
}

static const void *flat_at(const struct tensor *t, i64 at)
{
    return t && at >= 0 ? (const u8 *)t->data + at * dtype_bytes(t->dtype) : NULL;
}

static const void *grad_at(const struct bucket *b, i64 at)
{
    if (!owns(b, at))
        return NULL;
    return flat_at(b->own_grad, b->split_grads ? bucket_state_at(b, at) : at);
}

static const void *master_at(const struct bucket *b, i64 at)
{
    if (!owns(b, at))
        return NULL;
    return flat_at(b->master, b->split_weights ? bucket_state_at(b, at) : at);
}

static const void *compute_at(const struct bucket *b, i64 at)
{
    if (at < b->copied || (!b->compute && !b->split_weights))
        return flat_at(b->master, at);
    if (!b->compute)
        return master_at(b, at);
    if (b->split_weights)
        return owns(b, at) ? flat_at(b->compute, at - b->own_begin) : NULL;
    return flat_at(b->compute, at - b->copied);
}

static const void *m_at(const struct bucket *b, i64 at)
{
    return flat_at(b->m, bucket_state_at(b, at));
}

static const void *v_at(const struct bucket *b, i64 at)
{
    return at < b->adam ? flat_at(b->v, bucket_state_at(b, at)) : NULL;
}

static const void *ema_at(const struct bucket *b, i64 at)
{
    return flat_at(b->ema, bucket_state_at(b, at));
}

static enum dtype wide(const struct bucket *b, i64 at)
{
    (void)b;
    (void)at;
    return DTYPE_F32;
}

static enum dtype narrow(const struct bucket *b, i64 at)
{
    return at < b->copied || !b->compute ? DTYPE_F32 : b->compute->dtype;
}

static const struct state_kind state_kinds[] = {
    { "gradient", grad_at, wide }, { "first moment", m_at, wide }, { "second moment", v_at, wide },
    { "master weight", master_at, wide }, { "weight", compute_at, narrow },
    { "average", ema_at, wide },
};

/* Of one kind of one parameter: a rank's share beside the whole, whose elements that were met are
 * noted. In words what differs; NULL: nothing. */
static const char *share_difference(const struct state_kind *s, const struct param *p,
                                    const struct param *q, int rank, u8 *met)
{
    static char text[256];
    for (i64 k = 0; k < param_here(p); k++) {
        const i64 place = place_in_whole(p, k);
        const void *x = s->at(p->bucket, p->at + k), *y = s->at(q->bucket, q->at + place);
        const enum dtype dtype = s->dtype(p->bucket, p->at + k);
        met[place] |= x && y;
        if (!x || !y || memcmp(x, y, (size_t)dtype_bytes(dtype)) == 0)
            continue;
        snprintf(text, sizeof text, "%s of %s, element %lld: %a on rank %d, one rank has %a",
                 s->name, p->desc.name, (long long)place, dtype_get(dtype, x, 0), rank,
                 dtype_get(dtype, y, 0));
        return text;
    }
    return NULL;
}

/* An element that one rank has and no rank of the island had; NULL: there is none. */
static const char *gap_between_shares(const struct state_kind *s, const struct param *q,
                                      const u8 *met)
{
    static char text[256];
    for (i64 place = 0; place < param_here(q); place++) {
        if (met[place] || !s->at(q->bucket, q->at + place))
            continue;
        snprintf(text, sizeof text, "%s of %s, element %lld: on no rank", s->name, q->desc.name,
                 (long long)place);
        return text;
    }
    return NULL;
}

/* Of all ranks of an island. */
static const char *kind_difference(const struct state_kind *s, const struct param *q,
                                   const struct ranks *many, int island)
{
    u8 *met = calloc((size_t)i64_max(1, param_here(q)), 1);
    const char *text = NULL;
    for (int r = 0; r < many->n && !text; r++) {
        const struct param *p = many->rank[r].mesh.island == island
                                    ? model_param(many->rank[r].model, q->desc.id, q->desc.layer)
                                    : NULL;
        text = p ? share_difference(s, p, q, r, met) : NULL;
    }
    if (!text)
        text = gap_between_shares(s, q, met);
    free(met);
    return text;
}

/* The first element that differs from the one rank's (of the same island), or that no rank has, in
 * words; NULL: none. */
static const char *exact_difference(const struct ranks *one, const struct ranks *many)
{
    for (i64 kind = 0; kind < COUNT_OF(state_kinds); kind++)
        for (int island = 0; island < one->n; island++)
            for (i64 i = 0; i < one->rank[island].model->n_params; i++) {
                const struct param *p = &one->rank[island].model->params[i];
                const char *text = kind_difference(&state_kinds[kind], p, many, island);
                if (text)
                    return text;
            }
    return NULL;
}

/* What routers did, over all ranks with rows of their own; NULL: nothing differs. */
static const char *exact_load_difference(const struct ranks *one, const struct ranks *many)
{
    static char text[128];
    const struct tensor *alone = one->rank[0].io.load;
    for (i64 i = 0; alone && i < tensor_count(alone); i++) {
        double sum = 0, wanted = ((const double *)alone->data)[i];
        for (int r = 0; r < many->n; r++)
            if (mesh_coordinate(&many->rank[r].mesh, LANE_TP) == 0)
                sum += ((const double *)many->rank[r].io.load->data)[i];
        if (sum == wanted)
            continue;
        snprintf(text, sizeof text, "load %lld is %a, one rank has %a", (long long)i, sum, wanted);
        return text;
    }
    return NULL;
}

struct exact_case {
    bool gpt2, half;
    i64 B;
    int micro_batches; /* B x micro_batches rows per step, of all ranks */
    const char *layout;
    enum recompute recompute;
    int threads;
    i64 heads, window; /* as in struct ranks_options */
};

/* One rank has the order of sums that many have. */
static inline const char *exact_alone(const char *layout)
{
    return strstr(layout, "cp=") ? "exact=true,exact_context=true" : "exact=true";
}

static struct ranks_options exact_options(const struct exact_case *c, const char *layout)
{
    struct ranks_options o = { .tiny = { .threads = i64_max(1, c->threads), .B = c->B,
                                         .micro_batches = c->micro_batches,
                                         .gpt2 = c->gpt2, .bf16 = c->half,
                                         .backend = backend_best() } };
    o.layout = layout;
    o.heads = c->heads;
    o.window = c->window;
    return o;
}

enum { EXACT_STEPS = 3 };

/* In words what differs after one of the steps [first, end); NULL: nothing. */
static const char *exact_steps(struct ranks *one, struct ranks *many, u64 first, u64 end)
{
    static char text[400];
    for (u64 step = first; step < end; step++) {
        double a = ranks_step(one, step), b = 0;
        if (ranks_try_step(many, step, &b) < 0) {
            snprintf(text, sizeof text, "step %d: %s", (int)step, err_message());
            return text;
        }
        const char *difference = exact_difference(one, many);
        if (!difference)
            difference = exact_load_difference(one, many);
        if (a != b)
            snprintf(text, sizeof text, "step %d: loss %a, one rank has %a; %s", (int)step, b, a,
                     difference ? difference : "");
        else if (difference)
            snprintf(text, sizeof text, "step %d: %s", (int)step, difference);
        else
            continue;
        return text;
    }
    return NULL;
}

static inline const char *exact_run(struct ranks *one, struct ranks *many)
{
    return exact_steps(one, many, 0, EXACT_STEPS);
}

/* The options' layout beside one rank without recompute, both exact. */
static inline void expect_exact_options(const struct ranks_options *o)
{
    struct ranks one, many;
    char layout[128];
    snprintf(layout, sizeof layout, "%s,%s", o->layout, exact_alone(o->layout));
    struct ranks_options alone = *o, all = *o;
    alone.layout = exact_alone(o->layout);
    alone.tiny.recompute = RECOMPUTE_NONE;
    all.layout = layout;
    ranks_open(&one, &alone);
    ranks_open(&many, &all);
    const char *difference = exact_run(&one, &many);
    if (difference)
        fail_msg("%s, %s, %d x %lld rows%s%s%s: %s", o->layout,
                 (const char *[]){ "llama", "mixtral", "deepseek", "capacity", "gpt2" }
                     [o->tiny.gpt2 ? 4 : o->tiny.experts],
                 (int)o->tiny.micro_batches, (long long)o->tiny.B, o->tiny.bf16 ? ", bf16" : "",
                 o->tiny.recompute ? ", recompute" : "",
                 o->tiny.optimizer == OPTIMIZER_MUON ? ", muon" : "", difference);
    ranks_close(&one);
    ranks_close(&many);
}

/* layers 0: those of the tiny model. */
static inline void expect_exact_layers(const struct exact_case *c, i64 layers)
{
    struct ranks_options o = exact_options(c, c->layout);
    o.layers = layers;
    o.tiny.recompute = c->recompute;
    expect_exact_options(&o);
}

static inline void expect_exact(const struct exact_case *c)
{
    expect_exact_layers(c, 0);
}

#endif
