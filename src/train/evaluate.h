/* train/evaluate.h - loss on held-out text, in nats, perplexity and bits per byte. */
#ifndef HEADWAY_EVALUATE_H
#define HEADWAY_EVALUATE_H

#include "backend/engine.h"
#include "data/loader.h"
#include "train/step.h"

#include <stdatomic.h>

struct eval_result {
    double loss;          /* nats per token */
    double perplexity;    /* exp(loss) */
    double bits_per_byte; /* NaN when the data does not know its bytes */
    i64 tokens, bytes;
};

struct evaluator {
    struct engine *engine;
    struct backend backend; /* the engine's kernels with this loader's load_batch */
    struct loader *loader;  /* borrowed */
    struct step_program program;
    struct tensor *sums;
    struct mesh mesh;
    bool has_loss; /* the last stage is here */
    int rc;                      /* how reading went here in the last pass, and the first failure */
    char why[512];
    i64 lacks;                   /* source whose text could not be read here; -1: none */
    double failed;               /* ranks whose part of the last pass failed */
    double lost[LOADER_SOURCES]; /* on how many of them for want of this source's text */
    const atomic_ullong *stop; /* becomes non-zero: leave with ERR_STOPPED; may be NULL */
};

/* Builds the program for rows of B x T and adds it to the engine, which the caller then
 * commits. loader: of loader_open_eval. The model holds the rank's part. */
int evaluator_init(struct evaluator *e, const struct model *m, struct engine *engine,
                   struct loader *loader, i64 B, i64 T, const struct mesh *mesh,
                   struct arena *a);

/* One pass over everything the loader serves; data-parallel ranks share it out, and all get
 * the result of all of it. When one of them fails, all do. */
int evaluator_run(struct evaluator *e, struct eval_result *out);

/* After a pass that failed: leaves out the sources whose text some rank could not read.
 * False when that is not why it failed, or nothing else is left. All ranks that share the
 * pass answer alike. */
bool evaluator_leave_out(struct evaluator *e);

#endif
