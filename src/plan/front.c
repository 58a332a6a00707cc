#include "plan/front.h"

#include "base/err.h"

#include <stdlib.h>

bool plan_beats(const struct plan_outcome *p, const struct plan_outcome *q)
{
    const double x[] = { p->days.mid, p->money.mid, p->mwh.mid, p->tco2e.mid };
    const double y[] = { q->days.mid, q->money.mid, q->mwh.mid, q->tco2e.mid };
    bool better = false;
    for (i64 i = 0; i < COUNT_OF(x); i++) {
        if (x[i] > y[i])
            return false;
        better |= x[i] < y[i];
    }
    return better;
}

static int add_point(struct plan_front *out, struct plan_search s, i64 devices, int objective,
               const struct plan_terms *terms, struct arena *a)
{
    struct plan_job job = *s.job;
    struct plan_search_result r;
    struct plan_point *p = &out->points[out->n];
    job.devices = devices;
    s.job = &job;
    s.objective = objective;
    s.keep = 1;
    TRY(plan_search(&s, &r, a));
    *p = (struct plan_point){ .devices = devices, .found = r.best[0] };
    TRY(plan_outcome_of(&p->outcome, &job, &p->found.step, terms));
    out->n++;
    return OK;
}

static int by_days(const void *a, const void *b)
{
    const struct plan_point *x = a, *y = b;
    double p = x->outcome.days.mid, q = y->outcome.days.mid;
    if (p != q)
        return p < q ? -1 : 1;
    return x->outcome.mwh.mid < y->outcome.mwh.mid ? -1 : x->outcome.mwh.mid > y->outcome.mwh.mid;
}

static bool nothing_there(int rc)
{
    return rc == ERR_CONFIG || rc == ERR_LIMIT;
}

int plan_front_of(struct plan_front *out, const struct plan_search *s,
                  const struct plan_terms *terms, struct arena *a)
{
    bool power = s->job->machine->device.peak_w > 0;
    i64 misses = 0;
    out->n = 0;
    for (i64 N = s->job->devices; N >= 1 && misses < 2 && out->n + 2 <= PLAN_FRONT_POINTS; N /= 2) {
        int rc = add_point(out, *s, N, PLAN_TIME, terms, a);
        if (rc == OK && power)
            rc = add_point(out, *s, N, PLAN_ENERGY, terms, a);
        if (rc < 0 && (!nothing_there(rc) || N == s->job->devices))
            return rc;
        misses = rc < 0 ? misses + 1 : 0;
    }
    qsort(out->points, (size_t)out->n, sizeof *out->points, by_days);
    for (i64 i = 0; i < out->n; i++)
        for (i64 k = 0; k < out->n; k++) {
            bool same = k < i && !plan_beats(&out->points[i].outcome, &out->points[k].outcome) &&
                        out->points[i].outcome.days.mid == out->points[k].outcome.days.mid;
            if (same || plan_beats(&out->points[k].outcome, &out->points[i].outcome))
                out->points[i].beaten = true;
        }
    return OK;
}
