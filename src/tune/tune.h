/* tune/tune.h - finds settings with which the same training takes less time, and proves it.
 *
 * 1. The recipe runs as it is, in a process of its own, and its folder is diagnosed.
 * 2. Knobs that a finding speaks for come first (at most three of them, when any does); a forecast
 *    (forecast.h) says what each of their changes would give. What it holds to be slower, or what
 *    cannot be, is not tried.
 * 3. What is left runs in rounds: the recipe as it is and each change in turn, so that a
 *    machine that drifts does so for all of them. What is clearly behind is left out of
 *    later rounds.
 * 4. The best changes of different knobs are tried together.
 * 5. The winner runs against the recipe again in fresh processes. It counts only if this gain is
 *    larger than twice its standard error, and at least `least_gain`.
 *
 * A gain is the share of a step's time that is saved, from ratios of medians within a round. */
#ifndef HEADWAY_TUNE_H
#define HEADWAY_TUNE_H

#include "tune/forecast.h"

enum tune_objective { TUNE_SPEED, TUNE_LOSS, TUNE_ENERGY };
enum { TUNE_ROWS = CHANGES_MOST + 2, TUNE_HINTS = 32 };

/* What a diagnosis says: a finding, and the share of a step that mending it gives back. */
struct tune_hint {
    char id[8];
    double gain;
};

struct tune_request {
    struct timing_base base;
    struct knob_view view;
    const struct machine *machine;
    enum tune_objective objective;
    double budget_s;       /* of wall time, for trials */
    i64 most_trials;       /* changes that are tried */
    const char *only;      /* names of knobs, with commas; NULL: all */
    double loss_tolerance; /* share by which a change of numbers may raise the loss */
    const struct tune_hint *hints; /* of the diagnosis */
    int n_hints;
    void *context;
    void (*tell)(void *context, double fraction, const char *what); /* may be NULL */
    bool (*stop)(void *context); /* asked between trials; may be NULL */
};

enum tune_fate {
    FATE_TRIED, FATE_IMPOSSIBLE, FATE_PRUNED, /* the forecast spoke against it */
    FATE_LATE,  /* the budget was spent */
    FATE_FAILED, FATE_LOSS /* it ran, but the loss was worse */
};

struct tune_row {
    struct tune_change change;
    enum tune_fate fate;
    char why[256];       /* it was not tried, failed, or was refused */
    double predicted;    /* gain by forecast, [..1]; NaN: none */
    double gain, error;  /* measured, with its standard error; NaN: not */
    double loss_change;  /* of numbers: relative to the recipe's; else 0 */
    i64 rounds;
};

struct tune_outcome {
    double base_step_s, base_tokens_per_s, base_joules_per_token;
    double noise;        /* standard error of one round's median, as a share */
    i64 steps;           /* per trial */
    struct tune_row rows[TUNE_ROWS];
    int n;
    int winner;          /* index; -1: nothing is better beyond the noise */
    double proven, proven_error; /* the winner's gain, measured again */
    double seconds;      /* that it all took */
};

/* Steps 2 to 5. first: the recipe's own run, which was diagnosed. Texts live in the arena. */
int tune_run(struct tune_outcome *out, const struct tune_request *r,
             const struct timing_result *first, struct arena *a);

/* What the diagnosis of a run says, TUNE_HINTS at most; returns how many. A run that
 * cannot be diagnosed says nothing. */
int tune_hints(struct tune_hint *out, const char *run);

/* Ratio of what the objective counts: change over recipe; NaN when it cannot be told.
 * loss_tolerance: share of the recipe's loss by which the change may miss it (TUNE_LOSS). */
double tune_ratio(enum tune_objective o, double loss_tolerance,
                  const struct timing_result *change, const struct timing_result *recipe);

#endif
