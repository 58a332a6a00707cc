/* base/sort.h - sorting what is nearly in order.
 *
 * Spans come lane by lane, and on a lane in order: a few ascending runs behind each other. Merging
 * them costs n log(runs) comparisons, and one look where there is a single run. Equal elements stay
 * in their order. Many numbers in no order are sorted by their bits, from the lowest digit on. */
#ifndef HEADWAY_SORT_H
#define HEADWAY_SORT_H

#include "base/arena.h"

/* n elements of `bytes` each; room for as many more is taken from the arena if it is needed. */
void sort_runs(void *data, i64 n, i64 bytes, int (*compare)(const void *, const void *),
               struct arena *a);

/* Finite numbers, ascending. */
void sort_numbers(double *x, i64 n, struct arena *a);

/* The k-th of n finite numbers, from 0, as if they were sorted; 0 <= k < n. */
double sort_select(const double *x, i64 n, i64 k, struct arena *a);

#endif
