/* diagnose/whatif_turns.h - what is exchanged once a micro-batch, as if it were once a step.
 *
 * Of a task whose calls are of several actions only the last one's stays: what those before it take
 * goes, and what beginning them takes. So do tasks that add what one turn brought to the others' sum
 * (op fold), as it is then added up where it is computed; the last turn's call is waited for by what
 * reads the sum, and not by them. */
#ifndef HEADWAY_WHATIF_TURNS_H
#define HEADWAY_WHATIF_TURNS_H

#include "diagnose/dag.h"

/* Of the lane (enum lane), which keeps an order; seconds[from->n] and lead[from->n] are changed, and
 * what waits for what in the copy that is returned. */
struct dag whatif_one_turn(const struct dag *from, int lane, double *seconds, double *lead,
                           struct arena *a);

#endif
