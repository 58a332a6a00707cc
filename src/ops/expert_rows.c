/* Rows on their way to the experts and back: sorted by expert, gathered, combined (ops.h says
 * what pairs, places and begins are).
 *
 * Order and sums follow from the choices alone: rows of an expert are in the order of tokens, and
 * the parts of a token are added slot by slot. */
#include "ops/example.h"
#include "ops/kit.h"
#include "ops/zigzag.h"

static const i32 *integers(const struct tensor *t)
{
    return t->data;
}

/* Rows in use. */
static i64 used_rows(const struct tensor *begin)
{
    return integers(begin)[begin->dim[0] - 1];
}

static int check_i32(struct graph *g, const struct task *t, const char *what,
                     const struct tensor *x, i64 n)
{
    TRY(kit_vector(g, t, what, x, n));
    return kit_dtype(g, t, what, x, DTYPE_I32);
}

static int check_place(struct graph *g, const struct task *t, const struct tensor *place, i64 R)
{
    TRY(kit_matrix(g, t, "place", place, R, KIT_ANY));
    return kit_dtype(g, t, "place", place, DTYPE_I32);
}

/* --- order -------------------------------------------------------------------------- */

/* Most rows that may be in use. */
static i64 most_rows(const struct task *t)
{
    i64 R = t->in[0]->dim[0], k = t->in[0]->dim[1], T = (i64)t->attr[ORDER_T];
    i64 capacity = (i64)t->attr[ORDER_CAPACITY], E = (i64)t->attr[ORDER_EXPERTS];
    return capacity > 0 ? R / T * i64_min(T * k, E * capacity) : R * k;
}

/* Parts in which sequences are spread. */
static i64 row_parts(const struct task *t)
{
    return i64_max(1, (i64)t->attr[ORDER_ROW_PARTS]);
}

static i64 leaves_of(const struct task *t)
{
    i64 leaf = (i64)t->attr[ORDER_LEAF];
    return leaf > 0 ? t->in[0]->dim[0] / leaf : 1;
}

static int expert_order_infer(struct graph *g, struct task *t)
{
    struct tensor *choice = t->in[0];
    i64 E = (i64)t->attr[ORDER_EXPERTS], T = (i64)t->attr[ORDER_T];
    i64 leaf = (i64)t->attr[ORDER_LEAF];
    TRY(kit_matrix(g, t, "choice", choice, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "choice", choice, DTYPE_I32));
    if (t->in[1]) {
        TRY(kit_matrix(g, t, "all", t->in[1], row_parts(t) * choice->dim[0], choice->dim[1]));
        TRY(kit_dtype(g, t, "all", t->in[1], DTYPE_I32));
    }
    if (E < 1 || T < 1 || choice->dim[0] % T)
        return graph_fail(g, t, "%lld rows are not sequences of %lld for %lld experts",
                          (long long)choice->dim[0], (long long)T, (long long)E);
    if (leaf > 0 && choice->dim[0] % leaf)
        return graph_fail(g, t, "%lld rows are not leaves of %lld", (long long)choice->dim[0],
                          (long long)leaf);
    i64 M = most_rows(t), begins = E * leaves_of(t) + 1;
    if (!t->out[0])
        t->out[0] = graph_vector(g, DTYPE_I32, M, "expert.source");
    if (!t->out[1])
        t->out[1] = graph_like(g, choice, DTYPE_I32, "expert.place");
    if (!t->out[2])
        t->out[2] = graph_vector(g, DTYPE_I32, begins, "expert.begin");
    TRY(check_i32(g, t, "source", t->out[0], M));
    TRY(kit_same(g, t, "place", t->out[1], choice));
    return check_i32(g, t, "begin", t->out[2], begins);
}

static void expert_order_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
}

/* Where the token that is the i-th of part `part` stands in its row. */
static i64 place_in_row(const struct task *t, i64 part, i64 i)
{
    return zigzag_pair_place(row_parts(t), part, i64_max(1, (i64)t->attr[ORDER_ROW_PAIRS]),
                             (i64)t->attr[ORDER_T], i);
}

/* Whether the pair finds room: fewer than `capacity` earlier ones of its sequence went there. */
static bool has_room(const struct task *t, i64 pair)
{
    i64 k = t->in[0]->dim[1], T = (i64)t->attr[ORDER_T], R = t->in[0]->dim[0], r = pair / k;
    i64 capacity = (i64)t->attr[ORDER_CAPACITY], earlier = 0;
    i64 place = place_in_row(t, (i64)t->attr[ORDER_ROW_PART], r % T);
    const i32 *choice = integers(t->in[0]), *all = t->in[1] ? integers(t->in[1]) : choice;
    for (i64 part = 0; capacity > 0 && part < row_parts(t); part++)
        for (i64 i = 0; i < T; i++)
            for (i64 slot = 0; slot < k; slot++) {
                i64 other = place_in_row(t, part, i);
                bool before = other < place || (other == place && slot < pair % k);
                earlier += before && choice[pair] == all[(part * R + r / T * T + i) * k + slot];
            }
    return capacity == 0 || earlier < capacity;
}

static void expert_order_ref(const struct task *t, struct run *run)
{
    i64 pairs = tensor_count(t->in[0]), E = (i64)t->attr[ORDER_EXPERTS], row = 0;
    i64 L = leaves_of(t), each = pairs / L;
    const i32 *choice = integers(t->in[0]);
    i32 *source = t->out[0]->data, *place = t->out[1]->data, *begin = t->out[2]->data;
    (void)run;
    for (i64 p = 0; p < pairs; p++)
        place[p] = -1;
    for (i64 e = 0; e < E; e++)
        for (i64 p = 0; p < pairs; p++) {
            if (p % each == 0)
                begin[e * L + p / each] = (i32)row;
            if (choice[p] != e || !has_room(t, p))
                continue;
            place[p] = (i32)row;
            source[row++] = (i32)p;
        }
    begin[E * L] = (i32)row;
    for (; row < t->out[0]->dim[0]; row++)
        source[row] = 0;
}

/* R rows that chose k of E at random, in sequences of T, with a capacity or 0. */
static const struct { i64 R, k, E, T, capacity, leaf, C; } shapes[] = {
    { 6, 2, 3, 3, 0, 0, 5 },
    { 35, 3, 11, 7, 0, 7, 131 },
    { 40, 2, 5, 10, 3, 5, 37 },
    { 33, 4, 7, 33, 30, 0, 16 },
};

/* Choices of a row differ, as a router's do. */
static struct tensor *example_choice(struct op_example *e, int n)
{
    struct tensor *z = example_normal(e, ROLE_INPUT, DTYPE_F32, shapes[n].R, shapes[n].E, 1);
    struct router_config c = { .k = shapes[n].k, .T = 1, .scale = 1, .normalise = true };
    return router(e->g, z, NULL, &c).choice;
}

static struct expert_rows example_rows(struct op_example *e, int n)
{
    return expert_order(e->g, example_choice(e, n), shapes[n].E, shapes[n].T, shapes[n].capacity,
                        shapes[n].leaf);
}

/* Part 1 of 3 of two rows, each part in two pairs of chunks. */
static void example_part(struct op_example *e)
{
    enum { PARTS = 3, PART = 1, T = 4, R = 2 * T, E = 5 };
    struct tensor *z = example_normal(e, ROLE_INPUT, DTYPE_F32, PARTS * R, E, 1);
    struct router_config c = { .k = 2, .T = 1, .scale = 1, .normalise = true };
    struct tensor *all = router(e->g, z, NULL, &c).choice;
    graph_add(e->g, &(struct task){
        .op = &op_expert_order, .in = { graph_view(e->g, all, PART * R, R), all },
        .attr = { [ORDER_EXPERTS] = E, [ORDER_T] = T, [ORDER_CAPACITY] = 3, [ORDER_LEAF] = 2,
                  [ORDER_ROW_PARTS] = PARTS, [ORDER_ROW_PART] = PART, [ORDER_ROW_PAIRS] = 2 } });
}

static bool expert_order_example(struct op_example *e, int n)
{
    if (n > COUNT_OF(shapes))
        return false;
    if (n == COUNT_OF(shapes))
        example_part(e);
    else
        example_rows(e, n);
    return true;
}

const struct op_info op_expert_order = {
    .name = "expert_order", .n_in = 2, .n_out = 3,
    .infer = expert_order_infer, .cost = expert_order_cost, .run_ref = expert_order_ref,
    .example = expert_order_example,
};

struct expert_rows expert_order(struct graph *g, struct tensor *choice, i64 experts, i64 T,
                                i64 capacity, i64 leaf)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_order, .in = { choice },
        .attr = { [ORDER_EXPERTS] = (double)experts, [ORDER_T] = (double)T,
                  [ORDER_CAPACITY] = (double)capacity, [ORDER_LEAF] = (double)leaf } });
    return t ? (struct expert_rows){ t->out[0], t->out[1], t->out[2] }
             : (struct expert_rows){ 0 };
}

/* --- gather ------------------------------------------------------------------------- */

static int expert_gather_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0];
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    TRY(check_i32(g, t, "source", t->in[1], KIT_ANY));
    TRY(check_place(g, t, t->in[2], x->dim[0]));
    TRY(check_i32(g, t, "begin", t->in[3], KIT_ANY));
    i64 M = t->in[1]->dim[0];
    if (!t->out[0])
        t->out[0] = graph_matrix(g, x->dtype, M, x->dim[1], "expert_gather");
    TRY(kit_matrix(g, t, "y", t->out[0], M, x->dim[1]));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void expert_gather_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
}

static void expert_gather_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0];
    i64 C = x->dim[1], k = t->in[2]->dim[1], used = used_rows(t->in[3]);
    (void)run;
    for (i64 i = 0; i < t->out[0]->dim[0]; i++) {
        i64 r = integers(t->in[1])[i] / k;
        for (i64 c = 0; c < C; c++)
            tensor_set(t->out[0], i * C + c, i < used ? tensor_get(x, r * C + c) : 0);
    }
}

static void expert_gather_grad(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *dy = grad_of(g, t->out[0]);
    if (!dy || !grad_needed(g, x))
        return;
    struct task proto = { .op = &op_expert_combine, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, t->in[2], NULL, grad_take(g, x), t->in[1], t->in[3] },
                          .out = { grad_target(g, x) } };
    graph_add(g, &proto);
    grad_add(g, x, proto.out[0]);
}

static bool expert_gather_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, shapes[n].R, shapes[n].C, 1);
    struct expert_rows rows = example_rows(e, n);
    expert_gather(e->g, x, &rows);
    return true;
}

const struct op_info op_expert_gather = {
    .name = "expert_gather", .n_in = 4, .n_out = 1, .cheap = true,
    .infer = expert_gather_infer, .grad = expert_gather_grad, .cost = expert_gather_cost,
    .run_ref = expert_gather_ref, .example = expert_gather_example,
};

struct tensor *expert_gather(struct graph *g, struct tensor *x, const struct expert_rows *rows)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_gather, .in = { x, rows->source, rows->place, rows->begin } });
    return t ? t->out[0] : NULL;
}

/* --- combine ------------------------------------------------------------------------ */

/* Parts of the rows of which y has one. */
static i64 parts_of(const struct task *t)
{
    return i64_max(1, (i64)t->attr[COMBINE_PARTS]);
}

/* Which of all rows row r of y is. */
static i64 row_in_all(const struct task *t, i64 r)
{
    i64 n = parts_of(t), part = t->out[0]->dim[0] / i64_max(1, (i64)t->attr[COMBINE_OUTER]);
    return n == 1 ? r : (r / part * n + (i64)t->attr[COMBINE_PART]) * part + r % part;
}

static int expert_combine_infer(struct graph *g, struct task *t)
{
    struct tensor *x = t->in[0], *weight = t->in[2], *residual = t->in[3];
    i64 n = parts_of(t), outer = i64_max(1, (i64)t->attr[COMBINE_OUTER]);
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "x", x));
    TRY(check_place(g, t, t->in[1], KIT_ANY));
    i64 R = t->in[1]->dim[0] / n, C = x->dim[1];
    if (t->in[1]->dim[0] % (n * outer))
        return graph_fail(g, t, "%lld rows cannot be cut into %lld x %lld parts",
                          (long long)t->in[1]->dim[0], (long long)outer, (long long)n);
    if (weight) {
        TRY(kit_same(g, t, "weight", weight, t->in[1]));
        TRY(kit_dtype(g, t, "weight", weight, kit_wide(x)));
    }
    if (residual) {
        TRY(kit_matrix(g, t, "residual", residual, R, C));
        TRY(kit_dtype(g, t, "residual", residual, x->dtype));
    }
    TRY(check_i32(g, t, "source", t->in[4], x->dim[0]));
    TRY(check_i32(g, t, "begin", t->in[5], KIT_ANY));
    if (!t->out[0])
        t->out[0] = graph_matrix(g, x->dtype, R, C, "expert_combine");
    TRY(kit_matrix(g, t, "y", t->out[0], R, C));
    return kit_dtype(g, t, "y", t->out[0], x->dtype);
}

static void expert_combine_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->flops = (t->in[2] ? 2 : 1) * (double)tensor_count(t->in[1]) * (double)t->in[0]->dim[1];
}

static void expert_combine_ref(const struct task *t, struct run *run)
{
    const struct tensor *x = t->in[0], *place = t->in[1], *weight = t->in[2];
    i64 R = t->out[0]->dim[0], k = place->dim[1], C = x->dim[1];
    (void)run;
    for (i64 r = 0; r < R; r++) {
        i64 pair = row_in_all(t, r) * k;
        for (i64 c = 0; c < C; c++) {
            double sum = t->in[3] ? tensor_get(t->in[3], r * C + c) : 0;
            for (i64 slot = 0; slot < k; slot++) {
                i64 row = integers(place)[pair + slot];
                if (row >= 0)
                    sum += (weight ? tensor_get(weight, pair + slot) : 1) *
                           tensor_get(x, row * C + c);
            }
            tensor_set(t->out[0], r * C + c, sum);
        }
    }
}

/* What the rows of others were given too. */
static struct tensor *all_rows(struct graph *g, const struct task *t, struct tensor *dy)
{
    if (parts_of(t) == 1)
        return dy;
    struct task *gather = graph_add(g, &(struct task){
        .op = &op_all_gather, .lane = LANE_TP, .phase = PHASE_INPUT_GRAD, .in = { dy },
        .attr = { [COLLECTIVE_SIZE] = t->attr[COMBINE_PARTS],
                  [COLLECTIVE_RANK] = t->attr[COMBINE_PART],
                  [COLLECTIVE_OUTER] = t->attr[COMBINE_OUTER] } });
    return gather ? gather->out[0] : NULL;
}

static void expert_combine_rule(struct graph *g, const struct task *t)
{
    struct tensor *x = t->in[0], *weight = t->in[2], *residual = t->in[3];
    struct tensor *dy = grad_of(g, t->out[0]);
    if (!dy)
        return;
    if (residual && grad_needed(g, residual))
        grad_add(g, residual, dy);
    if (!grad_needed(g, x))
        return;
    dy = all_rows(g, t, dy);
    if (!weight) {
        struct task gather = { .op = &op_expert_gather, .phase = PHASE_INPUT_GRAD,
                               .in = { dy, t->in[4], t->in[1], t->in[5] },
                               .out = { grad_target(g, x) } };
        graph_add(g, &gather);
        grad_add(g, x, gather.out[0]);
        return;
    }
    struct task proto = { .op = &op_expert_combine_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dy, x, weight, t->in[4], t->in[5] },
                          .out = { grad_target(g, x) } };
    struct task *made = graph_add(g, &proto);
    grad_add(g, x, proto.out[0]);
    if (made && grad_needed(g, weight))
        grad_add(g, weight, made->out[1]);
}

/* The last one has no weights. */
static bool expert_combine_example(struct op_example *e, int n)
{
    bool plain = n == COUNT_OF(shapes);
    if (n > COUNT_OF(shapes))
        return false;
    n -= plain;
    i64 C = shapes[n].C, R = shapes[n].R;
    enum dtype wide = e->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    struct tensor *weight = plain ? NULL
        : example_normal(e, ROLE_ACTIVATION, wide, R, shapes[n].k, 1);
    struct tensor *residual = n == 1 ? NULL
        : example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct expert_rows rows = example_rows(e, n);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, rows.source->dim[0], C, 1);
    expert_combine(e->g, x, &rows, weight, residual);
    return true;
}

const struct op_info op_expert_combine = {
    .name = "expert_combine", .n_in = 6, .n_out = 1, .in_place = 1u << 3,
    .infer = expert_combine_infer, .grad = expert_combine_rule, .cost = expert_combine_cost,
    .run_ref = expert_combine_ref, .example = expert_combine_example,
};

struct tensor *expert_combine(struct graph *g, struct tensor *x, const struct expert_rows *rows,
                              struct tensor *weight, struct tensor *residual)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_expert_combine,
        .in = { x, rows->place, weight, residual, rows->source, rows->begin } });
    return t ? t->out[0] : NULL;
}

/* --- gradient of combine ------------------------------------------------------------ */

static int expert_combine_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dy = t->in[0], *x = t->in[1], *weight = t->in[2];
    TRY(kit_matrix(g, t, "dy", dy, KIT_ANY, KIT_ANY));
    TRY(kit_compute_dtype(g, t, "dy", dy));
    TRY(kit_matrix(g, t, "x", x, KIT_ANY, dy->dim[1]));
    TRY(kit_dtype(g, t, "x", x, dy->dtype));
    TRY(kit_matrix(g, t, "weight", weight, dy->dim[0], KIT_ANY));
    TRY(check_i32(g, t, "source", t->in[3], x->dim[0]));
    TRY(check_i32(g, t, "begin", t->in[4], KIT_ANY));
    if (!t->out[0])
        t->out[0] = graph_like(g, x, x->dtype, "expert_combine_grad");
    if (!t->out[1])
        t->out[1] = graph_like(g, weight, weight->dtype, "d.router.weight");
    TRY(kit_same(g, t, "dx", t->out[0], x));
    return kit_same(g, t, "dweight", t->out[1], weight);
}

static void expert_combine_grad_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->flops = 3 * (double)tensor_count(t->in[2]) * (double)t->in[0]->dim[1];
}

static void expert_combine_grad_ref(const struct task *t, struct run *run)
{
    const struct tensor *dy = t->in[0], *x = t->in[1], *weight = t->in[2];
    i64 C = dy->dim[1], k = weight->dim[1], used = used_rows(t->in[4]);
    (void)run;
    for (i64 p = 0; p < tensor_count(weight); p++)
        tensor_set(t->out[1], p, 0);
    for (i64 i = 0; i < x->dim[0]; i++) {
        i64 p = integers(t->in[3])[i];
        double dot = 0, factor = i < used ? tensor_get(weight, p) : 0;
        for (i64 c = 0; c < C; c++) {
            double d = tensor_get(dy, p / k * C + c);
            dot += d * tensor_get(x, i * C + c);
            tensor_set(t->out[0], i * C + c, factor == 0 ? 0 : factor * d);
        }
        if (i < used)
            tensor_set(t->out[1], p, dot);
    }
}

static bool expert_combine_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    i64 C = shapes[n].C, R = shapes[n].R;
    struct tensor *dy = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *weight = example_normal(e, ROLE_INPUT, DTYPE_F32, R, shapes[n].k, 1);
    struct expert_rows rows = example_rows(e, n);
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, rows.source->dim[0], C, 1);
    graph_add(e->g, &(struct task){ .op = &op_expert_combine_grad,
                                    .in = { dy, x, weight, rows.source, rows.begin } });
    return true;
}

/* dx may take the place of x: a row is read before it is written. */
const struct op_info op_expert_combine_grad = {
    .name = "expert_combine_grad", .n_in = 5, .n_out = 2, .in_place = 1u << 1,
    .infer = expert_combine_grad_infer, .cost = expert_combine_grad_cost,
    .run_ref = expert_combine_grad_ref, .example = expert_combine_grad_example,
};
