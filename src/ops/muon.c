/* Muon (Jordan et al. 2024) in three ops, since ranks that share a matrix do the first and the last
 * element by element, and the middle one needs all of it:
 *
 *   muon_momentum    m = mu m + scale grad;  u = scale grad + mu m (Nesterov), or m
 *   muon_orthogonal  X = u / (|u| + 1e-7), Frobenius;  then `steps` times:
 *                    A = X X^T;  X = a X + (b A + c A A) X,  (a, b, c) = (3.4445, -4.7750, 2.0315)
 *                    y = 0.2 sqrt(max(N,K)) X (Moonlight, Liu et al. 2025, eq. 4)
 *   muon_step        p -= lr (y + decay p)
 *
 * The rows of u (N,K) may be up to three blocks that are orthogonalised apart, and again for
 * each of several experts; a block taller than wide is transposed, so that A is the smaller
 * of the two Gram matrices. u may come as the shares of ranks, one below the other: each has a part
 * of the rows of every block, or of the columns. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static const double quintic_a = 3.4445, quintic_b = -4.7750, quintic_c = 2.0315;

/* --- momentum ----------------------------------------------------------------------- */

static int momentum_infer(struct graph *g, struct task *t)
{
    struct tensor *grad = t->in[0];
    if (!grad)
        return graph_fail(g, t, "grad is missing");
    TRY(kit_dtype(g, t, "grad", grad, DTYPE_F32));
    TRY(kit_vector(g, t, "scale", t->in[1], 1));
    TRY(kit_dtype(g, t, "scale", t->in[1], DTYPE_F32));
    TRY(kit_same(g, t, "m", t->out[0], grad));
    TRY(kit_dtype(g, t, "m", t->out[0], DTYPE_F32));
    if (!t->out[1])
        t->out[1] = graph_like(g, grad, DTYPE_F32, "muon_momentum");
    TRY(kit_same(g, t, "u", t->out[1], grad));
    return kit_dtype(g, t, "u", t->out[1], DTYPE_F32);
}

static void momentum_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 5);
    c->read_bytes += (double)tensor_bytes(t->out[0]); /* m */
}

static void momentum_ref(const struct task *t, struct run *run)
{
    double mu = t->attr[MUON_MU], scale = tensor_get(t->in[1], 0);
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++) {
        double d = scale * tensor_get(t->in[0], i);
        double m = mu * tensor_get(t->out[0], i) + d;
        tensor_set(t->out[0], i, m);
        tensor_set(t->out[1], i, t->attr[MUON_NESTEROV] != 0 ? d + mu * m : m);
    }
}

static bool momentum_example(struct op_example *e, int n)
{
    static const i64 shapes[][2] = { { 5, 9 }, { 37, 131 } };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n][0], K = shapes[n][1];
    const struct muon_config config = { .momentum = 0.9, .nesterov = n == 0 };
    muon_momentum(e->g, example_normal(e, ROLE_GRAD, DTYPE_F32, N, K, 1),
                  example_scalar(e, ROLE_INPUT, DTYPE_F32, 0.7),
                  example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1), NULL, NULL, &config);
    return true;
}

const struct op_info op_muon_momentum = {
    .name = "muon_momentum", .n_in = 2, .n_out = 2, .infer = momentum_infer,
    .cost = momentum_cost, .run_ref = momentum_ref, .example = momentum_example,
};

struct tensor *muon_momentum(struct graph *g, struct tensor *grad, struct tensor *scale,
                             struct tensor *m, struct tensor *u, struct tensor *when,
                             const struct muon_config *config)
{
    struct task *t = graph_add(g, &(struct task){
        .op = &op_muon_momentum, .phase = PHASE_UPDATE, .when = when, .in = { grad, scale },
        .out = { m, u }, .attr = { [MUON_MU] = config->momentum,
                                   [MUON_NESTEROV] = config->nesterov } });
    return t ? t->out[1] : NULL;
}

/* --- orthogonalisation -------------------------------------------------------------- */

static i64 shares_of(const struct task *t)
{
    return i64_max(1, (i64)t->attr[MUON_SHARES]);
}

static bool by_columns(const struct task *t)
{
    return t->attr[MUON_COLUMNS] != 0;
}

/* Of the whole matrix. */
static i64 whole_rows(const struct task *t)
{
    return t->in[0]->dim[0] / (by_columns(t) ? shares_of(t) : 1);
}

i64 muon_columns(const struct task *t)
{
    return t->in[0]->dim[1] * (by_columns(t) ? shares_of(t) : 1);
}

i64 muon_block_rows(const struct task *t, int i)
{
    i64 rows = i < 3 ? (i64)t->attr[MUON_ROWS0 + i] : 0;
    return i == 0 && rows == 0 ? whole_rows(t) : rows;
}

static i64 expert_rows(const struct task *t)
{
    return muon_block_rows(t, 0) + muon_block_rows(t, 1) + muon_block_rows(t, 2);
}

i64 muon_place(const struct task *t, i64 first, i64 rows, i64 r, i64 c)
{
    i64 shares = shares_of(t), columns = t->in[0]->dim[1];
    i64 share_rows = t->in[0]->dim[0] / shares;
    if (by_columns(t))
        return (c / columns * share_rows + first + r) * columns + c % columns;
    i64 each = rows / shares; /* of the block, in a share */
    return (r / each * share_rows + first / shares + r % each) * columns + c;
}

static int orthogonal_infer(struct graph *g, struct task *t)
{
    struct tensor *u = t->in[0];
    TRY(kit_matrix(g, t, "u", u, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "u", u, DTYPE_F32));
    if (!t->out[0])
        t->out[0] = graph_like(g, u, DTYPE_F32, "muon_orthogonal");
    TRY(kit_same(g, t, "y", t->out[0], u));
    TRY(kit_dtype(g, t, "y", t->out[0], DTYPE_F32));
    if (u->dim[0] % shares_of(t))
        return graph_fail(g, t, "%lld rows are not %lld shares", (long long)u->dim[0],
                          (long long)shares_of(t));
    if (whole_rows(t) % expert_rows(t))
        return graph_fail(g, t, "the blocks have %lld rows together, %s has %lld",
                          (long long)expert_rows(t), u->name, (long long)whole_rows(t));
    for (int i = 0; i < 3; i++)
        if (!by_columns(t) && muon_block_rows(t, i) % shares_of(t))
            return graph_fail(g, t, "a block of %lld rows is not %lld shares",
                              (long long)muon_block_rows(t, i), (long long)shares_of(t));
    return OK;
}

static void orthogonal_cost(const struct task *t, struct cost *c)
{
    double K = (double)muon_columns(t), experts = (double)(whole_rows(t) / expert_rows(t));
    if (t->attr[MUON_ELSEWHERE] != 0) {
        c->written_bytes = (double)tensor_bytes(t->out[0]);
        return;
    }
    kit_elementwise(t, c, 4);
    for (int i = 0; i < 3; i++) {
        double N = (double)muon_block_rows(t, i), least = fmin(N, K), most = fmax(N, K);
        c->flops += experts * t->attr[MUON_STEPS] * 2 * least * least * (2 * most + least);
    }
}

/* One block as the reference sees it: X (n,k) with n <= k, and room for the steps. */
struct block {
    i64 n, k;
    bool transposed;
    double *x, *next, *gram, *poly;
};

static i64 block_doubles(i64 N, i64 K)
{
    i64 n = i64_min(N, K);
    return 2 * N * K + 2 * n * n;
}

static i64 orthogonal_ref_workspace(const struct task *t, int threads, const void *context)
{
    i64 most = 0;
    (void)threads;
    (void)context;
    for (int i = 0; i < 3; i++)
        most = i64_max(most, block_doubles(muon_block_rows(t, i), muon_columns(t)));
    return most * (i64)sizeof(double);
}

/* gram = x x^T; poly = b gram + c gram gram; x = a x + poly x. */
static void newton_schulz(struct block *b)
{
    for (i64 i = 0; i < b->n; i++)
        for (i64 j = 0; j < b->n; j++) {
            b->gram[i * b->n + j] = 0;
            for (i64 k = 0; k < b->k; k++)
                b->gram[i * b->n + j] += b->x[i * b->k + k] * b->x[j * b->k + k];
        }
    for (i64 i = 0; i < b->n; i++)
        for (i64 j = 0; j < b->n; j++) {
            double square = 0;
            for (i64 k = 0; k < b->n; k++)
                square += b->gram[i * b->n + k] * b->gram[k * b->n + j];
            b->poly[i * b->n + j] = quintic_b * b->gram[i * b->n + j] + quintic_c * square;
        }
    for (i64 i = 0; i < b->n; i++)
        for (i64 k = 0; k < b->k; k++) {
            double sum = quintic_a * b->x[i * b->k + k];
            for (i64 j = 0; j < b->n; j++)
                sum += b->poly[i * b->n + j] * b->x[j * b->k + k];
            b->next[i * b->k + k] = sum;
        }
    double *x = b->x;
    b->x = b->next;
    b->next = x;
}

/* Where element (r,c) of the block is in x. */
static i64 place(const struct block *b, i64 r, i64 c)
{
    return b->transposed ? c * b->k + r : r * b->k + c;
}

static void orthogonalise(const struct task *t, struct run *run, i64 first, i64 N)
{
    i64 K = muon_columns(t);
    struct block b = { .n = i64_min(N, K), .k = i64_max(N, K), .transposed = N > K };
    double squares = 0, factor = 0.2 * sqrt((double)b.k);
    b.x = run->workspace;
    b.next = b.x + N * K;
    b.gram = b.next + N * K;
    b.poly = b.gram + b.n * b.n;
    for (i64 i = 0; i < N * K; i++) {
        double u = tensor_get(t->in[0], muon_place(t, first, N, i / K, i % K));
        b.x[place(&b, i / K, i % K)] = u;
        squares += u * u;
    }
    for (i64 i = 0; i < N * K; i++)
        b.x[i] /= sqrt(squares) + 1e-7;
    for (int step = 0; step < (int)t->attr[MUON_STEPS]; step++)
        newton_schulz(&b);
    for (i64 i = 0; i < N * K; i++)
        tensor_set(t->out[0], muon_place(t, first, N, i / K, i % K),
                   factor * b.x[place(&b, i / K, i % K)]);
}

static void orthogonal_ref(const struct task *t, struct run *run)
{
    bool elsewhere = t->attr[MUON_ELSEWHERE] != 0;
    for (i64 i = 0; elsewhere && i < tensor_count(t->out[0]); i++)
        tensor_set(t->out[0], i, 0);
    for (i64 first = 0; !elsewhere && first < whole_rows(t);) {
        for (int i = 0; i < 3; i++) {
            i64 rows = muon_block_rows(t, i);
            if (rows > 0)
                orthogonalise(t, run, first, rows);
            first += rows;
        }
    }
}

/* Wide, tall, three blocks, two experts of two, shares of the rows and of the columns. */
static bool orthogonal_example(struct op_example *e, int n)
{
    static const struct { i64 N, K; struct muon_config config; } shapes[] = {
        { 5, 9, { .steps = 5 } },
        { 37, 19, { .steps = 5 } },
        { 44, 20, { .steps = 5, .block_rows = { 28, 8, 8 } } },
        { 44, 12, { .steps = 5, .block_rows = { 13, 9 } } },
        { 36, 10, { .steps = 5, .block_rows = { 20, 8, 8 }, .shares = 4 } },
        { 33, 7, { .steps = 5, .shares = 3, .columns = true } },
        { 9, 4, { .steps = 5, .elsewhere = true } },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    muon_orthogonal(e->g, example_normal(e, ROLE_ACTIVATION, DTYPE_F32, shapes[n].N,
                                         shapes[n].K, 1), NULL, NULL, &shapes[n].config);
    /* A step multiplies small singular values, and their rounding, by up to 3.4. */
    e->bound = 1e-3;
    return true;
}

const struct op_info op_muon_orthogonal = {
    .name = "muon_orthogonal", .n_in = 1, .n_out = 1, .in_place = 1u << 0,
    .infer = orthogonal_infer, .cost = orthogonal_cost, .run_ref = orthogonal_ref,
    .ref_workspace = orthogonal_ref_workspace, .example = orthogonal_example,
};

struct tensor *muon_orthogonal(struct graph *g, struct tensor *u, struct tensor *y,
                               struct tensor *when, const struct muon_config *config)
{
    struct task proto = { .op = &op_muon_orthogonal, .phase = PHASE_UPDATE, .when = when,
                          .in = { u }, .out = { y },
                          .attr = { [MUON_STEPS] = config->steps,
                                    [MUON_SHARES] = (double)config->shares,
                                    [MUON_COLUMNS] = config->columns,
                                    [MUON_ELSEWHERE] = config->elsewhere } };
    for (int i = 0; i < 3; i++)
        proto.attr[MUON_ROWS0 + i] = (double)config->block_rows[i];
    struct task *t = graph_add(g, &proto);
    return t ? t->out[0] : NULL;
}

/* --- step --------------------------------------------------------------------------- */

static int step_infer(struct graph *g, struct task *t)
{
    static const char *const names[] = { "p", "copy" };
    struct tensor *y = t->in[0];
    if (!y)
        return graph_fail(g, t, "y is missing");
    TRY(kit_dtype(g, t, "y", y, DTYPE_F32));
    TRY(kit_vector(g, t, "hyper", t->in[1], HYPERS));
    TRY(kit_dtype(g, t, "hyper", t->in[1], DTYPE_F32));
    for (int i = 0; i < 2; i++) {
        if (i == 1 && !t->out[i])
            continue;
        TRY(kit_same(g, t, names[i], t->out[i], y));
        TRY(kit_dtype(g, t, names[i], t->out[i], i == 1 ? DTYPE_BF16 : DTYPE_F32));
    }
    return OK;
}

static void step_cost(const struct task *t, struct cost *c)
{
    kit_elementwise(t, c, 3);
    c->read_bytes += (double)tensor_bytes(t->out[0]); /* p */
}

static void step_ref(const struct task *t, struct run *run)
{
    double lr = tensor_get(t->in[1], HYPER_MUON_LR), decay = t->attr[MUON_DECAY];
    (void)run;
    for (i64 i = 0; i < tensor_count(t->in[0]); i++) {
        double old = tensor_get(t->out[0], i);
        tensor_set(t->out[0], i, old - lr * (tensor_get(t->in[0], i) + decay * old));
        if (t->out[1])
            tensor_set(t->out[1], i, tensor_get(t->out[0], i));
    }
}

/* A learning rate at which the update shows. */
static bool step_example(struct op_example *e, int n)
{
    static const struct { i64 N, K; bool copy; double decay; } shapes[] = {
        { 5, 9, false, 0 }, { 37, 131, true, 0.1 }, { 9, 1024, true, 0.2 },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n].N, K = shapes[n].K;
    const struct muon_config config = { .decay = shapes[n].decay };
    struct tensor *copy = shapes[n].copy
        ? example_normal(e, ROLE_COMPUTE, DTYPE_BF16, N, K, 1) : NULL;
    muon_step(e->g, example_normal(e, ROLE_ACTIVATION, DTYPE_F32, N, K, 1), example_hyper(e),
              example_normal(e, ROLE_PARAM, DTYPE_F32, N, K, 1), copy, NULL, &config);
    return true;
}

const struct op_info op_muon_step = {
    .name = "muon_step", .n_in = 2, .n_out = 2, .infer = step_infer, .cost = step_cost,
    .run_ref = step_ref, .example = step_example,
};

void muon_step(struct graph *g, struct tensor *y, struct tensor *hyper, struct tensor *p,
               struct tensor *copy, struct tensor *when, const struct muon_config *config)
{
    graph_add(g, &(struct task){ .op = &op_muon_step, .phase = PHASE_UPDATE, .when = when,
                                 .in = { y, hyper }, .out = { p, copy },
                                 .attr = { [MUON_DECAY] = config->decay } });
}
