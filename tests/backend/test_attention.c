/* Attention beyond the self-test's small examples: what one query's bits may depend on, at
 * lengths that fill several blocks; and the code for 16 lanes on machines that have 8. */
#include "backend/cpu/attention.h"
#include "backend/selftest.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "ops/zigzag.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__)
void cpu_register_wide(struct backend *b); /* built by tests/CMakeLists.txt */
ATTENTION_DECLARE(paired);
ATTENTION_DECLARE(tiled);
#endif

static const char *const backends[] = { "generic", "avx2", "avx512", "avx512bf16", "amx" };
static const enum dtype dtypes[] = { DTYPE_F32, DTYPE_BF16 };

/* One forward and backward pass with its tensors. */
struct pass {
    struct arena arena;
    struct graph graph;
    struct attention_shape shape;
    struct task *forward, *backward;
    struct tensor *qkv, *begin, *y, *lse, *dy, *dqkv;
};

static i64 value_size(const struct attention_shape *s)
{
    return s->V > 0 ? s->V : s->D;
}

static void pass_init(struct pass *p, enum dtype dtype, const struct attention_shape *s)
{
    const i64 R = (i64)s->B * s->T, V = value_size(s);
    const i64 columns = (i64)(s->H + s->G) * s->D + s->G * V;
    arena_init(&p->arena);
    graph_init(&p->graph, &p->arena);
    p->shape = *s;
    p->qkv = graph_matrix(&p->graph, dtype, R, columns, "qkv");
    p->begin = graph_vector(&p->graph, DTYPE_I32, R, "begin");
    p->y = attention(&p->graph, p->qkv, p->begin, s);
    p->dy = graph_matrix(&p->graph, dtype, R, (i64)s->H * V, "dy");
    p->forward = p->graph.tasks[0];
    p->lse = p->forward->out[1];
    struct task proto = { .op = &op_attention_grad,
                          .in = { p->dy, p->qkv, p->y, p->lse, p->begin } };
    memcpy(proto.attr, p->forward->attr, sizeof proto.attr);
    p->backward = graph_add(&p->graph, &proto);
    CHECK_OK(p->graph.rc);
    p->forward = p->graph.tasks[0];
    p->dqkv = p->backward->out[0];
    for (i64 i = 0; i < p->graph.n_tensors; i++) {
        struct tensor *t = p->graph.tensors[i];
        t->data = arena_alloc(&p->arena, tensor_bytes(t));
    }
}

static void pass_fini(struct pass *p)
{
    arena_fini(&p->arena);
}

/* Normal numbers that depend on the element's place within its row b only. */
static void fill(struct tensor *x, i64 b_rows, u64 seed)
{
    struct rng key = { seed, rng_stream("attention") };
    const i64 per_b = b_rows * tensor_columns(x);
    for (i64 i = 0; i < tensor_count(x); i++)
        tensor_set(x, i, rng_normal(&key, (u64)(i % per_b + i / per_b * 1000000)));
}

static void run_kernel(const struct backend *b, struct pool *pool, const struct task *t)
{
    const struct kernel *k = backend_kernel(b, t->op);
    struct run x = { .backend = b, .pool = pool, .context = k->context };
    x.workspace_bytes = k->workspace(t, pool_threads(pool), k->context);
    x.workspace = aligned_alloc(64, (size_t)round_up(x.workspace_bytes, 64));
    memset(x.workspace, 0xff, (size_t)x.workspace_bytes);
    k->run(t, &x);
    free(x.workspace);
}

static void run_pass(const struct backend *b, struct pass *p, int threads)
{
    struct pool *pool;
    CHECK_OK(pool_new(&pool, threads, false));
    run_kernel(b, pool, p->forward);
    run_kernel(b, pool, p->backward);
    pool_free(pool);
}

/* Same bits in rows [row, row + rows) of a and rows [other, ...) of b. */
static void check_rows(const struct tensor *a, i64 row, const struct tensor *b, i64 other, i64 rows)
{
    const i64 bytes = tensor_columns(a) * dtype_bytes(a->dtype);
    CHECK(memcmp((char *)a->data + row * bytes, (char *)b->data + other * bytes,
                 (size_t)(rows * bytes)) == 0);
}

static const struct attention_shape several_blocks = { .B = 2, .T = 611, .H = 4, .G = 2, .D = 24 };

static const struct attention_shape narrow_values = { .B = 2, .T = 611, .H = 2, .G = 2, .D = 40,
                                                      .V = 24 };

/* Threads that share heads evenly, all but one, or none. */
static void check_threads_of(const struct backend *b, enum dtype dtype,
                             const struct attention_shape *shape)
{
    static const int threads[] = { 3, 4, 7 };
    struct pass one, other;
    pass_init(&one, dtype, shape);
    pass_init(&other, dtype, shape);
    fill(one.qkv, one.shape.T, 1);
    fill(one.dy, one.shape.T, 2);
    fill(other.qkv, one.shape.T, 1);
    fill(other.dy, one.shape.T, 2);
    run_pass(b, &one, 1);
    for (i64 i = 0; i < COUNT_OF(threads); i++) {
        run_pass(b, &other, threads[i]);
        check_rows(one.y, 0, other.y, 0, one.y->dim[0]);
        CHECK(memcmp(one.lse->data, other.lse->data, (size_t)tensor_bytes(one.lse)) == 0);
        check_rows(one.dqkv, 0, other.dqkv, 0, one.y->dim[0]);
    }
    pass_fini(&one);
    pass_fini(&other);
}

static void check_threads(const struct backend *b, enum dtype dtype)
{
    check_threads_of(b, dtype, &several_blocks);
    check_threads_of(b, dtype, &narrow_values);
}

#if defined(__x86_64__)
/* Kernels of tasks whose first operand is bf16, and of others. */
struct two {
    struct kernel bf16, f32;
};

static const struct kernel *one_of(const struct two *two, const struct task *t)
{
    return t->in[0]->dtype == DTYPE_BF16 ? &two->bf16 : &two->f32;
}

static void two_run(const struct task *t, struct run *x)
{
    one_of(x->context, t)->run(t, x);
}

static i64 two_workspace(const struct task *t, int threads, const void *context)
{
    return one_of(context, t)->workspace(t, threads, NULL);
}

/* The portable kernels, but for attention of bf16, which is the set's. */
#define WITH_ATTENTION_OF(set, b)                    \
    do {                                             \
        CHECK_OK(backend_init(b, "generic"));        \
        SET_KERNEL(b, attention, set);               \
        SET_KERNEL(b, attention_grad, set);          \
        SET_KERNEL(b, attention_block, set);         \
        SET_KERNEL(b, attention_block_grad, set);    \
        SET_KERNEL(b, attention_cached, set);        \
        (b)->rounds_within = true;                   \
    } while (0)
#define SET_KERNEL(b, op, set)                                                      \
    do {                                                                            \
        static struct two kernels;                                                  \
        kernels.bf16 = (struct kernel){ op##_##set, op##_workspace_##set, NULL };   \
        kernels.f32 = *backend_kernel(b, &op_##op);                                 \
        backend_set(b, &op_##op, (struct kernel){ two_run, two_workspace, &kernels }); \
    } while (0)
#endif

/* Calls check for every backend of this machine and every dtype, and for bf16 with emulated tile
 * registers. */
static void for_every_kernel(void (*check)(const struct backend *b, enum dtype dtype))
{
    struct backend b;
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        if (!backend_supported(backends[i]))
            continue;
        CHECK_OK(backend_init(&b, backends[i]));
        for (i64 k = 0; k < COUNT_OF(dtypes); k++)
            check(&b, dtypes[k]);
    }
#if defined(__x86_64__)
    if (!backend_supported("avx2"))
        return;
    WITH_ATTENTION_OF(tiled, &b);
    check(&b, DTYPE_BF16);
#endif
}

TEST(threads_do_not_change_a_bit)
{
    for_every_kernel(check_threads);
}

TEST(a_later_token_changes_no_earlier_output)
{
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        static const i64 cuts[] = { 1, 95, 96, 257, 600 };
        struct backend b;
        struct pass p, changed;
        if (!backend_supported(backends[i]))
            continue;
        CHECK_OK(backend_init(&b, backends[i]));
        pass_init(&p, DTYPE_BF16, &several_blocks);
        fill(p.qkv, p.shape.T, 1);
        run_pass(&b, &p, 2);
        for (i64 c = 0; c < COUNT_OF(cuts); c++) {
            pass_init(&changed, DTYPE_BF16, &several_blocks);
            memcpy(changed.qkv->data, p.qkv->data, (size_t)tensor_bytes(p.qkv));
            const i64 columns = tensor_columns(p.qkv);
            for (i64 k = cuts[c] * columns; k < p.shape.T * columns; k++)
                tensor_set(changed.qkv, k, 3 - 2 * tensor_get(p.qkv, k));
            run_pass(&b, &changed, 2);
            check_rows(p.y, 0, changed.y, 0, cuts[c]);
            CHECK(memcmp((char *)p.y->data + cuts[c] * tensor_columns(p.y) * 2,
                         (char *)changed.y->data + cuts[c] * tensor_columns(p.y) * 2, 8) != 0);
            pass_fini(&changed);
        }
        pass_fini(&p);
    }
}

static void check_batch(const struct backend *b, enum dtype dtype)
{
    struct attention_shape alone = several_blocks;
    struct pass p, single;
    const i64 T = several_blocks.T;
    alone.B = 1;
    pass_init(&p, dtype, &several_blocks);
    pass_init(&single, dtype, &alone);
    fill(p.qkv, T, 1);
    fill(p.dy, T, 2);
    memcpy(single.qkv->data, (char *)p.qkv->data + tensor_bytes(single.qkv),
           (size_t)tensor_bytes(single.qkv));
    memcpy(single.dy->data, (char *)p.dy->data + tensor_bytes(single.dy),
           (size_t)tensor_bytes(single.dy));
    run_pass(b, &p, 3);
    run_pass(b, &single, 2);
    check_rows(p.y, T, single.y, 0, T);
    check_rows(p.dqkv, T, single.dqkv, 0, T);
    pass_fini(&p);
    pass_fini(&single);
}

TEST(rows_of_a_batch_do_not_know_each_other)
{
    for_every_kernel(check_batch);
}

/* Gives rows [row, row + rows) of b the values of a. */
static void copy_rows(const struct tensor *a, const struct tensor *b, i64 row, i64 rows)
{
    const i64 bytes = tensor_columns(a) * dtype_bytes(a->dtype);
    memcpy((char *)b->data + row * bytes, (char *)a->data + row * bytes, (size_t)(rows * bytes));
}

static void check_document(const struct backend *b, enum dtype dtype, int kept)
{
    static const i64 borders[] = { 0, 5, 101, 288, 410, 611 };
    struct attention_shape s = several_blocks;
    struct pass p, changed;
    s.B = 1;
    pass_init(&p, dtype, &s);
    pass_init(&changed, dtype, &s);
    fill(p.qkv, s.T, 1);
    fill(p.dy, s.T, 2);
    fill(changed.qkv, s.T, 3);
    fill(changed.dy, s.T, 4);
    for (i64 d = 0; d + 1 < COUNT_OF(borders); d++)
        for (i64 t = borders[d]; t < borders[d + 1]; t++)
            ((i32 *)p.begin->data)[t] = ((i32 *)changed.begin->data)[t] = (i32)borders[d];
    const i64 from = borders[kept], rows = borders[kept + 1] - from;
    copy_rows(p.qkv, changed.qkv, from, rows);
    copy_rows(p.dy, changed.dy, from, rows);
    run_pass(b, &p, 2);
    run_pass(b, &changed, 2);
    check_rows(p.y, from, changed.y, from, rows);
    check_rows(p.dqkv, from, changed.dqkv, from, rows);
    pass_fini(&p);
    pass_fini(&changed);
}

static void check_documents(const struct backend *b, enum dtype dtype)
{
    check_document(b, dtype, 1);
    check_document(b, dtype, 2);
}

TEST(documents_do_not_know_each_other)
{
    for_every_kernel(check_documents);
}

/* Rows of y that a rank has which is one of two along a row, with all of the row's keys. */
static void check_part(const struct backend *b, enum dtype dtype)
{
    struct attention_shape s = { .B = 1, .T = 412, .H = 2, .G = 1, .D = 24, .window = 77 };
    struct pass p;
    pass_init(&p, dtype, &s);
    fill(p.qkv, s.T, 1);
    for (i64 t = 0; t < s.T; t++)
        ((i32 *)p.begin->data)[t] = t < 133 ? 0 : 133;
    const i64 q_bytes = s.H * s.D * dtype_bytes(dtype), row_bytes = q_bytes * 2;
    struct graph *g = &p.graph;
    s.T /= 2;
    const struct zigzag part = zigzag_part(2, 1, s.T);
    struct tensor *q = graph_matrix(g, dtype, s.T, (i64)s.H * s.D, "q");
    struct tensor *kv = graph_matrix(g, dtype, 2 * s.T, (i64)2 * s.G * s.D, "kv");
    struct tensor *begin = graph_vector(g, DTYPE_I32, s.T, "begin");
    const struct attention_part of = { .parts = 2, .queries = 1, .keys = -1, .last = true };
    struct task *block = attention_block(g, q, kv, begin, NULL, &s, &of, NULL);
    CHECK_OK(g->rc);
    struct tensor *made[] = { q, kv, begin, block->out[0], block->out[1] };
    for (i64 i = 0; i < COUNT_OF(made); i++)
        made[i]->data = arena_alloc(&p.arena, tensor_bytes(made[i]));
    for (i64 t = 0; t < 2 * s.T; t++)
        memcpy((char *)kv->data + t * q_bytes, (char *)p.qkv->data + t * row_bytes + q_bytes,
               (size_t)q_bytes);
    for (i64 i = 0; i < s.T; i++) {
        const i64 place = zigzag_place(&part, i);
        memcpy((char *)q->data + i * q_bytes, (char *)p.qkv->data + place * row_bytes,
               (size_t)q_bytes);
        ((i32 *)begin->data)[i] = ((i32 *)p.begin->data)[place];
    }
    run_pass(b, &p, 2);
    struct pool *pool;
    CHECK_OK(pool_new(&pool, 2, false));
    run_kernel(b, pool, block);
    pool_free(pool);
    for (i64 i = 0; i < s.T; i++)
        check_rows(p.y, zigzag_place(&part, i), block->out[0], i, 1);
    pass_fini(&p);
}

TEST(queries_beside_others_have_the_same_bits)
{
    for_every_kernel(check_part);
}

/* |a - b| relative to b's root mean square. */
static double distance(const struct tensor *a, const struct tensor *b)
{
    double difference = 0, norm = 0;
    for (i64 i = 0; i < tensor_count(b); i++) {
        double d = tensor_get(a, i) - tensor_get(b, i);
        difference += d * d;
        norm += tensor_get(b, i) * tensor_get(b, i);
    }
    return sqrt(difference / norm);
}

static const struct attention_shape judged[] = {
    { .B = 1, .T = 300, .H = 2, .G = 1, .D = 64 },
    { .B = 1, .T = 530, .H = 1, .G = 1, .D = 20, .window = 200 },
    { .B = 1, .T = 260, .H = 1, .G = 1, .D = 128, .scale = 0.3 },
    { .B = 1, .T = 411, .H = 1, .G = 1, .D = 33 },
    { .B = 1, .T = 300, .H = 2, .G = 2, .D = 192, .V = 128 },
    { .B = 1, .T = 300, .H = 2, .G = 1, .D = 24, .V = 56 },
};

static void check_shape(const struct attention_shape *s, enum dtype dtype)
{
    struct pass want;
    pass_init(&want, dtype, s);
    fill(want.qkv, s->T, 1);
    fill(want.dy, s->T, 2);
    want.forward->op->run_ref(want.forward, NULL);
    want.backward->op->run_ref(want.backward, NULL);
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        struct backend b;
        struct pass got;
        if (!backend_supported(backends[i]))
            continue;
        CHECK_OK(backend_init(&b, backends[i]));
        pass_init(&got, dtype, s);
        fill(got.qkv, s->T, 1);
        fill(got.dy, s->T, 2);
        run_pass(&b, &got, 2);
        /* Sums of some hundred singles and exponentials of scores up to about 30: a few
         * times 2^-24 each. Rounding to bf16 is off by 2^-9.3 in the root mean square, half a
         * unit being 2^-8: of y both results are rounded, and p; of dqkv ds and p, both results
         * and what moves with y. So 2^-9.3 times the root of 3 or 4. */
        const bool half = dtype == DTYPE_BF16;
        CHECK(distance(got.lse, want.lse) < 1e-6);
        CHECK(distance(got.y, want.y) < (half ? 0x1p-8 : 1e-6));
        CHECK(distance(got.dqkv, want.dqkv) < (half ? 0x1p-8 : 2e-6));
        pass_fini(&got);
    }
    pass_fini(&want);
}

TEST(several_blocks_agree_with_the_reference)
{
    for (i64 k = 0; k < COUNT_OF(judged); k++) {
        check_shape(&judged[k], DTYPE_F32);
        check_shape(&judged[k], DTYPE_BF16);
    }
}

/* What rounding may do to every element: y as y, dqkv as dqkv. */
struct allowed {
    double *y, *dqkv;
};

static double value(const struct tensor *x, i64 row, i64 column)
{
    return tensor_get(x, row * tensor_columns(x) + column);
}

static double dot(const struct tensor *a, i64 i, i64 a_at, const struct tensor *b, i64 j, i64 b_at,
                  i64 n)
{
    double sum = 0;
    for (i64 d = 0; d < n; d++)
        sum += value(a, i, a_at + d) * value(b, j, b_at + d);
    return sum;
}

/* p and ds of one pair of query and key are off by at most u of themselves where they are
 * rounded to bf16, u = 2^-8, and by a few 2^-24 of what they are made of. */
static void allow_pair(const struct allowed *to, const struct pass *p, i64 h, i64 i, i64 j)
{
    const struct attention_shape *s = &p->shape;
    const i64 g = h / (s->H / s->G), D = s->D, V = value_size(s), columns = tensor_columns(p->qkv);
    const i64 q = h * D, k = (s->H + g) * D, v = (s->H + s->G) * D + g * V, y = h * V;
    const double scale = s->scale != 0 ? s->scale : 1 / sqrt((double)D);
    const double lse = tensor_get(p->lse, h * s->T + i);
    const double weight = exp(scale * dot(p->qkv, i, q, p->qkv, j, k, D) - lse);
    const double dp = dot(p->dy, i, y, p->qkv, j, v, V), delta = dot(p->dy, i, y, p->y, i, y, V);
    const double off = weight * (0x1p-8 + 1e-5);
    const double ds_off = scale * (0x1p-8 * weight * fabs(dp - delta) +
                                   1e-5 * weight * (fabs(dp) + fabs(delta) + 1));
    for (i64 d = 0; d < D; d++) {
        to->dqkv[i * columns + q + d] += ds_off * fabs(value(p->qkv, j, k + d));
        to->dqkv[j * columns + k + d] += ds_off * fabs(value(p->qkv, i, q + d));
    }
    for (i64 d = 0; d < V; d++) {
        to->y[i * s->H * V + y + d] += off * fabs(value(p->qkv, j, v + d));
        to->dqkv[j * columns + v + d] += off * fabs(value(p->dy, i, y + d));
    }
}

/* Of an element |got - want| as a share of what is allowed, which leaves room for rounding both. */
static double worst_share(const struct tensor *got, const struct tensor *want,
                          const double *allowed)
{
    double worst = 0;
    for (i64 i = 0; i < tensor_count(want); i++) {
        const double a = tensor_get(got, i), b = tensor_get(want, i);
        const double room = 1e-6 + allowed[i] + 0x1p-8 * (fabs(a) + fabs(b));
        worst = fmax(worst, fabs(a - b) / room);
    }
    return worst;
}

static void check_backend(const struct backend *b, const struct pass *want,
                          const struct allowed *to)
{
    const struct attention_shape *s = &want->shape;
    struct pool *pool;
    struct pass got;
    CHECK_OK(pool_new(&pool, 2, false));
    pass_init(&got, DTYPE_BF16, s);
    fill(got.qkv, s->T, 1);
    fill(got.dy, s->T, 2);
    run_kernel(b, pool, got.forward);
    CHECK(worst_share(got.y, want->y, to->y) < 1);
    copy_rows(want->y, got.y, 0, s->T); /* what backward begins from is not its error */
    run_kernel(b, pool, got.backward);
    CHECK(worst_share(got.dqkv, want->dqkv, to->dqkv) < 1);
    pool_free(pool);
    pass_fini(&got);
}

/* NULL: of all backends of this machine. */
static void check_roundings(const struct attention_shape *s, const struct backend *one)
{
    struct pass want;
    pass_init(&want, DTYPE_BF16, s);
    fill(want.qkv, s->T, 1);
    fill(want.dy, s->T, 2);
    want.forward->op->run_ref(want.forward, NULL);
    want.backward->op->run_ref(want.backward, NULL);
    struct allowed to = { arena_alloc(&want.arena, tensor_count(want.y) * 8),
                          arena_alloc(&want.arena, tensor_count(want.dqkv) * 8) };
    for (i64 h = 0; h < s->H; h++)
        for (i64 i = 0; i < s->T; i++)
            for (i64 j = s->window > 0 ? i64_max(0, i - s->window + 1) : 0; j <= i; j++)
                allow_pair(&to, &want, h, i, j);
    if (one)
        check_backend(one, &want, &to);
    for (i64 k = 0; k < COUNT_OF(backends) && !one; k++) {
        struct backend b;
        if (!backend_supported(backends[k]))
            continue;
        CHECK_OK(backend_init(&b, backends[k]));
        check_backend(&b, &want, &to);
    }
    pass_fini(&want);
}

TEST(bf16_is_off_by_the_roundings_of_p_and_ds_alone)
{
    for (i64 k = 0; k < COUNT_OF(judged); k++)
        check_roundings(&judged[k], NULL);
}

#if defined(__x86_64__)
TEST(pairs_are_multiplied_without_the_instruction)
{
    struct backend b;
    if (!backend_supported("avx2"))
        skip();
    WITH_ATTENTION_OF(paired, &b);
    for (i64 k = 0; k < COUNT_OF(judged); k++)
        check_roundings(&judged[k], &b);
}

/* The self-test has blocks of keys, pairs, the cache, and small shapes. */
TEST(tiles_are_multiplied_without_the_registers)
{
    static const struct op_info *const ops[] = { &op_attention, &op_attention_grad,
                                                 &op_attention_block, &op_attention_block_grad,
                                                 &op_attention_cached };
    struct backend b;
    struct selftest s;
    if (!backend_supported("avx2"))
        skip();
    WITH_ATTENTION_OF(tiled, &b);
    for (i64 k = 0; k < COUNT_OF(judged); k++)
        check_roundings(&judged[k], &b);
    CHECK_OK(selftest_init(&s, &b));
    for (i64 i = 0; i < COUNT_OF(ops); i++)
        CHECK_OK(selftest_kernels(&s, ops[i]));
    selftest_fini(&s);
}
#endif

#if defined(__x86_64__)
TEST(sixteen_lanes_agree_with_the_reference)
{
    struct backend b;
    struct selftest s;
    if (!backend_supported("avx2"))
        skip();
    CHECK_OK(backend_init(&b, "generic"));
    cpu_register_wide(&b);
    CHECK_OK(selftest_init(&s, &b));
    CHECK_OK(selftest_all_kernels(&s));
    selftest_fini(&s);
}
#endif

TEST_MAIN(ONE(threads_do_not_change_a_bit), ONE(a_later_token_changes_no_earlier_output),
          ONE(rows_of_a_batch_do_not_know_each_other), ONE(documents_do_not_know_each_other),
          ONE(queries_beside_others_have_the_same_bits),
#if defined(__x86_64__)
          ONE(sixteen_lanes_agree_with_the_reference),
          ONE(pairs_are_multiplied_without_the_instruction),
          ONE(tiles_are_multiplied_without_the_registers),
#endif
          ONE(several_blocks_agree_with_the_reference),
          ONE(bf16_is_off_by_the_roundings_of_p_and_ds_alone))
