/* diagnose/whatif_order.h - a step's graph with something waiting for something else.
 *
 * Copies in the given arena that share all but their nodes with the graph they are of: durations
 * stay, and dag_length says what the order gives. */
#ifndef HEADWAY_WHATIF_ORDER_H
#define HEADWAY_WHATIF_ORDER_H

#include "diagnose/dag.h"
#include "diagnose/measure.h"

/* Calls that can be hidden begin when what they move is ready. */
struct dag whatif_begun_when_ready(const struct dag *from, const struct record_step *s,
                                   struct arena *a);
/* Nobody stands still for a call before something needs it. */
struct dag whatif_waiting_when_needed(const struct dag *from, struct arena *a);
/* Adds what each rank stands still for calls that nothing needs yet: seconds[g->n_ranks];
 * ends[g->n] is room. */
void whatif_add_early(const struct dag *g, double *ends, double *seconds);
/* The step's length with these durations, when calls still take their lanes' latency from when all have
 * come, or as long as they took: it passes beside the lane's call before, whose bytes hid it. */
double whatif_delayed_length(const struct measure *m, const struct dag *g, const double *seconds,
                             const double *lead, double *ends);

#endif
