#include "parallel/preflight.h"

#include "base/err.h"
#include "base/sys.h"
#include "ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 256, WIDTH = 512, PRODUCTS = 5, SMALL = 8, LARGE = 1 << 20, PINGS = 20,
       TRANSFERS = 3, SUMS = 10, TAG_PING = 4 };

/* --- the product -------------------------------------------------------------------- */

static struct tensor *filled(struct arena *a, struct graph *g, i64 rows, const char *name)
{
    const i64 dim[] = { rows, WIDTH };
    struct tensor *t = graph_tensor(g, ROLE_CONST, DTYPE_F32, 2, dim, "%s", name);
    float *x = arena_alloc(a, rows * WIDTH * (i64)sizeof *x);
    for (i64 i = 0; i < rows * WIDTH; i++)
        x[i] = (float)(i % 17) - 8;
    t->data = x;
    return t;
}

/* FLOP/s of one linear task on the engine's kernels and threads. */
static int time_product(struct engine *e, struct arena *a, double *flops)
{
    struct graph g;
    graph_init(&g, a);
    struct tensor *y = linear(&g, filled(a, &g, ROWS, "x"), filled(a, &g, WIDTH, "w"), NULL,
                              NULL);
    TRY(g.rc);
    const struct task *t = g.tasks[0];
    const struct kernel *k = backend_kernel(&e->backend, t->op);
    struct run x = engine_context(e, 0);
    y->data = arena_alloc(a, tensor_bytes(y));
    x.workspace_bytes = k->workspace ? k->workspace(t, pool_threads(e->pool), k->context) : 0;
    x.workspace = arena_alloc(a, x.workspace_bytes);
    x.context = k->context;
    *flops = 0;
    for (int i = 0; i < PRODUCTS; i++) {
        u64 begin = sys_now_ns();
        k->run(t, &x);
        double rate = t->cost.flops / (1e-9 * (double)(sys_now_ns() - begin + 1));
        *flops = rate > *flops ? rate : *flops;
    }
    return OK;
}

/* --- messages ----------------------------------------------------------------------- */

struct pings {
    struct comm_group *g;
    const struct inject *inject;
    void *data;
};

static int pass(const struct pings *p, enum comm_op op, int peer, i64 bytes)
{
    struct comm_call call = { .op = op, .group = p->g, .in = p->data, .out = p->data,
                              .count = bytes, .dtype = DTYPE_U8, .peer = peer, .tag = TAG_PING };
    call.link_ns = (u64)(1e9 * inject_pair(p->inject, p->g->members[p->g->index],
                                           p->g->members[peer], (double)bytes));
    return comm_run(&call);
}

/* Seconds of a round trip with the partner, best of `times`. The lower rank begins. */
static int time_round_trip(const struct pings *p, int peer, i64 bytes, int times, double *best)
{
    bool first = p->g->index < peer;
    *best = 1e9;
    for (int i = 0; i < times; i++) {
        u64 begin = sys_now_ns();
        TRY(pass(p, first ? COMM_SEND : COMM_RECV, peer, bytes));
        TRY(pass(p, first ? COMM_RECV : COMM_SEND, peer, bytes));
        double seconds = 1e-9 * (double)(sys_now_ns() - begin + 1);
        *best = seconds < *best ? seconds : *best;
    }
    return OK;
}

/* to: [ranks] what passes between this one and each other; NULL: not kept. */
static int time_partner(const struct pings *p, int peer, struct preflight_rank *own, double *to)
{
    double small, large;
    TRY(time_round_trip(p, peer, SMALL, PINGS, &small));
    TRY(time_round_trip(p, peer, LARGE, TRANSFERS, &large));
    if (small / 2 > own->latency_s) {
        own->latency_s = small / 2;
        own->latency_peer = peer;
    }
    if (to)
        to[peer] = 2 * LARGE / large;
    if (own->bytes_per_s == 0 || 2 * LARGE / large < own->bytes_per_s) {
        own->bytes_per_s = 2 * LARGE / large;
        own->bytes_peer = peer;
    }
    return OK;
}

/* A tournament: in round r, ranks whose numbers add up to r (modulo an even n, the last one
 * fixed) are partners, so everybody meets everybody once and nobody waits for two. */
static int partner_in(int round, int rank, int ranks)
{
    int n = ranks + ranks % 2, last = n - 1, turn = (round + n - 1 - rank) % (n - 1), peer;
    if (rank == last)
        return round * (n / 2) % (n - 1); /* the rank that would be its own partner */
    peer = turn == rank ? last : turn;
    return peer < ranks ? peer : -1;
}

static int time_messages(const struct mesh *m, const struct inject *inject, struct arena *a,
                         struct preflight_rank *own, double *to)
{
    const struct pings p = { m->world, inject, arena_alloc(a, LARGE) };
    int ranks = m->world->n, rounds = ranks - 1 + ranks % 2;
    memset(p.data, 1, LARGE);
    for (int round = 0; round < rounds; round++) {
        int peer = partner_in(round, m->world->index, ranks);
        if (peer >= 0)
            TRY(time_partner(&p, peer, own, to));
    }
    return OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds that a sum over all ranks takes, at best: a busy machine must not pass for a
 * slow link. */
static int time_sum(struct comm_group *g, void *data, i64 bytes, double *best)
{
    struct comm_call call = { .op = COMM_ALLREDUCE, .group = g, .in = data, .out = data,
                              .count = bytes / 4, .dtype = DTYPE_F32, .reduce = COMM_SUM,
                              .tag = TAG_PING };
    *best = 1e9;
    for (int i = 0; i < SUMS; i++) {
        struct comm_call again = call;
        u64 begin = sys_now_ns();
        TRY(comm_run(&again));
        double seconds = 1e-9 * (double)(sys_now_ns() - begin + 1);
        *best = seconds < *best ? seconds : *best;
    }
    return OK;
}

static int time_sums(const struct mesh *m, struct arena *a, struct preflight_rank *own)
{
    float *data = arena_alloc(a, LARGE); /* zeros */
    TRY(time_sum(m->world, data, SMALL, &own->sum_small_s));
    return time_sum(m->world, data, LARGE, &own->sum_large_s);
}

int preflight_run(struct preflight *out, const struct mesh *m, struct engine *e,
                  const struct inject *inject, struct arena *a)
{
    struct preflight_rank own = { .latency_peer = -1, .bytes_peer = -1 };
    double together = 0;
    out->n = m->world ? m->world->n : 1;
    out->ranks = ARENA_ARRAY(a, struct preflight_rank, out->n);
    out->pairs = NULL;
    double *to = NULL;
    if (out->n > 1 && out->n <= PREFLIGHT_PAIRS) {
        out->pairs = ARENA_ARRAY(a, double, out->n * out->n);
        to = ARENA_ARRAY(a, double, out->n);
    }
    TRY(mesh_max(m, &together, 1));
    if (e->backend.sleeps) /* it computes nothing: all ranks are alike */
        own.flops = 1;
    else
        TRY(time_product(e, a, &own.flops));
    TRY(mesh_max(m, &together, 1));
    if (m->world)
        TRY(time_messages(m, inject, a, &own, to));
    if (m->world)
        TRY(time_sums(m, a, &own));
    if (to)
        TRY(mesh_gather(m, to, out->pairs, out->n * (i64)sizeof *to));
    return mesh_gather(m, &own, out->ranks, (i64)sizeof own);
}

/* --- judging ------------------------------------------------------------------------ */

/* Ranks that share cores take turns, which is no fault of theirs: their products are judged
 * mildly, their messages, which wait for a turn, not at all. Messages within a node vary by
 * which cores the ranks have. */
static const double odd_product = 1.3, odd_link = 3, crowded_product = 5;

/* Seconds (per FLOP, per message, per byte), so that more is slower. */
static double slowness(const struct preflight_rank *r, int what)
{
    return what == 0 ? 1 / r->flops : what == 1 ? r->latency_s : 1 / r->bytes_per_s;
}

static double median_of(const struct preflight *p, int what)
{
    struct arena a;
    arena_init(&a);
    double *all = ARENA_ARRAY(&a, double, p->n);
    for (i64 r = 0; r < p->n; r++)
        all[r] = slowness(&p->ranks[r], what);
    qsort(all, (size_t)p->n, sizeof *all, by_value);
    double middle = all[(p->n - 1) / 2];
    arena_fini(&a);
    return middle;
}

void preflight_sums(const struct preflight *p, double *latency_s, double *bytes_per_s)
{
    struct arena a;
    double n = (double)p->n;
    arena_init(&a);
    double *small = ARENA_ARRAY(&a, double, p->n), *bytes = ARENA_ARRAY(&a, double, p->n);
    for (i64 r = 0; r < p->n; r++) {
        small[r] = p->ranks[r].sum_small_s;
        bytes[r] = p->ranks[r].sum_large_s - small[r];
    }
    qsort(small, (size_t)p->n, sizeof *small, by_value);
    qsort(bytes, (size_t)p->n, sizeof *bytes, by_value);
    double extra = bytes[p->n / 2];
    *latency_s = p->n > 1 ? small[p->n / 2] / (2 * (n - 1)) : NAN;
    *bytes_per_s = p->n > 1 && extra > 0 ? 2 * (n - 1) / n * LARGE / extra : NAN;
    arena_fini(&a);
}

bool preflight_slowest(const struct preflight *p, struct preflight_link *out)
{
    struct arena a;
    i64 slow = 0, n = 0;
    if (p->n < 3)
        return false;
    arena_init(&a);
    double *others = ARENA_ARRAY(&a, double, p->n);
    for (i64 r = 1; r < p->n; r++)
        slow = p->ranks[r].bytes_per_s < p->ranks[slow].bytes_per_s ? r : slow;
    *out = (struct preflight_link){ .rank = slow, .peer = p->ranks[slow].bytes_peer,
                                    .bytes_per_s = p->ranks[slow].bytes_per_s };
    for (i64 r = 0; r < p->n; r++)
        if (r != out->rank && r != out->peer)
            others[n++] = p->ranks[r].bytes_per_s;
    qsort(others, (size_t)n, sizeof *others, by_value);
    out->others_bytes_per_s = others[n / 2];
    out->next_bytes_per_s = others[0];
    arena_fini(&a);
    return true;
}

/* --- domains ------------------------------------------------------------------------ */

/* Links that are no faster than this share of others are of another kind: equal ones were seen to
 * differ by a fifth. */
static const double another_kind = 0.6;

static double between(const double *pairs, i64 n, i64 a, i64 b)
{
    return pairs[a * n + b] < pairs[b * n + a] ? pairs[a * n + b] : pairs[b * n + a];
}

/* The least of the faster kind: above the widest gap among all; 0: there is none so wide. */
static double fast_from(double *rates, i64 count)
{
    double from = 0, widest = another_kind;
    qsort(rates, (size_t)count, sizeof *rates, by_value);
    for (i64 i = 0; i + 1 < count; i++)
        if (rates[i] <= widest * rates[i + 1]) {
            widest = rates[i] / rates[i + 1];
            from = rates[i + 1];
        }
    return from;
}

/* Each rank gets the domain of the first one that it has a fast link to, or a new one. */
static void number_domains(const double *pairs, double from, struct preflight_domains *out)
{
    const i64 n = out->ranks;
    out->n = 0;
    for (i64 r = 0; r < n; r++) {
        i64 first = 0;
        while (first < r && between(pairs, n, first, r) < from)
            first++;
        out->of[r] = first < r ? out->of[first] : (i32)out->n++;
    }
}

static bool are_apart(const double *pairs, double from, const struct preflight_domains *d)
{
    i64 members[PREFLIGHT_PAIRS] = { 0 };
    bool apart = d->n > 1;
    for (i64 a = 0; a < d->ranks; a++) {
        members[d->of[a]]++;
        for (i64 b = a + 1; b < d->ranks; b++)
            apart &= (d->of[a] == d->of[b]) == (between(pairs, d->ranks, a, b) >= from);
    }
    for (i64 k = 0; k < d->n; k++)
        apart &= members[k] > 1; /* one alone: it is that rank's link */
    return apart;
}

bool preflight_find_domains(const double *pairs, i64 n, struct preflight_domains *out)
{
    struct arena a;
    if (!pairs || n > PREFLIGHT_PAIRS || n < 4)
        return false;
    *out = (struct preflight_domains){ .ranks = n };
    arena_init(&a);
    double *rates = ARENA_ARRAY(&a, double, n * (n - 1) / 2);
    i64 count = 0, slow = 0;
    for (i64 x = 0; x < n; x++)
        for (i64 y = x + 1; y < n; y++)
            rates[count++] = between(pairs, n, x, y);
    const double from = fast_from(rates, count);
    number_domains(pairs, from, out);
    const bool found = from > 0 && are_apart(pairs, from, out);
    while (found && rates[slow] < from)
        slow++;
    out->far_bytes_per_s = rates[slow / 2];
    out->near_bytes_per_s = rates[slow + (count - slow) / 2];
    arena_fini(&a);
    return found;
}

void preflight_put_domains(const struct preflight_domains *d, struct json *j)
{
    json_key(j, "domains");
    json_begin_object(j);
    json_key(j, "of");
    json_begin_array(j);
    for (i64 r = 0; r < d->ranks; r++)
        json_int(j, d->of[r]);
    json_end(j);
    json_put_double(j, "near_bytes_per_s", d->near_bytes_per_s);
    json_put_double(j, "far_bytes_per_s", d->far_bytes_per_s);
    json_end(j);
}

void preflight_put_link(const struct preflight_link *l, struct json *j)
{
    json_key(j, "slowest_link");
    json_begin_object(j);
    json_key(j, "ranks");
    json_begin_array(j);
    json_int(j, l->rank < l->peer ? l->rank : l->peer);
    json_int(j, l->rank < l->peer ? l->peer : l->rank);
    json_end(j);
    json_put_double(j, "bytes_per_s", l->bytes_per_s);
    json_put_double(j, "others_bytes_per_s", l->others_bytes_per_s);
    json_put_double(j, "next_bytes_per_s", l->next_bytes_per_s);
    json_end(j);
}

static int worst_first(const void *a, const void *b)
{
    const struct preflight_finding *x = a, *y = b;
    return (x->times < y->times) - (x->times > y->times);
}

/* A link is told once, by the lower of its ranks, unless the other one sees another as worst. */
static bool is_told(const struct preflight_finding *list, i64 n, const struct preflight_finding *f)
{
    for (i64 i = 0; i < n; i++)
        if (f->peer >= 0 && list[i].rank == f->peer && list[i].peer == f->rank &&
            list[i].latency == f->latency)
            return true;
    return false;
}

i64 preflight_judge(const struct preflight *p, bool crowded, struct preflight_finding *out,
                    i64 most)
{
    i64 n = 0;
    for (int what = 0; what < (crowded ? 1 : 3) && p->n > 1; what++) {
        double middle = median_of(p, what);
        double limit = what > 0 ? odd_link : crowded ? crowded_product : odd_product;
        for (i64 r = 0; r < p->n && n < most; r++) {
            const struct preflight_rank *k = &p->ranks[r];
            struct preflight_finding f = { .rank = r, .latency = what == 1 };
            f.peer = what == 0 ? -1 : what == 1 ? k->latency_peer : k->bytes_peer;
            f.times = slowness(k, what) / middle;
            if (f.times > limit && !is_told(out, n, &f))
                out[n++] = f;
        }
    }
    qsort(out, (size_t)n, sizeof *out, worst_first);
    return n;
}
