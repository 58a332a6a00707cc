/* Exchanges of a record's steps: by lane, by link, and what of them is latency and what bytes. */
#include "diagnose/measure_gather.h"

#include <math.h>
#include <stdio.h>

/* --- exchanges -------------------------------------------------------------------- */

static void keep_size(struct lane_sum *l, const struct measure_call *c, double seconds,
                      struct arena *a)
{
    i64 i = 0;
    while (i < l->n_sizes && (l->bytes[i] != c->moved || l->rounds[i] != c->rounds))
        i++;
    if (i == SIZES)
        return;
    if (i == l->n_sizes) {
        l->bytes[i] = c->moved;
        l->rounds[i] = c->rounds;
        l->n_sizes++;
    }
    keep(&l->seconds[i], seconds, a);
}

static bool is_link(const struct link_sum *l, int a, int b, int lane)
{
    return l->a == a && l->b == b && l->lane == lane;
}

/* The ranks of the exchange; of a move its two ends. */
static const i32 *members_of(struct gather *g, const struct record_head *h,
                             const struct measure_call *c, int a, int b)
{
    const struct record_group *group = &h->groups[c->lane];
    i32 *ranks = ARENA_ARRAY(g->a, i32, c->members);
    ranks[0] = a;
    ranks[c->members - 1] = b;
    for (int i = 0; !c->move && i < c->members && i < group->n; i++)
        ranks[i] = group->ranks[i];
    return ranks;
}

static void keep_link(struct gather *g, const struct record_head *h, struct lane_sum *l,
                      const struct measure_call *c, double seconds, bool free)
{
    const int first = (int)(c->key[1] >> 32), last = (int)(u32)c->key[1];
    const int a = first < last ? first : last, b = first < last ? last : first;
    i64 i = l->link; /* a rank's calls are of one group, most of them */
    if (i >= g->n_links || !is_link(&g->links[i], a, b, c->lane))
        for (i = 0; i < g->n_links && !is_link(&g->links[i], a, b, c->lane);)
            i++;
    if (i == g->cap_links)
        return;
    if (i == g->n_links)
        g->links[g->n_links++] = (struct link_sum){ .a = a, .b = b, .lane = c->lane,
                                                    .members = c->members,
                                                    .ranks = members_of(g, h, c, a, b) };
    l->link = i;
    keep(&g->links[i].rate_s, seconds, g->a);
    keep(&g->links[i].rate_bytes, c->moved, g->a);
    if (free)
        gather_add_link_size(&g->links[i], c, seconds, g->a);
}

void gather_add_calls(struct gather *g, const struct record_step *s,
                      const struct measure_calls *calls)
{
    bool *seen = NULL; /* tasks of this rank that have made a call */
    for (i64 i = 0; i < calls->n; i++) {
        const struct measure_call *c = &calls->at[i];
        struct lane_sum *l = &g->lanes[c->lane];
        i64 from = i64_max(c->begin, i64_min(c->come, c->end));
        double transfer = s_of(c->end - from), own = s_of(c->end - i64_min(c->free, c->end));
        l->lane.calls++;
        l->lane.bytes += c->bytes;
        l->lane.busy_s += s_of(c->end - c->begin);
        l->lane.wait_s += s_of(from - c->begin);
        l->lane.transfer_s += own;
        l->lane.wait_s += transfer - own;
        l->members += c->members;
        l->lane.rounds += c->rounds;
        l->lane.pieces += c->pieces;
        if (c->last >= 0) {
            g->met[c->rank]++;
            g->came_last[c->rank] += c->last == c->rank;
            g->blamed_s[c->last] += s_of(from - c->begin);
            g->waited_s += s_of(from - c->begin);
        }
        if (c->moved > 0 && (!c->move || c->bytes == 0)) { /* a send may end before it is taken */
            const bool free = c->free == i64_max(c->begin, c->come); /* nothing stood before it */
            if (free)
                keep_size(l, c, own, g->a);
            keep_link(g, s->ranks[c->rank].head, l, c, own, free);
        }
        if (i == calls->first[c->rank])
            seen = ARENA_ARRAY(s->arena, bool, s->ranks[c->rank].table->n_tasks);
        l->tasks += !seen[c->task];
        seen[c->task] = true;
    }
}

/* --- latency and bandwidth -------------------------------------------------------- */

/* Sizes that differ by less tell nothing of what a byte costs. */
static const double least_range = 1.5;
/* What is so many times the other, before the run, is what an exchange consists of. */
static const double dominates = 10;
/* Exchanges in one piece and those in several have the same slope, give or take so much: it is
 * of bytes. */
static const double as_slow = 0.3;

/* Where sizes are too alike for a line: what came on top is latency where messages are small, bytes
 * where they are large, and neither is claimed between. */
static struct measure_line guess_line(const double *x, const double *y, i64 n, double latency,
                                      double slowness)
{
    struct measure_line line = { NAN, NAN, n };
    double size = measure_quantile(x, n, 0.5), extra = measure_quantile(y, n, 0.5);
    if (slowness * size <= latency) {
        line.a = extra;
    } else if (slowness * size >= dominates * latency) {
        line.b = extra / size;
    }
    return line;
}

/* Seconds a byte of the exchanges in one piece, over their sizes; NaN where these are too alike. */
static double slope_of_whole(const struct lane_sum *sum, const double *x, const double *y)
{
    double size[SIZES], extra[SIZES];
    int fewest = sum->n_sizes > 0 ? sum->rounds[0] : 0;
    i64 n = 0;
    for (i64 i = 0; i < sum->n_sizes; i++)
        fewest = sum->rounds[i] < fewest ? sum->rounds[i] : fewest;
    for (i64 i = 0; i < sum->n_sizes; i++)
        if (sum->rounds[i] == fewest) {
            size[n] = x[i];
            extra[n++] = y[i];
        }
    return n > 2 && n < sum->n_sizes ? measure_line(size, extra, n).b : NAN;
}

/* What an exchange takes beyond what its messages took before the run, as a delay and a slowness
 * of bytes: latency = rounds x link's + delay, 1 / bandwidth = 1 / link's + slowness. Without a
 * probe, all that it takes. */
static void fit_lane(const struct measure_config *c, struct lane_sum *sum,
                     struct measure_lane *l)
{
    double x[SIZES], y[SIZES], rounds = l->rounds;
    bool based = isfinite(c->link_latency_s) && c->link_bytes_per_s > 0;
    double latency = based ? c->link_latency_s : 0, slowness = based ? 1 / c->link_bytes_per_s : 0;
    for (i64 i = 0; i < sum->n_sizes; i++) {
        x[i] = sum->bytes[i];
        y[i] = middle(&sum->seconds[i]) - sum->rounds[i] * latency - slowness * x[i];
    }
    struct measure_line line = { NAN, NAN, 0 };
    if (measure_quantile(x, sum->n_sizes, 1) >= least_range * measure_quantile(x, sum->n_sizes, 0))
        line = measure_line(x, y, sum->n_sizes);
    else if (based) {
        line = guess_line(x, y, sum->n_sizes, rounds * latency, slowness);
        sum->alike = true;
        sum->size = measure_quantile(x, sum->n_sizes, 0.5);
        sum->extra = measure_quantile(y, sum->n_sizes, 0.5);
    }
    /* Of one size each, pieces are the more the more bytes there are: where beginning one takes
     * longer than its bytes, before the run, what comes on top with the bytes is of the pieces. */
    double each = l->bytes / l->calls / l->pieces;
    if (based && l->pieces >= 2 && line.b > 0 && slowness * each < rounds / l->pieces * latency &&
        !(fabs(slope_of_whole(sum, x, y) / line.b - 1) < as_slow)) {
        line.a = (isfinite(line.a) ? line.a : 0) + line.b * l->bytes / l->calls;
        line.b = 0;
    }
    l->latency_s = isfinite(line.a) ? fmax(0, rounds * latency + line.a) : NAN;
    l->bytes_per_s = isfinite(line.b) ? 1 / fmax(slowness + line.b, 0.1 * slowness + 1e-15) : NAN;
    l->base_latency_s = based ? rounds * latency : NAN;
    l->base_bytes_per_s = based ? c->link_bytes_per_s : NAN;
}

/* How near another lane's delay, or slowness, must come to all that exchanges take more here. */
static const double explains = 0.3;

/* A lane whose sizes are alike takes part of what its exchanges take more for latency or for bytes as
 * those lanes do that can tell. */
static void ask_other_lanes(const struct gather *g, const struct lane_sum *sum,
                            struct measure_lane *l)
{
    const struct measure_config *c = &g->m->config;
    for (i64 i = 0; i < g->m->n_lanes && sum->alike && sum->extra > 0; i++) {
        const struct measure_lane *o = &g->m->lanes[i];
        if (g->lanes[o->lane].alike || !isfinite(o->latency_s) || !(o->bytes_per_s > 0))
            continue;
        const double delay = o->latency_s - o->base_latency_s;
        const double bytes = sum->size * (1 / o->bytes_per_s - 1 / c->link_bytes_per_s);
        const bool by_delay = fabs(delay / sum->extra - 1) < explains;
        if (by_delay == (fabs(bytes / sum->extra - 1) < explains))
            continue;
        l->latency_s = l->base_latency_s + (by_delay ? sum->extra : 0);
        l->bytes_per_s = 1 / (1 / c->link_bytes_per_s + (by_delay ? 0 : sum->extra / sum->size));
        return;
    }
}

static void settle_lanes(struct gather *g)
{
    static const char *const names[LANE_COUNT] = { "compute", "tp", "cp", "dp", "shard", "copies",
        "pp", "tie", "ep", "edp", "islands", "away" };
    struct measure *m = g->m;
    m->lanes = ARENA_ARRAY(g->a, struct measure_lane, LANE_COUNT);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct lane_sum *sum = &g->lanes[lane];
        struct measure_lane l = sum->lane;
        if (l.calls == 0)
            continue;
        l.lane = lane;
        snprintf(l.axis, sizeof l.axis, "%s", names[lane]);
        l.members = (i64)(sum->members / l.calls + 0.5);
        l.rounds /= l.calls;
        l.pieces /= l.calls;
        l.turns = sum->tasks > 0 ? l.calls / sum->tasks : NAN;
        fit_lane(&m->config, sum, &l);
        double *sums[] = { &l.calls, &l.bytes, &l.busy_s, &l.wait_s, &l.transfer_s, &l.exposed_s,
                           &l.wait_exposed_s, &l.backward_s, &l.tail_s, &l.begin_s };
        for (i64 k = 0; k < COUNT_OF(sums); k++)
            *sums[k] /= g->rank_steps;
        m->lanes[m->n_lanes++] = l;
    }
    for (i64 i = 0; i < m->n_lanes; i++)
        ask_other_lanes(g, &g->lanes[m->lanes[i].lane], &m->lanes[i]);
}

double gather_rate_of(const struct gather *g, const struct link_sum *l)
{
    const double seconds = middle(&l->rate_s);
    double rest = seconds;
    for (i64 i = 0; i < g->m->n_lanes; i++)
        if (g->m->lanes[i].lane == l->lane && g->m->lanes[i].base_latency_s > 0)
            rest = seconds - g->m->lanes[i].base_latency_s;
    return middle(&l->rate_bytes) / fmax(rest, 0.01 * seconds);
}

/* Links of one kind: of a lane, between two ranks or in rings of more. */
struct link_kind {
    int lane;
    bool rings;
};

static bool is_of(const struct link_sum *l, struct link_kind kind)
{
    return l->lane == kind.lane && (l->members > 2) == kind.rings;
}

/* How far the slowest of them is from the fastest, as a share. */
static double unevenness(const struct gather *g, struct link_kind kind)
{
    struct arena a;
    arena_init(&a);
    double *rates = ARENA_ARRAY(&a, double, g->n_links);
    i64 n = 0;
    for (i64 i = 0; i < g->n_links; i++)
        if (is_of(&g->links[i], kind))
            rates[n++] = gather_rate_of(g, &g->links[i]);
    const double apart = n > 1 ? measure_quantile(rates, n, 0) / measure_quantile(rates, n, 1) : 1;
    arena_fini(&a);
    return isfinite(apart) ? 1 - apart : 0;
}

static bool is_member(const struct link_sum *l, int i, int rank)
{
    return l->ranks[(i + l->members) % l->members] == rank;
}

/* Two ranks of a ring, one behind the other. */
static bool has_neighbours(const struct link_sum *l, int a, int b)
{
    for (int i = 0; i < l->members; i++)
        if (is_member(l, i, a))
            return is_member(l, i + 1, b) || is_member(l, i - 1, b);
    return false;
}

static void settle_probed_rings(struct gather *g)
{
    struct measure *m = g->m;
    const struct measure_probed *p = &m->config.probed;
    for (i64 i = 0; i < g->n_links && p->a >= 0 && m->n_probed_rings < PROBED_RINGS; i++)
        if (g->links[i].members > 2 && has_neighbours(&g->links[i], p->a, p->b))
            m->probed_rings[m->n_probed_rings++] = (struct measure_probed_ring){
                g->links[i].lane, gather_rate_of(g, &g->links[i]) };
}

static void settle_links(struct gather *g)
{
    struct measure *m = g->m;
    struct link_kind odd = { 0, false };
    double most = -1;
    for (int k = 0; k < 2 * LANE_COUNT; k++) {
        const struct link_kind kind = { k / 2, k % 2 };
        const double apart = unevenness(g, kind);
        odd = apart > most ? kind : odd;
        most = fmax(most, apart);
    }
    m->link_lane = odd.lane;
    m->links = ARENA_ARRAY(g->a, struct measure_link, g->n_links);
    for (i64 i = 0; i < g->n_links; i++)
        if (is_of(&g->links[i], odd))
            m->links[m->n_links++] = (struct measure_link){
                .a = g->links[i].a, .b = g->links[i].b, .members = g->links[i].members,
                .ranks = g->links[i].ranks, .latency_s = NAN, .base_bytes_per_s = NAN, .bytes_per_s = gather_rate_of(g, &g->links[i]),
                .calls = (double)g->links[i].rate_s.n / (double)m->n_steps };
}

void gather_settle_exchanges(struct gather *g)
{
    settle_lanes(g);
    settle_links(g);
    settle_probed_rings(g);
    gather_find_slow_end(g);
}
