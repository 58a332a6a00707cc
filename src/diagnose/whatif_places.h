/* diagnose/whatif_places.h - who takes part in a call; what calls and tasks would take if ranks lay
 * otherwise on the axes, or computed at another clock. */
#ifndef HEADWAY_WHATIF_PLACES_H
#define HEADWAY_WHATIF_PLACES_H

#include "diagnose/dag.h"
#include "diagnose/findings.h"

/* The ranks of a call, in order of members; NULL: not known. */
const struct record_group *whatif_group(const struct record_head *h, const struct dag_node *n);
/* Whether the edit, which is about groups, is about this call. */
bool whatif_of_groups(const struct finding_edit *e, const struct record_head *h,
                      const struct dag_node *n);

/* Seconds of the group's call in another order of the axes (an index of measure_domains): links
 * within a domain and between them change places. factor: of what is saved. */
double whatif_moved(const struct measure *m, int order, const struct record_group *g, double bytes,
                    double seconds, double factor);

/* Every rank takes so much of the time that it has (measure_rank.stretch) to compute more slowly. */
void whatif_slow_clocks(const struct measure *m, const struct dag *g, double share,
                        double *seconds);

#endif
