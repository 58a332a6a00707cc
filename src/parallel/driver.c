#include "parallel/driver.h"

#include "base/err.h"
#include "base/sys.h"
#include "comm/lane.h"
#include "graph/program.h"
#include "ops/ops.h"

enum { TASKS_AHEAD = 64 };

/* Calls in the order of starting; [ended, started) may be under way, each at its number modulo
 * capacity. A ticket is the number of a task's last call, counted from 1. */
struct called {
    struct trace *trace; /* NULL: nobody asks, or it was told */
    struct span span;
};

struct queue {
    struct comm_lane *lane; /* its thread; NULL: calls are carried out by who waits for them */
    struct comm_call *calls;
    i64 *counts; /* [capacity][2][members]: the parts of each call, sent and received */
    struct called *called; /* [capacity]: for whom */
    u64 started, ended, capacity;
};

struct driver {
    const struct mesh *mesh;
    struct queue queues[LANE_COUNT];
    struct lane_driver lanes;
    i64 left_out; /* calls, on purpose */
};

i64 driver_calls(const struct program *p)
{
    i64 most = 1;
    for (i64 id = 0; id < p->n_tasks; id++)
        if (p->by_id[id]->lane != LANE_COMPUTE)
            most = i64_max(most, (i64)p->by_id[id]->attr[COLLECTIVE_OUTER]);
    return most;
}

/* --- queue -------------------------------------------------------------------------- */

/* Spans of calls are written by the thread that waits for them: one writer per lane. */
static void tell_call(const struct comm_call *call, struct called *c)
{
    c->span.begin_ns = call->started_ns;
    c->span.end_ns = call->finished_ns;
    if (c->trace)
        trace_add(c->trace, &c->span);
    c->trace = NULL;
}

/* The call at this place. 1, 0 or negative as lane_driver's wait. */
static int end_call(struct queue *q, u64 at, bool block)
{
    struct comm_call *call = &q->calls[at];
    int rc = q->lane ? comm_lane_wait(q->lane, call) : block ? comm_wait(call) : comm_test(call);
    if (rc < 0 || (rc == 0 && !q->lane && !block))
        return rc;
    tell_call(call, &q->called[at]);
    return 1;
}

/* Ends the calls up to and with number `last`. */
static int end_calls(struct queue *q, u64 last, bool block)
{
    while (q->ended < last) {
        int rc = end_call(q, q->ended % q->capacity, block);
        if (rc != 1)
            return rc;
        q->ended++;
    }
    return 1;
}

/* A free call for the task; waits for the oldest when all are under way. */
static int next_call(struct driver *d, const struct task *t, const struct run *x,
                     struct comm_call **out, i64 **counts)
{
    struct queue *q = &d->queues[t->lane];
    const struct comm_group *group = d->mesh->groups[t->lane];
    if (q->started - q->ended == q->capacity && end_calls(q, q->ended + 1, true) < 0)
        return ERR_SYS;
    u64 at = q->started++ % q->capacity;
    *out = &q->calls[at];
    *counts = q->counts + at * 2 * (u64)group->n;
    q->called[at] = (struct called){
        x->trace, { .step = (u32)x->step, .action = (u16)x->action, .task = t->id,
                    .lane = (u8)trace_of_lane(t->lane), .kind = SPAN_CALL } };
    return OK;
}

/* Started, or taken to have ended: a rank that leaves calls out is what a hang is. */
static int submit(struct queue *q, struct comm_call *call, struct driver *d, const struct run *x)
{
    const struct inject_fault *hang = inject_at(x->inject, INJECT_HANG, x->step);
    if (hang && (double)d->left_out < hang->value) {
        d->left_out++;
        call->started_ns = call->finished_ns = sys_now_ns();
        call->status = COMM_DONE;
        return OK;
    }
    if (!q->lane)
        return comm_start(call);
    comm_lane_submit(q->lane, call);
    return OK;
}

/* As the link would that was asked for. */
static void slow_down(struct comm_call *call, const struct run *x, double bytes)
{
    const struct comm_group *g = call->group;
    bool move = call->op == COMM_SEND || call->op == COMM_RECV;
    if (!x->inject)
        return;
    struct inject_call c = inject_call(x->inject, x->step, g->members, g->n, g->index,
                                       move ? call->peer : -1, bytes);
    call->link_ns = (u64)(1e9 * c.link);
    call->delay_ns = (u64)(1e9 * c.delay);
}

/* --- from task to call -------------------------------------------------------------- */

static enum comm_op comm_op_of(const struct task *t)
{
    if (t->op == &op_reduce_scatter)
        return COMM_REDUCE_SCATTER;
    if (t->op == &op_all_to_all || t->op == &op_ring_shift || t->op == &op_expert_exchange)
        return COMM_ALL_TO_ALL;
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

static bool is_move(const struct task *t)
{
    return t->op->sends || t->op->receives;
}

/* Both ends describe it as the send. */
static int start_move(struct driver *d, const struct task *t, const struct run *x)
{
    const struct tensor *moved = t->op->sends ? t->in[0] : t->out[0];
    struct queue *q = &d->queues[t->lane];
    struct comm_call *call;
    i64 *counts;
    TRY(next_call(d, t, x, &call, &counts));
    *call = (struct comm_call){
        .op = t->op->sends ? COMM_SEND : COMM_RECV,
        .group = d->mesh->boundaries[(i64)t->attr[MOVE_BOUNDARY]],
        .in = t->op->sends ? moved->data : NULL,
        .out = t->op->sends ? NULL : moved->data,
        .count = tensor_count(moved),
        .peer = (t->attr[MOVE_UP] != 0) == t->op->sends, /* member 1 has the later stage */
        .dtype = moved->dtype,
        .tag = tag_of(&(struct task){ .op = &op_send, .layer = t->layer, .phase = t->phase }),
    };
    slow_down(call, x, (double)tensor_bytes(moved));
    return submit(q, call, d, x);
}

/* Rows to and from each rank, as the task before has counted them. */
static void set_traffic(const struct task *t, int n, i64 *counts)
{
    const i32 *traffic = t->in[1]->data;
    i64 columns = t->in[0]->dim[1];
    bool back = t->attr[EXCHANGE_BACK] != 0;
    for (int i = 0; i < n; i++) {
        counts[i] = columns * traffic[back ? n + i : i];
        counts[n + i] = columns * traffic[back ? i : n + i];
    }
}

/* Elements to each member, then from each. A ring's step is an exchange with the neighbours
 * alone: no order of sends and receives can block it. */
static void set_counts(const struct task *t, const struct comm_group *group, i64 whole, i64 *counts)
{
    const bool ring = t->op == &op_ring_shift;
    const int step = ring && t->attr[RING_STEP] < 0 ? group->n - 1 : 1;
    for (int i = 0; i < 2 * group->n; i++)
        counts[i] = ring ? 0 : whole / group->n;
    if (ring) {
        counts[(group->index + step) % group->n] = whole;
        counts[group->n + (group->index + group->n - step) % group->n] = whole;
    }
}

static struct comm_group *group_of(const struct mesh *m, const struct task *t)
{
    return collective_of_heads(t) ? m->heads
           : collective_of_twins(t) ? m->row_twins : m->groups[t->lane];
}

static int start_one(struct driver *d, const struct task *t, i64 block, const struct run *x)
{
    struct comm_group *group = group_of(d->mesh, t);
    struct comm_call *call;
    i64 *counts, outer = (i64)t->attr[COLLECTIVE_OUTER];
    i64 in_bytes = tensor_bytes(t->in[0]) / outer, out_bytes = tensor_bytes(t->out[0]) / outer;
    i64 whole = i64_max(in_bytes, out_bytes) / dtype_bytes(dtype_of(t));
    TRY(next_call(d, t, x, &call, &counts));
    if (t->op == &op_expert_exchange)
        set_traffic(t, group->n, counts);
    else
        set_counts(t, group, whole, counts);
    *call = (struct comm_call){
        .op = comm_op_of(t),
        .group = group,
        .in = (const u8 *)t->in[0]->data + block * in_bytes,
        .out = (u8 *)t->out[0]->data + block * out_bytes,
        .count = whole,
        .counts = counts,
        .recv_counts = counts + group->n,
        .dtype = dtype_of(t),
        .reduce = t->attr[COLLECTIVE_KIND] == COLLECTIVE_MAX ? COMM_MAX : COMM_SUM,
        .exact = true, /* whatever carries it, the same run gives the same bits */
        .tag = tag_of(t),
    };
    slow_down(call, x, t->cost.message_bytes / (double)outer);
    return submit(&d->queues[t->lane], call, d, x);
}

static int start(void *context, const struct task *t, struct run *x, u64 *ticket)
{
    struct driver *d = context;
    if (is_move(t))
        TRY(start_move(d, t, x));
    else
        for (i64 block = 0; block < (i64)t->attr[COLLECTIVE_OUTER]; block++)
            TRY(start_one(d, t, block, x));
    *ticket = d->queues[t->lane].started;
    return OK;
}

static int wait_for(void *context, enum lane lane, u64 ticket, bool block)
{
    struct queue *q = &((struct driver *)context)->queues[lane];
    if (lane_in_order(lane) || ticket <= q->ended)
        return end_calls(q, ticket, block);
    return end_call(q, (ticket - 1) % q->capacity, block);
}

/* --- life --------------------------------------------------------------------------- */

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
        q->called = ARENA_ARRAY(a, struct called, (i64)q->capacity);
        q->counts = ARENA_ARRAY(a, i64, (i64)q->capacity * 2 * mesh->groups[lane]->n);
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
