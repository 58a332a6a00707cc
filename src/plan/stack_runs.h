/* plan/stack_runs.h - which layouts a software stack runs, of all that exist.
 *
 * Mathematics allows more than any framework has: stages of unequal layers, gradients split
 * beside a pipeline, more ranks per matrix than key-value heads. What a stack has is data, in
 * its file under `runs`; a search looks at nothing else unless it is asked for any layout.
 * Sentences are constant and name no layout. */
#ifndef HEADWAY_PLAN_STACK_RUNS_H
#define HEADWAY_PLAN_STACK_RUNS_H

#include "base/option.h"

struct plan_job;
struct plan_layout;

struct plan_runs {
    struct option_strings axes;      /* of tp, pp, cp, ep: those it has */
    struct option_strings schedules; /* by name; none: all */
    struct option_ints zero;         /* stages that it has; none: all */
    i64 zero_with_pp;                /* the largest beside a pipeline */
    bool zero_groups;                /* part of the data ranks may split */
    bool even_stages;                /* layers must divide by stages; */
    i64 spare_layers;                /* counted with so many more, for embedding and head */
    bool kv_divides;                 /* tp must divide the key-value heads */
};

/* That all words are known; messages begin with `where`. */
int plan_runs_check(const struct plan_runs *r, const char *where);

/* Why the job's stack does not run it, or NULL; NULL too where the job asks for any layout. First
 * by its degrees alone, whatever the schedule and what is split; then by the order of work with its
 * stages; then by what data ranks split. */
const char *plan_runs_degrees(const struct plan_job *job, const struct plan_layout *l);
const char *plan_runs_order(const struct plan_job *job, const struct plan_layout *l);
const char *plan_runs_split(const struct plan_job *job, const struct plan_layout *l);
/* The first of them. */
const char *plan_runs_refused(const struct plan_job *job, const struct plan_layout *l);

#endif
