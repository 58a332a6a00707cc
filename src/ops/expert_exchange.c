/* Rows on their way to experts of other ranks and back (ops.h says in which order).
 *
 *   expert_counts    rows for each expert, which an all_to_all tells the experts' ranks
 *   expert_arrival   from what all will send: the order by expert, and rows to and from each rank
 *   expert_exchange  the rows themselves; as many as that, so only the driver knows how many bytes
 *
 * What arrives is sorted and put back by expert_gather and expert_combine with one choice a row.
 * The gradient of an exchange is the exchange the other way. */
#include "ops/example.h"
#include "ops/kit.h"

static int check_integers(struct graph *g, const struct task *t, const char *what,
                          const struct tensor *x, i64 n)
{
    TRY(kit_vector(g, t, what, x, n));
    return kit_dtype(g, t, what, x, DTYPE_I32);
}

static struct tensor *integers(struct graph *g, i64 n, const char *name)
{
    return graph_vector(g, DTYPE_I32, n, name);
}

/* --- counts ------------------------------------------------------------------------- */

static int expert_counts_infer(struct graph *g, struct task *t)
{
    struct tensor *begin = t->in[0];
    TRY(check_integers(g, t, "begin", begin, KIT_ANY));
    if (!t->out[0])
        t->out[0] = integers(g, begin->dim[0] - 1, "expert.counts");
    return check_integers(g, t, "counts", t->out[0], begin->dim[0] - 1);
}

static void expert_counts_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 1);
}

static void expert_counts_ref(const struct task *t, struct run *run)
{
    const i32 *begin = t->in[0]->data;
    i32 *counts = t->out[0]->data;
    (void)run;
    for (i64 e = 0; e < t->out[0]->dim[0]; e++)
        counts[e] = begin[e + 1] - begin[e];
}

/* What n ranks send to E experts each, as far as one rank knows it. */
static const struct { i64 R, k, E, n, rank, leaves; } shapes[] = {
    { 6, 2, 4, 2, 1, 0 }, { 35, 3, 12, 4, 0, 5 }, { 9, 5, 5, 1, 0, 0 }, { 8, 2, 6, 2, 0, 1 },
};

static struct tensor *example_counts(struct op_example *e, int n)
{
    struct tensor *z = example_normal(e, ROLE_INPUT, DTYPE_F32, shapes[n].R, shapes[n].E, 1);
    struct router_config c = { .k = shapes[n].k, .T = 1, .scale = 1, .normalise = true };
    i64 leaf = shapes[n].leaves > 0 ? shapes[n].R / shapes[n].leaves : 0;
    struct expert_rows rows = expert_order(e->g, router(e->g, z, NULL, &c).choice, shapes[n].E,
                                           1, 0, leaf);
    struct task *t = graph_add(e->g, &(struct task){ .op = &op_expert_counts,
                                                     .in = { rows.begin } });
    return t ? t->out[0] : NULL;
}

static bool expert_counts_example(struct op_example *e, int n)
{
    return n < COUNT_OF(shapes) && example_counts(e, n);
}

const struct op_info op_expert_counts = {
    .name = "expert_counts", .n_in = 1, .n_out = 1, .cheap = true,
    .infer = expert_counts_infer, .cost = expert_counts_cost, .run_ref = expert_counts_ref,
    .example = expert_counts_example,
};

/* --- arrival ------------------------------------------------------------------------ */

/* Rows come in groups, of an expert's leaf each: so many of every rank, and in begin. */
static i64 begins_of(const struct task *t)
{
    i64 n = (i64)t->attr[ARRIVAL_RANKS], each = t->in[0]->dim[0] / n;
    return (t->attr[ARRIVAL_LEAVES] > 0 ? n * each : each) + 1;
}

static int expert_arrival_infer(struct graph *g, struct task *t)
{
    i64 n = (i64)t->attr[ARRIVAL_RANKS], most = (i64)t->attr[ARRIVAL_MOST];
    i64 L = i64_max(1, (i64)t->attr[ARRIVAL_LEAVES]);
    TRY(check_integers(g, t, "counts", t->in[0], KIT_ANY));
    i64 groups = t->in[0]->dim[0];
    TRY(check_integers(g, t, "arrived", t->in[1], groups));
    if (n < 1 || groups % (n * L) || most < 1)
        return graph_fail(g, t, "%lld experts cannot be shared out to %lld ranks",
                          (long long)(groups / L), (long long)n);
    if (!t->out[0])
        t->out[0] = integers(g, most, "expert.arrival_source");
    if (!t->out[1])
        t->out[1] = graph_tensor(g, ROLE_ACTIVATION, DTYPE_I32, 2, (const i64[]){ most, 1 },
                                 "expert.arrival_place");
    if (!t->out[2])
        t->out[2] = integers(g, begins_of(t), "expert.arrival_begin");
    if (!t->out[3])
        t->out[3] = integers(g, 2 * n, "expert.traffic");
    TRY(check_integers(g, t, "source", t->out[0], most));
    TRY(kit_matrix(g, t, "place", t->out[1], most, 1));
    TRY(check_integers(g, t, "begin", t->out[2], begins_of(t)));
    return check_integers(g, t, "traffic", t->out[3], 2 * n);
}

static void expert_arrival_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2);
}

static void count_traffic(const struct task *t)
{
    i64 n = (i64)t->attr[ARRIVAL_RANKS], each = t->in[0]->dim[0] / n;
    i32 *traffic = t->out[3]->data;
    for (i64 way = 0; way < 2; way++)
        for (i64 rank = 0; rank < n; rank++) {
            const i32 *counts = (const i32 *)t->in[way]->data + rank * each;
            traffic[way * n + rank] = 0;
            for (i64 e = 0; e < each; e++)
                traffic[way * n + rank] += counts[e];
        }
}

/* Before group `end` of what arrives. */
static i64 rows_before(const i32 *arrived, i64 end)
{
    i64 rows = 0;
    for (i64 i = 0; i < end; i++)
        rows += arrived[i];
    return rows;
}

/* Rank by rank and in each expert by expert they come; expert by expert they go on. */
static void expert_arrival_ref(const struct task *t, struct run *run)
{
    i64 n = (i64)t->attr[ARRIVAL_RANKS], each = t->in[0]->dim[0] / n, row = 0;
    i64 most = t->out[0]->dim[0], L = i64_max(1, (i64)t->attr[ARRIVAL_LEAVES]);
    i64 apart = begins_of(t) - 1; /* groups that begin tells apart */
    const i32 *arrived = t->in[1]->data;
    i32 *source = t->out[0]->data, *place = t->out[1]->data, *begin = t->out[2]->data;
    (void)run;
    for (i64 i = 0; i < most; i++) {
        source[i] = 0;
        place[i] = -1;
    }
    for (i64 group = 0; group < n * each; group++) { /* by expert, rank and leaf */
        i64 from = group / L % n * each + group / (n * L) * L + group % L;
        i64 at = rows_before(arrived, from);
        if (group % (n * each / apart) == 0)
            begin[group / (n * each / apart)] = (i32)row;
        for (i64 i = 0; i < arrived[from]; i++) {
            source[row] = (i32)(at + i);
            place[at + i] = (i32)row++;
        }
    }
    begin[apart] = (i32)row;
    count_traffic(t);
}

static bool expert_arrival_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    struct tensor *counts = example_counts(e, n);
    expert_arrival(e->g, counts, counts, shapes[n].n, shapes[n].R * shapes[n].k * 2,
                   shapes[n].leaves);
    return true;
}

const struct op_info op_expert_arrival = {
    .name = "expert_arrival", .n_in = 2, .n_out = 4, .infer = expert_arrival_infer,
    .cost = expert_arrival_cost, .run_ref = expert_arrival_ref, .example = expert_arrival_example,
};

struct expert_arrival expert_arrival(struct graph *g, struct tensor *counts,
                                     struct tensor *arrived, i64 ranks, i64 most, i64 leaves)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_arrival, .in = { counts, arrived },
        .attr = { [ARRIVAL_RANKS] = (double)ranks, [ARRIVAL_MOST] = (double)most,
                  [ARRIVAL_LEAVES] = (double)leaves } });
    return t ? (struct expert_arrival){ { t->out[0], t->out[1], t->out[2] }, t->out[3] }
             : (struct expert_arrival){ 0 };
}

/* --- exchange ----------------------------------------------------------------------- */

static int expert_exchange_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    i64 rows = (i64)t->attr[EXCHANGE_ROWS];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(check_integers(g, t, "traffic", t->in[1], 2 * (i64)t->attr[COLLECTIVE_SIZE]));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, x->dtype, rows, x->dim[1], "expert_exchange");
    TRY(kit_matrix(g, t, "y", t->out[0], rows, x->dim[1]));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

/* Of even loads: as many rows arrive as leave, the n-th part of them from here. */
static void expert_exchange_cost(const struct task *t, struct cost *c)
{
    const struct tensor *x = t->in[0];
    double n = t->attr[COLLECTIVE_SIZE], rows = (double)i64_min(x->dim[0], t->out[0]->dim[0]);
    double bytes = rows * (double)(x->dim[1] * dtype_bytes(x->dtype));
    c->read_bytes = c->written_bytes = bytes;
    c->message_bytes = (n - 1) / n * bytes;
}

static void expert_exchange_grad(struct graph *g, const struct task *t)
{
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, t->in[0]))
        return;
    struct task proto = { .op = &op_expert_exchange, .lane = t->lane, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, t->in[1] } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    proto.attr[EXCHANGE_BACK] = t->attr[EXCHANGE_BACK] == 0;
    proto.attr[EXCHANGE_ROWS] = (double)t->in[0]->dim[0];
    struct task *back = graph_add(g, &proto);
    if (back)
        grad_add(g, t->in[0], back->out[0]);
}

const struct op_info op_expert_exchange = {
    .name = "expert_exchange", .n_in = 2, .n_out = 1, .infer = expert_exchange_infer,
    .grad = expert_exchange_grad, .cost = expert_exchange_cost,
};

/* --- the way there and back --------------------------------------------------------- */

static struct tensor *exchange(struct graph *g, const struct expert_trip *trip, struct tensor *x,
                               i64 rows, bool back)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_exchange, .lane = LANE_EP, .in = { x, trip->arrival.traffic },
        .attr = { [COLLECTIVE_SIZE] = (double)trip->ranks, [COLLECTIVE_RANK] = (double)trip->rank,
                  [COLLECTIVE_OUTER] = 1, [EXCHANGE_BACK] = back,
                  [EXCHANGE_ROWS] = (double)rows } });
    return t ? t->out[0] : NULL;
}

struct tensor *expert_leave(struct graph *g, struct tensor *x, struct tensor *begin,
                            struct expert_trip *trip)
{
    struct task *t = graph_add(g, &(struct task){ .op = &op_expert_counts, .in = { begin } });
    struct tensor *counts = t ? t->out[0] : NULL;
    t = graph_add(g, &(struct task){
        .op = &op_all_to_all, .lane = LANE_EP, .in = { counts },
        .attr = { [COLLECTIVE_SIZE] = (double)trip->ranks, [COLLECTIVE_RANK] = (double)trip->rank,
                  [COLLECTIVE_OUTER] = 1 } });
    trip->arrival = expert_arrival(g, counts, t ? t->out[0] : NULL, trip->ranks, trip->most,
                                   trip->leaves);
    trip->left = x ? x->dim[0] : 0;
    return expert_gather(g, exchange(g, trip, x, trip->most, false), &trip->arrival.rows);
}

struct tensor *expert_return(struct graph *g, struct tensor *y, const struct expert_trip *trip)
{
    y = expert_combine(g, y, &trip->arrival.rows, NULL, NULL);
    return exchange(g, trip, y, trip->left, true);
}
