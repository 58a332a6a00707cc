/* Where an element stands changes none of its bits: what ranks cut, and what threads share out, is
 * computed as it is in the whole. Elementwise kernels are run on all columns, and on a few of
 * them; row kernels on all rows, and on one. Products have their own test (test_gemm.c). */
#include "backend/backend.h"
#include "base/arena.h"
#include "base/pool.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "test.h"

enum { WIDTH = 1031, CUTS = 6 };

/* [begin, end): in one vector, across vectors, in the tail. */
static const i64 cuts[CUTS][2] = {
    { 0, 1 }, { 3, 7 }, { 5, 42 }, { 16, 512 }, { 1000, WIDTH }, { 1030, WIDTH },
};

struct place {
    struct arena arena;
    struct backend backend;
    struct pool *pool;
    const char *name;
};

static struct tensor *tensor_of(struct place *p, enum dtype dtype, i64 rows, i64 columns, u64 seed)
{
    struct tensor *t = ARENA_NEW(&p->arena, struct tensor);
    *t = (struct tensor){ .name = "x", .dtype = dtype, .role = ROLE_STATE, .rank = 2,
                          .dim = { rows, columns }, .index = -1 };
    t->data = arena_alloc(&p->arena, tensor_bytes(t) + 64);
    struct rng key = { seed, 1 };
    for (i64 i = 0; i < rows * columns; i++)
        tensor_set(t, i, rng_normal(&key, (u64)i));
    return t;
}

/* Rows [r, r + rows), columns [c, c + columns) by themselves. */
static struct tensor *part_of(struct place *p, const struct tensor *t, i64 r, i64 rows, i64 c,
                              i64 columns)
{
    struct tensor *part = tensor_of(p, t->dtype, rows, columns, 0);
    for (i64 i = 0; i < rows; i++)
        memcpy((u8 *)part->data + i * columns * dtype_bytes(t->dtype),
               (u8 *)t->data + ((r + i) * t->dim[1] + c) * dtype_bytes(t->dtype),
               (size_t)(columns * dtype_bytes(t->dtype)));
    return part;
}

static void run(struct place *p, const struct task *t)
{
    const struct kernel *k = backend_kernel(&p->backend, t->op);
    i64 bytes = k->workspace ? k->workspace(t, 1, k->context) : 0;
    struct run x = { .backend = &p->backend, .pool = p->pool, .context = k->context,
                     .workspace = arena_alloc(&p->arena, bytes + 64), .workspace_bytes = bytes };
    k->run(t, &x);
}

static void same(struct place *p, const struct task *t, const struct tensor *whole,
                 const struct tensor *part, i64 r, i64 c)
{
    for (i64 i = 0; i < part->dim[0]; i++)
        for (i64 k = 0; k < part->dim[1]; k++) {
            double want = tensor_get(whole, (r + i) * whole->dim[1] + c + k);
            double got = tensor_get(part, i * part->dim[1] + k);
            if (memcmp(&want, &got, sizeof want) != 0)
                fail_msg("%s on %s, %s: element (%lld, %lld) alone is %a, in the whole %a",
                         t->op->name, p->name, dtype_name(part->dtype), (long long)(r + i),
                         (long long)(c + k), got, want);
        }
}

/* A task whose tensors all have WIDTH columns (halves: in twice as many, in two halves). */
static void check_columns(struct place *p, struct task t, bool halves_in, bool halves_out)
{
    struct task before = t;
    for (int k = 0; k < TASK_OUTS && t.out[k]; k++)
        before.out[k] = part_of(p, t.out[k], 0, 1, 0, t.out[k]->dim[1]);
    run(p, &t);
    for (int i = 0; i < CUTS; i++) {
        i64 c = cuts[i][0], n = cuts[i][1] - c;
        struct task part = t;
        for (int k = 0; k < TASK_INS + TASK_OUTS; k++) {
            const struct tensor *x = k < TASK_INS ? t.in[k] : before.out[k - TASK_INS];
            struct tensor **to = k < TASK_INS ? &part.in[k] : &part.out[k - TASK_INS];
            bool halves = (k < TASK_INS ? halves_in : halves_out) && x &&
                          x->dim[1] == 2 * WIDTH;
            if (!x || x->dim[1] < WIDTH)
                continue;
            *to = halves ? tensor_of(p, x->dtype, 1, 2 * n, 0) : part_of(p, x, 0, 1, c, n);
            for (int half = 0; halves && half < 2; half++)
                memcpy((u8 *)(*to)->data + half * n * dtype_bytes(x->dtype),
                       (u8 *)x->data + (half * WIDTH + c) * dtype_bytes(x->dtype),
                       (size_t)(n * dtype_bytes(x->dtype)));
        }
        run(p, &part);
        for (int k = 0; k < TASK_OUTS && t.out[k]; k++) {
            if (t.out[k]->dim[1] == WIDTH)
                same(p, &t, t.out[k], part.out[k], 0, c);
            for (i64 e = 0; t.out[k]->dim[1] == 2 * WIDTH && e < 2 * n; e++)
                CHECK(tensor_get(part.out[k], e) ==
                      tensor_get(t.out[k], e / n * WIDTH + c + e % n));
        }
    }
}

static void check_elementwise(struct place *p, enum dtype d)
{
    struct tensor *x = tensor_of(p, d, 1, WIDTH, 1), *y = tensor_of(p, d, 1, WIDTH, 2);
    struct tensor *both = tensor_of(p, d, 1, 2 * WIDTH, 3), *out = tensor_of(p, d, 1, WIDTH, 4);
    struct tensor *wide = tensor_of(p, DTYPE_F32, 1, WIDTH, 5);
    struct tensor *twice = tensor_of(p, d, 1, 2 * WIDTH, 6);
    for (int exact = 0; exact < 2; exact++) {
        check_columns(p, (struct task){ .op = &op_gelu, .in = { x }, .out = { out },
                                        .attr = { [GELU_EXACT] = exact } }, false, false);
        check_columns(p, (struct task){ .op = &op_gelu_grad, .in = { y, x }, .out = { out },
                                        .attr = { [GELU_EXACT] = exact } }, false, false);
    }
    check_columns(p, (struct task){ .op = &op_swiglu, .in = { both }, .out = { out } }, true,
                  false);
    check_columns(p, (struct task){ .op = &op_swiglu_grad, .in = { y, both }, .out = { twice } },
                  true, true);
    check_columns(p, (struct task){ .op = &op_add, .in = { x, y }, .out = { out } }, false, false);
    check_columns(p, (struct task){ .op = &op_finish_sum, .in = { wide, NULL, x },
                                    .out = { out } }, false, false);
    check_columns(p, (struct task){ .op = &op_cast, .in = { wide }, .out = { out } }, false, false);
}

/* Weights and moments: slices of a split state end anywhere. */
static void check_updates(struct place *p)
{
    enum dtype f = DTYPE_F32;
    struct tensor *hyper = tensor_of(p, f, 1, HYPERS, 1), *scale = tensor_of(p, f, 1, 1, 2);
    struct tensor *grad = tensor_of(p, f, 1, WIDTH, 3), *weight = tensor_of(p, f, 1, WIDTH, 4);
    struct tensor *m = tensor_of(p, f, 1, WIDTH, 5), *v = tensor_of(p, f, 1, WIDTH, 6);
    for (i64 i = 0; i < WIDTH; i++)
        tensor_set(v, i, tensor_get(v, i) * tensor_get(v, i));
    tensor_set(hyper, HYPER_LR, 1e-2);
    tensor_set(hyper, HYPER_CORRECT1, 0.3);
    tensor_set(hyper, HYPER_CORRECT2, 0.1);
    tensor_set(scale, 0, 0.7);
    check_columns(p, (struct task){ .op = &op_adamw, .in = { grad, scale, hyper },
                                    .out = { weight, m, v, tensor_of(p, DTYPE_BF16, 1, WIDTH, 7) },
                                    .attr = { [ADAMW_B1] = 0.9, [ADAMW_B2] = 0.95,
                                              [ADAMW_EPS] = 1e-8, [ADAMW_DECAY] = 0.1 } },
                  false, false);
    check_columns(p, (struct task){ .op = &op_ema, .in = { grad }, .out = { m },
                                    .attr = { [EMA_DECAY] = 0.99 } }, false, false);
    check_columns(p, (struct task){ .op = &op_outer_gradient, .in = { grad, weight },
                                    .out = { m } }, false, false);
    check_columns(p, (struct task){ .op = &op_outer_update, .in = { grad },
                                    .out = { weight, m, v, tensor_of(p, DTYPE_BF16, 1, WIDTH, 8) },
                                    .attr = { [OUTER_LR] = 0.7, [OUTER_MU] = 0.9,
                                              [OUTER_SHARE] = 0.25 } }, false, false);
    tensor_set(hyper, HYPER_MUON_LR, 3e-2);
    for (int nesterov = 0; nesterov < 2; nesterov++)
        check_columns(p, (struct task){ .op = &op_muon_momentum, .in = { grad, scale },
                                        .out = { m, tensor_of(p, f, 1, WIDTH, 8) },
                                        .attr = { [MUON_MU] = 0.95,
                                                  [MUON_NESTEROV] = nesterov } }, false, false);
    check_columns(p, (struct task){ .op = &op_muon_step, .in = { grad, hyper },
                                    .out = { weight, tensor_of(p, DTYPE_BF16, 1, WIDTH, 9) },
                                    .attr = { [MUON_DECAY] = 0.1 } }, false, false);
}

/* A row by itself. */
static void check_norms(struct place *p, enum dtype d)
{
    enum { ROWS = 9, C = 131 };
    struct tensor *x = tensor_of(p, d, ROWS, C, 1), *y = tensor_of(p, d, ROWS, C, 2);
    struct tensor *gain = tensor_of(p, DTYPE_F32, 1, C, 3);
    struct tensor *rstd = tensor_of(p, DTYPE_F32, ROWS, 1, 4);
    struct tensor *mean = tensor_of(p, DTYPE_F32, ROWS, 1, 5);
    struct task rms = { .op = &op_rmsnorm, .in = { x, gain }, .out = { y, rstd },
                        .attr = { [NORM_EPS] = 1e-5 } };
    struct task layer = { .op = &op_layernorm, .in = { x, gain, gain }, .out = { y, mean, rstd },
                          .attr = { [NORM_EPS] = 1e-5 } };
    for (int which = 0; which < 2; which++) {
        struct task t = which ? layer : rms;
        run(p, &t);
        for (i64 r = 0; r < ROWS; r++) {
            struct task one = t;
            one.in[0] = part_of(p, x, r, 1, 0, C);
            for (int k = 0; k < t.op->n_out; k++)
                one.out[k] = part_of(p, t.out[k], r, 1, 0, t.out[k]->dim[1]);
            run(p, &one);
            for (int k = 0; k < t.op->n_out; k++)
                same(p, &t, t.out[k], one.out[k], r, 0);
        }
    }
}

/* dz of columns [c, c + n) of the vocabulary: as a share of it, with the sums of all. */
static void check_loss(struct place *p, enum dtype d)
{
    struct tensor *z = tensor_of(p, DTYPE_F32, 1, WIDTH, 1), *dz = tensor_of(p, d, 1, WIDTH, 2);
    struct tensor *target = tensor_of(p, DTYPE_I32, 1, 1, 3);
    struct tensor *one = tensor_of(p, DTYPE_F32, 1, 1, 4), *peak = tensor_of(p, DTYPE_F32, 1, 1, 5);
    struct tensor *sums = tensor_of(p, DTYPE_F32, 1, 2, 6), *nll = tensor_of(p, DTYPE_F32, 1, 1, 7);
    tensor_set(target, 0, 20);
    tensor_set(one, 0, 1);
    tensor_set(peak, 0, 4);
    tensor_set(sums, 0, 31);
    tensor_set(sums, 1, tensor_get(z, 20));
    struct task t = { .op = &op_xent_finish, .in = { z, target, one, one, peak, sums },
                      .out = { nll, dz }, .attr = { [XENT_VOCAB] = WIDTH } };
    run(p, &t);
    for (int i = 0; i < CUTS; i++) {
        i64 c = cuts[i][0], n = cuts[i][1] - c;
        struct task part = t;
        part.in[0] = part_of(p, z, 0, 1, c, n);
        part.out[1] = part_of(p, dz, 0, 1, c, n);
        part.attr[XENT_FIRST] = (double)c;
        part.attr[XENT_VOCAB] = (double)n;
        run(p, &part);
        same(p, &t, dz, part.out[1], 0, c);
    }
}

TEST(an_element_has_the_same_bits_wherever_it_stands)
{
    static const char *const names[] = { "generic", "avx2", "avx512", "avx512bf16", "amx" };
    static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16 };
    for (i64 i = 0; i < COUNT_OF(names); i++) {
        struct place p = { .name = names[i] };
        if (!backend_supported(names[i]))
            continue;
        arena_init(&p.arena);
        CHECK_OK(backend_init(&p.backend, names[i]));
        CHECK_OK(pool_new(&p.pool, 1, false));
        for (int d = 0; d < 2; d++) {
            check_elementwise(&p, dtypes[d]);
            check_norms(&p, dtypes[d]);
            check_loss(&p, dtypes[d]);
        }
        check_updates(&p);
        pool_free(p.pool);
        arena_fini(&p.arena);
    }
}

TEST_MAIN(ONE(an_element_has_the_same_bits_wherever_it_stands))
