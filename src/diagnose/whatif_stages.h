/* diagnose/whatif_stages.h - which layers the stages of a pipeline would have, were they even. */
#ifndef HEADWAY_WHATIF_STAGES_H
#define HEADWAY_WHATIF_STAGES_H

#include "base/arena.h"

enum { STAGES = 64, LAYERS = 512 };

/* Seconds of computing, summed over ranks. */
struct shares {
    double stage[STAGES], fixed[STAGES]; /* all; of what is in no layer, and stays */
    double layer[LAYERS];
    int stages, layers;
};

/* Whole layers, in order, such that the longest stage is as short as can be: target[stages], what
 * each takes. */
void whatif_partition(const struct shares *s, double *target, struct arena *a);

#endif
