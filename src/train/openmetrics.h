/* train/openmetrics.h - the state of a run for monitoring: one small text file.
 *
 * A file in OpenMetrics text format (openmetrics.io, 1.0) that is replaced as a whole, so that
 * whoever reads it sees one moment: the textfile collector of Prometheus' node_exporter takes
 * each *.prom of a folder. A quantity that is not known yet is left out; one that is not finite
 * is NaN, +Inf or -Inf. Every sample has the labels run and rank. */
#ifndef HEADWAY_OPENMETRICS_H
#define HEADWAY_OPENMETRICS_H

#include "base/text.h"

struct openmetrics {
    const char *run; /* any bytes; escaped */
    i64 rank;
    i64 step, tokens;         /* done, trained on so far */
    double loss, grad_norm;   /* of the last step; nats per token */
    double learning_rate;     /* of the last step, its peak where groups differ */
    double step_seconds;
    double tokens_per_s, mfu; /* over recent steps; mfu 0: not known */
    double heldout_loss;      /* NaN: none yet */
    double wall_seconds;      /* now, since the epoch */
};

/* Appends the whole file, "# EOF" and all. */
void openmetrics_format(struct text *out, const struct openmetrics *m);

/* Before a run: that the file can be made where path says. ERR_CONFIG says what to do. */
int openmetrics_check(const char *path);

#endif
