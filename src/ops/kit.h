/* ops/kit.h - what the op files share: shape checks with one wording, and costs.
 *
 * A check fails the graph with a sentence that says what was got and what was expected.
 * f64 stands wherever f32 or bf16 may: the gradient check of the self-test runs the
 * reference kernels in it. It never meets an optimised kernel. */
#ifndef HEADWAY_KIT_H
#define HEADWAY_KIT_H

#include "graph/run.h"

enum { KIT_ANY = -1 }; /* a dimension that matches anything */

/* t's tensor x, called `what` in messages, is (rows, columns), or (n). */
int kit_matrix(struct graph *g, const struct task *t, const char *what,
               const struct tensor *x, i64 rows, i64 columns);
int kit_vector(struct graph *g, const struct task *t, const char *what,
               const struct tensor *x, i64 n);
/* The same shape, whatever the rank. */
int kit_same(struct graph *g, const struct task *t, const char *what,
             const struct tensor *x, const struct tensor *like);
int kit_dtype(struct graph *g, const struct task *t, const char *what,
              const struct tensor *x, enum dtype dtype);
/* f32, bf16 or f64. */
int kit_compute_dtype(struct graph *g, const struct task *t, const char *what,
                      const struct tensor *x);
/* A vector of n values that stay f32 beside activations like x (gains, statistics). */
int kit_wide_vector(struct graph *g, const struct task *t, const char *what,
                    const struct tensor *v, i64 n, const struct tensor *x);

/* A sum over the R rows of x: kit_wide_vector, or (n, C): of n equal groups of them. */
int kit_row_sums(struct graph *g, const struct task *t, const char *what,
                 const struct tensor *v, i64 C, const struct tensor *x);
/* What the gradients of norms have in common: dy, x and gain before, dx (to which in[addend]
 * is added, if any) and dgain behind. Outputs that are not given are made. */
int kit_norm_grad(struct graph *g, struct task *t, int addend);
/* Groups of rows in such a sum, and elements of all of them. */
static inline i64 kit_groups(const struct tensor *sums)
{
    return sums->rank == 2 ? sums->dim[0] : 1;
}

/* f32, or f64 beside f64: statistics, logits, gradient sums. */
static inline enum dtype kit_wide(const struct tensor *x)
{
    return x->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
}

/* H query heads of size D over G key heads: H and G positive, H % G == 0, D <= limit. */
enum { KIT_HEAD_SIZE = 512 };
int kit_heads(struct graph *g, const struct task *t, i64 H, i64 G, i64 D);
/* Queries in so many pairs of chunks (0: in one run). */
int kit_pairs(struct graph *g, const struct task *t, i64 pairs, i64 T);

/* A number for each query of attention, dim (B, H, T), f32 or f64; out[2], if any, is one. */
int kit_queries(struct graph *g, const struct task *t, const char *what, const struct tensor *x,
                const i64 dim[3], const struct tensor *qkv);
int kit_top(struct graph *g, const struct task *t, const i64 dim[3], const struct tensor *qkv);

/* Least traffic: every operand once. */
void kit_traffic(const struct task *t, struct cost *c);
/* The same for ops of so many operations per element of in[0]. */
void kit_elementwise(const struct task *t, struct cost *c, double flops_per_element);

/* Adds value to element i of a sum, or begins the sum there. */
static inline void kit_sum(const struct tensor *sum, i64 i, double value, bool keep)
{
    tensor_set(sum, i, value + (keep ? tensor_get(sum, i) : 0));
}

#endif
