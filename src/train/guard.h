/* train/guard.h - watches the loss: bad steps and spikes.
 *
 * Spikes are judged by median and MAD of recent finite losses: one outlier moves neither,
 * and a NaN never enters (llm.c's running sums were poisoned by the first NaN). A loss that
 * stays up is no spike: a harder source, longer rows. When spikes outnumber fine losses by
 * GUARD_LASTING, the level that they came to becomes the normal one, or a run that skips
 * spikes would never learn again. Where a source has no more to give, the others' losses have a
 * level of their own, and the statistics begin anew. The state is plain numbers and is saved in
 * checkpoints, so that a resumed run judges alike. */
#ifndef HEADWAY_GUARD_H
#define HEADWAY_GUARD_H

#include "base/base.h"

enum { GUARD_WINDOW = 128, GUARD_LEAST = 20, GUARD_LASTING = 20 };

enum verdict { VERDICT_FINE, VERDICT_SPIKE, VERDICT_RISEN, VERDICT_BAD };

struct guard {
    double sigma;
    double loss[GUARD_WINDOW]; /* the last finite, unspiked losses, a ring */
    i64 seen;                  /* ever entered */
    double spike[GUARD_LASTING]; /* losses of spikes, a stack: a fine loss takes one off */
    i64 spikes;
    u64 mix; /* what the losses are of, see guard_set_mix; 0: not known */
    i64 max_bad, bad_window;
    i64 bad_step[GUARD_WINDOW]; /* steps that were bad, a ring */
    i64 bad_count;              /* ever */
};

void guard_init(struct guard *g, double sigma, i64 max_bad, i64 bad_window);

/* Which sources the coming loss is of, a bit for each. True when these are others than those of
 * the losses before, which are forgotten: they say nothing of it. */
bool guard_set_mix(struct guard *g, u64 mix);

/* What guard_judge will say of a finite loss, for who must know before the update. */
bool guard_is_spike(const struct guard *g, double loss);

/* Judges the loss of a step; finite says that loss and gradient norm are finite. Only
 * losses judged fine enter the statistics, and those of a rise that lasted. */
enum verdict guard_judge(struct guard *g, i64 step, double loss, bool finite);

/* Robust deviations above the median; 0 while there are fewer than GUARD_LEAST losses. */
double guard_deviation(const struct guard *g, double loss);

/* True when more than max_bad of the last bad_window steps were bad. */
bool guard_exhausted(const struct guard *g, i64 step);

#endif
