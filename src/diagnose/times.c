#include "diagnose/times.h"

#include "diagnose/split.h"

#include <math.h>
#include <string.h>

/* Which findings account for a class: what their ids begin with. A rank waits for another for any
 * reason that the other has. */
static const struct {
    const char *name, *key, *by;
} classes[TIMES] = {
    [TIME_COMPUTE] = { "computing", "compute_s", "" },
    [TIME_DATA] = { "waiting for data", "data_s", "D K H7 H8" },
    [TIME_WAIT] = { "waiting for ranks", "wait_s", "B C D H K" },
    [TIME_TRANSFER] = { "waiting for bytes", "transfer_s", "C B K H" },
    [TIME_LOG] = { "logging", "log_s", "H1 H7 H8 K" },
    [TIME_EVAL] = { "evaluating", "eval_s", "H2 H7 H8 K" },
    [TIME_CHECKPOINT] = { "saving checkpoints", "checkpoint_s", "H3 H7 H8 K" },
    [TIME_GAP] = { "time between these", "gap_s", "H4 H5 H7 H8 H9 K" },
};

const char *times_name(const struct measure *m, enum times_class k)
{
    return k == TIME_WAIT && !measure_whole(m) ? "waiting for ranks or bytes" : classes[k].name;
}

const char *times_key(const struct measure *m, enum times_class k)
{
    return k == TIME_WAIT && !measure_whole(m) ? "wait_or_transfer_s" : classes[k].key;
}

static const double *series_of(const struct measure_rank *r, enum times_class k)
{
    const double *first[] = { r->compute, r->data, r->wait, r->transfer };
    return k < TIME_LOG ? first[k] : r->gap[k - TIME_LOG];
}

static double mean_over_ranks(const struct measure *m, enum times_class k, bool recurring)
{
    double sum = 0, n = 0;
    for (i64 r = 0; r < m->n_ranks; r++) {
        double x = recurring && k >= TIME_LOG
                       ? measure_recurring(m, r, (enum measure_host)(k - TIME_LOG))
                       : measure_mean(m, series_of(&m->ranks[r], k));
        sum += isfinite(x) ? x : 0;
        n += isfinite(x);
    }
    return n > 0 ? sum / n : NAN;
}

double times_mean(const struct measure *m, enum times_class k)
{
    return mean_over_ranks(m, k, false);
}

static bool accounts(const char *id, const char *list)
{
    for (size_t n; *list; list += n + (list[n] == ' ')) {
        n = strcspn(list, " ");
        if (n == 1 ? id[0] == list[0] : strlen(id) == n && strncmp(id, list, n) == 0)
            return true;
    }
    return false;
}

double times_unexplained(const struct measure *m, const struct findings *f, enum times_class k)
{
    double all = mean_over_ranks(m, k, true), rest = all; /* the run's end explains what is done there */
    if (k == TIME_COMPUTE || (!measure_whole(m) && (k == TIME_WAIT || k == TIME_TRANSFER)))
        return 0;
    for (int i = 0; i < f->n; i++)
        if (!f->at[i].urgent && accounts(f->at[i].id, classes[k].by))
            rest -= f->at[i].lost;
    return m->theta > 0 && rest >= m->theta && rest >= 0.5 * all ? rest : 0;
}

/* As B4 has it: equal stages repeat within 3 %. */
static const double uneven = 1.05;

bool times_of_stages(const struct measure *m, double seconds, struct times_stages *out)
{
    const i64 P = m->config.pp, M = m->config.micro_batches;
    *out = (struct times_stages){ 0, 0 };
    if (P < 2 || P > COUNT_OF(m->stages) || M < 1)
        return false;
    for (i64 p = 0; p < P; p++) {
        out->most_s = fmax(out->most_s, m->stages[p]);
        out->mean_s += m->stages[p] / (double)P;
    }
    /* The others wait for the busiest in each micro-batch, and while the pipeline fills. */
    const double lost = (double)(M + P - 1) / (double)M * (out->most_s - out->mean_s);
    return out->most_s > uneven * out->mean_s && lost >= 0.5 * seconds &&
           split_is_best(m, m->stages);
}
