/* The router of a sparse layer: which experts a token is sent to, with which weight, and what
 * keeps them evenly loaded (ops.h gives the formulas).
 *
 * z (R,E)   weight, choice (R,k)   stats (R/T, 2E + 1)   counts, bias (E)
 * With g_e = aux E / T^2 n_e, what the balance loss gives to q_e = s_e / S (S = sum of all s), and
 * d_e, what the weights give to the chosen s_e,
 *   softmax (S = 1):  dz_e = s_e (d_e + g_e - sum_i (d_i + g_i) s_i)
 *   sigmoid:          dz_e = s_e (1 - s_e) (d_e + (g_e - sum_i g_i q_i) / S)
 * plus 2 z lse softmax(z)_e. n_e counts: it has no gradient. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static const double least_sum = 1e-20; /* of the chosen scores; sigmoids can all vanish */

static i64 sequences(const struct task *t, i64 R)
{
    return R / i64_max(1, (i64)t->attr[ROUTER_T]);
}

static int router_infer(struct graph *g, struct task *t)
{
    struct tensor *z = t->in[0], *bias = t->in[1];
    i64 k = (i64)t->attr[ROUTER_K], T = (i64)t->attr[ROUTER_T];
    TRY(kit_matrix(g, t, "z", z, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "z", z, kit_wide(z)));
    i64 R = z->dim[0], E = z->dim[1];
    if (bias)
        TRY(kit_wide_vector(g, t, "bias", bias, E, z));
    if (k < 1 || k > E || k > ROUTER_CHOICES || E > ROUTER_EXPERTS)
        return graph_fail(g, t, "%lld of %lld experts cannot be chosen; at most %d of %d",
                          (long long)k, (long long)E, (int)ROUTER_CHOICES, (int)ROUTER_EXPERTS);
    if (T < 1 || R % T)
        return graph_fail(g, t, "%lld rows are not sequences of %lld", (long long)R,
                          (long long)T);
    const i64 pairs[] = { R, k };
    if (!t->out[0])
        t->out[0] = graph_matrix(g, z->dtype, R, k, "router.weight");
    if (!t->out[1])
        t->out[1] = graph_tensor(g, ROLE_ACTIVATION, DTYPE_I32, 2, pairs, "router.choice");
    TRY(kit_matrix(g, t, "weight", t->out[0], R, k));
    TRY(kit_matrix(g, t, "choice", t->out[1], R, k));
    return t->out[2] ? kit_matrix(g, t, "stats", t->out[2], R / T, 2 * E + 1) : OK;
}

static void router_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 5 + (t->out[2] ? 2 : 0)); /* exp, sum, divide, compare twice */
}

/* Scores of one row; returns lse(z). */
static double scores(const struct task *t, const struct tensor *z, i64 r, double *s)
{
    i64 E = z->dim[1];
    double most = -INFINITY, sum = 0;
    for (i64 e = 0; e < E; e++)
        most = fmax(most, tensor_get(z, r * E + e));
    for (i64 e = 0; e < E; e++)
        sum += exp(tensor_get(z, r * E + e) - most);
    for (i64 e = 0; e < E; e++)
        s[e] = t->attr[ROUTER_SIGMOID] != 0 ? 1 / (1 + exp(-tensor_get(z, r * E + e)))
                                            : exp(tensor_get(z, r * E + e) - most) / sum;
    return most + log(sum);
}

static double sum_of(const double *s, i64 n)
{
    double sum = 0;
    for (i64 e = 0; e < n; e++)
        sum += s[e];
    return sum;
}

/* What experts are compared by: without a bias the logits, whose order is that of the scores. */
static double key(const struct task *t, i64 r, i64 e, const double *s)
{
    const struct tensor *bias = t->in[1];
    return bias ? s[e] + tensor_get(bias, e) : tensor_get(t->in[0], r * t->in[0]->dim[1] + e);
}

static void choose(const struct task *t, i64 r, const double *s)
{
    i64 E = t->in[0]->dim[1], k = (i64)t->attr[ROUTER_K];
    i32 *choice = (i32 *)t->out[1]->data + r * k;
    double sum = least_sum;
    for (i64 slot = 0; slot < k; slot++) {
        choice[slot] = -1;
        for (i32 e = 0; e < E; e++) {
            bool taken = false;
            for (i64 i = 0; i < slot; i++)
                taken = taken || choice[i] == e;
            if (!taken && (choice[slot] < 0 || key(t, r, e, s) > key(t, r, choice[slot], s)))
                choice[slot] = e;
        }
        sum += s[choice[slot]];
    }
    for (i64 slot = 0; slot < k; slot++)
        tensor_set(t->out[0], r * k + slot, t->attr[ROUTER_SCALE] * s[choice[slot]] /
                                                (t->attr[ROUTER_NORMALISE] != 0 ? sum : 1));
}

static void add_stats(const struct task *t, i64 r, const double *s, double lse)
{
    i64 E = t->in[0]->dim[1], k = (i64)t->attr[ROUTER_K];
    i64 row = r / (i64)t->attr[ROUTER_T] * (2 * E + 1);
    double sum = sum_of(s, E);
    for (i64 slot = 0; slot < k; slot++)
        kit_sum(t->out[2], row + ((i32 *)t->out[1]->data)[r * k + slot], 1, true);
    for (i64 e = 0; e < E; e++)
        kit_sum(t->out[2], row + E + e, s[e] / sum, true);
    kit_sum(t->out[2], row + 2 * E, lse * lse, true);
}

static i64 router_ref_workspace(const struct task *t, int threads, const void *context)
{
    const struct tensor *z = t->op == &op_router ? t->in[0] : t->in[1];
    (void)threads;
    (void)context;
    return 3 * z->dim[1] * (i64)sizeof(double);
}

static void router_ref(const struct task *t, struct run *run)
{
    double *s = run->workspace;
    for (i64 i = 0; t->out[2] && i < tensor_count(t->out[2]); i++)
        tensor_set(t->out[2], i, 0);
    for (i64 r = 0; r < t->in[0]->dim[0]; r++) {
        double lse = scores(t, t->in[0], r, s);
        choose(t, r, s);
        if (t->out[2])
            add_stats(t, r, s, lse);
    }
}

/* Where ranks have parts of each row (parallel/context_parallel.h): what they have summed of it. */
static struct tensor *whole_stats(const struct graph *g, struct tensor *stats)
{
    for (i64 i = 0; stats && i < g->n_tasks; i++)
        if (g->tasks[i]->op == &op_all_reduce && g->tasks[i]->in[0] == stats)
            return g->tasks[i]->out[0];
    return stats;
}

static void router_rule(struct graph *g, const struct task *t)
{
    struct tensor *dweight = grad_of(g, t->out[0]), *z = t->in[0];
    bool losses = t->out[2] && (t->attr[ROUTER_AUX] != 0 || t->attr[ROUTER_Z] != 0);
    if ((!dweight && !losses) || !grad_needed(g, z))
        return;
    struct tensor *stats = losses ? whole_stats(g, t->out[2]) : NULL;
    struct task proto = { .op = &op_router_grad, .phase = PHASE_INPUT_GRAD,
                          .in = { dweight, z, t->out[1], stats },
                          .out = { grad_target(g, z) } };
    memcpy(proto.attr, t->attr, sizeof proto.attr);
    graph_add(g, &proto);
    grad_add(g, z, proto.out[0]);
}

/* The sum of both losses, which the examples with factors differentiate. */
static double example_losses(const struct task *t)
{
    const struct tensor *stats = t->out[2];
    double T = t->attr[ROUTER_T], loss = 0;
    i64 E = t->in[0]->dim[1];
    for (i64 b = 0; b < stats->dim[0]; b++) {
        i64 row = b * (2 * E + 1);
        for (i64 e = 0; e < E; e++)
            loss += t->attr[ROUTER_AUX] * (double)E / (T * T) * tensor_get(stats, row + e) *
                    tensor_get(stats, row + E + e);
        loss += t->attr[ROUTER_Z] * tensor_get(stats, row + 2 * E);
    }
    return loss;
}

static const struct { i64 B, E; bool bias; struct router_config config; } shapes[] = {
    { 3, 5, false, { .k = 2, .T = 4, .normalise = true, .scale = 1, .stats = true } },
    { 2, 37, false, { .k = 3, .T = 7, .scale = 0.5 } },
    { 2, 19, true, { .k = 4, .T = 5, .sigmoid = true, .normalise = true, .scale = 2.5,
                     .stats = true } },
    { 3, 16, true, { .k = 1, .T = 3, .sigmoid = true, .scale = 1 } },
    { 3, 18, false, { .k = 2, .T = 4, .normalise = true, .scale = 1, .stats = true, .aux = 0.7,
                      .z = 0.3 } },
    { 2, 21, true, { .k = 3, .T = 5, .sigmoid = true, .normalise = true, .scale = 1,
                     .stats = true, .aux = 0.9, .z = 0.2 } },
};

static bool router_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    const struct router_config *c = &shapes[n].config;
    i64 E = shapes[n].E;
    enum dtype wide = e->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    struct tensor *z = example_normal(e, ROLE_ACTIVATION, wide, shapes[n].B * c->T, E, 1);
    struct tensor *bias = shapes[n].bias ? example_vector(e, ROLE_CONST, E, 0, 0.3) : NULL;
    router(e->g, z, bias, c);
    if (c->aux > 0)
        e->loss = example_losses;
    return true;
}

const struct op_info op_router = {
    .name = "router", .n_in = 2, .n_out = 3,
    .infer = router_infer, .grad = router_rule, .cost = router_cost, .run_ref = router_ref,
    .ref_workspace = router_ref_workspace, .example = router_example,
};

struct route router(struct graph *g, struct tensor *z, struct tensor *bias,
                    const struct router_config *c)
{
    struct task proto = {
        .op = &op_router, .in = { z, bias },
        .attr = { [ROUTER_K] = (double)c->k, [ROUTER_T] = (double)c->T,
                  [ROUTER_SIGMOID] = c->sigmoid, [ROUTER_NORMALISE] = c->normalise,
                  [ROUTER_SCALE] = c->scale, [ROUTER_AUX] = c->aux, [ROUTER_Z] = c->z },
    };
    if (c->stats && z)
        proto.out[2] = graph_matrix(g, kit_wide(z), z->dim[0] / c->T, 2 * z->dim[1] + 1,
                                    "router.stats");
    struct task *t = graph_add(g, &proto);
    return t ? (struct route){ t->out[0], t->out[1], t->out[2] } : (struct route){ 0 };
}

/* --- gradient ----------------------------------------------------------------------- */

static int router_grad_infer(struct graph *g, struct task *t)
{
    struct tensor *dweight = t->in[0], *z = t->in[1];
    i64 k = (i64)t->attr[ROUTER_K];
    TRY(kit_matrix(g, t, "z", z, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "z", z, kit_wide(z)));
    TRY(kit_matrix(g, t, "choice", t->in[2], z->dim[0], k));
    if (dweight)
        TRY(kit_matrix(g, t, "dweight", dweight, z->dim[0], k));
    if (t->in[3])
        TRY(kit_matrix(g, t, "stats", t->in[3], sequences(t, z->dim[0]), 2 * z->dim[1] + 1));
    if (!t->out[0])
        t->out[0] = graph_like(g, z, z->dtype, "router_grad");
    return kit_same(g, t, "dz", t->out[0], z);
}

static void router_grad_cost(const struct task *t, struct cost *c)
{
    kit_traffic(t, c);
    c->flops = (9 + (t->in[3] ? 5 : 0)) * (double)tensor_count(t->in[1]);
}

/* What the weights give to the scores: ds, zero but for the chosen. */
static void through_weights(const struct task *t, i64 r, const double *s, double *ds)
{
    i64 k = (i64)t->attr[ROUTER_K];
    const i32 *choice = (const i32 *)t->in[2]->data + r * k;
    double scale = t->attr[ROUTER_SCALE], sum = least_sum, along = 0;
    for (i64 slot = 0; slot < k && t->in[0]; slot++) {
        sum += s[choice[slot]];
        along += tensor_get(t->in[0], r * k + slot) * s[choice[slot]];
    }
    for (i64 slot = 0; slot < k && t->in[0]; slot++) {
        double d = tensor_get(t->in[0], r * k + slot);
        ds[choice[slot]] = t->attr[ROUTER_NORMALISE] != 0 ? scale * (d - along / sum) / sum
                                                          : scale * d;
    }
}

/* What the balance loss gives to the scores, added to ds. */
static void through_balance(const struct task *t, i64 r, const double *s, double *ds)
{
    i64 E = t->in[1]->dim[1], T = (i64)t->attr[ROUTER_T], row = r / T * (2 * E + 1);
    double factor = t->attr[ROUTER_AUX] * (double)E / ((double)T * (double)T);
    double sum = sum_of(s, E), mean = 0;
    for (i64 e = 0; e < E; e++)
        mean += factor * tensor_get(t->in[3], row + e) * s[e] / sum;
    for (i64 e = 0; e < E; e++)
        ds[e] += (factor * tensor_get(t->in[3], row + e) - mean) / sum;
}

static void router_grad_row(const struct task *t, i64 r, double *s, double *ds, double *p)
{
    const struct tensor *z = t->in[1];
    i64 E = z->dim[1];
    double along = 0, lse = scores(t, z, r, s);
    memset(ds, 0, sizeof *ds * (size_t)E);
    through_weights(t, r, s, ds);
    if (t->in[3])
        through_balance(t, r, s, ds);
    for (i64 e = 0; e < E; e++) {
        p[e] = exp(tensor_get(z, r * E + e) - lse);
        along += ds[e] * s[e];
    }
    for (i64 e = 0; e < E; e++) {
        double dz = t->attr[ROUTER_SIGMOID] != 0 ? s[e] * (1 - s[e]) * ds[e]
                                                 : s[e] * (ds[e] - along);
        if (t->in[3])
            dz += 2 * t->attr[ROUTER_Z] * lse * p[e];
        tensor_set(t->out[0], r * E + e, dz);
    }
}

static void router_grad_ref(const struct task *t, struct run *run)
{
    i64 E = t->in[1]->dim[1];
    double *s = run->workspace;
    for (i64 r = 0; r < t->in[1]->dim[0]; r++)
        router_grad_row(t, r, s, s + E, s + 2 * E);
}

static bool router_grad_example(struct op_example *e, int n)
{
    if (n >= COUNT_OF(shapes))
        return false;
    const struct router_config *c = &shapes[n].config;
    i64 R = shapes[n].B * c->T;
    enum dtype wide = e->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32;
    struct tensor *z = example_normal(e, ROLE_ACTIVATION, wide, R, shapes[n].E, 1);
    struct tensor *dweight = n == 5 ? NULL : example_normal(e, ROLE_INPUT, wide, R, c->k, 1);
    struct route route = router(e->g, z, NULL, c);
    struct task proto = { .op = &op_router_grad, .in = { dweight, z, route.choice, route.stats } };
    if (e->g->n_tasks > 0)
        memcpy(proto.attr, e->g->tasks[e->g->n_tasks - 1]->attr, sizeof proto.attr);
    graph_add(e->g, &proto);
    return true;
}

const struct op_info op_router_grad = {
    .name = "router_grad", .n_in = 4, .n_out = 1, .in_place = 1u << 1,
    .infer = router_grad_infer, .cost = router_grad_cost, .run_ref = router_grad_ref,
    .ref_workspace = router_ref_workspace, .example = router_grad_example,
};

/* --- load --------------------------------------------------------------------------- */

static int expert_load_infer(struct graph *g, struct task *t)
{
    struct tensor *stats = t->in[0];
    TRY(kit_matrix(g, t, "stats", stats, KIT_ANY, KIT_ANY));
    i64 E = (stats->dim[1] - 1) / 2;
    if (t->out[0]) {
        TRY(kit_matrix(g, t, "load", t->out[0], 1, E + 3));
        TRY(kit_dtype(g, t, "load", t->out[0], DTYPE_F64));
    }
    return t->out[1] ? kit_wide_vector(g, t, "counts", t->out[1], E, stats) : OK;
}

static void expert_load_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 2);
}

static double load_term(const struct task *t, double x)
{
    return t->attr[ROUTER_GRAIN] != 0 ? ldexp(rint(ldexp(x, 24)), -24) : x;
}

static void expert_load_ref(const struct task *t, struct run *run)
{
    const struct tensor *stats = t->in[0];
    i64 B = stats->dim[0], E = (stats->dim[1] - 1) / 2, columns = stats->dim[1];
    double T = t->attr[ROUTER_T], capacity = t->attr[ROUTER_CAPACITY], aux = 0, z = 0, dropped = 0;
    bool keep = run_accumulates(t, run);
    for (i64 e = 0; e < E; e++) {
        double n = 0;
        for (i64 b = 0; b < B; b++)
            n += tensor_get(stats, b * columns + e);
        if (t->out[0])
            kit_sum(t->out[0], e, n, keep);
        if (t->out[1])
            kit_sum(t->out[1], e, n, keep);
    }
    if (!t->out[0])
        return;
    for (i64 b = 0; b < B; b++) {
        double sum = 0;
        for (i64 e = 0; e < E; e++) {
            double n = tensor_get(stats, b * columns + e);
            sum += (double)E / (T * T) * n * tensor_get(stats, b * columns + E + e);
            dropped += capacity > 0 ? fmax(0, n - capacity) : 0;
        }
        aux += load_term(t, sum);
        z += load_term(t, tensor_get(stats, b * columns + 2 * E));
    }
    kit_sum(t->out[0], E, aux, keep);
    kit_sum(t->out[0], E + 1, z, keep);
    kit_sum(t->out[0], E + 2, dropped, keep);
}

static bool expert_load_example(struct op_example *e, int n)
{
    static const struct { i64 B, E; bool load, counts; i64 capacity; } sizes[] = {
        { 3, 5, true, true, 0 }, { 1, 18, true, false, 1 }, { 4, 6, false, true, 0 },
    };
    if (n >= COUNT_OF(sizes))
        return false;
    i64 E = sizes[n].E;
    const i64 load[] = { 1, E + 3 };
    struct tensor *stats = example_normal(e, ROLE_INPUT, DTYPE_F32, sizes[n].B, 2 * E + 1, 1);
    struct tensor *counts = sizes[n].counts ? example_vector(e, ROLE_GRAD, E, 0, 1) : NULL;
    expert_load(e->g, stats, 7, sizes[n].capacity,
                sizes[n].load ? graph_tensor(e->g, ROLE_RESULT, DTYPE_F64, 2, load, "load") : NULL,
                counts);
    return true;
}

const struct op_info op_expert_load = {
    .name = "expert_load", .n_in = 1, .n_out = 2, .accumulates = true,
    .infer = expert_load_infer, .cost = expert_load_cost, .run_ref = expert_load_ref,
    .example = expert_load_example,
};

void expert_load(struct graph *g, struct tensor *stats, i64 T, i64 capacity, struct tensor *load,
                 struct tensor *counts)
{
    graph_add(g, &(struct task){ .op = &op_expert_load, .in = { stats },
                                 .out = { load, counts },
                                 .attr = { [ROUTER_T] = (double)T,
                                           [ROUTER_CAPACITY] = (double)capacity } });
}

/* --- the bias of choice ------------------------------------------------------------- */

static int balance_bias_infer(struct graph *g, struct task *t)
{
    TRY(kit_vector(g, t, "counts", t->in[0], KIT_ANY));
    TRY(kit_dtype(g, t, "counts", t->in[0], DTYPE_F32));
    TRY(kit_same(g, t, "bias", t->out[0], t->in[0]));
    return kit_dtype(g, t, "bias", t->out[0], DTYPE_F32);
}

static void balance_bias_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
    c->read_bytes += (double)tensor_bytes(t->out[0]);
}

static void balance_bias_ref(const struct task *t, struct run *run)
{
    i64 E = t->in[0]->dim[0];
    double total = 0;
    (void)run;
    for (i64 e = 0; e < E; e++)
        total += tensor_get(t->in[0], e);
    for (i64 e = 0; e < E; e++) {
        double more = total - (double)E * tensor_get(t->in[0], e); /* whole numbers: exact */
        double sign = more > 0 ? 1 : more < 0 ? -1 : 0;
        tensor_set(t->out[0], e, tensor_get(t->out[0], e) + t->attr[BALANCE_RATE] * sign);
    }
}

static bool balance_bias_example(struct op_example *e, int n)
{
    static const i64 sizes[] = { 4, 131 };
    if (n >= COUNT_OF(sizes))
        return false;
    struct tensor *counts = example_vector(e, ROLE_GRAD, sizes[n], 40, 9);
    balance_bias(e->g, counts, example_vector(e, ROLE_PARAM, sizes[n], 0, 1), NULL, 0.25);
    return true;
}

const struct op_info op_balance_bias = {
    .name = "balance_bias", .n_in = 1, .n_out = 1,
    .infer = balance_bias_infer, .cost = balance_bias_cost, .run_ref = balance_bias_ref,
    .example = balance_bias_example,
};

void balance_bias(struct graph *g, struct tensor *counts, struct tensor *bias,
                  struct tensor *when, double rate)
{
    graph_add(g, &(struct task){ .op = &op_balance_bias, .phase = PHASE_UPDATE, .when = when,
                                 .in = { counts }, .out = { bias },
                                 .attr = { [BALANCE_RATE] = rate } });
}
