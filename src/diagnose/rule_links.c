/* Links: which of several are slow, and those that are so in some steps only. */
#include "diagnose/rule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- several of them -------------------------------------------------------------- */

/* As far apart slow links are from the next: equal ones were seen to differ by a fifth (C11). */
static const double apart = 0.8;

static int slowest_first(const void *a, const void *b)
{
    const struct measure_link *x = a, *y = b;
    return (x->bytes_per_s > y->bytes_per_s) - (x->bytes_per_s < y->bytes_per_s);
}

i64 rule_odd_links(struct measure_link *links, i64 n, double share, double *usual)
{
    struct arena a;
    i64 found = 0;
    qsort(links, (size_t)n, sizeof *links, slowest_first);
    arena_init(&a);
    double *rates = ARENA_ARRAY(&a, double, n);
    for (i64 i = 0; i < n; i++)
        rates[i] = links[i].bytes_per_s;
    for (i64 k = 2; 2 * k <= n && found == 0 && links[k - 1].members == 2; k++) {
        *usual = measure_quantile(rates + k, n - k, 0.5);
        if (rates[k - 1] < share * *usual && rates[k - 1] < apart * rates[k])
            found = links[0].members == 2 ? k : 0;
    }
    arena_fini(&a);
    return found;
}

bool rule_place_ends(const struct measure *m, const struct measure_link *links, i64 n,
                     struct finding *f)
{
    struct finding_ranks ends = { .n = 0 };
    for (i64 r = 0; r < m->n_ranks; r++) {
        bool is = false;
        for (i64 i = 0; i < n; i++)
            is |= links[i].a == m->ranks[r].rank || links[i].b == m->ranks[r].rank;
        if (is && ends.n == FINDING_RANKS)
            return false;
        if (is)
            ends.at[ends.n++] = m->ranks[r].rank;
    }
    f->place.several = ends;
    return true;
}

/* --- in some steps ---------------------------------------------------------------- */

/* What links do in the steps in which they are slow. Each of these loses more than the mean step,
 * so a loss must be larger there to be one. */
static bool look_within(const struct measure *m, const char *id, struct finding *f)
{
    struct measure some = *m->slow_links;
    const struct rule *r = rules_comm;
    const double share = (double)some.n_steps / (double)m->n_steps;
    while (strcmp(r->id, id) != 0)
        r++;
    if (some.n_steps == 0)
        return false;
    some.theta = m->theta / share;
    f->place.first_step = some.numbers[0];
    f->place.last_step = some.numbers[some.n_steps - 1];
    if (!r->look(&some, r->limit, f))
        return false;
    double *const seconds[] = { &f->lost, &f->gain, &f->gain_lo, &f->gain_hi };
    for (i64 i = 0; i < COUNT_OF(seconds); i++)
        *seconds[i] *= share;
    f->share = f->lost / m->step.mean;
    return true;
}

static bool look_one_link_within(const struct measure *m, const struct rule_limit *limit,
                                 struct finding *f)
{
    (void)limit; /* those of the whole run */
    return look_within(m, "C11", f);
}

static bool look_bandwidth_within(const struct measure *m, const struct rule_limit *limit,
                                  struct finding *f)
{
    (void)limit;
    return look_within(m, "C4", f);
}

static bool look_latency_within(const struct measure *m, const struct rule_limit *limit,
                                struct finding *f)
{
    (void)limit;
    return look_within(m, "C5", f);
}

const struct rule rules_links[] = {
    { "C11", "one link became slow", look_one_link_within, { { 0, NULL, NULL } } },
    { "C4", "bandwidth became low", look_bandwidth_within, { { 0, NULL, NULL } } },
    { "C5", "latency became high", look_latency_within, { { 0, NULL, NULL } } },
    { .id = "" },
};
