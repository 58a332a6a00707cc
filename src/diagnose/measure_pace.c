/* How fast a stage's ranks are beside other stages: by tasks that both have. */
#include "diagnose/measure_gather.h"

#include <math.h>

i32 gather_like(struct gather *g, i32 class, const struct record_task *t)
{
    const double bytes = t->read_bytes + t->written_bytes;
    for (i64 i = 0; i < g->n_likes; i++) {
        const struct like *l = &g->likes[i];
        if (l->class == class && l->flops == t->flops && l->bytes == bytes)
            return (i32)i;
    }
    if (g->n_likes == MOST_LIKES)
        return -1;
    g->likes[g->n_likes] = (struct like){ class, t->flops, bytes };
    return (i32)g->n_likes++;
}

void gather_add_like(struct gather *g, int rank, i32 like, double seconds)
{
    if (like < 0)
        return;
    if (!g->like_times[rank])
        g->like_times[rank] = ARENA_ARRAY(g->a, struct like_time, MOST_LIKES);
    g->like_times[rank][like].seconds += seconds;
    g->like_times[rank][like].calls++;
}

/* Seconds of such a task at each stage's fastest rank, of stages that have one; how many do. */
static i64 list_stages(const struct gather *g, i64 like, double *of_stage)
{
    const struct measure *m = g->m;
    i64 n = 0;
    for (i64 p = 0; p < m->config.pp; p++)
        of_stage[p] = NAN;
    for (i64 r = 0; r < m->n_ranks; r++) {
        const struct like_time *t = g->like_times[r] ? &g->like_times[r][like] : NULL;
        const int stage = m->ranks[r].stage;
        if (!t || t->calls == 0 || stage < 0 || stage >= m->config.pp)
            continue;
        n += isnan(of_stage[stage]);
        of_stage[stage] = fmin(of_stage[stage], t->seconds / t->calls); /* fmin: NaN is left out */
    }
    return n;
}

/* Less says too little of the rest. */
static const double least_shared = 0.5;

void gather_settle_paces(struct gather *g)
{
    struct measure *m = g->m;
    struct arena a;
    if (m->config.pp < 2 || m->config.pp > m->n_ranks || m->n_steps == 0)
        return;
    arena_init(&a);
    double *of_stage = ARENA_ARRAY(&a, double, m->config.pp);
    double *own = ARENA_ARRAY(&a, double, m->n_ranks), *usual = ARENA_ARRAY(&a, double, m->n_ranks);
    for (i64 i = 0; i < g->n_likes; i++) {
        const i64 n = list_stages(g, i, of_stage);
        if (n < 2)
            continue;
        /* Of two the faster one: nothing makes a task faster than it is. */
        const double each = measure_quantile(of_stage, m->config.pp,
                                             (double)((n - 1) / 2) / (double)(n - 1));
        for (i64 r = 0; r < m->n_ranks; r++)
            if (g->like_times[r]) {
                own[r] += g->like_times[r][i].seconds;
                usual[r] += g->like_times[r][i].calls * each;
            }
    }
    for (i64 r = 0; r < m->n_ranks; r++) {
        const double mean = measure_mean(m, m->ranks[r].compute);
        if (own[r] >= least_shared * mean * (double)m->n_steps)
            m->ranks[r].usual_s = mean * usual[r] / own[r];
    }
    arena_fini(&a);
}
