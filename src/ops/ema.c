/* Exponential moving average of the weights: avg += (1 - decay) (p - avg).
 * p, avg of any one shape, f32; avg in place. */
#include "ops/example.h"
#include "ops/kit.h"

static int ema_infer(struct graph *g, struct task *t)
{
    if (!t->in[0])
        return graph_fail(g, t, "p is missing");
    TRY(kit_dtype(g, t, "p", t->in[0], DTYPE_F32));
    TRY(kit_same(g, t, "avg", t->out[0], t->in[0]));
    return kit_dtype(g, t, "avg", t->out[0], DTYPE_F32);
}

static void ema_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
    c->read_bytes += (double)tensor_bytes(t->out[0]);
}

static void ema_ref(const struct task *t, struct run *run)
{
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++) {
        double avg = tensor_get(t->out[0], i);
        tensor_set(t->out[0], i,
                   avg + (1 - t->attr[EMA_DECAY]) * (tensor_get(t->in[0], i) - avg));
    }
}

static bool ema_example(struct op_example *e, int n)
{
    static const i64 shapes[][2] = { { 3, 5 }, { 37, 131 } };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n][0], K = shapes[n][1];
    ema(e->g, example_normal(e, ROLE_PARAM, DTYPE_F32, N, K, 1),
        example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1), NULL, 0.9);
    return true;
}

const struct op_info op_ema = {
    .name = "ema", .n_in = 1, .n_out = 1,
    .infer = ema_infer, .cost = ema_cost, .run_ref = ema_ref, .example = ema_example,
};

void ema(struct graph *g, struct tensor *p, struct tensor *avg, struct tensor *when,
         double decay)
{
    graph_add(g, &(struct task){ .op = &op_ema, .phase = PHASE_UPDATE, .when = when,
                                 .in = { p }, .out = { avg },
                                 .attr = { [EMA_DECAY] = decay } });
}
