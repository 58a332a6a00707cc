#include "tune/forecast.h"

#include "base/err.h"
#include "plan/simulate.h"
#include "train/rank_view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Messages of ranks on one node go through memory: half of what copying through it reaches, and a
 * wake-up. */
static const double wake_up_s = 2e-5;

static double peak_of(const struct machine *m, const struct train_config *c, double threads)
{
    const bool half = c->train.precision == PRECISION_BF16;
    const double one = half ? m->bf16_one : m->f32_one, all = half ? m->bf16_all : m->f32_all;
    return fmin(one * threads, all);
}

static struct plan_price price_of(const struct machine *m, const struct train_config *c,
                                  const struct knob_view *v)
{
    const struct machine_level *dram = &m->level[MACHINE_LEVELS - 1];
    const double own = fmax(1, (double)(v->cores / i64_max(1, v->node_ranks)));
    const double threads = c->train.threads > 0 ? (double)c->train.threads : own;
    const double share = (double)i64_max(1, v->node_ranks);
    return (struct plan_price){
        .flops_per_s = peak_of(m, c, fmin(threads, own)),
        .memory_bytes_per_s = dram->copy_all / share,
        .link_bytes_per_s = dram->copy_all / 2 / share,
        .latency_s = wake_up_s,
        .rates = v->rates,
    };
}

static int view_ranks(const struct rank_view **views, const struct train_recipe *r, struct arena *a)
{
    const struct layout *l = &r->layout;
    for (i64 i = 0; i < l->pp; i++) {
        struct rank_view *view = ARENA_NEW(a, struct rank_view);
        TRY(rank_view_new(view, l, &r->spec, &r->config, i * layout_stride(l, AXIS_PP), a));
        views[i] = view;
    }
    return OK;
}

/* Tasks that are started in a step, each of which wakes all threads. */
static double launches(const struct rank_view *v)
{
    const struct program *p = v->step.program;
    double n = 0;
    for (i64 i = 0; i < p->n_actions; i++)
        n += (double)p->segments[p->actions[i].segment].n_tasks;
    return n;
}

static int simulate(struct forecast *out, const struct train_recipe *r, const struct machine *m,
                    const struct knob_view *v, struct arena *a)
{
    const struct rank_view **views = ARENA_ARRAY(a, const struct rank_view *, r->layout.pp);
    const struct plan_price price = price_of(m, &r->config, v);
    struct plan_time time;
    TRY(view_ranks(views, r, a));
    TRY(plan_simulate(views, &price, &time, a));
    *out = (struct forecast){ .seconds = time.length };
    double most = 0;
    for (i64 i = 0; i < r->layout.pp; i++) {
        out->bytes = i64_max(out->bytes, views[i]->model_bytes + views[i]->activation_bytes);
        most = fmax(most, launches(views[i]));
    }
    if (!v->rates)
        out->seconds += 1e-9 * m->launch_ns * most;
    return OK;
}

/* m with another instruction set. Both are measured now, one after the other, so that what else
 * the machine does counts for both: a fifth of a second each. */
static int with_backend(struct machine *out, const struct machine *m, const char *backend)
{
    struct machine was = *m, now = *m;
    struct pool *pool;
    TRY(pool_new(&pool, (int)i64_max(1, m->threads), true));
    snprintf(now.backend, sizeof now.backend, "%s", backend);
    machine_measure_peaks(&was, pool);
    machine_measure_peaks(&now, pool);
    pool_free(pool);
    *out = *m;
    snprintf(out->backend, sizeof out->backend, "%s", backend);
    out->f32_one *= now.f32_one / was.f32_one;
    out->f32_all *= now.f32_all / was.f32_all;
    out->bf16_one *= now.bf16_one / was.bf16_one;
    out->bf16_all *= now.bf16_all / was.bf16_all;
    return OK;
}

int forecast_step(struct forecast *out, const struct timing_base *base,
                  const struct tune_change *change, const struct machine *m,
                  const struct knob_view *v)
{
    struct arena a;
    arena_init(&a);
    const int n = base->n_sets + (change ? change->n_sets : 0);
    const char **sets = ARENA_ARRAY(&a, const char *, n + 1);
    for (int i = 0; i < base->n_sets; i++)
        sets[i] = base->sets[i];
    for (int i = base->n_sets; i < n; i++)
        sets[i] = change->sets[i - base->n_sets];
    struct train_recipe *r = ARENA_NEW(&a, struct train_recipe);
    struct machine other;
    int rc = train_recipe_read(r, base->recipe, sets, n, NULL, &a);
    if (rc >= 0 && change && change->backend)
        rc = with_backend(&other, m, change->backend);
    if (rc >= 0)
        rc = simulate(out, r, change && change->backend ? &other : m, v, &a);
    arena_fini(&a);
    return rc;
}
