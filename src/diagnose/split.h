/* diagnose/split.h - which layers each stage of a pipeline has, and which split would be even.
 *
 * A rank of a pipeline has one stage or several. What its steps take is measured; how that is shared
 * out among its stages, and between layers and what is in none (embedding, head), is told by the tasks'
 * costs. */
#ifndef HEADWAY_DIAGNOSE_SPLIT_H
#define HEADWAY_DIAGNOSE_SPLIT_H

#include "diagnose/measure.h"

struct record_part;

/* Sets m->split, by layers; nothing where a rank of the pipeline is missing. */
void split_read(struct measure *m, const struct record_part *part);

/* "stage 2", or for a rank with several "rank 0 of the pipeline (stages 0 and 3)". */
void split_name(const struct measure *m, int pp, char *out, size_t size);

/* "2+2+1+1": the even split, where each rank of the pipeline takes seconds[pp] now. False: it is not
 * known, or there is no better one. */
bool split_best(const struct measure *m, const double *seconds, char *out, size_t size);
/* Whether the split that there is, is known to be the most even one. */
bool split_is_best(const struct measure *m, const double *seconds);

#endif
