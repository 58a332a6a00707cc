#include "comm/selftest.h"

#include "base/err.h"
#include "base/rng.h"
#include "base/sys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FENCE = 0xa5 };

static i64 part_count(const struct trial *t, int m)
{
    if (t->op == COMM_ALLREDUCE || t->even)
        return t->count / t->n + (m < t->count % t->n);
    /* some members have nothing, some much */
    return m % 3 == 1 ? 0 : t->count / t->n + 7 * m;
}

static i64 pair_count(const struct trial *t, int from, int to)
{
    return (from + 2 * to) % 4 == 3 ? 0 : t->count / t->n + 3 * from + to;
}

static i64 whole_count(const struct trial *t)
{
    i64 sum = 0;
    for (int m = 0; m < t->n; m++)
        sum += part_count(t, m);
    return sum;
}

/* Element i of a member's input (all_to_all: of what is for member `to`). */
static double element(const struct trial *t, int member, int to, i64 i)
{
    struct rng key = { t->seed, (u64)member * 64 + (u64)to };
    double u = rng_uniform(&key, (u64)i);
    switch (t->dtype) {
    case DTYPE_U8:
        return floor(256 * u);
    case DTYPE_I32:
        return floor(2e8 * (u - 0.5));
    case DTYPE_I64:
        return floor(1e12 * (u - 0.5));
    default:
        return (u - 0.5) * exp2(floor(12 * rng_uniform(&key, (u64)i + (1u << 20))));
    }
}

static void fill(const struct trial *t, void *to, i64 first, int member, int dest, i64 begin,
                 i64 count)
{
    for (i64 i = 0; i < count; i++)
        dtype_set(t->dtype, to, first + i, element(t, member, dest, begin + i));
}

/* The value as the dtype stores it. */
static double stored(enum dtype d, double value)
{
    u64 place;
    dtype_set(d, &place, 0, value);
    return dtype_get(d, &place, 0);
}

static double combine(const struct trial *t, double a, double b)
{
    if (t->reduce == COMM_MAX)
        return a > b ? a : b;
    if (t->dtype == DTYPE_F64 || t->dtype == DTYPE_I32 || t->dtype == DTYPE_I64)
        return a + b;
    return (float)a + (float)b;
}

/* Members [from, to): the left half is the largest power of two below the whole. */
static double tree(const struct trial *t, i64 i, int from, int to)
{
    if (to - from == 1)
        return stored(t->dtype, element(t, from, 0, i));
    int half = 1;
    while (2 * half < to - from)
        half *= 2;
    return combine(t, tree(t, i, from, from + half), tree(t, i, from + half, to));
}

static i64 begin_of(const struct trial *t, int m)
{
    i64 begin = 0;
    for (int k = 0; k < m; k++)
        begin += part_count(t, k);
    return begin;
}

static struct comm_call base_call(const struct trial *t, struct trial_side *s, struct comm_group *g)
{
    return (struct comm_call){
        .op = t->op, .group = g, .in = s->in, .out = s->out, .dtype = t->dtype,
        .reduce = t->reduce, .exact = t->exact, .tag = 100 + t->seed,
    };
}

static void prepare_pair(const struct trial *t, struct trial_side *s, struct comm_group *g)
{
    int n = t->n, me = g->index;
    s->calls = 2;
    for (int k = 0; k < 2; k++) {
        s->call[k] = base_call(t, s, g);
        s->call[k].op = k == 0 ? COMM_SEND : COMM_RECV;
        s->call[k].peer = k == 0 ? (me + 1) % n : (me + n - 1) % n;
        s->call[k].count = t->count;
    }
    fill(t, s->in, 0, me, 0, 0, t->count);
}

void trial_prepare(const struct trial *t, struct trial_side *s, struct comm_group *g)
{
    int me = g->index;
    memset(s->in, FENCE, sizeof s->in);
    memset(s->out, FENCE, sizeof s->out);
    if (t->op == COMM_SEND) {
        prepare_pair(t, s, g);
        return;
    }
    s->calls = 1;
    s->call[0] = base_call(t, s, g);
    struct comm_call *c = &s->call[0];
    for (int m = 0; m < t->n; m++)
        s->counts[m] = t->op == COMM_ALL_TO_ALL ? pair_count(t, me, m) : part_count(t, m);
    for (int m = 0; m < t->n; m++)
        s->recv_counts[m] = pair_count(t, m, me);
    /* what an operation does not use is not there */
    if (t->op == COMM_REDUCE_SCATTER || t->op == COMM_ALL_GATHER || t->op == COMM_ALL_TO_ALL)
        c->counts = s->counts;
    if (t->op == COMM_ALL_TO_ALL)
        c->recv_counts = s->recv_counts;
    if (t->op == COMM_BARRIER)
        c->in = c->out = NULL;
    c->count = t->op == COMM_ALLREDUCE || t->op == COMM_BROADCAST ? t->count : 0;
    c->peer = t->op == COMM_BROADCAST ? t->peer : 0;
    i64 at = 0;
    if (t->op == COMM_ALL_TO_ALL) {
        for (int m = 0; m < t->n; at += s->counts[m++])
            fill(t, s->in, at, me, m, 0, s->counts[m]);
    } else if (t->op == COMM_ALL_GATHER) {
        if (t->in_place)
            c->in = s->out + begin_of(t, me) * dtype_bytes(t->dtype);
        fill(t, (void *)(uintptr_t)c->in, 0, me, 0, 0, s->counts[me]);
    } else if (t->op != COMM_BARRIER) {
        i64 count = t->op == COMM_BROADCAST ? t->count : whole_count(t);
        fill(t, s->in, 0, me, 0, 0, count);
        if (t->in_place)
            c->out = s->in + (t->op == COMM_REDUCE_SCATTER
                                  ? begin_of(t, me) * dtype_bytes(t->dtype) : 0);
    }
}

/* --- answers ---------------------------------------------------------------------- */

static bool differs(const struct trial *t, struct trial_side *s, i64 i, double expected)
{
    double got = dtype_get(t->dtype, s->call[0].out, i), want = stored(t->dtype, expected);
    /* Another order of adding n numbers of at most 2^11: rounding of n sums. */
    double bound = 0;
    if (!t->exact && t->reduce == COMM_SUM)
        bound = t->dtype == DTYPE_F32 ? t->n * 0x1p-12 : t->dtype == DTYPE_F64 ? t->n * 0x1p-41 : 0;
    if (fabs(got - want) <= bound)
        return false;
    snprintf(s->wrong, sizeof s->wrong, "element %lld is %.9g, expected %.9g", (long long)i, got,
             want);
    return true;
}

static bool check_reduction(const struct trial *t, struct trial_side *s, int me)
{
    bool all = t->op == COMM_ALLREDUCE;
    i64 begin = all ? 0 : begin_of(t, me), count = all ? t->count : part_count(t, me);
    for (i64 i = 0; i < count; i++)
        if (differs(t, s, i, tree(t, begin + i, 0, t->n)))
            return false;
    return true;
}

static bool check_parts(const struct trial *t, struct trial_side *s, int me)
{
    i64 at = 0;
    for (int m = 0; m < t->n; m++) {
        i64 count = t->op == COMM_ALL_TO_ALL ? pair_count(t, m, me) : part_count(t, m);
        int to = t->op == COMM_ALL_TO_ALL ? me : 0;
        for (i64 i = 0; i < count; i++)
            if (differs(t, s, at + i, element(t, m, to, i)))
                return false;
        at += count;
    }
    for (i64 i = at * dtype_bytes(t->dtype); i < TRIAL_BYTES; i++) {
        if (s->out[i] != FENCE) {
            snprintf(s->wrong, sizeof s->wrong, "byte %lld after the end was written",
                     (long long)i);
            return false;
        }
    }
    return true;
}

static bool check_message(const struct trial *t, struct trial_side *s, int me)
{
    int from = t->op == COMM_BROADCAST ? t->peer : (me + t->n - 1) % t->n;
    for (i64 i = 0; i < t->count; i++)
        if (differs(t, s, i, element(t, from, 0, i)))
            return false;
    return true;
}

static bool is_bytes(const struct trial *t, struct trial_side *s, const char *what, i64 got,
                     i64 elements)
{
    i64 want = elements * dtype_bytes(t->dtype);
    if (got != want)
        snprintf(s->wrong, sizeof s->wrong, "%s %lld bytes, expected %lld", what,
                 (long long)got, (long long)want);
    return got == want;
}

/* Each part moves to its owner and the result to the others; see comm.h. */
static bool check_bytes(const struct trial *t, struct trial_side *s, int me)
{
    i64 others = t->n - 1, sent = 0, received = 0;
    i64 whole = whole_count(t), own = part_count(t, me);
    if (t->op == COMM_ALLREDUCE || t->op == COMM_REDUCE_SCATTER) {
        sent += whole - own;
        received += others * own;
    }
    if (t->op == COMM_ALLREDUCE || t->op == COMM_ALL_GATHER) {
        sent += others * own;
        received += whole - own;
    }
    for (int m = 0; t->op == COMM_ALL_TO_ALL && m < t->n; m++) {
        sent += m == me ? 0 : pair_count(t, me, m);
        received += m == me ? 0 : pair_count(t, m, me);
    }
    if (t->op == COMM_BROADCAST) {
        sent = me == t->peer ? others * t->count : 0;
        received = me == t->peer ? 0 : t->count;
    }
    if (t->op == COMM_SEND) {
        sent = received = t->count;
        return is_bytes(t, s, "sent", s->call[0].sent_bytes, sent) &&
               is_bytes(t, s, "received", s->call[1].received_bytes, received);
    }
    return is_bytes(t, s, "sent", s->call[0].sent_bytes, sent) &&
           is_bytes(t, s, "received", s->call[0].received_bytes, received);
}

const char *trial_check(const struct trial *t, struct trial_side *s, int me)
{
    bool good = true;
    if (t->op == COMM_ALLREDUCE || t->op == COMM_REDUCE_SCATTER)
        good = check_reduction(t, s, me);
    else if (t->op == COMM_ALL_GATHER || t->op == COMM_ALL_TO_ALL)
        good = check_parts(t, s, me);
    else if (t->op != COMM_BARRIER)
        good = check_message(t, s, me);
    return good && check_bytes(t, s, me) ? NULL : s->wrong;
}

/* --- the list --------------------------------------------------------------------- */

static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F64, DTYPE_I32, DTYPE_I64,
                                     DTYPE_U8 };
/* none, fewer than members, odd, one block of a tree and a rest */
static const i64 counts[] = { 0, 1, 5, 64, 700 };
static const enum comm_op ops[] = { COMM_ALLREDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER,
                                    COMM_ALL_TO_ALL, COMM_SEND, COMM_BROADCAST, COMM_BARRIER };

bool trial_next(struct trial *t, int n, int *at)
{
    i64 d = COUNT_OF(dtypes), k = COUNT_OF(counts), o = COUNT_OF(ops), variants = 4;
    for (;; ++*at) {
        i64 i = *at;
        if (i >= o * d * k * variants)
            return false;
        int variant = (int)(i % variants);
        *t = (struct trial){
            .op = ops[i / (variants * k * d)], .dtype = dtypes[i / (variants * k) % d],
            .count = counts[i / variants % k], .n = n, .seed = (u32)i,
            .reduce = variant == 3 ? COMM_MAX : COMM_SUM, .in_place = variant % 2,
            .even = variant < 2, .exact = variant != 2, .peer = (int)(i % n),
        };
        bool reduces = t->op == COMM_ALLREDUCE || t->op == COMM_REDUCE_SCATTER;
        if ((reduces && t->dtype == DTYPE_U8) || (t->op == COMM_SEND && n == 1))
            continue;
        if (t->op == COMM_ALL_TO_ALL || t->op == COMM_SEND)
            t->in_place = false;
        ++*at;
        return true;
    }
}

static int run_trial(const struct trial *t, struct trial_side *s, struct comm_group *g)
{
    trial_prepare(t, s, g);
    for (int k = 0; k < s->calls; k++)
        TRY(comm_start(&s->call[k]));
    for (int k = 0; k < s->calls; k++)
        TRY(comm_wait(&s->call[k]));
    const char *what = trial_check(t, s, g->index);
    if (!what)
        return OK;
    return err_set(ERR_INTERNAL, "%s of %lld %s among %d members is wrong on rank %d: %s",
                   comm_op_name(t->op), (long long)t->count, dtype_name(t->dtype), t->n,
                   g->comm->rank, what);
}

int comm_selftest(struct comm_group *g, int step, i64 *calls)
{
    struct trial t;
    int rc = OK;
    *calls = 0;
    if (g->n > TRIAL_MEMBERS)
        return err_set(ERR_LIMIT, "the self-test knows groups of at most %d members, not %d",
                       TRIAL_MEMBERS, g->n);
    struct trial_side *s = sys_alloc((i64)sizeof *s, 64);
    if (!s)
        return err_set(ERR_LIMIT, "no memory for a self-test");
    for (int at = 0; rc >= 0 && trial_next(&t, g->n, &at); at += step - 1, ++*calls)
        rc = run_trial(&t, s, g);
    sys_free(s);
    return rc;
}
