/* tests/diagnose/runs.h - small runs, below JOB_DIR, and what they recorded. */
#ifndef HEADWAY_TEST_RUNS_H
#define HEADWAY_TEST_RUNS_H

#include "train/job.h"

#include "comm/local.h"
#include "diagnose/record.h"

static inline void open_run(struct record *r, const char *name)
{
    char folder[256];
    snprintf(folder, sizeof folder, JOB_DIR "/runs/%s", name);
    CHECK_OK(record_open(r, folder));
}

struct layout_run {
    const char *name, *layout, **sets;
};

static inline int run_rank(struct comm *c, void *context)
{
    const struct layout_run *r = context;
    struct layout layout = layout_single();
    struct job j;
    open_job(&j, r->name, r->sets);
    CHECK_OK(layout_parse(&layout, r->layout, "test", &j.arena));
    j.request.comm = c;
    j.request.layout = &layout;
    int rc = run_job(&j);
    arena_fini(&j.arena);
    return rc;
}

static inline void run_layout(const char *name, const char *layout, const char **sets)
{
    struct layout parsed = layout_single();
    struct arena a;
    arena_init(&a);
    CHECK_OK(layout_parse(&parsed, layout, "test", &a));
    int ranks = (int)layout_ranks(&parsed);
    arena_fini(&a);
    const struct layout_run run = { name, layout, sets };
    const struct comm_local l = { .ranks = ranks, .deadline_s = 60 };
    CHECK_OK(comm_local_run(&l, run_rank, (void *)&run));
}

#endif
