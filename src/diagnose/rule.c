#include "diagnose/rule.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct rule *const rule_families[] = {
    rules_data, rules_host, rules_kernel, rules_comm, rules_balance, rules_run, NULL,
};

const char *rule_behind(const char *id)
{
    return strcmp(id, "R3") == 0 ? "K7 H5 B6" : NULL;
}

void rule_evidence(struct finding *f, const char *fmt, ...)
{
    va_list args;
    if (f->n_evidence == FINDING_EVIDENCE)
        return;
    va_start(args, fmt);
    vsnprintf(f->evidence[f->n_evidence++], FINDING_TEXT, fmt, args);
    va_end(args);
}

void rule_reject(struct finding *f, const char *id, const char *fmt, ...)
{
    va_list args;
    if (f->n_rejected == FINDING_REJECTED)
        return;
    struct finding_reject *r = &f->rejected[f->n_rejected++];
    snprintf(r->id, sizeof r->id, "%s", id);
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
}

void rule_fix(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->fix, sizeof f->fix, fmt, args);
    va_end(args);
}

void rule_confirm(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->confirm, sizeof f->confirm, fmt, args);
    va_end(args);
}

void rule_gain(const struct measure *m, struct finding *f, double lost, double gain,
               double spread)
{
    double noise = isfinite(m->step.se) ? 2 * m->step.se : 0;
    gain = fmax(0, fmin(gain, m->step.mean));
    double give = spread * gain + noise;
    f->lost = lost;
    f->share = m->step.mean > 0 ? lost / m->step.mean : 0;
    f->gain = gain;
    f->gain_lo = fmax(0, gain - give);
    f->gain_hi = fmin(gain + give, m->step.mean);
}

void rule_edit(struct finding *f, enum finding_edit_kind kind, double factor)
{
    f->edit = (struct finding_edit){ .kind = kind, .rank = f->place.rank, .peer = f->place.peer,
        .stage = f->place.stage, .lane = -1, .phase = -1, .host = -1,
        .factor_lo = factor, .factor = factor, .factor_hi = factor };
    snprintf(f->edit.op, sizeof f->edit.op, "%s", f->place.op);
}

const double *rule_compute(const struct measure_rank *r) { return r->compute; }
const double *rule_data(const struct measure_rank *r) { return r->data; }

/* --- one rank beside its peers ---------------------------------------------------- */

static i64 peers_of(const struct measure *m, i64 rank, measure_series_fn series, i64 step,
                    double *out)
{
    i64 n = 0;
    for (i64 r = 0; r < m->n_ranks; r++)
        if (r != rank && m->ranks[r].stage == m->ranks[rank].stage)
            out[n++] = series(&m->ranks[r])[step];
    return n;
}

struct rule_excess rule_excess(const struct measure *m, i64 rank, measure_series_fn series)
{
    struct rule_excess e = { NAN, NAN, NAN, 0 };
    struct arena a;
    arena_init(&a);
    double *peers = ARENA_ARRAY(&a, double, m->n_ranks);
    double *above = ARENA_ARRAY(&a, double, m->n_steps);
    i64 most = 0, n = 0;
    for (i64 i = 0; i < m->n_steps; i++) {
        double own = series(&m->ranks[rank])[i];
        n = peers_of(m, rank, series, i, peers);
        above[i] = own - measure_quantile(peers, n, 0.5);
        most += n > 0 && own > measure_quantile(peers, n, 1);
    }
    if (n > 0 && m->n_steps > 0) {
        struct measure_stat s = measure_stat(above, m->n_steps);
        e = (struct rule_excess){ s.mean, s.median, s.sigma,
                                  (double)most / (double)m->n_steps };
    }
    arena_fini(&a);
    return e;
}

i64 rule_odd_rank(const struct measure *m, measure_series_fn series, struct rule_excess *out)
{
    i64 odd = -1;
    for (i64 r = 0; r < m->n_ranks; r++) {
        struct rule_excess e = rule_excess(m, r, series);
        if (isfinite(e.mean) && (odd < 0 || e.mean > out->mean)) {
            *out = e;
            odd = r;
        }
    }
    return odd;
}

bool rule_alone(const struct measure *m, measure_series_fn series, i64 *rank)
{
    struct arena a;
    arena_init(&a);
    double *mean = ARENA_ARRAY(&a, double, m->n_ranks), most = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        mean[r] = measure_mean(m, series(&m->ranks[r]));
        if (mean[r] > most) {
            most = mean[r];
            *rank = r;
        }
    }
    if (most > 0)
        mean[*rank] = NAN;
    double others = measure_quantile(mean, m->n_ranks, 0.5);
    arena_fini(&a);
    return m->n_ranks > 1 && most > 2 * others;
}
