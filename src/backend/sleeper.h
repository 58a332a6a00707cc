/* backend/sleeper.h - kernels that take the time that a task is worth, and compute nothing.
 *
 * With them ranks, lanes, loader and loop of a run are real, and only computing is not: a machine
 * of a few cores then runs many ranks as faithfully as if each had its own, since who sleeps takes
 * nothing from the others. A task takes the larger of FLOPs / flops_per_s and
 * bytes / memory_bytes_per_s, and what is injected on top (base/inject.h). Sleeping is not exact:
 * what one task takes too long, the next one takes less. */
#ifndef HEADWAY_SLEEPER_H
#define HEADWAY_SLEEPER_H

#include "backend/backend.h"

struct sleep_rates {
    double flops_per_s, memory_bytes_per_s;
};

struct sleeper {
    struct sleep_rates rates;
    double late; /* seconds that tasks so far took too long */
};

double sleep_seconds(const struct task *t, const struct sleep_rates *rates);

/* Replaces every kernel. The sleeper stays where it is. */
void backend_sleep(struct backend *b, struct sleeper *s, const struct sleep_rates *rates);

#endif
