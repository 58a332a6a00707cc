/* Files of rates (see rates.h). */
#include "base/err.h"
#include "base/option.h"
#include "base/recipe.h"
#include "base/text.h"
#include "base/yaml.h"
#include "plan/rates.h"

#include <string.h>

struct rates_entry {
    struct plan_rates rates;
    const struct yaml_node *ops, *memory, *products;
};

#define ENTRY(type, field) OPTION_FIELD(type, struct rates_entry, rates.field)
#define LIST(field) OPTION_FIELD(NODE, struct rates_entry, field)

static const struct option entry_options[] = {
    { "processor", ENTRY(STRING, processor), NULL, .help = "Its name." },
    { "backend", ENTRY(STRING, backend), NULL, .help = "Kernels that were recorded." },
    { "precision", ENTRY(STRING, precision), "fp32", .help = "Of the products." },
    { "threads", ENTRY(INT, threads), "1", .min = 1, .max = 4096, .help = "Of a rank." },
    { "ranks", ENTRY(INT, ranks), "1", .min = 1, .max = 65536, .help = "On this machine." },
    { "columns", ENTRY(INT, columns), "1", .min = 1, .max = 65536, .unit = "columns",
      .help = "Of a tile of products, whose FLOPs are those of whole ones." },
    { "cut", ENTRY(INT, cut), "0", .max = 65536, .unit = "columns",
      .help = "That the last tile costs more where a product's columns end within it." },
    { "step_s", ENTRY(FLOAT, step_s), "0", .max = 1e6, .unit = "seconds",
      .help = "Of a step, besides its tasks." },
    { "waits", ENTRY(FLOAT, waits), "0", .max = 100, .help = "For the last rank, per step." },
    { "spread", ENTRY(FLOAT, spread), "0", .max = 1e6, .help = "Mean error of the fit." },
    { "host", ENTRY(STRING, host), NULL, .help = "Where it was measured." },
    { "date", ENTRY(STRING, date), NULL, .help = "When, UTC." },
    { "took_s", ENTRY(FLOAT, took_s), "0", .max = 1e6, .unit = "seconds", .help = "Measuring." },
    { "launch_s", ENTRY(FLOAT, launch_s), "0", .max = 1, .unit = "seconds",
      .help = "An empty task." },
    { "overlap_tax", ENTRY(FLOAT, overlap_tax), "0", .max = 1,
      .help = "Seconds of computing lost per second of an exchange beside it." },
    { "memory", LIST(memory), NULL, .help = "Levels: bytes, and bytes per second of a rank." },
    { "products", LIST(products), NULL, .help = "Matrix products that were timed." },
    { "ops", LIST(ops), NULL, .help = "A list of rates." },
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

#define LEVEL(field) OPTION_FIELD(FLOAT, struct plan_level, field)

static const struct option level_options[] = {
    { "bytes", LEVEL(bytes), "0", .max = 1e18, .unit = "bytes", .help = "That it holds." },
    { "read_per_s", LEVEL(read_bytes_per_s), "0", .max = 1e18, .unit = "bytes/s",
      .help = "Read by a rank's threads." },
    { "copy_per_s", LEVEL(copy_bytes_per_s), "1", .min = 1, .max = 1e18, .unit = "bytes/s",
      .help = "Read and written." },
    { 0 },
};

#define PRODUCT(type, field) OPTION_FIELD(type, struct plan_timed, field)

static const struct option product_options[] = {
    { "op", PRODUCT(STRING, op), NULL, .help = "linear, or a gradient of it." },
    { "M", PRODUCT(INT, M), "1", .min = 1, .max = 1e12, .help = "(M,K) times (K,N)." },
    { "N", PRODUCT(INT, N), "1", .min = 1, .max = 1e12, .help = "Of it." },
    { "K", PRODUCT(INT, K), "1", .min = 1, .max = 1e12, .help = "Of it." },
    { "seconds", PRODUCT(FLOAT, seconds), "0", .max = 1e6, .unit = "seconds", .help = "Median." },
    { "spread", PRODUCT(FLOAT, spread), "0", .max = 1e6,
      .help = "Half the distance of the quartiles, over the median." },
    { "n", PRODUCT(INT, n), "1", .min = 1, .max = 1e6, .help = "Repetitions." },
    { 0 },
};

/* --- writing -------------------------------------------------------------------------- */

/* Text of others, such as a processor's name, as YAML reads it back. */
static void write_quoted(struct text *out, const char *key, const char *value)
{
    text_printf(out, "%s: \"", key);
    for (; value && *value; value++) {
        const unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            text_printf(out, "\\x%02x", c);
        else
            text_add_bytes(out, value, 1);
    }
    text_add(out, "\"");
}

static void write_rate(const struct plan_rate *r, struct text *out)
{
    text_add(out, "    - {");
    write_quoted(out, "name", r->name);
    text_printf(out, ", flop_s: %.6g, byte_s: %.6g, task_s: %.6g, least: %.6g, "
                "most: %.6g, samples: %lld}\n", r->flop_s, r->byte_s, r->task_s,
                r->flops_lo, r->flops_hi, (long long)r->samples);
}

static void write_entry(const struct plan_rates *r, struct text *out)
{
    write_quoted(out, "- processor", r->processor);
    write_quoted(out, "\n  backend", r->backend);
    write_quoted(out, "\n  precision", r->precision);
    text_printf(out, "\n  threads: %lld\n"
                "  ranks: %lld\n  columns: %lld\n  cut: %lld\n  step_s: %.6g\n  waits: %.4f\n  spread: %.4f\n",
                (long long)r->threads, (long long)r->ranks, (long long)i64_max(1, r->columns),
                (long long)r->cut,
                r->step_s, r->waits, r->spread);
    if (r->date) {
        write_quoted(out, "  host", r->host);
        write_quoted(out, "\n  date", r->date);
        text_printf(out, "\n  took_s: %.3g\n  launch_s: %.4g\n  overlap_tax: %.4f\n", r->took_s,
                    r->launch_s, r->overlap_tax);
    }
    if (r->n_memory)
        text_printf(out, "  memory: # the largest is main memory\n");
    for (int i = 0; i < r->n_memory; i++)
        text_printf(out, "    - {bytes: %.6g, read_per_s: %.4g, copy_per_s: %.4g}\n",
                    r->memory[i].bytes, r->memory[i].read_bytes_per_s,
                    r->memory[i].copy_bytes_per_s);
    if (r->n_products)
        text_printf(out, "  products:\n");
    for (i64 i = 0; i < r->n_products; i++) {
        const struct plan_timed *p = &r->products[i];
        text_add(out, "    - {");
        write_quoted(out, "op", p->op);
        text_printf(out, ", M: %lld, N: %lld, K: %lld, seconds: %.4g, spread: %.3f, "
                    "n: %lld} # %.4g GFLOP/s\n", (long long)p->M, (long long)p->N,
                    (long long)p->K, p->seconds, p->spread, (long long)p->n,
                    2e-9 * (double)p->M * (double)p->N * (double)p->K / p->seconds);
    }
    text_printf(out, "  ops:\n");
    for (i64 k = 0; k < r->n; k++)
        write_rate(&r->rates[k], out);
}

void plan_rates_write(const struct plan_rates *const *runs, i64 n_runs,
                      const struct plan_rates *const *measured, i64 n_measured, struct text *out)
{
    text_printf(out, "# Written by headway plan calibrate: seconds of tasks on this machine.\n"
                "rates:%s\n", n_runs ? "" : " []");
    for (i64 i = 0; i < n_runs; i++)
        write_entry(runs[i], out);
    if (n_measured)
        text_printf(out, "# Of a microbenchmark, without a run.\nmeasured:\n");
    for (i64 i = 0; i < n_measured; i++)
        write_entry(measured[i], out);
}

/* --- reading -------------------------------------------------------------------------- */

static int check_list(const struct yaml_node *list, const char *name, i64 most, struct arena *a)
{
    i64 n = 0;
    if (!list)
        return OK;
    if (list->kind != YAML_LIST)
        return err_set(ERR_CONFIG, "%s: %s must be a list", yaml_where(list, a), name);
    for (const struct yaml_node *x = list->first; x; x = x->next)
        n++;
    return n <= most ? OK : err_set(ERR_CONFIG, "%s: %s has more than %lld entries",
                                    yaml_where(list, a), name, (long long)most);
}

static int read_ops(struct rates_entry *e, const struct yaml_node *node, struct arena *a)
{
    if (!e->ops)
        return err_set(ERR_CONFIG, "%s: ops must be a list of rates", yaml_where(node, a));
    TRY(check_list(e->ops, "ops", RATES_MOST, a));
    for (const struct yaml_node *r = e->ops->first; r; r = r->next) {
        struct plan_rate *rate = &e->rates.rates[e->rates.n++];
        TRY(recipe_read_map(rate_options, rate, r, a));
        if (!rate->name)
            return err_set(ERR_CONFIG, "%s: a rate without a name", yaml_where(r, a));
    }
    return OK;
}

static int read_entry(struct plan_rates *out, const struct yaml_node *node, struct arena *a)
{
    struct rates_entry *e = ARENA_NEW(a, struct rates_entry);
    *e = (struct rates_entry){ .ops = NULL };
    TRY(recipe_read_map(entry_options, e, node, a));
    TRY(read_ops(e, node, a));
    TRY(check_list(e->memory, "memory", RATES_LEVELS, a));
    TRY(check_list(e->products, "products", RATES_PRODUCTS, a));
    for (const struct yaml_node *x = e->memory ? e->memory->first : NULL; x; x = x->next)
        TRY(recipe_read_map(level_options, &e->rates.memory[e->rates.n_memory++], x, a));
    for (const struct yaml_node *x = e->products ? e->products->first : NULL; x; x = x->next)
        TRY(recipe_read_map(product_options, &e->rates.products[e->rates.n_products++], x, a));
    *out = e->rates;
    return OK;
}

struct wanted {
    const char *precision;
    i64 threads, ranks;
    struct text there; /* the others */
};

/* The entry in this list, if there is one. */
static int find_entry(struct plan_rates *out, const struct yaml_node *list, struct wanted *w,
                      bool *found, struct arena *a)
{
    *found = false;
    for (const struct yaml_node *node = list ? list->first : NULL; node && !*found;
         node = node->next) {
        TRY(read_entry(out, node, a));
        *found = out->threads == w->threads && out->ranks == w->ranks &&
                 !strcmp(out->precision, w->precision);
        if (!*found)
            text_printf(&w->there, "%s%lld x %lld threads %s", w->there.length ? ", " : "",
                        (long long)out->ranks, (long long)out->threads, out->precision);
    }
    return OK;
}

static int open_file(const char *path, const struct yaml_node **runs,
                     const struct yaml_node **measured, struct arena *a)
{
    const struct yaml_node *root;
    TRY(yaml_load(path, a, &root));
    *runs = yaml_get(root, "rates");
    *measured = yaml_get(root, "measured");
    if ((!*runs && !*measured) || (*runs && (*runs)->kind != YAML_LIST))
        return err_set(ERR_CONFIG, "%s has no list 'rates': it is not a file that headway plan "
                       "calibrate wrote", path);
    return check_list(*measured, "measured", 4096, a);
}

static int none_found(const char *path, const struct wanted *w)
{
    return err_set(ERR_CONFIG, "%s has no rates of %lld ranks with %lld threads each in %s, but of "
                   "%s; record such a run and calibrate on it too", path, (long long)w->ranks,
                   (long long)w->threads, w->precision, w->there.length ? w->there.data : "none");
}

/* What a run does not tell: exchanges that it had none of, ops that it lacks. */
static void add_missing(struct plan_rates *out, const struct plan_rates *from)
{
    for (i64 i = 0; i < from->n; i++) {
        bool there = false;
        for (i64 k = 0; k < out->n && !there; k++)
            there = !strcmp(out->rates[k].name, from->rates[i].name);
        if (!there && out->n < RATES_MOST)
            out->rates[out->n++] = from->rates[i];
    }
    out->launch_s = from->launch_s;
    out->n_memory = from->n_memory;
    memcpy(out->memory, from->memory, sizeof out->memory);
}

int plan_rates_load(struct plan_rates *out, const char *path, const char *precision, i64 threads,
                    i64 ranks, struct arena *a)
{
    const struct yaml_node *runs, *measured;
    struct plan_rates *micro = ARENA_NEW(a, struct plan_rates);
    struct wanted w = { precision, threads, ranks, { 0 } };
    bool of_run, of_micro;
    TRY(open_file(path, &runs, &measured, a));
    int rc = find_entry(out, runs, &w, &of_run, a);
    if (rc >= 0)
        rc = find_entry(micro, measured, &w, &of_micro, a);
    if (rc >= 0 && !of_run && !of_micro)
        rc = none_found(path, &w);
    text_fini(&w.there);
    TRY(rc);
    if (!of_run)
        *out = *micro;
    else if (of_micro)
        add_missing(out, micro);
    return OK;
}

int plan_rates_load_measured(struct plan_rates *out, const char *path, const char *precision,
                             i64 threads, i64 ranks, struct arena *a)
{
    const struct yaml_node *runs, *measured;
    struct wanted w = { precision, threads, ranks, { 0 } };
    bool found;
    TRY(open_file(path, &runs, &measured, a));
    int rc = find_entry(out, measured, &w, &found, a);
    if (rc >= 0 && !found)
        rc = none_found(path, &w);
    text_fini(&w.there);
    return rc < 0 ? rc : OK;
}
