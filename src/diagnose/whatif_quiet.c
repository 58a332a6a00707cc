#include "diagnose/whatif_quiet.h"

#include <math.h>
#include <stdlib.h>

/* Shares of all cases in which an action takes at most what it takes undisturbed: as one expects,
 * when that is often so, and when it hardly ever is. */
static const double quiet_share[QUIETS] = {
    [USUALLY_QUIET] = 0.1, [OFTEN_QUIET] = 0.25, [SELDOM_QUIET] = 0.02,
};
/* What is further above the usual than this many times as the quiet is below counts as that far:
 * one long pause does not decide. */
static const double farthest = 4;

/* One case of what is the same: an action of a rank in a step, or a task of it. */
struct peer {
    i64 key;
    int graph;
    i64 at; /* which action, or node, of that graph */
    double seconds;
};

/* All cases of actions, or of tasks, sorted by what they are and then by time. */
struct peers {
    struct peer *p;
    i64 n;
};

static int by_key(const void *a, const void *b)
{
    const struct peer *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* Behind the last peer of the same key as p[i]. */
static i64 same_until(const struct peers *s, i64 i)
{
    i64 to = i + 1;
    while (to < s->n && s->p[to].key == s->p[i].key)
        to++;
    return to;
}

static bool counts(const struct quiet_steps *s, const struct dag_node *n)
{
    return n->kind == DAG_COMPUTE && s->stage[n->rank] >= 0;
}

static i64 key_of(const struct quiet_steps *s, int rank, i64 action, u32 task)
{
    return (i64)s->stage[rank] << 48 | action << 32 | task;
}

/* At the usual pace, with usual rows. */
static double usual_seconds(const struct quiet_steps *s, int graph, i64 node)
{
    const struct dag_node *n = &s->graphs[graph]->nodes[node];
    return s->graphs[graph]->seconds[node] / s->pace[n->rank] / rows_times(s->rows, graph, n);
}

static struct peers list_tasks(const struct quiet_steps *s, struct arena *a)
{
    i64 total = 0;
    for (int k = 0; k < s->n; k++)
        total += s->graphs[k]->n;
    struct peers all = { ARENA_ARRAY(a, struct peer, total), 0 };
    for (int k = 0; k < s->n; k++)
        for (i64 i = 0; i < s->graphs[k]->n; i++) {
            const struct dag_node *n = &s->graphs[k]->nodes[i];
            if (counts(s, n))
                all.p[all.n++] = (struct peer){ key_of(s, n->rank, n->action, n->task_id), k, i,
                                                usual_seconds(s, k, i) };
        }
    qsort(all.p, (size_t)all.n, sizeof *all.p, by_key);
    return all;
}

/* at: rank * actions + action. */
static struct peers list_actions(const struct quiet_steps *s, i64 actions, struct arena *a)
{
    const int ranks = s->graphs[0]->n_ranks;
    struct peers all = { ARENA_ARRAY(a, struct peer, s->n * ranks * actions), 0 };
    double *sum = ARENA_ARRAY(a, double, ranks * actions);
    for (int k = 0; k < s->n; k++) {
        for (i64 i = 0; i < ranks * actions; i++)
            sum[i] = 0;
        for (i64 i = 0; i < s->graphs[k]->n; i++) {
            const struct dag_node *n = &s->graphs[k]->nodes[i];
            if (counts(s, n))
                sum[n->rank * actions + n->action] += usual_seconds(s, k, i);
        }
        for (i64 i = 0; i < ranks * actions; i++)
            if (sum[i] > 0)
                all.p[all.n++] = (struct peer){ key_of(s, (int)(i / actions), i % actions, 0), k, i,
                                                sum[i] };
    }
    qsort(all.p, (size_t)all.n, sizeof *all.p, by_key);
    return all;
}

/* Of how much actions vary, the share that is left in the sum over a rank's step: 1 where each
 * varies for itself, or all of a step do together. */
static double left_in_steps(const struct quiet_steps *s, const struct peers *actions, i64 per_rank,
                            struct arena *a)
{
    const int ranks = s->graphs[0]->n_ranks;
    double *steps = ARENA_ARRAY(a, double, s->n * ranks), each = 0, of_steps = 0;
    for (i64 i = 0, to; i < actions->n; i = to) {
        to = same_until(actions, i);
        const double usual = actions->p[i + (to - i) / 2].seconds;
        const double most = farthest * (usual - actions->p[i + (to - i) / 10].seconds);
        for (i64 k = i; k < to; k++) {
            const double above = fmax(-most, fmin(actions->p[k].seconds - usual, most));
            each += above * above;
            steps[actions->p[k].graph * ranks + actions->p[k].at / per_rank] += above;
        }
    }
    for (i64 i = 0; i < s->n * ranks; i++)
        of_steps += steps[i] * steps[i];
    return each > 0 ? sqrt(fmin(1, of_steps / each)) : 1;
}

/* seconds[graph * per_graph + at] of an action: in that share of its cases. */
static void set_seconds(const struct peers *actions, double share, double left, i64 per_graph,
                        double *seconds)
{
    for (i64 i = 0, to; i < actions->n; i = to) {
        to = same_until(actions, i);
        const double usual = actions->p[i + (to - i) / 2].seconds;
        const double quiet = actions->p[i + (i64)(share * (double)(to - i))].seconds;
        for (i64 k = i; k < to; k++)
            seconds[actions->p[k].graph * per_graph + actions->p[k].at] =
                usual - left * (usual - quiet);
    }
}

static i64 count_actions(const struct quiet_steps *s)
{
    i64 actions = 0;
    for (int k = 0; k < s->n; k++)
        for (i64 i = 0; i < s->graphs[k]->n; i++)
            actions = i64_max(actions, s->graphs[k]->nodes[i].action + 1);
    return actions;
}

/* By what each usually takes. */
static void set_shares(const struct quiet_steps *s, const struct peers *tasks, i64 actions,
                       float **share, struct arena *a)
{
    const i64 per_graph = s->graphs[0]->n_ranks * actions;
    double *sum = ARENA_ARRAY(a, double, s->n * per_graph);
    for (int pass = 0; pass < 2; pass++)
        for (i64 i = 0, to; i < tasks->n; i = to) {
            to = same_until(tasks, i);
            const double usual = tasks->p[i + (to - i) / 2].seconds;
            for (i64 k = i; k < to; k++) {
                const struct peer *p = &tasks->p[k];
                const struct dag_node *n = &s->graphs[p->graph]->nodes[p->at];
                double *all = &sum[p->graph * per_graph + n->rank * actions + n->action];
                if (pass == 0)
                    *all += usual;
                else
                    share[p->graph][p->at] = (float)(*all > 0 ? usual / *all : 0);
            }
        }
}

struct quiet_times quiet_find(const struct quiet_steps *s, struct arena *keep)
{
    struct arena a;
    arena_init(&a);
    struct quiet_times t = { .actions = count_actions(s),
                             .share = ARENA_ARRAY(keep, float *, s->n) };
    const i64 per_graph = s->graphs[0]->n_ranks * t.actions;
    const struct peers tasks = list_tasks(s, &a), whole = list_actions(s, t.actions, &a);
    const double left = left_in_steps(s, &whole, t.actions, &a);
    for (int k = 0; k < s->n; k++)
        t.share[k] = ARENA_ARRAY(keep, float, s->graphs[k]->n);
    set_shares(s, &tasks, t.actions, t.share, &a);
    for (int q = 0; q < QUIETS; q++) {
        t.seconds[q] = ARENA_ARRAY(keep, double, s->n * per_graph);
        set_seconds(&whole, quiet_share[q], left, per_graph, t.seconds[q]);
    }
    arena_fini(&a);
    return t;
}
