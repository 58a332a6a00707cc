/* The reference kernels against values worked out by hand: everything else is judged by
 * them, so they must not share a mistake with it. */
#include "base/pool.h"
#include "ops/example.h"
#include "ops/kit.h"
#include "test.h"

#include <math.h>

struct bench {
    struct arena arena;
    struct graph g;
    struct op_example e;
};

static void setup(struct bench *b)
{
    arena_init(&b->arena);
    graph_init(&b->g, &b->arena);
    b->e = (struct op_example){ .g = &b->g, .dtype = DTYPE_F32 };
}

static struct tensor *matrix(struct bench *b, enum tensor_role role, i64 rows, i64 columns,
                             const double *values)
{
    struct tensor *t = example_normal(&b->e, role, DTYPE_F32, rows, columns, 0);
    for (i64 i = 0; i < rows * columns; i++)
        tensor_set(t, i, values[i]);
    return t;
}

static struct tensor *vector(struct bench *b, enum tensor_role role, i64 n,
                             const double *values)
{
    struct tensor *t = example_vector(&b->e, role, n, 0, 0);
    for (i64 i = 0; i < n; i++)
        tensor_set(t, i, values[i]);
    return t;
}

static struct tensor *integers(struct bench *b, i64 n, const double *values)
{
    struct tensor *t = example_integers(&b->e, n, 1);
    for (i64 i = 0; i < n; i++)
        tensor_set(t, i, values[i]);
    return t;
}

/* Runs the last task; its outputs keep their data until the arena goes. */
static const struct task *run_last(struct bench *b)
{
    CHECK_OK(b->g.rc);
    const struct task *t = b->g.tasks[b->g.n_tasks - 1];
    struct run x = { .workspace = NULL };
    for (int k = 0; k < t->op->n_out; k++)
        if (t->out[k] && !t->out[k]->data)
            t->out[k]->data = arena_alloc(&b->arena, tensor_bytes(t->out[k]));
    if (t->op->ref_workspace)
        x.workspace = arena_alloc(&b->arena, t->op->ref_workspace(t, 1, NULL));
    t->op->run_ref(t, &x);
    return t;
}

static void check_values(const struct tensor *t, const double *want)
{
    for (i64 i = 0; i < tensor_count(t); i++)
        CHECK_NEAR(tensor_get(t, i), want[i], 1e-6 * (1 + fabs(want[i]))); /* f32 */
}

#define VALUES(...) (const double[]){ __VA_ARGS__ }

TEST(linear_is_x_times_w_transposed)
{
    struct bench b;
    setup(&b);
    struct tensor *x = matrix(&b, ROLE_INPUT, 2, 2, VALUES(1, 2, 3, 4));
    struct tensor *w = matrix(&b, ROLE_INPUT, 3, 2, VALUES(1, 0, 0, 1, 10, 100));
    linear(&b.g, x, w, vector(&b, ROLE_INPUT, 3, VALUES(0.5, 0, -1)),
           matrix(&b, ROLE_INPUT, 2, 3, VALUES(0, 0, 0, 1000, 0, 0)));
    check_values(run_last(&b)->out[0], VALUES(1.5, 2, 209, 1003.5, 4, 429));
    arena_fini(&b.arena);
}

TEST(rmsnorm_divides_by_the_root_mean_square)
{
    struct bench b;
    setup(&b);
    rmsnorm(&b.g, matrix(&b, ROLE_INPUT, 1, 2, VALUES(3, 4)),
            vector(&b, ROLE_INPUT, 2, VALUES(1, 2)), 12.5);
    const struct task *t = run_last(&b); /* mean of squares 12.5, with eps 25 */
    check_values(t->out[0], VALUES(0.6, 1.6));
    check_values(t->out[1], VALUES(0.2));
    arena_fini(&b.arena);
}

TEST(layernorm_centres_and_divides_by_the_deviation)
{
    struct bench b;
    setup(&b);
    layernorm(&b.g, matrix(&b, ROLE_INPUT, 1, 3, VALUES(1, 3, 5)),
              vector(&b, ROLE_INPUT, 3, VALUES(1, 1, 2)),
              vector(&b, ROLE_INPUT, 3, VALUES(0, 0, 1)), 4.0 / 3);
    const struct task *t = run_last(&b); /* variance 8/3 (not 4), with eps 4 */
    check_values(t->out[0], VALUES(-1, 0, 3));
    check_values(t->out[1], VALUES(3));
    check_values(t->out[2], VALUES(0.5));
    arena_fini(&b.arena);
}

TEST(gelu_has_two_forms)
{
    const double want[2][3] = { { 0.841191990608, -0.158808009392, 0 },
                                { 0.841344746069, -0.158655253931, 0 } };
    for (int exact = 0; exact < 2; exact++) {
        struct bench b;
        setup(&b);
        gelu(&b.g, matrix(&b, ROLE_INPUT, 1, 3, VALUES(1, -1, 0)), exact);
        check_values(run_last(&b)->out[0], want[exact]);
        arena_fini(&b.arena);
    }
}

TEST(swiglu_gates_the_second_half_by_the_first)
{
    struct bench b;
    setup(&b);
    swiglu(&b.g, matrix(&b, ROLE_INPUT, 1, 4, VALUES(1, 0, 2, 7)));
    check_values(run_last(&b)->out[0], VALUES(2 * 0.731058578630, 0));
    arena_fini(&b.arena);
}

TEST(rope_turns_pairs_half_a_head_apart)
{
    struct bench b;
    setup(&b);
    /* One head of 4, a quarter turn of pair (0, 2), none of (1, 3); then key, value. */
    const double table[] = { 0, 1, 1, 0 };
    rope(&b.g, matrix(&b, ROLE_INPUT, 1, 12, VALUES(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
         matrix(&b, ROLE_INPUT, 1, 4, table), integers(&b, 1, VALUES(0)), 1, 1, 4);
    check_values(run_last(&b)->out[0], VALUES(-3, 2, 1, 4, -7, 6, 5, 8, 9, 10, 11, 12));
    arena_fini(&b.arena);
}

TEST(attention_to_equal_keys_is_the_mean_of_visible_values)
{
    struct attention_shape s = { .B = 1, .T = 4, .H = 2, .G = 1, .D = 1 };
    struct bench b;
    setup(&b);
    /* Columns: two queries, key, value. The document of token 2 begins at 2. */
    attention(&b.g, matrix(&b, ROLE_INPUT, 4, 4,
                           VALUES(1, 5, 0, 1, 2, 5, 0, 3, 3, 5, 0, 10, 4, 5, 0, 20)),
              integers(&b, 4, VALUES(0, 0, 2, 2)), &s);
    const struct task *t = run_last(&b);
    check_values(t->out[0], VALUES(1, 1, 2, 2, 10, 10, 15, 15));
    check_values(t->out[1], VALUES(0, log(2), 0, log(2), 0, log(2), 0, log(2)));
    arena_fini(&b.arena);
}

TEST(attention_weighs_by_the_exponential_of_the_scaled_score)
{
    struct attention_shape s = { .B = 1, .T = 2, .H = 1, .G = 1, .D = 4 };
    struct bench b;
    setup(&b);
    /* q = (2, 0, 0, 0), keys (0 ...) and (ln 3, 0 ...): scale 1/2 gives weights 1/4, 3/4. */
    attention(&b.g, matrix(&b, ROLE_INPUT, 2, 12,
                           VALUES(0, 0, 0, 0, 0, 0, 0, 0, 4, 8, 0, 0,
                                  2, 0, 0, 0, log(3), 0, 0, 0, 0, 4, 0, 0)),
              integers(&b, 2, VALUES(0, 0)), &s);
    check_values(run_last(&b)->out[0], VALUES(4, 8, 0, 0, 1, 5, 0, 0));
    arena_fini(&b.arena);
}

TEST(cross_entropy_of_equal_logits_is_the_logarithm_of_the_vocabulary)
{
    struct bench b;
    setup(&b);
    struct tensor *nll = vector(&b, ROLE_RESULT, 2, VALUES(0, 0));
    /* Four of five columns exist; the second row has weight 0. */
    xent(&b.g, matrix(&b, ROLE_INPUT, 2, 5, VALUES(1, 1, 1, 1, 99, 1, 2, 3, 4, 5)),
         integers(&b, 2, VALUES(2, -100)), vector(&b, ROLE_INPUT, 2, VALUES(2, 0)),
         vector(&b, ROLE_INPUT, 1, VALUES(0.5)), nll, DTYPE_F32, 4, 0);
    const struct task *t = run_last(&b);
    check_values(nll, VALUES(log(4), 0));
    check_values(t->out[2], VALUES(0.25, 0.25, -0.75, 0.25, 0, 0, 0, 0, 0, 0));
    arena_fini(&b.arena);
}

TEST(adamw_begins_with_a_step_of_the_learning_rate)
{
    const struct adamw_config config = { 0.9, 0.99, 0, 0.1 };
    struct bench b;
    setup(&b);
    struct tensor *hyper = vector(&b, ROLE_INPUT, HYPERS, VALUES(0.01, 0.1, 0.01, 0));
    struct tensor *p = matrix(&b, ROLE_STATE, 1, 2, VALUES(1, -2));
    struct tensor *m = matrix(&b, ROLE_STATE, 1, 2, VALUES(0, 0));
    struct tensor *v = matrix(&b, ROLE_STATE, 1, 2, VALUES(0, 0));
    adamw(&b.g, matrix(&b, ROLE_INPUT, 1, 2, VALUES(6, -8)),
          vector(&b, ROLE_INPUT, 1, VALUES(0.5)), hyper, p, m, v, NULL, NULL, &config);
    run_last(&b);
    check_values(p, VALUES(1 - 0.01 - 0.001, -2 + 0.01 + 0.002));
    check_values(m, VALUES(0.3, -0.4));
    check_values(v, VALUES(0.09, 0.16));
    arena_fini(&b.arena);
}

/* Five steps bring singular values near 1: between 0.7 and 1.2 (Jordan et al. 2024). */
TEST(muon_moves_by_a_nearly_orthogonal_matrix)
{
    enum { N = 6, K = 10 };
    const struct muon_config config = { .steps = 5 };
    struct bench b;
    setup(&b);
    struct tensor *y = muon_orthogonal(
        &b.g, example_normal(&b.e, ROLE_INPUT, DTYPE_F32, N, K, 1), NULL, NULL, &config);
    run_last(&b);
    for (i64 i = 0; i < N; i++) {
        for (i64 j = 0; j < N; j++) {
            double dot = 0;
            for (i64 k = 0; k < K; k++)
                dot += tensor_get(y, i * K + k) * tensor_get(y, j * K + k) / (0.04 * K);
            CHECK_NEAR(dot, i == j, 0.5);
        }
    }
    arena_fini(&b.arena);
}

TEST(clip_scales_long_gradients_and_skips_those_that_are_not_finite)
{
    static const struct { double total, limit, norm, scale; int apply; } cases[] = {
        { 16, 1, 4, 0.25, 1 }, { 16, 5, 4, 1, 1 }, { 16, 0, 4, 1, 1 }, { 0, 1, 0, 1, 1 },
        { INFINITY, 1, INFINITY, 0, 0 }, { NAN, 0, NAN, 0, 0 },
    };
    for (i64 i = 0; i < COUNT_OF(cases); i++) {
        struct bench b;
        setup(&b);
        clip(&b.g, example_scalar(&b.e, ROLE_INPUT, DTYPE_F64, cases[i].total), cases[i].limit,
             example_scalar(&b.e, ROLE_RESULT, DTYPE_F64, 0),
             example_scalar(&b.e, ROLE_RESULT, DTYPE_F32, 0),
             example_scalar(&b.e, ROLE_RESULT, DTYPE_I32, 0));
        const struct task *t = run_last(&b);
        double norm = tensor_get(t->out[0], 0);
        CHECK(norm == cases[i].norm || (isnan(norm) && isnan(cases[i].norm)));
        CHECK_NEAR(tensor_get(t->out[1], 0), cases[i].scale, 0);
        CHECK_EQ(tensor_get(t->out[2], 0), cases[i].apply);
        arena_fini(&b.arena);
    }
}

TEST_MAIN(ONE(linear_is_x_times_w_transposed), ONE(rmsnorm_divides_by_the_root_mean_square),
          ONE(layernorm_centres_and_divides_by_the_deviation), ONE(gelu_has_two_forms),
          ONE(swiglu_gates_the_second_half_by_the_first),
          ONE(rope_turns_pairs_half_a_head_apart),
          ONE(attention_to_equal_keys_is_the_mean_of_visible_values),
          ONE(attention_weighs_by_the_exponential_of_the_scaled_score),
          ONE(cross_entropy_of_equal_logits_is_the_logarithm_of_the_vocabulary),
          ONE(adamw_begins_with_a_step_of_the_learning_rate),
          ONE(muon_moves_by_a_nearly_orthogonal_matrix),
          ONE(clip_scales_long_gradients_and_skips_those_that_are_not_finite))
