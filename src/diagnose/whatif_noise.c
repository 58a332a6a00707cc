#include "diagnose/whatif_noise.h"

#include "diagnose/rule.h"

#include <math.h>

enum { LEAST_STEPS = 5, LEAST_ACTIONS = 3, ENOUGH_STEPS = 20 };

/* took: what a rank's actions computed for, [graph * actions + action]. */
static double noise_of(double *took, i64 graphs, i64 actions, struct arena *a)
{
    double *x = ARENA_ARRAY(a, double, graphs);
    for (i64 i = 0; i < actions; i++) {
        for (i64 k = 0; k < graphs; k++)
            x[k] = took[k * actions + i];
        const double usual = measure_quantile(x, graphs, 0.5);
        for (i64 k = 0; k < graphs; k++)
            took[k * actions + i] = usual > 0 ? took[k * actions + i] / usual : NAN;
    }
    for (i64 k = 0; k < graphs; k++)
        x[k] = measure_stat(&took[k * actions], actions).sigma;
    return measure_quantile(x, graphs, 0.5);
}

/* The least of many times is still above what it takes undisturbed, by about as much as the next ones
 * are above it: so often that, and a rank is slow for certain. */
enum { NEXT = 3 };
static const double certainly = 5;

struct least {
    double seconds, error; /* sums over actions; of the errors' squares */
};

static void add_least(const double *took, i64 graphs, i64 actions, i64 action, struct least *sum)
{
    double least[NEXT + 1];
    int n = 0;
    for (i64 k = 0; k < graphs; k++) {
        double own = took[k * actions + action];
        for (int i = 0; i < n; i++)
            if (own < least[i]) {
                const double other = least[i];
                least[i] = own;
                own = other;
            }
        if (n <= NEXT)
            least[n++] = own;
    }
    const double error = (least[n - 1] - least[0]) / fmax(1, n - 1);
    sum->seconds += least[0];
    sum->error += error * error;
}

/* What other ranks of its stage take, or, where there are none and it is known what tasks should take,
 * all others for as much as it has to do. How many; the largest error of all in *error. */
static i64 list_peers(const struct measure *m, i64 rank, const struct least *quiet, double *out,
                      double *error)
{
    const struct measure_rank *own = &m->ranks[rank];
    i64 n = 0;
    for (i64 p = 0; p < m->n_ranks; p++)
        if (p != rank && m->ranks[p].stage == own->stage) {
            *error = fmax(*error, quiet[p].error);
            out[n++] = quiet[p].seconds;
        }
    if (n > 0 || !rule_times_are_given(m))
        return n;
    for (i64 p = 0; p < m->n_ranks; p++)
        if (p != rank && m->ranks[p].roofline_s > 0)
            out[n++] = quiet[p].seconds * own->roofline_s / m->ranks[p].roofline_s;
    return n;
}

/* Of each rank that has so many actions: what they take when they are the quickest. */
static void set_quiet_paces(const struct quiet_steps *s, struct measure *m, double *const *took,
                            const i64 *actions, struct arena *a)
{
    struct least *quiet = ARENA_ARRAY(a, struct least, m->n_ranks);
    double *peers = ARENA_ARRAY(a, double, m->n_ranks);
    for (i64 r = 0; r < m->n_ranks; r++)
        for (i64 i = 0; r < s->graphs[0]->n_ranks && i < actions[r]; i++)
            add_least(took[r], s->n, actions[r], i, &quiet[r]);
    for (i64 r = 0; r < m->n_ranks; r++) {
        double error = quiet[r].error;
        const i64 n = list_peers(m, r, quiet, peers, &error);
        const double usual = measure_quantile(peers, n, 0.5);
        double *pace = &m->ranks[r].quiet_pace;
        *pace = usual > 0 && quiet[r].seconds > 0 ? quiet[r].seconds / usual : NAN;
        if (*pace > 1 && quiet[r].seconds - usual < certainly * sqrt(error))
            *pace = 1;
    }
}

void quiet_noise(const struct quiet_steps *s, const i64 *actions, struct measure *m)
{
    const int ranks = s->graphs[0]->n_ranks;
    struct arena a;
    if (s->n < LEAST_STEPS)
        return;
    arena_init(&a);
    double **took = ARENA_ARRAY(&a, double *, ranks);
    for (int r = 0; r < ranks; r++)
        took[r] = ARENA_ARRAY(&a, double, s->n * actions[r]);
    for (int k = 0; k < s->n; k++)
        for (i64 i = 0; i < s->graphs[k]->n; i++) {
            const struct dag_node *n = &s->graphs[k]->nodes[i];
            if (n->kind == DAG_COMPUTE && n->rank < ranks && n->action < actions[n->rank])
                took[n->rank][k * actions[n->rank] + n->action] +=
                    s->graphs[k]->seconds[i] / rows_times(s->rows, k, n);
        }
    if (s->n >= ENOUGH_STEPS)
        set_quiet_paces(s, m, took, actions, &a);
    for (int r = 0; r < ranks && r < m->n_ranks; r++)
        if (actions[r] >= LEAST_ACTIONS)
            m->ranks[r].noise = noise_of(took[r], s->n, actions[r], &a);
    m->rows_slope = s->rows && s->rows->above ? s->rows->seconds_per_work : NAN;
    m->rows_unsure = s->rows && s->rows->above ? s->rows->unsure : NAN;
    arena_fini(&a);
}
