#include "backend/cpu/attend.h"

#include <float.h>

enum {
    PANELS = ATTEND_QUERIES / TILE_COLS,
    FETCH_LINES = ATTEND_KEYS / 4, /* twice a panel: as much as a block has, D 64, bf16 */
};

static const float LOG2_E = 1.44269504f;

/* What a panel carries from block to block. */
struct panel {
    float top[TILE_COLS];  /* largest score so far, -inf before the first key */
    float most[TILE_COLS]; /* the same of the keys here: top may begin from elsewhere */
    float sum[TILE_COLS];  /* of exp(scale (score - top)) */
    i64 first, last;       /* keys that any of its queries sees */
    i64 most_first, least_last;
    i32 first_of[TILE_COLS], last_of[TILE_COLS];
    bool started;
};

/* Dw = sum_words(D). */
struct scratch {
    struct panel panels[PANELS];
    word *q;  /* [PANELS][Dw][TILE_COLS] */
    float *o; /* [PANELS][V][TILE_COLS] */
    word *k;  /* [ATTEND_KEYS][Dw], here or among those that are kept */
    word *v;  /* down_words(V, ATTEND_KEYS) */
    char *block; /* for them here */
    float *s; /* [ATTEND_KEYS][TILE_COLS]; P, in words, takes the same place */
};

static i64 struct_bytes(void)
{
    return round_up((i64)sizeof(struct scratch), 64);
}

i64 NAMED(attend_block_bytes)(i64 D, i64 V)
{
    return round_up(4 * (round_up(ATTEND_KEYS * sum_words(D), 16) + down_words(V, ATTEND_KEYS)),
                    64);
}

i64 NAMED(attend_bytes)(i64 D, i64 V)
{
    return struct_bytes() + 4 * (ATTEND_QUERIES * (V + sum_words(D)) + ATTEND_KEYS * TILE_COLS) +
           NAMED(attend_block_bytes)(D, V);
}

static struct scratch *scratch_place(void *memory, i64 D, i64 V)
{
    struct scratch *s = memory;
    s->q = (word *)((char *)memory + struct_bytes());
    s->o = (float *)(s->q + ATTEND_QUERIES * sum_words(D));
    s->s = s->o + ATTEND_QUERIES * V;
    s->block = (char *)(s->s + ATTEND_KEYS * TILE_COLS);
    return s;
}

/* Lanes without a query repeat the panel's first. */
static void panel_begin(struct panel *p, const struct attend *a, i64 query)
{
    p->first = p->least_last = INT32_MAX;
    p->last = p->most_first = -1;
    p->started = false;
    for (i64 i = 0; i < TILE_COLS; i++) {
        const i64 of = query + i < a->n ? query + i : query;
        p->first_of[i] = a->first[of];
        p->last_of[i] = a->last[of];
        p->first = i64_min(p->first, a->first[of]);
        p->last = i64_max(p->last, a->last[of]);
        p->most_first = i64_max(p->most_first, a->first[of]);
        p->least_last = i64_min(p->least_last, a->last[of]);
        p->top[i] = p->most[i] = -INFINITY;
        p->sum[i] = 0;
    }
}

/* Goes on from what the panel's queries saw elsewhere: a softmax whose largest score is lse and
 * whose sum is 1. */
static void panel_resume(struct panel *p, float *o, const struct attend *a, i64 query)
{
    const i64 n = i64_min(TILE_COLS, a->n - query);
    for (i64 i = 0; i < TILE_COLS; i++) {
        const float lse = a->seen_lse[i < n ? query + i : query];
        p->top[i] = lse / a->scale;
        p->sum[i] = lse == -INFINITY ? 0 : 1;
    }
    panel_from_rows(false, (word *)o, a->seen_y + query * a->y_row, a->y_row, n, a->V);
    p->started = true;
}

/* Scores of keys [key, end) that a query does not see become -inf. s is of key `begin`. */
static void mask_keys(const struct panel *p, float *s, i64 begin, i64 key, i64 end)
{
    const vec hidden = vec_all(-INFINITY);
    for (int side = 0; side < TILE_COLS; side += VL) {
        vec_i32 first, last;
        memcpy(&first, p->first_of + side, sizeof first);
        memcpy(&last, p->last_of + side, sizeof last);
        for (i64 i = key; i < end; i++) {
            vec_i32 at = vec_all_i32((i32)i);
            float *row = s + (i - begin) * TILE_COLS + side;
            vec_store(row, vec_select((at >= first) & (at <= last), vec_load(row), hidden));
        }
    }
}

/* Those that not all queries of the panel see. */
static void mask_block(const struct panel *p, float *s, i64 begin, i64 end)
{
    const i64 from = i64_min(end, i64_max(begin, p->most_first));
    mask_keys(p, s, begin, begin, from);
    mask_keys(p, s, begin, i64_max(from, p->least_last + 1), end);
}

/* The scores of one vector of queries become exp(scale (s - top)), in words from p on; returns
 * the sum of what they were before they were rounded. */
INLINE vec exponentials(const float *s, word *p, i64 keys, float scale, vec shift)
{
    vec total = { 0 };
#if defined(ISA_pairs)
    vec odd = { 0 };
    for (i64 i = 0; i < keys; i += 2) {
        const vec a = vec_exp2(vec_load(s + i * TILE_COLS) * scale - shift);
        vec b = { 0 };
        if (i + 1 < keys)
            b = vec_exp2(vec_load(s + (i + 1) * TILE_COLS) * scale - shift);
        const words both = words_beside(a, b);
        words_store(p + i / 2 * TILE_COLS, words_zip_halves(both));
        total += a;
        odd += b;
    }
    total += odd;
#else
    for (i64 i = 0; i < keys; i++) {
        const vec e = vec_exp2(vec_load(s + i * TILE_COLS) * scale - shift);
        words_store(p + i * TILE_COLS, e);
        total += e;
    }
#endif
    return total;
}

/* The block's part in the softmax of one vector of queries. Returns by how much what was summed
 * before must be scaled. */
INLINE vec softmax_block(struct panel *p, int side, float *s, i64 keys, float scale)
{
    float *top = p->top + side, *most_here = p->most + side, *sum = p->sum + side;
    const vec old = vec_load(top), none = vec_all(-INFINITY);
    vec part[4] = { none, none, none, none };
    i64 i = 0;
    for (; i + 4 <= keys; i += 4)
        for (int k = 0; k < 4; k++)
            part[k] = vec_max(vec_load(s + (i + k) * TILE_COLS), part[k]);
    for (; i < keys; i++)
        part[0] = vec_max(vec_load(s + i * TILE_COLS), part[0]);
    const vec here = vec_max(vec_max(part[0], part[1]), vec_max(part[2], part[3]));
    const vec most = vec_max(here, old);
    vec_store(most_here, vec_max(here, vec_load(most_here)));
    /* A query that has seen no key yet: any finite top gives exp(-inf) = 0. */
    const vec base = vec_select(most > none, most, (vec){ 0 });
    const vec total = exponentials(s, (word *)s, keys, scale, base * scale);
    /* Exactly 1 where the top stays, as it does in a block that the query sees nothing of. */
    const vec decay = vec_exp2((old - base) * scale);
    vec_store(top, most);
    vec_store(sum, vec_load(sum) * decay + total);
    return decay;
}

static void scale_columns(float *o, const vec factor[2], i64 rows)
{
    for (i64 d = 0; d < rows; d++, o += TILE_COLS) {
        vec_store(o, vec_load(o) * factor[0]);
        vec_store(o + VL, vec_load(o + VL) * factor[1]);
    }
}

static bool all_ones(const vec factor[2])
{
    vec_i32 other = (factor[0] != 1.0f) | (factor[1] != 1.0f);
    i32 any = 0;
    for (int i = 0; i < VL; i++)
        any |= other[i];
    return any == 0;
}

/* Keys [key, key + ATTEND_KEYS), of which those in s->k and s->v exist, for one panel. */
static void panel_block(const struct attend *a, struct scratch *s, i64 index, i64 key)
{
    struct panel *p = &s->panels[index];
    const i64 V = a->V, Dw = sum_words(a->D), step = down_step(V);
    const i64 grain = i64_max(PER_WORD, TOKEN_GRAIN); /* words, and groups, by their place */
    const i64 begin = i64_max(p->first / grain * grain, key);
    const i64 seen = i64_min(p->last + 1, key + ATTEND_KEYS) - begin;
    const i64 keys = round_up(seen, TOKEN_GRAIN);
    const word *k = s->k + (begin - key) * Dw, *v = s->v + (begin - key) / PER_WORD * step;
    float *o = s->o + index * V * TILE_COLS;
    if (seen <= 0)
        return;
    const struct tile scores = { .steps = Dw, .a_row = Dw, .a_step = 1, .b_step = TILE_COLS,
                                 .c_row = TILE_COLS };
    /* Of keys that only fill up a group rows of k are anything; their scores are masked. */
    tiles(keys, &scores, k, s->q + index * Dw * TILE_COLS, s->s);
    mask_block(p, s->s, begin, begin + keys);
    fetch_some(a->fetch, FETCH_LINES);
    vec decay[2];
    for (int side = 0; side < 2; side++)
        decay[side] = softmax_block(p, side * VL, s->s + side * VL, keys, a->scale * LOG2_E);
    fetch_some(a->fetch, FETCH_LINES);
    if (p->started && !all_ones(decay))
        scale_columns(o, decay, V);
    const struct tile values = { .steps = words_of(keys), .a_row = down_row(ATTEND_KEYS),
                                 .a_step = step, .b_step = TILE_COLS, .c_row = TILE_COLS,
                                 .add = p->started };
    tiles(V, &values, v, (const word *)s->s, o);
    p->started = true;
}

static void panel_end(const struct attend *a, const struct scratch *s, i64 index)
{
    const struct panel *p = &s->panels[index];
    const i64 query = index * TILE_COLS, n = i64_min(TILE_COLS, a->n - query);
    const float *o = s->o + index * a->V * TILE_COLS;
    void *y = vec_at(a->y_half, a->y, query * a->y_row);
    float inverse[TILE_COLS];
    for (int i = 0; i < TILE_COLS; i++)
        inverse[i] = p->sum[i] == 0 ? 0 : 1 / p->sum[i];
    if (!p->started)
        memset(s->o + index * a->V * TILE_COLS, 0, (size_t)(a->V * TILE_COLS) * sizeof(float));
    if (a->y_half)
        rows_from_panel(true, y, a->y_row, o, inverse, n, a->V);
    else
        rows_from_panel(false, y, a->y_row, o, inverse, n, a->V);
    for (i64 i = 0; a->lse && i < n; i++)
        a->lse[query + i] =
            (float)((double)a->scale * (double)p->top[i] + log((double)p->sum[i]));
    for (i64 i = 0; a->top && i < n; i++)
        a->top[query + i] = p->most[i] > -INFINITY ? a->scale * p->most[i] : -FLT_MAX;
}

static void load_keys(const struct attend *a, struct scratch *s, i64 key, i64 keys)
{
    const void *k = vec_at(a->half, a->k, key * a->k_row);
    const void *v = vec_at(a->half, a->v, key * a->v_row);
    const i64 Dw = sum_words(a->D), block = key / ATTEND_KEYS;
    const bool keep = a->keys.loaded != NULL;
    s->k = (word *)(keep ? a->keys.blocks + block * NAMED(attend_block_bytes)(a->D, a->V)
                         : s->block);
    s->v = s->k + round_up(ATTEND_KEYS * Dw, 16);
    if (keep && a->keys.loaded[block])
        return;
    if (a->half) {
        words_from_rows(true, s->k, Dw, k, a->k_row, keys, a->D);
        words_down_rows(true, s->v, ATTEND_KEYS, v, a->v_row, keys, a->V);
    } else {
        words_from_rows(false, s->k, Dw, k, a->k_row, keys, a->D);
        words_down_rows(false, s->v, ATTEND_KEYS, v, a->v_row, keys, a->V);
    }
    if (keep)
        a->keys.loaded[block] = true;
}

/* The block from this key on, unless it is there. */
static void fetch_keys(const struct attend *a, i64 key, i64 last)
{
    const i64 rows = i64_min(ATTEND_KEYS, last + 1 - key);
    if (rows <= 0 || (a->keys.loaded && a->keys.loaded[key / ATTEND_KEYS]))
        return;
    fetch_add(a->fetch, a->half, a->k, key * a->k_row, a->k_row, rows, a->D);
    fetch_add(a->fetch, a->half, a->v, key * a->v_row, a->v_row, rows, a->V);
}

void NAMED(attend)(const struct attend *a, void *memory)
{
    struct scratch *s = scratch_place(memory, a->D, a->V);
    const i64 panels = ceil_div(a->n, TILE_COLS);
    i64 first = INT32_MAX, last = -1;
    tiles_begin();
    for (i64 i = 0; i < panels; i++) {
        const void *q = vec_at(a->half, a->q, i * TILE_COLS * a->q_row);
        word *panel = s->q + i * sum_words(a->D) * TILE_COLS;
        const i64 n = i64_min(TILE_COLS, a->n - i * TILE_COLS);
        panel_begin(&s->panels[i], a, i * TILE_COLS);
        first = i64_min(first, s->panels[i].first);
        last = i64_max(last, s->panels[i].last);
        if (a->half)
            panel_from_rows(true, panel, q, a->q_row, n, a->D);
        else
            panel_from_rows(false, panel, q, a->q_row, n, a->D);
        if (a->seen_y)
            panel_resume(&s->panels[i], s->o + i * a->V * TILE_COLS, a, i * TILE_COLS);
    }
    for (i64 key = first / ATTEND_KEYS * ATTEND_KEYS; key <= last; key += ATTEND_KEYS) {
        load_keys(a, s, key, i64_min(ATTEND_KEYS, last + 1 - key));
        fetch_keys(a, key + ATTEND_KEYS, last);
        for (i64 i = 0; i < panels; i++)
            panel_block(a, s, i, key);
    }
    for (i64 i = 0; i < panels; i++)
        panel_end(a, s, i);
    tiles_end();
}
