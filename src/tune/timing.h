/* tune/timing.h - a recipe with some settings changed, run for some steps in a process of its own.
 *
 * A trial is `headway train RECIPE --measure` with overrides: the program that will train, with its
 * own loader, ranks and start, in a run folder that is thrown away. What it took, and how much
 * energy, is read from the folder's metrics. The first steps are not counted: memory is touched for
 * the first time in them, and ranks start. */
#ifndef HEADWAY_TUNE_TIMING_H
#define HEADWAY_TUNE_TIMING_H

#include "base/arena.h"

enum { CHANGE_SETS = 6, TIMING_WARM_UP = 2 };

/* What is tried. Settings are "key=value" of recipe keys. */
struct tune_change {
    const char *knob, *label;       /* "micro-batch", "train.batch 8 -> 16" */
    const char *sets[CHANGE_SETS];
    int n_sets;
    const char *backend;            /* --backend; NULL: as the caller was told */
    bool numbers;                   /* other numbers come out: the loss must be looked at */
};

/* What all trials have alike. */
struct timing_base {
    const char *recipe;             /* path */
    const char **sets;              /* of the user, before those of the change */
    int n_sets;
    const char *backend;            /* --backend; NULL: not given */
    i64 ranks;                      /* 0: one process */
    const char *folder;             /* run folders are made here, one per trial */
    double patience_s;              /* a trial that takes longer is stopped */
    double most_s;                  /* who has trained for so long ends by itself; 0: nobody */
    bool (*stop)(void *context);    /* asked while a trial runs, which then ends; may be NULL */
    void *context;
};

struct timing_result {
    i64 steps;         /* that count */
    double *step_s;    /* [steps], in the arena */
    double tokens;     /* in one step */
    double *loss;      /* [steps] */
    double joules_per_token; /* 0: unknown */
    double seconds;    /* that the trial took, start included */
    char run[1200];    /* its run folder, which the caller removes */
};

/* So many steps of `change` (NULL: the recipe as it is). Negative, with the last sentence that the
 * trial's process said, when it does not run: what does not fit, say. */
int timing_run(struct timing_result *out, const struct timing_base *base,
              const struct tune_change *change, i64 steps, struct arena *a);

/* Reads a run's folder; timing_run's second half. */
int timing_read(struct timing_result *out, const char *run, struct arena *a);

#endif
