#include "train/router_metrics.h"

#include <math.h>

struct router_metrics router_metrics(const struct tensor *load, i64 k, i64 T, i64 capacity)
{
    const i64 L = load->dim[0], E = load->dim[1] - 3;
    struct router_metrics m = { 0 };
    const double *row = load->data;
    for (i64 layer = 0; layer < L; layer++, row += E + 3) {
        double choices = 0, busiest = 0;
        for (i64 e = 0; e < E; e++) {
            choices += row[e];
            busiest = fmax(busiest, row[e]);
        }
        double imbalance = busiest * (double)E / choices, tokens = choices / (double)k;
        m.imbalance += imbalance / (double)L;
        m.worst = fmax(m.worst, imbalance);
        m.aux += row[E] / (tokens / (double)T) / (double)L;
        m.z += row[E + 1] / tokens / (double)L;
        m.dropped += row[E + 2] / choices / (double)L;
        if (capacity > 0)
            m.fill += (choices - row[E + 2]) / (double)(E * capacity) / (tokens / (double)T) /
                      (double)L;
    }
    return m;
}
