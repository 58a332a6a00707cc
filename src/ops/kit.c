#include "ops/kit.h"

#include <stdio.h>

enum { TEXT = 128 };

static void describe_shape(char *out, int rank, const i64 *dim)
{
    int used = snprintf(out, TEXT, "(");
    for (int i = 0; i < rank && used < TEXT; i++) {
        const char *comma = i ? ", " : "";
        if (dim[i] < 0)
            used += snprintf(out + used, (size_t)(TEXT - used), "%sany", comma);
        else
            used += snprintf(out + used, (size_t)(TEXT - used), "%s%lld", comma,
                             (long long)dim[i]);
    }
    if (used < TEXT)
        snprintf(out + used, (size_t)(TEXT - used), ")");
}

static int check_shape(struct graph *g, const struct task *t, const char *what,
                       const struct tensor *x, int rank, const i64 *dim)
{
    char got[TEXT], want[TEXT];
    bool fits = x && x->rank == rank;
    for (int i = 0; i < rank && fits; i++)
        fits = dim[i] < 0 || dim[i] == x->dim[i];
    if (fits)
        return OK;
    describe_shape(want, rank, dim);
    if (!x)
        return graph_fail(g, t, "%s is missing, expected shape %s", what, want);
    describe_shape(got, x->rank, x->dim);
    return graph_fail(g, t, "%s (%s) has shape %s, expected %s", what, x->name, got, want);
}

int kit_matrix(struct graph *g, const struct task *t, const char *what,
               const struct tensor *x, i64 rows, i64 columns)
{
    return check_shape(g, t, what, x, 2, (const i64[]){ rows, columns });
}

int kit_vector(struct graph *g, const struct task *t, const char *what,
               const struct tensor *x, i64 n)
{
    return check_shape(g, t, what, x, 1, &n);
}

int kit_same(struct graph *g, const struct task *t, const char *what,
             const struct tensor *x, const struct tensor *like)
{
    return check_shape(g, t, what, x, like->rank, like->dim);
}

int kit_dtype(struct graph *g, const struct task *t, const char *what,
              const struct tensor *x, enum dtype dtype)
{
    if (x->dtype == dtype)
        return OK;
    return graph_fail(g, t, "%s (%s) is %s, expected %s", what, x->name,
                      dtype_name(x->dtype), dtype_name(dtype));
}

int kit_compute_dtype(struct graph *g, const struct task *t, const char *what,
                      const struct tensor *x)
{
    if (x->dtype == DTYPE_F32 || x->dtype == DTYPE_BF16 || x->dtype == DTYPE_F64)
        return OK;
    return graph_fail(g, t, "%s (%s) is %s, expected f32 or bf16", what, x->name,
                      dtype_name(x->dtype));
}

int kit_wide_vector(struct graph *g, const struct task *t, const char *what,
                    const struct tensor *v, i64 n, const struct tensor *x)
{
    TRY(kit_vector(g, t, what, v, n));
    return kit_dtype(g, t, what, v, kit_wide(x));
}

int kit_row_sums(struct graph *g, const struct task *t, const char *what,
                 const struct tensor *v, i64 C, const struct tensor *x)
{
    if (!v || v->rank != 2)
        return kit_wide_vector(g, t, what, v, C, x);
    TRY(kit_matrix(g, t, what, v, KIT_ANY, C));
    if (v->dim[0] < 1 || tensor_rows(x) % v->dim[0])
        return graph_fail(g, t, "%lld rows do not make %lld equal groups",
                          (long long)tensor_rows(x), (long long)v->dim[0]);
    return kit_dtype(g, t, what, v, kit_wide(x));
}

int kit_norm_grad(struct graph *g, struct task *t, int addend)
{
    struct tensor *dy = t->in[0];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_same(g, t, "x", t->in[1], dy));
    TRY(kit_dtype(g, t, "x", t->in[1], dy->dtype));
    TRY(kit_wide_vector(g, t, "gain", t->in[2], dy->dim[1], dy));
    if (t->in[addend]) {
        TRY(kit_same(g, t, "addend", t->in[addend], dy));
        TRY(kit_dtype(g, t, "addend", t->in[addend], dy->dtype));
    }
    if (!t->out[0])
        t->out[0] = graph_like(g, dy, dy->dtype, t->op->name);
    if (!t->out[1]) /* a frozen gain */
        t->out[1] = graph_vector(g, kit_wide(dy), dy->dim[1], "dgain");
    TRY(kit_same(g, t, "dx", t->out[0], dy));
    TRY(kit_dtype(g, t, "dx", t->out[0], dy->dtype));
    return kit_row_sums(g, t, "dgain", t->out[1], dy->dim[1], dy);
}

int kit_heads(struct graph *g, const struct task *t, i64 H, i64 G, i64 D)
{
    if (H < 1 || G < 1 || H % G != 0)
        return graph_fail(g, t, "%lld query heads do not divide among %lld key heads",
                          (long long)H, (long long)G);
    if (D < 1 || D > KIT_HEAD_SIZE)
        return graph_fail(g, t, "head size %lld is outside 1..%d", (long long)D,
                          (int)KIT_HEAD_SIZE);
    return OK;
}

int kit_pairs(struct graph *g, const struct task *t, i64 pairs, i64 T)
{
    if (pairs < 0 || (pairs & (pairs - 1)) || (pairs > 0 && T % (2 * pairs)))
        return graph_fail(g, t, "%lld queries are not a power of two of pairs of chunks, %lld",
                          (long long)T, (long long)pairs);
    return OK;
}

int kit_queries(struct graph *g, const struct task *t, const char *what, const struct tensor *x,
                const i64 dim[3], const struct tensor *qkv)
{
    if (!x || x->rank != 3 || x->dim[0] != dim[0] || x->dim[1] != dim[1] || x->dim[2] != dim[2])
        return graph_fail(g, t, "%s has the wrong shape, expected (%lld, %lld, %lld)", what,
                          (long long)dim[0], (long long)dim[1], (long long)dim[2]);
    return kit_dtype(g, t, what, x, kit_wide(qkv));
}

int kit_top(struct graph *g, const struct task *t, const i64 dim[3], const struct tensor *qkv)
{
    return t->out[2] ? kit_queries(g, t, "top", t->out[2], dim, qkv) : OK;
}

void kit_traffic(const struct task *t, struct cost *c)
{
    for (int i = 0; i < t->op->n_in; i++)
        if (t->in[i])
            c->read_bytes += (double)tensor_bytes(t->in[i]);
    for (int i = 0; i < t->op->n_out; i++)
        if (t->out[i])
            c->written_bytes += (double)tensor_bytes(t->out[i]);
}

void kit_elementwise(const struct task *t, struct cost *c, double flops_per_element)
{
    kit_traffic(t, c);
    c->flops = flops_per_element * (double)tensor_count(t->in[0]);
}
