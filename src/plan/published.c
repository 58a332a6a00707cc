#include "plan/published.h"

#include "base/csv.h"
#include "base/err.h"
#include "plan/plan_files.h"

#include <stdlib.h>

static double number(const struct csv *t, i64 row, const char *column)
{
    return strtod(csv_cell(t, row, csv_column(t, column)), NULL);
}

static int read_run(const struct csv *t, i64 row, struct published_run *r, struct arena *a)
{
    const char *place = csv_cell(t, row, csv_column(t, "location"));
    *r = (struct published_run){
        .name = csv_cell(t, row, csv_column(t, "name")),
        .source = csv_cell(t, row, csv_column(t, "source")),
        .active = number(t, row, "active_parameters"), .tokens = number(t, row, "tokens"),
        .device_hours = number(t, row, "device_hours"), .mwh = number(t, row, "mwh"),
        .tco2e = number(t, row, "tco2e"),
    };
    if (r->active <= 0 || r->tokens <= 0 || r->device_hours <= 0)
        return err_set(ERR_FORMAT, "%s:%lld: a run needs active_parameters, tokens and "
                       "device_hours", t->file, (long long)t->lines[row]);
    TRY(plan_machine_load(&r->device, csv_cell(t, row, csv_column(t, "device")), a));
    double seconds = r->device_hours * 3600;
    int half = plan_half_dtype(&r->device.device);
    r->mfu = 6 * r->active * r->tokens / seconds / r->device.device.peak[half];
    struct plan_use use = {
        .devices = 1, .seconds = seconds, .location = *place ? place : NULL,
        .busy = plan_busy_of_mfu(&r->device.device, half, r->mfu),
    };
    return plan_bill_of(&r->device, &use, &r->bill);
}

int published_runs(struct published_run **runs, i64 *n, struct arena *a)
{
    char path[4096];
    struct csv t;
    TRY(plan_file_find(path, sizeof path, "facts", "published_runs.csv"));
    TRY(csv_load(path, a, &t));
    *runs = ARENA_ARRAY(a, struct published_run, t.n_rows);
    *n = t.n_rows;
    for (i64 row = 0; row < t.n_rows; row++)
        TRY(read_run(&t, row, &(*runs)[row], a));
    return OK;
}
