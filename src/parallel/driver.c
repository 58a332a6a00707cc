#include "parallel/driver.h"

#include "base/err.h"
#include "comm/lane.h"
#include "graph/program.h"
#include "ops/ops.h"

enum { TASKS_AHEAD = 64 };

/* Calls in the order of starting; [ended, started) are under way, each at its number modulo
 * capacity. A ticket is the number of a task's last call, counted from 1. */
struct queue {
    struct comm_lane *lane; /* its thread; NULL: calls are carried out by who waits for them */
    struct comm_call *calls;
    i64 *counts; /* [capacity][members]: the parts of each call */
    u64 started, ended, capacity;
};

struct driver {
    const struct mesh *mesh;
    struct queue queues[LANE_COUNT];
    struct lane_driver lanes;
};

i64 driver_calls(const struct program *p)
{
    i64 most = 1;
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->lane != LANE_COMPUTE)
            most = i64_max(most, (i64)p->by_id[id]->attr[COLLECTIVE_OUTER]);
    return most;
}

/* --- queue ------------------------------------------------------------------------------- */

/* Ends the calls up to and with number `last`. 1, 0 or negative as lane_driver's wait. */
static int end_calls(struct queue *q, u64 last, bool block)
{
    while (q->ended < last) {
        struct comm_call *call = &q->calls[q->ended % q->capacity];
        int rc = q->lane ? comm_lane_wait(q->lane, call)
                 : block ? comm_wait(call) : comm_test(call);
        if (rc < 0 || (!block && rc == 0))
            return rc;
        q->ended++;
    }
    return 1;
}

/* A free call; waits for the oldest when all are under way. */
static int next_call(struct queue *q, const struct comm_group *group, struct comm_call **out,
                     i64 **counts)
{
    if (q->started - q->ended == q->capacity && end_calls(q, q->ended + 1, true) < 0)
        return ERR_SYS;
    u64 at = q->started++ % q->capacity;
    *out = &q->calls[at];
    *counts = q->counts + at * (u64)group->n;
    return OK;
}

/* --- from task to call ------------------------------------------------------------------- */

static enum comm_op comm_op_of(const struct task *t)
{
    if (t->op == &op_reduce_scatter)
        return COMM_REDUCE_SCATTER;
    return t->op == &op_all_gather ? COMM_ALL_GATHER : COMM_ALLREDUCE;
}

/* The bits of a value that is zero elsewhere are summed as whole numbers. */
static enum dtype dtype_of(const struct task *t)
{
    if (t->attr[COLLECTIVE_KIND] == COLLECTIVE_BITS)
        return DTYPE_I32;
    return t->in[0]->dtype;
}

/* The same on every rank, unlike a task's id: ranks may have more or fewer tasks between. */
static u32 tag_of(const struct task *t)
{
    return (u32)(t->layer + 1) << 12 | (u32)t->phase << 8 | (u32)op_index(t->op);
}

static int start_one(struct driver *d, const struct task *t, i64 block)
{
    struct comm_group *group = d->mesh->groups[t->lane];
    struct comm_call *call;
    i64 *counts, outer = (i64)t->attr[COLLECTIVE_OUTER];
    i64 in_bytes = tensor_bytes(t->in[0]) / outer, out_bytes = tensor_bytes(t->out[0]) / outer;
    i64 whole = i64_max(in_bytes, out_bytes) / dtype_bytes(dtype_of(t));
    TRY(next_call(&d->queues[t->lane], group, &call, &counts));
    for (int i = 0; i < group->n; i++)
        counts[i] = whole / group->n;
    *call = (struct comm_call){
        .op = comm_op_of(t),
        .group = group,
        .in = (const u8 *)t->in[0]->data + block * in_bytes,
        .out = (u8 *)t->out[0]->data + block * out_bytes,
        .count = whole,
        .counts = counts,
        .dtype = dtype_of(t),
        .reduce = t->attr[COLLECTIVE_KIND] == COLLECTIVE_MAX ? COMM_MAX : COMM_SUM,
        .exact = true, /* whatever carries it, the same run gives the same bits */
        .tag = tag_of(t),
    };
    if (!d->queues[t->lane].lane)
        return comm_start(call);
    comm_lane_submit(d->queues[t->lane].lane, call);
    return OK;
}

static int start(void *context, const struct task *t, struct run *x, u64 *ticket)
{
    struct driver *d = context;
    (void)x;
    for (i64 block = 0; block < (i64)t->attr[COLLECTIVE_OUTER]; block++)
        TRY(start_one(d, t, block));
    *ticket = d->queues[t->lane].started;
    return OK;
}

static int wait_for(void *context, enum lane lane, u64 ticket, bool block)
{
    struct driver *d = context;
    return end_calls(&d->queues[lane], ticket, block);
}

/* --- life -------------------------------------------------------------------------------- */

int driver_new(struct driver **out, const struct mesh *mesh, i64 most_calls, bool threads)
{
    struct arena *a = &mesh->comm->arena;
    struct driver *d = ARENA_NEW(a, struct driver);
    d->mesh = mesh;
    d->lanes = (struct lane_driver){ d, start, wait_for };
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        struct queue *q = &d->queues[lane];
        if (!mesh->groups[lane])
            continue;
        q->capacity = (u64)(most_calls * TASKS_AHEAD);
        q->calls = ARENA_ARRAY(a, struct comm_call, (i64)q->capacity);
        q->counts = ARENA_ARRAY(a, i64, (i64)q->capacity * mesh->groups[lane]->n);
        if (threads)
            TRY(comm_lane_new(&q->lane, mesh->comm, -1));
    }
    *out = d;
    return OK;
}

void driver_free(struct driver *d)
{
    for (int lane = 0; d && lane < LANE_COUNT; lane++)
        if (d->queues[lane].lane)
            comm_lane_free(d->queues[lane].lane);
}

const struct lane_driver *driver_lanes(const struct driver *d)
{
    return &d->lanes;
}
