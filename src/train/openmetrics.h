/* train/openmetrics.h - the state of runs for monitoring, as text.
 *
 * A small file that is replaced as a whole, so that whoever reads it sees one moment: in
 * OpenMetrics text format (openmetrics.io, 1.0), or, where its name ends in ".prom", in the one
 * that Prometheus had before (0.0.4). The textfile collector of its node_exporter takes each *.prom
 * of a folder and reads that one alone; they differ in how a counter is named in its lines of
 * metadata, in the line of its unit and in the last line. A quantity that is not known yet is left
 * out; one that is not finite is NaN, +Inf or -Inf. Every sample has the labels run and rank. */
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

enum openmetrics_dialect { OPENMETRICS_1, PROMETHEUS_TEXT };
enum openmetrics_dialect openmetrics_dialect_of(const char *path);

/* Appends a whole file about n runs, whose labels differ. */
void openmetrics_format(struct text *out, const struct openmetrics *m, i64 n,
                        enum openmetrics_dialect dialect);

/* Before a run: that the file can be made where path says. ERR_CONFIG says what to do. */
int openmetrics_check(const char *path);

#endif
