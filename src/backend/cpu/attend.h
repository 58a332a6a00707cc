/* backend/cpu/attend.h - the forward pass of attention for some queries of one head.
 *
 * Queries are taken TILE_COLS at a time, a *panel*, with queries along the vector:
 *   S' = K Q'   (keys x queries)     K as it lies, Q transposed once
 *   P' = exp(scale S' - top)         maxima and sums run down columns: no lane crosses
 *   O' += V' P' (V x queries)        V as it lies, read across
 * over blocks of ATTEND_KEYS keys at absolute positions, ascending, with the running
 * maximum and sum of online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). A query's
 * bits depend on the keys it may see and their positions alone: keys beyond are either
 * skipped, or masked and then add exact zeros (which takes finite values, and with tile registers
 * sums that are not subnormal). Operands are words (tile.h): with pairs of bf16, P' is rounded for
 * the product with V', and pairs of keys begin at even positions, groups for tile registers at
 * multiples of 32. */
#ifndef HEADWAY_ATTEND_H
#define HEADWAY_ATTEND_H

#include "backend/cpu/fetch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/tile.h"
#include "ops/zigzag.h"

enum { ATTEND_QUERIES = 256, ATTEND_KEYS = 96 * PER_WORD };

/* Blocks of keys and values as they were loaded, by key / ATTEND_KEYS. A block is loaded as far as
 * the first queries that see it look, so those of a head come from the last to the first. */
struct attend_keys {
    bool *loaded;
    char *blocks; /* attend_block_bytes each */
};

/* Queries 0 .. n-1; query i sees keys first[i] .. last[i]; first > last: none. What they saw
 * among other keys may be given: the running maximum and sum then begin from that. A query
 * that sees nothing has y 0 and lse -inf. Strides in elements. */
struct attend {
    bool half, y_half;
    i64 D, V, n; /* V: of a value and of y */
    const void *q, *k, *v; /* of query 0, of key 0 */
    i64 q_row, k_row, v_row, y_row;
    void *y;
    float *lse, *top; /* NULL: not wanted; top: the largest scaled score, -FLT_MAX of none */
    const float *seen_y, *seen_lse; /* y, in rows of y_row, and lse of other keys; or NULL */
    const i32 *first, *last;
    float scale;
    struct attend_keys keys; /* loaded NULL: none are kept */
    struct fetch *fetch;     /* asked for beside the arithmetic, after the keys that come next */
};

/* Where the queries and keys of an attention task lie, of all heads: in one tensor or in two,
 * and which tokens of their rows they are. B rows of T queries and of Tk keys here. */
struct attention_view {
    i64 B, T, Tk, H, G, D, V, window, pairs;
    float scale;
    bool half;
    const void *q, *keys;
    i64 q_row, k_row, k_at, v_at; /* strides; of key and value head 0 in a row of keys */
    const i32 *begin;
    struct zigzag query_part, key_part;
};

/* kv NULL: q holds H + G heads and G values, and queries see their own rows' tokens. */
static inline struct attention_view attention_view(const struct task *t, const struct tensor *q,
                                                   const struct tensor *kv,
                                                   const struct tensor *begin)
{
    struct attention_view v = {
        .B = (i64)t->attr[ATTENTION_B], .T = (i64)t->attr[ATTENTION_T],
        .H = (i64)t->attr[ATTENTION_H], .G = (i64)t->attr[ATTENTION_G],
        .D = (i64)t->attr[ATTENTION_D], .window = (i64)t->attr[ATTENTION_WINDOW],
        .scale = (float)t->attr[ATTENTION_SCALE], .half = is_half(q->dtype), .q = q->data,
        .keys = kv ? kv->data : q->data, .q_row = tensor_columns(q), .begin = begin->data,
    };
    const i64 parts = kv ? (i64)t->attr[BLOCK_PARTS] : 1;
    const bool whole = kv && t->attr[BLOCK_KEYS] < 0;
    v.Tk = whole ? parts * v.T : v.T;
    v.pairs = (i64)t->attr[ATTENTION_PAIRS];
    v.k_row = kv ? tensor_columns(kv) : v.q_row;
    v.k_at = kv ? 0 : v.H * v.D;
    v.v_at = v.k_at + v.G * v.D;
    v.V = t->attr[ATTENTION_VALUE] > 0 ? (i64)t->attr[ATTENTION_VALUE] : v.D;
    v.query_part = zigzag_part(parts, kv ? (i64)t->attr[BLOCK_QUERIES] : 0, v.T);
    v.key_part = whole ? zigzag_part(1, 0, v.Tk)
                       : zigzag_part(parts, kv ? (i64)t->attr[BLOCK_KEYS] : 0, v.T);
    return v;
}

/* Keys first .. last of row b are what its query i may see. Both grow with i. */
static inline void attention_range(const struct attention_view *v, i64 b, i64 i, i32 *first,
                                   i32 *last)
{
    const i64 place = zigzag_place(&v->query_part, i);
    const i64 from = i64_max(v->begin[b * v->T + i], v->window > 0 ? place - v->window + 1 : 0);
    *first = (i32)zigzag_before(&v->key_part, from);
    *last = (i32)zigzag_before(&v->key_part, place + 1) - 1;
}

i64 NAMED(attend_bytes)(i64 D, i64 V);
i64 NAMED(attend_block_bytes)(i64 D, i64 V);
/* n <= ATTEND_QUERIES; scratch has attend_bytes, aligned to 64. */
void NAMED(attend)(const struct attend *a, void *scratch);

#endif
