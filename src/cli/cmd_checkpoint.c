/* Looks at checkpoints: which there are, whether every byte is right, parameters as a file. */
#include "base/err.h"
#include "base/sys.h"
#include "cli/command.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"

#include <stdio.h>
#include <time.h>

enum { PATH_BYTES = 4096 };

/* --- list ------------------------------------------------------------------------ */

static void print_entry(const struct checkpoint_entry *e)
{
    char saved[32] = "-";
    time_t seconds = (time_t)e->saved_at;
    struct tm t;
    if (e->valid && localtime_r(&seconds, &t))
        strftime(saved, sizeof saved, "%Y-%m-%d %H:%M:%S", &t);
    printf("%12lld  %-19s  %10.1f MB  %s\n", (long long)e->step, saved, 1e-6 * (double)e->bytes,
           e->valid ? "whole" : "damaged");
}

/* When the run of these checkpoints began, and each time that it went on. */
static int print_starts(const char *dir)
{
    char folder[PATH_BYTES + 4];
    json_t *starts, *row;
    size_t i;
    snprintf(folder, sizeof folder, "%s/..", dir);
    int rc = run_folder_starts(folder, &starts);
    json_array_foreach(starts, i, row) {
        char when[32] = "-";
        time_t seconds = (time_t)json_number_value(json_object_get(row, "started"));
        struct tm t;
        if (localtime_r(&seconds, &t))
            strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &t);
        printf("%s %s at step %lld\n", i ? "went on" : "begun  ", when,
               (long long)json_integer_value(json_object_get(row, "from_step")));
    }
    json_decref(starts);
    return rc;
}

static int run_list(struct invocation *v)
{
    char dir[PATH_BYTES];
    struct checkpoint_entry *entries;
    i64 step;
    TRY(checkpoint_find(v->args[0], dir, sizeof dir, &step));
    int n = checkpoint_list(dir, &entries);
    TRY(n);
    if (n == 0)
        printf("%s has no checkpoint\n", dir);
    else
        printf("%12s  %-19s  %13s  %s\n", "step", "saved", "size", "files");
    for (int i = 0; i < n; i++)
        if (step < 0 || entries[i].step == step)
            print_entry(&entries[i]);
    sys_free(entries);
    return print_starts(dir);
}

static const struct command cmd_list = {
    .name = "list",
    .summary = "List the checkpoints of a run, and its starts",
    .arguments = "DIR",
    .description = "DIR is a run folder, its folder of checkpoints, or one step's folder. "
                   "\"whole\" means that the manifest is right and the files have its sizes; "
                   "`headway checkpoint verify` reads every byte.",
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway checkpoint list runs/tiny", "The checkpoints of the run tiny." }, { 0 } },
    .run = run_list,
};

/* --- verify ---------------------------------------------------------------------- */

static void print_finding(void *context, i64 step, const char *file, i64 chunk,
                          const char *problem)
{
    (void)context;
    printf("step-%lld/%s: ", (long long)step, file);
    if (chunk >= 0)
        printf("chunk %lld: ", (long long)chunk);
    printf("%s\n", problem);
}

/* Step by step, so that a long check shows that it moves on. */
static int verify_all(const char *dir, i64 only, const struct checkpoint_entry *entries, int n,
                      int *checked, int *findings)
{
    for (int i = 0; i < n; i++) {
        if (only >= 0 && entries[i].step != only)
            continue;
        int found = checkpoint_verify(dir, entries[i].step, print_finding, NULL);
        TRY(found);
        if (found == 0)
            printf("step-%lld: every byte is right\n", (long long)entries[i].step);
        fflush(stdout);
        *checked += 1;
        *findings += found;
    }
    return OK;
}

static int run_verify(struct invocation *v)
{
    char dir[PATH_BYTES];
    struct checkpoint_entry *entries;
    i64 step;
    int checked = 0, findings = 0;
    TRY(checkpoint_find(v->args[0], dir, sizeof dir, &step));
    int n = checkpoint_list(dir, &entries);
    TRY(n);
    int rc = verify_all(dir, step, entries, n, &checked, &findings);
    sys_free(entries);
    TRY(rc);
    if (checked == 0)
        return err_set(ERR_USAGE, "%s has no checkpoint", dir);
    if (findings > 0)
        return err_set(ERR_FORMAT, "damaged places: %d, in %d checkpoints of %s", findings, checked,
                       dir);
    return OK;
}

static const struct command cmd_verify = {
    .name = "verify",
    .summary = "Read every byte of checkpoints and name what is damaged",
    .arguments = "DIR",
    .description = "Compares every file with its manifest: size, CRC32C of each MiB, SHA-256. "
                   "Damage is printed with file and chunk, and the exit code is then 1. DIR is "
                   "a run folder, its folder of checkpoints, or one step's folder.",
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway checkpoint verify runs/tiny", "All checkpoints of the run tiny." },
            { "headway checkpoint verify runs/tiny/checkpoints/step-1200", "One of them." },
            { 0 } },
    .run = run_verify,
};

/* --- export ---------------------------------------------------------------------- */

struct export_options {
    const char *out;
    bool overwrite;
};

static const struct option export_options[] = {
    { "out", OPTION_FIELD(PATH, struct export_options, out), "model.safetensors",
      .help = "The file to write." },
    { "overwrite", OPTION_FIELD(BOOL, struct export_options, overwrite), "no",
      .help = "Replace a file that is there already." },
    { 0 },
};

static int run_export(struct invocation *v)
{
    const struct export_options *o = v->options;
    char dir[PATH_BYTES];
    i64 step;
    if (!o->overwrite && sys_exists(o->out))
        return err_set(ERR_USAGE, "%s is there already; choose another --out, or replace it with "
                       "--overwrite", o->out);
    TRY(checkpoint_find(v->args[0], dir, sizeof dir, &step));
    if (step < 0) {
        TRY(checkpoint_newest(dir, &step));
        if (step < 0)
            return err_set(ERR_USAGE, "%s has no checkpoint", dir);
    }
    TRY(checkpoint_export(dir, step, o->out));
    printf("wrote the parameters of step %lld to %s\n", (long long)step, o->out);
    return OK;
}

static const struct command cmd_export = {
    .name = "export",
    .summary = "Write a checkpoint's parameters as one safetensors file",
    .arguments = "DIR",
    .description = "Takes the newest checkpoint, or the one whose step folder is named, proves "
                   "every byte of it, and writes the parameters under the names that they have "
                   "here. For a folder that Hugging Face loads, see headway model export.",
    .options = export_options,
    .options_bytes = sizeof(struct export_options),
    .min_args = 1,
    .max_args = 1,
    .examples =
        (const struct example[]){
            { "headway checkpoint export runs/tiny --out tiny.safetensors",
              "The parameters of the newest checkpoint." },
            { 0 } },
    .run = run_export,
};

const struct command cmd_checkpoint = {
    .name = "checkpoint",
    .summary = "List, verify and export checkpoints",
    .description = "Checkpoints lie in the run folder, one folder per step. A folder that is "
                   "named step-N is whole, whenever the machine stopped.",
    .examples =
        (const struct example[]){
            { "headway checkpoint list runs/tiny", "The checkpoints of the run tiny." }, { 0 } },
    .subcommands = (const struct command *const[]){ &cmd_list, &cmd_verify, &cmd_export, NULL },
};
