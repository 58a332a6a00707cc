/* cli/plan_terms.h - flags that say under which terms a run takes place, and its tables. */
#ifndef HEADWAY_CLI_PLAN_TERMS_H
#define HEADWAY_CLI_PLAN_TERMS_H

#include "cli/plan_job.h"
#include "plan/outcome.h"

struct plan_run_flags {
    struct plan_flags plan;
    const char *law, *price, *location;
    double pue, g_per_kwh;
};

/* Rows of a struct that begins with these; PLAN_FLAGS included. */
#define PLAN_RUN_FLAG(kind, field) OPTION_FIELD(kind, struct plan_run_flags, field)
#define PLAN_RUN_FLAGS PLAN_RUN_FLAGS_WITH(PLAN_DEVICES)
#define PLAN_RUN_FLAGS_WITH(...)                                                                \
    PLAN_FLAGS_WITH(__VA_ARGS__),                                                               \
    { "law", PLAN_RUN_FLAG(STRING, law), "llama3",                                              \
      .help = "Failures, as 'headway plan goodput' takes them; none: nothing fails." },         \
    { "price", PLAN_RUN_FLAG(STRING, price), NULL,                                              \
      .help = "What a device costs in an hour, such as 4.2USD/h; there is no list of prices." }, \
    { "location", PLAN_RUN_FLAG(STRING, location), NULL,                                        \
      .help = "Where the electricity comes from: FRA, France, gcp:REGION, us:STATE, SE1." },    \
    { "carbon_g_per_kwh", PLAN_RUN_FLAG(FLOAT, g_per_kwh), "0", .unit = "g/kWh", .max = 5000,   \
      .help = "Grams of CO2e per kWh, above any table; 0: by location." },                      \
    { "pue", PLAN_RUN_FLAG(FLOAT, pue), "0", .max = 10,                                         \
      .help = "Power of the building over that of its machines; 0: 1.2, from 1.08 to 1.56." }

struct planned_run {
    struct planned_job p;
    struct failure_law law;
    struct plan_terms terms;
};

int plan_run_open(struct planned_run *out, const struct plan_run_flags *flags, struct arena *a);

/* "12.3 (11.5-13.2)", or "-" for a band that is not known. */
void plan_band_print(const struct plan_band *b, double scale, int width);

/* Everything of a layout and its run, as an object. */
void plan_found_json(struct json *j, const struct planned_run *x, const struct plan_found *f,
                     const struct plan_outcome *o, struct arena *a);

/* Under a table: what its numbers mean and what was assumed, of the first of its layouts. */
void plan_notes_print(const struct planned_run *x, const struct plan_found *f,
                      const struct plan_outcome *o);

#endif
