#include "plan/outcome.h"
#include "plan/run_size.h"

#include <math.h>

/* --- bands ---------------------------------------------------------------------------- */

static double distance(double a, double b)
{
    return a > 0 && b > 0 ? fabs(log(a / b)) : 0;
}

/* `mid` with the uncertainty of `a` and of `b`, which are independent. lo of both is what makes the
 * result small. */
static struct plan_band both(double mid, const struct plan_band *a, const struct plan_band *b)
{
    double down = hypot(distance(a->mid, a->lo), distance(b->mid, b->lo));
    double up = hypot(distance(a->hi, a->mid), distance(b->hi, b->mid));
    return (struct plan_band){ mid * exp(-down), mid, mid * exp(up) };
}

static struct plan_band over(double top, const struct plan_band *b)
{
    return (struct plan_band){ top / b->hi, top / b->mid, top / b->lo };
}

/* --- parts ---------------------------------------------------------------------------- */

/* MFU counts what the model needs: not padding. */
static int set_speed(struct plan_outcome *out, const struct plan_job *job,
                      const struct plan_step *s)
{
    double devices = (double)job->devices, peak = job->machine->device.peak[job->dtype];
    out->step_s = s->band;
    out->rate = over((double)(job->global_batch * job->sequence) / devices, &out->step_s);
    struct plan_run_size size;
    TRY(plan_run_size_of(&size, job->spec, job->sequence));
    out->ideal_s = size.flops_per_token * (double)(job->global_batch * job->sequence) / devices /
                   peak;
    out->mfu = over(out->ideal_s, &out->step_s);
    out->hfu = s->flops / devices / peak / s->seconds;
    return OK;
}

static double goodput_at(const struct failure_law *law, i64 nodes, enum failure_end end,
                         i64 *spares)
{
    struct failure_job j = failure_job_of(law, nodes, end);
    double away = (double)nodes * j.node_per_day * j.hardware_share * j.repair_s / 86400;
    j.write_s = j.stall_s;
    j.every_s = failure_best_interval(&j);
    j.spares = failure_best_spares(&j, (i64)(3 * away) + 20); /* more would only stand by */
    *spares = j.spares;
    return failure_goodput(&j).progress;
}

static void set_goodput(struct plan_outcome *out, const struct plan_job *job,
                        const struct failure_law *law)
{
    i64 node = i64_max(1, job->machine->node_ranks), nodes = ceil_div(job->devices, node);
    i64 quick, middle, slow;
    out->goodput = (struct plan_band){ 1, 1, 1 };
    if (!law)
        return;
    out->goodput.hi = goodput_at(law, nodes, FAILURE_QUICK, &quick);
    out->goodput.mid = goodput_at(law, nodes, FAILURE_MIDDLE, &middle);
    out->goodput.lo = goodput_at(law, nodes, FAILURE_SLOW, &slow);
    out->spares = middle * node;
}

/* Busy: of the wall clock, by the terms that compute. */
static int set_bill(struct plan_outcome *out, const struct plan_job *job,
                    const struct plan_step *s, const struct plan_terms *t)
{
    double busy = fmin(1, plan_busy_seconds(s) / s->seconds) * out->goodput.mid;
    struct plan_use use = { .devices = (double)(job->devices + out->spares),
                            .seconds = 86400 * out->days.mid, .busy = { busy, busy, busy },
                            .pue = t->pue, .location = t->location, .g_per_kwh = t->g_per_kwh,
                            .price = t->price, .currency = t->currency };
    TRY(plan_bill_of(job->machine, &use, &out->bill));
    struct plan_band exact = { 1, 1, 1 };
    out->mwh = both(out->bill.mwh.mid, &out->days, &out->bill.mwh);
    out->tco2e = both(out->bill.tco2e.mid, &out->days, &out->bill.tco2e);
    out->money = both(out->bill.money, &out->days, &exact);
    return OK;
}

int plan_outcome_of(struct plan_outcome *out, const struct plan_job *job,
                    const struct plan_step *step, const struct plan_terms *terms)
{
    *out = (struct plan_outcome){ 0 };
    TRY(set_speed(out, job, step));
    set_goodput(out, job, terms->law);
    double steps = job->tokens / (double)(job->global_batch * job->sequence);
    struct plan_band lost = over(1, &out->goodput);
    out->days = both(steps * step->seconds / out->goodput.mid / 86400, &out->step_s, &lost);
    if (job->tokens <= 0)
        return OK;
    return set_bill(out, job, step, terms);
}
