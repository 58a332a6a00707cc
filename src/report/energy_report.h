/* report/energy_report.h - a run's energy ledger, for people and in three foreign formats.
 *
 * Their units differ: emissions.csv of codecarbon has kWh and kilograms, a Hugging Face card
 * grams, CycloneDX 1.6 kWh and tonnes. */
#ifndef HEADWAY_ENERGY_REPORT_H
#define HEADWAY_ENERGY_REPORT_H

#include "base/text.h"
#include "machine/energy_ledger.h"

struct energy_run {
    const char *name, *model; /* of the run folder; of the model specification */
    bool tuned;               /* from weights that were there before */
};

/* Some lines; numbers of the estimate in two digits, each with its interval. */
void energy_report_text(const struct energy_ledger *l, struct text *out);

/* A header and one row of codecarbon's 38 columns; what is not known stays empty. */
void energy_report_csv(const struct energy_ledger *l, const struct energy_run *run,
                       struct text *out);
/* co2_eq_emissions between the fences of a model card's YAML. */
void energy_report_card(const struct energy_ledger *l, const struct energy_run *run,
                        struct text *out);
/* A bill of materials with one model and what its training took. */
void energy_report_cyclonedx(const struct energy_ledger *l, const struct energy_run *run,
                             struct text *out);

#endif
