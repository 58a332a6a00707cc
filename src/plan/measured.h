/* plan/measured.h - published step times: rows of a table, as jobs and layouts.
 *
 * facts/measured/ has one schema for all sets (facts/README.md). A row names a model's shape, a
 * device, degrees, a framework, and what was measured. Where it does not determine a layout, the
 * first field that is missing is said, and it is counted instead of priced. */
#ifndef HEADWAY_PLAN_MEASURED_H
#define HEADWAY_PLAN_MEASURED_H

#include "base/csv.h"
#include "plan/cost.h"

enum row_status { ROW_RAN, ROW_OUT_OF_MEMORY, ROW_CRASHED };

struct plan_row {
    const char *id, *model, *gpu, *framework, *precision;
    const char *missing;       /* NULL: the row determines a layout */
    struct model_spec spec;
    struct plan_layout layout;
    i64 devices, sequence, batch;
    i64 node_ranks;
    i64 year;                  /* of the software: what the framework says, or when it was published;
                                * 0: neither */
    int dtype;                 /* enum plan_dtype */
    double link_bytes_per_s, net_bytes_per_s; /* one way, of one device; 0: not given */
    double seconds;            /* of a step, measured; 0: not given */
    double memory_bytes;       /* that it reported; 0: not given */
    double mfu;                /* percent, as published; 0: not given */
    int status;                /* enum row_status */
    bool any_micro_batch;      /* missing is the micro-batch alone: layout has 1 */
    bool frozen;               /* its notes say that only adapters learned (LoRA) */
    bool any_recompute;        /* its notes say that nobody said what is computed again: layout has none */
};

struct plan_rows {
    const char *name; /* of the set: the file's, without folder and ending */
    struct plan_row *rows;
    i64 n;
};

/* The path of a set of facts/measured. */
int plan_set_path(const char *set, const char **path, struct arena *a);

/* ERR_FORMAT with file and line where a number does not parse; names a column that is missing. */
int plan_rows_load(struct plan_rows *out, const char *path, struct arena *a);
int plan_rows_of(struct plan_rows *out, const struct csv *t, struct arena *a);

#endif
