/* plan/run_size.h - how much a run computes, and how long that takes at a given utilisation.
 *
 * Two counts, and an MFU means little without saying which: 6 N D (N the parameters that a token
 * meets, D tokens), and the FLOPs of the program that training would run, forward and backward
 * without recompute, causal attention counted as half of a square. The second is read off the tasks
 * (plan/layer_costs.h). */
#ifndef HEADWAY_PLAN_RUN_SIZE_H
#define HEADWAY_PLAN_RUN_SIZE_H

#include "model/spec.h"

struct plan_run_size {
    double parameters, active, in_products; /* elements; that a token meets; of them, in matrices */
    double flops_per_token;      /* of the program, at `sequence` */
    double six_n_per_token;      /* 6 x active */
    double attention_share;      /* of flops_per_token */
    double square_per_token;     /* with attention counted as whole squares, as Megatron's MFU does */
    i64 sequence;
};

/* sequence 0: the model's positions. */
int plan_run_size_of(struct plan_run_size *out, const struct model_spec *s, i64 sequence);

#endif
