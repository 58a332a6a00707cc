#include "plan/rates.h"

#include "base/err.h"
#include "ops/ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TERMS = 3 }; /* per FLOP, per byte, per task */

/* --- tiles ------------------------------------------------------------------------------ */

double plan_tile_flops(double flops, i64 N, i64 columns, i64 cut)
{
    if (N <= 0 || columns <= 1 || N % columns == 0)
        return flops;
    return flops * (double)(round_up(N, columns) + cut) / (double)N;
}

i64 plan_product_columns(const struct task *t)
{
    bool product = t->op == &op_linear || t->op == &op_linear_dx || t->op == &op_linear_dw;
    return product && t->out[0] ? t->out[0]->dim[1] : 0;
}

/* --- fitting -------------------------------------------------------------------------- */

struct normal { /* sums of relative least squares: minimise |A x - 1|^2, rows over seconds */
    double aa[TERMS][TERMS], ab[TERMS], bb;
};

static void add_sample(struct normal *n, const struct plan_sample *s)
{
    double row[TERMS] = { s->flops / s->seconds, s->bytes / s->seconds, 1 / s->seconds };
    for (int i = 0; i < TERMS; i++) {
        for (int k = 0; k < TERMS; k++)
            n->aa[i][k] += s->weight * row[i] * row[k];
        n->ab[i] += s->weight * row[i];
    }
    n->bb += s->weight;
}

/* The terms in the set by Gauss elimination on scaled equations; false when they do not tell
 * them apart or one would be negative. */
static bool solve(const struct normal *n, unsigned set, double x[TERMS])
{
    double m[TERMS][TERMS + 1] = { { 0 } };
    for (int i = 0; i < TERMS; i++) {
        bool in = set >> i & 1;
        double own = sqrt(n->aa[i][i]);
        if (in && own == 0)
            return false;
        for (int k = 0; k < TERMS; k++)
            if (in && set >> k & 1)
                m[i][k] = n->aa[i][k] / own / sqrt(n->aa[k][k]);
        m[i][TERMS] = in ? n->ab[i] / own : 0;
        if (!in)
            m[i][i] = 1;
    }
    for (int i = 0; i < TERMS; i++) {
        if (fabs(m[i][i]) < 1e-9)
            return false;
        for (int k = i + 1; k < TERMS; k++) {
            double f = m[k][i] / m[i][i];
            for (int c = i; c <= TERMS; c++)
                m[k][c] -= f * m[i][c];
        }
    }
    for (int i = TERMS - 1; i >= 0; i--) {
        x[i] = m[i][TERMS];
        for (int k = i + 1; k < TERMS; k++)
            x[i] -= m[i][k] * x[k];
        x[i] /= m[i][i];
    }
    for (int i = 0; i < TERMS; i++) {
        if (x[i] < 0)
            return false;
        x[i] /= set >> i & 1 ? sqrt(n->aa[i][i]) : 1;
    }
    return true;
}

static double remainder_of(const struct normal *n, const double x[TERMS])
{
    double sum = n->bb;
    for (int i = 0; i < TERMS; i++) {
        sum -= 2 * x[i] * n->ab[i];
        for (int k = 0; k < TERMS; k++)
            sum += x[i] * x[k] * n->aa[i][k];
    }
    return sum;
}

/* All seven sets of terms: the best without a negative one. */
static void fit_rate(struct plan_rate *r, const struct normal *n)
{
    double best = INFINITY;
    for (unsigned set = 1; set < 1u << TERMS; set++) {
        double x[TERMS];
        if (!solve(n, set, x) || remainder_of(n, x) >= best - 1e-12)
            continue;
        best = remainder_of(n, x);
        r->flop_s = x[0];
        r->byte_s = x[1];
        r->task_s = x[2];
    }
}

static double rate_seconds(const struct plan_rate *r, double flops, double bytes)
{
    return r->flop_s * flops + r->byte_s * bytes + r->task_s;
}

static struct plan_rate *find_rate(const struct plan_rates *r, const char *name)
{
    for (i64 i = 0; i < r->n; i++)
        if (!strcmp(r->rates[i].name, name))
            return (struct plan_rate *)&r->rates[i];
    return NULL;
}

static int name_rates(struct plan_rates *out, const struct plan_sample *s, i64 n)
{
    for (i64 i = 0; i < n; i++) {
        struct plan_rate *r = find_rate(out, s[i].name);
        if (!r && out->n == RATES_MOST)
            return err_set(ERR_LIMIT, "more than %d ops were recorded", RATES_MOST);
        if (!r) {
            r = &out->rates[out->n++];
            *r = (struct plan_rate){ .name = s[i].name, .flops_lo = INFINITY };
        }
        double size = fmax(s[i].flops, s[i].bytes);
        r->flops_lo = fmin(r->flops_lo, size);
        r->flops_hi = fmax(r->flops_hi, size);
        r->samples++;
    }
    return OK;
}

/* Spread of the fit over samples, each by its weight. */
static double spread_of(const struct plan_rates *r, const struct plan_sample *s, i64 n)
{
    double off = 0, weight = 0;
    for (i64 i = 0; i < n; i++) {
        const struct plan_rate *rate = find_rate(r, s[i].name);
        off += s[i].weight * fabs(rate_seconds(rate, s[i].flops, s[i].bytes) / s[i].seconds - 1);
        weight += s[i].weight;
    }
    return weight > 0 ? off / weight : 0;
}

int plan_rates_fit(struct plan_rates *out, const struct plan_sample *s, i64 n, struct arena *a)
{
    struct normal *sums = ARENA_ARRAY(a, struct normal, RATES_MOST);
    out->n = 0;
    TRY(name_rates(out, s, n));
    for (i64 i = 0; i < n; i++)
        add_sample(&sums[find_rate(out, s[i].name) - out->rates], &s[i]);
    for (i64 i = 0; i < out->n; i++)
        fit_rate(&out->rates[i], &sums[i]);
    out->spread = spread_of(out, s, n);
    return OK;
}

/* --- from one kind of measurement to another ------------------------------------------- */

void plan_rates_grow(struct plan_rates *r, const struct plan_rates *like)
{
    for (i64 i = 0; i < r->n; i++) {
        struct plan_rate *rate = &r->rates[i];
        const struct plan_rate *wide = find_rate(like, rate->name);
        if (!wide)
            continue;
        rate->flop_s = wide->flop_s;
        rate->byte_s = wide->byte_s;
        rate->task_s = wide->task_s;
        rate->flops_lo = fmin(rate->flops_lo, wide->flops_lo);
        rate->flops_hi = fmax(rate->flops_hi, wide->flops_hi);
    }
}

void plan_rates_levels(const struct plan_rates *r, const struct plan_sample *s, i64 n,
                       double *levels)
{
    for (i64 k = 0; k < r->n; k++) {
        double recorded = 0, fitted = 0;
        for (i64 i = 0; i < n; i++) {
            if (strcmp(s[i].name, r->rates[k].name))
                continue;
            recorded += s[i].weight;
            fitted += s[i].weight * rate_seconds(&r->rates[k], s[i].flops, s[i].bytes) /
                      s[i].seconds;
        }
        levels[k] = fitted > 0 ? recorded / fitted : 0;
    }
}

void plan_rates_scale(struct plan_rates *r, const double *levels, const struct plan_sample *s,
                      i64 n)
{
    for (i64 k = 0; k < r->n; k++) {
        double level = levels[k] > 0 ? levels[k] : 1;
        r->rates[k].flop_s *= level;
        r->rates[k].byte_s *= level;
        r->rates[k].task_s *= level;
    }
    r->spread = spread_of(r, s, n);
}

/* --- using ---------------------------------------------------------------------------- */

/* Rate of the level of memory that holds so many bytes, read and written. */
static double level_rate_of(const struct plan_rates *r, double bytes)
{
    int i = 0;
    while (i < r->n_memory - 1 && bytes > r->memory[i].bytes)
        i++;
    return r->memory[i].copy_bytes_per_s;
}

/* What an op that nobody recorded takes: as one that only moves bytes, at the rate of its level of
 * memory, or at the mean of the ops that only do so. */
static double unknown_seconds(const struct plan_rates *r, double bytes)
{
    double sum = 0, n = 0;
    if (r->n_memory > 0)
        return r->launch_s + bytes / level_rate_of(r, bytes);
    for (i64 i = 0; i < r->n; i++)
        if (r->rates[i].byte_s > 0 && strncmp(r->rates[i].name, "lane.", 5) &&
            strncmp(r->rates[i].name, "exchange.", 9)) {
            sum += r->rates[i].byte_s;
            n += 1;
        }
    return n > 0 ? bytes * sum / n : 0;
}

double plan_rates_seconds(const struct plan_rates *r, const struct task *t, bool *outside)
{
    double bytes = t->cost.read_bytes + t->cost.written_bytes;
    const struct plan_rate *rate = find_rate(r, t->op->name);
    double size = fmax(t->cost.flops, bytes);
    if (outside && (!rate || size > 4 * rate->flops_hi || 4 * size < rate->flops_lo))
        *outside = true;
    double flops = plan_tile_flops(t->cost.flops, plan_product_columns(t), r->columns,
                                   r->cut);
    return rate ? rate_seconds(rate, flops, bytes) : unknown_seconds(r, bytes);
}

const struct plan_rate *plan_rates_lane(const struct plan_rates *r, enum lane lane)
{
    char name[32];
    snprintf(name, sizeof name, "lane.%d", (int)lane);
    const struct plan_rate *own = find_rate(r, name);
    return own ? own : find_rate(r, RATES_ANY_LANE);
}
