/* train/step.h - one training step of one rank as a program.
 *
 * load_batch, the decoder's forward, its gradients, then the update: gradient norm,
 * clipping, and one optimizer task per parameter, all of which are skipped when the norm
 * is not finite. Passes (chunked head, recompute) are applied here. */
#ifndef HEADWAY_STEP_H
#define HEADWAY_STEP_H

#include "model/decoder.h"
#include "parallel/mesh.h"
#include "train/health.h"
#include "train/train_config.h"

struct step_shape {
    i64 B, T;          /* rows of a micro-batch and their tokens, all of them where cp cuts rows */
    int micro_batches; /* per step */
    i64 sources;       /* S: rows of the loss sums */
};

/* What the host writes and reads around a step. Shared by the programs of all shapes. */
struct step_io {
    struct tensor *hyper; /* f32 (HYPERS), written before each step */
    struct tensor *sums;  /* f64 (S,2): sum of nll and of weights per source */
    struct tensor *load;  /* f64 (sparse layers, E + 3), as in op_expert_load; NULL: no experts */
    struct tensor *norm, *scale, *apply; /* as in op_clip */
    struct health health;
    struct tensor *apart, *moved; /* of an outer step: parallel/islands.h */
};

struct step_program {
    struct step_shape shape;
    struct program *program;
    struct graph graph;
};

void step_io_new(struct step_io *io, const struct model_spec *spec, i64 sources,
                 struct arena *a);

/* Which tensors the optimizer of the configuration needs (enum model_needs). */
unsigned step_needs(const struct train_config *c);

/* shape is what this rank computes. The model holds the rank's part. */
int step_program_new(struct step_program *out, const struct model *m,
                     const struct train_config *c, const struct step_shape *shape,
                     const struct step_io *io, const struct mesh *mesh, struct arena *a);

/* The outer step of a model with MODEL_OUTER, as a program of its own. */
int outer_program_new(struct step_program *out, const struct model *m,
                      const struct train_config *c, const struct step_io *io,
                      const struct mesh *mesh, struct arena *a);

/* Evaluation: the same forward and loss, no gradient. sums f64 (S,2), 0 but on ranks that have
 * the last stage. */
int eval_program_new(struct step_program *out, const struct model *m,
                     const struct step_shape *shape, struct tensor *sums,
                     const struct mesh *mesh, struct arena *a);

#endif
