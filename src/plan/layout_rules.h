/* plan/layout_rules.h - what layouts cannot exist for a job, and how many rules one breaks.
 *
 * Degrees against devices, batch, layers, heads, tokens and experts. Texts are constant. Pure. */
#ifndef HEADWAY_PLAN_LAYOUT_RULES_H
#define HEADWAY_PLAN_LAYOUT_RULES_H

#include "plan/cost.h"

/* How many; *first becomes the first of them, and stays as it is where there is none. */
i64 plan_layout_faults(const struct plan_job *job, const struct plan_layout *l, const char **first);

#endif
