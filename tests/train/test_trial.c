/* Fast layouts beside one exact rank: rounding passes, faults are named at the right tensor. */
#include "train/trial.h"
#include "train/tiny_spec.h"

#include "ops/ops.h"

#include <stdio.h>
#include <string.h>

struct setting {
    const char *layout;
    bool gpt2, half;
    i64 steps;
    void (*plant)(struct trial *t);
    enum tiny_experts experts;
    i64 kv_heads;
    bool latent;
};

static struct model_spec spec_of(const struct setting *s)
{
    const struct tiny_options options = { .gpt2 = s->gpt2, .experts = s->experts,
                                          .latent = s->latent };
    struct model_spec spec = tiny_spec_of(&options);
    if (s->kv_heads)
        spec.kv_heads = s->kv_heads;
    return spec;
}

struct verdict {
    bool bad;
    char kind[32], name[96];
    int rank;
    double ratio, worst;
};

static struct train_config config_of(const struct setting *s, struct arena *a)
{
    struct train_config c;
    option_set_defaults(train_options, &c, a);
    c.train.batch = 4;
    c.train.accumulate = 2;
    c.train.seq = 32;
    c.train.precision = s->half ? PRECISION_BF16 : PRECISION_FP32;
    return c;
}

/* one: NULL, or with `disturbed` those to compare with. */
static void run(struct trial *t, const struct setting *s, const struct train_config *c,
                const char *layout, double disturb, const struct trial *one,
                const struct trial *disturbed)
{
    struct model_spec spec = spec_of(s);
    struct layout l = layout_single();
    struct arena a;
    arena_init(&a);
    CHECK_OK(layout_parse(&l, layout, "test", &a));
    CHECK_OK(trial_open(t, c, &spec, &l, "auto"));
    if (disturb > 0)
        trial_disturb(t, disturb);
    else if (s->plant && one)
        s->plant(t);
    for (i64 step = 0; step < s->steps; step++) {
        if (step == s->steps - 1)
            trial_watch(t, one, disturbed);
        CHECK_OK(trial_step(t, step));
    }
    arena_fini(&a);
}

/* Of every matrix that a product multiplies, what goes in and the gradient of what comes out. */
static void count_watched(const struct trial *one, const struct trial_line *lines, i64 n)
{
    const struct model *m = one->rank[0].model;
    i64 matrices = 0, seen[2] = { 0, 0 };
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param_desc *d = &m->params[i].desc;
        bool table = d->kind == PARAM_EMBEDDING && !(d->id == P_WTE && m->spec.tied);
        matrices += d->rank == 2 && !table;
    }
    for (i64 i = 0; i < n; i++) {
        seen[0] += strcmp(lines[i].kind, "input") == 0;
        seen[1] += strcmp(lines[i].kind, "output's gradient") == 0;
        CHECK(i == 0 || lines[i].order >= lines[i - 1].order);
    }
    CHECK_EQ(seen[0], matrices);
    CHECK_EQ(seen[1], matrices);
}

static struct verdict judge(const struct setting *s)
{
    struct trial many, one, disturbed;
    struct trial_line *lines;
    struct verdict v = { 0 };
    struct arena a;
    arena_init(&a);
    struct train_config c = config_of(s, &a);
    struct model_spec spec = spec_of(s);
    run(&one, s, &c, "exact=true", 0, NULL, NULL);
    run(&disturbed, s, &c, "exact=true", trial_rounding(&c, &spec), NULL, NULL);
    run(&many, s, &c, s->layout, 0, &one, &disturbed);
    i64 n = trial_compare(&many, &one, &disturbed, &lines, &a);
    const struct trial_line *bad = trial_first(lines, n);
    CHECK(n >= one.rank[0].model->n_params * 3);
    count_watched(&one, lines, n);
    for (i64 i = 0; i < n; i++)
        v.worst = lines[i].ratio > v.worst ? lines[i].ratio : v.worst;
    if (bad) {
        v.bad = true;
        v.rank = bad->rank;
        v.ratio = bad->ratio;
        snprintf(v.kind, sizeof v.kind, "%s", bad->kind);
        snprintf(v.name, sizeof v.name, "%s", bad->name);
    }
    trial_close(&many);
    trial_close(&one);
    trial_close(&disturbed);
    arena_fini(&a);
    return v;
}

TEST(rounding_is_all_that_layouts_change)
{
    static const char *const layouts[] = {
        "dp=2", "dp=4,zero=1", "dp=2,zero=2", "dp=2,zero=3", "tp=2", "dp=2,tp=2,zero=1",
        "cp=2", "cp=2,dp=2,zero=3", "pp=2", "pp=2,dp=2,tp=2,zero=1",
    };
    for (i64 i = 0; i < COUNT_OF(layouts); i++)
        for (int form = 0; form < 4; form++) {
            struct setting s = { layouts[i], form & 1, form & 2, 1 + i % 2, NULL, TINY_DENSE, 0,
                                 false };
            struct verdict v = judge(&s);
            if (v.bad)
                fail_msg("%s, %s%s: %s of %s on rank %d is %g times the bound", s.layout,
                         s.gpt2 ? "gpt2" : "llama", s.half ? ", bf16" : "", v.kind, v.name, v.rank,
                         v.ratio);
            CHECK(v.worst > 0);
        }
}

TEST(so_it_is_with_experts_shared_heads_latents_and_exact_layouts)
{
    static const struct setting settings[] = {
        { "dp=2,ep=2", false, false, 1, NULL, TINY_MIXTRAL, 0, false },
        { "cp=2,ep=2", false, false, 2, NULL, TINY_DEEPSEEK, 0, false },
        { "dp=2,ep=2,tp=2,zero=3", false, false, 1, NULL, TINY_DEEPSEEK, 0, false },
        { "tp=4", false, false, 2, NULL, TINY_DENSE, 2, false },
        { "tp=4,pp=2,zero=1", false, true, 1, NULL, TINY_DENSE, 1, false },
        { "pp=2,schedule=zb-h1", true, false, 1, NULL, TINY_DENSE, 0, false },
        { "dp=2,zero=2,exact=true", true, false, 1, NULL, TINY_DENSE, 0, false },
        { "cp=2,exact=true,exact_context=true", true, false, 1, NULL, TINY_DENSE, 0, false },
        { "tp=2", false, false, 2, NULL, TINY_DEEPSEEK, 0, true },
        { "pp=2,tp=4,dp=2,zero=2", false, true, 1, NULL, TINY_DENSE, 0, true },
        { "dp=2,zero=1,exact=true", false, false, 1, NULL, TINY_DENSE, 0, true },
    };
    for (i64 i = 0; i < COUNT_OF(settings); i++) {
        struct verdict v = judge(&settings[i]);
        if (v.bad)
            fail_msg("%s: %s of %s on rank %d is %g times the bound", settings[i].layout,
                     v.kind, v.name, v.rank, v.ratio);
    }
}

/* --- faults ------------------------------------------------------------------------- */

/* The n-th task of this op on this lane in layer `layer`. */
static struct task *find(struct trial_rank *k, const struct op_info *op, enum lane lane, int layer)
{
    const struct program *p = k->step.program;
    for (i64 i = 0; i < p->n_tasks; i++)
        if (p->by_id[i]->op == op && p->by_id[i]->lane == lane && p->by_id[i]->layer == layer)
            return p->by_id[i];
    fail_msg("there is no such task");
    return NULL;
}

static void leave_out(struct trial_rank *k, struct task *t)
{
    struct tensor *never = ARENA_NEW(&k->arena, struct tensor);
    never->data = ARENA_NEW(&k->arena, i32);
    t->when = never;
}

/* Of the bucket of layer 1, behind the back of the check of spreads. */
static void dropped_reduction(struct trial *t)
{
    for (int r = 0; r < t->n; r++) {
        struct trial_rank *k = &t->rank[r];
        const struct program *p = k->step.program;
        const struct tensor *grad = k->model->buckets[2].own_grad;
        for (i64 i = 0; i < p->n_tasks; i++)
            if (p->by_id[i]->op == &op_all_reduce && p->by_id[i]->lane == LANE_DP &&
                (p->by_id[i]->in[0] == grad || p->by_id[i]->in[0]->owner == grad))
                leave_out(k, p->by_id[i]);
    }
}

/* One rank weighs its tokens by half the count. */
static struct kernel right_batch;
static void wrong_count_kernel(const struct task *t, struct run *x)
{
    right_batch.run(t, x);
    *(float *)t->out[BATCH_INV_WEIGHT]->data *= 2;
}

static void wrong_count(struct trial *t)
{
    struct backend *b = &t->rank[1].engine.backend;
    right_batch = *backend_kernel(b, &op_load_batch);
    backend_set(b, &op_load_batch,
                (struct kernel){ .run = wrong_count_kernel, .context = right_batch.context });
}

/* A rank takes part with the row before its own, and what it has of that is right. */
static void wrong_row(struct trial *t)
{
    t->rank[1].rows.first--;
}

/* One rank's attention of layer 1 is too sharp. */
static void wrong_scale(struct trial *t)
{
    find(&t->rank[1], &op_attention, LANE_COMPUTE, 1)->attr[ATTENTION_SCALE] *= 1.5;
}

/* And what it gives back. */
static void wrong_grad(struct trial *t)
{
    find(&t->rank[1], &op_attention_grad, LANE_COMPUTE, 1)->attr[ATTENTION_SCALE] *= 1.5;
}

static void wrong_last_grad(struct trial *t)
{
    find(&t->rank[1], &op_attention_grad, LANE_COMPUTE, 2)->attr[ATTENTION_SCALE] *= 1.5;
}

/* One rank's experts make too much of their rows. */
static struct kernel right_experts;
static void wrong_experts_kernel(const struct task *t, struct run *x)
{
    right_experts.run(t, x);
    for (i64 i = 0; i < tensor_count(t->out[0]); i++)
        tensor_set(t->out[0], i, 1.01 * tensor_get(t->out[0], i));
}

static void wrong_experts(struct trial *t)
{
    struct backend *b = &t->rank[1].engine.backend;
    right_experts = *backend_kernel(b, &op_expert_linear);
    backend_set(b, &op_expert_linear, (struct kernel){ .run = wrong_experts_kernel,
                                                       .workspace = right_experts.workspace,
                                                       .context = right_experts.context });
}

/* Another decay of squares in layer 1. */
static void wrong_rate(struct trial *t)
{
    for (int r = 0; r < t->n; r++)
        find(&t->rank[r], &op_adamw, LANE_COMPUTE, 1)->attr[ADAMW_B2] = 0.9;
}

/* Each stage has a norm of its own, which clipping would not show while it does not bind. */
static void norm_of_a_stage(struct trial *t)
{
    for (int r = 0; r < t->n; r++) {
        const struct program *p = t->rank[r].step.program;
        for (i64 i = 0; i < p->n_tasks; i++)
            if (p->by_id[i]->op == &op_all_reduce && p->by_id[i]->lane == LANE_PP) {
                p->by_id[i]->op = &op_add_norms;
                p->by_id[i]->lane = LANE_COMPUTE;
            }
    }
}

/* What is told of the loss is not what was learned from. */
static void loss_of_half_the_rows(struct trial *t)
{
    leave_out(&t->rank[1], find(&t->rank[1], &op_loss_sums, LANE_COMPUTE, -1));
}

static void expect_named(const char *layout, void (*plant)(struct trial *t), const char *kind,
                         const char *name)
{
    for (int half = 0; half < 2; half++) {
        struct setting s = { layout, true, half, 1, plant, TINY_DENSE, 0, false };
        struct verdict v = judge(&s);
        if (!v.bad || strcmp(v.kind, kind) != 0 || !strstr(v.name, name))
            fail_msg("%s%s: %s of %s, expected %s of %s", layout, half ? ", bf16" : "",
                     v.bad ? v.kind : "nothing", v.name, kind, name);
    }
}

TEST(faults_are_named_at_the_first_tensor_that_they_touch)
{
    expect_named("dp=2", dropped_reduction, "gradient", "blocks.1.");
    expect_named("dp=2", wrong_count, "output's gradient", "wte.weight");
    expect_named("dp=2", wrong_row, "gradient", "norm_f");
    expect_named("tp=2", wrong_scale, "input", "blocks.1.attn.out.weight");
    expect_named("dp=2", wrong_scale, "input", "blocks.1.attn.out.weight");
    expect_named("dp=2,zero=3", wrong_grad, "output's gradient", "blocks.1.attn.qkv.weight");
    expect_named("pp=2", wrong_last_grad, "output's gradient", "blocks.2.attn.qkv.weight");
    expect_named("dp=2,zero=1", wrong_rate, "second moment", "blocks.1.");
    expect_named("pp=2", norm_of_a_stage, "norm", "the gradient");
    expect_named("dp=2", loss_of_half_the_rows, "loss", "the step");
}

TEST(a_fault_in_an_expert_is_named_there)
{
    static const char *const layouts[] = { "dp=2,ep=2", "dp=2", "tp=2", "cp=2,ep=2" };
    for (i64 i = 0; i < COUNT_OF(layouts); i++) {
        struct setting s = { layouts[i], false, false, 1, wrong_experts, TINY_MIXTRAL, 0, false };
        struct verdict v = judge(&s);
        if (!v.bad || strcmp(v.kind, "input") != 0 || !strstr(v.name, "blocks.0.mlp.experts.down"))
            fail_msg("%s: %s of %s is named", layouts[i], v.bad ? v.kind : "nothing", v.name);
        if (strstr(layouts[i], "ep=2") || strcmp(layouts[i], "tp=2") == 0)
            CHECK_EQ(v.rank, 1);
    }
}

TEST_MAIN(ONE(rounding_is_all_that_layouts_change),
          ONE(so_it_is_with_experts_shared_heads_latents_and_exact_layouts),
          ONE(faults_are_named_at_the_first_tensor_that_they_touch),
          ONE(a_fault_in_an_expert_is_named_there))
