/* Routers, and the rows on their way to the experts and back. The formulas are in ops/ops.h and
 * ops/router.c. */
#include "backend/cpu/kernels.h"

#include "ops/zigzag.h"

enum { ROWS_PER_PART = 16 };

/* --- scores of one row -------------------------------------------------------------- */

/* Lanes from n on become `fill`. */
INLINE vec only(vec v, i64 n, float fill)
{
    return n >= VL ? v : vec_select(vec_lanes() < vec_all_i32((i32)n), v, vec_all(fill));
}

static float largest_of(const float *z, i64 E)
{
    vec most = vec_all(-INFINITY);
    for (i64 e = 0; e < E; e += VL)
        most = vec_max(only(vec_get_n(false, z, e, E - e), E - e, -INFINITY), most);
    return vec_largest(most);
}

/* p = softmax(z); returns lse(z). */
static float softmax_row(const float *z, float *p, i64 E)
{
    const float most = largest_of(z, E);
    vec sums = { 0 };
    for (i64 e = 0; e < E; e += VL) {
        vec x = only(vec_exp(vec_get_n(false, z, e, E - e) - most), E - e, 0);
        vec_put_n(false, p, e, x, E - e);
        sums += x;
    }
    const float sum = vec_sum(sums), inverse = 1 / sum;
    for (i64 e = 0; e < E; e += VL)
        vec_put_n(false, p, e, inverse * vec_get_n(false, p, e, E - e), E - e);
    return most + logf(sum);
}

static void sigmoid_row(const float *z, float *s, i64 E)
{
    for (i64 e = 0; e < E; e += VL)
        vec_put_n(false, s, e, vec_sigmoid(vec_get_n(false, z, e, E - e)), E - e);
}

static float sum_row(const float *s, i64 E)
{
    vec sums = { 0 };
    for (i64 e = 0; e < E; e += VL)
        sums += only(vec_get_n(false, s, e, E - e), E - e, 0);
    return vec_sum(sums);
}

/* --- router ------------------------------------------------------------------------- */

/* The k largest of key[E] in descending order, the first among equals first. */
static void choose_largest(const float *key, i64 E, i64 k, i32 *choice)
{
    float best[ROUTER_CHOICES];
    i64 n = 0;
    for (i32 e = 0; e < E; e++) {
        if (n == k && !(key[e] > best[k - 1]))
            continue;
        i64 at = n < k ? n++ : k - 1;
        for (; at > 0 && key[e] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            choice[at] = choice[at - 1];
        }
        best[at] = key[e];
        choice[at] = e;
    }
}

/* Chooses and weighs one row; s receives all scores. Returns lse(z). */
static float route_row(const struct task *t, i64 r, float *s)
{
    const i64 E = t->in[0]->dim[1], k = (i64)t->attr[ROUTER_K];
    const float *z = (const float *)t->in[0]->data + r * E, *key = z;
    const float *bias = t->in[1] ? t->in[1]->data : NULL;
    float *weight = (float *)t->out[0]->data + r * k, biased[ROUTER_EXPERTS];
    i32 *choice = (i32 *)t->out[1]->data + r * k;
    const float lse = softmax_row(z, s, E);
    if (t->attr[ROUTER_SIGMOID] != 0)
        sigmoid_row(z, s, E);
    for (i64 e = 0; bias && e < E; e++)
        biased[e] = s[e] + bias[e];
    choose_largest(bias ? biased : key, E, k, choice);
    double sum = 1e-20;
    for (i64 slot = 0; slot < k; slot++)
        sum += (double)s[choice[slot]];
    const double factor = t->attr[ROUTER_SCALE] / (t->attr[ROUTER_NORMALISE] != 0 ? sum : 1);
    for (i64 slot = 0; slot < k; slot++)
        weight[slot] = (float)(factor * (double)s[choice[slot]]);
    return lse;
}

/* What rows [first, first + rows) did, row by row. */
static void route_leaf(const struct task *t, i64 first, i64 rows, float *stats)
{
    const i64 E = t->in[0]->dim[1], k = (i64)t->attr[ROUTER_K];
    float s[ROUTER_EXPERTS];
    double share[ROUTER_EXPERTS], squares = 0;
    memset(stats, 0, sizeof *stats * (size_t)E);
    memset(share, 0, sizeof *share * (size_t)E);
    for (i64 r = first; r < first + rows; r++) {
        const double lse = (double)route_row(t, r, s);
        const i32 *choice = (const i32 *)t->out[1]->data + r * k;
        const float inverse = t->attr[ROUTER_SIGMOID] != 0 ? 1 / sum_row(s, E) : 1;
        for (i64 slot = 0; slot < k; slot++)
            stats[choice[slot]] += 1;
        for (i64 e = 0; e < E; e++)
            share[e] += (double)(inverse * s[e]);
        squares += lse * lse;
    }
    for (i64 e = 0; e < E; e++)
        stats[E + e] = (float)share[e];
    stats[2 * E] = (float)squares;
}

/* A part is a sequence. Its leaves are a power of two: each sum is added to those of as many leaves
 * before it, as ranks would add theirs. */
static void route_sequence(void *context, i64 part, int thread)
{
    enum { LEVELS = 4 };
    const struct task *t = ((const struct work *)context)->t;
    const i64 T = (i64)t->attr[ROUTER_T], columns = 2 * t->in[0]->dim[1] + 1;
    const i64 leaf = t->attr[ROUTER_LEAF] > 0 ? (i64)t->attr[ROUTER_LEAF] : T;
    float *stats = (float *)t->out[2]->data + part * columns;
    float kept[LEVELS][2 * ROUTER_EXPERTS + 1]; /* sums of 1, 2, 4 ... leaves */
    (void)thread;
    for (i64 i = 0; i < T / leaf; i++) {
        i64 level = 0;
        route_leaf(t, part * T + i * leaf, leaf, stats);
        for (; i >> level & 1; level++)
            for (i64 c = 0; c < columns; c++)
                stats[c] += kept[level][c];
        if (i + 1 < T / leaf)
            memcpy(kept[level], stats, sizeof *stats * (size_t)columns);
    }
}

static void route_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    struct range rows = work_range(w, part);
    float s[ROUTER_EXPERTS];
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++)
        route_row(w->t, r, s);
}

void NAMED(router)(const struct task *t, struct run *x)
{
    const i64 R = t->in[0]->dim[0];
    if (t->out[2])
        work_run(t, x, R / (i64)t->attr[ROUTER_T], 1, route_sequence);
    else
        work_run(t, x, R, ROWS_PER_PART, route_rows);
}

/* --- its gradient ------------------------------------------------------------------- */

/* ds = what the weights give to the scores. */
static void through_weights(const struct task *t, i64 r, const float *s, float *ds)
{
    const i64 E = t->in[1]->dim[1], k = (i64)t->attr[ROUTER_K];
    const float *dweight = t->in[0] ? (const float *)t->in[0]->data + r * k : NULL;
    const i32 *choice = (const i32 *)t->in[2]->data + r * k;
    double scale = t->attr[ROUTER_SCALE], sum = 1e-20, along = 0;
    memset(ds, 0, sizeof *ds * (size_t)E);
    for (i64 slot = 0; dweight && slot < k; slot++) {
        sum += (double)s[choice[slot]];
        along += (double)dweight[slot] * (double)s[choice[slot]];
    }
    for (i64 slot = 0; dweight && slot < k; slot++) {
        const double d = (double)dweight[slot];
        ds[choice[slot]] = (float)(t->attr[ROUTER_NORMALISE] != 0 ? scale * (d - along / sum) / sum
                                                                  : scale * d);
    }
}

/* ds += what the balance loss gives to them. */
static void through_balance(const struct task *t, i64 r, const float *s, float *ds)
{
    const i64 E = t->in[1]->dim[1], T = (i64)t->attr[ROUTER_T];
    const float *n = (const float *)t->in[3]->data + r / T * (2 * E + 1);
    const float factor = (float)(t->attr[ROUTER_AUX] * (double)E / ((double)T * (double)T));
    const float inverse = 1 / sum_row(s, E);
    vec means = { 0 };
    for (i64 e = 0; e < E; e += VL)
        means += only(factor * vec_get_n(false, n, e, E - e) * inverse *
                          vec_get_n(false, s, e, E - e), E - e, 0);
    const float mean = vec_sum(means);
    for (i64 e = 0; e < E; e += VL) {
        vec d = (factor * vec_get_n(false, n, e, E - e) - mean) * inverse;
        vec_put_n(false, ds, e, vec_get_n(false, ds, e, E - e) + d, E - e);
    }
}

/* ds along s, so that dz = s (ds - along) for a softmax. */
static float project(const float *s, const float *ds, i64 E)
{
    vec sums = { 0 };
    for (i64 e = 0; e < E; e += VL)
        sums += only(vec_get_n(false, s, e, E - e) * vec_get_n(false, ds, e, E - e), E - e, 0);
    return vec_sum(sums);
}

static void router_grad_row(const struct task *t, i64 r)
{
    const i64 E = t->in[1]->dim[1];
    const bool sigmoid = t->attr[ROUTER_SIGMOID] != 0;
    const float *z = (const float *)t->in[1]->data + r * E;
    float *dz = (float *)t->out[0]->data + r * E;
    float p[ROUTER_EXPERTS], sigmoids[ROUTER_EXPERTS], ds[ROUTER_EXPERTS], *s = p;
    const float lse = softmax_row(z, p, E);
    if (sigmoid) {
        s = sigmoids;
        sigmoid_row(z, s, E);
    }
    through_weights(t, r, s, ds);
    if (t->in[3])
        through_balance(t, r, s, ds);
    const float along = sigmoid ? 0 : project(s, ds, E);
    const float pull = t->in[3] ? (float)(2 * t->attr[ROUTER_Z]) * lse : 0;
    for (i64 e = 0; e < E; e += VL) {
        vec x = vec_get_n(false, s, e, E - e), d = vec_get_n(false, ds, e, E - e) - along;
        vec slope = sigmoid ? x * (1.0f - x) : x;
        vec_put_n(false, dz, e, slope * d + pull * vec_get_n(false, p, e, E - e), E - e);
    }
}

static void router_grad_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++)
        router_grad_row(w->t, r);
}

void NAMED(router_grad)(const struct task *t, struct run *x)
{
    work_run(t, x, t->in[1]->dim[0], ROWS_PER_PART, router_grad_rows);
}

/* --- load and bias ------------------------------------------------------------------ */

/* Multiples of 2^-24 below 2^29 need 53 bits: doubles add them without rounding. */
static double load_term(const struct task *t, double x)
{
    return t->attr[ROUTER_GRAIN] != 0 ? rint(x * 0x1p24) * 0x1p-24 : x;
}

/* load += what a sequence's stats say; returns its part of the balance loss. */
static double add_load(const struct task *t, const float *n, i64 E)
{
    const float *share = n + E;
    const double T = t->attr[ROUTER_T], factor = (double)E / (T * T);
    const double capacity = t->attr[ROUTER_CAPACITY] > 0 ? t->attr[ROUTER_CAPACITY] : INFINITY;
    double *load = t->out[0]->data, sum = 0;
    for (i64 e = 0; e < E; e++) {
        load[e] += (double)n[e];
        sum += factor * (double)n[e] * (double)share[e];
        load[E + 2] += fmax(0, (double)n[e] - capacity);
    }
    load[E + 1] += load_term(t, (double)n[2 * E]);
    return load_term(t, sum);
}

void NAMED(expert_load)(const struct task *t, struct run *x)
{
    const i64 B = t->in[0]->dim[0], columns = t->in[0]->dim[1], E = (columns - 1) / 2;
    float *counts = t->out[1] ? t->out[1]->data : NULL;
    double aux = 0;
    for (int k = 0; k < 2; k++)
        if (t->out[k] && !run_accumulates(t, x))
            memset(t->out[k]->data, 0, (size_t)tensor_bytes(t->out[k]));
    for (i64 b = 0; b < B; b++) {
        const float *n = (const float *)t->in[0]->data + b * columns;
        for (i64 e = 0; counts && e < E; e++)
            counts[e] += n[e];
        if (t->out[0])
            aux += add_load(t, n, E);
    }
    if (t->out[0])
        ((double *)t->out[0]->data)[E] += aux;
}

void NAMED(balance_bias)(const struct task *t, struct run *x)
{
    const i64 E = t->in[0]->dim[0];
    const float *counts = t->in[0]->data, rate = (float)t->attr[BALANCE_RATE];
    float *bias = t->out[0]->data;
    double total = 0;
    (void)x;
    for (i64 e = 0; e < E; e++)
        total += (double)counts[e];
    for (i64 e = 0; e < E; e++) {
        const double more = total - (double)E * (double)counts[e];
        bias[e] += more > 0 ? rate : more < 0 ? -rate : 0;
    }
}

/* --- order -------------------------------------------------------------------------- */

/* Which sequence is meant, and whose token of it. */
struct row_place {
    i64 parts, own, pairs, tokens; /* as in zigzag.h */
};

static struct row_place row_place_of(const struct task *t)
{
    return (struct row_place){ i64_max(1, (i64)t->attr[ORDER_ROW_PARTS]),
                               (i64)t->attr[ORDER_ROW_PART],
                               i64_max(1, (i64)t->attr[ORDER_ROW_PAIRS]), (i64)t->attr[ORDER_T] };
}

/* One token's pairs: place[slot] = 0 for those that are taken, -1 for others, and how many rows
 * each expert has of the sequence. place NULL: another rank's token. */
INLINE void take_token(const i32 *choice, i64 k, i64 capacity, i32 *here, i32 *place)
{
    for (i64 slot = 0; slot < k; slot++) {
        const bool full = capacity > 0 && here[choice[slot]] >= capacity;
        here[choice[slot]] += !full;
        if (place)
            place[slot] = full ? -1 : 0;
    }
}

/* place[p] = 0 for pairs that are taken, -1 for others; in the order of the row. */
static void take_pairs(const struct task *t, i32 *place)
{
    const i64 R = t->in[0]->dim[0], k = t->in[0]->dim[1], E = (i64)t->attr[ORDER_EXPERTS];
    const i64 capacity = (i64)t->attr[ORDER_CAPACITY];
    const struct row_place w = row_place_of(t);
    const i32 *all = t->in[1] ? t->in[1]->data : t->in[0]->data;
    i32 here[ROUTER_EXPERTS]; /* of a sequence */
    for (i64 first = 0; first < R; first += w.tokens) {
        memset(here, 0, sizeof *here * (size_t)E);
        for (i64 i = 0; i < w.parts * w.tokens; i++) {
            const i64 at = zigzag_row_at(w.parts * w.pairs, w.parts * w.tokens, i);
            const i64 part = at / w.tokens, row = first + at % w.tokens;
            take_token(all + (part * R + row) * k, k, capacity, here,
                       part == w.own ? place + row * k : NULL);
        }
    }
}

/* count[e L + l] of the pairs that are taken. */
static void count_pairs(const struct task *t, const i32 *place, i32 *count, i64 L)
{
    const i64 pairs = tensor_count(t->in[0]), E = (i64)t->attr[ORDER_EXPERTS];
    const i32 *choice = t->in[0]->data;
    memset(count, 0, sizeof *count * (size_t)(E * L));
    for (i64 p = 0; p < pairs; p++)
        count[choice[p] * L + p / (pairs / L)] += place[p] == 0;
}

void NAMED(expert_order)(const struct task *t, struct run *x)
{
    const i64 pairs = tensor_count(t->in[0]), E = (i64)t->attr[ORDER_EXPERTS];
    const i64 groups = t->out[2]->dim[0] - 1, L = groups / E;
    const i32 *choice = t->in[0]->data;
    i32 *source = t->out[0]->data, *place = t->out[1]->data, *begin = t->out[2]->data;
    i32 next[ROUTER_EXPERTS];
    (void)x;
    take_pairs(t, place);
    count_pairs(t, place, begin + 1, L);
    begin[0] = 0;
    for (i64 i = 0; i < groups; i++)
        begin[i + 1] += begin[i];
    for (i64 e = 0; e < E; e++)
        next[e] = begin[e * L];
    for (i64 p = 0; p < pairs; p++) {
        if (place[p] < 0)
            continue;
        place[p] = next[choice[p]]++;
        source[place[p]] = (i32)p;
    }
    memset(source + begin[groups], 0,
           sizeof *source * (size_t)(t->out[0]->dim[0] - begin[groups]));
}

/* --- arrival ------------------------------------------------------------------------ */

void NAMED(expert_counts)(const struct task *t, struct run *x)
{
    const i32 *begin = t->in[0]->data;
    i32 *counts = t->out[0]->data;
    (void)x;
    for (i64 e = 0; e < t->out[0]->dim[0]; e++)
        counts[e] = begin[e + 1] - begin[e];
}

/* Where what comes of group i (by rank, expert and leaf) goes on (by expert, rank and leaf). */
static i64 group_place(i64 i, i64 n, i64 each, i64 L)
{
    return (i % each / L * n + i / each) * L + i % L;
}

/* Rows to and from each rank; begin of what arrives, `together` groups by one entry. */
static void count_arrivals(const struct task *t, i64 n, i64 each, i64 L, i64 together)
{
    const i32 *sent = t->in[0]->data, *arrived = t->in[1]->data;
    const i64 apart = n * each / together;
    i32 *begin = t->out[2]->data, *traffic = t->out[3]->data;
    memset(traffic, 0, sizeof *traffic * (size_t)(2 * n));
    memset(begin, 0, sizeof *begin * (size_t)(apart + 1));
    for (i64 i = 0; i < n * each; i++) {
        traffic[i / each] += sent[i];
        traffic[n + i / each] += arrived[i];
        begin[group_place(i, n, each, L) / together + 1] += arrived[i];
    }
    for (i64 i = 0; i < apart; i++)
        begin[i + 1] += begin[i];
}

void NAMED(expert_arrival)(const struct task *t, struct run *x)
{
    const i64 n = (i64)t->attr[ARRIVAL_RANKS], each = t->in[0]->dim[0] / n;
    const i64 most = t->out[0]->dim[0], L = i64_max(1, (i64)t->attr[ARRIVAL_LEAVES]);
    const i64 together = n * each / (t->out[2]->dim[0] - 1), per_expert = n * L / together;
    const i32 *arrived = t->in[1]->data, *begin = t->out[2]->data;
    i32 *source = t->out[0]->data, *place = t->out[1]->data, next[ROUTER_EXPERTS], at = 0;
    (void)x;
    count_arrivals(t, n, each, L, together);
    for (i64 e = 0; e < each / L; e++)
        next[e] = begin[e * per_expert];
    for (i64 i = 0; i < n * each; i++)
        for (i32 k = 0; k < arrived[i]; k++, at++) {
            place[at] = next[i % each / L]++;
            source[place[at]] = at;
        }
    memset(source + at, 0, sizeof *source * (size_t)(most - at));
    memset(place + at, -1, sizeof *place * (size_t)(most - at));
}

/* --- gather ------------------------------------------------------------------------- */

static i64 used_rows(const struct tensor *begin)
{
    return ((const i32 *)begin->data)[begin->dim[0] - 1];
}

static void gather_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct tensor *x = w->t->in[0];
    const i64 bytes = x->dim[1] * dtype_bytes(x->dtype), k = w->t->in[2]->dim[1];
    const i64 used = used_rows(w->t->in[3]);
    const i32 *source = w->t->in[1]->data;
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 i = rows.begin; i < rows.end; i++) {
        char *to = (char *)w->t->out[0]->data + i * bytes;
        if (i < used)
            memcpy(to, (const char *)x->data + source[i] / k * bytes, (size_t)bytes);
        else
            memset(to, 0, (size_t)bytes);
    }
}

void NAMED(expert_gather)(const struct task *t, struct run *x)
{
    work_run(t, x, t->out[0]->dim[0], rows_per_part(t->in[0]->dim[1]), gather_rows);
}

/* --- combine ------------------------------------------------------------------------ */

/* Which of all rows row r of y is. */
static i64 row_in_all(const struct task *t, i64 r)
{
    const i64 n = (i64)t->attr[COMBINE_PARTS];
    const i64 part = t->out[0]->dim[0] / i64_max(1, (i64)t->attr[COMBINE_OUTER]);
    return n <= 1 ? r : (r / part * n + (i64)t->attr[COMBINE_PART]) * part + r % part;
}

INLINE void combine_row(bool half, const struct task *t, i64 r)
{
    const struct tensor *x = t->in[0], *residual = t->in[3];
    const i64 C = x->dim[1], k = t->in[1]->dim[1], pair = row_in_all(t, r) * k;
    const i32 *place = (const i32 *)t->in[1]->data + pair;
    const float *weight = t->in[2] ? (const float *)t->in[2]->data + pair : NULL;
    void *y = vec_at(half, t->out[0]->data, r * C);
    const void *start = residual ? vec_at(half, residual->data, r * C) : NULL;
    for (i64 c = 0; c < C; c += VL) {
        vec sum = start ? vec_get_n(half, start, c, C - c) : (vec){ 0 };
        for (i64 slot = 0; slot < k; slot++)
            if (place[slot] >= 0)
                sum += (weight ? weight[slot] : 1.0f) *
                       vec_get_n(half, vec_at(half, x->data, place[slot] * C), c, C - c);
        vec_put_n(half, y, c, sum, C - c);
    }
}

/* One part, as it is: the row itself, to the sign of its zeros. */
static void move_row(const struct task *t, i64 r)
{
    const struct tensor *x = t->in[0];
    const i64 bytes = x->dim[1] * dtype_bytes(x->dtype);
    const i32 place = ((const i32 *)t->in[1]->data)[r];
    char *to = (char *)t->out[0]->data + r * bytes;
    if (place >= 0)
        memcpy(to, (const char *)x->data + place * bytes, (size_t)bytes);
    else
        memset(to, 0, (size_t)bytes);
}

static void combine_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const bool half = is_half(w->t->out[0]->dtype);
    const bool single = w->t->in[1]->dim[1] == 1 && !w->t->in[2] && !w->t->in[3];
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 r = rows.begin; r < rows.end; r++) {
        if (single)
            move_row(w->t, r);
        else if (half)
            combine_row(true, w->t, r);
        else
            combine_row(false, w->t, r);
    }
}

void NAMED(expert_combine)(const struct task *t, struct run *x)
{
    const i64 per_part = rows_per_part(t->in[0]->dim[1] * t->in[1]->dim[1]);
    work_run(t, x, t->out[0]->dim[0], per_part, combine_rows);
}

INLINE float combine_grad_row(bool half, const struct task *t, i64 i, i64 r, float weight)
{
    const i64 C = t->in[0]->dim[1];
    const void *dy = vec_at(half, t->in[0]->data, r * C), *x = vec_at(half, t->in[1]->data, i * C);
    void *dx = vec_at(half, t->out[0]->data, i * C);
    vec dots = { 0 };
    for (i64 c = 0; c < C; c += VL) { /* absent lanes are zero */
        vec d = vec_get_n(half, dy, c, C - c);
        dots += d * vec_get_n(half, x, c, C - c);
        vec_put_n(half, dx, c, weight * d, C - c);
    }
    return vec_sum(dots);
}

static void combine_grad_rows(void *context, i64 part, int thread)
{
    const struct work *w = context;
    const struct task *t = w->t;
    const struct tensor *dx = t->out[0];
    const i64 k = t->in[2]->dim[1], used = used_rows(t->in[4]);
    const i64 row_bytes = dx->dim[1] * dtype_bytes(dx->dtype);
    const i32 *source = t->in[3]->data;
    float *dweight = t->out[1]->data;
    struct range rows = work_range(w, part);
    (void)thread;
    for (i64 i = rows.begin; i < rows.end; i++) {
        const i64 p = source[i];
        if (i >= used) {
            memset((char *)dx->data + i * row_bytes, 0, (size_t)row_bytes);
            continue;
        }
        const float weight = ((const float *)t->in[2]->data)[p];
        if (is_half(dx->dtype))
            dweight[p] = combine_grad_row(true, t, i, p / k, weight);
        else
            dweight[p] = combine_grad_row(false, t, i, p / k, weight);
    }
}

void NAMED(expert_combine_grad)(const struct task *t, struct run *x)
{
    memset(t->out[1]->data, 0, (size_t)tensor_bytes(t->out[1])); /* of skipped pairs */
    work_run(t, x, t->in[1]->dim[0], rows_per_part(t->in[0]->dim[1]), combine_grad_rows);
}
