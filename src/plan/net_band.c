#include "plan/net_band.h"

#include "plan/stack.h"

#include <math.h>

/* Seconds of a term at the ends of its tier's band, minus those in the middle. */
static void add_ends(const struct plan_job *job, double seconds, i64 ranks, i64 stride,
                     double *saved, double *more)
{
    const struct plan_machine *m = job->machine;
    int tier = plan_tier_of(m, ranks, stride);
    const struct plan_band *b = &m->tiers[tier].bytes_per_s;
    double share = tier ? job->family->net : job->family->link;
    if (seconds <= 0 || b->lo == b->hi)
        return;
    double usual = plan_tier_rate(m, tier, share, b->mid);
    *saved += seconds * (1 - usual / plan_tier_rate(m, tier, share, b->hi));
    *more += seconds * (usual / plan_tier_rate(m, tier, share, b->lo) - 1);
}

void plan_widen_by_network(const struct plan_job *job, const struct plan_layout *l,
                           struct plan_step *step)
{
    const double *terms = step->terms;
    double saved = 0, more = 0, s = step->seconds;
    add_ends(job, terms[PLAN_TP], l->tp, 1, &saved, &more);
    add_ends(job, terms[PLAN_CP], l->cp, l->tp, &saved, &more);
    i64 stride = job->stack ? plan_expert_stride(job->stack, l) : l->tp;
    add_ends(job, terms[PLAN_EP], l->ep, stride, &saved, &more);
    add_ends(job, terms[PLAN_PP], 2, l->tp * l->cp * l->dp, &saved, &more);
    add_ends(job, terms[PLAN_DP], l->cp * l->dp, l->tp, &saved, &more);
    if (saved > 0)
        step->band.lo = s * exp(-hypot(log(s / step->band.lo), log(s / (s - saved))));
    if (more > 0)
        step->band.hi = s * exp(hypot(log(step->band.hi / s), log1p(more / s)));
}
