/* bench/step_bench.h - whole training steps, for benchmarks.
 *
 * The step is the program that `headway train` runs, with the real loader: it reads a file of
 * random tokens that is written into the temporary folder and removed at the end. Only what
 * happens between steps (metrics, checkpoints) is not here; bench_run has that. */
#ifndef HEADWAY_STEP_BENCH_H
#define HEADWAY_STEP_BENCH_H

#include "backend/engine.h"
#include "data/loader.h"
#include "machine/machine.h"
#include "train/step.h"

struct step_bench_options {
    const char *model, *precision, *recompute, *optimizer, *backend;
    i64 batch, seq, micro, threads;
    bool exact, exact_context; /* layout.exact; and exact_context, which implies it */
};

struct step_bench {
    struct step_bench_options o;
    struct arena arena;
    struct train_config config;
    struct model_spec spec;
    struct model *model;
    struct engine engine;
    struct step_io io;
    struct step_program step;
    struct loader *loader;
    char folder[256];    /* of the tokens */
    i64 predicted_bytes; /* peak memory, said before it is taken */
    double init_s;       /* drawing the weights */
    u64 wait_ns;         /* the loader's, of all steps so far */
    i64 steps;           /* taken */
};

/* Says the error and ends the program. */
_Noreturn void step_bench_fail(void);

/* A file of n random tokens in llm.c's format, whose ids may have 16 or 32 bits. */
void step_bench_write_tokens(const char *path, i64 n, i64 vocab);

/* spec NULL: that of o->model. A spec without a vocabulary gets 32,768. */
void step_bench_open(struct step_bench *b, const struct step_bench_options *o,
                     const struct model_spec *spec);
void step_bench_close(struct step_bench *b);

/* One step; seconds. Without `traced` no spans are stored. */
double step_bench_run(struct step_bench *b, bool traced);

i64 step_bench_tokens(const struct step_bench *b); /* of a step */
double step_bench_loss(const struct step_bench *b);

/* FLOP/s of all its threads, measured now: in its precision, and by multiply-adds on fp32. */
struct step_bench_peaks {
    double used, fma;
};
struct step_bench_peaks step_bench_peak(const struct step_bench *b);

/* Sorts; the median. times[0] is then the least, times[n - 1] the most. */
double step_bench_median(double *times, i64 n);

#endif
