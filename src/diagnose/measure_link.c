/* Whose link is slow: the rank that all slow groups have in common, over all lanes. */
#include "diagnose/measure_gather.h"

#include <math.h>
#include <string.h>

void gather_add_link_size(struct link_sum *l, const struct measure_call *c, double seconds,
                          struct arena *a)
{
    i64 i = 0;
    if (!l->sizes)
        l->sizes = ARENA_ARRAY(a, struct link_size, LINK_SIZES);
    while (i < l->n_sizes && (l->sizes[i].bytes != c->moved || l->sizes[i].rounds != c->rounds))
        i++;
    if (i == LINK_SIZES)
        return;
    if (i == l->n_sizes)
        l->sizes[l->n_sizes++] = (struct link_size){ .bytes = c->moved, .rounds = c->rounds };
    l->sizes[i].seconds[l->sizes[i].n++ % LINK_KEPT] = seconds;
}

static double median_of(const struct link_size *s)
{
    return measure_quantile(s->seconds, i64_min(s->n, LINK_KEPT), 0.5);
}

static bool of_a_kind(const struct link_sum *x, const struct link_sum *y)
{
    return x->lane == y->lane && (x->members > 2) == (y->members > 2);
}

/* What the fastest other group of its lane takes for as much; NaN: none has the like. */
static double fastest(const struct gather *g, const struct link_sum *l, const struct link_size *s)
{
    double least = NAN;
    for (i64 i = 0; i < g->n_links; i++) {
        const struct link_sum *o = &g->links[i];
        for (i64 k = 0; o != l && of_a_kind(o, l) && k < o->n_sizes; k++)
            if (o->sizes[k].bytes == s->bytes && o->sizes[k].rounds == s->rounds)
                least = fmin(least, median_of(&o->sizes[k])); /* fmin: NaN is left out */
    }
    return least;
}

/* How many times as long its exchanges take. */
static double slower(const struct gather *g, const struct link_sum *l)
{
    double own = 0, others = 0;
    for (i64 k = 0; k < l->n_sizes; k++) {
        const double other = fastest(g, l, &l->sizes[k]);
        if (isfinite(other)) {
            own += (double)l->sizes[k].n * median_of(&l->sizes[k]);
            others += (double)l->sizes[k].n * other;
        }
    }
    return own / others;
}

/* Equal links were seen to differ by a fifth (C11); on a computed clock they are equal, but for what
 * lanes that share one take from each other. */
static double slow_times(const struct measure *m)
{
    return m->config.simulated ? 1.15 : 1 / 0.6;
}

/* Those that are in the group, of `common`. Returns how many. */
static i64 keep_common(const struct measure *m, const struct link_sum *l, bool *common,
                       struct arena *a)
{
    bool *in = ARENA_ARRAY(a, bool, m->n_ranks);
    i64 n = 0;
    for (int i = 0; i < l->members; i++)
        if (l->ranks[i] >= 0 && l->ranks[i] < m->n_ranks)
            in[l->ranks[i]] = true;
    for (i64 r = 0; r < m->n_ranks; r++) {
        common[r] &= in[r];
        n += common[r];
    }
    return n;
}

static bool has_all(const struct measure *m, const struct link_sum *l, const bool *common,
                    struct arena *a)
{
    bool *left = ARENA_ARRAY(a, bool, m->n_ranks);
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        left[r] = common[r];
        n += common[r];
    }
    return keep_common(m, l, left, a) == n;
}

/* Without the fault, by a probe before the run; NaN: there was none. */
static double price(const struct measure *m, const struct link_size *s)
{
    return s->rounds * m->config.link_latency_s + s->bytes / m->config.link_bytes_per_s;
}

/* How many times as long as a probe says its exchanges take. */
static double slower_than_probe(const struct measure *m, const struct link_sum *l)
{
    double own = 0, probed = 0;
    for (i64 k = 0; k < l->n_sizes; k++) {
        own += (double)l->sizes[k].n * median_of(&l->sizes[k]);
        probed += (double)l->sizes[k].n * price(m, &l->sizes[k]);
    }
    return own / probed;
}

/* Where ranks take turns on cores a probe of two says little of all (C5). */
static const double slow_times_crowded = 10;

/* Of several ranks that slow groups have in common: those that are in slow groups of lanes that
 * have one group only, too. */
static void ask_lone_groups(const struct gather *g, struct measure_slow_end *out, bool *common,
                            struct arena *a)
{
    const struct measure *m = g->m;
    const double least = m->threads_per_node > m->cores_per_node ? slow_times_crowded : slow_times(m);
    bool *left = ARENA_ARRAY(a, bool, m->n_ranks);
    for (i64 i = 0; i < g->n_links; i++) {
        const struct link_sum *l = &g->links[i];
        if (isfinite(slower(g, l)) || !(slower_than_probe(m, l) >= least))
            continue;
        memcpy(left, common, (size_t)m->n_ranks * sizeof *left);
        const i64 n = keep_common(m, l, left, a);
        if (n == 0 || n == out->common)
            continue;
        memcpy(common, left, (size_t)m->n_ranks * sizeof *left);
        out->common = n;
        out->groups++;
        out->lanes++;
    }
}

/* A delay and a slowness of bytes, of exchanges of all groups that have the common ranks; where
 * sizes are alike, of bytes. */
static void fit(const struct gather *g, const bool *common, struct measure_slow_end *out,
                struct arena *a)
{
    double *bytes = ARENA_ARRAY(a, double, g->n_links * LINK_SIZES);
    double *more = ARENA_ARRAY(a, double, g->n_links * LINK_SIZES);
    i64 n = 0;
    for (i64 i = 0; i < g->n_links; i++) {
        const struct link_sum *l = &g->links[i];
        for (i64 k = 0; has_all(g->m, l, common, a) && k < l->n_sizes; k++) {
            const double other = fastest(g, l, &l->sizes[k]);
            bytes[n] = l->sizes[k].bytes;
            const double usual = isfinite(other) ? other : price(g->m, &l->sizes[k]);
            more[n] = median_of(&l->sizes[k]) - usual;
            n += isfinite(more[n]);
        }
    }
    const struct measure_line line = measure_line(bytes, more, n);
    const bool alike = measure_quantile(bytes, n, 1) < 1.5 * measure_quantile(bytes, n, 0);
    out->delay_s = alike || !isfinite(line.a) ? 0 : fmax(0, line.a);
    out->s_per_byte = alike ? measure_quantile(more, n, 0.5) / measure_quantile(bytes, n, 0.5)
                            : isfinite(line.b) ? fmax(0, line.b) : 0;
}

static void find_slow_end(const struct gather *g, struct measure_slow_end *out, struct arena *a)
{
    const struct measure *m = g->m;
    bool *common = ARENA_ARRAY(a, bool, m->n_ranks), lanes[LANE_COUNT] = { false };
    for (i64 r = 0; r < m->n_ranks; r++)
        common[r] = true;
    for (i64 i = 0; i < g->n_links; i++) {
        const double times = slower(g, &g->links[i]);
        if (!(times >= slow_times(g->m)))
            continue;
        out->times = out->groups == 0 ? times : fmin(out->times, times);
        out->common = keep_common(m, &g->links[i], common, a);
        out->lanes += !lanes[g->links[i].lane];
        lanes[g->links[i].lane] = true;
        out->groups++;
    }
    if (out->groups == 0 || out->common == 0) { /* several faults, or none */
        out->groups = 0;
        return;
    }
    ask_lone_groups(g, out, common, a);
    for (i64 r = 0; r < m->n_ranks; r++)
        if (common[r]) {
            out->first = out->first < 0 ? (int)r : out->first;
            out->last = (int)r;
        }
    fit(g, common, out, a);
}

void gather_find_slow_end(struct gather *g)
{
    struct arena a;
    arena_init(&a);
    find_slow_end(g, &g->m->slow_end, &a);
    arena_fini(&a);
}
