/* backend/selftest_trial.h - one example of one op, built and ready to run. */
#ifndef HEADWAY_SELFTEST_TRIAL_H
#define HEADWAY_SELFTEST_TRIAL_H

#include "backend/selftest.h"
#include "ops/example.h"

struct trial {
    struct selftest *test;
    const struct op_info *op;
    int n; /* which example */
    struct arena arena;
    struct graph graph;
    struct op_example example;
    struct task *task; /* the example's last */
};

/* Builds example n; 1 when there is no such example (then nothing is held), else OK or a
 * failure. */
int trial_init(struct trial *t, struct selftest *s, const struct op_info *op, int n,
               enum dtype dtype);
void trial_fini(struct trial *t);
/* Fails with a sentence that begins with what was tried. */
int trial_fail(const struct trial *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Gives data to every tensor of the graph that has none. */
void trial_allocate(struct trial *t);
/* Runs tasks [first, last) one after the other: ops by the backend's kernels when by_kernel,
 * else, and the examples' own leaves always, by the reference. */
void trial_run(struct trial *t, i64 first, i64 last, bool by_kernel);
/* Notes an error as a share of what is allowed; false when it is too large, or NaN. */
bool trial_note(struct trial *t, double error, double bound);

#endif
