#include "diagnose/whatif_stages.h"

#include <math.h>

/* least[p][l]: of the longest of stages 0 to p, when these have the first l layers. */
struct partition {
    double least[STAGES][LAYERS + 1];
    int from[STAGES][LAYERS + 1]; /* the first layer of stage p */
};

void whatif_partition(const struct shares *s, double *target, struct arena *a)
{
    struct partition *x = ARENA_NEW(a, struct partition);
    const int least = s->layers >= s->stages ? 1 : 0; /* layers of a stage */
    double *sum = ARENA_ARRAY(a, double, s->layers + 1);
    for (int l = 0; l < s->layers; l++)
        sum[l + 1] = sum[l] + s->layer[l];
    for (int p = 0; p < s->stages; p++)
        for (int l = 0; l <= s->layers; l++) {
            x->least[p][l] = p == 0 && l >= least ? s->fixed[0] + sum[l] : INFINITY;
            for (int f = 0; p > 0 && f <= l - least; f++) {
                double own = s->fixed[p] + sum[l] - sum[f];
                double longest = fmax(x->least[p - 1][f], own);
                if (longest < x->least[p][l]) {
                    x->least[p][l] = longest;
                    x->from[p][l] = f;
                }
            }
        }
    for (int p = s->stages - 1, l = s->layers; p >= 0; p--) {
        int f = p > 0 ? x->from[p][l] : 0;
        target[p] = s->fixed[p] + sum[l] - sum[f];
        l = f;
    }
}
