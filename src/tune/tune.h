/* tune/tune.h - finds settings with which the same training takes less time, and proves it.
 *
 * 1. The recipe runs as it is, in a process of its own, and its folder is diagnosed.
 * 2. What each change of a knob would give is foretold (choose.h): by the diagnosis where a finding
 *    names that very setting, else by a forecast (forecast.h). The most promising are tried.
 * 3. They run in rounds (rounds.h): the recipe as it is, each change, the recipe, the changes
 *    backwards, and so on. Nobody is judged by one round. What is told to be slower, or clearly
 *    behind the best, or no different, is left out of later rounds; who is within the noise stays
 *    until the time is up, and is then said to be so.
 * 4. The best changes of different knobs are tried together, three at most.
 * 5. The winner runs against the recipe again in fresh processes, and the gain that is told is this
 *    one. It counts only beyond the noise, and from `least_gain` on; else the next best is tried.
 *
 * The budget is for all of it, and is held: no trial is begun that would not end in it if it took
 * as long as the newest ones, and one that takes longer all the same is ended and not judged.
 *
 * A gain is the share of what the objective counts that is saved: time per token, time to the
 * recipe's loss, or energy per token. */
#ifndef HEADWAY_TUNE_H
#define HEADWAY_TUNE_H

#include "tune/forecast.h"
#include "tune/rounds.h"

enum tune_objective { TUNE_SPEED, TUNE_LOSS, TUNE_ENERGY };
enum { TUNE_ROWS = CHANGES_MOST + 2, TUNE_HINTS = 32, HINT_SETS = 4 };

/* What a diagnosis says: a finding, the share of a step that mending it gives back, and the
 * settings that confirm it ("train.threads=2", "backend=avx2"). */
struct tune_hint {
    char id[8];
    double gain;
    char sets[HINT_SETS][64];
    int n_sets;
};

struct tune_request {
    struct timing_base base;
    struct knob_view view;
    const struct machine *machine;
    enum tune_objective objective;
    double budget_s;
    u64 began_ns;          /* since when it runs; 0: the trials' own seconds are what it is for */
    i64 most_trials;       /* changes that are tried */
    const char *only;      /* names of knobs, with commas; NULL: all */
    double loss_tolerance; /* share by which a change of numbers may raise the loss */
    const struct tune_hint *hints; /* of the diagnosis */
    int n_hints;
    bool diagnosed;        /* it could be made: what it does not name costs nothing that it sees */
    void *context;
    void (*tell)(void *context, double fraction, const char *what); /* may be NULL */
    bool (*stop)(void *context); /* asked between trials, and while one runs; may be NULL */
    /* Runs a trial; NULL: timing_run. */
    int (*trial)(void *context, struct timing_result *out, const struct tune_change *c, i64 steps,
                 struct arena *a);
};

enum tune_fate {
    FATE_TRIED, FATE_IMPOSSIBLE,
    FATE_PRUNED, /* others promise more, or the forecast speaks against it */
    FATE_LATE,  /* the budget was spent */
    FATE_FAILED, FATE_LOSS, /* it ran, but the loss was worse */
    FATE_UNPROVEN /* it was the best, and was not when it ran again */
};

struct tune_row {
    struct tune_change change;
    enum tune_fate fate;
    char why[256];       /* it was not tried, failed, or was refused */
    char by[8];          /* the finding that foretold it; empty: a forecast */
    double predicted;    /* gain, [..1]; NaN: none */
    double gain, error;  /* measured, with its standard error; NaN: not */
    double bar;          /* the gain is between gain - bar and gain + bar, in 19 of 20 cases */
    enum verdict verdict;
    double loss_change;  /* of numbers: relative to the recipe's; else 0 */
    i64 rounds;
};

struct tune_outcome {
    double base_step_s, base_tokens_per_s, base_joules_per_token;
    double noise;        /* of one round: a standard deviation, as a share; NaN: not known */
    i64 steps;           /* per trial */
    bool by_mean;        /* trials are compared by mean steps, else by median ones */
    struct tune_row rows[TUNE_ROWS];
    int n;
    int winner;          /* index; -1: nothing is better beyond the noise */
    bool stopped;        /* by a signal, or since the recipe itself failed: this is a part */
    bool late;           /* the budget was over before the best was proven */
    int proofs;          /* how many changes ran again */
    double proven, proven_error, proven_bar; /* the last one's gain, measured again */
    i64 proven_rounds;
    enum verdict proven_verdict;
    double seconds;      /* that trials took */
};

/* What counts as a gain: less is not worth a line in a recipe. */
extern const double tune_least_gain;

/* Steps 2 to 5. first: the recipe's own run, which was diagnosed. Texts live in the arena. When it
 * fails, or is stopped, out has what was measured until then. */
int tune_run(struct tune_outcome *out, const struct tune_request *r,
             const struct timing_result *first, struct arena *a);

/* What the diagnosis of a run says, TUNE_HINTS at most; returns how many, or -1 for a run that
 * cannot be diagnosed. */
int tune_hints(struct tune_hint *out, const char *run);
/* What tasks took in that run; NULL where it cannot be told. */
const struct plan_rates *tune_rates(const char *run, struct arena *a);
/* Reads a confirming command's settings: "--key value" of recipe keys, and --backend. */
void tune_hint_read(struct tune_hint *h, const char *confirm);

/* What is counted, and how. */
struct tune_measure {
    enum tune_objective objective;
    double loss_tolerance; /* TUNE_LOSS: share of the loss by which a change may miss it */
    bool mean; /* of steps, none for more than three medians: what waits for data does so in some
                * steps only. Else their median, which other work on the machine moves less */
};

/* Ratio of what the objective counts: change over recipe; NaN when it cannot be told. */
double tune_ratio(const struct tune_measure *m, const struct timing_result *change,
                  const struct timing_result *recipe);

#endif
