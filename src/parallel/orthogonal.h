/* parallel/orthogonal.h - Muon's matrices, of which every rank has a share.
 *
 * A matrix's Newton-Schulz steps (ops/muon.c) need all of it, once. Momentum and weights
 * stay where the layout puts them; in between what is to be orthogonalised is gathered,
 * over the ranks that split the optimizer's state and over tp, one of all these ranks
 * does the steps, and the results are scattered back as sums to which the others add
 * nothing, bit by bit. Bytes per matrix: a gathering and a reduce-scatter of f32 on each
 * of the two axes.
 *
 * Which rank: whoever has had least to do so far, matrix by matrix. So that they work at the same
 * time, a unit's results are used only when the next unit's steps were begun: three units are
 * under way at a time. (Liu et al. 2025, section 2.3, gathers too, but does the steps on each
 * rank that has a part.) */
#ifndef HEADWAY_ORTHOGONAL_H
#define HEADWAY_ORTHOGONAL_H

#include "model/model.h"
#include "ops/ops.h"
#include "parallel/mesh.h"

/* What of a bucket is exchanged together: all matrices where their state is split, else one of
 * them. A bucket without any has one unit of nothing. */
struct orthogonal_unit {
    const struct bucket *bucket;
    const struct param *matrix; /* the one; NULL: all of the bucket's */
    bool opens, closes;         /* the bucket's first unit, its last */
    struct tensor *u, *y; /* f32: of what is here, before and after; NULL: no matrix */
    i64 first;            /* their first element in the bucket */
};

/* All units of the model, bucket by bucket; they live in the graph's arena. */
i64 orthogonal_units(struct graph *g, const struct model *m, struct orthogonal_unit **out);

/* How many units later the results are used. */
i64 orthogonal_ahead(const struct mesh *mesh);

/* Makes u, which momentum tasks then fill. */
void orthogonal_open(struct graph *g, const struct model *m, struct orthogonal_unit *unit);

/* Makes y from u. load: of each rank that may do it, so far, orthogonal_ranks of them, at first 0;
 * config: of the steps. */
void orthogonal_run(struct graph *g, const struct model *m, const struct mesh *mesh,
                    struct orthogonal_unit *unit, double *load, const struct muon_config *config);
i64 orthogonal_ranks(const struct mesh *mesh);

/* Whether the unit has something to do with the parameter. */
bool orthogonal_has(const struct model *m, const struct orthogonal_unit *unit,
                    const struct param *p);

#endif
