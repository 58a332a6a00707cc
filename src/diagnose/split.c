#include "diagnose/split.h"

#include "diagnose/record.h"
#include "graph/program.h"
#include "parallel/stages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* --- what the record says ----------------------------------------------------------- */

static double price(const struct record_head *h, const struct record_task *t)
{
    const double peak = fmax(h->flops_f32, h->flops_bf16), rate = h->memory_bytes_per_s;
    if (!(peak > 0))
        return t->flops;
    return fmax(t->flops / peak, rate > 0 ? (t->read_bytes + t->written_bytes) / rate : 0);
}

/* Of one of a rank's stages: what a micro-batch takes. */
static struct measure_split see_part(const struct record_head *h, const struct record_table *t, int part)
{
    struct measure_split x = { .pp = (int)h->pp, .first = INT32_MAX };
    int last = -1;
    for (i64 i = 0; i < t->n_segments; i++) {
        const struct record_segment *g = &t->segments[i];
        if (g->part != part || g->kind == SEGMENT_UPDATE)
            continue;
        for (i64 k = g->first; k < g->first + g->n && k < t->n_tasks; k++) {
            const struct record_task *task = &t->tasks[k];
            if (task->lane != LANE_COMPUTE)
                continue;
            *(task->layer >= 0 ? &x.layers_s : &x.fixed_s) += price(h, task);
            if (task->layer >= 0) {
                x.first = (int)i64_min(x.first, task->layer);
                last = (int)i64_max(last, task->layer);
            }
        }
    }
    x.layers = last >= 0 ? last - x.first + 1 : 0;
    return x;
}

static int by_first(const void *a, const void *b)
{
    return ((const struct measure_split *)a)->first - ((const struct measure_split *)b)->first;
}

static const struct record_head *head_of(const struct record_part *part, i64 pp)
{
    for (int r = 0; r < part->ranks; r++)
        if (part->heads[r] && part->heads[r]->pp == pp && part->heads[r]->n_tables > 0)
            return part->heads[r];
    return NULL;
}

void split_read(struct measure *m, const struct record_part *part)
{
    i64 next = 0;
    m->n_split = 0;
    for (i64 pp = 0; pp < m->config.pp; pp++) {
        const struct record_head *h = head_of(part, pp);
        for (int k = 0; h; k++) {
            const struct measure_split x = see_part(h, h->tables[0], k);
            if (x.layers == 0)
                break;
            if (m->n_split == MEASURE_SPLITS) {
                h = NULL;
                break;
            }
            m->split[m->n_split++] = x;
        }
        if (!h) {
            m->n_split = 0;
            return;
        }
    }
    qsort(m->split, (size_t)m->n_split, sizeof *m->split, by_first);
    for (int t = 0; t < m->n_split; next += m->split[t++].layers)
        if (m->split[t].first != next) { /* not as stages are */
            m->n_split = 0;
            return;
        }
}

void split_name(const struct measure *m, int pp, char *out, size_t size)
{
    int stages[MEASURE_SPLITS], n = 0;
    for (int t = 0; t < m->n_split; t++)
        if (m->split[t].pp == pp)
            stages[n++] = t;
    if (n <= 1) {
        snprintf(out, size, "stage %d", n == 1 ? stages[0] : pp);
        return;
    }
    int at = snprintf(out, size, "rank %d of the pipeline (stages", pp);
    for (int i = 0; i < n && at < (int)size; i++)
        at += snprintf(out + at, size - (size_t)at, "%s %d", i == 0 ? "" : i == n - 1 ? " and" : ",",
                       stages[i]);
    if (at < (int)size)
        snprintf(out + at, size - (size_t)at, ")");
}

/* --- another one -------------------------------------------------------------------- */

struct sums {
    double layers, fixed;
};

static struct sums sums_of(const struct measure *m, int pp)
{
    struct sums s = { 0, 0 };
    for (int t = 0; t < m->n_split; t++)
        if (m->split[t].pp == pp) {
            s.layers += m->split[t].layers_s;
            s.fixed += m->split[t].fixed_s;
        }
    return s;
}

/* What seconds there are to one of price, by the rank that has least of what is in no layer: all of
 * its time is layers'. */
static double seconds_of_price(const struct measure *m, const double *seconds)
{
    double least = INFINITY, scale = NAN;
    for (int pp = 0; pp < m->config.pp; pp++) {
        const struct sums s = sums_of(m, pp);
        const double share = s.fixed / (s.layers + s.fixed);
        if (share < least) {
            least = share;
            scale = seconds[pp] / (s.layers + s.fixed);
        }
    }
    return scale;
}

/* Of each stage, what it takes without its layers: of what its rank takes beyond all of its layers
 * its share by price. */
static void fixed_seconds(const struct measure *m, const double *seconds, double scale, double *fixed)
{
    for (int t = 0; t < m->n_split; t++) {
        const struct measure_split *x = &m->split[t];
        const struct sums s = sums_of(m, x->pp);
        const double left = fmax(0, seconds[x->pp] - scale * s.layers);
        fixed[t] = s.fixed > 0 ? left * x->fixed_s / s.fixed : 0;
    }
}

/* How many layers each stage would have; false: it is not known. */
static bool share_out(const struct measure *m, const double *seconds, i64 count[MEASURE_SPLITS])
{
    double fixed[MEASURE_SPLITS], all = 0;
    int rank_of[MEASURE_SPLITS];
    i64 layers = 0;
    const double scale = m->n_split > 0 ? seconds_of_price(m, seconds) : NAN;
    if (!isfinite(scale))
        return false;
    fixed_seconds(m, seconds, scale, fixed);
    for (int t = 0; t < m->n_split; t++) {
        rank_of[t] = m->split[t].pp;
        layers += m->split[t].layers;
        all += scale * m->split[t].layers_s;
    }
    const struct stages st = { m->n_split, rank_of };
    stages_share_out(&st, layers, all / (double)layers, fixed, count);
    return true;
}

static bool is_as_now(const struct measure *m, const i64 *count)
{
    for (int t = 0; t < m->n_split; t++)
        if (count[t] != m->split[t].layers)
            return false;
    return true;
}

bool split_best(const struct measure *m, const double *seconds, char *out, size_t size)
{
    i64 count[MEASURE_SPLITS];
    int at = 0;
    if (!share_out(m, seconds, count))
        return false;
    for (int t = 0; t < m->n_split && at < (int)size; t++)
        at += snprintf(out + at, size - (size_t)at, "%s%lld", t > 0 ? "+" : "", (long long)count[t]);
    return !is_as_now(m, count) && at < (int)size;
}

bool split_is_best(const struct measure *m, const double *seconds)
{
    i64 count[MEASURE_SPLITS];
    return share_out(m, seconds, count) && is_as_now(m, count);
}
