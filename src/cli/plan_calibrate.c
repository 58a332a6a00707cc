/* What devices do, from step times: those that others published, or our own recorded runs. */
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/yaml.h"
#include "cli/command.h"
#include "diagnose/own_rates.h"
#include "plan/fit.h"
#include "plan/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct calibrate_options {
    struct option_strings rows, constants;
    const char *family, *out;
    i64 most, devices;
    bool json;
};

static const struct option calibrate_table[] = {
    { "rows", OPTION_FIELD(STRINGS, struct calibrate_options, rows), NULL,
      .help = "Tables of measurements: files, or sets of facts/measured." },
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
    { "json", OPTION_FIELD(BOOL, struct calibrate_options, json), "no",
      .help = "JSON, not YAML." },
    { 0 },
};

enum { MOST_SETS = 16 };

static int read_sets(struct invocation *v, const struct plan_rows **sets)
{
    const struct calibrate_options *o = v->options;
    if (o->rows.count == 0 || o->rows.count > MOST_SETS)
        return err_set(ERR_USAGE, "--rows names the tables, at most %d of them", MOST_SETS);
    for (i64 i = 0; i < o->rows.count; i++) {
        struct plan_rows *rows = ARENA_NEW(v->arena, struct plan_rows);
        const char *path = o->rows.at[i];
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
    int fd = sys_open(o->out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool whole = fd >= 0 && sys_write_full(fd, bytes, n) == 0;
    int cause = errno;
    if (fd >= 0 && sys_close(fd) != 0 && whole) {
        whole = false;
        cause = errno;
    }
    return whole ? OK : err_set(ERR_SYS, "cannot write %s: %s", o->out, strerror(cause));
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
    int rc = put_result(o, &out, a);
    text_fini(&ids);
    text_fini(&out);
    return rc;
}

/* --- our own runs --------------------------------------------------------------------- */

static int calibrate_runs(struct invocation *v)
{
    const struct plan_rates **sets = ARENA_ARRAY(v->arena, const struct plan_rates *, v->n_args);
    struct text out = { 0 };
    for (int i = 0; i < v->n_args; i++) {
        struct plan_rates *r = ARENA_NEW(v->arena, struct plan_rates);
        double seconds;
        TRY(own_rates_read(r, v->args[i], &seconds, v->arena));
        sets[i] = r;
        log_line(LOG_INFO, "%s: steps of %.4g s, %lld ranks with %lld threads; tasks are fitted within "
                 "%.1f %%", v->args[i], seconds, (long long)r->ranks, (long long)r->threads,
                100 * r->spread);
    }
    plan_rates_write(sets, v->n_args, &out);
    int rc = put_result(v->options, &out, v->arena);
    text_fini(&out);
    return rc;
}

static int calibrate_family(struct invocation *v)
{
    const struct calibrate_options *o = v->options;
    const struct plan_rows *sets[MOST_SETS];
    struct plan_family *family = ARENA_NEW(v->arena, struct plan_family);
    struct plan_world *w;
    struct plan_fit fit;
    TRY(plan_world_new(&w, v->arena));
    TRY(plan_family_load(family, o->family, v->arena));
    TRY(read_sets(v, sets));
    struct plan_fit_choice choice = { sets, o->rows.count, o->most, o->devices, o->constants,
                                     true };
    TRY(plan_fit_family(family, &fit, &choice, w, v->arena));
    return print_result(o, family, &fit, v->arena);
}

static int run(struct invocation *v)
{
    return v->n_args > 0 ? calibrate_runs(v) : calibrate_family(v);
}

static const struct example examples[] = {
    { "headway plan calibrate runs/one runs/two > here.yaml",
      "What ops take on this machine, from two recorded runs." },
    { "headway plan calibrate --family a100 --rows vtrain_single,vtrain_multi",
      "What machines/calibration/a100.yaml holds." },
    { 0 },
};

const struct command cmd_plan_calibrate = {
    .name = "calibrate",
    .summary = "What devices do, from recorded runs or published step times",
    .arguments = "[RUN...]",
    .description = "With run folders: for every op the seconds per FLOP, per byte and per task, and "
                   "the same of exchanges, from the recorded spans. headway plan predict uses them. "
                   "Record a run with as many ranks and threads as those that are to be "
                   "predicted.\n\n"
                   "Without: takes at most 30 rows at even distances from the tables, and moves the constants "
                   "so that predicted step times come close to theirs. Prints the family's file. The "
                   "same rows give the same constants. The interval is that of rows left out of the "
                   "fit, each in turn, which takes a minute.",
    .options = calibrate_table,
    .options_bytes = sizeof(struct calibrate_options),
    .max_args = -1,
    .examples = examples,
    .run = run,
};
