/* tune/tune_report.h - what tuning found: for people, for machines, and as a recipe. */
#ifndef HEADWAY_TUNE_REPORT_H
#define HEADWAY_TUNE_REPORT_H

#include "base/json.h"
#include "tune/tune.h"

void tune_text(const struct tune_outcome *o, enum tune_objective objective, struct text *out);
/* recipe: where the winner was written, and diff, what changed there; NULL: it was not. */
void tune_json(const struct tune_outcome *o, enum tune_objective objective, const char *recipe,
               const char *diff, struct json *j);

/* The winner's settings, each with what it was and where that was set, as lines of a diff. */
void tune_diff(const struct tune_change *c, const struct train_recipe *before, struct text *out);

/* The whole recipe with the winner's settings, below a comment that says what changed.
 * before: as it was read; after: with the change. */
void tune_recipe_yaml(const struct tune_outcome *o, enum tune_objective objective,
                      const struct train_recipe *before, const struct train_recipe *after,
                      const char *path, struct text *out);

#endif
