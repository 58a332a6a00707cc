/* tune/knob.h - what can be turned so that the same training takes less time.
 *
 * A knob is one row: what it is, which findings of a diagnosis speak for it, and the
 * changes that it proposes for a recipe. All of them leave alone what is trained: the
 * rows of a step, the model, the optimizer. Two may change numbers beyond the order of
 * sums: precision is marked, so that its loss is looked at. Whether a change is possible
 * at all (memory, shapes) is not asked here. */
#ifndef HEADWAY_TUNE_KNOB_H
#define HEADWAY_TUNE_KNOB_H

#include "train/train_recipe.h"
#include "tune/timing.h"

enum { CHANGES_MOST = 64 };

struct plan_rates;

struct change_list {
    struct tune_change at[CHANGES_MOST];
    int n;
    struct arena *arena;
};

/* What a proposal looks at. */
struct knob_view {
    const struct train_recipe *recipe;
    i64 ranks;           /* of the run, at least 1 */
    i64 node_ranks;      /* of them on this machine, whose cores they share */
    int cores;           /* that the run may use here */
    const char *backend; /* asked for; NULL: auto */
    const struct plan_rates *rates; /* what tasks took in the recipe's own run; NULL: not known */
};

struct knob {
    const char *name;    /* "micro-batch" */
    const char *help;    /* a sentence */
    const char *speaks;  /* ids of findings that speak for it, as "K7 H5 B6" */
    const char *keys;    /* that are its own, whatever value a finding wants; NULL: none */
    void (*propose)(const struct knob_view *v, struct change_list *out);
};

extern const struct knob knobs[]; /* ends with an empty row */

/* One change of the knob: "key=value" of a recipe key, as a finding wants it. Nothing where the
 * knob has other settings, or the recipe has this one. */
void knob_propose_set(const struct knob *k, const struct knob_view *v, const char *set,
                      struct change_list *out);

/* Whether the finding speaks for the knob. */
bool knob_heeds(const struct knob *k, const char *finding);

#endif
