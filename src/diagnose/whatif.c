#include "diagnose/whatif.h"

#include "base/err.h"
#include "base/sys.h"
#include "diagnose/times.h"
#include "diagnose/whatif_noise.h"
#include "diagnose/whatif_order.h"
#include "diagnose/whatif_pick.h"
#include "diagnose/whatif_places.h"
#include "diagnose/whatif_quiet.h"
#include "diagnose/whatif_stages.h"
#include "diagnose/whatif_turns.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_GRAPHS = 64 };

struct whatif {
    struct record_step steps[MOST_GRAPHS]; /* who took part; no spans */
    struct dag *graphs[MOST_GRAPHS];
    int n;
    struct ladder ladder;
    struct usual usual;  /* of these steps */
    double lost[LOSSES]; /* sums over the graphs */
    struct critical critical;
    double step_s;       /* mean step of the measure */
    const struct measure *measure;
    bool stands_for[HOST_KINDS]; /* these steps have about as much of it as all have */
    double rarer[HOST_KINDS];    /* how much rarer it is in all */
    double less_data;    /* how much less is waited for data in all steps */
    double left_s[MOST_GRAPHS][2]; /* of each without waits for data; without gaps, too */
    double length, measured; /* sums over the graphs */
    struct rows_work rows;
    struct quiet_times quiet; /* once asked for; share NULL: not yet */
    struct arena arena;
    double *seconds, *lead, *ends; /* room for an edited graph */
    i64 room;
};

/* --- graphs ----------------------------------------------------------------------------- */

static int make_room(struct whatif *w, i64 n)
{
    if (n <= w->room)
        return OK;
    sys_free(w->seconds);
    sys_free(w->lead);
    sys_free(w->ends);
    w->seconds = sys_alloc(n * (i64)sizeof(double), 64);
    w->lead = sys_alloc(n * (i64)sizeof(double), 64);
    w->ends = sys_alloc(n * (i64)sizeof(double), 64);
    w->room = n;
    if (!w->seconds || !w->lead || !w->ends)
        return err_set(ERR_LIMIT, "no memory for replaying %lld tasks", (long long)n);
    return OK;
}

/* Of a step, what edits and the ladder ask of it: its ranks without their spans. */
static struct record_step keep_ranks(const struct record_step *s, struct arena *a)
{
    struct record_step kept = *s;
    kept.arena = NULL;
    kept.ranks = ARENA_ARRAY(a, struct record_rank, s->n_ranks);
    for (int r = 0; r < s->n_ranks; r++) {
        const struct record_rank *k = &s->ranks[r];
        struct sample *sample = k->sample ? ARENA_NEW(a, struct sample) : NULL;
        if (sample)
            *sample = *k->sample;
        kept.ranks[r] = (struct record_rank){ .head = k->head, .table = k->table,
                                              .sample = sample, .incomplete = k->incomplete };
    }
    return kept;
}

static int add_graph(struct whatif *w, struct record *r, i64 step, struct record_step *s,
                     i64 *nodes)
{
    struct dag *g;
    int rc = record_step(r, step, s);
    if (rc >= 0)
        rc = dag_new(&g, s);
    if (rc < 0)
        return rc == ERR_LIMIT ? rc : OK; /* a damaged step: others will do */
    double lost[LOSSES];
    rungs_lost(s, g, lost);
    for (int k = 0; k < LOSSES; k++)
        w->lost[k] += lost[k];
    usual_add(&w->usual, s, g);
    critical_add(&w->critical, s, g);
    *nodes += g->n;
    w->length += dag_length(g, NULL, NULL, NULL);
    w->measured += g->measured;
    w->steps[w->n] = keep_ranks(s, &w->arena);
    w->graphs[w->n++] = dag_keep(g, &w->arena);
    return make_room(w, g->n);
}

/* The steps' ladder, once it is known what they usually take. */
static void climb_graphs(struct whatif *w, const struct record *r)
{
    struct arena a;
    usual_settle(&w->usual);
    arena_init(&a);
    for (int k = 0; k < w->n; k++, arena_clear(&a)) {
        struct record_step s = w->steps[k];
        struct dag g = *w->graphs[k];
        struct ladder_step ladder;
        s.arena = &a;
        g.ends = w->ends;
        ladder_measure(&ladder, &s, &g, &w->usual);
        ladder_take(&w->ladder, r, &s, &ladder);
        w->left_s[k][0] = ladder.rungs[RUNG_DATA];
        w->left_s[k][1] = ladder.rungs[RUNG_HOST];
    }
    ladder_set_between(&w->ladder, times_mean(w->measure, TIME_EVAL),
                       times_mean(w->measure, TIME_CHECKPOINT));
    arena_fini(&a);
}

/* The path is that of the steps that are replayed: what is seldom done is weighed by how often it
 * is done in all. */
static void weigh_path(struct whatif *w)
{
    static const int kinds[HOST_KINDS] = { [HOST_LOG] = DAG_LOG, [HOST_EVAL] = DAG_EVAL,
                                           [HOST_CHECKPOINT] = DAG_CHECKPOINT,
                                           [HOST_GAP] = DAG_KINDS };
    for (int k = 0; k < HOST_KINDS; k++) {
        const double weight = kinds[k] ? w->rarer[k] : 1;
        for (i64 i = 0; i < w->critical.n && weight != 1; i++)
            if (w->critical.shares[i].kind == kinds[k])
                w->critical.shares[i].seconds *= weight;
    }
    critical_sort(&w->critical);
}

int whatif_new(struct whatif **out, struct record *r, const struct measure *m, i64 most_nodes)
{
    struct whatif *w = sys_alloc((i64)sizeof *w, 64);
    struct record_step step = { 0 }; /* each in the memory of the one before */
    i64 nodes = 0, take = i64_min(m->n_steps, MOST_GRAPHS), rc = OK;
    *out = NULL;
    if (!w)
        return err_set(ERR_LIMIT, "no memory for replaying a run");
    *w = (struct whatif){ .step_s = m->step.mean, .measure = m };
    arena_init(&w->arena);
    w->critical.arena = w->usual.arena = &w->arena;
    for (i64 i = 0; i < take && rc >= 0; i++) {
        rc = add_graph(w, r, m->numbers[whatif_pick(i, take, m->n_steps)], &step, &nodes);
        if (w->n == 1 && nodes > 0) /* the first tells how many there is room for */
            take = i64_min(take, i64_max(1, most_nodes / nodes));
    }
    record_step_free(&step);
    if (rc < 0 || w->n == 0 || !(w->measured > 0)) {
        whatif_free(w);
        return (int)i64_min(rc, OK);
    }
    climb_graphs(w, r);
    w->rows = rows_find(w->steps, w->graphs, w->n, &w->arena);
    for (int k = 0; k < HOST_KINDS; k++) {
        w->stands_for[k] = whatif_stands_for(m, take, (enum measure_host)k);
        w->rarer[k] = whatif_rarer(m, take, (enum measure_host)k);
    }
    w->less_data = whatif_less_data(m, take);
    weigh_path(w);
    *out = w;
    return OK;
}

void whatif_free(struct whatif *w)
{
    if (!w)
        return;
    arena_fini(&w->arena);
    sys_free(w->seconds);
    sys_free(w->lead);
    sys_free(w->ends);
    sys_free(w);
}

double whatif_fidelity(const struct whatif *w)
{
    return w->length / w->measured;
}

/* --- edits ------------------------------------------------------------------------------ */

static int stage_of(const struct whatif *w, int graph, int rank)
{
    const struct record_head *h = rank >= 0 ? w->steps[graph].ranks[rank].head : NULL;
    return h ? (int)h->pp : -1;
}

static bool is_host(int kind, int host)
{
    static const int kinds[] = { [HOST_LOG] = DAG_LOG, [HOST_EVAL] = DAG_EVAL,
                                 [HOST_CHECKPOINT] = DAG_CHECKPOINT, [HOST_GAP] = DAG_REST };
    return host >= 0 && host < HOST_KINDS ? kind == kinds[host]
                                          : kind == DAG_LOG || kind == DAG_EVAL ||
                                                kind == DAG_CHECKPOINT || kind == DAG_REST;
}

static bool is_of_lane(const struct finding_edit *e, int lane)
{
    return e->sums ? finding_can_hide(lane) : e->lane < 0 || lane == e->lane;
}

/* Whether a node is of the kind that the edit is about, and where it says. */
static bool selects(const struct finding_edit *e, const struct dag_node *n, int stage)
{
    const struct record_task *t = n->task;
    if ((n->rank >= 0 ? !finding_edits_rank(e, n->rank) : e->rank >= 0) ||
        (e->stage >= 0 && stage != e->stage))
        return false;
    switch (e->kind) {
    case EDIT_DATA:
        return n->kind == DAG_DATA;
    case EDIT_HOST:
        return is_host(n->kind, e->host);
    case EDIT_TRANSFER:
        return n->kind == DAG_CALL && is_of_lane(e, n->lane);
    case EDIT_OVERLAP:
    case EDIT_READY:
    case EDIT_ONE_TURN:
    case EDIT_PLACES:
    case EDIT_CLOCK:
        return false; /* no task's duration is what changes */
    case EDIT_COMPUTE:
        if (e->recompute && n->kind == DAG_CALL) /* exchanges are made again, too */
            return t && (t->flags & RECORD_RECOMPUTE);
        return n->kind == DAG_COMPUTE && t &&
               (!e->op[0] || strncmp(t->op, e->op, strlen(e->op) + e->whole_name) == 0) &&
               (e->phase < 0 || t->phase == e->phase) &&
               (!e->recompute || (t->flags & RECORD_RECOMPUTE)) &&
               (e->watching ? (t->flags & RECORD_WATCHES) != 0
                            : e->phase < 0 || !(t->flags & RECORD_WATCHES));
    default:
        return n->kind == DAG_COMPUTE;
    }
}

/* The same task of the same action on the ranks of one stage. */
struct peer {
    i64 key;
    i64 node;
    double seconds;
};

static i64 key_of(const struct whatif *w, int graph, const struct dag_node *n)
{
    return (i64)stage_of(w, graph, n->rank) << 48 | (i64)n->action << 32 | n->task_id;
}

static int by_key(const void *a, const void *b)
{
    const struct peer *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* The tasks of these ranks take the median of the others', or (no rank said) all take their
 * mean. */
static void even_ranks(struct whatif *w, int graph, const struct finding_edit *e)
{
    const bool all = e->kind == EDIT_EVEN_ROWS;
    const struct dag *g = w->graphs[graph];
    struct arena a;
    arena_init(&a);
    struct peer *p = ARENA_ARRAY(&a, struct peer, g->n);
    double *others = ARENA_ARRAY(&a, double, g->n_ranks);
    i64 n = 0;
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *x = &g->nodes[i];
        if (x->kind == DAG_COMPUTE)
            p[n++] = (struct peer){ key_of(w, graph, x), i, w->seconds[i] };
    }
    qsort(p, (size_t)n, sizeof *p, by_key);
    for (i64 i = 0, to; i < n; i = to) {
        double sum = 0;
        i64 count = 0;
        for (to = i; to < n && p[to].key == p[i].key; to++) {
            sum += p[to].seconds;
            if (!all && !finding_edits_rank(e, g->nodes[p[to].node].rank) && count < g->n_ranks)
                others[count++] = p[to].seconds;
        }
        double mean = sum / (double)(to - i), median = measure_quantile(others, count, 0.5);
        for (i64 k = i; k < to; k++) {
            bool odd = finding_edits_rank(e, g->nodes[p[k].node].rank);
            if (all)
                w->seconds[p[k].node] = mean;
            else if (odd && isfinite(median))
                w->seconds[p[k].node] = median;
        }
    }
    arena_fini(&a);
}

static bool is_within(const struct whatif *w, int graph, const struct finding_edit *e)
{
    return w->steps[graph].step >= e->first_step && w->steps[graph].step <= e->last_step;
}

/* A task of a rank in one step. */
struct run_of_task {
    i64 rank, key, node; /* node: in the graph's upper half the graph */
    double seconds;
};

static int by_rank_and_key(const void *a, const void *b)
{
    const struct run_of_task *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* The tasks that the edit is about, in all steps: each rank's alike behind each other. */
static struct run_of_task *list_turns(const struct whatif *w, const struct finding_edit *e, i64 *n,
                               struct arena *a)
{
    i64 total = 0;
    for (int k = 0; k < w->n; k++)
        total += w->graphs[k]->n;
    struct run_of_task *list = ARENA_UNSET(a, struct run_of_task, total);
    *n = 0;
    for (int k = 0; k < w->n; k++)
        for (i64 i = 0; i < w->graphs[k]->n; i++) {
            const struct dag_node *x = &w->graphs[k]->nodes[i];
            if (x->kind == DAG_COMPUTE && finding_edits_rank(e, x->rank))
                list[(*n)++] = (struct run_of_task){ x->rank, key_of(w, k, x), (i64)k << 32 | i,
                                              w->graphs[k]->seconds[i] };
        }
    qsort(list, (size_t)*n, sizeof *list, by_rank_and_key);
    return list;
}

/* What tasks would take in the steps of the edit, were they as in the others: [graph][node]; NULL
 * for other steps. */
static double **as_elsewhere(const struct whatif *w, const struct finding_edit *e, struct arena *a)
{
    double **seconds = ARENA_ARRAY(a, double *, w->n);
    double *others = ARENA_UNSET(a, double, MOST_GRAPHS);
    i64 n;
    const struct run_of_task *list = list_turns(w, e, &n, a);
    for (int k = 0; k < w->n; k++)
        if (is_within(w, k, e)) {
            const struct dag *g = w->graphs[k];
            seconds[k] = ARENA_UNSET(a, double, g->n);
            memcpy(seconds[k], g->seconds, (size_t)g->n * sizeof *g->seconds);
        }
    for (i64 i = 0, to; i < n; i = to) {
        i64 count = 0;
        for (to = i; to < n && list[to].rank == list[i].rank && list[to].key == list[i].key; to++)
            if (!is_within(w, (int)(list[to].node >> 32), e) && count < MOST_GRAPHS)
                others[count++] = list[to].seconds;
        for (i64 k = i; k < to && count > 0; k++)
            if (seconds[list[k].node >> 32])
                seconds[list[k].node >> 32][list[k].node & 0xffffffff] = others[count / 2];
    }
    return seconds;
}

/* Of the steps that there are, the share that the edit is about. */
static double share_within(const struct measure *m, const struct finding_edit *e)
{
    double n = 0;
    for (i64 i = 0; i < m->n_steps; i++)
        n += m->numbers[i] >= e->first_step && m->numbers[i] <= e->last_step;
    return n / (double)m->n_steps;
}

/* What the mean step of the run would lose. */
static double saved_within(struct whatif *w, const struct finding_edit *e)
{
    struct arena a;
    double saved = 0, n = 0;
    arena_init(&a);
    double **seconds = as_elsewhere(w, e, &a);
    for (int k = 0; k < w->n; k++)
        if (seconds[k]) {
            saved += w->graphs[k]->length - dag_length(w->graphs[k], seconds[k], NULL, w->ends);
            n++;
        }
    arena_fini(&a);
    return n > 0 && n < w->n ? saved / n * share_within(w->measure, e) : NAN;
}

/* How much slower a rank is than others when nothing disturbs it: that is no disturbance. */
static double quiet_pace(const struct whatif *w, i64 rank)
{
    const double pace = rank < w->measure->n_ranks ? w->measure->ranks[rank].quiet_pace : 1;
    return pace > 1 ? pace : 1;
}

static void find_quiet(struct whatif *w)
{
    struct arena a;
    arena_init(&a);
    const int ranks = w->graphs[0]->n_ranks;
    int *stage = ARENA_ARRAY(&a, int, ranks);
    double *pace = ARENA_ARRAY(&a, double, ranks);
    for (int r = 0; r < ranks; r++) {
        stage[r] = stage_of(w, 0, r);
        pace[r] = quiet_pace(w, r);
    }
    const struct quiet_steps s = { w->graphs, w->n, stage, pace, &w->rows };
    w->quiet = quiet_find(&s, &w->arena);
    arena_fini(&a);
}

/* Actions take at most what they take when nothing disturbs them, or exactly that where all else is
 * quiet beforehand, and tasks their usual share; for rows as they are. */
static void keep_quiet(struct whatif *w, int graph, const struct finding_edit *e, enum quiet q)
{
    const struct dag *g = w->graphs[graph];
    const bool mends_ranks = e->as_usual || e->kind == EDIT_EVEN_STAGES;
    struct arena a;
    if (!w->quiet.share)
        find_quiet(w);
    arena_init(&a);
    const i64 places = g->n_ranks * w->quiet.actions;
    double *now = ARENA_ARRAY(&a, double, places), *rows = ARENA_ARRAY(&a, double, places);
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE) {
            const i64 place = g->nodes[i].rank * w->quiet.actions + g->nodes[i].action;
            now[place] += w->seconds[i];
            rows[place] += (double)w->quiet.share[graph][i] * rows_times(&w->rows, graph, &g->nodes[i]);
        }
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        const i64 place = n->kind == DAG_COMPUTE ? n->rank * w->quiet.actions + n->action : 0;
        if (n->kind != DAG_COMPUTE || !finding_edits_rank(e, n->rank) || !(rows[place] > 0))
            continue;
        const double pace = mends_ranks ? 1 : quiet_pace(w, n->rank);
        const double quiet = *quiet_action(&w->quiet, q, graph, g->n_ranks, n->rank, n->action);
        const double most = e->quiet ? INFINITY : now[place] / rows[place];
        w->seconds[i] = (double)w->quiet.share[graph][i] * rows_times(&w->rows, graph, n) *
                        fmin(most, pace * quiet);
    }
    arena_fini(&a);
}

/* --- noise ---------------------------------------------------------------------------- */

enum { ENOUGH_STEPS = 20 };
/* What a regular gap is above the usual ones: of the step, as a finding; and sigma, as H9. */
static const double least_gap = 0.02, gap_sigma = 6;

void whatif_noise(const struct whatif *w, struct measure *m)
{
    const int ranks = w->graphs[0]->n_ranks;
    struct arena a;
    arena_init(&a);
    i64 *actions = ARENA_ARRAY(&a, i64, ranks);
    for (int r = 0; r < ranks; r++) {
        const struct record_table *t = w->steps[0].ranks[r].table;
        actions[r] = t ? t->n_actions : 0;
    }
    const struct quiet_steps s = { .graphs = w->graphs, .n = w->n, .rows = &w->rows };
    quiet_noise(&s, actions, m);
    arena_fini(&a);
}

/* --- stages --------------------------------------------------------------------------- */

/* Of what the tasks take as far as the edit has come. */
static void sum_shares(const struct whatif *w, int graph, struct shares *s)
{
    const struct dag *g = w->graphs[graph];
    *s = (struct shares){ .stages = 0 };
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        int stage = stage_of(w, graph, n->rank), layer = n->task ? n->task->layer : -1;
        if (n->kind != DAG_COMPUTE || stage < 0 || stage >= STAGES || layer >= LAYERS)
            continue;
        s->stage[stage] += w->seconds[i];
        if (layer >= 0)
            s->layer[layer] += w->seconds[i];
        else
            s->fixed[stage] += w->seconds[i];
        s->stages = stage >= s->stages ? stage + 1 : s->stages;
        s->layers = layer >= s->layers ? layer + 1 : s->layers;
    }
}

/* Every stage's tasks are stretched to what the best partition of the layers would give it. */
static void even_stages(struct whatif *w, int graph)
{
    const struct dag *g = w->graphs[graph];
    struct arena a;
    arena_init(&a);
    struct shares *s = ARENA_NEW(&a, struct shares);
    double target[STAGES];
    sum_shares(w, graph, s);
    whatif_partition(s, target, &a);
    for (i64 i = 0; i < g->n; i++) {
        int stage = stage_of(w, graph, g->nodes[i].rank);
        if (g->nodes[i].kind == DAG_COMPUTE && stage >= 0 && stage < s->stages &&
            s->stage[stage] > 0)
            w->seconds[i] = w->seconds[i] * target[stage] / s->stage[stage];
    }
    arena_fini(&a);
}

/* That the exchange moves: who receives sends nothing. */
static double bytes_of(const struct whatif *w, int graph, const struct dag_node *n)
{
    const struct record_table *t = n->rank >= 0 ? w->steps[graph].ranks[n->rank].table : NULL;
    if (!n->task)
        return 0;
    bool receives = (n->task->flags & RECORD_RECEIVES) && t && n->task->moved >= 0 &&
                    n->task->moved < t->n_tensors;
    return receives ? (double)t->tensors[n->task->moved].bytes : n->task->message_bytes;
}

static double edited(const struct finding_edit *e, double bytes, double seconds,
                     double factor)
{
    double less = e->less + e->less_per_byte * bytes + e->less_share * seconds;
    double floor = fmin(seconds, e->floor + e->floor_per_byte * bytes);
    return less > 0 ? fmax(floor, seconds - factor * less) : seconds * factor;
}

static void shorten_gaps(struct whatif *w, const struct dag *g, const struct finding_edit *e,
                         double factor)
{
    struct arena a;
    arena_init(&a);
    bool *ranks = ARENA_ARRAY(&a, bool, g->n_ranks);
    for (int r = 0; r < g->n_ranks; r++)
        ranks[r] = finding_edits_rank(e, r);
    dag_scale_gaps(g, ranks, factor, w->seconds, w->lead);
    arena_fini(&a);
}

/* What it is about, and, of exchanges, what the ranks' own threads take to begin them. */
static void edit_nodes(struct whatif *w, int graph, const struct finding_edit *e, double factor)
{
    const struct dag *g = w->graphs[graph];
    const double starts = fmax(0, 1 - factor * e->starts);
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        const bool here = e->starts > 0 && finding_edits_rank(e, n->rank);
        if (here && n->begun && is_of_lane(e, n->begun))
            w->lead[i] *= starts;
        if (here && n->kind == DAG_BEGIN && is_of_lane(e, n->lane))
            w->seconds[i] *= starts;
        const struct record_head *h = n->rank >= 0 ? w->steps[graph].ranks[n->rank].head : NULL;
        if (e->groups ? whatif_of_groups(e, h, n)
                      : selects(e, n, e->stage < 0 ? -1 : stage_of(w, graph, n->rank)))
            w->seconds[i] = edited(e, bytes_of(w, graph, n), w->seconds[i], factor);
    }
}

/* Of the edits that change what waits for what. */
static double reordered_length(struct whatif *w, int graph, const struct finding_edit *e)
{
    struct arena a;
    struct dag g;
    arena_init(&a);
    const struct dag *from = w->graphs[graph];
    if (e->kind == EDIT_READY)
        g = whatif_begun_when_ready(from, &w->steps[graph], &a);
    else if (e->kind == EDIT_OVERLAP)
        g = whatif_waiting_when_needed(from, &a);
    else
        g = whatif_one_turn(from, e->lane, w->seconds, w->lead, &a);
    const double length = dag_length(&g, w->seconds, w->lead, w->ends);
    arena_fini(&a);
    return length;
}

/* Ranks lie otherwise on the axes. */
static void move_ranks(struct whatif *w, int graph, const struct finding_edit *e, double factor)
{
    const struct dag *g = w->graphs[graph];
    for (i64 i = 0; i < g->n; i++) {
        const struct dag_node *n = &g->nodes[i];
        const struct record_head *h = n->rank >= 0 ? w->steps[graph].ranks[n->rank].head : NULL;
        const struct record_group *group = n->kind == DAG_CALL ? whatif_group(h, n) : NULL;
        if (group && group->n > 1)
            w->seconds[i] = whatif_moved(w->measure, e->order, group, bytes_of(w, graph, n),
                                         w->seconds[i], factor);
    }
}

static void mend_ranks(struct whatif *w, int graph, const struct finding_edit *e)
{
    const struct dag *g = w->graphs[graph];
    struct arena a;
    arena_init(&a);
    double *takes = ARENA_ARRAY(&a, double, g->n_ranks);
    for (int r = 0; r < g->n_ranks; r++)
        takes[r] = finding_mended(e, r);
    for (i64 i = 0; i < g->n; i++)
        if (g->nodes[i].kind == DAG_COMPUTE)
            w->seconds[i] *= takes[g->nodes[i].rank];
    arena_fini(&a);
}

static double edited_length(struct whatif *w, int graph, const struct finding_edit *e,
                            double factor)
{
    const struct dag *g = w->graphs[graph];
    memcpy(w->seconds, g->seconds, (size_t)g->n * sizeof *w->seconds);
    memcpy(w->lead, g->lead, (size_t)g->n * sizeof *w->lead);
    if (e->n_mended > 0)
        mend_ranks(w, graph, e);
    if (e->quiet)
        keep_quiet(w, graph, &(struct finding_edit){ .rank = -1, .peer = -1, .quiet = true },
                   USUALLY_QUIET);
    switch (e->kind) {
    case EDIT_EVEN_RANK:
    case EDIT_EVEN_ROWS:
        even_ranks(w, graph, e);
        break;
    case EDIT_EVEN_WORK:
        for (i64 i = 0; i < g->n; i++)
            w->seconds[i] *= rows_even(&w->rows, graph, &g->nodes[i], factor);
        break;
    case EDIT_EVEN_STAGES:
        keep_quiet(w, graph, e, OFTEN_QUIET); /* what a rank or some steps have is not the stage's */
        even_stages(w, graph);
        break;
    case EDIT_QUIET:
        keep_quiet(w, graph, e, factor == 0 ? SELDOM_QUIET : USUALLY_QUIET);
        break;
    case EDIT_OFTEN_QUIET:
        keep_quiet(w, graph, e, OFTEN_QUIET);
        break;
    case EDIT_ONE_TURN:
        break; /* along with what waits for what */
    case EDIT_PLACES:
        move_ranks(w, graph, e, factor);
        break;
    case EDIT_CLOCK:
        whatif_slow_clocks(w->measure, g, factor, w->seconds);
        break;
    default:
        if (e->kind == EDIT_HOST && (e->host < 0 || e->host == HOST_GAP))
            shorten_gaps(w, g, e, factor);
        edit_nodes(w, graph, e, factor);
    }
    if (e->kind == EDIT_READY || e->kind == EDIT_OVERLAP || e->kind == EDIT_ONE_TURN)
        return reordered_length(w, graph, e);
    if (e->delayed)
        return whatif_delayed_length(w->measure, g, w->seconds, w->lead, w->ends);
    return dag_length(g, w->seconds, w->lead, w->ends);
}

/* Whether some rank stands still every so many steps, by so much that it may be a finding. */
static bool has_regular_gaps(const struct measure *m)
{
    for (i64 r = 0; r < m->n_ranks; r++)
        if (measure_regular_pauses(m, r, gap_sigma, least_gap * m->step.mean).count > 0)
            return true;
    return false;
}

void whatif_settle(struct whatif *w, struct measure *m)
{
    double left[MOST_GRAPHS];
    const int what = has_regular_gaps(m);
    for (int k = 0; k < w->n; k++)
        left[k] = w->left_s[k][what];
    if (w->n >= ENOUGH_STEPS)
        measure_settle_left(m, left, w->n);
    /* There nothing varies by chance, but for what was drawn for each action. */
    const struct finding_edit quiet = { .kind = EDIT_OFTEN_QUIET, .rank = -1, .peer = -1 };
    for (int k = 0; k < w->n && m->config.simulated; k++)
        left[k] = edited_length(w, k, &quiet, 1);
    if (w->n >= ENOUGH_STEPS && m->config.simulated)
        measure_settle_left(m, left, w->n);
    m->loss[LOSS_DATA] *= w->less_data;
}

/* Seconds a step that the rank which does so most stands still for calls that nothing needs yet. */
static double stood_early(const struct whatif *w)
{
    const int ranks = w->graphs[0]->n_ranks;
    double most = 0;
    struct arena a;
    arena_init(&a);
    double *sum = ARENA_ARRAY(&a, double, ranks);
    for (int k = 0; k < w->n; k++)
        if (w->graphs[k]->n_ranks == ranks)
            whatif_add_early(w->graphs[k], w->ends, sum);
    for (int r = 0; r < ranks; r++)
        most = fmax(most, sum[r] / w->n);
    arena_fini(&a);
    return most;
}

/* Exchanges of some steps, which the others do not have. */
static double saved_of_episode(struct whatif *w, const struct finding_edit *e, double factor)
{
    double saved = 0, n = 0;
    for (int k = 0; k < w->n; k++)
        if (is_within(w, k, e)) {
            saved += w->graphs[k]->length - edited_length(w, k, e, factor);
            n++;
        }
    return n > 0 ? saved / n * share_within(w->measure, e) : NAN;
}

static double length_under(void *context, const struct finding_edit *e, double factor)
{
    struct whatif *w = context;
    const double before = w->step_s * whatif_fidelity(w);
    double sum = 0;
    if (!e)
        return before;
    if (e->kind == EDIT_HOST && e->host >= 0 && !w->stands_for[e->host])
        return NAN;
    if (e->kind == EDIT_OVERLAP && stood_early(w) < DAG_GATE * w->length / w->n)
        return NAN; /* what stands still needs what it waits for */
    if (e->kind == EDIT_AS_ELSE)
        return before - saved_within(w, e);
    if (e->kind == EDIT_TRANSFER && e->last_step > 0)
        return before - saved_of_episode(w, e, factor);
    for (int i = 0; i < w->n; i++)
        sum += edited_length(w, i, e, factor);
    double weight = e->kind == EDIT_DATA ? w->less_data : 1;
    if (e->kind == EDIT_HOST && e->host >= 0)
        weight = w->rarer[e->host];
    return before - weight * (before - w->step_s * sum / w->measured);
}

double whatif_seconds(const struct whatif *w, const struct finding_edit *e)
{
    double most = 0;
    for (int r = 0; r < w->graphs[0]->n_ranks; r++) {
        double sum = 0;
        for (int k = 0; k < w->n; k++)
            for (i64 i = 0; i < w->graphs[k]->n; i++) {
                const struct dag_node *n = &w->graphs[k]->nodes[i];
                if (n->rank == r && selects(e, n, stage_of(w, k, r)))
                    sum += w->graphs[k]->seconds[i];
            }
        most = fmax(most, sum / w->n);
    }
    return most;
}

struct finding_replay whatif_replay(struct whatif *w)
{
    return (struct finding_replay){ w, length_under };
}

/* --- where the time went ------------------------------------------------------------ */

const struct ladder *whatif_ladder(const struct whatif *w)
{
    return &w->ladder;
}

void whatif_lost(const struct whatif *w, double lost[LOSSES])
{
    for (int k = 0; k < LOSSES; k++)
        lost[k] = w->lost[k] / w->n;
}

const struct critical *whatif_critical(const struct whatif *w)
{
    return &w->critical;
}
