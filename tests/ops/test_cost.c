/* The model FLOPs of GPT-2 124M, by the convention of the whole project: products and causal
 * attention only, forward and backward, 798 MFLOP per token at T = 1024. */
#include "base/arena.h"
#include "ops/ops.h"
#include "test.h"

enum { LAYERS = 12, C = 768, H = 12, T = 1024, V = 50304 };

static struct tensor *weight(struct graph *g, int rank, i64 rows, i64 columns)
{
    const i64 dim[] = { rows, columns };
    struct tensor *w = graph_tensor(g, ROLE_COMPUTE, DTYPE_F32, rank, dim, "w");
    w->grad = graph_tensor(g, ROLE_GRAD, DTYPE_F32, rank, dim, "w.grad");
    return w;
}

static struct tensor *gpt2_block(struct graph *g, struct tensor *x, struct tensor *begin,
                                 const struct attention_shape *shape)
{
    struct tensor *h = layernorm(g, x, weight(g, 1, C, 0), weight(g, 1, C, 0), 1e-5);
    h = linear(g, h, weight(g, 2, 3 * C, C), weight(g, 1, 3 * C, 0), NULL);
    h = attention(g, h, begin, shape);
    x = linear(g, h, weight(g, 2, C, C), weight(g, 1, C, 0), x);
    h = layernorm(g, x, weight(g, 1, C, 0), weight(g, 1, C, 0), 1e-5);
    h = gelu(g, linear(g, h, weight(g, 2, 4 * C, C), weight(g, 1, 4 * C, 0), NULL), false);
    return linear(g, h, weight(g, 2, C, 4 * C), weight(g, 1, C, 0), x);
}

static void build_gpt2(struct graph *g, i64 batch)
{
    struct attention_shape shape = { .B = (int)batch, .T = T, .H = H, .G = H, .D = C / H };
    struct tensor *wte = weight(g, 2, V, C);
    struct batch in;
    load_batch(g, batch, T, &in);
    struct tensor *x = embed(g, in.tokens, wte, in.positions, weight(g, 2, T, C));
    for (g->layer = 0; g->layer < LAYERS; g->layer++)
        x = gpt2_block(g, x, in.begin, &shape);
    g->layer = -1;
    x = layernorm(g, x, weight(g, 1, C, 0), weight(g, 1, C, 0), 1e-5);
    xent(g, linear_f32(g, x, wte), in.targets, in.weights, in.inv_weight, NULL, DTYPE_F32,
         50257, 0);
    CHECK_OK(graph_backward(g, 0, g->n_tasks));
}

TEST(gpt2_124m_needs_798_model_mflop_per_token)
{
    const i64 batch = 2, tokens = batch * T;
    struct arena arena;
    struct graph g;
    arena_init(&arena);
    graph_init(&g, &arena);
    build_gpt2(&g, batch);
    double model = 0, executed = 0;
    for (i64 i = 0; i < g.n_tasks; i++) {
        model += g.tasks[i]->cost.model_flops;
        executed += g.tasks[i]->cost.flops;
    }
    /* 2 per multiply-add, one product forward and two backward: 6 N per token. */
    double products = 6.0 * (12.0 * C * C * LAYERS + (double)V * C);
    /* Causal attention: T (T+1) / 2 pairs a row exactly, T^2 / 2 by convention. */
    double attention = 6.0 * LAYERS * C * T, exact = attention * (T + 1) / T;
    CHECK_NEAR(model / tokens, products + exact, 1);
    CHECK_NEAR((products + attention) / 1e6, 798, 0.5);
    CHECK_NEAR(model / tokens / 1e6, 798, 0.5);
    /* Executed: one attention product more, and elementwise work, together a few percent. */
    CHECK(executed > model && executed < 1.03 * model);
    arena_fini(&arena);
}

/* With a window W, query t sees min(t + 1, W) keys. */
TEST(attention_counts_the_pairs_that_it_sees)
{
    const int windows[] = { 0, 1, 5, 7, 100 };
    for (i64 i = 0; i < COUNT_OF(windows); i++) {
        struct attention_shape s = { .B = 3, .T = 7, .H = 4, .G = 2, .D = 8,
                                     .window = windows[i] };
        struct arena arena;
        struct graph g;
        arena_init(&arena);
        graph_init(&g, &arena);
        const i64 rows = s.B * s.T;
        struct tensor *begin = graph_tensor(&g, ROLE_INPUT, DTYPE_I32, 1, &rows, "begin");
        attention(&g, graph_matrix(&g, DTYPE_F32, rows, 8 * s.D, "qkv"), begin, &s);
        CHECK_OK(g.rc);
        i64 pairs = 0;
        for (int t = 0; t < s.T; t++)
            pairs += s.window ? i64_min(t + 1, s.window) : t + 1;
        CHECK_NEAR(g.tasks[0]->cost.model_flops, 4.0 * (double)(s.B * s.H * s.D * pairs), 0);
        arena_fini(&arena);
    }
}

TEST_MAIN(ONE(gpt2_124m_needs_798_model_mflop_per_token),
          ONE(attention_counts_the_pairs_that_it_sees))
