/* Whole training steps: what must not change the result does not change a bit of it. */
#include "test.h"

#include "train/router_metrics.h"
#include "train/tiny.h"

#include <math.h>

static const struct tiny_options plain = { .backend = "reference", .gpt2 = true, .threads = 1,
                                           .micro_batches = 2, .B = 2, .T = 24 };

static void expect_equal(const struct tiny_options *a, const struct tiny_options *b)
{
    struct tiny x, y;
    tiny_open(&x, a);
    tiny_open(&y, b);
    for (u64 step = 0; step < 2; step++) {
        double loss = tiny_step(&x, step), other = tiny_step(&y, step);
        CHECK(isfinite(loss) && loss == other);
        const char *where = tiny_difference(&x, &y);
        if (where)
            fail_msg("step %d: %s differs", (int)step, where);
    }
    tiny_close(&x);
    tiny_close(&y);
}

/* Experts of every kind, in fp32 and bf16. */
TEST(neither_recompute_nor_threads_change_a_bit_of_experts)
{
    for (int kind = TINY_MIXTRAL; kind <= TINY_CAPACITY; kind++) {
        for (int half = 0; half < 2; half++) {
            struct tiny_options a = plain, b;
            a.backend = backend_best();
            a.gpt2 = false;
            a.bf16 = half;
            a.experts = (enum tiny_experts)kind;
            b = a;
            b.recompute = RECOMPUTE_SELECTIVE;
            b.threads = 2;
            expect_equal(&a, &b);
            b.recompute = RECOMPUTE_FULL;
            b.threads = 4;
            expect_equal(&a, &b);
        }
    }
}

/* Every backend that this machine has, but reference is slow: small shapes. */
static const char *const backends[] = { "reference", "generic", "avx2", "avx512", "avx512bf16",
                                        "amx" };

TEST(recompute_changes_no_bit)
{
    for (int i = 0; i < COUNT_OF(backends); i++) {
        for (int variant = 0; variant < 4 && backend_supported(backends[i]); variant++) {
            struct tiny_options a = plain, b;
            a.backend = backends[i];
            a.gpt2 = variant & 1;
            a.bf16 = variant & 2;
            b = a;
            b.recompute = RECOMPUTE_SELECTIVE;
            expect_equal(&a, &b);
            b.recompute = RECOMPUTE_FULL;
            expect_equal(&a, &b);
        }
    }
}

TEST(thread_count_changes_no_bit)
{
    for (int i = 0; i < COUNT_OF(backends); i++) {
        for (int variant = 0; variant < 4 && backend_supported(backends[i]); variant++) {
            struct tiny_options a = plain, b;
            a.backend = backends[i];
            a.gpt2 = variant & 1;
            a.bf16 = variant & 2;
            a.B = 3;
            b = a;
            b.threads = 2;
            expect_equal(&a, &b);
            b.threads = 4;
            expect_equal(&a, &b);
        }
    }
}

TEST(repeated_runs_agree_to_the_bit)
{
    struct tiny_options muon = plain;
    muon.backend = backend_best();
    muon.optimizer = OPTIMIZER_MUON;
    muon.threads = 2;
    expect_equal(&muon, &muon);
    muon.gpt2 = false;
    muon.experts = TINY_DEEPSEEK;
    expect_equal(&muon, &muon);
}

TEST(gradients_that_share_memory_train_the_same_weights)
{
    for (int variant = 0; variant < 16; variant++) {
        struct tiny a, b;
        struct tiny_options o = plain;
        o.backend = backend_best();
        o.micro_batches = 1;
        o.gpt2 = variant & 1;
        o.bf16 = variant & 2;
        o.recompute = variant & 4 ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        o.experts = variant & 8 ? TINY_DEEPSEEK : TINY_DENSE;
        tiny_open(&a, &o);
        o.lent = true;
        tiny_open(&b, &o);
        memset(b.engine.region, 0xff, (size_t)b.engine.region_bytes);
        for (u64 step = 0; step < 3; step++)
            CHECK(tiny_step(&a, step) == tiny_step(&b, step));
        for (i64 i = 0; i < a.model->n_params; i++) {
            const struct param *p = &a.model->params[i], *q = &b.model->params[i];
            CHECK(memcmp(p->master->data, q->master->data, (size_t)tensor_bytes(p->master)) == 0);
            CHECK(memcmp(p->m->data, q->m->data, (size_t)tensor_bytes(p->m)) == 0);
        }
        i64 more = b.engine.region_bytes - a.engine.region_bytes;
        CHECK(more < a.model->region_bytes - b.model->region_bytes);
        tiny_close(&a);
        tiny_close(&b);
    }
}

/* What is not attention is 6 operations per token and weight in products (Kaplan et al. 2020), and
 * of the experts' weights those that a token meets. */
TEST(experts_cost_what_a_token_meets_of_them)
{
    struct tiny dense, sparse;
    struct tiny_options o = plain;
    o.backend = backend_best();
    o.gpt2 = false;
    tiny_open(&dense, &o);
    for (int kind = TINY_MIXTRAL; kind <= TINY_DEEPSEEK; kind++) {
        o.experts = (enum tiny_experts)kind;
        tiny_open(&sparse, &o);
        double weights = (double)(params_matmul(&sparse.model->spec) -
                                  params_matmul(&dense.model->spec));
        double flops = sparse.step.program->cost.model_flops - dense.step.program->cost.model_flops;
        CHECK_NEAR(flops, 6 * weights * 2 * 2 * 24, 1e-9 * fabs(flops));
        tiny_close(&sparse);
    }
    tiny_close(&dense);
}

/* DeepSeek-V3's rule, over both micro-batches of a step: the bias of an expert with more than its
 * share of the tokens falls, of one with less it rises. */
TEST(the_bias_of_choice_moves_against_the_load)
{
    struct tiny t;
    struct tiny_options o = plain;
    o.backend = backend_best();
    o.gpt2 = false;
    o.experts = TINY_DEEPSEEK;
    tiny_open(&t, &o);
    const i64 E = t.model->spec.experts;
    tiny_step(&t, 0);
    for (int layer = 1; layer < 3; layer++) {
        const struct param *p = model_param(t.model, P_ROUTER_BIAS, layer);
        const float *bias = p->master->data, *counts = p->grad->data;
        const double *load = (const double *)t.io.load->data + (layer - 1) * (E + 3);
        double mean = 0;
        for (i64 e = 0; e < E; e++)
            mean += load[e] / (double)E;
        CHECK(mean == 2.0 * (double)(2 * 2 * 24) / (double)E); /* k tokens / E */
        for (i64 e = 0; e < E; e++) {
            double want = load[e] < mean ? 0.01 : load[e] > mean ? -0.01 : 0;
            CHECK_NEAR(bias[e], want, 1e-9);
            CHECK(counts[e] == (float)load[e]);
        }
    }
    CHECK(!model_param(t.model, P_ROUTER_BIAS, 0));
    tiny_close(&t);
}

/* The busiest expert over the mean: after 40 steps on four batches, on average of 20
 * more, since single steps go up and down (kernels whose rounding differs give means
 * within 4 % of each other). */
static double imbalance_after(enum tiny_experts kind, double aux, double rate)
{
    enum { LEARNT = 40, STEPS = 60 };
    struct tiny t;
    struct tiny_options o = plain;
    double sum = 0;
    o.backend = backend_best();
    o.gpt2 = false;
    o.experts = kind;
    struct model_spec spec = tiny_spec_of(&o);
    spec.aux_loss = aux;
    spec.bias_rate = rate;
    tiny_open_spec(&t, &o, spec);
    for (u64 step = 0; step < STEPS; step++) {
        tiny_step(&t, step % 4);
        struct router_metrics m = router_metrics(t.io.load, 2, o.T, 0);
        CHECK(m.aux > 1.9 && m.worst >= m.imbalance && m.imbalance >= 1);
        sum += step >= LEARNT ? m.imbalance / (STEPS - LEARNT) : 0;
    }
    tiny_close(&t);
    return sum;
}

/* Counted from what the sorting task left out. */
TEST(rows_for_which_experts_have_no_room_are_counted)
{
    struct tiny t;
    struct tiny_options o = plain;
    o.backend = backend_best();
    o.gpt2 = false;
    o.micro_batches = 1;
    o.experts = TINY_CAPACITY;
    tiny_open(&t, &o);
    tiny_step(&t, 0);
    const i64 E = t.model->spec.experts, capacity = decoder_capacity(&t.model->spec, o.T);
    i64 layer = 0, left_out = 0;
    CHECK(capacity == (i64)ceil(1.25 * 2 * (double)o.T / (double)E));
    for (i64 id = 0; id < t.step.program->n_tasks; id++) {
        const struct task *order = t.step.program->by_id[id];
        if (order->op != &op_expert_order)
            continue;
        const double *load = (const double *)t.io.load->data + layer++ * (E + 3);
        double taken = ((const i32 *)order->out[2]->data)[E], choices = 2.0 * (double)(o.B * o.T);
        CHECK(load[E + 2] == choices - taken || order->layer < 2); /* else its place is taken */
        left_out += load[E + 2] > 0;
    }
    CHECK(layer == 3 && left_out > 0);
    struct router_metrics m = router_metrics(t.io.load, 2, o.T, capacity);
    CHECK(m.dropped > 0 && m.dropped < 1 && m.fill > 0.5 && m.fill <= 1);
    CHECK_NEAR(m.fill * (double)(E * capacity), (1 - m.dropped) * 2 * (double)o.T, 1e-9);
    tiny_close(&t);
}

TEST(both_ways_of_balancing_even_the_load_out)
{
    CHECK(imbalance_after(TINY_MIXTRAL, 1, 0) < 0.85 * imbalance_after(TINY_MIXTRAL, 0, 0));
    CHECK(imbalance_after(TINY_DEEPSEEK, 0, 0.005) < 0.9 * imbalance_after(TINY_DEEPSEEK, 0, 0));
}

TEST(the_loss_starts_near_uniform_and_falls)
{
    struct tiny_options o = plain;
    struct tiny t;
    o.backend = backend_best();
    tiny_open(&t, &o);
    double first = tiny_step(&t, 0), last = first;
    for (int i = 0; i < 30; i++) { /* the same batch again and again: it must be learnt */
        last = tiny_step(&t, 0);
    }
    CHECK(first > 3 && first < 8); /* log 61 = 4.1, plus what the wide initial weights add */
    CHECK(last < first - 1);
    tiny_close(&t);
}

TEST(a_step_that_is_not_finite_touches_nothing)
{
    struct tiny t;
    struct tiny_options o = plain;
    o.backend = backend_best();
    tiny_open(&t, &o);
    tiny_step(&t, 0);
    struct param *p = model_param(t.model, P_QKV, 1);
    i64 bytes = tensor_bytes(p->master);
    void *before = arena_alloc(&t.arena, bytes), *m = arena_alloc(&t.arena, bytes);
    struct param *other = model_param(t.model, P_NORM_F_BIAS, -1);
    ((float *)other->master->data)[0] = INFINITY;
    memcpy(before, p->master->data, (size_t)bytes);
    memcpy(m, p->m->data, (size_t)bytes);
    tiny_step(&t, 1);
    CHECK_EQ(*(i32 *)t.io.apply->data, 0);
    CHECK(memcmp(before, p->master->data, (size_t)bytes) == 0);
    CHECK(memcmp(m, p->m->data, (size_t)bytes) == 0);
    tiny_close(&t);
}

TEST(the_gradient_is_scaled_down_to_the_norm_that_the_recipe_allows)
{
    for (int strict = 0; strict < 2; strict++) {
        struct tiny t;
        struct tiny_options o = plain;
        o.backend = backend_best();
        o.clip = strict ? 1e-3 : 1e6;
        tiny_open(&t, &o);
        tiny_step(&t, 0);
        const double norm = *(double *)t.io.norm->data, scale = *(float *)t.io.scale->data;
        CHECK(norm > 1e-2 && norm < 1e5);
        CHECK_NEAR(scale, strict ? 1e-3 / norm : 1, 1e-6 * scale);
        tiny_close(&t);
    }
}

/* Of AdamW's parameters, of Muon's, and the bias of choice. */
TEST(the_average_begins_as_every_weight_and_follows_it)
{
    for (int variant = 0; variant < 4; variant++) {
        struct tiny t;
        struct tiny_options o = plain;
        o.backend = backend_best();
        o.gpt2 = false;
        o.optimizer = variant & 1 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
        o.experts = variant & 2 ? TINY_DEEPSEEK : TINY_DENSE;
        tiny_open(&t, &o);
        for (i64 i = 0; i < t.model->n_params; i++) {
            const struct param *p = &t.model->params[i];
            CHECK(memcmp(p->ema->data, p->master->data, (size_t)tensor_bytes(p->ema)) == 0);
            memset(p->ema->data, 0, (size_t)tensor_bytes(p->ema));
        }
        tiny_step(&t, 0);
        for (i64 i = 0; i < t.model->n_params; i++) {
            const struct param *p = &t.model->params[i];
            const float *weight = p->master->data, *average = p->ema->data;
            for (i64 k = 0; k < tensor_count(p->ema); k++)
                if (fabsf(average[k] - 0.1f * weight[k]) > 1e-5f * fabsf(weight[k]))
                    fail_msg("%s: the average of %g is %g", p->desc.name, (double)weight[k],
                             (double)average[k]);
        }
        tiny_close(&t);
    }
}

/* Two first steps that differ in the decay alone: matrices, routers' too, differ by lr times that
 * of what they were, which both began with; vectors do not. */
TEST(decay_shrinks_matrices_under_either_optimizer)
{
    for (int variant = 0; variant < 4; variant++) {
        struct tiny less, more, untouched;
        struct tiny_options o = plain;
        o.backend = backend_best();
        o.optimizer = variant & 1 ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
        o.gpt2 = !(variant & 2);
        o.experts = variant & 2 ? TINY_DEEPSEEK : TINY_DENSE;
        tiny_open(&untouched, &o);
        tiny_open(&less, &o);
        o.decay_more = 2;
        tiny_open(&more, &o);
        tiny_step(&less, 0);
        tiny_step(&more, 0);
        for (i64 i = 0; i < less.model->n_params; i++) {
            const struct param *p = &less.model->params[i];
            const float *a = p->master->data, *b = more.model->params[i].master->data;
            const float *old = untouched.model->params[i].master->data;
            const float lr = p->desc.rank == 2 ? 1e-2f : 0;
            for (i64 k = 0; k < tensor_count(p->master); k++)
                if (fabsf(a[k] - b[k] - 2 * lr * old[k]) > 1e-6f * (1 + fabsf(old[k])))
                    fail_msg("%s: %g became %g and %g", p->desc.name, (double)old[k],
                             (double)a[k], (double)b[k]);
        }
        tiny_close(&less);
        tiny_close(&more);
        tiny_close(&untouched);
    }
}

TEST(the_plan_is_close_to_the_lower_bound)
{
    for (int policy = RECOMPUTE_NONE; policy <= RECOMPUTE_FULL; policy++) {
        struct tiny t;
        struct tiny_options o = plain;
        o.recompute = (enum recompute)policy;
        tiny_open(&t, &o);
        const struct memory_plan *plan = &t.step.program->memory;
        CHECK(plan->bytes >= plan->least_bytes);
        CHECK(plan->bytes <= plan->least_bytes * 11 / 10); /* first fit's usual waste is 2 % */
        tiny_close(&t);
    }
}

static i64 bytes_with(enum recompute policy)
{
    struct tiny t;
    struct tiny_options o = plain;
    o.recompute = policy;
    tiny_open(&t, &o);
    i64 bytes = t.step.program->memory.bytes;
    tiny_close(&t);
    return bytes;
}

TEST(recompute_saves_memory)
{
    CHECK(bytes_with(RECOMPUTE_SELECTIVE) < bytes_with(RECOMPUTE_NONE));
    CHECK(bytes_with(RECOMPUTE_FULL) < bytes_with(RECOMPUTE_SELECTIVE));
}

/* What is read must have been written before it, and no two live tensors may share bytes:
 * run with every activation poisoned before each step. */
TEST(no_task_reads_what_nobody_wrote)
{
    for (int kind = TINY_DENSE; kind <= TINY_CAPACITY; kind++) {
        struct tiny a, b;
        struct tiny_options o = plain;
        o.backend = backend_best();
        o.recompute = RECOMPUTE_SELECTIVE;
        o.gpt2 = kind == TINY_DENSE;
        o.experts = (enum tiny_experts)kind;
        tiny_open(&a, &o);
        tiny_open(&b, &o);
        memset(b.engine.region, 0xff, (size_t)b.engine.region_bytes);
        memset(b.engine.workspace, 0xff, (size_t)b.engine.workspace_bytes);
        CHECK(tiny_step(&a, 0) == tiny_step(&b, 0));
        CHECK(tiny_difference(&a, &b) == NULL);
        tiny_close(&a);
        tiny_close(&b);
    }
}

TEST_MAIN(ONE(recompute_changes_no_bit), ONE(thread_count_changes_no_bit),
          ONE(repeated_runs_agree_to_the_bit),
          ONE(gradients_that_share_memory_train_the_same_weights),
          ONE(neither_recompute_nor_threads_change_a_bit_of_experts),
          ONE(experts_cost_what_a_token_meets_of_them),
          ONE(the_bias_of_choice_moves_against_the_load),
          ONE(rows_for_which_experts_have_no_room_are_counted),
          ONE(both_ways_of_balancing_even_the_load_out),
          ONE(the_loss_starts_near_uniform_and_falls),
          ONE(a_step_that_is_not_finite_touches_nothing),
          ONE(the_gradient_is_scaled_down_to_the_norm_that_the_recipe_allows),
          ONE(the_average_begins_as_every_weight_and_follows_it),
          ONE(decay_shrinks_matrices_under_either_optimizer),
          ONE(the_plan_is_close_to_the_lower_bound), ONE(recompute_saves_memory),
          ONE(no_task_reads_what_nobody_wrote))
