#include "diagnose/rungs.h"

#include "diagnose/pace.h"

#include <math.h>

/* Lengths are found in one walk over the graph, side by side: as pairs, which a processor of any
 * kind adds and compares at once. */
enum { SIDES = RUNG_COMPUTE };
_Static_assert((int)LOSSES <= (int)SIDES && SIDES == 8, "room for both");

typedef double pair __attribute__((vector_size(2 * sizeof(double))));

struct side {
    pair a, b, c, d;
};

static inline struct side side_all(double x)
{
    const pair p = { x, x };
    return (struct side){ p, p, p, p };
}

static inline struct side side_add(struct side x, struct side y)
{
    return (struct side){ x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d };
}

static inline struct side side_mul(struct side x, struct side y)
{
    return (struct side){ x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d };
}

static inline pair pair_larger(pair x, pair y)
{
    return (pair){ dag_larger(x[0], y[0]), dag_larger(x[1], y[1]) };
}

static inline struct side side_larger(struct side x, struct side y)
{
    return (struct side){ pair_larger(x.a, y.a), pair_larger(x.b, y.b), pair_larger(x.c, y.c),
                          pair_larger(x.d, y.d) };
}

#define KIND(k) (1u << (k))

enum {
    UNSTEADY = KIND(DAG_EVAL) | KIND(DAG_CHECKPOINT),
    LOADS = KIND(DAG_DATA),
    HOST = KIND(DAG_LOG) | KIND(DAG_REST),
    CALLS = KIND(DAG_WAIT) | KIND(DAG_OUTER) | KIND(DAG_MEET) | KIND(DAG_BEGIN) | KIND(DAG_CALL),
};

/* A step of which some kinds take no time. Once the host's are gone no time passes between nodes,
 * ranks begin together, and a call that is begun in a gap is taken up that much earlier
 * (dag_scale_gaps with 0). */
struct peeled {
    u32 gone;
    const struct computing *computing;
};

/* One rank's tasks, in each of the steps. */
struct tasks {
    const double *seconds[SIDES];
    i64 at;
};

struct walk {
    const struct dag *g;
    struct side keep[DAG_KINDS]; /* 1 where a node of the kind takes its time */
    struct side host, no_host;   /* 1 where time passes between nodes, and where it does not */
    struct tasks *tasks;         /* [n_ranks] */
    double *gaps; /* behind each node, until the next one of its chain; where that is a rank's
                   * first, [g->n + rank] */
};

static struct side side_of(const double *x)
{
    return (struct side){ { x[0], x[1] }, { x[2], x[3] }, { x[4], x[5] }, { x[6], x[7] } };
}

static void keep_kinds(struct walk *w, const struct peeled *peeled)
{
    for (int kind = 0; kind < DAG_KINDS; kind++) {
        double keep[SIDES];
        for (int k = 0; k < SIDES; k++)
            keep[k] = !(peeled[k].gone & KIND(kind));
        w->keep[kind] = side_of(keep);
    }
    w->host = w->keep[DAG_REST];
    w->no_host = side_add(side_all(1), side_mul(side_all(-1), w->host));
}

static void find_gaps(struct walk *w, struct arena *a)
{
    const struct dag *g = w->g;
    w->gaps = ARENA_ARRAY(a, double, g->n + g->n_ranks);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        if (n->kind != DAG_BEGIN && n->kind != DAG_CALL && n->kind != DAG_READY)
            w->gaps[n->before >= 0 ? n->before : g->n + n->rank] = g->lead[i];
    }
}

/* What of each time stands before the node. */
static inline struct side time_before(const struct walk *w, i64 i, const struct side *ends)
{
    const struct dag *g = w->g;
    const struct dag_node *n = &g->nodes[i];
    struct side t;
    if (n->before >= 0)
        t = ends[n->before];
    else if (n->rank >= 0)
        t = side_mul(side_all(g->starts[n->rank]), w->host);
    else
        t = side_all(-INFINITY);
    t = side_add(t, side_mul(side_all(g->lead[i]), w->host));
    for (i64 k = 0; k < n->n_needs; k++)
        t = side_larger(t, ends[g->needs[n->needs + k]]);
    return t;
}

static inline struct side time_of(const struct walk *w, i64 i)
{
    const struct dag *g = w->g;
    const struct dag_node *n = &g->nodes[i];
    const double seconds = g->seconds[i];
    if (n->kind == DAG_COMPUTE) {
        struct tasks *t = &w->tasks[n->rank];
        const double *const *s = t->seconds;
        const i64 at = t->at++;
        return (struct side){ { s[0][at], s[1][at] }, { s[2][at], s[3][at] },
                              { s[4][at], s[5][at] }, { s[6][at], s[7][at] } };
    }
    if (n->kind != DAG_BEGIN)
        return side_mul(side_all(seconds), w->keep[n->kind]);
    const double gap = w->gaps[n->before >= 0 ? n->before : g->n + n->rank];
    const struct side early = side_mul(side_all(dag_larger(0, seconds - gap)), w->no_host);
    return side_mul(side_add(side_mul(side_all(seconds), w->host), early), w->keep[DAG_BEGIN]);
}

/* peeled[SIDES], of which those behind the n-th are not asked for. */
static void walk(const struct record_step *s, const struct dag *g, const struct peeled *peeled,
                 int n, double *lengths)
{
    struct walk w = { .g = g, .tasks = ARENA_ARRAY(s->arena, struct tasks, g->n_ranks) };
    struct side *ends = ARENA_UNSET(s->arena, struct side, g->n), longest = side_all(0);
    for (int r = 0; r < g->n_ranks; r++)
        for (int k = 0; k < SIDES; k++)
            w.tasks[r].seconds[k] = peeled[k < n ? k : 0].computing->ranks[r].seconds;
    keep_kinds(&w, peeled);
    find_gaps(&w, s->arena);
    for (i64 i = 0; i < g->n; i++) {
        ends[i] = side_add(time_before(&w, i, ends), time_of(&w, i));
        if (g->nodes[i].kind == DAG_REST)
            longest = side_larger(longest, ends[i]);
    }
    const double all[SIDES] = { longest.a[0], longest.a[1], longest.b[0], longest.b[1],
                                longest.c[0], longest.c[1], longest.d[0], longest.d[1] };
    for (int k = 0; k < n; k++)
        lengths[k] = all[k];
}

/* --- the ladder's ------------------------------------------------------------------- */

void rungs_measure(struct rungs *out, const struct record_step *s, const struct dag *g,
                   const struct usual *u)
{
    struct computing as_is, clock, cpu, even;
    computing_open(&as_is, s, g);
    computing_copy(&clock, &as_is);
    for (int r = 0; r < g->n_ranks; r++)
        computing_scale(&clock.ranks[r], 0, clock.ranks[r].n,
                        usual_speed_of(&s->ranks[r]).clock);
    computing_copy(&cpu, &clock);
    for (int r = 0; r < g->n_ranks; r++)
        computing_scale(&cpu.ranks[r], 0, cpu.ranks[r].n, usual_speed_of(&s->ranks[r]).on_cpu);
    computing_copy(&out->usual, &cpu);
    usual_apply(u, &out->usual);
    computing_even_copies(&out->usual);
    computing_copy(&even, &out->usual);
    computing_even_actions(&even);
    const struct peeled peeled[SIDES] = {
        [RUNG_STEP] = { UNSTEADY, &as_is },
        [RUNG_DATA] = { UNSTEADY | LOADS, &as_is },
        [RUNG_HOST] = { UNSTEADY | LOADS | HOST, &as_is },
        [RUNG_CLOCK] = { UNSTEADY | LOADS | HOST, &clock },
        [RUNG_CPU] = { UNSTEADY | LOADS | HOST, &cpu },
        [RUNG_BALANCE] = { UNSTEADY | LOADS | HOST, &out->usual },
        [RUNG_TRANSFER] = { UNSTEADY | LOADS | HOST | CALLS, &out->usual },
        [RUNG_STAGE] = { UNSTEADY | LOADS | HOST | CALLS, &even },
    };
    walk(s, g, peeled, SIDES, out->seconds);
    out->seconds[RUNG_COMPUTE] = computing_mean(&out->usual, g->missing);
}

/* --- for rules ---------------------------------------------------------------------- */

/* Ranks that are slower than others in what they do alike compute at the usual pace. */
static void mend_paces(struct computing *c)
{
    double *pace = ARENA_ARRAY(c->s->arena, double, c->n_ranks);
    pace_of_ranks(c, pace);
    for (int r = 0; r < c->n_ranks; r++)
        computing_scale(&c->ranks[r], 0, c->ranks[r].n, 1 / pace[r]);
}

void rungs_lost(const struct record_step *s, const struct dag *g, double lost[LOSSES])
{
    struct computing as_is, balanced, even;
    double left[LOSSES + 1];
    computing_open(&as_is, s, g);
    computing_copy(&balanced, &as_is);
    mend_paces(&balanced);
    left[LOSSES] = computing_mean(&balanced, g->missing);
    computing_even_copies(&balanced);
    computing_copy(&even, &balanced);
    computing_even_actions(&even);
    const struct peeled peeled[SIDES] = { /* what is left before each loss */
        [LOSS_DATA] = { UNSTEADY, &as_is },
        [LOSS_HOST] = { UNSTEADY | LOADS, &as_is },
        [LOSS_TRANSFER] = { UNSTEADY | LOADS | HOST, &as_is },
        [LOSS_BALANCE] = { UNSTEADY | LOADS | HOST | CALLS, &as_is },
        [LOSS_STAGE] = { UNSTEADY | LOADS | HOST | CALLS, &balanced },
        [LOSS_BUBBLE] = { UNSTEADY | LOADS | HOST | CALLS, &even },
    };
    walk(s, g, peeled, LOSSES, left);
    for (int k = 0; k < LOSSES; k++)
        lost[k] = left[k] - left[k + 1];
}
