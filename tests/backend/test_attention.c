/* Attention beyond the self-test's small examples: what one query's bits may depend on, at
 * lengths that fill several blocks; and the code for 16 lanes on machines that have 8. */
#include "backend/selftest.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__)
void cpu_register_wide(struct backend *b); /* built by tests/CMakeLists.txt */
#endif

static const char *const backends[] = { "generic", "avx2", "avx512" };

/* One forward and backward pass with its tensors. */
struct pass {
    struct arena arena;
    struct graph graph;
    struct attention_shape shape;
    struct task *forward, *backward;
    struct tensor *qkv, *begin, *y, *lse, *dy, *dqkv;
};

static void pass_init(struct pass *p, enum dtype dtype, const struct attention_shape *s)
{
    const i64 R = (i64)s->B * s->T, columns = (i64)(s->H + 2 * s->G) * s->D;
    arena_init(&p->arena);
    graph_init(&p->graph, &p->arena);
    p->shape = *s;
    p->qkv = graph_matrix(&p->graph, dtype, R, columns, "qkv");
    p->begin = graph_vector(&p->graph, DTYPE_I32, R, "begin");
    p->y = attention(&p->graph, p->qkv, p->begin, s);
    p->dy = graph_matrix(&p->graph, dtype, R, (i64)s->H * s->D, "dy");
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

TEST(threads_do_not_change_a_bit)
{
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        struct backend b;
        struct pass one, four;
        if (!backend_supported(backends[i]))
            continue;
        CHECK_OK(backend_init(&b, backends[i]));
        pass_init(&one, DTYPE_F32, &several_blocks);
        pass_init(&four, DTYPE_F32, &several_blocks);
        fill(one.qkv, one.shape.T, 1);
        fill(one.dy, one.shape.T, 2);
        fill(four.qkv, one.shape.T, 1);
        fill(four.dy, one.shape.T, 2);
        run_pass(&b, &one, 1);
        run_pass(&b, &four, 4);
        check_rows(one.y, 0, four.y, 0, one.y->dim[0]);
        CHECK(memcmp(one.lse->data, four.lse->data, (size_t)tensor_bytes(one.lse)) == 0);
        check_rows(one.dqkv, 0, four.dqkv, 0, one.y->dim[0]);
        pass_fini(&one);
        pass_fini(&four);
    }
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

TEST(rows_of_a_batch_do_not_know_each_other)
{
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        struct attention_shape alone = several_blocks;
        struct backend b;
        struct pass p, single;
        const i64 T = several_blocks.T;
        if (!backend_supported(backends[i]))
            continue;
        alone.B = 1;
        CHECK_OK(backend_init(&b, backends[i]));
        pass_init(&p, DTYPE_F32, &several_blocks);
        pass_init(&single, DTYPE_F32, &alone);
        fill(p.qkv, T, 1);
        fill(p.dy, T, 2);
        memcpy(single.qkv->data, (float *)p.qkv->data + T * tensor_columns(p.qkv),
               (size_t)tensor_bytes(single.qkv));
        memcpy(single.dy->data, (float *)p.dy->data + T * tensor_columns(p.dy),
               (size_t)tensor_bytes(single.dy));
        run_pass(&b, &p, 3);
        run_pass(&b, &single, 2);
        check_rows(p.y, T, single.y, 0, T);
        check_rows(p.dqkv, T, single.dqkv, 0, T);
        pass_fini(&p);
        pass_fini(&single);
    }
}

TEST(documents_do_not_know_each_other)
{
    for (i64 i = 0; i < COUNT_OF(backends); i++) {
        static const i64 borders[] = { 0, 5, 100, 288, 410, 611 };
        struct attention_shape s = several_blocks;
        struct backend b;
        struct pass p, changed;
        if (!backend_supported(backends[i]))
            continue;
        s.B = 1;
        CHECK_OK(backend_init(&b, backends[i]));
        pass_init(&p, DTYPE_F32, &s);
        pass_init(&changed, DTYPE_F32, &s);
        fill(p.qkv, s.T, 1);
        fill(p.dy, s.T, 2);
        fill(changed.qkv, s.T, 3);
        fill(changed.dy, s.T, 4);
        for (i64 d = 0; d + 1 < COUNT_OF(borders); d++)
            for (i64 t = borders[d]; t < borders[d + 1]; t++)
                ((i32 *)p.begin->data)[t] = ((i32 *)changed.begin->data)[t] = (i32)borders[d];
        const i64 from = borders[2], rows = borders[3] - borders[2]; /* keep one document */
        struct tensor *kept[][2] = { { p.qkv, changed.qkv }, { p.dy, changed.dy } };
        for (i64 k = 0; k < COUNT_OF(kept); k++) {
            const i64 at = from * tensor_columns(kept[k][0]);
            memcpy((float *)kept[k][1]->data + at, (float *)kept[k][0]->data + at,
                   (size_t)(rows * tensor_columns(kept[k][0])) * sizeof(float));
        }
        run_pass(&b, &p, 2);
        run_pass(&b, &changed, 2);
        check_rows(p.y, from, changed.y, from, rows);
        check_rows(p.dqkv, from, changed.dqkv, from, rows);
        pass_fini(&p);
        pass_fini(&changed);
    }
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

TEST(several_blocks_agree_with_the_reference)
{
    static const struct attention_shape shapes[] = {
        { .B = 1, .T = 300, .H = 2, .G = 1, .D = 64 },
        { .B = 1, .T = 530, .H = 1, .G = 1, .D = 20, .window = 200 },
        { .B = 1, .T = 260, .H = 1, .G = 1, .D = 128, .scale = 0.3 },
    };
    struct backend reference;
    CHECK_OK(backend_init(&reference, "reference"));
    for (i64 k = 0; k < COUNT_OF(shapes); k++) {
        struct pass want;
        pass_init(&want, DTYPE_F32, &shapes[k]);
        fill(want.qkv, shapes[k].T, 1);
        fill(want.dy, shapes[k].T, 2);
        want.forward->op->run_ref(want.forward, NULL);
        want.backward->op->run_ref(want.backward, NULL);
        for (i64 i = 0; i < COUNT_OF(backends); i++) {
            struct backend b;
            struct pass got;
            if (!backend_supported(backends[i]))
                continue;
            CHECK_OK(backend_init(&b, backends[i]));
            pass_init(&got, DTYPE_F32, &shapes[k]);
            fill(got.qkv, shapes[k].T, 1);
            fill(got.dy, shapes[k].T, 2);
            run_pass(&b, &got, 2);
            /* Sums of some hundred singles and exponentials of scores up to about 30: a few
             * times 2^-24 each. */
            CHECK(distance(got.y, want.y) < 1e-6);
            CHECK(distance(got.lse, want.lse) < 1e-6);
            CHECK(distance(got.dqkv, want.dqkv) < 2e-6);
            pass_fini(&got);
        }
        pass_fini(&want);
    }
}

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
#if defined(__x86_64__)
          ONE(sixteen_lanes_agree_with_the_reference),
#endif
          ONE(several_blocks_agree_with_the_reference))
