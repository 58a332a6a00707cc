/* train/train_layout.h - does a layout fit a run, and which of those that do is best?
 *
 * To choose, every layout of pp x dp x tp with every stage of zero is checked, and of cp
 * where rows are long or nothing else fits; its ranks' steps are built (rank_view), and
 * what they hold, compute and send is priced: the one with the shortest step among those
 * that fit into memory is taken. Prices are rough and the same on every machine of a
 * kind: work at the rate given, messages at the rate given, those along dp mostly hidden
 * behind the backward pass, a pipeline's idle time from its schedule. */
#ifndef HEADWAY_TRAIN_LAYOUT_H
#define HEADWAY_TRAIN_LAYOUT_H

#include "base/text.h"
#include "train/rank_view.h"

struct layout_budget {
    i64 ranks;
    i64 memory_bytes;       /* of one rank */
    double flops_per_s;     /* of one rank */
    double bytes_per_s;     /* that one rank sends */
};

/* What is assumed before anything is measured: only the ratio matters, and only roughly. */
struct layout_budget layout_budget_usual(i64 ranks, i64 memory_bytes);

/* layout_check for every batch and length that the run's ramps go through, and what the
 * recipe's other settings cannot do with it. */
int train_layout_check(const struct layout *l, const struct model_spec *s,
                       const struct train_config *c, i64 ranks);

/* base: what the recipe asks for besides the degrees of pp, dp and tp (exact, schedule;
 * cp where it is not 1). *why gets a sentence. */
int train_layout_choose(struct layout *out, const struct layout *base,
                        const struct model_spec *s, const struct train_config *c,
                        const struct layout_budget *budget, struct text *why);

#endif
