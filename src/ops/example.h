/* ops/example.h - small inputs on which an op shows what it does.
 *
 * Each op describes a few examples of itself. The self-test (headway machine --check, and
 * the tests) builds each in a graph, fills it with seeded random numbers, and compares
 * every backend's kernel with the reference, and the gradient rule with finite
 * differences. An example's last task is the op itself. */
#ifndef HEADWAY_EXAMPLE_H
#define HEADWAY_EXAMPLE_H

#include "ops/ops.h"

struct op_example {
    struct graph *g;
    enum dtype dtype; /* the compute dtype to build with: f32, bf16, or f64 (then all is
                       * f64: for finite differences) */
    u64 seed;         /* moves on with every tensor */
    /* How tight a kernel must be: |kernel - reference| <= bound * (|reference| + scale),
     * scale the root mean square of the reference. 0: the default of the dtype. */
    double bound;
    /* The same where the backend says that it rounds_within, and of its out[0] alone; 0: bound. */
    double within_bound, within_first;
    /* The scalar whose gradient the rule forms; NULL: out[0] times random cotangents. */
    double (*loss)(const struct task *t);
};

/* Tensors filled with reproducible numbers. Data is allocated in the graph's arena, so
 * they can serve as inputs at once. Normal with this deviation; integers in [0, limit).
 * An activation is made by a task that copies it from a weight, so that its gradient is
 * wanted and lands in that weight's gradient. ROLE_PARAM has a gradient beside it. */
struct tensor *example_normal(struct op_example *e, enum tensor_role role, enum dtype dtype,
                              i64 rows, i64 columns, double deviation);
/* f32. */
struct tensor *example_vector(struct op_example *e, enum tensor_role role, i64 n,
                              double mean, double deviation);
struct tensor *example_integers(struct op_example *e, i64 n, i64 limit);
struct tensor *example_scalar(struct op_example *e, enum tensor_role role, enum dtype dtype,
                              double value);
/* The host's hyperparameters of an update, large enough to show. */
struct tensor *example_hyper(struct op_example *e);
/* A weight with a gradient tensor beside it. */
struct tensor *example_weight(struct op_example *e, enum dtype dtype, i64 rows, i64 columns,
                              double deviation);
/* begin[] of rows with a few documents each. */
struct tensor *example_begin(struct op_example *e, i64 B, i64 T);

/* The copy behind an activation, and its gradient. Not in op_table: these are no ops of
 * programs. */
extern const struct op_info op_leaf, op_leaf_grad;

#endif
