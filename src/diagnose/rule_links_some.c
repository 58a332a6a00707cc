/* Links that are slow in some steps only. */
#include "diagnose/rule.h"

#include <string.h>

/* What links do in the steps in which they are slow. Each of these loses more than the mean step,
 * so a loss must be larger there to be one. */
static bool look_within(const struct measure *m, const char *id, struct finding *f)
{
    struct measure some = *m->slow_links;
    const struct rule *r = rules_links;
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

const struct rule rules_links_some[] = {
    { "C11", "one link became slow", look_one_link_within, { { 0, NULL, NULL } } },
    { "C4", "bandwidth became low", look_bandwidth_within, { { 0, NULL, NULL } } },
    { "C5", "latency became high", look_latency_within, { { 0, NULL, NULL } } },
    { .id = "" },
};
