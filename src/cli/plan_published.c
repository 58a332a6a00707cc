/* Whole runs that somebody published, beside what their hours mean here. */
#include "base/err.h"
#include "base/json.h"
#include "cli/command.h"
#include "plan/published.h"

#include <stdio.h>

struct published_flags {
    bool json;
};

static const struct option options[] = {
    { "json", OPTION_FIELD(BOOL, struct published_flags, json), "no", .help = "Print JSON." },
    { 0 },
};

static void print_value(double value)
{
    if (value > 0)
        printf(" %8.4g", value);
    else
        printf("        -");
}

static void print_band(const struct plan_band *b, int width)
{
    char text[40];
    snprintf(text, sizeof text, "%.3g (%.3g to %.3g)", b->mid, b->lo, b->hi);
    printf("  %-*s", width, text);
}

static void print_run(const struct published_run *r)
{
    printf("%-16s %-15s %9.4g %5.1f", r->name, r->device.device.name, r->device_hours,
           100 * r->mfu);
    print_value(r->mwh);
    printf(" %8.4g", r->bill.peak_mwh);
    print_band(&r->bill.mwh, 30);
    print_value(r->tco2e);
    print_band(&r->bill.tco2e, 0);
    printf("\n");
}

static void put_known(struct json *j, const char *key, double value)
{
    json_key(j, key);
    if (value > 0)
        json_double(j, value);
    else
        json_nothing(j);
}

static void put_run(struct json *j, const struct published_run *r)
{
    json_begin_object(j);
    json_put_str(j, "name", r->name);
    json_put_str(j, "device", r->device.device.name);
    json_put_double(j, "device_hours", r->device_hours);
    json_put_double(j, "mfu_6nd", r->mfu);
    put_known(j, "published_mwh", r->mwh);
    put_known(j, "published_tco2e", r->tco2e);
    json_put_str(j, "source", r->source);
    json_key(j, "bill");
    plan_bill_json(&r->bill, j);
    json_end(j);
}

static int run(struct invocation *v)
{
    const struct published_flags *f = v->options;
    struct published_run *runs;
    struct json j;
    i64 n;
    TRY(published_runs(&runs, &n, v->arena));
    if (!f->json) {
        printf("                                   device   MFU   MWh of devices at   MWh of all, "
               "here                tCO2e    tCO2e, here\nrun              device             "
               "hours   6ND  publ'd     peak    (from to)                        publ'd    (from "
               "to)\n");
        for (i64 i = 0; i < n; i++)
            print_run(&runs[i]);
        printf("\nMFU: 6 x parameters x tokens over the hours and the dense peak of 16 bits, "
               "restarts and all. Gas: mean of the\nplace's grid; what model cards print often "
               "rests on "
               "devices at their peak power and on another factor.\n");
        return OK;
    }
    json_writer_init(&j);
    j.indent = true;
    json_begin_array(&j);
    for (i64 i = 0; i < n; i++)
        put_run(&j, &runs[i]);
    json_end(&j);
    printf("%s\n", j.out.data);
    json_writer_fini(&j);
    return OK;
}

static const struct example examples[] = {
    { "headway plan published", "GPT-3, BLOOM, Llama, DeepSeek-V3: hours, MFU, energy, gas." },
    { "headway plan published --json", "The same with every source, as JSON." },
    { 0 },
};

const struct command cmd_plan_published = {
    .name = "published",
    .summary = "Show published runs beside what their hours mean here",
    .description = "Rows of facts/published_runs.csv: the utilisation that device-hours imply, and "
                   "the energy and greenhouse gas that 'headway plan run' would say of them, "
                   "beside what was published.",
    .options = options,
    .options_bytes = sizeof(struct published_flags),
    .examples = examples,
    .run = run,
};
