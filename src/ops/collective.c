/* What ranks exchange, as tasks: shapes and message bytes. The kernels live in parallel/,
 * which knows the mesh; the lane of a task says along which axis it communicates.
 *
 * n ranks take part. A tensor is seen as (outer, n, part): along the middle it is cut into
 * one part per rank, and `outer` lets the cut run through each sequence of a batch instead
 * of through the batch (rows (B, T, C) cut along T: outer = B).
 *
 *   reduce_scatter  in: partial sums, whole; out: the own part, summed
 *   all_gather      in: the own part; out: the whole
 *   take_part       in: the whole, which all have; out: the own part (no message)
 *   all_reduce      in: partial sums; out: the sum, everywhere; may be in place
 *   all_to_all      in: a part for each rank; out: a part from each
 *   ring_shift      in: what this rank has; out: what its neighbour has
 *
 * reduce_scatter and all_gather are each other's gradient: what was summed is handed to
 * all, and what was handed to all is summed (Korthikanti et al. 2022, section 4.2.2).
 * all_to_all is its own: part j of rank i and part i of rank j change places. Where all
 * ranks do the same with what was gathered, its gradient is everywhere the same, and the
 * own part of it is taken; where all do the same with a sum, its gradient is that of each
 * summand.
 *
 * Message bytes, of this rank and per call, of a ring (Thakur et al. 2005): (n-1)/n of
 * the whole, twice that for all_reduce. Where n does not divide what is summed, the first
 * ranks sum one element more; each sends what it does not sum and, n - 1 times, what it
 * has summed. ring_shift sends all it has. */
#include "ops/example.h"
#include "ops/kit.h"

static i64 ranks_of(const struct task *t)
{
    return (i64)t->attr[COLLECTIVE_SIZE];
}

/* What is cut: rows of a matrix, elements of a vector. */
static i64 units(const struct tensor *t)
{
    return t->rank == 1 ? t->dim[0] : tensor_rows(t);
}

static int check_cut(struct graph *g, struct task *t, const struct tensor *whole,
                     const struct tensor *part)
{
    i64 n = ranks_of(t), outer = (i64)t->attr[COLLECTIVE_OUTER];
    if (n < 1 || outer < 1 || units(whole) % (n * outer))
        return graph_fail(g, t, "%lld rows cannot be cut into %lld x %lld parts",
                          (long long)units(whole), (long long)outer, (long long)n);
    if (part->dtype != whole->dtype || tensor_count(part) * n != tensor_count(whole))
        return graph_fail(g, t, "the part of %lld elements is not one of %lld of %lld",
                          (long long)tensor_count(part), (long long)n,
                          (long long)tensor_count(whole));
    return OK;
}

static struct tensor *like_with(struct graph *g, const struct tensor *x, i64 count,
                                const char *name)
{
    if (x->rank == 1)
        return graph_vector(g, x->dtype, count, name);
    return graph_matrix(g, x->dtype, count, tensor_columns(x), name);
}

/* --- reduce_scatter ----------------------------------------------------------------- */

static int reduce_scatter_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->in[0];
    if (!t->out[0])
        t->out[0] = like_with(g, x, units(x) / ranks_of(t), "reduce_scatter");
    return t->out[0] ? check_cut(g, t, x, t->out[0]) : g->rc;
}

static void scatter_cost(const struct task *t, struct cost *c)
{
    const i64 n = ranks_of(t);
    kit_traffic(t, c);
    c->message_bytes = (double)((n - 1) * (tensor_bytes(t->in[0]) / n));
    c->flops = (double)((n - 1) * (tensor_count(t->in[0]) / n));
}

static void reduce_scatter_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = &op_all_gather, .lane = t->lane, .phase = PHASE_INPUT_GRAD,
                          .in = { dy } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    struct task *gather = graph_add(g, &proto);
    if (gather)
        grad_add(g, t->in[0], gather->out[0]);
}

const struct op_info op_reduce_scatter = {
    .name = "reduce_scatter", .n_in = 1, .n_out = 1, .infer = reduce_scatter_infer,
    .grad = reduce_scatter_grad, .cost = scatter_cost,
};

/* --- all_gather --------------------------------------------------------------------- */

static int all_gather_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->in[0];
    if (!t->out[0])
        t->out[0] = like_with(g, x, units(x) * ranks_of(t), "all_gather");
    return t->out[0] ? check_cut(g, t, t->out[0], x) : g->rc;
}

static void all_gather_cost(const struct task *t, struct cost *c)
{
    double n = (double)ranks_of(t);
    kit_traffic(t, c);
    c->message_bytes = (n - 1) * (double)tensor_bytes(t->in[0]);
}

static void all_gather_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = &op_reduce_scatter, .lane = t->lane,
                          .phase = PHASE_INPUT_GRAD, .in = { dy } };
    if (t->attr[COLLECTIVE_ALIKE] != 0) {
        proto.op = &op_take_part;
        proto.lane = LANE_COMPUTE;
    }
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    struct task *scatter = graph_add(g, &proto);
    if (!scatter)
        return;
    struct tensor *dx = scatter->out[0]; /* summed in f32 where dy is: wide_grad */
    grad_add(g, t->in[0],
             dx->dtype == t->in[0]->dtype ? dx : cast(g, dx, t->in[0]->dtype));
}

const struct op_info op_all_gather = {
    .name = "all_gather", .n_in = 1, .n_out = 1, .infer = all_gather_infer,
    .grad = all_gather_grad, .cost = all_gather_cost,
};

/* --- take_part ---------------------------------------------------------------------- */

static void take_part_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 0);
}

static void take_part_ref(const struct task *t, struct run *run)
{
    const i64 outer = (i64)t->attr[COLLECTIVE_OUTER], n = ranks_of(t);
    const i64 bytes = tensor_bytes(t->out[0]) / outer;
    const char *from = (const char *)t->in[0]->data + (i64)t->attr[COLLECTIVE_RANK] * bytes;
    (void)run;
    for (i64 o = 0; o < outer; o++)
        memcpy((char *)t->out[0]->data + o * bytes, from + o * n * bytes, (size_t)bytes);
}

static bool take_part_example(struct op_example *e, int n)
{
    static const struct { i64 R, C, outer, ranks, rank; } shapes[] = {
        { 24, 7, 3, 4, 2 }, { 10, 33, 1, 2, 1 }, { 5, 4, 5, 1, 0 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    struct task proto = {
        .op = &op_take_part,
        .in = { example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, shapes[n].C, 1) },
        .attr = { [COLLECTIVE_SIZE] = (double)shapes[n].ranks,
                  [COLLECTIVE_RANK] = (double)shapes[n].rank,
                  [COLLECTIVE_OUTER] = (double)shapes[n].outer },
    };
    graph_add(e->g, &proto);
    return true;
}

/* What it is the gradient of has none. */
const struct op_info op_take_part = {
    .name = "take_part", .n_in = 1, .n_out = 1, .infer = reduce_scatter_infer,
    .cost = take_part_cost, .run_ref = take_part_ref, .example = take_part_example,
};

/* --- all_reduce --------------------------------------------------------------------- */

static int all_reduce_infer(struct graph *g, struct task *t)
{
    if (!t->out[0])
        t->out[0] = graph_like(g, t->in[0], t->in[0]->dtype, "all_reduce");
    TRY(kit_same(g, t, "y", t->out[0], t->in[0]));
    return kit_dtype(g, t, "y", t->out[0], t->in[0]->dtype);
}

static void all_reduce_cost(const struct task *t, struct cost *c)
{
    const i64 n = ranks_of(t), messages = (i64)t->attr[COLLECTIVE_OUTER];
    const i64 count = tensor_count(t->in[0]) / messages;
    const i64 part = count / n + ((i64)t->attr[COLLECTIVE_RANK] < count % n);
    kit_traffic(t, c);
    c->message_bytes = (double)(messages * (count + (n - 2) * part) * dtype_bytes(t->in[0]->dtype));
    c->flops = (double)(messages * (n - 1) * part);
}

static void all_reduce_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (dy && grad_needed(g, t->in[0]))
        grad_add(g, t->in[0], dy);
}

const struct op_info op_all_reduce = {
    .name = "all_reduce", .n_in = 1, .n_out = 1, .infer = all_reduce_infer,
    .grad = all_reduce_grad, .cost = all_reduce_cost,
};

/* --- all_to_all --------------------------------------------------------------------- */

static int all_to_all_infer(struct graph *g, struct task *t)
{
    const struct tensor *x = t->in[0];
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "all_to_all");
    TRY(kit_same(g, t, "y", t->out[0], x));
    if (units(x) % ranks_of(t))
        return graph_fail(g, t, "%lld rows are not %lld parts", (long long)units(x),
                          (long long)ranks_of(t));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void all_to_all_cost(const struct task *t, struct cost *c)
{
    const i64 n = ranks_of(t);
    kit_traffic(t, c);
    c->message_bytes = (double)((n - 1) * (tensor_bytes(t->in[0]) / n));
}

static void all_to_all_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = &op_all_to_all, .lane = t->lane, .phase = PHASE_INPUT_GRAD,
                          .in = { dy } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    struct task *back = graph_add(g, &proto);
    if (back)
        grad_add(g, t->in[0], back->out[0]);
}

const struct op_info op_all_to_all = {
    .name = "all_to_all", .n_in = 1, .n_out = 1, .infer = all_to_all_infer,
    .grad = all_to_all_grad, .cost = all_to_all_cost,
};

/* --- ring_shift --------------------------------------------------------------------- */

static int ring_shift_infer(struct graph *g, struct task *t)
{
    double step = t->attr[RING_STEP];
    if (!t->out[0])
        t->out[0] = graph_like(g, t->in[0], t->in[0]->dtype, "ring_shift");
    TRY(kit_same(g, t, "y", t->out[0], t->in[0]));
    if (ranks_of(t) < 2 || (step != 1 && step != -1))
        return graph_fail(g, t, "a ring of %lld ranks has no step %g", (long long)ranks_of(t),
                          step);
    return kit_dtype(g, t, "y", t->out[0], t->in[0]->dtype);
}

static void ring_shift_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->message_bytes = (double)tensor_bytes(t->in[0]);
}

const struct op_info op_ring_shift = {
    .name = "ring_shift", .n_in = 1, .n_out = 1, .cheap = true, .infer = ring_shift_infer,
    .cost = ring_shift_cost,
};
