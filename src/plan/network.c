#include "plan/network.h"

#include <math.h>

const char *const net_op_names[NET_OPS] = { "allreduce", "allgather", "reduce-scatter",
                                            "all-to-all", "broadcast", "sendrecv" };

/* A group on the tiers that it spans, with one value for each band. */
struct span {
    const struct plan_machine *m;
    int tiers;
    double ranks;
    double fan[PLAN_TIERS];
    double below[PLAN_TIERS];     /* members in one domain of the tier below */
    double bytes_per_s[PLAN_TIERS], latency_s[PLAN_TIERS];
    double sum_latency_s, piece_bytes; /* of the outermost tier */
    i64 stride;
};

enum end { QUICK, MIDDLE, SLOW };

int net_spread(const struct plan_machine *m, struct net_group g, i64 fan[PLAN_TIERS])
{
    i64 inside = 1;
    int n = 0;
    while (inside < g.ranks && n < m->n_tiers) {
        i64 here = i64_max(inside, i64_min(g.ranks, m->tiers[n].ranks / g.stride));
        if (n == m->n_tiers - 1) /* beyond the machine: as if its last tier went on */
            here = g.ranks;
        fan[n++] = ceil_div(here, inside);
        inside = here;
    }
    return n;
}

static double pick(const struct plan_band *b, enum end end, bool more_is_quick)
{
    if (end == MIDDLE)
        return b->mid;
    return (end == QUICK) == more_is_quick ? b->hi : b->lo;
}

/* Of a device's links, those that lead to members. */
static double mesh_share(const struct plan_machine *m, int tier, double fan)
{
    double all = (double)m->tiers[tier].ranks / (tier ? (double)m->tiers[tier - 1].ranks : 1);
    return fan > 1 ? (fan - 1) / (all - 1) : 1;
}

static struct span span_of(const struct plan_machine *m, struct net_group g, enum end end)
{
    struct span s = { .m = m, .ranks = (double)g.ranks, .stride = g.stride };
    i64 fan[PLAN_TIERS];
    double members = 1, sharers = g.sharers > 1 ? g.sharers : 1;
    s.tiers = net_spread(m, g, fan);
    for (int i = 0; i < s.tiers; i++) {
        const struct plan_tier *t = &m->tiers[i];
        s.fan[i] = (double)fan[i];
        s.below[i] = members;
        s.bytes_per_s[i] = pick(&t->bytes_per_s, end, true) / t->oversubscription / sharers;
        if (t->wiring == PLAN_MESH)
            s.bytes_per_s[i] *= mesh_share(m, i, s.fan[i]);
        s.latency_s[i] = pick(&t->latency_s, end, false);
        members *= s.fan[i];
    }
    const struct plan_tier *outer = s.tiers ? &m->tiers[s.tiers - 1] : NULL;
    s.piece_bytes = outer ? outer->piece_bytes : 0;
    if (outer && outer->latency_s.mid > 0)
        s.sum_latency_s = outer->sum_latency_s * s.latency_s[s.tiers - 1] / outer->latency_s.mid;
    return s;
}

/* Seconds that bytes take which each domain below sends out by the links of all its members. */
static double shared_out(const struct span *s, int tier, double bytes)
{
    return bytes / (s->below[tier] * s->bytes_per_s[tier]);
}

/* The same where one node after the other passes on everything: from a domain of several nodes it
 * leaves by the links of the last one. */
static double passed_on(const struct span *s, int tier, double bytes)
{
    return bytes / (s->below[tier ? 1 : 0] * s->bytes_per_s[tier]);
}

/* --- algorithms --------------------------------------------------------------------- */

/* How often the bytes X go around or down: an allreduce is a scatter and a gather. */
static double rounds_of(enum net_op op)
{
    return op == NET_ALLREDUCE ? 2 : 1;
}

/* n - 1 steps. In each of them every rank hears from its neighbour, so a step takes as long as over
 * the slowest edge; what moves fills the links of all tiers at once. */
static double ring(const struct span *s, enum net_op op, double bytes)
{
    double n = s->ranks, step = 0, moving = 0;
    double around = op == NET_BROADCAST ? bytes : bytes * (n - 1) / n;
    for (int i = 0; i < s->tiers; i++) {
        step = fmax(step, s->latency_s[i]);
        moving = fmax(moving, passed_on(s, i, around));
    }
    return rounds_of(op) * ((n - 1) * step + moving);
}

/* Where collectives were timed: whatever the library chose then, in pieces of so many bytes. */
static double as_measured(const struct span *s, enum net_op op, double bytes)
{
    double n = s->ranks, around = bytes * (n - 1) / n, moving = 0;
    double step = op == NET_ALLREDUCE && s->sum_latency_s > 0 ? s->sum_latency_s
                                                               : s->latency_s[s->tiers - 1];
    for (int i = 0; i < s->tiers; i++)
        moving = fmax(moving, passed_on(s, i, around));
    return rounds_of(op) * ((n - 1) * fmax(1, bytes / s->piece_bytes) * step + moving);
}

static bool is_measured(const struct span *s, enum net_op op)
{
    return s->piece_bytes > 0 &&
           (op == NET_ALLREDUCE || op == NET_ALLGATHER || op == NET_REDUCE_SCATTER);
}

/* Pieces follow each other, so all levels work at once. */
static double tree(const struct span *s, enum net_op op, double bytes)
{
    double steps = 0, moving = 0;
    if (op != NET_ALLREDUCE && op != NET_BROADCAST)
        return INFINITY;
    for (int i = 0; i < s->tiers; i++) {
        steps += ceil(log2(s->fan[i])) * s->latency_s[i];
        moving = fmax(moving, passed_on(s, i, bytes));
    }
    return rounds_of(op) * (steps + moving);
}

/* The node's switch sums: what a rank sends comes back summed, and it sends a share of that on. */
static double in_switch(const struct span *s, enum net_op op, double bytes)
{
    double steps = 2 * s->latency_s[0], n = s->fan[0];
    double moving = bytes * (1 + 1 / n) / s->bytes_per_s[0];
    if (op != NET_ALLREDUCE || !s->m->tiers[0].reduces || n < 2)
        return INFINITY;
    for (int i = 1; i < s->tiers; i++) {
        steps += 2 * ceil(log2(s->fan[i])) * s->latency_s[i];
        moving = fmax(moving, passed_on(s, i, 2 * bytes));
    }
    return steps + moving;
}

/* One tier after the other; the nearest ranks share most of it out, so little goes far. */
static double by_tiers(const struct span *s, enum net_op op, double bytes, bool doubling)
{
    double seconds = 0;
    if (op == NET_BROADCAST)
        return INFINITY;
    for (int i = 0; i < s->tiers; i++) {
        double steps = doubling ? ceil(log2(s->fan[i])) : s->fan[i] - 1;
        seconds += steps * s->latency_s[i] +
                   shared_out(s, i, bytes * (s->fan[i] - 1) / s->fan[i]);
    }
    return rounds_of(op) * seconds;
}

/* What passes a device's links for each byte that it sends through the tier: on a torus of d axes
 * of k, a byte makes d k / 4 hops on average. */
static double hops(const struct plan_tier *t, double fan)
{
    if (t->wiring != PLAN_TORUS)
        return 1;
    return fmax(1, t->axes * pow(fan, 1.0 / t->axes) / 4);
}

/* Every rank to every other. Over rails, what goes to another place moves within the domain
 * first. */
static double all_to_all(const struct span *s, double bytes)
{
    double n = s->ranks, steps = 0, moving = 0, detour = 0;
    for (int i = s->tiers - 1; i >= 0; i--) {
        double leaving = bytes * (n - s->below[i]) / n;
        steps += (s->below[i] * s->fan[i] - s->below[i]) * s->latency_s[i];
        moving = fmax(moving, (leaving + detour) * hops(&s->m->tiers[i], s->fan[i]) /
                                  s->bytes_per_s[i]);
        detour = s->m->tiers[i].wiring == PLAN_RAIL ? leaving * (1 - 1 / s->below[i]) : 0;
    }
    return steps + moving;
}

/* Bruck et al. 1997: log2 n messages of half the buffer. */
static double all_to_all_doubling(const struct span *s, double bytes)
{
    double seconds = 0;
    for (int i = 0; i < s->tiers; i++)
        seconds += ceil(log2(s->fan[i])) * (s->latency_s[i] + bytes / 2 / s->bytes_per_s[i]);
    return seconds;
}

static double send_receive(const struct span *s, double bytes)
{
    int top = s->tiers - 1;
    double seconds = s->latency_s[top] + bytes / s->bytes_per_s[top];
    if (top > 0 && s->m->tiers[top].wiring == PLAN_RAIL &&
        s->stride % s->m->tiers[top - 1].ranks != 0)
        seconds += s->latency_s[0] + bytes / s->bytes_per_s[0]; /* to the right place first */
    return seconds;
}

static double by(const struct span *s, enum net_op op, enum net_algorithm how, double bytes)
{
    bool direct = op == NET_ALLTOALL || op == NET_SENDRECV;
    if (s->ranks <= 1)
        return 0;
    if (how == NET_DIRECT)
        return op == NET_ALLTOALL   ? all_to_all(s, bytes)
               : op == NET_SENDRECV ? send_receive(s, bytes)
                                    : INFINITY;
    if (op == NET_ALLTOALL && how == NET_DOUBLING)
        return all_to_all_doubling(s, bytes);
    if (direct)
        return INFINITY;
    if (is_measured(s, op))
        return as_measured(s, op, bytes);
    if (how == NET_RING)
        return ring(s, op, bytes);
    if (how == NET_TREE)
        return tree(s, op, bytes);
    if (how == NET_IN_SWITCH)
        return in_switch(s, op, bytes);
    return by_tiers(s, op, bytes, how == NET_DOUBLING);
}

/* --- choice ------------------------------------------------------------------------- */

double net_seconds_by(const struct plan_machine *m, enum net_op op, enum net_algorithm how,
                      struct net_group g, double bytes)
{
    struct span s = span_of(m, g, MIDDLE);
    return by(&s, op, how, bytes) + (g.ranks > 1 ? m->call_s : 0);
}

static double quickest(const struct plan_machine *m, enum net_op op, struct net_group g,
                       double bytes, enum end end, enum net_algorithm *how)
{
    struct span s = span_of(m, g, end);
    double best = INFINITY;
    for (int i = 0; i < NET_ALGORITHMS; i++) {
        if (!(m->algorithms & 1u << i))
            continue;
        double seconds = by(&s, op, i, bytes);
        if (seconds < best) {
            best = seconds;
            *how = i;
        }
    }
    return best + (g.ranks > 1 ? m->call_s : 0);
}

struct plan_band net_seconds(const struct plan_machine *m, enum net_op op, struct net_group g,
                             double bytes, enum net_algorithm *how)
{
    enum net_algorithm chosen = NET_RING, other;
    struct plan_band out;
    out.lo = quickest(m, op, g, bytes, QUICK, &other);
    out.mid = quickest(m, op, g, bytes, MIDDLE, &chosen);
    out.hi = quickest(m, op, g, bytes, SLOW, &other);
    if (how)
        *how = chosen;
    return out;
}

double net_bus_bytes(enum net_op op, i64 ranks, double bytes)
{
    double n = (double)ranks;
    if (op == NET_BROADCAST || op == NET_SENDRECV)
        return bytes;
    return rounds_of(op) * (n - 1) / n * bytes;
}
