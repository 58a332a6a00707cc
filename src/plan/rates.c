#include "plan/rates.h"

#include "base/err.h"
#include "base/option.h"
#include "base/recipe.h"
#include "base/text.h"
#include "base/yaml.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TERMS = 3 }; /* per FLOP, per byte, per task */

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

int plan_rates_fit(struct plan_rates *out, const struct plan_sample *s, i64 n, struct arena *a)
{
    struct normal *sums = ARENA_ARRAY(a, struct normal, RATES_MOST);
    double off = 0, weight = 0;
    out->n = 0;
    TRY(name_rates(out, s, n));
    for (i64 i = 0; i < n; i++)
        add_sample(&sums[find_rate(out, s[i].name) - out->rates], &s[i]);
    for (i64 i = 0; i < out->n; i++)
        fit_rate(&out->rates[i], &sums[i]);
    for (i64 i = 0; i < n; i++) {
        const struct plan_rate *r = find_rate(out, s[i].name);
        off += s[i].weight * fabs(rate_seconds(r, s[i].flops, s[i].bytes) / s[i].seconds - 1);
        weight += s[i].weight;
    }
    out->spread = weight > 0 ? off / weight : 0;
    return OK;
}

/* --- using ---------------------------------------------------------------------------- */

/* What an op that nobody recorded takes: as one that only moves bytes, at the mean of those. */
static double unknown_seconds(const struct plan_rates *r, double bytes)
{
    double sum = 0, n = 0;
    for (i64 i = 0; i < r->n; i++)
        if (r->rates[i].byte_s > 0 && strncmp(r->rates[i].name, "lane.", 5)) {
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
    return rate ? rate_seconds(rate, t->cost.flops, bytes) : unknown_seconds(r, bytes);
}

const struct plan_rate *plan_rates_lane(const struct plan_rates *r, enum lane lane)
{
    char name[32];
    snprintf(name, sizeof name, "lane.%d", (int)lane);
    return find_rate(r, name);
}

/* --- files ---------------------------------------------------------------------------- */

struct rates_entry {
    struct plan_rates rates;
    const struct yaml_node *ops;
};

#define ENTRY(type, field) OPTION_FIELD(type, struct rates_entry, rates.field)

static const struct option entry_options[] = {
    { "processor", ENTRY(STRING, processor), NULL, .help = "Its name." },
    { "backend", ENTRY(STRING, backend), NULL, .help = "Kernels that were recorded." },
    { "precision", ENTRY(STRING, precision), "fp32", .help = "Of the products." },
    { "threads", ENTRY(INT, threads), "1", .min = 1, .max = 4096, .help = "Of a rank." },
    { "ranks", ENTRY(INT, ranks), "1", .min = 1, .max = 65536, .help = "On this machine." },
    { "step_s", ENTRY(FLOAT, step_s), "0", .max = 1e6, .unit = "seconds",
      .help = "Of a step, besides its tasks." },
    { "spread", ENTRY(FLOAT, spread), "0", .max = 1e6, .help = "Mean error of the fit." },
    { "ops", OPTION_FIELD(NODE, struct rates_entry, ops), NULL, .help = "A list of rates." },
    { 0 },
};

#define RATE(type, field) OPTION_FIELD(type, struct plan_rate, field)

static const struct option rate_options[] = {
    { "name", RATE(STRING, name), NULL, .help = "Of the op, or lane.N." },
    { "flop_s", RATE(FLOAT, flop_s), "0", .max = 1e6, .unit = "seconds", .help = "Per FLOP." },
    { "byte_s", RATE(FLOAT, byte_s), "0", .max = 1e6, .unit = "seconds", .help = "Per byte." },
    { "task_s", RATE(FLOAT, task_s), "0", .max = 1e6, .unit = "seconds", .help = "Per task." },
    { "least", RATE(FLOAT, flops_lo), "0", .max = 1e30, .help = "Smallest task recorded." },
    { "most", RATE(FLOAT, flops_hi), "0", .max = 1e30, .help = "Largest." },
    { "samples", RATE(INT, samples), "0", .max = 1e12, .help = "Tasks recorded." },
    { 0 },
};

static void write_rate(const struct plan_rate *r, struct text *out)
{
    text_printf(out, "    - {name: %s, flop_s: %.6g, byte_s: %.6g, task_s: %.6g, least: %.6g, "
                "most: %.6g, samples: %lld}\n", r->name, r->flop_s, r->byte_s, r->task_s,
                r->flops_lo, r->flops_hi, (long long)r->samples);
}

void plan_rates_write(const struct plan_rates *const *sets, i64 n, struct text *out)
{
    text_printf(out, "# Written by headway plan calibrate from recorded runs.\nrates:\n");
    for (i64 i = 0; i < n; i++) {
        const struct plan_rates *r = sets[i];
        text_printf(out, "- processor: '%s'\n  backend: '%s'\n  precision: %s\n  threads: %lld\n"
                    "  ranks: %lld\n  step_s: %.6g\n  spread: %.4f\n  ops:\n", r->processor,
                    r->backend, r->precision, (long long)r->threads, (long long)r->ranks,
                    r->step_s, r->spread);
        for (i64 k = 0; k < r->n; k++)
            write_rate(&r->rates[k], out);
    }
}

static int read_entry(struct plan_rates *out, const struct yaml_node *node, struct arena *a)
{
    struct rates_entry e = { 0 };
    TRY(recipe_read_map(entry_options, &e, node, a));
    if (!e.ops || e.ops->kind != YAML_LIST)
        return err_set(ERR_CONFIG, "%s: ops must be a list of rates", yaml_where(node, a));
    for (const struct yaml_node *r = e.ops->first; r; r = r->next) {
        if (e.rates.n == RATES_MOST)
            return err_set(ERR_CONFIG, "%s: more than %d rates", yaml_where(r, a), RATES_MOST);
        struct plan_rate *rate = &e.rates.rates[e.rates.n++];
        TRY(recipe_read_map(rate_options, rate, r, a));
        if (!rate->name)
            return err_set(ERR_CONFIG, "%s: a rate without a name", yaml_where(r, a));
    }
    *out = e.rates;
    return OK;
}

int plan_rates_load(struct plan_rates *out, const char *path, const char *precision, i64 threads,
                    i64 ranks, struct arena *a)
{
    const struct yaml_node *root;
    struct text there = { 0 };
    TRY(yaml_load(path, a, &root));
    const struct yaml_node *list = yaml_get(root, "rates");
    if (!list || list->kind != YAML_LIST)
        return err_set(ERR_CONFIG, "%s has no list 'rates': it is not a file that headway plan "
                       "calibrate wrote", path);
    for (const struct yaml_node *node = list->first; node; node = node->next) {
        TRY(read_entry(out, node, a));
        if (out->threads == threads && out->ranks == ranks && !strcmp(out->precision, precision)) {
            text_fini(&there);
            return OK;
        }
        text_printf(&there, "%s%lld x %lld threads %s", there.length ? ", " : "",
                    (long long)out->ranks, (long long)out->threads, out->precision);
    }
    int rc = err_set(ERR_CONFIG, "%s has no rates of %lld ranks with %lld threads each in %s, but of "
                     "%s; record such a run and calibrate on it too", path, (long long)ranks,
                     (long long)threads, precision, there.length ? there.data : "none");
    text_fini(&there);
    return rc;
}
