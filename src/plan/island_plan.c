#include "plan/island_plan.h"

#include "base/err.h"
#include "plan/run_size.h"

#include <math.h>

double plan_outer_bytes(const struct island_link *l)
{
    double n = (double)l->islands;
    return 2 * (n - 1) / n * l->element_bytes;
}

double plan_outer_seconds(const struct island_link *l, double parameters)
{
    double n = (double)l->islands;
    if (l->islands == 1)
        return 0;
    return plan_outer_bytes(l) * parameters / l->bytes_per_s +
           2 * (n - 1) * l->latency_s;
}

static int check(const struct plan_job *job, const struct island_link *l)
{
    if (job->devices % l->islands)
        return err_set(ERR_CONFIG, "%lld devices cannot be shared out to %lld islands equally",
                       (long long)job->devices, (long long)l->islands);
    if (job->global_batch % l->islands)
        return err_set(ERR_CONFIG, "the %lld rows of a step cannot be shared out to %lld islands "
                       "equally; --batch %lld can", (long long)job->global_batch,
                       (long long)l->islands, (long long)round_up(job->global_batch, l->islands));
    return OK;
}

/* Goodput of all islands as one job: every failure stops everybody. */
static int set_goodput(struct island_plan *out, const struct plan_job *job,
                       const struct plan_terms *terms)
{
    struct plan_outcome together;
    TRY(plan_outcome_of(&together, job, &out->inner.step, terms));
    out->goodput = (struct plan_band){ together.goodput.lo, 0, out->outcome.goodput.hi };
    out->goodput.mid = sqrt(together.goodput.mid * out->outcome.goodput.mid);
    return OK;
}

static struct plan_band scaled_by(double top, const struct plan_band *goodput, double round_lo,
                                  double round_mid, double round_hi)
{
    return (struct plan_band){ top * goodput->lo / round_hi, top * goodput->mid / round_mid,
                               top * goodput->hi / round_lo };
}

static void set_rate(struct island_plan *out, const struct plan_job *job,
                     const struct island_link *l)
{
    double H = (double)l->every, seen = (1 - l->hidden) * out->outer_s;
    double tokens = H * (double)(job->global_batch * job->sequence);
    const struct plan_band *s = &out->inner.step.band;
    out->outer_share = seen / (H * s->mid + seen);
    out->every_for_5 = ceil(seen * 0.95 / 0.05 / s->mid);
    out->rate = scaled_by(tokens, &out->goodput, H * s->lo + seen, H * s->mid + seen,
                          H * s->hi + seen);
    if (job->tokens > 0)
        out->days = (struct plan_band){ job->tokens / out->rate.hi / 86400,
                                        job->tokens / out->rate.mid / 86400,
                                        job->tokens / out->rate.lo / 86400 };
}

int plan_islands_of(struct island_plan *out, const struct plan_job *job,
                    const struct plan_pick *pick, const struct island_link *link,
                    const struct plan_terms *terms, struct arena *a)
{
    struct plan_search_result r;
    struct plan_run_size size;
    *out = (struct island_plan){ .job = *job };
    TRY(check(job, link));
    out->job.devices = job->devices / link->islands;
    out->job.global_batch = job->global_batch / link->islands;
    struct plan_search s = { .job = &out->job, .pick = *pick, .keep = 1, .prune = true };
    TRY(plan_search(&s, &r, a));
    out->inner = r.best[0];
    TRY(plan_run_size_of(&size, job->spec, job->sequence));
    out->parameters = size.parameters;
    out->outer_s = plan_outer_seconds(link, size.parameters);
    TRY(plan_outcome_of(&out->outcome, &out->job, &out->inner.step, terms));
    TRY(set_goodput(out, job, terms));
    set_rate(out, job, link);
    out->synchronous_s = out->inner.step.seconds + out->outer_s;
    return OK;
}
