/* y = a + b, element by element; da = db = dy, passed on without a copy. */
#include "ops/example.h"
#include "ops/kit.h"

static int add_infer(struct graph *g, struct task *t)
{
    struct tensor *a = t->in[0], *b = t->in[1];
    if (!a || !b)
        return graph_fail(g, t, "%s is missing", a ? "b" : "a");
    TRY(kit_compute_dtype(g, t, "a", a));
    TRY(kit_same(g, t, "b", b, a));
    TRY(kit_dtype(g, t, "b", b, a->dtype));
    if (!t->out[0])
        t->out[0] = graph_like(g, a, a->dtype, "add");
    TRY(kit_same(g, t, "y", t->out[0], a));
    return kit_dtype(g, t, "y", t->out[0], a->dtype);
}

static void add_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void add_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->out[0]); i++)
        tensor_set(t->out[0], i, tensor_get(t->in[0], i) + tensor_get(t->in[1], i));
}

static void add_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    for (int i = 0; i < 2 && dy; i++)
        if (grad_needed(g, t->in[i]))
            grad_add(g, t->in[i], dy);
}

static bool add_example(struct op_example *e, int n)
{
    static const i64 shapes[][2] = { { 3, 5 }, { 17, 131 }, { 129, 96 } };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 R = shapes[n][0], C = shapes[n][1];
    struct tensor *a = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    add(e->g, a, example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1));
    return true;
}

const struct op_info op_add = {
    .name = "add", .n_in = 2, .n_out = 1, .in_place = 1u << 0 | 1u << 1,
    .infer = add_infer, .grad = add_grad, .cost = add_cost, .run_ref = add_ref,
    .example = add_example,
};

struct tensor *add(struct graph *g, struct tensor *a, struct tensor *b)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_add, .in = { a, b } });
    return t ? t->out[0] : NULL;
}
