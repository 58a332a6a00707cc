#include "diagnose/rungs.h"

#include "diagnose/pace.h"

#include <math.h>

/* Lengths are found in one walk over the graph, side by side. */
enum { SIDES = RUNG_COMPUTE };
_Static_assert((int)LOSSES <= (int)SIDES, "room for both");

struct side {
    double x[SIDES];
};

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
    const struct computing *computing; /* NULL: as measured */
};

struct walk {
    const struct dag *g;
    const struct peeled *peeled;
    int n;
    struct side keep[DAG_KINDS]; /* 1 where a node of the kind takes its time */
    double *gaps; /* behind each node, until the next one of its chain; where that is a rank's
                   * first, [g->n + rank] */
};

static void keep_kinds(struct walk *w)
{
    for (int kind = 0; kind < DAG_KINDS; kind++)
        for (int k = 0; k < w->n; k++)
            w->keep[kind].x[k] = !(w->peeled[k].gone & KIND(kind));
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
static struct side time_before(const struct walk *w, i64 i, const struct side *ends)
{
    const struct dag *g = w->g;
    const struct dag_node *n = &g->nodes[i];
    const struct side *host = &w->keep[DAG_REST];
    struct side t;
    if (n->before >= 0) {
        t = ends[n->before];
    } else {
        const double start = n->rank >= 0 ? g->starts[n->rank] : -INFINITY;
        for (int k = 0; k < SIDES; k++)
            t.x[k] = host->x[k] != 0 || n->rank < 0 ? start : 0;
    }
    for (int k = 0; k < SIDES; k++)
        t.x[k] += g->lead[i] * host->x[k];
    for (i64 k = 0; k < n->n_needs; k++) {
        const struct side *need = &ends[g->needs[n->needs + k]];
        for (int r = 0; r < SIDES; r++)
            t.x[r] = dag_larger(t.x[r], need->x[r]);
    }
    return t;
}

static struct side time_of(const struct walk *w, i64 i, i64 *at)
{
    const struct dag *g = w->g;
    const struct dag_node *n = &g->nodes[i];
    struct side t;
    for (int k = 0; k < SIDES; k++)
        t.x[k] = g->seconds[i] * w->keep[n->kind].x[k];
    if (n->kind == DAG_BEGIN) {
        const double gap = w->gaps[n->before >= 0 ? n->before : g->n + n->rank];
        for (int k = 0; k < w->n; k++)
            if (w->peeled[k].gone & KIND(DAG_REST))
                t.x[k] = dag_larger(0, g->seconds[i] - gap) * w->keep[n->kind].x[k];
    } else if (n->kind == DAG_COMPUTE) {
        const i64 own = at[n->rank]++;
        for (int k = 0; k < w->n; k++)
            if (w->peeled[k].computing)
                t.x[k] = w->peeled[k].computing->ranks[n->rank].seconds[own];
    }
    return t;
}

static void walk(const struct record_step *s, const struct dag *g, const struct peeled *peeled,
                 int n, double *lengths)
{
    struct walk w = { .g = g, .peeled = peeled, .n = n };
    struct side *ends = ARENA_UNSET(s->arena, struct side, g->n), longest = { { 0 } };
    i64 *at = ARENA_ARRAY(s->arena, i64, g->n_ranks);
    keep_kinds(&w);
    find_gaps(&w, s->arena);
    for (i64 i = 0; i < g->n; i++) {
        const struct side before = time_before(&w, i, ends), seconds = time_of(&w, i, at);
        for (int k = 0; k < SIDES; k++)
            ends[i].x[k] = before.x[k] + seconds.x[k];
        for (int k = 0; g->nodes[i].kind == DAG_REST && k < SIDES; k++)
            longest.x[k] = dag_larger(longest.x[k], ends[i].x[k]);
    }
    for (int k = 0; k < n; k++)
        lengths[k] = longest.x[k];
}

/* --- the ladder's ------------------------------------------------------------------- */

void rungs_measure(struct rungs *out, const struct record_step *s, const struct dag *g,
                   const struct usual *u)
{
    struct computing clock, cpu, even;
    computing_open(&clock, s, g);
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
        [RUNG_STEP] = { UNSTEADY, NULL },
        [RUNG_DATA] = { UNSTEADY | LOADS, NULL },
        [RUNG_HOST] = { UNSTEADY | LOADS | HOST, NULL },
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
    struct computing balanced, even;
    double left[LOSSES + 1];
    computing_open(&balanced, s, g);
    mend_paces(&balanced);
    left[LOSSES] = computing_mean(&balanced, g->missing);
    computing_even_copies(&balanced);
    computing_copy(&even, &balanced);
    computing_even_actions(&even);
    const struct peeled peeled[LOSSES] = { /* what is left before each loss */
        [LOSS_DATA] = { UNSTEADY, NULL },
        [LOSS_HOST] = { UNSTEADY | LOADS, NULL },
        [LOSS_TRANSFER] = { UNSTEADY | LOADS | HOST, NULL },
        [LOSS_BALANCE] = { UNSTEADY | LOADS | HOST | CALLS, NULL },
        [LOSS_STAGE] = { UNSTEADY | LOADS | HOST | CALLS, &balanced },
        [LOSS_BUBBLE] = { UNSTEADY | LOADS | HOST | CALLS, &even },
    };
    walk(s, g, peeled, LOSSES, left);
    for (int k = 0; k < LOSSES; k++)
        lost[k] = left[k] - left[k + 1];
}
