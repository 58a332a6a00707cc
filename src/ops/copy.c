/* Between memory and slower memory: copies as tasks, so that they have a place in the step and
 * a price.
 *
 *   copy     y = x, on LANE_AWAY: one of the two is ROLE_AWAY
 *   release  nothing; it reads x on the compute lane, so that behind it all copies to x have
 *            ended, and what they read may be written again */
#include "ops/kit.h"
#include "ops/ops.h"

static int copy_infer(struct graph *g, struct task *t)
{
    if (!t->in[0] || !t->out[0])
        return graph_fail(g, t, "a copy has a source and a destination");
    TRY(kit_same(g, t, "y", t->out[0], t->in[0]));
    return kit_dtype(g, t, "y", t->out[0], t->in[0]->dtype);
}

static void copy_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
}

const struct op_info op_copy = {
    .name = "copy", .n_in = 1, .n_out = 1, .infer = copy_infer, .cost = copy_cost,
};

static int release_infer(struct graph *g, struct task *t)
{
    return t->in[0] ? OK : graph_fail(g, t, "nothing to release");
}

const struct op_info op_release = {
    .name = "release", .n_in = 1, .waits = true, .infer = release_infer,
};
