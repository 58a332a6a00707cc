/* The batch's way into the program: waits for the next prefetched micro-batch and copies
 * it. The data loader registers the kernel; here are only shapes and cost. */
#include "ops/kit.h"
#include "ops/ops.h"

static const struct { const char *name; enum dtype dtype; } parts[] = {
    [BATCH_TOKENS] = { "tokens", DTYPE_I32 },
    [BATCH_TARGETS] = { "targets", DTYPE_I32 },
    [BATCH_WEIGHTS] = { "weights", DTYPE_F32 },
    [BATCH_POSITIONS] = { "positions", DTYPE_I32 },
    [BATCH_BEGIN] = { "begin", DTYPE_I32 },
    [BATCH_SOURCES] = { "sources", DTYPE_I32 },
    [BATCH_INV_WEIGHT] = { "inv_weight", DTYPE_F32 },
};

static int load_batch_infer(struct graph *g, struct task *t)
{
    for (int i = 0; i < COUNT_OF(parts); i++) {
        i64 rows = i == BATCH_INV_WEIGHT ? 1 : tensor_count(t->out[BATCH_TOKENS]);
        TRY(kit_vector(g, t, parts[i].name, t->out[i], rows));
        TRY(kit_dtype(g, t, parts[i].name, t->out[i], parts[i].dtype));
    }
    return OK;
}

const struct op_info op_load_batch = {
    .name = "load_batch", .n_out = COUNT_OF(parts),
    .infer = load_batch_infer, .cost = kit_traffic,
};

void load_batch(struct graph *g, i64 B, i64 T, struct batch *out)
{
    struct task proto = { .op = &op_load_batch };
    for (int i = 0; i < COUNT_OF(parts); i++) {
        i64 rows = i == BATCH_INV_WEIGHT ? 1 : B * T;
        proto.out[i] = graph_tensor(g, ROLE_INPUT, parts[i].dtype, 1, &rows, "%s",
                                    parts[i].name);
    }
    graph_add(g, &proto);
    *out = (struct batch){ .tokens = proto.out[BATCH_TOKENS],
                           .targets = proto.out[BATCH_TARGETS],
                           .weights = proto.out[BATCH_WEIGHTS],
                           .positions = proto.out[BATCH_POSITIONS],
                           .begin = proto.out[BATCH_BEGIN],
                           .sources = proto.out[BATCH_SOURCES],
                           .inv_weight = proto.out[BATCH_INV_WEIGHT] };
}
