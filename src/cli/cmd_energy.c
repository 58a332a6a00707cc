/* What a run took, from its ledger. */
#include "base/err.h"
#include "base/log.h"
#include "base/sys.h"
#include "cli/command.h"
#include "report/energy_report.h"
#include "train/run_folder.h"

#include <stdio.h>
#include <string.h>

enum { MANIFEST_BYTES = 1 << 24 };

struct energy_flags {
    const char *location, *codecarbon, *card, *cyclonedx;
    double carbon, pue;
};

static const struct option options[] = {
    { "location", OPTION_FIELD(STRING, struct energy_flags, location), NULL,
      .help = "Where the electricity came from, instead of what the run says: FRA, France, "
              "gcp:REGION, us:STATE, SE1." },
    { "carbon_g_per_kwh", OPTION_FIELD(FLOAT, struct energy_flags, carbon), "0",
      .unit = "g/kWh", .max = 5000, .help = "Grams of CO2e per kWh, above any table; 0: not." },
    { "pue", OPTION_FIELD(FLOAT, struct energy_flags, pue), "0", .max = 10,
      .help = "Power of the building over that of its machines (from 1); 0: as the run says." },
    { "codecarbon", OPTION_FIELD(PATH, struct energy_flags, codecarbon), NULL,
      .help = "Also write this emissions.csv, as codecarbon would (kWh, kg)." },
    { "card", OPTION_FIELD(PATH, struct energy_flags, card), NULL,
      .help = "Also write this model card's co2_eq_emissions, as Hugging Face reads it (g)." },
    { "cyclonedx", OPTION_FIELD(PATH, struct energy_flags, cyclonedx), NULL,
      .help = "Also write this CycloneDX 1.6 bill of materials with the training's energy (kWh, "
              "t)." },
    { 0 },
};

/* --- reading ------------------------------------------------------------------------ */

static int apply_flags(struct energy_ledger *l, const struct energy_flags *f)
{
    if (f->pue > 0 && f->pue < 1)
        return err_set(ERR_USAGE, "--pue %g: a building takes no less than its machines", f->pue);
    if (f->pue > 0)
        l->pue = f->pue;
    if (f->location || f->carbon > 0)
        return carbon_choose(f->location, f->carbon, &l->carbon);
    return OK;
}

static const char *text_in(const json_t *o, const char *key, struct arena *a)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? arena_strdup(a, text) : NULL;
}

/* The folder's last part, and what the manifest says of the model. */
static int read_run(struct energy_run *run, const char *folder, struct arena *a)
{
    json_t *manifest;
    const char *whole = arena_printf(a, "%s/.", folder);
    const char *path = arena_printf(a, "%s/manifest.json", folder);
    if (!sys_exists(path))
        return err_set(ERR_CONFIG, "%s is no run folder, or its run ended before it began: it has "
                       "no manifest.json; give the one whose path `headway train` prints", folder);
    TRY(json_load(path, MANIFEST_BYTES, &manifest));
    i64 end = (i64)strlen(whole) - 2;
    while (end > 1 && whole[end - 1] == '/')
        end--;
    i64 begin = end;
    while (begin > 0 && whole[begin - 1] != '/')
        begin--;
    run->name = arena_strndup(a, whole + begin, end - begin);
    run->model = text_in(json_object_get(manifest, "model"), "name", a);
    const json_t *config = json_object_get(manifest, "config");
    run->tuned = text_in(json_object_get(config, "model"), "from", a) != NULL;
    json_decref(manifest);
    return run->model ? OK : err_set(ERR_FORMAT, "%s/manifest.json names no model", folder);
}

/* --- writing ------------------------------------------------------------------------ */

typedef void (*report_fn)(const struct energy_ledger *l, const struct energy_run *run,
                          struct text *out);

static int write_report(const char *path, report_fn report, const struct energy_ledger *l,
                        const struct energy_run *run)
{
    struct text out = { 0 };
    if (!path)
        return OK;
    report(l, run, &out);
    int rc = file_replace(path, out.data, out.length);
    text_fini(&out);
    return rc;
}

static int run(struct invocation *v)
{
    const struct energy_flags *f = v->options;
    struct energy_ledger ledger;
    struct energy_run about;
    struct text out = { 0 };
    const bool files = f->codecarbon || f->card || f->cyclonedx; /* which name the model */
    const char *path = arena_printf(v->arena, "%s/energy.json", v->args[0]);
    const int rc = read_run(&about, v->args[0], v->arena);
    if (rc < 0 && (files || !sys_exists(path)))
        return rc;
    if (rc < 0)
        log_line(LOG_WARN, "%s", err_message());
    if (!sys_exists(path))
        return err_set(ERR_FORMAT, "%s has no energy.json: nothing was counted, because the run "
                       "ended before its first step, or was simulated", v->args[0]);
    TRY(energy_ledger_read(&ledger, path));
    TRY(apply_flags(&ledger, f));
    TRY(write_report(f->codecarbon, energy_report_csv, &ledger, &about));
    TRY(write_report(f->card, energy_report_card, &ledger, &about));
    TRY(write_report(f->cyclonedx, energy_report_cyclonedx, &ledger, &about));
    energy_report_text(&ledger, &out);
    fputs(out.data, stdout);
    text_fini(&out);
    return OK;
}

static const struct example examples[] = {
    { "headway energy runs/tiny", "What the run tiny has taken so far, and how that is known." },
    { "headway energy runs/tiny --location FRA --pue 1.2",
      "The greenhouse gas of the same run in a French data centre." },
    { "headway energy runs/tiny --codecarbon emissions.csv --card co2.md --cyclonedx bom.json",
      "The same in three formats that others read." },
    { 0 },
};

const struct command cmd_energy = {
    .name = "energy",
    .summary = "Say what energy a run took, and how that is known",
    .arguments = "RUN",
    .description = "RUN is a run folder; its energy.json is the ledger that training keeps. "
                   "Energy is counted where the machine counts it (powercap), else modelled from "
                   "the processor's TDP and the time it was busy; the interval, 90 %, says how far "
                   "that may be off, and the method and what it is about stand beside it.\n\n"
                   "Greenhouse gas is energy x PUE x the grid's factor, whose place, year and "
                   "source are printed. Offsets are never subtracted.",
    .options = options,
    .options_bytes = sizeof(struct energy_flags),
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
