/* What devices do, from step times: those that others published, or our own recorded runs. */
#include "backend/backend.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/yaml.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "diagnose/own_rates.h"
#include "machine/machine.h"
#include "plan/fit.h"
#include "plan/microbench.h"
#include "plan/stack.h"
#include "train/run_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct calibrate_options {
    struct option_strings rows, constants;
    const char *family, *out;
    i64 most, devices;
    bool json, measure;
    const char *measured;
};

static const struct option calibrate_table[] = {
    { "rows", OPTION_FIELD(STRINGS, struct calibrate_options, rows), NULL,
      .help = "Tables of measurements: files, or sets of facts/measured; NAME:20 uses 20 "
              "of its rows." },
    { "family", OPTION_FIELD(STRING, struct calibrate_options, family), "a100",
      .help = "Of devices: a name in machines/calibration, or a file, to begin with." },
    { "constants", OPTION_FIELD(STRINGS, struct calibrate_options, constants), NULL,
      .help = "Which of its constants are fitted; all that step times can show if not given." },
    { "most", OPTION_FIELD(INT, struct calibrate_options, most), "30", .min = 1,
      .max = FIT_MOST_ROWS, .unit = "rows", .help = "Rows that are used at most." },
    { "devices", OPTION_FIELD(INT, struct calibrate_options, devices), NULL, .min = 0, .max = 1e9,
      .unit = "devices", .help = "Only rows of at most so many devices; 0: all." },
    { "out", OPTION_FIELD(PATH, struct calibrate_options, out), NULL,
      .help = "Write the file here; printed if not given." },
    { "measure", OPTION_FIELD(BOOL, struct calibrate_options, measure), "yes",
      .help = "Half a minute's microbenchmark of this machine: ops at many sizes, "
              "memory, launch floor, exchanges between ranks, alone and beside computing." },
    { "measured", OPTION_FIELD(PATH, struct calibrate_options, measured), NULL,
      .help = "Take the microbenchmark from this file, which calibrate wrote before." },
    { "json", OPTION_FIELD(BOOL, struct calibrate_options, json), "no",
      .help = "JSON, not YAML." },
    { 0 },
};

enum { MOST_SETS = 16 };

/* "NAME:20" is a table and how many of its rows are used; the number is cut off. Without one: 0. */
static int take_share(const char **path, i64 *share, struct arena *a)
{
    const char *colon = strrchr(*path, ':');
    char *end;
    *share = 0;
    if (!colon || sys_exists(*path) || strspn(colon + 1, "-+0123456789") != strlen(colon + 1))
        return OK;
    long long n = strtoll(colon + 1, &end, 10);
    if (end == colon + 1 || n < 1 || n > FIT_MOST_ROWS)
        return err_set(ERR_USAGE, "--rows '%s': after a colon stands how many of its "
                       "rows are used, 1 to %d", *path, FIT_MOST_ROWS);
    *path = arena_strndup(a, *path, colon - *path);
    *share = n;
    return OK;
}

static int read_sets(struct invocation *v, const struct plan_rows **sets, i64 *shares)
{
    const struct calibrate_options *o = v->options;
    if (o->rows.count == 0 || o->rows.count > MOST_SETS)
        return err_set(ERR_USAGE, "--rows names the tables, at most %d of them", MOST_SETS);
    for (i64 i = 0; i < o->rows.count; i++) {
        struct plan_rows *rows = ARENA_NEW(v->arena, struct plan_rows);
        const char *path = o->rows.at[i];
        TRY(take_share(&path, &shares[i], v->arena));
        if (!sys_exists(path))
            TRY(plan_set_path(path, &path, v->arena));
        TRY(plan_rows_load(rows, path, v->arena));
        sets[i] = rows;
    }
    return OK;
}

/* --- what is found -------------------------------------------------------------------- */

static int put(const struct calibrate_options *o, const char *bytes, i64 n)
{
    if (!o->out) {
        printf("%.*s", (int)n, bytes);
        return OK;
    }
    return file_replace(o->out, bytes, n);
}

static int put_result(const struct calibrate_options *o, const struct text *yaml, struct arena *a)
{
    const struct yaml_node *root;
    struct json j;
    if (!o->json)
        return put(o, yaml->data, yaml->length);
    TRY(yaml_parse(yaml->data, yaml->length, "calibration", a, &root));
    json_writer_init(&j);
    j.indent = true;
    yaml_write_json(root, &j);
    text_add(&j.out, "\n");
    int rc = put(o, j.out.data, j.out.length);
    json_writer_fini(&j);
    return rc;
}

/* What belongs into files of machines/stacks: the values that they say are fitted, and
 * intervals. */
static void add_stacks(const struct plan_fit *fit, struct text *out)
{
    for (i64 i = 0; i < fit->n_stacks; i++) {
        const struct plan_stack *s = &fit->stacks[i];
        text_printf(out, "# software %s:", s->name);
        for (i64 k = 0; k < s->fitted.count; k++) {
            const struct option *o = option_find(plan_stack_options, s->fitted.at[k]);
            text_printf(out, " %s: ", o->key);
            option_format(o, s, out);
            text_add(out, ",");
        }
        text_printf(out, " residual: {lo: %.3f, hi: %.3f}\n", s->residual_lo, s->residual_hi);
    }
}

static int print_result(const struct calibrate_options *o, struct plan_family *family,
                        const struct plan_fit *fit, struct arena *a)
{
    struct text out = { 0 }, ids = { 0 };
    for (i64 i = 0; i < fit->n; i++)
        text_printf(&ids, "%s%s", i ? " " : "", fit->ids[i]);
    family->provenance = arena_printf(a, "fitted on %lld rows by headway plan calibrate (mean "
                                      "|log error| %.4f, before %.4f): %s", (long long)fit->n,
                                      fit->after, fit->before, ids.data);
    plan_family_write(family, &out);
    add_stacks(fit, &out);
    int rc = put_result(o, &out, a);
    text_fini(&ids);
    text_fini(&out);
    return rc;
}

/* --- this machine --------------------------------------------------------------------- */

enum { MOST_KINDS = 16 }; /* of runs: ranks, threads, precision */

struct kind {
    struct plan_rates *rates;    /* of its runs; NULL: of none */
    struct plan_rates *measured; /* by the microbenchmark; NULL: not asked for */
};

struct here {
    struct invocation *v;
    struct own_run *runs; /* [n_args] */
    struct kind kinds[MOST_KINDS];
    int n;
};

static int read_runs(struct here *h)
{
    struct invocation *v = h->v;
    h->runs = ARENA_ARRAY(v->arena, struct own_run, v->n_args + 1);
    for (int i = 0; i < v->n_args; i++) {
        int first = 0;
        if (!sys_exists(v->args[i]))
            return err_set(ERR_USAGE, "%s is no run's folder; 'headway train' names the "
                           "one that it writes, such as runs/demo", v->args[i]);
        TRY(own_run_read(&h->runs[i], v->args[i], v->arena));
        while (!own_runs_alike(&h->runs[first], &h->runs[i]))
            first++;
        if (first < i)
            continue;
        if (h->n == MOST_KINDS)
            return err_set(ERR_LIMIT, "more than %d kinds of runs (ranks, threads, precision); "
                           "calibrate on them in turns", MOST_KINDS);
        struct plan_rates *r = ARENA_NEW(v->arena, struct plan_rates);
        *r = h->runs[i].about;
        h->kinds[h->n++].rates = r;
    }
    return OK;
}

/* Without runs: one rank on all cores, and two that share them. */
static void usual_kinds(struct here *h)
{
    int cores = sys_cpu_count();
    for (int ranks = 1; ranks <= i64_min(2, cores); ranks++) {
        struct plan_rates *r = ARENA_NEW(h->v->arena, struct plan_rates);
        *r = (struct plan_rates){ .backend = "auto", .precision = "fp32", .ranks = ranks,
                                  .threads = cores / ranks };
        h->kinds[h->n++].measured = r;
    }
}

/* --- the microbenchmark --------------------------------------------------------------- */

static void tell_progress(void *context, double fraction, const char *what)
{
    progress_update(context, fraction, what);
}

/* Levels of memory and launch floor, once measured for all threads of this machine. */
static int know_machine(struct machine *m, const char *backend, struct progress *p)
{
    struct pool *pool;
    machine_detect(m, backend, sys_cpu_count());
    if (machine_load(m) == OK && m->level[MACHINE_LEVELS - 1].read_all > 0)
        return OK;
    TRY(pool_new(&pool, sys_cpu_count(), true));
    machine_measure(m, pool, tell_progress, p);
    machine_save(m);
    pool_free(pool);
    return OK;
}

static void stamp(struct plan_rates *r, u64 began, struct arena *a)
{
    char host[64], date[32];
    time_t now = (time_t)sys_wall_seconds();
    struct tm utc;
    sys_host_name(host, sizeof host);
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    r->host = arena_strdup(a, host);
    r->date = arena_strdup(a, date);
    r->took_s = 1e-9 * (double)(sys_now_ns() - began);
}

static int measure_kind(struct here *h, struct kind *k, const struct microbench *m)
{
    u64 began = sys_now_ns();
    TRY(microbench_run(k->measured, m, h->v->arena));
    stamp(k->measured, began, h->v->arena);
    return OK;
}

static int measure(struct here *h)
{
    struct progress p;
    struct backend b;
    struct machine machine;
    TRY(backend_init(&b, h->n ? h->kinds[0].rates ? h->kinds[0].rates->backend : "auto" : "auto"));
    progress_begin(&p, h->v->terminal, "measuring");
    int rc = know_machine(&machine, b.name, &p);
    for (int i = 0; i < h->n && rc >= 0; i++) {
        struct kind *k = &h->kinds[i];
        const struct plan_rates *like = k->rates ? k->rates : k->measured;
        struct microbench m = {
            .ranks = (int)like->ranks, .threads = (int)like->threads, .backend = like->backend,
            .dtype = strcmp(like->precision, "bf16") ? DTYPE_F32 : DTYPE_BF16,
            .machine = &machine, .progress = tell_progress, .context = &p, .part = i,
            .parts = h->n,
        };
        k->measured = k->measured ? k->measured : ARENA_NEW(h->v->arena, struct plan_rates);
        rc = measure_kind(h, k, &m);
    }
    progress_end(&p, rc >= 0 ? "measured" : "failed");
    return rc;
}

/* What was measured before, from a file. */
static int take_measured(struct here *h, const char *path)
{
    for (int i = 0; i < h->n; i++) {
        const struct plan_rates *r = h->kinds[i].rates;
        h->kinds[i].measured = ARENA_NEW(h->v->arena, struct plan_rates);
        TRY(plan_rates_load_measured(h->kinds[i].measured, path, r->precision, r->threads, r->ranks,
                                     h->v->arena));
    }
    return OK;
}

/* --- both together -------------------------------------------------------------------- */

static int fit_kind(struct here *h, struct kind *k)
{
    struct invocation *v = h->v;
    const struct own_run **alike = ARENA_ARRAY(v->arena, const struct own_run *, v->n_args + 1);
    const struct own_run like = { .about = *k->rates };
    i64 n = 0;
    for (int i = 0; i < v->n_args; i++)
        if (own_runs_alike(&like, &h->runs[i]))
            alike[n++] = &h->runs[i];
    TRY(own_rates_fit(k->rates, alike, n, k->measured, v->arena));
    log_line(LOG_INFO, "%lld run%s of %lld ranks with %lld threads, the first with steps "
             "of %.4g s; tasks are fitted within %.1f %%", (long long)n,
             n == 1 ? "" : "s", (long long)k->rates->ranks, (long long)k->rates->threads,
             alike[0]->seconds, 100 * k->rates->spread);
    return OK;
}

static int write_here(struct here *h)
{
    const struct plan_rates *runs[MOST_KINDS], *measured[MOST_KINDS];
    struct text out = { 0 };
    i64 n_runs = 0, n_measured = 0;
    for (int i = 0; i < h->n; i++) {
        if (h->kinds[i].rates)
            runs[n_runs++] = h->kinds[i].rates;
        if (h->kinds[i].measured)
            measured[n_measured++] = h->kinds[i].measured;
    }
    plan_rates_write(runs, n_runs, measured, n_measured, &out);
    int rc = put_result(h->v->options, &out, h->v->arena);
    text_fini(&out);
    return rc;
}

static int calibrate_here(struct invocation *v)
{
    const struct calibrate_options *o = v->options;
    struct here h = { .v = v };
    TRY(read_runs(&h));
    if (v->n_args == 0)
        usual_kinds(&h);
    if (o->measured)
        TRY(take_measured(&h, o->measured));
    else if (o->measure)
        TRY(measure(&h));
    for (int i = 0; i < h.n; i++)
        if (h.kinds[i].rates)
            TRY(fit_kind(&h, &h.kinds[i]));
    return write_here(&h);
}

static int calibrate_family(struct invocation *v)
{
    const struct calibrate_options *o = v->options;
    const struct plan_rows *sets[MOST_SETS];
    i64 shares[MOST_SETS];
    struct plan_family *family = ARENA_NEW(v->arena, struct plan_family);
    struct plan_world *w;
    struct plan_fit fit;
    TRY(plan_world_new(&w, v->arena));
    TRY(plan_family_load(family, o->family, v->arena));
    TRY(read_sets(v, sets, shares));
    struct plan_fit_choice choice = { sets, o->rows.count, o->most, shares, o->devices,
                                      o->constants, true };
    TRY(plan_fit_family(family, &fit, &choice, w, v->arena));
    return print_result(o, family, &fit, v->arena);
}

static int run(struct invocation *v)
{
    const struct calibrate_options *o = v->options;
    if (v->n_args == 0 && o->rows.count > 0)
        return calibrate_family(v);
    if (v->n_args == 0 && (!o->measure || o->measured))
        return err_set(ERR_USAGE, "nothing to calibrate on: name run folders, or tables "
                       "with --rows, or leave %s out to measure this machine",
                       o->measured ? "--measured" : "--no-measure");
    if (v->n_args > 0 && o->rows.count > 0)
        return err_set(ERR_USAGE, "run folders and --rows are two calibrations; ask for "
                       "one at a time");
    return calibrate_here(v);
}

static const struct example examples[] = {
    { "headway plan calibrate --out here.yaml",
      "What ops take on this machine, measured in half a minute." },
    { "headway plan calibrate runs/one runs/two --out here.yaml",
      "The same, with what two recorded runs say." },
    { "headway plan calibrate --family a100 --rows vtrain_single,vtrain_multi",
      "What machines/calibration/a100.yaml holds." },
    { 0 },
};

const struct command cmd_plan_calibrate = {
    .name = "calibrate",
    .summary = "What devices do, measured here, from recorded runs, or from published step times",
    .arguments = "[RUN...]",
    .description = "For every op the seconds per FLOP, per byte and per task, and the "
                   "same of exchanges, for headway plan predict. A microbenchmark takes "
                   "steps of small made-up models on as many ranks and threads as the "
                   "runs had (without runs: one rank, and two), and so meets each op at "
                   "many sizes. Recorded runs say how long the same takes in training. "
                   "Several runs of as many ranks and threads count together. The file "
                   "says where, when and how often each was measured, and how far "
                   "repetitions were apart.\n\n"
                   "With --rows: takes at most 30 rows at even distances from the "
                   "tables, and moves the constants so that predicted step times come "
                   "close to theirs. Prints the family's file. The same rows give the "
                   "same constants. The interval is that of rows left out of the fit, "
                   "each in turn, which takes a minute.",
    .options = calibrate_table,
    .options_bytes = sizeof(struct calibrate_options),
    .max_args = -1,
    .examples = examples,
    .run = run,
};
