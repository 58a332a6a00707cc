#include "diagnose/probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- the run's answer --------------------------------------------------------------- */

/* Steps 2 k and 2 k + 1 at i and i + 1, both steady and looked at. */
static bool is_pair(const struct record *r, const struct measure *m, i64 i)
{
    i64 step = r->steps[i];
    return step % 2 == 0 && i + 1 < r->n_steps && r->steps[i + 1] == step + 1 &&
           step >= m->looked_first && step + 1 <= m->looked_last;
}

static struct probe *probe_of(struct probe *out, int *n, const struct inject_fault *fault)
{
    for (int i = 0; i < *n; i++)
        if (out[i].fault == fault)
            return &out[i];
    if (*n == PROBES_MOST)
        return NULL;
    out[*n] = (struct probe){ .fault = fault, .seconds = NAN, .replayed = NAN, .gain = NAN };
    return &out[(*n)++];
}

static void take_response(struct probe *p, const struct record *r, const struct measure *m)
{
    struct arena a;
    arena_init(&a);
    double *longer = ARENA_ARRAY(&a, double, r->n_steps);
    double *own = ARENA_ARRAY(&a, double, r->n_steps);
    p->pairs = 0;
    for (i64 i = 0; i < r->n_steps; i++) {
        if (!is_pair(r, m, i) || measure_probe(m, r->steps[i]) != p->fault ||
            measure_probe(m, r->steps[i + 1]) != p->fault)
            continue;
        const bool first = inject_probed(m->inject, (u64)r->steps[i]);
        const double slowed = record_step_seconds(r, first ? i : i + 1);
        own[p->pairs] = record_step_seconds(r, first ? i + 1 : i);
        longer[p->pairs] = slowed - own[p->pairs];
        p->pairs++;
    }
    struct measure_stat s = measure_stat(longer, p->pairs);
    p->response = s.median;
    p->se = s.se;
    p->step = measure_stat(own, p->pairs).median;
    arena_fini(&a);
}

/* --- the replay's ------------------------------------------------------------------- */

/* False: an edit knows no such set of ranks. */
static bool edit_of(const struct inject_fault *f, i64 n_ranks, struct finding_edit *e)
{
    *e = (struct finding_edit){ .kind = EDIT_COMPUTE, .rank = -1, .peer = -1, .stage = -1,
                                .lane = -1, .phase = -1, .host = -1 };
    if (strcmp(f->word, "all") != 0)
        snprintf(e->op, sizeof e->op, "%s", f->word);
    if (f->first_rank == 0 && f->last_rank >= n_ranks - 1)
        return true;
    e->rank = (int)f->first_rank;
    e->peer = (int)f->last_rank;
    return f->last_rank - f->first_rank <= 1;
}

static void take_replay(struct probe *p, const struct measure *m, struct whatif *w)
{
    struct finding_edit e;
    struct finding_replay replay = whatif_replay(w);
    if (!edit_of(p->fault, m->n_ranks, &e))
        return;
    double now = replay.length(replay.context, NULL, 1);
    p->seconds = whatif_seconds(w, &e);
    p->replayed = replay.length(replay.context, &e, 1 + p->fault->value) - now;
    p->gain = now - replay.length(replay.context, &e, 0);
}

int probes_measure(struct probe out[PROBES_MOST], const struct record *r, const struct measure *m,
                   struct whatif *w)
{
    int n = 0, kept = 0;
    for (i64 i = 0; m->inject && i < r->n_steps; i++) {
        const struct inject_fault *f = is_pair(r, m, i) ? measure_probe(m, r->steps[i]) : NULL;
        if (f)
            probe_of(out, &n, f);
    }
    for (int i = 0; i < n; i++) {
        take_response(&out[i], r, m);
        if (w)
            take_replay(&out[i], m, w);
        if (out[i].pairs > 0)
            out[kept++] = out[i];
    }
    return kept;
}

double probe_bound(const struct probe *p)
{
    return fmin(p->step, fmax(0, p->response) / p->fault->value);
}

double probe_bound_se(const struct probe *p)
{
    return (isfinite(p->se) ? p->se : 0) / p->fault->value;
}

/* --- beside the findings ------------------------------------------------------------ */

/* What the finding would mend is among the tasks that were slowed, on ranks that were. */
static bool covers(const struct inject_fault *p, const struct finding_edit *e)
{
    bool everywhere = p->first_rank == 0 && p->last_rank == INT64_MAX;
    bool there = e->rank >= p->first_rank && e->peer < 0 &&
                 i64_max(e->rank, e->last_rank) <= p->last_rank;
    bool op = strcmp(p->word, "all") == 0 ||
              (e->op[0] && strncmp(e->op, p->word, strlen(p->word)) == 0);
    return e->kind == EDIT_COMPUTE && op && (everywhere || there);
}

void probes_limit(const struct probe *p, int n, struct findings *f)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < f->n; k++) {
            struct finding *x = &f->at[k];
            if (!covers(p[i].fault, &x->edit))
                continue;
            double most = (1 - x->edit.factor_hi) * (probe_bound(&p[i]) + 2 * probe_bound_se(&p[i]));
            if (!(most < x->gain_hi))
                continue;
            x->gain_hi = most;
            x->gain = fmin(x->gain, most);
            x->gain_lo = fmin(x->gain_lo, most);
            if (x->n_evidence < FINDING_EVIDENCE)
                snprintf(x->evidence[x->n_evidence++], FINDING_TEXT, "%s were slowed in some steps, "
                         "which answered by %.2f ms: mending gives back at most %.1f ms",
                         p[i].fault->word, 1e3 * p[i].response, 1e3 * most);
        }
}

static void put_ranks(const struct inject_fault *f, struct text *out)
{
    if (f->last_rank == INT64_MAX && f->first_rank == 0)
        return;
    text_printf(out, f->last_rank == f->first_rank ? " of rank %lld" : " of ranks %lld to %lld",
                (long long)f->first_rank, (long long)f->last_rank);
}

void probes_text(const struct probe *p, int n, struct text *out)
{
    if (n > 0)
        text_add(out, "\nProbes: tasks slowed on purpose in one of each two steps, beside the "
                      "other:\n");
    for (int i = 0; i < n; i++, p++) {
        double added = p->fault->value * p->seconds;
        text_printf(out, "  %s", p->fault->word);
        put_ranks(p->fault, out);
        text_printf(out, ", %.3g %% slower, %lld pairs: a step takes %.2f ms longer (+- %.2f",
                    100 * p->fault->value, (long long)p->pairs, 1e3 * p->response,
                    isfinite(p->se) ? 1e3 * p->se : 0);
        if (isfinite(p->replayed))
            text_printf(out, "; replay: %.2f", 1e3 * p->replayed);
        text_add(out, ")");
        if (added > 0)
            text_printf(out, ",\n    %.0f %% of the %.2f ms that were added to the rank with most such "
                        "tasks", 100 * fmax(0, p->response / added), 1e3 * added);
        text_printf(out, "\n    to take these tasks away altogether gives back at most %.1f ms "
                    "(+- %.1f)", 1e3 * probe_bound(p), 1e3 * probe_bound_se(p));
        if (isfinite(p->gain))
            text_printf(out, "; replay: %.1f", 1e3 * p->gain);
        text_add(out, "\n");
    }
}

void probes_json(const struct probe *p, int n, struct json *j)
{
    json_begin_array(j);
    for (int i = 0; i < n; i++, p++) {
        json_begin_object(j);
        json_put_str(j, "op", p->fault->word);
        json_put_double(j, "slower", p->fault->value);
        json_put_int(j, "pairs", p->pairs);
        json_put_double(j, "response_s", p->response);
        json_put_double(j, "response_se_s", p->se);
        json_put_double(j, "replayed_response_s", p->replayed);
        json_put_double(j, "tasks_s", p->seconds);
        json_put_double(j, "bound_s", probe_bound(p));
        json_put_double(j, "bound_se_s", probe_bound_se(p));
        json_put_double(j, "replayed_gain_s", p->gain);
        json_end(j);
    }
    json_end(j);
}
