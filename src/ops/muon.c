/* Muon (Jordan et al. 2024): momentum, orthogonalised by Newton-Schulz steps.
 *   m = mu m + scale grad;  u = scale grad + mu m (Nesterov), or m
 *   X = u / (|u| + 1e-7), Frobenius;  then `steps` times:
 *   A = X X^T;  X = a X + (b A + c A A) X,  (a, b, c) = (3.4445, -4.7750, 2.0315)
 *   p -= lr (k X + decay p),  k = 0.2 sqrt(max(N,K)) (Moonlight, Liu et al. 2025, eq. 4)
 * The rows of p (N,K) may be up to three blocks that are orthogonalised apart, and again for
 * each of several experts; a block taller than wide is transposed, so that A is the smaller
 * of the two Gram matrices. */
#include "ops/example.h"
#include "ops/kit.h"

#include <math.h>

static const double quintic_a = 3.4445, quintic_b = -4.7750, quintic_c = 2.0315;

/* Rows of block i, 0 when there is none. */
static i64 block_rows(const struct task *t, int i)
{
    i64 rows = (i64)t->attr[MUON_ROWS0 + i];
    return i == 0 && rows == 0 ? t->in[0]->dim[0] : rows;
}

static i64 expert_rows(const struct task *t)
{
    return block_rows(t, 0) + block_rows(t, 1) + block_rows(t, 2);
}

static int muon_infer(struct graph *g, struct task *t)
{
    static const char *const names[] = { "p", "m", "copy" };
    struct tensor *grad = t->in[0];
    TRY(kit_matrix(g, t, "grad", grad, KIT_ANY, KIT_ANY));
    TRY(kit_dtype(g, t, "grad", grad, DTYPE_F32));
    TRY(kit_vector(g, t, "scale", t->in[1], 1));
    TRY(kit_dtype(g, t, "scale", t->in[1], DTYPE_F32));
    TRY(kit_vector(g, t, "hyper", t->in[2], HYPERS));
    TRY(kit_dtype(g, t, "hyper", t->in[2], DTYPE_F32));
    for (int i = 0; i < 3; i++) {
        if (i == 2 && !t->out[i])
            continue;
        TRY(kit_same(g, t, names[i], t->out[i], grad));
        TRY(kit_dtype(g, t, names[i], t->out[i], i == 2 ? DTYPE_BF16 : DTYPE_F32));
    }
    if (grad->dim[0] % expert_rows(t))
        return graph_fail(g, t, "the blocks have %lld rows together, %s has %lld",
                          (long long)expert_rows(t), grad->name, (long long)grad->dim[0]);
    return OK;
}

static void muon_cost(const struct task *t, struct cost *c)
{
    double K = (double)t->in[0]->dim[1];
    double experts = (double)(t->in[0]->dim[0] / expert_rows(t));
    kit_elementwise(t, c, 10);
    c->read_bytes += 2 * (double)tensor_bytes(t->out[0]); /* p, m */
    for (int i = 0; i < 3; i++) {
        double N = (double)block_rows(t, i), least = fmin(N, K), most = fmax(N, K);
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

static i64 muon_ref_workspace(const struct task *t, int threads, const void *context)
{
    i64 most = 0;
    (void)threads;
    (void)context;
    for (int i = 0; i < 3; i++)
        most = i64_max(most, block_doubles(block_rows(t, i), t->in[0]->dim[1]));
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

/* Where element (r,c) of the block's rows is in x. */
static i64 place(const struct block *b, i64 r, i64 c)
{
    return b->transposed ? c * b->k + r : r * b->k + c;
}

static void load_update(const struct task *t, struct block *b, i64 first, i64 N, i64 K)
{
    double mu = t->attr[MUON_MU], scale = tensor_get(t->in[1], 0), squares = 0;
    for (i64 r = 0; r < N; r++) {
        for (i64 c = 0; c < K; c++) {
            i64 i = (first + r) * K + c;
            double d = scale * tensor_get(t->in[0], i);
            double m = mu * tensor_get(t->out[1], i) + d;
            double u = t->attr[MUON_NESTEROV] != 0 ? d + mu * m : m;
            tensor_set(t->out[1], i, m);
            b->x[place(b, r, c)] = u;
            squares += u * u;
        }
    }
    for (i64 i = 0; i < N * K; i++)
        b->x[i] /= sqrt(squares) + 1e-7;
}

static void update_block(const struct task *t, struct run *run, i64 first, i64 N)
{
    i64 K = t->in[0]->dim[1];
    struct block b = { .n = i64_min(N, K), .k = i64_max(N, K), .transposed = N > K };
    double lr = tensor_get(t->in[2], HYPER_MUON_LR), decay = t->attr[MUON_DECAY];
    b.x = run->workspace;
    b.next = b.x + N * K;
    b.gram = b.next + N * K;
    b.poly = b.gram + b.n * b.n;
    load_update(t, &b, first, N, K);
    for (int step = 0; step < (int)t->attr[MUON_STEPS]; step++)
        newton_schulz(&b);
    double factor = 0.2 * sqrt((double)b.k);
    for (i64 r = 0; r < N; r++) {
        for (i64 c = 0; c < K; c++) {
            i64 i = (first + r) * K + c;
            double old = tensor_get(t->out[0], i);
            tensor_set(t->out[0], i,
                       old - lr * (factor * b.x[place(&b, r, c)] + decay * old));
            if (t->out[2])
                tensor_set(t->out[2], i, tensor_get(t->out[0], i));
        }
    }
}

static void muon_ref(const struct task *t, struct run *run)
{
    for (i64 first = 0; first < t->in[0]->dim[0];) {
        for (int i = 0; i < 3; i++) {
            update_block(t, run, first, block_rows(t, i));
            first += block_rows(t, i);
        }
    }
}

/* Wide, tall, three blocks, and two experts of two; a learning rate at which the update shows. */
static bool muon_example(struct op_example *e, int n)
{
    static const struct { i64 N, K; bool copy; struct muon_config config; } shapes[] = {
        { 5, 9, false, { .momentum = 0.95, .steps = 5, .nesterov = true } },
        { 37, 19, true, { .momentum = 0.9, .decay = 0.1, .steps = 5 } },
        { 44, 20, true, { .momentum = 0.95, .decay = 0.2, .steps = 5, .nesterov = true,
                          .block_rows = { 28, 8, 8 } } },
        { 44, 12, false, { .momentum = 0.9, .steps = 5, .block_rows = { 13, 9 } } },
    };
    if (n >= COUNT_OF(shapes))
        return false;
    i64 N = shapes[n].N, K = shapes[n].K;
    struct tensor *grad = example_normal(e, ROLE_GRAD, DTYPE_F32, N, K, 1);
    struct tensor *p = example_normal(e, ROLE_PARAM, DTYPE_F32, N, K, 1);
    struct tensor *m = example_normal(e, ROLE_STATE, DTYPE_F32, N, K, 1);
    struct tensor *copy = shapes[n].copy
        ? example_normal(e, ROLE_COMPUTE, DTYPE_BF16, N, K, 1) : NULL;
    muon(e->g, grad, example_scalar(e, ROLE_INPUT, DTYPE_F32, 0.7), example_hyper(e), p, m,
         copy, NULL, &shapes[n].config);
    /* A step multiplies small singular values, and their rounding, by up to 3.4. */
    e->bound = 1e-3;
    return true;
}

const struct op_info op_muon = {
    .name = "muon", .n_in = 3, .n_out = 3,
    .infer = muon_infer, .cost = muon_cost, .run_ref = muon_ref,
    .ref_workspace = muon_ref_workspace, .example = muon_example,
};

void muon(struct graph *g, struct tensor *grad, struct tensor *scale, struct tensor *hyper,
          struct tensor *p, struct tensor *m, struct tensor *copy, struct tensor *when,
          const struct muon_config *config)
{
    struct task proto = { .op = &op_muon, .phase = PHASE_UPDATE, .when = when,
                          .in = { grad, scale, hyper }, .out = { p, m, copy },
                          .attr = { [MUON_MU] = config->momentum,
                                    [MUON_NESTEROV] = config->nesterov,
                                    [MUON_STEPS] = config->steps,
                                    [MUON_DECAY] = config->decay } };
    for (int i = 0; i < 3; i++)
        proto.attr[MUON_ROWS0 + i] = (double)config->block_rows[i];
    graph_add(g, &proto);
}
