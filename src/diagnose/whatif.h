/* diagnose/whatif.h - how long the run's steps would have been, had something been otherwise.
 *
 * An edit of a finding (findings.h) changes durations of the nodes that it selects; the graphs of
 * some of the run's steps (dag.h) then give their length. What the edit does not touch takes what
 * it took. */
#ifndef HEADWAY_WHATIF_H
#define HEADWAY_WHATIF_H

#include "diagnose/critical.h"
#include "diagnose/findings.h"
#include "diagnose/ladder.h"

struct whatif;

/* Graphs of steps that the measure is about, as many as `most_nodes` allows. NULL in *out when
 * not one can be made. Freed by whatif_free. */
int whatif_new(struct whatif **out, struct record *r, const struct measure *m, i64 most_nodes);
void whatif_free(struct whatif *w); /* NULL is fine */

/* For findings_make: lengths in proportion to the mean step of the measure. */
struct finding_replay whatif_replay(struct whatif *w);
/* What the edit selects takes so many seconds a step, on the rank where that is most. */
double whatif_seconds(const struct whatif *w, const struct finding_edit *e);
/* Sets the noise of the measure's ranks. */
void whatif_noise(const struct whatif *w, struct measure *m);
/* Behind the measure's losses and noise: what is waited for data in all of its steps, and no noise that
 * waits for data and regular gaps explain; on a computed clock, nor what makes actions vary. */
void whatif_settle(struct whatif *w, struct measure *m);
/* Length of the graphs as they are over what was measured; 1 is perfect. */
double whatif_fidelity(const struct whatif *w);

/* Of the steps that have a graph. */
const struct ladder *whatif_ladder(const struct whatif *w);
/* Of these steps, on the mean one (diagnose/rungs.h). */
void whatif_lost(const struct whatif *w, double lost[LOSSES]);
/* Most seconds first; seconds are those of all these steps. */
const struct critical *whatif_critical(const struct whatif *w);

#endif
