/* Gradient rules together: whole blocks, where residuals, fused sums, views, tied and frozen
 * weights meet. Each is described like an op's example and judged by finite differences. */
#include "backend/selftest.h"
#include "ops/example.h"
#include "test.h"

#include <math.h>

enum { B = 2, T = 6, R = B * T, C = 8, V = 13, PADDED = 16 };

static const struct graph *current; /* of the example in hand, for its loss */

/* Of all chunks of the head. */
static double head_loss(const struct task *last)
{
    double loss = 0;
    (void)last;
    for (i64 i = 0; i < current->n_tasks; i++) {
        const struct task *t = current->tasks[i];
        for (i64 r = 0; t->op == &op_xent && r < t->in[0]->dim[0]; r++)
            loss += tensor_get(t->in[2], r) * tensor_get(t->in[3], 0) *
                    (tensor_get(t->out[0], r) +
                     t->attr[XENT_ZCOEF] * pow(tensor_get(t->out[1], r), 2));
    }
    return loss;
}

/* Two chunks of unequal size, on views of x. */
static void add_head(struct op_example *e, struct tensor *x, struct tensor *w)
{
    struct tensor *targets = example_integers(e, R, V);
    struct tensor *weights = example_vector(e, ROLE_INPUT, R, 1, 0.3);
    struct tensor *inv_weight = example_scalar(e, ROLE_INPUT, DTYPE_F32, 0.3);
    struct tensor *nll = example_vector(e, ROLE_RESULT, R, 0, 0);
    const i64 begins[] = { 0, 5, R };
    for (int chunk = 0; chunk < 2; chunk++) {
        i64 row = begins[chunk], rows = begins[chunk + 1] - row;
        struct tensor *z = linear_f32(e->g, graph_view(e->g, x, row, rows), w);
        xent(e->g, z, graph_view(e->g, targets, row, rows),
             graph_view(e->g, weights, row, rows), inv_weight,
             graph_view(e->g, nll, row, rows), (int)e->dtype, V, 0.01);
    }
    e->loss = head_loss;
    current = e->g;
}

static struct tensor *gain(struct op_example *e, i64 n)
{
    return example_vector(e, ROLE_PARAM, n, 1, 0.3);
}

static struct tensor *bias(struct op_example *e, i64 n)
{
    return example_vector(e, ROLE_PARAM, n, 0, 0.3);
}

static struct tensor *weight(struct op_example *e, i64 rows, i64 columns)
{
    return example_weight(e, e->dtype, rows, columns, 0.4);
}

/* GPT-2 with one block: tied embedding, biases, two residuals. */
static bool gpt2(struct op_example *e, int n)
{
    struct attention_shape shape = { .B = B, .T = T, .H = 2, .G = 2, .D = C / 2 };
    struct graph *g = e->g;
    if (n > 0)
        return false;
    struct tensor *wte = weight(e, PADDED, C);
    struct tensor *x = embed(g, example_integers(e, R, V), wte, example_integers(e, R, T),
                             weight(e, T, C));
    struct tensor *h = layernorm(g, x, gain(e, C), bias(e, C), 1e-5);
    h = linear(g, h, weight(e, 3 * C, C), bias(e, 3 * C), NULL);
    h = attention(g, h, example_begin(e, B, T), &shape);
    x = linear(g, h, weight(e, C, C), bias(e, C), x);
    h = layernorm(g, x, gain(e, C), bias(e, C), 1e-5);
    h = gelu(g, linear(g, h, weight(e, 4 * C, C), bias(e, 4 * C), NULL), false);
    x = linear(g, h, weight(e, C, 4 * C), bias(e, C), x);
    add_head(e, layernorm(g, x, gain(e, C), bias(e, C), 1e-5), wte);
    return true;
}

/* Qwen3 with one block: grouped heads, qk-norm, rotation, SwiGLU; no biases. */
static bool qwen3(struct op_example *e, int n)
{
    enum { H = 4, G = 2, D = 4, F = 11 };
    struct attention_shape shape = { .B = B, .T = T, .H = H, .G = G, .D = D, .window = 3 };
    struct graph *g = e->g;
    if (n > 0)
        return false;
    struct tensor *table = example_normal(e, ROLE_CONST, DTYPE_F32, T, D, 1);
    struct tensor *x = embed(g, example_integers(e, R, V), weight(e, V, C), NULL, NULL);
    struct tensor *h = rmsnorm(g, x, gain(e, C), 1e-5);
    h = linear(g, h, weight(e, (H + 2 * G) * D, C), NULL, NULL);
    h = qk_norm(g, h, gain(e, D), gain(e, D), H, G, D, 1e-5);
    h = rope(g, h, table, example_integers(e, R, T), H, G, D);
    h = attention(g, h, example_begin(e, B, T), &shape);
    x = linear(g, h, weight(e, C, H * D), NULL, x);
    h = rmsnorm(g, x, gain(e, C), 1e-5);
    h = swiglu(g, linear(g, h, weight(e, 2 * F, C), NULL, NULL));
    x = linear(g, h, weight(e, C, F), NULL, x);
    add_head(e, rmsnorm(g, x, gain(e, C), 1e-5), weight(e, PADDED, C));
    return true;
}

static struct tensor *frozen(struct tensor *w)
{
    w->grad = NULL;
    return w;
}

/* What is frozen gets no gradient; what learns around it gets the right one. */
static bool frozen_parts(struct op_example *e, int n)
{
    struct graph *g = e->g;
    if (n > 2)
        return false;
    struct tensor *wte = weight(e, V, C), *wpe = weight(e, T, C);
    struct tensor *x = embed(g, example_integers(e, R, V), n == 0 ? frozen(wte) : wte,
                             example_integers(e, R, T), n <= 1 ? frozen(wpe) : wpe);
    struct tensor *h = layernorm(g, x, n == 0 ? gain(e, C) : frozen(gain(e, C)),
                                 n == 1 ? bias(e, C) : frozen(bias(e, C)), 1e-5);
    x = linear(g, h, frozen(weight(e, C, C)), bias(e, C), x);
    h = rmsnorm(g, x, frozen(gain(e, C)), 1e-5);
    h = linear(g, h, weight(e, C, C), frozen(bias(e, C)), x);
    add_head(e, h, n == 2 ? frozen(weight(e, PADDED, C)) : weight(e, PADDED, C));
    return true;
}

/* One activation with three readers, among them two products and a sum. */
static bool many_readers(struct op_example *e, int n)
{
    struct graph *g = e->g;
    if (n > 0)
        return false;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1);
    struct tensor *h = rmsnorm(g, x, gain(e, C), 1e-5);
    struct tensor *a = linear(g, h, weight(e, C, C), NULL, x);
    struct tensor *b = linear(g, h, weight(e, C, C), NULL, h);
    add(g, add(g, a, gelu(g, b, true)), x);
    return true;
}

/* Read whole and through views, before and after each other. */
static bool whole_and_views(struct op_example *e, int n)
{
    struct graph *g = e->g;
    if (n > 1)
        return false;
    struct tensor *x = example_normal(e, ROLE_ACTIVATION, e->dtype, R, C, 1), *h = x;
    if (n == 0)
        h = add(g, x, linear(g, x, weight(e, C, C), NULL, NULL));
    add_head(e, h, weight(e, PADDED, C));
    struct tensor *y = linear(g, h, weight(e, PADDED, C), NULL, NULL);
    if (n == 1)
        add_head(e, rmsnorm(g, h, gain(e, C), 1e-5), weight(e, PADDED, C));
    else
        xent(g, y, example_integers(e, R, V), example_vector(e, ROLE_INPUT, R, 1, 0.3),
             example_scalar(e, ROLE_INPUT, DTYPE_F32, 0.5),
             example_vector(e, ROLE_RESULT, R, 0, 0), (int)e->dtype, V, 0);
    return true;
}

static void check_gradients(const char *name, bool (*example)(struct op_example *, int))
{
    struct backend b;
    struct selftest s;
    /* A stand-in that is judged as if it were one op. */
    struct op_info whole = op_linear;
    whole.name = name;
    whole.example = example;
    CHECK_OK(backend_init(&b, "reference"));
    CHECK_OK(selftest_init(&s, &b));
    CHECK_OK(selftest_gradients(&s, &whole));
    CHECK(s.checks > 0);
    selftest_fini(&s);
}

TEST(gradients_of_a_gpt2_block_with_tied_chunked_head_are_derivatives)
{
    check_gradients("gpt2", gpt2);
}

TEST(gradients_of_a_qwen3_block_are_derivatives)
{
    check_gradients("qwen3", qwen3);
}

TEST(gradients_around_frozen_weights_are_derivatives)
{
    check_gradients("frozen parts", frozen_parts);
}

TEST(gradients_of_an_activation_with_many_readers_are_summed)
{
    check_gradients("many readers", many_readers);
}

TEST(gradients_of_an_activation_read_whole_and_through_views_are_summed)
{
    check_gradients("whole and views", whole_and_views);
}

/* Backward must reuse what is pending instead of adding tasks: the residual's gradient goes
 * through the norm's addend, so that no add remains. */
TEST(residual_gradients_are_fused)
{
    struct arena arena;
    struct graph g;
    arena_init(&arena);
    graph_init(&g, &arena);
    struct op_example e = { .g = &g, .dtype = DTYPE_F32 };
    gpt2(&e, 0);
    CHECK_OK(graph_backward(&g, 0, g.n_tasks));
    i64 norms = 0;
    for (i64 i = 0; i < g.n_tasks; i++) {
        CHECK(g.tasks[i]->op != &op_add);
        if (g.tasks[i]->op == &op_layernorm_grad && g.tasks[i]->in[5])
            norms++;
    }
    CHECK_EQ(norms, 2); /* the block's two; behind the last norm nothing is pending */
    arena_fini(&arena);
}

TEST_MAIN(ONE(gradients_of_a_gpt2_block_with_tied_chunked_head_are_derivatives),
          ONE(gradients_of_a_qwen3_block_are_derivatives),
          ONE(gradients_around_frozen_weights_are_derivatives),
          ONE(gradients_of_an_activation_with_many_readers_are_summed),
          ONE(gradients_of_an_activation_read_whole_and_through_views_are_summed),
          ONE(residual_gradients_are_fused))
