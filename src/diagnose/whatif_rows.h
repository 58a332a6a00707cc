/* diagnose/whatif_rows.h - what the lengths of its rows make a rank's attention take.
 *
 * Attention looks at pairs of tokens of one document, so a rank whose rows hold longer documents has
 * more to do in that step. How much is fitted to the steps' graphs: what a rank's attention takes beside
 * all else that it computes, over its own mean, by what its rows ask for over theirs (least squares over
 * ranks and steps). What disturbs a rank disturbs both, and has no part in it. */
#ifndef HEADWAY_WHATIF_ROWS_H
#define HEADWAY_WHATIF_ROWS_H

#include "diagnose/dag.h"

struct rows_work {
    int ranks;
    double seconds_per_work; /* of a rank; 0: rows are alike, not known, or nothing follows them */
    double unsure;  /* its standard error, as a share of it */
    double *above;  /* [graph * ranks + rank] what attention takes above that of usual rows, as a share of
                     * it; NULL where nothing follows rows */
    double *copies; /* the same, the mean over ranks of its stage in that step */
};

/* Steps of one program and their graphs, n of each; in the arena. */
struct rows_work rows_find(const struct record_step *steps, struct dag *const *graphs, int n,
                           struct arena *a);
/* How many times as long the node takes as it would with usual rows. */
double rows_times(const struct rows_work *w, int graph, const struct dag_node *n);
/* With so much of that (1: all) as the mean of its copies has, how many times as long as it takes. */
double rows_even(const struct rows_work *w, int graph, const struct dag_node *n, double share);

#endif
