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
};

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

static void run(struct trial *t, const struct setting *s, const struct train_config *c,
                const char *layout, double disturb)
{
    struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = s->gpt2 });
    struct layout l = layout_single();
    struct arena a;
    arena_init(&a);
    CHECK_OK(layout_parse(&l, layout, "test", &a));
    CHECK_OK(trial_open(t, c, &spec, &l, "auto"));
    if (disturb > 0)
        trial_disturb(t, disturb);
    else if (s->plant && !l.exact)
        s->plant(t);
    for (i64 step = 0; step < s->steps; step++)
        CHECK_OK(trial_step(t, step));
    arena_fini(&a);
}

static struct verdict judge(const struct setting *s)
{
    struct trial many, one, disturbed;
    struct trial_line *lines;
    struct verdict v = { 0 };
    struct arena a;
    arena_init(&a);
    struct train_config c = config_of(s, &a);
    struct model_spec spec = tiny_spec_of(&(struct tiny_options){ .gpt2 = s->gpt2 });
    run(&many, s, &c, s->layout, 0);
    run(&one, s, &c, "exact=true", 0);
    run(&disturbed, s, &c, "exact=true", trial_rounding(&c, &spec));
    i64 n = trial_compare(&many, &one, &disturbed, &lines, &a);
    const struct trial_line *bad = trial_first(lines, n);
    CHECK(n >= one.rank[0].model->n_params * 3);
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
            struct setting s = { layouts[i], form & 1, form & 2, 1 + i % 2, NULL };
            struct verdict v = judge(&s);
            if (v.bad)
                fail_msg("%s, %s%s: %s of %s on rank %d is %g times the bound", s.layout,
                         s.gpt2 ? "gpt2" : "llama", s.half ? ", bf16" : "", v.kind, v.name, v.rank,
                         v.ratio);
            CHECK(v.worst > 0);
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

/* A rank reads the row behind its own. */
static void wrong_row(struct trial *t)
{
    t->rank[1].rows.first++;
}

/* Another decay of squares in layer 1. */
static void wrong_rate(struct trial *t)
{
    for (int r = 0; r < t->n; r++)
        find(&t->rank[r], &op_adamw, LANE_COMPUTE, 1)->attr[ADAMW_B2] = 0.9;
}

static void expect_named(const char *layout, void (*plant)(struct trial *t), const char *kind,
                         const char *name)
{
    for (int half = 0; half < 2; half++) {
        struct setting s = { layout, true, half, 1, plant };
        struct verdict v = judge(&s);
        if (!v.bad || strcmp(v.kind, kind) != 0 || !strstr(v.name, name))
            fail_msg("%s%s: %s of %s, expected %s of %s", layout, half ? ", bf16" : "",
                     v.bad ? v.kind : "nothing", v.name, kind, name);
    }
}

TEST(faults_are_named_at_the_first_tensor_that_they_touch)
{
    expect_named("dp=2", dropped_reduction, "gradient", "blocks.1.");
    expect_named("dp=2", wrong_count, "gradient", "norm_f");
    expect_named("dp=2", wrong_row, "gradient", "norm_f");
    expect_named("dp=2,zero=1", wrong_rate, "second moment", "blocks.1.");
}

TEST_MAIN(ONE(rounding_is_all_that_layouts_change),
          ONE(faults_are_named_at_the_first_tensor_that_they_touch))
