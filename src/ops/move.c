/* What stages of a pipeline hand each other, as tasks. Carried out by parallel/, which knows who
 * holds which stage.
 *
 *   send   in: rows that leave this rank
 *   recv   out: rows that come from another one
 *
 * A boundary lies between two stages; forward, data cross it upwards, and their gradients
 * come back. So the gradient of a send is a recv, and that of a recv a send. */
#include "ops/kit.h"
#include "ops/ops.h"

static int send_infer(struct graph *g, struct task *t)
{
    return kit_compute_dtype(g, t, "x", t->in[0]);
}

static int recv_infer(struct graph *g, struct task *t)
{
    return kit_compute_dtype(g, t, "y", t->out[0]);
}

static void send_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->message_bytes = (double)tensor_bytes(t->in[0]);
}

static void send_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0];
    if (!grad_needed(g, x))
        return;
    struct task proto = { .op = &op_recv, .lane = t->lane, .phase = PHASE_INPUT_GRAD,
                          .out = { grad_target(g, x) },
                          .attr = { [MOVE_BOUNDARY] = t->attr[MOVE_BOUNDARY] } };
    if (graph_add(g, &proto))
        grad_add(g, x, proto.out[0]);
}

static void recv_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (dy)
        graph_add(g, &(struct task){ .op = &op_send, .lane = t->lane,
                                     .phase = PHASE_INPUT_GRAD, .in = { dy },
                                     .attr = { [MOVE_BOUNDARY] = t->attr[MOVE_BOUNDARY] } });
}

const struct op_info op_send = {
    .name = "send", .n_in = 1, .sends = true,
    .infer = send_infer, .grad = send_grad, .cost = send_cost,
};

const struct op_info op_recv = {
    .name = "recv", .n_out = 1, .receives = true,
    .infer = recv_infer, .grad = recv_grad, .cost = kit_traffic,
};

void send_rows(struct graph *g, struct tensor *x, i64 boundary)
{
    graph_add(g, &(struct task){ .op = &op_send, .lane = LANE_PP, .in = { x },
                                 .attr = { [MOVE_BOUNDARY] = (double)boundary,
                                           [MOVE_UP] = 1 } });
}

struct tensor *recv_rows(struct graph *g, enum dtype dtype, i64 rows, i64 columns, i64 boundary)
{
    struct tensor *y = graph_matrix(g, dtype, rows, columns, "received");
    graph_add(g, &(struct task){ .op = &op_recv, .lane = LANE_PP, .out = { y },
                                 .attr = { [MOVE_BOUNDARY] = (double)boundary,
                                           [MOVE_UP] = 1 } });
    return y;
}
