/* Embedding: y[r] = wte[tokens[r]] + wpe[positions[r]], and its gradient, a scatter:
 *   dtable[index[r]] += dy[r], rows added in ascending r, each sum rounded to the dtype of
 * dtable as it goes, so that every backend and thread count gives the same bits. With a grain,
 * rows are added within runs of so many rows, and the runs in a tree; a run without the index
 * counts as +0, so that -0 never comes out.
 *
 * A table may be a share of the whole; rows that another rank has count as zeros.
 * tokens, positions (R)   wte (V,C)   wpe (P,C)   y, dy (R,C) */
#include "ops/example.h"
#include "ops/kit.h"

static int embed_infer(struct graph *g, struct task *t)
{
    struct tensor *tokens = t->in[0], *wte = t->in[1];
    TRY(kit_vector(g, t, "tokens", tokens, KIT_ANY));
    TRY(kit_dtype(g, t, "tokens", tokens, DTYPE_I32));
    TRY(kit_matrix(g, t, "wte", wte, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "wte", wte));
    i64 R = tokens->dim[0], C = wte->dim[1];
    if (!t->in[2] != !t->in[3])
        return graph_fail(g, t, "positions and wpe go together, got only one of them");
    if (t->in[3]) {
        TRY(kit_vector(g, t, "positions", t->in[2], R));
        TRY(kit_dtype(g, t, "positions", t->in[2], DTYPE_I32));
        TRY(kit_matrix(g, t, "wpe", t->in[3], KIT_ANY, C));
        TRY(kit_dtype(g, t, "wpe", t->in[3], wte->dtype));
    }
    if (!t->out[0])
        t->out[0] = graph_matrix(g, wte->dtype, R, C, "embed");
    TRY(kit_matrix(g, t, "y", t->out[0], R, C));
    return kit_dtype(g, t, "y", t->out[0], wte->dtype);
}

/* Only the rows that are looked up travel. */
static void embed_cost(const struct task *t, struct cost *c)
{
    double row = (double)tensor_bytes(t->out[0]), index = (double)tensor_bytes(t->in[0]);
    int tables = t->in[3] ? 2 : 1;
    c->flops = t->in[3] ? (double)tensor_count(t->out[0]) : 0;
    c->read_bytes = tables * (row + index);
    c->written_bytes = row;
}

/* Element c of row r's entry in the first or second table; 0 outside this share of it. */
static double looked_up(const struct task *t, int which, i64 r, i64 c)
{
    const struct tensor *table = t->in[2 * which + 1];
    i64 at = ((const i32 *)t->in[2 * which]->data)[r] - (i64)t->attr[EMBED_FIRST + which];
    bool here = at >= 0 && at < table->dim[0];
    return here ? tensor_get(table, at * table->dim[1] + c) : 0;
}

static void embed_ref(const struct task *t, struct run *run)
{
    i64 R = t->in[0]->dim[0], C = t->in[1]->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++)
        for (i64 c = 0; c < C; c++)
            tensor_set(t->out[0], r * C + c,
                       looked_up(t, 0, r, c) + (t->in[3] ? looked_up(t, 1, r, c) : 0));
}

/* One scatter per table, since a tied wte may have received gradients before. */
static void embed_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    for (int table = 1; dy && table <= 3; table += 2)
        if (t->in[table] && t->in[table]->grad)
            graph_add(g, &(struct task){ .op = &op_embed_grad, .phase = PHASE_WEIGHT_GRAD,
                                         .in = { dy, t->in[table - 1] },
                                         .out = { t->in[table]->grad },
                                         .attr = { [EMBED_FIRST] =
                                                       t->attr[table == 1 ? EMBED_FIRST
                                                               : EMBED_FIRST_POSITION] } });
}

/* R, vocabulary, width, positions (0: none); few words, so that some come twice. The last one
 * has a share of each table, from row `first` on. */
static const struct { i64 R, V, C, P, first, grain; } shapes[] = {
    { 7, 5, 3, 4, 0, 0 },       { 33, 20, 65, 0, 0, 0 },    { 130, 64, 48, 129, 0, 0 },
    { 33, 20, 17, 24, 5, 0 },   { 12 * 7, 20, 65, 24, 3, 7 },
};

static bool embed_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, C = shapes[n].C, P = shapes[n].P;
    i64 first = shapes[n].first; /* indices reach beyond the share at both ends */
    struct task proto = {
        .op = &op_embed,
        .in = { example_integers(e, R, shapes[n].V + 2 * first),
                example_weight(e, e->dtype, shapes[n].V, C, 1),
                P ? example_integers(e, R, P + 2 * first) : NULL,
                P ? example_weight(e, e->dtype, P, C, 1) : NULL },
        .attr = { [EMBED_FIRST] = (double)first, [EMBED_FIRST_POSITION] = (double)first },
    };
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_embed = {
    .name = "embed", .n_in = 4, .n_out = 1,
    .infer = embed_infer, .grad = embed_grad, .cost = embed_cost, .run_ref = embed_ref,
    .example = embed_example,
};

struct tensor *embed(struct graph *g, struct tensor *tokens, struct tensor *wte,
                     struct tensor *positions, struct tensor *wpe)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_embed,
                                                  .in = { tokens, wte, positions, wpe } });
    return t ? t->out[0] : NULL;
}

/* --- gradient ----------------------------------------------------------------------- */

static int embed_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *dtable = t->out[0];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_vector(g, t, "index", t->in[1], dy->dim[0]));
    TRY(kit_dtype(g, t, "index", t->in[1], DTYPE_I32));
    TRY(kit_matrix(g, t, "dtable", dtable, KIT_ANY, dy->dim[1]));
    i64 grain = (i64)t->attr[EMBED_GRAIN];
    if (grain > 0 && dy->dim[0] % grain)
        return graph_fail(g, t, "%lld rows are no runs of %lld", (long long)dy->dim[0],
                          (long long)grain);
    return kit_dtype(g, t, "dtable", dtable, kit_wide(dy));
}

static void embed_grad_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void embed_grad_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *dtable = t->out[0];
    const i32 *index = t->in[1]->data;
    i64 R = dy->dim[0], C = dy->dim[1];
    for (i64 i = 0; i < tensor_count(dtable) && !run_accumulates(t, run); i++)
        tensor_set(dtable, i, 0);
    for (i64 r = 0; r < R; r++) {
        i64 at = index[r] - (i64)t->attr[EMBED_FIRST];
        for (i64 c = 0; c < C && at >= 0 && at < dtable->dim[0]; c++)
            kit_sum(dtable, at * C + c, tensor_get(dy, r * C + c), true);
    }
}

static bool embed_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n].R, V = shapes[n].V, C = shapes[n].C;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *dtable = example_normal(e, ROLE_GRAD, DTYPE_F32, V, C, 1);
    graph_add(e->g, &(struct task){ .op = &op_embed_grad,
                                    .in = { dy, example_integers(e, R, V + 2 * shapes[n].first) },
                                    .out = { dtable },
                                    .attr = { [EMBED_FIRST] = (double)shapes[n].first,
                                              [EMBED_GRAIN] = (double)shapes[n].grain } });
    return true;
}

const struct op_info op_embed_grad = {
    .name = "embed_grad", .n_in = 2, .n_out = 1, .accumulates = true,
    .infer = embed_grad_infer, .cost = embed_grad_cost, .run_ref = embed_grad_ref,
    .example = embed_grad_example,
};
