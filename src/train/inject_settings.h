/* train/inject_settings.h - what run.inject asks for that is a setting of the recipe.
 *
 * A fault such as recompute=full is the setting train.recompute=full: it is made where the recipe
 * is, before anything is built from it, and stands in the run's manifest like any other. */
#ifndef HEADWAY_INJECT_SETTINGS_H
#define HEADWAY_INJECT_SETTINGS_H

#include "base/inject.h"
#include "parallel/layout.h"
#include "train/rank_view.h"
#include "train/train_config.h"

/* Adds faults (as texts, NULL-terminated or none) to run.inject, and sets the keys that its faults
 * stand for. Of those in the recipe's file a key that the command line sets goes before: what mends
 * a run that was spoilt is tried on its own recipe. config and layout are what the recipe is bound
 * to. *backend changes with isa=. */
int inject_settings(struct recipe *r, const struct train_config *config,
                    const struct layout *layout, const struct option_strings *more,
                    const char **backend);

/* ERR_CONFIG where a fault is about an op that there is not: it would disturb nothing. */
int inject_check_ops(const struct inject *x);
/* Whether any fault is about an op. */
bool inject_has_ops(const struct inject *x);
/* ERR_CONFIG where one is about an op that no task has of the ranks that it is meant for: it would
 * disturb nothing either. views[i]: a rank with coordinate i along pp. */
int inject_check_program(const struct inject *x, const struct layout *l,
                         const struct rank_view *const *views);

#endif
