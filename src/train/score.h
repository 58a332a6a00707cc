/* train/score.h - how likely a model finds given tokens.
 *
 * One program of B rows of T tokens whose inputs the caller writes. Evaluation of text,
 * multiple-choice tasks and comparisons with other programs all ask through it. */
#ifndef HEADWAY_SCORE_H
#define HEADWAY_SCORE_H

#include "backend/engine.h"
#include "model/decoder.h"

struct scorer {
    struct engine *engine;
    struct program *program;
    struct graph graph;
    struct batch batch;    /* inputs, host memory */
    struct tensor *nll;    /* f32 (B T) */
    struct tensor *logits; /* f32 (B T, V), or NULL */
    i64 B, T, vocab;
};

/* Adds its program to the engine, which the caller then commits. */
int scorer_init(struct scorer *s, const struct model *m, struct engine *e, i64 B, i64 T,
                bool logits, struct arena *a);

/* Row b becomes tokens[0..n), n <= T, of which the places [from, n - 1) are asked: place i
 * predicts token i + 1. The rest of the row is padding of weight 0. */
void scorer_row(struct scorer *s, i64 b, const i32 *tokens, i64 n, i64 from);
void scorer_run(struct scorer *s);
/* Sum of nll over the asked places of row b. */
double scorer_sum(const struct scorer *s, i64 b);

#endif
