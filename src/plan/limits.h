/* plan/limits.h - what bounds a job, and where each way of splitting it stops paying.
 *
 * A split pays while what a rank computes takes longer than what it sends: while FLOPs for each
 * byte sent are above the device's FLOP/s over its link's bytes/s (the ridge). With T tokens of a
 * data rank in a step, F the width of a layer's products, s tokens of a row, H and G query and key
 * heads (MaxText, docs/guides/optimization/sharding.md):
 *
 *     data            T                      weights once for each token they serve
 *     tensor, t ways  F / t
 *     context, c ways s H / (G c)            keys and values go around
 *     pipeline        1.5 F x layers of a stage
 *     experts         F of an expert
 *
 * Memory: 18 bytes for each parameter (bf16 weights, fp32 gradients and AdamW's state), of which 12
 * are split along data ranks with ZeRO 1 and all with ZeRO 3; activations come on top. A pipeline
 * of p ranks with m micro-batches and v stages on each idles (p - 1) / (v m + p - 1). */
#ifndef HEADWAY_PLAN_LIMITS_H
#define HEADWAY_PLAN_LIMITS_H

#include "model/spec.h"
#include "plan/bill.h"

struct plan_limits {
    double flops_per_s;          /* of a device: the best that products reach, else 0.8 of peak */
    double node_ridge, net_ridge; /* FLOP/byte, within a node and out of it; 0: no such tier */
    double tensor_node, tensor_net; /* most ways that pay */
    double context_net;
    double pipeline_layers;      /* least layers of a stage */
    double experts_node, experts_net; /* FLOP/byte of them over the ridge; 0: no experts */
    double data_tokens;          /* least tokens of a data rank in a step */
    double data_ranks;           /* so many at the batch given */
    double critical_ranks;       /* data ranks at the critical batch; 0: not given */
    double stages;               /* ranks along a pipeline that idles a tenth at most, with the rows
                                  * that these data ranks have */
    double devices;              /* data_ranks x tp that pays in a node x these stages */
    double memory_split;         /* least devices that hold 18 bytes of each parameter together */
    double memory_whole;         /* least tp x pp whose devices hold 6 bytes of each parameter */
    double row_ranks;            /* sequences of the batch: data ranks cannot be more */
    struct plan_band watts;      /* with hosts and PUE, of all devices asked about */
};

/* batch: tokens of a step; critical: tokens, 0: not known. */
int plan_limits_of(struct plan_limits *out, const struct model_spec *s,
                   const struct plan_machine *m, i64 devices, i64 sequence, double batch,
                   double critical, int dtype);

#endif
