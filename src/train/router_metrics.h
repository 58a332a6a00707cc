/* train/router_metrics.h - how evenly a step's routers loaded their experts. */
#ifndef HEADWAY_ROUTER_METRICS_H
#define HEADWAY_ROUTER_METRICS_H

#include "graph/tensor.h"

struct router_metrics {
    double imbalance; /* busiest expert's tokens over the mean, mean over layers; 1: even */
    double worst;     /* the same of the worst layer */
    double aux, z;    /* balance loss (k when even) and z-loss, before their coefficients: means
                       * over sequences, or tokens, and layers */
    double dropped; /* choices for which an expert had no room, share of all */
    double fill;    /* rows that experts took, share of their capacity; 0: it has none */
};

/* load: step_io's, summed over all ranks and micro-batches; k choices per token, T tokens and at
 * most `capacity` rows of an expert (0: any) per sequence. */
struct router_metrics router_metrics(const struct tensor *load, i64 k, i64 T, i64 capacity);

#endif
