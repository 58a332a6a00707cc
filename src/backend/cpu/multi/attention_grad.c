/* The gradient of causal attention, after FlashAttention-2 (Dao 2023, algorithm 2), of whole rows
 * and of a part of a row's queries against a part of its keys.
 *
 * A chunk of keys of one key head walks the queries that see it, in blocks, for each query head of
 * the group, and multiplies tiles of at most QUERIES x TILE_COLS (queries x keys), one panel of
 * keys after the other:
 *   S = Q K'      P = exp(scale S - lse)       dP = dY V'     dS = P (dP - delta)
 *   dV' += dY' P  dK' += Q' dS  (D x keys, kept in scratch)
 *   dQ  += dS K   (queries x D, one sum per query head in the workspace)
 * with delta = rowsum(dY Y). Every sum has a fixed order: over queries and heads ascending
 * within a chunk, or, with ATTENTION_PAIRS, within each pair of chunks of queries, whose sums are
 * added in a tree; over chunks of keys ascending for dQ.
 *
 * As many key heads as threads can share evenly are parts of their own: a thread takes one chunk
 * after the other and loads the queries once. Of the other heads each chunk is a part, which waits
 * for dQ until the chunk before has passed the block. That never blocks for good: parts are taken
 * in order of their chunks, so the one waited for is running or done.
 *
 * Operands are words (tile.h): with pairs of bf16, P and dS are rounded for the products that they
 * enter. */
#include "backend/cpu/attend.h"
#include "backend/cpu/fetch.h"

#include <sched.h>
#include <stdatomic.h>

enum {
    KEYS = 192,              /* per chunk */
    QUERIES = 96 * PER_WORD, /* per block; a chunk is a whole number of blocks */
    TOKENS = 32,             /* per part of what comes first */
    KEPT_BYTES = 4 << 20,    /* of queries that a thread keeps as loaded: about what L2 has */
    PANELS = KEYS / TILE_COLS,
    FETCH_LINES = 3 * QUERIES / 4, /* beside a panel of keys; D 64 needs 128 of 144 in bf16 */
    PANEL_WORDS = TILE_COLS / PER_WORD, /* of a row of dS */
    DS_ROW = PANELS * PANEL_WORDS + 16, /* words from row to row of dS: no power of two, which
                                        * would put all rows into the same sets of L1 */
    DP_ROW = PER_WORD > 1 ? (int)TILE_COLS : (int)DS_ROW,
    /* Rows whose S and dP exist at a time. Those of all rows of a block would leave L1 before the
     * next panel's replace them, and tile registers are slowly stored where L1 has no line. */
    RUN = PER_WORD > 1 ? 32 : (int)QUERIES,
};

static const float LOG2_E = 1.44269504f;

/* Where a gradient of heads goes: element `at` of rows of `row` elements. */
struct target {
    bool half;
    void *data;
    i64 row, at;
};

/* The task, taken apart. Rows are padded to Dp words where they are a right operand; where the
 * sum runs along them they are Dw words, those of values and of dy Vw. */
struct shape {
    struct attention_view v;
    i64 B, T, Tk, H, G, D, V, Dp, Dw, Vw, chunks; /* D: of queries and keys; V: of values */
    i64 pairs, levels; /* of chunks of queries; sums of them that are put by */
    i64 blocks;        /* of queries in a pair */
    float scale;
    bool half;
    const struct tensor *dy, *y, *lse;
    struct target to_q, to_k, to_v;
    const struct tensor *sum_q; /* dq is added to it; NULL: to nothing */
    bool adds;
    i64 whole;               /* key heads that are parts of their own */
    i64 slots;               /* blocks of queries that such a part keeps */
    float *dq;               /* workspace: [threads][H / G][T][Dp], a key head at a time each */
    float *delta;            /* [B][H][T] */
    _Atomic i32 *passed;     /* [B][H][chunks]: blocks of queries that a chunk is done with */
    char *scratch;           /* per thread */
};

/* A block of queries as it is loaded. Of pairs each operand has its own order; f32 are read in
 * any. */
struct queries {
    word *q, *dy;           /* [QUERIES][Dw], [QUERIES][Vw] */
    word *q_down, *dy_down; /* down_words(D or V, QUERIES); or q and dy themselves */
    bool ranged, loaded;    /* first and last are there; all is */
    float lse[QUERIES], delta[QUERIES]; /* lse in powers of two */
    i32 first[QUERIES], last[QUERIES];  /* the keys each query sees */
};

/* Scratch of one thread. */
struct scratch {
    word *k;             /* [words_of(KEYS)][Dp], rows beyond T zero */
    word *kt, *vt;       /* [PANELS][Dw][TILE_COLS], [PANELS][Vw][TILE_COLS] */
    float *dkt, *dvt;    /* [PANELS][D][TILE_COLS], [PANELS][V][TILE_COLS], one behind the other */
    float *put_by;       /* [levels] of both */
    bool started[PANELS]; /* there are sums of it in dkt and dvt */
    float *s;            /* [RUN][TILE_COLS] */
    word *p;             /* [words_of(QUERIES)][TILE_COLS] from a panel's first row on; or s */
    word *ds;            /* [QUERIES][DS_ROW] */
    float *dp;           /* [RUN][TILE_COLS], or in ds itself */
    word *ds_down;       /* dS again, for sums over queries: as p, or in ds itself */
    struct queries *kept; /* [slots] */
    struct fetch fetch;
};

/* One block of queries against one chunk of keys. */
struct block {
    struct queries *of;
    float *dq;  /* of the key head */
    i64 slots;  /* 1: `of` is another block's each time */
    bool alone; /* one thread takes all chunks */
    i64 b, g, h, query, queries; /* queries query .. query + queries - 1 of row b */
    i64 turn;                 /* how many blocks of the head's queries come before */
    i64 key, keys;
    i64 row0[PANELS], row1[PANELS]; /* rows of the block that a panel of keys concerns */
};

/* --- workspace ---------------------------------------------------------------------- */

static i64 share_of(const struct shape *s)
{
    return s->H / s->G;
}

static i64 queries_words(const struct shape *s)
{
    return round_up((i64)sizeof(struct queries), 64) / 4 + round_up(QUERIES * s->Dw, 16) +
           round_up(QUERIES * s->Vw, 16) +
           (PER_WORD - 1) * (down_words(s->D, QUERIES) + down_words(s->V, QUERIES));
}

static i64 scratch_words(const struct shape *s)
{
    return round_up((i64)sizeof(struct scratch), 64) / 4 + words_of(KEYS) * s->Dp +
           KEYS * (s->Dw + s->Vw) + (1 + s->levels) * KEYS * (s->D + s->V) + RUN * TILE_COLS +
           QUERIES * DS_ROW + s->slots * queries_words(s) +
           (PER_WORD - 1) * (RUN * TILE_COLS + 2 * words_of(QUERIES) * TILE_COLS);
}

static void *take(word **next, i64 count)
{
    void *at = *next;
    *next += count;
    return at;
}

static struct queries *queries_place(const struct shape *s, word *next)
{
    struct queries *of = (struct queries *)next;
    next += round_up((i64)sizeof *of, 64) / 4;
    of->q = of->q_down = take(&next, round_up(QUERIES * s->Dw, 16));
    of->dy = of->dy_down = take(&next, round_up(QUERIES * s->Vw, 16));
    if (PER_WORD > 1) {
        of->q_down = take(&next, down_words(s->D, QUERIES));
        of->dy_down = take(&next, down_words(s->V, QUERIES));
    }
    of->ranged = of->loaded = false;
    return of;
}

static struct scratch *scratch_of(const struct shape *s, int thread)
{
    struct scratch *c = (struct scratch *)(s->scratch + thread * scratch_words(s) * 4);
    word *next = (word *)c + round_up((i64)sizeof *c, 64) / 4;
    c->k = take(&next, words_of(KEYS) * s->Dp);
    c->kt = take(&next, KEYS * s->Dw);
    c->vt = take(&next, KEYS * s->Vw);
    c->dkt = take(&next, KEYS * s->D);
    c->dvt = take(&next, KEYS * s->V);
    c->put_by = take(&next, s->levels * KEYS * (s->D + s->V));
    c->s = take(&next, RUN * TILE_COLS);
    c->p = (word *)c->s;
    c->ds = take(&next, QUERIES * DS_ROW);
    if (PER_WORD > 1) {
        c->dp = take(&next, RUN * TILE_COLS);
        c->p = take(&next, words_of(QUERIES) * TILE_COLS);
        c->ds_down = take(&next, words_of(QUERIES) * TILE_COLS);
    }
    c->kept = take(&next, s->slots * queries_words(s));
    return c;
}

/* Nothing is loaded. */
static void forget_queries(const struct shape *s, struct scratch *c, i64 slots)
{
    for (i64 i = 0; i < slots; i++)
        queries_place(s, (word *)c->kept + i * queries_words(s));
}

/* dP from row r of a panel of keys on, rows of DP_ROW floats. */
static float *panel_dp(const struct scratch *c, i64 panel, i64 r)
{
    return PER_WORD > 1 ? c->dp : (float *)c->ds + r * DS_ROW + panel * TILE_COLS;
}

/* dS from a panel's first row on, rows of DP_ROW words: pairs down the rows have their own place,
 * others replace dP. */
static const word *panel_ds(const struct scratch *c, i64 panel, i64 row0)
{
    return PER_WORD > 1 ? c->ds_down : c->ds + row0 * DS_ROW + panel * TILE_COLS;
}

static struct target target_of(const struct tensor *t, i64 at)
{
    return (struct target){ is_half(t->dtype), t->data, tensor_columns(t), at };
}

static struct shape shape_of(const struct attention_view *v)
{
    struct shape s = { .v = *v, .B = v->B, .T = v->T, .Tk = v->Tk, .H = v->H, .G = v->G,
                       .D = v->D, .V = v->V, .Dp = round_up(v->D, TILE_COLS),
                       .Dw = sum_words(v->D), .Vw = sum_words(v->V),
                       .chunks = ceil_div(v->Tk, KEYS), .scale = v->scale, .half = v->half,
                       .pairs = i64_max(1, v->pairs) };
    while (s.pairs >> (s.levels + 1) > 0)
        s.levels++;
    s.blocks = v->pairs > 0 ? 2 * ceil_div(v->T / (2 * v->pairs), QUERIES)
                            : ceil_div(v->T, QUERIES);
    s.slots = s.H / s.G * s.pairs * s.blocks;
    if (s.slots * queries_words(&s) * 4 > KEPT_BYTES)
        s.slots = 1;
    return s;
}

static struct shape row_shape(const struct task *t)
{
    const struct attention_view v = attention_view(t, t->in[1], NULL, t->in[4]);
    struct shape s = shape_of(&v);
    s.dy = t->in[0];
    s.y = t->in[2];
    s.lse = t->in[3];
    s.to_q = target_of(t->out[0], 0);
    s.to_k = target_of(t->out[0], v.k_at);
    s.to_v = target_of(t->out[0], v.v_at);
    return s;
}

static struct shape block_shape(const struct task *t)
{
    const struct attention_view v = attention_view(t, t->in[1], t->in[2], t->in[5]);
    struct shape s = shape_of(&v);
    s.dy = t->in[0];
    s.y = t->in[3];
    s.lse = t->in[4];
    s.to_q = target_of(t->out[0], 0);
    s.to_k = target_of(t->out[1], v.k_at);
    s.to_v = target_of(t->out[1], v.v_at);
    s.sum_q = t->in[6];
    s.adds = s.sum_q || s.Tk == s.T; /* else each query meets all that it sees */
    return s;
}

static i64 dq_bytes(const struct shape *s, int threads)
{
    return round_up(threads * share_of(s) * s->T * s->Dp * 4, 64);
}

static i64 shared_bytes(const struct shape *s, int threads)
{
    const i64 heads = s->B * s->H;
    return dq_bytes(s, threads) + round_up(heads * s->T * 4, 64) +
           round_up(heads * s->chunks * 4, 64);
}

static void place(struct shape *s, char *workspace, int threads)
{
    const i64 heads = s->B * s->H;
    s->dq = (float *)workspace;
    s->delta = (float *)(workspace + dq_bytes(s, threads));
    s->passed = (_Atomic i32 *)((char *)s->delta + round_up(heads * s->T * 4, 64));
    s->scratch = workspace + shared_bytes(s, threads);
}

/* --- first: delta, zeros ------------------------------------------------------------ */

INLINE float row_dot(bool half, const void *a, const void *b, i64 n)
{
    vec sum = { 0 };
    for (i64 i = 0; i < n; i += VL)
        sum += vec_get_n(half, a, i, n - i) * vec_get_n(half, b, i, n - i);
    return vec_sum(sum);
}

/* What dQ will be added to, where it is. */
static void begin_sum(const struct shape *s, i64 row, i64 h)
{
    float *to = (float *)s->to_q.data + row * s->to_q.row + h * s->D;
    const float *from = s->sum_q ? (const float *)s->sum_q->data + (to - (float *)s->to_q.data)
                                 : NULL;
    if (!from)
        memset(to, 0, (size_t)s->D * sizeof(float));
    else if (from != to)
        memcpy(to, from, (size_t)s->D * sizeof(float));
}

/* Of a few tokens, all heads: delta_t = dy_t . y_t, and where dQ begins from a sum. */
static void prepare_tokens(void *context, i64 part, int thread)
{
    const struct shape *s = context;
    const i64 rows = s->B * s->T, end = i64_min((part + 1) * TOKENS, rows);
    (void)thread;
    for (i64 row = part * TOKENS; row < end; row++) {
        for (i64 h = 0; h < s->H; h++) {
            const i64 at = (row * s->H + h) * s->V;
            const void *dy = vec_at(s->half, s->dy->data, at);
            const void *y = vec_at(s->half, s->y->data, at);
            s->delta[(row / s->T * s->H + h) * s->T + row % s->T] =
                s->half ? row_dot(true, dy, y, s->V) : row_dot(false, dy, y, s->V);
            if (s->adds)
                begin_sum(s, row, h);
        }
    }
}

/* --- loading ------------------------------------------------------------------------ */

INLINE void load_keys_as(bool half, const struct shape *s, struct scratch *c, i64 b, i64 g,
                         i64 key, i64 keys)
{
    const i64 columns = s->v.k_row;
    const void *row = vec_at(half, s->v.keys, (b * s->Tk + key) * columns);
    const void *k = vec_at(half, row, s->v.k_at + g * s->D);
    const void *v = vec_at(half, row, s->v.v_at + g * s->V);
    words_across_rows(half, c->k, s->Dp, k, columns, keys, s->D);
    for (i64 at = 0; at < keys; at += TILE_COLS) {
        const i64 n = i64_min(TILE_COLS, keys - at);
        panel_from_rows(half, c->kt + at * s->Dw, vec_at(half, k, at * columns), columns, n, s->D);
        panel_from_rows(half, c->vt + at * s->Vw, vec_at(half, v, at * columns), columns, n, s->V);
    }
}

static void load_keys(const struct shape *s, struct scratch *c, i64 b, i64 g, i64 key, i64 keys)
{
    memset(c->k, 0, (size_t)(words_of(KEYS) * s->Dp) * sizeof *c->k);
    if (s->half)
        load_keys_as(true, s, c, b, g, key, keys);
    else
        load_keys_as(false, s, c, b, g, key, keys);
}

/* Queries with those that only fill up a group, which see nothing. */
static i64 filled(const struct block *k)
{
    return round_up(k->queries, TOKEN_GRAIN);
}

INLINE void load_rows(bool half, i64 D, word *along, word *down, const void *rows, i64 row,
                      i64 count)
{
    const i64 Dw = sum_words(D);
    words_from_rows(half, along, Dw, rows, row, count, D);
    for (i64 r = count; r < round_up(count, TOKEN_GRAIN); r++)
        memset(along + r * Dw, 0, (size_t)Dw * sizeof *along);
    if (down != along)
        words_down_rows(half, down, QUERIES, rows, row, count, D);
}

static void load_queries(const struct shape *s, const struct block *k)
{
    const i64 row = k->b * s->T + k->query, head = k->b * s->H + k->h, q_row = s->v.q_row;
    const void *q = vec_at(s->half, s->v.q, row * q_row + k->h * s->D);
    const void *dy = vec_at(s->half, s->dy->data, (row * s->H + k->h) * s->V);
    const float *lse = (const float *)s->lse->data + head * s->T + k->query;
    struct queries *of = k->of;
    if (of->loaded)
        return;
    if (s->half) {
        load_rows(true, s->D, of->q, of->q_down, q, q_row, k->queries);
        load_rows(true, s->V, of->dy, of->dy_down, dy, s->H * s->V, k->queries);
    } else {
        load_rows(false, s->D, of->q, of->q_down, q, q_row, k->queries);
        load_rows(false, s->V, of->dy, of->dy_down, dy, s->H * s->V, k->queries);
    }
    for (i64 i = 0; i < k->queries; i++) {
        of->lse[i] = lse[i] * LOG2_E;
        of->delta[i] = s->delta[head * s->T + k->query + i];
    }
    for (i64 i = k->queries; i < filled(k); i++)
        of->lse[i] = of->delta[i] = 0;
    of->loaded = true;
}

static void load_ranges(const struct shape *s, const struct block *k)
{
    struct queries *of = k->of;
    if (of->ranged)
        return;
    for (i64 i = 0; i < k->queries; i++)
        attention_range(&s->v, k->b, k->query + i, &of->first[i], &of->last[i]);
    for (i64 i = k->queries; i < filled(k); i++) {
        of->first[i] = INT32_MAX;
        of->last[i] = -1;
    }
    of->ranged = true;
}

/* --- fetching ahead ----------------------------------------------------------------- */

/* The next block of queries. */
static void fetch_queries(const struct shape *s, struct fetch *f, const struct block *k)
{
    const i64 next = k->query + k->queries, rows = i64_min(QUERIES, s->T - next);
    const i64 row = k->b * s->T + next, q_row = s->v.q_row, dy_row = s->H * s->V;
    fetch_add(f, s->half, s->v.q, row * q_row + k->h * s->D, q_row, rows, s->D);
    fetch_add(f, s->half, s->dy->data, row * dy_row + k->h * s->V, dy_row, rows, s->V);
}

/* Where the gradients of a chunk of keys go, and, if one thread takes all of them, the next one. */
static void fetch_keys(const struct shape *s, struct fetch *f, const struct block *k)
{
    const i64 next = k->key + KEYS, columns = s->v.k_row, at = (k->b * s->Tk + next) * columns;
    const i64 rows = k->alone ? i64_min(KEYS, s->Tk - next) : 0, row = k->b * s->Tk + k->key;
    const struct target *to_k = &s->to_k, *to_v = &s->to_v;
    f->n = 0;
    fetch_add(f, to_k->half, to_k->data, row * to_k->row + to_k->at + k->g * s->D, to_k->row,
              k->keys, s->D);
    fetch_add(f, to_v->half, to_v->data, row * to_v->row + to_v->at + k->g * s->V, to_v->row,
              k->keys, s->V);
    fetch_add(f, s->half, s->v.keys, at + s->v.k_at + k->g * s->D, columns, rows, s->D);
    fetch_add(f, s->half, s->v.keys, at + s->v.v_at + k->g * s->V, columns, rows, s->V);
}

/* Which rows each panel of keys concerns, rounded to whole tiles of rows. False when no
 * query of the block sees a key of the chunk. */
static bool find_rows(struct block *k)
{
    const i32 *firsts = k->of->first, *lasts = k->of->last;
    bool any = false;
    for (i64 p = 0; p < PANELS; p++) {
        const i64 key = k->key + p * TILE_COLS, last = key + TILE_COLS - 1;
        i64 row0 = 0, row1 = k->queries;
        while (row0 < k->queries && lasts[row0] < key)
            row0++;
        while (row1 > 0 && firsts[row1 - 1] > last)
            row1--;
        k->row0[p] = row0 < k->queries ? row0 / TILE_ROWS * TILE_ROWS : filled(k);
        k->row1[p] = i64_min(filled(k), round_up(row1, TILE_ROWS));
        any = any || k->row0[p] < k->row1[p];
    }
    return any;
}

/* --- one panel of keys -------------------------------------------------------------- */

/* Of row r: P = exp(scale S - lse), 0 where the query does not see the key, and dS. */
INLINE void row_grad(bool masked, const struct shape *s, const struct queries *of, i64 r, i64 key,
                     const float *score, const float *dp, vec p[2], vec ds[2])
{
    for (int i = 0; i < 2; i++) {
        p[i] = vec_exp2(vec_load(score + i * VL) * (s->scale * LOG2_E) - of->lse[r]);
        if (masked) {
            vec_i32 at = vec_lanes() + (i32)(key + i * VL);
            p[i] = vec_select((at >= of->first[r]) & (at <= of->last[r]), p[i], (vec){ 0 });
        }
        ds[i] = p[i] * (vec_load(dp + i * VL) - of->delta[r]);
    }
}

/* Rows [r0, r1) of a panel of keys: S and dP become P and dS. */
#if defined(ISA_pairs)
/* Both as pairs down the rows, and dS as pairs along them. */
INLINE void softmax_grad(bool masked, const struct shape *s, struct scratch *c,
                         const struct block *k, i64 panel, i64 r0, i64 r1)
{
    const i64 key = k->key + panel * TILE_COLS, place = (r0 - k->row0[panel]) / 2 * TILE_COLS;
    const float *score = c->s, *dp = c->dp;
    word *ps = c->p + place, *down = c->ds_down + place;
    word *along = c->ds + r0 * DS_ROW + panel * PANEL_WORDS;
    for (i64 r = r0; r < r1; r += 2) {
        vec p[2][2] = { 0 }, ds[2][2] = { 0 };
        row_grad(masked, s, k->of, r, key, score, dp, p[0], ds[0]);
        if (r + 1 < r1)
            row_grad(masked, s, k->of, r + 1, key, score + TILE_COLS, dp + TILE_COLS, p[1], ds[1]);
        words a = words_beside(ds[0][0], ds[0][1]), b = words_beside(ds[1][0], ds[1][1]);
        words_store(along, a);
        words_store(along + DS_ROW, b);
        words_store(down, words_zip_low(a, b));
        words_store(down + VL, words_zip_high(a, b));
        a = words_beside(p[0][0], p[0][1]);
        b = words_beside(p[1][0], p[1][1]);
        words_store(ps, words_zip_low(a, b));
        words_store(ps + VL, words_zip_high(a, b));
        score += 2 * TILE_COLS;
        dp += 2 * TILE_COLS;
        ps += TILE_COLS;
        down += TILE_COLS;
        along += 2 * DS_ROW;
    }
}
#else
INLINE void softmax_grad(bool masked, const struct shape *s, struct scratch *c,
                         const struct block *k, i64 panel, i64 r0, i64 r1)
{
    for (i64 r = r0; r < r1; r++) {
        float *score = c->s + (r - r0) * TILE_COLS, *dp = panel_dp(c, panel, r);
        vec p[2], ds[2];
        row_grad(masked, s, k->of, r, k->key + panel * TILE_COLS, score, dp, p, ds);
        for (int i = 0; i < 2; i++) {
            vec_store(score + i * VL, p[i]);
            vec_store(dp + i * VL, ds[i]);
        }
    }
}
#endif

static void run_of_rows(const struct shape *s, struct scratch *c, const struct block *k, i64 panel,
                        i64 r0, i64 r1)
{
    const i64 at = panel * TILE_COLS, key = k->key + at, Dw = s->Dw, Vw = s->Vw;
    struct tile forward = { .steps = Dw, .a_row = Dw, .a_step = 1, .b_step = TILE_COLS,
                            .c_row = TILE_COLS };
    tiles(r1 - r0, &forward, k->of->q + r0 * Dw, c->kt + at * Dw, c->s);
    forward.steps = forward.a_row = Vw;
    forward.c_row = DP_ROW;
    tiles(r1 - r0, &forward, k->of->dy + r0 * Vw, c->vt + at * Vw, panel_dp(c, panel, r0));
    /* What a query sees begins and ends no earlier than for the one before. */
    fetch_some(&c->fetch, FETCH_LINES * RUN / QUERIES);
    if (key + TILE_COLS - 1 > k->of->last[r0] || key < k->of->first[r1 - 1])
        softmax_grad(true, s, c, k, panel, r0, r1);
    else
        softmax_grad(false, s, c, k, panel, r0, r1);
}

static void key_panel(const struct shape *s, struct scratch *c, const struct block *k, i64 panel)
{
    const i64 row0 = k->row0[panel], row1 = k->row1[panel], at = panel * TILE_COLS;
    const i64 down = row0 / PER_WORD, q_step = down_step(s->D), dy_step = down_step(s->V);
    if (row1 <= row0)
        return;
    for (i64 r = row0; r < row1; r += RUN)
        run_of_rows(s, c, k, panel, r, i64_min(r + RUN, row1));
    struct tile back = { .steps = words_of(row1 - row0), .a_row = down_row(QUERIES),
                         .a_step = dy_step, .b_step = TILE_COLS, .c_row = TILE_COLS,
                         .add = c->started[panel] };
    tiles(s->V, &back, k->of->dy_down + down * dy_step, c->p, c->dvt + at * s->V);
    back.a_step = q_step;
    back.b_step = DP_ROW;
    tiles(s->D, &back, k->of->q_down + down * q_step, panel_ds(c, panel, row0),
          c->dkt + at * s->D);
    c->started[panel] = true;
}

/* --- dQ ----------------------------------------------------------------------------- */

/* Until the chunk before has passed this block of queries. */
static void wait_for_turn(const struct shape *s, const struct block *k, i64 head)
{
    const i64 chunk = k->key / KEYS;
    if (chunk == 0 || k->alone)
        return;
    _Atomic i32 *before = &s->passed[head * s->chunks + chunk - 1];
    while (atomic_load_explicit(before, memory_order_acquire) <= k->turn)
        sched_yield();
}

/* dQ += dS K, by tiles of rows: each takes the panels that concern it, all side by side. The first
 * chunk's, which every query meets that meets any, are added to nothing. */
static void query_sums(const struct shape *s, struct scratch *c, const struct block *k, float *dq)
{
    for (i64 row = 0; row < k->queries; row += TILE_ROWS) {
        const i64 rows = i64_min(TILE_ROWS, k->queries - row);
        i64 first = 0, last = PANELS - 1;
        while (first < PANELS && k->row1[first] <= row)
            first++;
        while (last >= 0 && k->row0[last] > row)
            last--;
        if (first > last && k->key == 0)
            memset(dq + row * s->Dp, 0, (size_t)(rows * s->Dp) * sizeof *dq);
        if (first > last)
            continue;
        struct tile t = { .steps = (last - first + 1) * PANEL_WORDS, .a_row = DS_ROW,
                          .a_step = 1, .b_step = s->Dp, .c_row = s->Dp, .add = k->key > 0 };
        for (i64 d = 0; d < s->Dp; d += TILE_COLS)
            tiles(rows, &t, c->ds + row * DS_ROW + first * PANEL_WORDS,
                  c->k + first * PANEL_WORDS * s->Dp + d, dq + row * s->Dp + d);
    }
}

INLINE void put_rows(bool half, void *dst, i64 dst_row, const float *src, i64 src_row,
                     float scale, i64 rows, i64 columns)
{
    for (i64 r = 0; r < rows; r++)
        for (i64 i = 0; i < columns; i += VL)
            vec_put_n(half, vec_at(half, dst, r * dst_row), i,
                      scale * vec_get_n(false, src + r * src_row, i, columns - i), columns - i);
}

/* dst += scale src. */
static void add_rows(float *dst, i64 dst_row, const float *src, i64 src_row, float scale, i64 rows,
                     i64 columns)
{
    for (i64 r = 0; r < rows; r++)
        for (i64 i = 0; i < columns; i += VL)
            vec_put_n(false, dst + r * dst_row, i,
                      vec_get_n(false, dst + r * dst_row, i, columns - i) +
                          scale * vec_get_n(false, src + r * src_row, i, columns - i),
                      columns - i);
}

static void store_queries(const struct shape *s, const struct block *k, const float *dq)
{
    const struct target *to = &s->to_q;
    void *rows = vec_at(to->half, to->data, (k->b * s->T + k->query) * to->row + k->h * s->D);
    if (s->adds)
        add_rows(rows, to->row, dq, s->Dp, s->scale, k->queries, s->D);
    else if (to->half)
        put_rows(true, rows, to->row, dq, s->Dp, s->scale, k->queries, s->D);
    else
        put_rows(false, rows, to->row, dq, s->Dp, s->scale, k->queries, s->D);
}

static void query_block(const struct shape *s, struct scratch *c, struct block *k)
{
    const i64 head = k->b * s->H + k->h, member = k->h - k->g * share_of(s);
    const i64 index = member * s->pairs * s->blocks + k->turn;
    float *dq = k->dq + (member * s->T + k->query) * s->Dp;
    k->of = (struct queries *)((word *)c->kept + (k->slots > 1 ? index : 0) * queries_words(s));
    if (k->slots == 1)
        k->of->ranged = k->of->loaded = false;
    load_ranges(s, k);
    const bool any = find_rows(k), fetch = !k->of->loaded;
    if (any)
        load_queries(s, k);
    if (fetch)
        fetch_queries(s, &c->fetch, k);
    for (i64 p = 0; any && p < PANELS; p++)
        key_panel(s, c, k, p);
    wait_for_turn(s, k, head);
    if (any)
        query_sums(s, c, k, dq);
    else if (k->key == 0)
        memset(dq, 0, (size_t)(k->queries * s->Dp) * sizeof *dq);
    if (!k->alone)
        atomic_store_explicit(&s->passed[head * s->chunks + k->key / KEYS],
                              (i32)(k->turn + 1), memory_order_release);
    if (k->of->last[k->queries - 1] < k->key + KEYS) /* else later chunks add to it */
        store_queries(s, k, dq);
}

/* --- one chunk of keys -------------------------------------------------------------- */

/* D: what a key or a value has. */
static void store_keys(i64 D, const float *panels, const struct target *to, float scale, i64 row,
                       i64 keys)
{
    float scales[TILE_COLS];
    for (int i = 0; i < TILE_COLS; i++)
        scales[i] = scale;
    for (i64 at = 0; at < keys; at += TILE_COLS) {
        const i64 n = i64_min(TILE_COLS, keys - at);
        void *rows = vec_at(to->half, to->data, (row + at) * to->row + to->at);
        if (to->half)
            rows_from_panel(true, rows, to->row, panels + at * D, scales, n, D);
        else
            rows_from_panel(false, rows, to->row, panels + at * D, scales, n, D);
    }
}

/* Queries [from, end) of head k->h, of which those see the chunk that do not stand before it. */
static void run_of_queries(const struct shape *s, struct scratch *c, const struct block *chunk,
                           i64 from, i64 end, i64 turn)
{
    const i64 place = zigzag_place(&s->v.key_part, chunk->key);
    const i64 before = zigzag_before(&s->v.query_part, place) - from;
    if (before >= end - from)
        return;
    for (i64 i = i64_max(0, before) / QUERIES; from + i * QUERIES < end; i++) {
        struct block k = *chunk;
        k.query = from + i * QUERIES;
        k.queries = i64_min(QUERIES, end - k.query);
        k.turn = turn + i;
        query_block(s, c, &k);
    }
}

/* Sums over one pair of chunks of queries, or over all queries, of all heads of the group. */
static void sum_pair(const struct shape *s, struct scratch *c, struct block *k, i64 pair)
{
    const i64 share = share_of(s), leaf = s->T / (2 * s->pairs);
    const i64 low = pair * leaf, high = (2 * s->pairs - 1 - pair) * leaf;
    memset(c->started, 0, sizeof c->started);
    for (k->h = k->g * share; k->h < (k->g + 1) * share; k->h++) {
        if (s->v.pairs == 0) {
            run_of_queries(s, c, k, 0, s->T, 0);
            continue;
        }
        run_of_queries(s, c, k, low, low + leaf, pair * s->blocks);
        run_of_queries(s, c, k, high, high + leaf, pair * s->blocks + s->blocks / 2);
    }
    for (i64 p = 0; p < PANELS; p++)
        if (!c->started[p]) {
            memset(c->dkt + p * TILE_COLS * s->D, 0, (size_t)(TILE_COLS * s->D) * sizeof(float));
            memset(c->dvt + p * TILE_COLS * s->V, 0, (size_t)(TILE_COLS * s->V) * sizeof(float));
        }
}

/* A binary counter: the sums of pairs before are put by, by doublings. dK is scaled before, as
 * that of a rank is which has some pairs. */
static void count_pair(const struct shape *s, struct scratch *c, i64 pair)
{
    const i64 n = KEYS * (s->D + s->V);
    i64 level = 0;
    for (i64 i = 0; i < KEYS * s->D; i++)
        c->dkt[i] *= s->scale;
    for (; pair >> level & 1; level++)
        for (i64 i = 0; i < n; i++)
            c->dkt[i] += c->put_by[level * n + i];
    if (level < s->levels)
        memcpy(c->put_by + level * n, c->dkt, (size_t)n * sizeof(float));
}

static void chunk_of_keys(const struct shape *s, struct scratch *c, const struct block *head,
                          i64 key)
{
    const i64 b = head->b, g = head->g, keys = i64_min(KEYS, s->Tk - key);
    load_keys(s, c, b, g, key, keys);
    for (i64 pair = 0; pair < s->pairs; pair++) {
        struct block k = *head;
        k.key = key;
        k.keys = keys;
        if (pair == 0)
            fetch_keys(s, &c->fetch, &k);
        sum_pair(s, c, &k, pair);
        if (s->v.pairs > 0)
            count_pair(s, c, pair);
    }
    struct target to_k = s->to_k, to_v = s->to_v;
    to_k.at += g * s->D;
    to_v.at += g * s->V;
    store_keys(s->D, c->dkt, &to_k, s->v.pairs > 0 ? 1 : s->scale, b * s->Tk + key, keys);
    store_keys(s->V, c->dvt, &to_v, 1, b * s->Tk + key, keys);
}

static float *dq_of(const struct shape *s, i64 at)
{
    return s->dq + at * share_of(s) * s->T * s->Dp;
}

static void head_part(void *context, i64 part, int thread)
{
    const struct shape *s = context;
    struct scratch *c = scratch_of(s, thread);
    const struct block k = { .b = part / s->G, .g = part % s->G, .dq = dq_of(s, thread),
                             .slots = s->slots, .alone = true };
    tiles_begin();
    forget_queries(s, c, k.slots);
    for (i64 key = 0; key < s->Tk; key += KEYS)
        chunk_of_keys(s, c, &k, key);
    tiles_end();
}

/* Of the other heads; from the first chunk of keys, which most queries see, to the last. */
static void chunk_part(void *context, i64 part, int thread)
{
    const struct shape *s = context;
    struct scratch *c = scratch_of(s, thread);
    const i64 heads = s->B * s->G - s->whole, head = s->whole + part % heads;
    const struct block k = { .b = head / s->G, .g = head % s->G, .dq = dq_of(s, part % heads),
                             .slots = 1 };
    tiles_begin();
    forget_queries(s, c, k.slots);
    chunk_of_keys(s, c, &k, part / heads * KEYS);
    tiles_end();
}

static void run_parts(struct shape *s, struct run *x)
{
    const int threads = pool_threads(x->pool);
    const i64 heads = s->B * s->G;
    place(s, x->workspace, threads);
    s->whole = heads / threads * threads;
    for (i64 i = 0; i < s->B * s->H * s->chunks; i++)
        atomic_store_explicit(&s->passed[i], 0, memory_order_relaxed);
    pool_run(x->pool, ceil_div(s->B * s->T, TOKENS), prepare_tokens, s);
    if (s->whole > 0)
        pool_run(x->pool, s->whole, head_part, s);
    if (s->whole < heads)
        pool_run(x->pool, (heads - s->whole) * s->chunks, chunk_part, s);
}

void NAMED(attention_grad)(const struct task *t, struct run *x)
{
    struct shape s = row_shape(t);
    run_parts(&s, x);
}

void NAMED(attention_block_grad)(const struct task *t, struct run *x)
{
    struct shape s = block_shape(t);
    run_parts(&s, x);
}

i64 NAMED(attention_grad_workspace)(const struct task *t, int threads, const void *context)
{
    const struct shape s = row_shape(t);
    (void)context;
    return shared_bytes(&s, threads) + threads * scratch_words(&s) * 4;
}

i64 NAMED(attention_block_grad_workspace)(const struct task *t, int threads, const void *context)
{
    const struct shape s = block_shape(t);
    (void)context;
    return shared_bytes(&s, threads) + threads * scratch_words(&s) * 4;
}
