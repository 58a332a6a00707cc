#include "data/loader_parts.h"

#include "base/hash.h"
#include "base/inject.h"
#include "base/sys.h"
#include "base/sys_share.h"

#include <string.h>

/* --- which tokens ------------------------------------------------------------------- */

void loader_locate(const struct loader *l, i64 g, int *source, i64 *window,
                   struct rng *key)
{
    const struct source *s;
    if (l->eval) {
        *source = 0;
        while (g >= l->sources[*source].first + l->sources[*source].windows)
            ++*source;
        s = &l->sources[*source];
        i64 all = row_windows(&s->data, l->rule.window);
        *window = (i64)((__int128)(g - s->first) * all / s->windows);
        *key = (struct rng){ 0 };
        return;
    }
    i64 nth;
    mixture_at(&l->mixture, g, source, &nth);
    s = &l->sources[*source];
    u64 epoch[2] = { s->key, (u64)(nth / s->windows) };
    *key = (struct rng){ l->config.seed, hash64(epoch, sizeof epoch, 0) };
    *window = rng_permute(key, s->windows, nth % s->windows);
}

i64 loader_row_of_step(const struct loader_step *s, i64 row)
{
    i64 stride = s->stride ? s->stride : s->B;
    return s->first_row + row / s->B * stride + row % s->B;
}

static struct row row_at(const struct slot *s, i64 row)
{
    const i64 at = row * s->shape.T;
    return (struct row){ .tokens = s->tokens + at, .targets = s->targets + at,
                         .positions = s->positions + at, .begin = s->begin + at,
                         .weights = s->weights + at };
}

static int fill_row(struct reader *r, struct slot *slot, i64 row)
{
    const struct loader *l = r->loader;
    i64 T = slot->shape.T, at = row * T, window;
    i64 position = slot->position + loader_row_of_step(&slot->shape, row) * T;
    i64 g = position / l->rule.window;
    const struct row out = row_at(slot, row);
    struct rng key;
    int source = 0, rc = OK;
    slot->sums[row] = (struct row_sums){ 0 };
    if (g >= l->windows) {
        row_clear(&out, T);
    } else {
        loader_locate(l, g, &source, &window, &key);
        rc = row_fill(r->maker, &r->from[source], &key, window, position % l->rule.window,
                      T, &out, &slot->sums[row]);
    }
    for (i64 i = 0; i < T; i++)
        slot->sources[at + i] = source;
    slot->row_source[row] = source;
    return rc;
}

void loader_clear_row(struct slot *slot, i64 row)
{
    const i64 T = slot->shape.T, at = row * T;
    const struct row out = row_at(slot, row);
    slot->sums[row] = (struct row_sums){ 0 };
    slot->row_source[row] = 0;
    row_clear(&out, T);
    memset(slot->sources + at, 0, sizeof *slot->sources * (size_t)T);
}

/* --- disturbed on purpose ----------------------------------------------------------- */

/* Attention ends at more borders, and the end of the row counts in no loss. */
static void disturb_row(const struct loader *l, struct slot *slot, i64 row)
{
    const struct inject *x = l->config.inject;
    const u64 step = slot->shape.step;
    const struct inject_fault *padding = inject_at(x, INJECT_PADDING, step);
    i64 T = slot->shape.T, at = row * T;
    i64 length = inject_length(x, step, loader_row_of_step(&slot->shape, row), T);
    i64 kept = padding ? T - (i64)(padding->value * (double)T) : T;
    for (i64 i = 0; i < T; i++) {
        i64 begin = i64_max(slot->begin[at + i], i / length * length);
        slot->positions[at + i] = (i32)(slot->begin[at + i] == begin ? slot->positions[at + i]
                                                                     : i - begin);
        slot->begin[at + i] = (i32)begin;
        if (i < kept)
            continue;
        slot->sums[row].weight -= (double)slot->weights[at + i];
        slot->weights[at + i] = 0;
    }
}

/* The whole step's, by who begins it. */
static void take_longer(const struct loader *l, const struct slot *slot)
{
    double spin, bytes = 4.0 * (double)(slot->rows * slot->shape.T);
    double all = inject_load(l->config.inject, slot->shape.step, bytes, &spin);
    u64 until = sys_now_ns() + (u64)(1e9 * spin);
    while (spin > 0 && sys_now_ns() < until)
        sys_pause();
    if (all > spin)
        sys_sleep_ns((u64)(1e9 * (all - spin)));
}

/* --- made --------------------------------------------------------------------------- */

static void look_at_row(const struct slot *slot, i64 row, struct row_facts *out)
{
    const i64 T = slot->shape.T, at = row * T;
    bool serves = false;
    for (i64 i = T - 1; i >= 0; i--) {
        serves |= slot->weights[at + i] != 0;
        out->idle += !serves;
        serves &= slot->begin[at + i] != (i32)i; /* no document is seen from the one before */
        out->documents += slot->begin[at + i] == (i32)i;
        out->attended += (double)(i - slot->begin[at + i] + 1);
    }
}

int loader_make_row(struct reader *r, struct slot *slot, i64 row, struct row_facts *facts)
{
    const struct loader *l = r->loader;
    if (l->config.inject && row == 0)
        take_longer(l, slot);
    TRY(fill_row(r, slot, row));
    if (l->config.inject)
        disturb_row(l, slot, row);
    look_at_row(slot, row, facts);
    return OK;
}
